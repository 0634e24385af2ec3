"""The options of inference: which bundle, on what, and how much may wait."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from monitor.settings import Settings


class InferenceSettings(Settings):
    """How the model runs."""

    bundle: Path = Field(Path("bundles/default"), description="Folder of the model bundle.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto",
        description="Where the model runs. auto: an NVIDIA GPU when onnxruntime-gpu finds one and the bundle has "
        "model.fp16.onnx, else the CPU.",
    )
    threads: int = Field(0, ge=0, description="CPU cores for the model; 0: all that this process may use.")
    batch_tokens: int = Field(
        0,
        ge=0,
        description="Tokens in one run of the model, padding included; 0: 512 on a CPU (what stays in its cache), "
        "16384 on a GPU. Smaller answers sooner, larger needs more memory.",
    )
    starvation_s: float = Field(
        2.0,
        gt=0,
        description="After waiting this long (seconds) a document is no longer passed over by fuller batches.",
    )
    queue_documents: int = Field(
        2048, ge=1, description="Documents that may wait for the model or be in it; when full, fetching pauses."
    )
    embeddings: bool = Field(
        True,
        description="Opinions carry what the encoder made of the text (512 of some 1,000 bytes). Without it, alerts cannot tell "
        "whether a rise is one event, nor join one story about several names.",
    )
    gpu_memory_limit_mib: int = Field(
        0, ge=0, description="Most GPU memory that the model may take, in MiB; 0: no limit."
    )
    drain_timeout_s: float = Field(
        10.0, ge=0, description="On shutdown, how long (seconds) to wait for the documents that are in the queue."
    )

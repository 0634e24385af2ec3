"""The model in memory: texts to token ids, token ids to logits, on ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from tokenizers import Tokenizer

from monitor.errors import BabelwatchError, BundleError, ConfigError
from monitor.inference.batching import Grid
from monitor.inference.bundle import Bundle, Variant
from monitor.inference.processor import cpu_options
from monitor.inference.settings import InferenceSettings

Device = Literal["cpu", "cuda"]
Reason = Literal["not_encodable", "not_finite", "out_of_memory", "inference"]
"""Why a text has no result; one word from a fixed list, since it is a metric's label too."""

TokenIds = NDArray[np.int64]

_EMBEDDING = "embedding"
_CHARS_PER_TOKEN = 32
"""A text is cut at so many characters per token of `max_length` before tokenising, which costs time for the whole text
(0.4 s per megabyte). Pieces are at most 16 characters, so only long runs of spaces could make this cut anything."""
_CPU_BATCH_TOKENS = 512
"""On a CPU, activations of 512 tokens stay in the second-level cache; 4096 cost 30 % more time per text."""
_CUDA_BATCH_TOKENS = 16384
_MEBIBYTE = 1 << 20
_SILENT = 4
"""ONNX Runtime prints nothing below "fatal": what goes wrong arrives as an exception, and the log is ours."""


class InferenceError(BabelwatchError):
    """The model gave no usable result for a batch."""

    def __init__(self, reason: Reason, what: str, *, hint: str = "") -> None:
        super().__init__(what, where="inference", hint=hint)
        self.reason: Reason = reason


@dataclass(frozen=True, slots=True)
class Outputs:
    """What the model says of some texts, row by row."""

    logits: dict[str, NDArray[np.float32]]
    """By head. *Shape:* ``[texts, labels]``, finite."""
    embedding: NDArray[np.float32] | None
    """*Shape:* ``[texts, hidden]``, finite; None when the model has no such output."""


class Engine:
    """A bundle made ready to run; `infer` may be called from `concurrency` threads at once.

    On a CPU each run uses one core and `threads` runs go side by side: no core waits for another inside a layer, and no
    spinning thread takes time from the rest of the process. On a GPU two runs overlap one's copying with the other's
    computing. Both calls release the GIL while they work.

    Args:
        bundle: Verified already.
        settings: `device`, `threads`, `batch_tokens`, `embeddings` and `gpu_memory_limit_mib` are used.

    Raises:
        ConfigError: `device` is `cuda` and cannot be had.
        BundleError: The tokenizer or the model cannot be loaded, or lacks an input or output that the format promises.
    """

    def __init__(self, bundle: Bundle, settings: InferenceSettings) -> None:
        self.bundle = bundle
        self._manifest = bundle.manifest
        self._tokenizer = _tokenizer(bundle)
        self._session, self.device = _open_session(bundle, settings)
        cpu = self.device == "cpu"
        self.concurrency = settings.threads or usable_cpus() if cpu else 2
        """How many threads should call `infer`."""
        self.grid = Grid.up_to(
            self._manifest.max_length,
            budget_tokens=settings.batch_tokens or (_CPU_BATCH_TOKENS if cpu else _CUDA_BATCH_TOKENS),
            # A CPU pays for each padded token (2 % with the fine grid); a GPU pays for each small batch.
            steps_per_octave=16 if cpu else 4,
            multiple=2 if cpu else 8,
        )
        self._outputs = self._check_interface(embeddings=settings.embeddings)
        self._run_options = ort.RunOptions()
        self._run_options.log_severity_level = _SILENT

    def encode(self, texts: Sequence[str]) -> list[TokenIds]:
        """Token ids of each text, with prefix and special tokens, cut at `max_length`; at least one id each.

        Raises:
            InferenceError: `not_encodable`: one of the texts is not valid Unicode (a lone surrogate).
        """
        prefix, limit = self._manifest.text_prefix, self._manifest.max_length * _CHARS_PER_TOKEN
        try:
            encodings = self._tokenizer.encode_batch_fast([prefix + text[:limit] for text in texts])
        except (TypeError, ValueError) as error:
            raise InferenceError("not_encodable", f"a text cannot be tokenised: {error}") from error
        pad = [self._manifest.pad_id]  # a tokenizer without special tokens gives nothing for an empty text
        return [np.array(encoding.ids or pad, dtype=np.int64) for encoding in encodings]

    def infer(self, ids: Sequence[TokenIds], length: int) -> Outputs:
        """Run the model once.

        Args:
            ids: Token ids of each text, none longer than `length`; not empty.
            length: Tokens to pad to, one of the grid's.

        Raises:
            InferenceError: `not_finite`, `out_of_memory` or `inference`: nothing can be said of any text of the batch.
        """
        n = len(ids)
        input_ids = np.full((self.grid.rows_for(n), length), self._manifest.pad_id, dtype=np.int64)
        mask = np.zeros_like(input_ids)
        mask[n:, 0] = 1  # an empty row would divide by zero; it is cut off below
        for row, text_ids in enumerate(ids):
            input_ids[row, : len(text_ids)] = text_ids
            mask[row, : len(text_ids)] = 1
        values = self._run({"input_ids": input_ids, "attention_mask": mask})
        if not all(np.isfinite(value[:n]).all() for value in values):
            # Not only the rows at fault: with ranges taken over the batch, one bad row spoils its neighbours.
            raise InferenceError("not_finite", "the model's output is not finite")
        logits = {name: value[:n] for name, value in zip(self._outputs, values, strict=True)}
        return Outputs(embedding=logits.pop(_EMBEDDING, None), logits=logits)

    def warm_up(self) -> None:
        """Run the largest shape and the smallest, so that memory is laid out and the first document waits for nothing.

        Raises:
            InferenceError: The model does not run; also the way to ask whether it still does.
        """
        ids = self.encode([""])[0]
        for length in (self.grid.lengths[-1], self.grid.length_for(len(ids))):
            self.infer([ids] * self.grid.rows_within(length, self.grid.budget_tokens), length)
        self.infer([ids], self.grid.length_for(len(ids)))

    def abort(self) -> None:
        """Make runs in progress, and all later ones, fail soon; from any thread."""
        self._run_options.terminate = True

    def close(self) -> None:
        """Give the model's memory back; no call may be in progress or follow."""
        del self._session

    def _run(self, feeds: dict[str, TokenIds]) -> list[NDArray[np.float32]]:
        try:
            values = self._session.run(self._outputs, feeds, self._run_options)
        except Exception as error:  # its exceptions have no common base, and which ones there are differs by release
            if _is_memory(error):
                raise InferenceError(
                    "out_of_memory", "the model ran out of memory", hint="lower inference.batch_tokens"
                ) from error
            raise InferenceError("inference", f"the model failed: {_first_line(error)}") from error
        return [np.asarray(value, dtype=np.float32) for value in values]

    def _check_interface(self, *, embeddings: bool) -> list[str]:
        where = str(self.bundle.path)
        inputs = {value.name for value in self._session.get_inputs()}
        if inputs != {"input_ids", "attention_mask"}:
            raise BundleError(f"the model's inputs are {sorted(inputs)}", where=where, hint="export it again")
        present = {value.name for value in self._session.get_outputs()}
        wanted = [head.name for head in self._manifest.heads]
        if missing := [name for name in wanted if name not in present]:
            raise BundleError(f"the model has no output {missing[0]!r}", where=where, hint="export it again")
        return [*wanted, _EMBEDDING] if embeddings and _EMBEDDING in present else wanted


def usable_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """CPU cores that this process may use: its affinity, and its container's quota (cgroup v2), at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (cgroup / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def _tokenizer(bundle: Bundle) -> Any:
    try:
        tokenizer = Tokenizer.from_file(str(bundle.tokenizer_file))
    except Exception as error:  # tokenizers raises bare Exception
        raise BundleError(
            f"cannot be read: {error}", where=str(bundle.tokenizer_file), hint="export it again"
        ) from None
    tokenizer.no_padding()
    tokenizer.enable_truncation(bundle.manifest.max_length)
    return tokenizer


def _open_session(bundle: Bundle, settings: InferenceSettings) -> tuple[Any, Device]:
    if settings.device != "cpu":
        session = _cuda_session(bundle, settings)
        if session is not None:
            return session, "cuda"
        if settings.device == "cuda":
            raise ConfigError(
                "no CUDA device, or no model for it",
                where="inference.device",
                hint='install onnxruntime-gpu and put model.fp16.onnx into the bundle, or set `device = "auto"`',
            )
    return _cpu_session(bundle), "cpu"


def _cuda_session(bundle: Bundle, settings: InferenceSettings) -> Any | None:
    model = bundle.model_file("fp16")
    if model is None or "CUDAExecutionProvider" not in ort.get_available_providers():
        return None
    ort.preload_dlls()  # finds the CUDA libraries that pip installed
    provider: dict[str, Any] = {"arena_extend_strategy": "kSameAsRequested"}
    if settings.gpu_memory_limit_mib:
        provider["gpu_mem_limit"] = settings.gpu_memory_limit_mib * _MEBIBYTE
    options = ort.SessionOptions()
    options.log_severity_level = _SILENT
    session = _load(model, options, [("CUDAExecutionProvider", provider), "CPUExecutionProvider"])
    # Without a usable driver ONNX Runtime falls back to the CPU without an error.
    return session if session.get_providers()[0] == "CUDAExecutionProvider" else None


def _cpu_session(bundle: Bundle) -> Any:
    order: tuple[Variant, ...] = ("int8", "int4", "fp32", "fp16")
    model = next(filter(None, map(bundle.model_file, order)), None)
    if model is None:
        raise BundleError("holds no model", where=str(bundle.path))
    options = cpu_options(threads=1)
    options.log_severity_level = _SILENT
    # A memory plan kept for each shape costs memory and, measured, saves no time (60 shapes: 144 MB against 126).
    options.enable_mem_pattern = False
    return _load(model, options, ["CPUExecutionProvider"])


def _load(model: Path, options: Any, providers: list[Any]) -> Any:
    try:
        return ort.InferenceSession(str(model), options, providers=providers)
    except Exception as error:
        what = f"ONNX Runtime cannot load it: {_first_line(error)}"
        raise BundleError(what, where=str(model), hint="is onnxruntime older than the model?") from error


def _is_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(
        sign in text for sign in ("failed to allocate", "out of memory", "available memory", "alloc_failed")
    )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]

"""What can be set for the stages that train; without torch, so that a recipe is checked in a moment."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from training.settings import Settings

Optimizer = Literal["adamw", "adam", "nadam", "radam", "adamax", "adagrad", "rmsprop", "sgd"]
Schedule = Literal["linear", "cosine", "constant"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


class LoopSettings(Settings):
    """Everything about one round of gradient descent."""

    immaterial: ClassVar[frozenset[str]] = frozenset({"checkpoint_minutes"})

    name: str = Field("", description="Folder of the stage in the run; by default its type.", pattern=r"^[\w-]*$")
    sources: tuple[str, ...] = Field((), description="Train on these sources only; none named: on all.")
    epochs: float = Field(
        2.0,
        gt=0,
        description="Passes over the texts of the sources named, each as many draws as there are (a replay comes on top).",
    )
    optimizer: Optimizer = Field("adamw", description="A torch optimiser by name.")
    learning_rate: float = Field(8e-5, gt=0, description="Of the topmost encoder layer, after the warm-up.")
    head_learning_rate: float = Field(1e-3, gt=0, description="Of the heads.")
    layer_decay: float = Field(1.0, gt=0, le=1, description="Each lower layer learns at this times the rate above it.")
    schedule: Schedule = Field("linear", description="How the rate falls after the warm-up.")
    warmup: float = Field(0.06, ge=0, lt=1, description="Share of the steps in which the rates rise from 0.")
    weight_decay: float = Field(0.01, ge=0, description="On matrices; biases and normalisation are spared.")
    betas: tuple[float, float] = Field((0.9, 0.98), description="Of the Adam family.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Of sgd and rmsprop.")
    clip: float = Field(1.0, gt=0, description="Largest norm of a step's gradient.")
    batch_tokens: int = Field(2048, ge=16, description="Padded tokens in a batch, at most.")
    accumulate: int = Field(1, ge=1, description="Batches per step.")
    max_length: int = Field(96, ge=8, description="Tokens per text in training; longer texts are cut.")
    dropout: float = Field(0.1, ge=0, lt=1, description="On the states inside the encoder.")
    attention_dropout: float = Field(
        0.0, ge=0, lt=1, description="On attention weights; above 0 the fast kernels of the CPU cannot be used."
    )
    head_dropout: float = Field(0.1, ge=0, lt=1, description="On the pooled state.")
    freeze_embeddings: bool = Field(
        True, description="Leave the embeddings as they are (they then stay exact in 4 bits)."
    )
    freeze_layers: int = Field(0, ge=0, description="Leave the lowest so many layers as they are.")
    label_smoothing: float = Field(0.05, ge=0, lt=1, description="Szegedy et al. 2016, section 7.")
    class_weights: Literal["none", "balanced"] = Field("none", description="balanced: inverse to a label's frequency.")
    r_drop: float = Field(0.0, ge=0, description="Weight of the R-Drop term (Liang et al. 2021); doubles the cost.")
    language_temperature: float = Field(
        2.0, ge=1, description="1 draws languages as they come, larger more evenly: shares n^(1/t)."
    )
    head_weights: dict[str, float] = Field({}, description="How often a head's texts are drawn, times their number.")
    evaluations: int = Field(4, ge=1, description="How often it is scored on the validation texts.")
    patience: int = Field(0, ge=0, description="Stop after so many evaluations without gain; 0: never.")
    average: float = Field(
        0.0, ge=0, lt=1, description="Take the mean of the weights over this last share of the steps."
    )
    precision: Precision = Field("auto", description="auto: bf16 where the processor has it, else fp32.")
    gradient_checkpointing: bool = Field(False, description="Compute activations twice, keep them once.")
    checkpoint_minutes: float = Field(3.0, gt=0, description="How much work a crash may cost.")
    seed: int | None = Field(None, description="Of this stage; unset: the recipe's.")


class FinetuneSettings(LoopSettings):
    """Supervised fine-tuning of the encoder and all heads on the sources."""

    type: Literal["finetune"] = "finetune"


class TransferSettings(LoopSettings):
    """A last round on the target's own texts: smaller steps, lower layers held, the old texts replayed."""

    type: Literal["transfer"] = "transfer"
    learning_rate: float = Field(3e-5, gt=0, description="Of the topmost encoder layer, after the warm-up.")
    head_learning_rate: float = Field(2e-4, gt=0, description="Of the heads.")
    replay: float = Field(
        0.1, ge=0, lt=1, description="Share of drawn texts that come from the sources not named, against forgetting."
    )
    unfreeze_every: float = Field(
        0.0, ge=0, le=1, description="Free one more layer from the top per this share of the steps (Howard and Ruder "
        "2018, section 3.3); 0: all that are not frozen learn from the start."
    )  # fmt: skip

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
    cache_frozen: bool = Field(
        False,
        description="Compute what the frozen embeddings and layers give once per text and start from there: kept on disk until the "
        "stage is done, in half precision (23 kB for 30 tokens of 384), without their dropout. For finetune and transfer.",
    )
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
    shard: bool = Field(
        False,
        description="Of several processes: each keeps a part of the weights, gradients and moments (FSDP) instead of them all (DDP).",
    )
    checkpoint_minutes: float = Field(3.0, gt=0, description="How much work a crash may cost.")
    seed: int | None = Field(None, description="Of this stage; unset: the recipe's.")

    def dropouts(self) -> dict[str, float]:
        """As `training.model.load_classifier` takes them."""
        return {
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "head_dropout": self.head_dropout,
        }


class SupervisedSettings(LoopSettings):
    """What the two supervised stages share."""

    runs: int = Field(
        1,
        ge=1,
        description="Train so many times from the same start, with other draws and dropout, and keep the mean of the weights (Wortsman et al. "
        "2022, Model soups, section 2).",
    )

    keep: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the weights as the stage found them in the mean that it leaves: what it learned without all that it forgot "
        "(Wortsman et al. 2022, Robust fine-tuning of zero-shot models, section 3).",
    )


class FinetuneSettings(SupervisedSettings):
    """Supervised fine-tuning of the encoder and all heads on the sources."""

    type: Literal["finetune"] = "finetune"


class TransferSettings(SupervisedSettings):
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


class AlignSettings(LoopSettings):
    """Pulls translations together in the encoder, on parallel sentences (no labels)."""

    type: Literal["align"] = "align"
    parallel: tuple[str, ...] = Field(
        min_length=1, description="TSV files: one column a language, or the columns language, index_id and text."
    )
    languages: tuple[str, ...] = Field((), description="Take these languages only; none named: all.")
    pivot: str = Field("en", description="The language against which retrieval is measured.")
    held_out: float = Field(0.1, gt=0, lt=1, description="Share of the sentences kept for measuring.")
    temperature: float = Field(0.05, gt=0, description="Divides similarities in the loss; small is strict.")
    margin: float = Field(
        0.0, ge=0, lt=1, description="Taken from a translation's similarity (translation ranking); 0: plain InfoNCE."
    )
    epochs: float = Field(1.0, gt=0, description="Passes; each sentence meets one partner in each of its languages.")
    learning_rate: float = Field(2e-5, gt=0, description="Of the topmost encoder layer, after the warm-up.")


class UnlabelledSettings(LoopSettings):
    """What the stages that need no labels learn from."""

    texts: tuple[str, ...] = Field((), description="Unlabelled texts beside the training texts: TSV files as above.")
    limit: int | None = Field(None, ge=1, description="Texts per language, at most; drawn by the seed.")


class PretrainSettings(UnlabelledSettings):
    """Masked-language pre-training goes on, on texts like those that will be met (no labels)."""

    type: Literal["pretrain"] = "pretrain"
    mask: float = Field(0.15, gt=0, le=1, description="Share of a text's tokens that are to be guessed.")
    learning_rate: float = Field(1e-4, gt=0, description="Of the topmost encoder layer, after the warm-up.")


class DistilSettings(UnlabelledSettings):
    """A student learns what teachers say of unlabelled texts; also what heals a pruned encoder."""

    type: Literal["distil"] = "distil"
    teachers: tuple[str, ...] = Field(
        ("self",),
        min_length=1,
        description='Checkpoints (folders) whose probabilities are averaged; "self": the model as the stage finds it.',
    )
    parallel: tuple[str, ...] = Field(
        (),
        description="Translations beside the training texts, files as for `align`: what the teachers say of a sentence is averaged over "
        "all its languages, so that each learns from those that the teachers read best.",
    )
    temperature: float = Field(2.0, gt=0, description="Softens both sides' probabilities (Hinton et al. 2015).")
    hidden_weight: float = Field(
        0.0, ge=0, description="Of a second loss: that texts lie to each other as they do in the first teacher."
    )
    layers: int = Field(0, ge=0, description="Keep so many of the encoder's layers, evenly; 0: all.")
    pieces: int | None = Field(None, ge=1, description="Keep so many pieces of the vocabulary; unset: all.")


class TranslateSettings(Settings):
    """Translate-train: training texts put into other languages, with their labels."""

    type: Literal["translate"] = "translate"
    name: str = Field("", description="Folder of the stage in the run; by default its type.", pattern=r"^[\w-]*$")
    sources: tuple[str, ...] = Field((), description="Translate texts of these sources only; none named: of all.")
    languages: tuple[str, ...] = Field(min_length=1, description="Into these.")
    origins: tuple[str, ...] = Field(("en",), min_length=1, description="From texts in these.")
    translator: str = Field(
        description="`apertium`, `file:PATH`, or a Hugging Face model by folder or name; `{source}` and `{target}` in a name "
        "stand for the languages."
    )
    limit: int = Field(2000, ge=1, description="Texts per pair of languages, at most; drawn by the seed.")
    quality: Literal["back", "direct", "none"] = Field(
        "back",
        description="What a translation is judged by: the encoder's similarity of the text and its translation back, or of "
        "the text and its translation (where there is no way back).",
    )
    similarity: float = Field(0.8, ge=-1, le=1, description="Cosine from which a translation is kept.")


class SwitchSettings(Settings):
    """Code-switching: copies of training texts with some words in other languages."""

    type: Literal["switch"] = "switch"
    name: str = Field("", description="Folder of the stage in the run; by default its type.", pattern=r"^[\w-]*$")
    sources: tuple[str, ...] = Field((), description="Switch texts of these sources only; none named: of all.")
    origins: tuple[str, ...] = Field(("en",), min_length=1, description="Texts in these languages.")
    languages: tuple[str, ...] = Field(min_length=1, description="Words of these, from FreeDict's dictionaries.")
    folder: str = Field("/usr/share/dictd", description="Where the packages `dict-freedict-*` put their files.")
    share: float = Field(0.3, gt=0, le=1, description="Of the words; much more hurts (arXiv 2103.07792).")
    copies: float = Field(0.3, gt=0, le=1, description="Share of the texts that get a switched copy.")

"""Stage `pretrain`: masked-language pre-training goes on, on texts of the task's own kind, before anything is classified.

Devlin et al. 2019, section 3.1, for the task; Gururangan et al. 2020 for what it is worth on a domain's and a task's own texts.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from training import sampling
from training.data.examples import Dataset
from training.errors import TrainingError
from training.loop import precision_of, train
from training.model import Classifier, Texts, load_classifier, save_classifier
from training.stages.finetune import make_plan
from training.stages.settings import PretrainSettings
from training.stages.unlabelled import gather
from training.tracking import Tracker
from training.vocabulary import mask_id

if TYPE_CHECKING:
    from training.run import Context

_HELD_SHARE = 0.03
_HELD_MOST = 2_000
"""Texts kept for measuring: some 8,000 masked tokens, of which accuracy is known to half a point; more would cost time only."""

_MASKED, _RANDOM = 0.8, 0.1
"""Of the tokens to be guessed (Devlin et al. 2019, section 3.1): hidden; another piece in their place; the rest is shown, so that
the encoder cannot rely on what it sees being true, nor on guessing where the mask is only, which it never meets later."""


def run(context: Context, folder: Path) -> None:
    """The stage: a checkpoint of the encoder, its heads as they were; and `masked.json` with loss and accuracy before and after."""
    settings: PretrainSettings = context.settings
    seed = context.recipe.seed if settings.seed is None else settings.seed
    examples = gather(Dataset.load(context.data), settings, context.recipe_folder, seed)
    random.Random(f"{seed} pretrain held out").shuffle(examples)
    held = min(_HELD_MOST, max(1, round(_HELD_SHARE * len(examples))))
    judged, learned = examples[:held], examples[held:]
    if not learned:
        raise TrainingError("one text alone is too few", where="pretrain", hint="name more in `texts`")
    torch.manual_seed(seed)
    classifier, tokenizer = load_classifier(context.model, **settings.dropouts())
    model = Guesser(classifier)
    prefix = context.recipe.encoder.text_prefix
    masking = Masking.of(tokenizer, prefix, settings.mask)
    texts = Texts(tokenizer, [example.text for example in learned], prefix, settings.max_length)
    weights = {source.name: source.weight for source in context.recipe.data.sources if source.split == "train"}
    plan = make_plan(learned, texts, settings, weights, seed)
    accelerator = Accelerator(mixed_precision="no")
    held_texts = Texts(tokenizer, [example.text for example in judged], prefix, settings.max_length)
    measure = Guesses(held_texts, masking, settings, accelerator, seed, context.say)
    before = measure.of(model.to(accelerator.device))
    context.say(f"{len(learned):,} texts, {len(plan.batches):,} batches; {_told(before)} before it learns")
    tracker = Tracker(context.recipe.tracking, context.run / "logs" / context.name, context.recipe, accelerator)
    try:
        progress = train(
            model, plan, Masked(texts, masking, accelerator.device), settings, seed=seed, work=context.work,
            accelerator=accelerator, evaluate=measure, track=tracker.log, say=context.say,
        )  # fmt: skip
    finally:
        tracker.close()
    after = measure.of(model)
    context.say(f"{_told(before)} before, {_told(after)} after")
    save_classifier(classifier, tokenizer, folder)
    found = {"texts": len(judged), "before": before, "after": after}
    (folder / "masked.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    history = {"losses": progress.losses, "scores": progress.scores, "seconds": round(progress.seconds, 1)}
    (folder / "history.json").write_text(json.dumps(history) + "\n", encoding="utf-8")


def _told(found: dict[str, float]) -> str:
    return f"{100 * found['accuracy']:.2f} % of the masked tokens guessed (loss {found['loss']:.3f})"


class Guesser(Classifier):
    """A classifier's encoder with a head that guesses pieces in place of its own heads, which it leaves alone.

    The head is BERT's (a dense layer, GELU, normalisation, the input embedding turned round and a bias), whatever the
    encoder had when it was made.

    Args:
        classifier: Its encoder is used, not copied.

    Raises:
        TrainingError: The encoder has no word embedding.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__(classifier.encoder, replace(classifier.about, heads={}))
        pieces, width = self._embedding().weight.shape
        self.heads["pieces"] = _Head(int(cast(Any, classifier.encoder).config.hidden_size), width, pieces)

    def guess(self, input_ids: Tensor, attention_mask: Tensor, hidden: Tensor) -> Tensor:
        """What stands at the hidden places; the vocabulary's many logits are made for these only.

        Args:
            input_ids: int64; *Shape:* ``[batch, tokens]``.
            attention_mask: int64, 1 for a token and 0 for padding; *Shape:* ``[batch, tokens]``.
            hidden: bool; *Shape:* ``[batch, tokens]``.

        Returns:
            Logits, row by row of the batch; *Shape:* ``[hidden places, pieces]``.
        """
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return cast(Tensor, self.heads["pieces"](states[hidden], self._embedding().weight))

    def _embedding(self) -> nn.Embedding:
        try:
            found = cast(Any, self.encoder).get_input_embeddings()
        except (AttributeError, NotImplementedError):
            found = None
        if not isinstance(found, nn.Embedding):
            raise TrainingError(
                "its word embedding cannot be found", where=type(self.encoder).__name__, hint="leave out `pretrain`"
            )
        return found


class _Head(nn.Module):
    """States to logits; the matrix of the embedding is given, so that it stays the encoder's, frozen or not."""

    def __init__(self, hidden: int, width: int, pieces: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width)
        self.bias = nn.Parameter(torch.zeros(pieces))

    def forward(self, states: Tensor, embedding: Tensor) -> Tensor:
        """``[places, hidden]`` and ``[pieces, width]`` to ``[places, pieces]``."""
        return functional.linear(self.norm(functional.gelu(self.dense(states))), embedding, self.bias)


@dataclass(frozen=True)
class Masking:
    """Which tokens are to be guessed, and what is shown in their place."""

    mask: int
    """Id of the mask token."""
    ordinary: Tensor
    """Ids of the pieces that are no special tokens, int64 ``[pieces]``."""
    prefix: int
    """Ordinary tokens at a text's beginning that are the same in all: nothing is learned by guessing them."""
    share: float
    """Of a text's tokens that are neither special nor the prefix, 0 to 1."""

    @classmethod
    def of(cls, tokenizer: str, prefix: str, share: float) -> Masking:
        """For a tokenizer, by its content.

        Raises:
            TrainingError: It has no mask token.
        """
        made = Tokenizer.from_str(tokenizer)
        mask = mask_id(made)
        if mask is None:
            raise TrainingError(
                "has no mask token", where="tokenizer", hint="an encoder made by masking, or leave out `pretrain`"
            )
        special = {mask, *made.get_added_tokens_decoder()}
        special |= {found for name in ("<unk>", "[UNK]") if (found := made.token_to_id(name)) is not None}
        ordinary = set(made.get_vocab().values()) - special
        # Without the space at its end, which belongs to the first word of the text.
        tokens = made.encode(prefix.rstrip(), add_special_tokens=False).ids if prefix.strip() else []
        return cls(mask, torch.tensor(sorted(ordinary)), sum(token in ordinary for token in tokens), share)

    def __call__(
        self, input_ids: Tensor, attention_mask: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw what is hidden: of each text the share, rounded, and at least one token.

        Args:
            input_ids: int64, on the CPU, so that every device draws the same; *Shape:* ``[batch, tokens]``.
            attention_mask: int64, 1 for a token and 0 for padding; *Shape:* ``[batch, tokens]``.
            generator: Of what is drawn; None: torch's own.

        Returns:
            The ids that are shown, as `input_ids`; and the places that are to be guessed, bool ``[batch, tokens]``.
        """
        open_ = torch.isin(input_ids, self.ordinary) & attention_mask.bool()
        open_ &= open_.cumsum(1) > self.prefix
        count = (open_.sum(1, keepdim=True) * self.share).round().clamp(min=1)
        order = torch.rand(input_ids.shape, generator=generator).masked_fill(~open_, 2.0).argsort(1).argsort(1)
        hidden = open_ & (order < count)
        fate = torch.rand(input_ids.shape, generator=generator)
        others = self.ordinary[torch.randint(len(self.ordinary), input_ids.shape, generator=generator)]
        shown = input_ids.masked_fill(hidden & (fate < _MASKED), self.mask)
        return torch.where(hidden & (fate >= _MASKED) & (fate < _MASKED + _RANDOM), others, shown), hidden


class Masked:
    """Cross-entropy of the hidden tokens; drawn anew each time a text comes, by the loop's seed of the step."""

    def __init__(self, texts: Texts, masking: Masking, device: torch.device) -> None:
        self._texts, self._masking, self._device = texts, masking, device

    def __call__(self, model: nn.Module, places: Sequence[int]) -> Tensor:
        """Mean over the hidden tokens; 0 where there are none."""
        ids, mask = self._texts.batch(places)
        shown, hidden = self._masking(ids, mask)
        logits = cast(Guesser, model).guess(*(part.to(self._device) for part in (shown, mask, hidden)))
        truth = ids[hidden].to(self._device)
        return functional.cross_entropy(logits.float(), truth, reduction="sum") / max(1, len(truth))


class Guesses:
    """Scores a model by how well it guesses hidden tokens of held-out texts; the same are hidden every time.

    Args:
        texts: Held out.
        masking: What is hidden.
        settings: Size of a batch, and precision.
        accelerator: The device.
        seed: Of what is hidden.
        say: Told what each score is made of.
    """

    def __init__(
        self, texts: Texts, masking: Masking, settings: PretrainSettings, accelerator: Accelerator, seed: int,
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        generator = torch.Generator().manual_seed(seed)
        order = sampling.batches(
            np.arange(len(texts.ids)), texts.lengths, settings.batch_tokens, random.Random(f"{seed} guesses")
        )
        self._batches: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for places in order:
            ids, mask = texts.batch(places)
            shown, hidden = masking(ids, mask, generator)
            self._batches.append((shown, mask, hidden, ids[hidden]))
        self._device, self._say = accelerator.device, say
        self._bf16 = precision_of(settings.precision, accelerator.device) is torch.bfloat16

    @torch.inference_mode()
    def of(self, model: Classifier) -> dict[str, float]:
        """Mean `loss`, in nats, and `accuracy`, 0 to 1."""
        was_training = model.training
        model.eval()
        loss, right, tokens = 0.0, 0, 0
        for batch in self._batches:
            shown, mask, hidden, truth = (part.to(self._device) for part in batch)
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
                logits = cast(Guesser, model).guess(shown, mask, hidden).float()
            loss += float(functional.cross_entropy(logits, truth, reduction="sum"))
            right += int((logits.argmax(1) == truth).sum())
            tokens += len(truth)
        model.train(was_training)
        return {"loss": loss / max(1, tokens), "accuracy": right / max(1, tokens)}

    def __call__(self, model: Classifier) -> float:
        """The probability that it gives to what is hidden, as a geometric mean, 0 to 1."""
        found = self.of(model)
        self._say(_told(found))
        return math.exp(-found["loss"])

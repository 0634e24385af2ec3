"""The loop learns what is not frozen, in any encoder, goes on when memory runs out, and stops when nothing is gained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from accelerate import Accelerator  # noqa: E402
from transformers import (  # noqa: E402
    AutoModel,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    XLMRobertaConfig,
    XLNetConfig,
)

from tests.unit.export import tiny  # noqa: E402
from training.data.examples import Example  # noqa: E402
from training.errors import TrainingError  # noqa: E402
from training.loop import Plan, Progress, freeze, precision_of, train  # noqa: E402
from training.model import About, Classifier, Texts, layers_of, load_classifier, save_classifier  # noqa: E402
from training.optimizer import make_optimizer, rate_factor  # noqa: E402
from training.stages.finetune import Supervised  # noqa: E402
from training.stages.settings import FinetuneSettings, LoopSettings, TransferSettings  # noqa: E402

PIECES = tiny.tokenizer().get_vocab_size()
SMALL: dict[str, Any] = {"vocab_size": PIECES, "pad_token_id": 1}
BERT_LIKE = SMALL | {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
ENCODERS = {
    "bert": BertConfig(**BERT_LIKE),
    "xlm-roberta": XLMRobertaConfig(**BERT_LIKE, max_position_embeddings=64),
    "deberta-v2": DebertaV2Config(**BERT_LIKE, relative_attention=True, pos_att_type=["p2c", "c2p"]),
    "distilbert": DistilBertConfig(**SMALL, dim=16, n_layers=3, n_heads=2, hidden_dim=32),
    "xlnet": XLNetConfig(**SMALL, d_model=16, n_layer=3, n_head=2, d_inner=32),
}
ABOUT = About(
    heads={"sentiment": ("a", "b", "c"), "topic": ("x", "y")}, pooling="mean", max_length=24, text_prefix="", base=""
)


def classifier(kind: str = "bert", dropout: float = 0.0) -> Classifier:
    torch.manual_seed(0)
    config = ENCODERS[kind].__class__.from_dict(ENCODERS[kind].to_dict())
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"):
        if hasattr(config, name):
            setattr(config, name, dropout)
    return Classifier(AutoModel.from_config(config), ABOUT, dropout)


EXAMPLES = [
    Example("sentiment", n % 3, "en", text, "s", n) if n % 4 else Example("topic", n % 2, "en", text, "s", n)
    for n, text in enumerate(tiny.texts(24))
]
TEXTS = Texts(tiny.tokenizer().to_str(), [example.text for example in EXAMPLES], "", 24)
BATCHES = [list(range(start, start + 8)) for start in range(0, 24, 8)] * 4


def run(model: Classifier, tmp_path: Path, settings: LoopSettings, **more: Any) -> tuple[Progress, list[str]]:
    said: list[str] = []
    objective = more.pop("objective", None) or Supervised(EXAMPLES, TEXTS, settings, model, torch.device("cpu"))
    progress = train(
        model, Plan(BATCHES, TEXTS.lengths.tolist()), objective, settings, seed=0, work=tmp_path,
        accelerator=Accelerator(mixed_precision="no", cpu=True), evaluate=more.pop("evaluate", lambda _: 0.0), say=said.append, **more,
    )  # fmt: skip
    return progress, said


def weights(model: Classifier) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize("kind", list(ENCODERS))
def test_any_encoder_is_frozen_below_and_learns_above_and_comes_back_from_its_folder(kind: str, tmp_path: Path) -> None:
    model = classifier(kind)
    assert len(layers_of(model.encoder)) == 3
    before = weights(model)
    run(model, tmp_path, FinetuneSettings(freeze_layers=1, precision="fp32", learning_rate=1e-3))
    changed = {name for name, value in weights(model).items() if not torch.equal(value, before[name])}
    layers = [{id(value) for value in layer.parameters()} for layer in layers_of(model.encoder)]
    for name, value in model.named_parameters():
        if id(value) in layers[0] or "embed" in name:
            assert name not in changed
    assert all(any(id(v) in layer and n in changed for n, v in model.named_parameters()) for layer in layers[1:])
    (tmp_path / "saved").mkdir()
    save_classifier(model, tiny.tokenizer().to_str(), tmp_path / "saved")
    again, _ = load_classifier(tmp_path / "saved")
    ids, mask = TEXTS.batch([0, 1, 2])
    for head, logits in again.eval()(ids, mask).items():
        assert torch.allclose(logits, model.eval()(ids, mask)[head], atol=1e-6)


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path: Path) -> None:
    save_classifier(classifier("bert"), tiny.tokenizer().to_str(), tmp_path)
    AutoModel.from_config(DistilBertConfig(**SMALL, dim=32, n_layers=1, n_heads=2, hidden_dim=32)).save_pretrained(
        tmp_path / "encoder"
    )
    with pytest.raises(TrainingError, match="is no checkpoint of a classifier"):
        load_classifier(tmp_path)
    with pytest.raises(TrainingError, match="XLNet's first token is no summary"):
        Classifier(AutoModel.from_config(ENCODERS["xlnet"]), About(**(ABOUT.__dict__ | {"pooling": "cls"})))


class Small:
    """A memory in which only so many rows fit at once."""

    def __init__(self, inner: Supervised, rows: int) -> None:
        self.inner, self.rows, self.refused = inner, rows, 0

    def __call__(self, model: torch.nn.Module, places: Sequence[int]) -> torch.Tensor:
        loss = self.inner(model, places)
        if len(places) > self.rows:
            self.refused += 1
            loss.backward()  # as far as it may have come: this must not count twice
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss


def test_out_of_memory_halves_and_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    settings = FinetuneSettings(precision="fp32", learning_rate=1e-3)
    whole, small = classifier(), classifier()
    run(whole, tmp_path / "a", settings)
    memory = Small(Supervised(EXAMPLES, TEXTS, settings, small, torch.device("cpu")), 3)
    progress, said = run(small, tmp_path / "b", settings, objective=memory)
    assert memory.refused == 2  # 8 rows, then 4; from then on small pieces
    assert progress.tokens_limit > 0
    assert sum("out of memory" in line for line in said) == 2
    for name, value in weights(whole).items():
        assert torch.allclose(value, weights(small)[name], atol=2e-5), name
    with pytest.raises(TrainingError, match="one text alone does not fit"):
        run(classifier(), tmp_path / "c", settings, objective=Small(memory.inner, 0))


def test_it_stops_without_gain_and_ends_with_the_best_weights(tmp_path: Path) -> None:
    model, seen = classifier(), []

    def evaluate(now: Classifier) -> float:
        seen.append(weights(now))
        return [0.1, 0.5, 0.4, 0.3, 0.9][len(seen) - 1]

    progress, _ = run(model, tmp_path, FinetuneSettings(evaluations=6, patience=2, precision="fp32"), evaluate=evaluate)
    assert progress.stopped
    assert len(seen) == 4
    assert all(torch.equal(value, seen[1][name]) for name, value in weights(model).items())


def test_the_average_is_taken_when_it_is_better(tmp_path: Path) -> None:
    scores = iter([0.5, 0.6])
    model = classifier()
    progress, said = run(
        model, tmp_path, FinetuneSettings(evaluations=1, average=0.5, precision="fp32"), evaluate=lambda _: next(scores)
    )
    assert progress.averaged == 6
    assert "average of 6 snapshots: score 60.00, best single 50.00" in said


def test_layers_are_freed_from_the_top(tmp_path: Path) -> None:
    model, learned = classifier(), []

    def evaluate(now: Classifier) -> float:
        learned.append([next(layer.parameters()).requires_grad for layer in layers_of(now.encoder)])
        return 0.0

    settings = TransferSettings(evaluations=3, unfreeze_every=1 / 3, precision="fp32")
    run(model, tmp_path, settings, evaluate=evaluate, unfreeze_every=settings.unfreeze_every)
    assert learned == [[False, False, True], [False, True, True], [True, True, True]]


def test_rates_fall_from_layer_to_layer_and_vectors_do_not_decay() -> None:
    model = classifier()
    freeze(model, embeddings=False, layers=0)
    settings = FinetuneSettings(learning_rate=1.0, layer_decay=0.5, head_learning_rate=7.0, weight_decay=0.1)
    found = {
        id(v): (g["lr"], g["weight_decay"]) for g in make_optimizer(model, settings).param_groups for v in g["params"]
    }
    for depth, layer in enumerate(layers_of(model.encoder)):
        for value in layer.parameters():
            assert found[id(value)] == (0.5 ** (2 - depth), 0.1 if value.ndim > 1 else 0.0)
    assert found[id(model.encoder.get_input_embeddings().weight)][0] == 0.125  # type: ignore[operator]
    assert all(found[id(value)][0] == 7.0 for value in model.heads.parameters())


@pytest.mark.parametrize("name", ["adamw", "adam", "nadam", "radam", "adamax", "adagrad", "rmsprop", "sgd"])
def test_every_optimizer_makes_a_step(name: str) -> None:
    model = classifier()
    optimizer = make_optimizer(model, FinetuneSettings(optimizer=name))  # type: ignore[arg-type]
    before = weights(model)
    Supervised(EXAMPLES, TEXTS, FinetuneSettings(r_drop=1.0, class_weights="balanced"), model, torch.device("cpu"))(
        model, range(8)
    ).backward()
    optimizer.step()
    assert any(not torch.equal(value, before[key]) for key, value in weights(model).items())


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_rate_rises_then_follows_its_schedule(schedule: Any) -> None:
    rates = [rate_factor(schedule, 0.1, step, 100) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert 0 < rates[0] < 0.1
    assert max(rates) == pytest.approx(1.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert (rates[-1] < 0.02) == (schedule != "constant")


def test_r_drop_adds_what_dropout_makes_differ() -> None:
    still, shaken = classifier(dropout=0.0), classifier(dropout=0.5)
    shaken.train()
    for model, differs in ((still, False), (shaken, True)):
        torch.manual_seed(0)
        plain = Supervised(EXAMPLES, TEXTS, FinetuneSettings(r_drop=1e-9), model, torch.device("cpu"))(model, range(8))
        torch.manual_seed(0)
        pulled = Supervised(EXAMPLES, TEXTS, FinetuneSettings(r_drop=5.0), model, torch.device("cpu"))(model, range(8))
        assert bool(pulled > plain + 1e-3) == differs


def test_where_all_labels_are_given_the_loss_is_the_plain_one() -> None:
    model, settings = classifier(), FinetuneSettings(label_smoothing=0.1, class_weights="balanced")
    found = Supervised(EXAMPLES, TEXTS, settings, model, torch.device("cpu"))(model, range(8))
    total = torch.zeros(())
    logits = model(*TEXTS.batch(range(8)))
    for head, labels in ABOUT.heads.items():
        rows = [n for n in range(8) if EXAMPLES[n].head == head]
        counts = torch.bincount(torch.tensor([e.label for e in EXAMPLES if e.head == head]), minlength=len(labels))
        total = total + torch.nn.functional.cross_entropy(
            logits[head][rows], torch.tensor([EXAMPLES[n].label for n in rows]), counts.sum() / counts.clamp(min=1) / len(labels),
            reduction="none", label_smoothing=0.1,
        ).sum()  # fmt: skip
    assert float(found.detach()) == pytest.approx(float(total.detach() / 8), rel=1e-5)


def test_a_source_that_never_gives_a_label_in_a_language_is_no_witness_against_it() -> None:
    given = {("films", "nl"): (0, 2), ("posts", "nl"): (0, 1, 2), ("films", "en"): (0, 1, 2), ("stars", "nl"): (2,)}
    lines = iter(tiny.texts(24))
    examples = [
        Example("sentiment", label, lang, next(lines), source, 0)
        for (source, lang), labels in given.items()
        for label in labels * 2
    ]
    texts = Texts(tiny.tokenizer().to_str(), [example.text for example in examples], "", 24)
    model = classifier()
    settings = FinetuneSettings(label_smoothing=0.1, r_drop=1.0)
    objective = Supervised(examples, texts, settings, model, torch.device("cpu"))
    for (source, lang), labels in given.items():
        places = [n for n, example in enumerate(examples) if (example.source, example.lang) == (source, lang)]
        model.zero_grad()
        objective(model, places).backward()
        gradient = model.heads["sentiment"].bias.grad
        assert isinstance(gradient, torch.Tensor)
        assert bool(gradient[1] == 0) == (labels == (0, 2)), (source, lang)
        assert gradient[2] != 0


def test_fp16_is_refused_without_a_gpu() -> None:
    with pytest.raises(TrainingError, match="fp16 is for GPUs"):
        precision_of("fp16", torch.device("cpu"))
    assert precision_of("fp32", torch.device("cpu")) is None


def test_texts_are_padded_and_masked() -> None:
    ids, mask = TEXTS.batch([0, 5, 7])
    assert ids.shape == mask.shape == (3, int(TEXTS.lengths[[0, 5, 7]].max()))
    assert np.array_equal(mask.sum(1).numpy(), TEXTS.lengths[[0, 5, 7]])
    assert bool((ids[mask == 0] == 1).all())

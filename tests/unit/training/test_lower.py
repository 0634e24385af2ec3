"""Training that starts from the kept states of the frozen layers is the training that computes them each time."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from tests.unit.training.test_loop import (  # noqa: E402
    BATCHES,
    ENCODERS,
    EXAMPLES,
    TEXTS,
    classifier,
    run,
    weights,
)
from training.errors import TrainingError  # noqa: E402
from training.loop import freeze  # noqa: E402
from training.lower import LowerLayers  # noqa: E402
from training.model import Classifier, layers_of  # noqa: E402
from training.stages.finetune import Supervised  # noqa: E402
from training.stages.settings import FinetuneSettings  # noqa: E402

CPU = torch.device("cpu")


def lower_of(model: Classifier, layers: int, folder: Path) -> LowerLayers:
    return LowerLayers(model, layers, TEXTS, range(24), folder, None)


def spoil(model: Classifier, layers: int) -> None:
    """The frozen layers give nothing of use any more."""
    for layer in layers_of(model.encoder)[:layers]:
        for value in layer.parameters():
            value.data.fill_(torch.nan)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("kind", [kind for kind in ENCODERS if kind != "xlnet"])
def test_losses_and_gradients_are_the_same_and_the_frozen_layers_do_not_run(
    kind: str, layers: int, tmp_path: Path
) -> None:
    settings = FinetuneSettings(freeze_layers=layers, r_drop=1.0)
    model = classifier(kind)
    freeze(model, embeddings=True, layers=layers)
    plain = Supervised(EXAMPLES, TEXTS, settings, model, CPU)
    lower = lower_of(model, layers, tmp_path / "frozen")
    kept = Supervised(EXAMPLES, TEXTS, settings, model, CPU, lower)
    found = []
    for objective in (plain, kept):
        model.zero_grad()
        losses = []
        for places in BATCHES[:3]:
            if objective is kept:
                spoil(model, layers)
            loss = objective(model, places)
            loss.backward()
            losses.append(float(loss.detach()))
        found.append((losses, [v.grad.clone() for v in model.parameters() if v.grad is not None]))
    assert found[0][0] == pytest.approx(found[1][0], abs=2e-3)  # half precision
    assert len(found[0][1]) == len(found[1][1]) > 0
    for expected, got in zip(found[0][1], found[1][1], strict=True):
        assert torch.allclose(expected, got, atol=2e-3)


def test_a_stage_trains_to_the_same_weights_and_still_scores_the_whole_model(tmp_path: Path) -> None:
    settings = FinetuneSettings(freeze_layers=2, precision="fp32", learning_rate=1e-3, dropout=0.0, head_dropout=0.0)
    plain, kept = classifier(), classifier()
    run(plain, tmp_path / "a", settings)
    lower = lower_of(kept, 2, tmp_path / "frozen")
    run(kept, tmp_path / "b", settings, objective=Supervised(EXAMPLES, TEXTS, settings, kept, CPU, lower))
    for name, value in weights(plain).items():
        assert torch.allclose(value, weights(kept)[name], atol=5e-3), name
    ids, mask = TEXTS.batch([0, 1])
    assert torch.allclose(plain.eval().embed(ids, mask), kept.eval().embed(ids, mask), atol=2e-2)


def test_what_a_killed_attempt_kept_is_taken(tmp_path: Path) -> None:
    lower_of(classifier(), 2, tmp_path / "frozen")
    model = classifier()
    spoil(model, 2)
    again = Supervised(EXAMPLES, TEXTS, FinetuneSettings(), model, CPU, lower_of(model, 2, tmp_path / "frozen"))
    assert torch.isfinite(again(model, [3, 1]))


def test_an_architecture_of_another_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="in another form"):
        lower_of(classifier("xlnet"), 1, tmp_path / "frozen")
    assert not (tmp_path / "frozen").exists()

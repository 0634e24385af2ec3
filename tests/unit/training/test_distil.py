"""What a student is told, and what pruning leaves of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from accelerate import Accelerator  # noqa: E402

from tests.unit.export import tiny  # noqa: E402
from training.data.examples import Dataset, Example  # noqa: E402
from training.errors import TrainingError  # noqa: E402
from training.model import EMBEDDING, Texts, layers_of, load_classifier, predict  # noqa: E402
from training.stages import distil, unlabelled  # noqa: E402
from training.stages.finetune import make_plan  # noqa: E402
from training.stages.settings import DistilSettings  # noqa: E402

LINES = tiny.texts(20, 3)
EXAMPLES = [Example(unlabelled.UNLABELLED, 0, "en", line, unlabelled.UNLABELLED, row) for row, line in enumerate(LINES)]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return [tiny.write_checkpoint(folder / str(seed), seed) for seed in (1, 2)]


def context(tmp_path: Path, checkpoints: list[Path], **settings: Any) -> Any:
    return SimpleNamespace(
        settings=DistilSettings(precision="fp32", **settings),
        model=checkpoints[0],
        recipe_folder=tmp_path,
        work=tmp_path,
        say=lambda _: None,
    )


def test_teachers_are_averaged_and_asked_once(tmp_path: Path, checkpoints: list[Path]) -> None:
    given = context(tmp_path, checkpoints, teachers=["self", str(checkpoints[1])], temperature=3.0, max_length=24)
    student, _ = load_classifier(checkpoints[0])
    told = distil.teach(given, EXAMPLES, student, Accelerator(cpu=True))
    expected = []
    for folder in checkpoints:
        teacher, tokenizer = load_classifier(folder)
        logits = predict(teacher, Texts(tokenizer, LINES, teacher.about.text_prefix, 24))["sentiment"]
        expected.append(torch.from_numpy(logits / 3.0).softmax(dim=1).numpy())
    assert np.allclose(told["sentiment"], (expected[0] + expected[1]) / 2, atol=1e-5)
    assert told[EMBEDDING].shape == (20, 32)
    given.settings = DistilSettings(teachers=("gone",))
    again = distil.teach(given, EXAMPLES, student, Accelerator(cpu=True))
    assert all(np.array_equal(told[name], again[name]) for name in told)


def test_what_is_said_of_a_sentence_is_averaged_over_its_translations_alone(
    tmp_path: Path, checkpoints: list[Path]
) -> None:
    (tmp_path / "parallel.tsv").write_text("en\tde\tth\n" + "\t".join(LINES[:3]) + "\n" + "\t".join(LINES[3:6]) + "\n")
    settings = DistilSettings(parallel=("parallel.tsv",))
    data = Dataset(train=EXAMPLES[:8], validation=[], test=[])
    examples = unlabelled.gather(data, settings, tmp_path, seed=0)
    assert sorted(example.text for example in examples) == sorted(LINES[:8])
    student, _ = load_classifier(checkpoints[0])
    (tmp_path / "alone").mkdir()
    alone = context(tmp_path / "alone", checkpoints, max_length=24)
    plain = distil.teach(alone, EXAMPLES, student, Accelerator(cpu=True))
    told = distil.teach(context(tmp_path, checkpoints, max_length=24), examples, student, Accelerator(cpu=True))
    for head in ("sentiment", "topic"):
        found = {example.text: told[head][place] for place, example in enumerate(examples)}
        for first in (0, 3):
            for line in LINES[first : first + 3]:
                assert np.allclose(found[line], plain[head][first : first + 3].mean(0), atol=1e-5)
        assert np.allclose(found[LINES[7]], plain[head][7], atol=1e-5)


def test_a_teacher_of_other_heads_is_refused(tmp_path: Path, checkpoints: list[Path]) -> None:
    student, _ = load_classifier(checkpoints[0])
    del student.about.heads["topic"]  # type: ignore[attr-defined]
    given = context(tmp_path, checkpoints, max_length=24)
    with pytest.raises(TrainingError, match="has other heads or labels"):
        distil.teach(given, EXAMPLES, student, Accelerator(cpu=True))


def test_the_loss_is_least_where_the_student_says_what_it_was_told(checkpoints: list[Path]) -> None:
    model, tokenizer = load_classifier(checkpoints[0])
    model.eval()
    texts = Texts(tokenizer, LINES, model.about.text_prefix, 24)
    settings = DistilSettings(temperature=2.0, hidden_weight=1.0)
    outputs = predict(model, texts, embedding=True)
    own = {
        head: torch.from_numpy(values / 2.0).softmax(dim=1).numpy()
        for head, values in outputs.items()
        if head != EMBEDDING
    }
    own[EMBEDDING] = outputs[EMBEDDING]

    def loss(told: dict[str, np.ndarray]) -> float:
        return float(distil.Soft(texts, told, settings, torch.device("cpu"))(model, range(8)).detach())

    assert loss(own) == pytest.approx(0, abs=1e-4)
    assert loss(own | {"sentiment": own["sentiment"][:, ::-1].copy()}) > 0.05
    scattered = np.random.default_rng(0).normal(size=own[EMBEDDING].shape).astype(np.float32)
    assert loss(own | {EMBEDDING: scattered}) > 0.1
    wider = np.concatenate(
        [own[EMBEDDING], own[EMBEDDING]], axis=1
    )  # a teacher of another width, with the same cosines
    assert loss(own | {EMBEDDING: wider}) == pytest.approx(0, abs=1e-4)


def test_pruned_layers_are_spread_and_reload(tmp_path: Path, checkpoints: list[Path]) -> None:
    model, _ = load_classifier(checkpoints[0])
    last = layers_of(model.encoder)[1].output.dense.weight  # type: ignore[union-attr]
    distil.prune_layers(model, 1)
    assert len(layers_of(model.encoder)) == 1
    assert layers_of(model.encoder)[0].output.dense.weight is last  # type: ignore[union-attr]
    model.encoder.save_pretrained(tmp_path / "encoder")  # type: ignore[operator]
    from transformers import AutoModel

    assert len(AutoModel.from_pretrained(tmp_path / "encoder").encoder.layer) == 1
    with pytest.raises(TrainingError, match="the encoder has 1 layers"):
        distil.prune_layers(model, 3)


def test_no_text_that_judges_is_learned_from(tmp_path: Path) -> None:
    def example(text: str, lang: str = "en") -> Example:
        return Example("sentiment", 0, lang, text, "posts", 2)

    data = Dataset([example("a"), example("a"), example("b")], [example("c")], [])
    (tmp_path / "more.tsv").write_text("language\ttext\nsw\tc\nsw\td\nsw\te\n")
    settings = DistilSettings(texts=("more.tsv",))
    assert [e.text for e in unlabelled.gather(data, settings, tmp_path, 0)] == ["a", "b", "d", "e"]
    assert len(unlabelled.gather(data, DistilSettings(texts=("more.tsv",), limit=1), tmp_path, 0)) == 2
    with pytest.raises(TrainingError, match="is not there"):
        unlabelled.gather(data, DistilSettings(texts=("none.tsv",)), tmp_path, 0)


def test_an_epoch_is_a_pass_over_the_sources_and_the_files(tmp_path: Path) -> None:
    train = [Example("sentiment", 0, "en", f"a {n}", "posts" if n < 4 else "news", n) for n in range(8)]
    (tmp_path / "more.tsv").write_text("language\ttext\n" + "".join(f"sw\tb {n}\n" for n in range(12)))
    settings = DistilSettings(texts=("more.tsv",), sources=("posts",), epochs=1, language_temperature=1.0)
    examples = unlabelled.gather(Dataset(train, [], []), settings, tmp_path, 0)
    texts = Texts(tiny.tokenizer().to_str(), [example.text for example in examples], "", 24)
    plan = make_plan(examples, texts, settings, {}, 0)
    assert sorted(place for batch in plan.batches for place in batch) == list(range(16))

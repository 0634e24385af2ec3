"""What is hidden and what is not, that guessing it is learned, and that only the encoder is left changed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from tests.unit.export import tiny  # noqa: E402
from tests.unit.training import corpus  # noqa: E402
from training.data.examples import Dataset  # noqa: E402
from training.errors import TrainingError  # noqa: E402
from training.model import Texts, load_classifier  # noqa: E402
from training.recipe import load_recipe  # noqa: E402
from training.run import run_recipe  # noqa: E402
from training.stages.pretrain import Guesser, Masked, Masking  # noqa: E402

ROOT = Path(__file__).parents[3]
STAGE = """
[[stages]]
type = "pretrain"
texts = ["more.tsv"]
epochs = 6
batch_tokens = 600
learning_rate = 3e-3
head_learning_rate = 1e-2
dropout = 0.0
evaluations = 2
max_length = 24

[[stages]]
"""


def with_mask() -> Tokenizer:
    """The tiny tokenizer, with a mask token in its vocabulary as XLM-R has it."""
    content = json.loads(tiny.tokenizer().to_str())
    vocab = content["model"]["vocab"]
    added = {"content": "<mask>", "single_word": False, "lstrip": True, "rstrip": False, "normalized": False}
    content["added_tokens"].append(added | {"special": True, "id": len(vocab)})
    vocab.append(["<mask>", 0.0])
    return Tokenizer.from_str(json.dumps(content))


def write_all(folder: Path) -> Path:
    path = corpus.write_all(folder)
    with_mask().save(str(folder / "base" / "tokenizer.json"))
    more = ["language\ttext", *(f"sw\t{text}" for text in dict.fromkeys(tiny.texts(100, 5)))]
    (folder / "more.tsv").write_text("\n".join(more) + "\n")
    path.write_text(corpus.RECIPE.replace("\n[[stages]]\n", STAGE, 1))
    return path


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="module")
def run(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    said: list[str] = []
    runs = tmp_path_factory.mktemp("runs")
    return run_recipe(load_recipe(recipe), recipe.parent, runs, cache=runs, say=said.append).parent, said


def test_it_guesses_better_and_only_the_encoder_changes(run: tuple[Path, list[str]]) -> None:
    folder, said = run
    found = json.loads((folder / "pretrain" / "masked.json").read_text())
    assert found["after"]["loss"] < found["before"]["loss"] - 1
    assert found["after"]["accuracy"] > found["before"]["accuracy"] + 0.1
    assert any(line.startswith("pretrain: ") and "before it learns" in line for line in said)
    history = json.loads((folder / "pretrain" / "history.json").read_text())
    assert [0 < score < 1 for _, score in history["scores"]] == [True, True]
    assert (folder / "report" / "pretrain.loss.svg").exists()
    before, after = (load_classifier(folder / stage)[0].state_dict() for stage in ("vocabulary", "pretrain"))
    assert before.keys() == after.keys()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed
    assert not [name for name in changed if name.startswith("heads.") or "embed" in name]
    saved = load_file(folder / "pretrain" / "encoder" / "model.safetensors")
    assert saved.keys() == load_file(folder / "vocabulary" / "encoder" / "model.safetensors").keys()


def test_its_texts_are_those_of_the_sources_and_the_files(recipe: Path, run: tuple[Path, list[str]]) -> None:
    data = Dataset.load(run[0] / "data")
    texts = {example.text for example in data.train} | set(tiny.texts(100, 5))
    held = json.loads((run[0] / "pretrain" / "masked.json").read_text())["texts"]
    assert held == round(0.03 * len(texts))
    assert any(line.startswith(f"pretrain: {len(texts) - held} texts, ") for line in run[1])


def test_killed_it_ends_with_the_same_weights(recipe: Path, run: tuple[Path, list[str]], tmp_path: Path) -> None:
    state = tmp_path / "tiny" / "work" / "pretrain" / "state" / "progress.json"
    command = [sys.executable, "-m", "monitor.cli", "train", str(recipe), "--runs", str(tmp_path)]
    command += ["--set", "stages.0.checkpoint_minutes=1e-6"]  # it saves after each step
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as started:
        assert started.stderr is not None
        while not (state.exists() and json.loads(state.read_text())["step"] >= 5):
            assert started.stderr.readline(), "it ended before it could be killed"
        started.send_signal(signal.SIGKILL)
    assert not (tmp_path / "tiny" / "pretrain").exists()
    said: list[str] = []
    run_recipe(load_recipe(recipe), recipe.parent, tmp_path, cache=tmp_path, say=said.append)
    assert any(line.startswith("pretrain: going on from step") for line in said)
    for file in ("encoder/model.safetensors", "heads.safetensors"):
        expected, found = (load_file(folder / "pretrain" / file) for folder in (run[0], tmp_path / "tiny"))
        assert all(torch.equal(expected[name], found[name]) for name in expected), file
    assert (run[0] / "pretrain" / "masked.json").read_text() == (
        tmp_path / "tiny" / "pretrain" / "masked.json"
    ).read_text()


def test_a_dry_run_tells_its_texts_and_its_cost(recipe: Path, run: tuple[Path, list[str]], tmp_path: Path) -> None:
    from training.dryrun import dry_run

    texts = {example.text for example in Dataset.load(run[0] / "data").train} | set(tiny.texts(100, 5))
    shown = "\n".join(dry_run(load_recipe(recipe), recipe.parent, tmp_path))
    cost, languages = re.findall(r"^pretrain: ([\d,]+) texts in .*texts/s.*\n  drawn: (.*)$", shown, re.MULTILINE)[0]
    assert int(cost.replace(",", "")) == pytest.approx(6 * len(texts), rel=0.01)
    assert "sw " in languages


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("stages.0.texts=['none.tsv']", r"none.tsv: is not there \(pretrain.texts names it\)"),
        ("stages.0.sources=['novels']", "no source is called novels"),
        ("stages.0.mask=0", "stages.0.mask: input should be greater than 0"),
        ("stages.0.cache_frozen=true", "is for the stages finetune and transfer"),
    ],
)
def test_a_mistake_is_one_line(recipe: Path, tmp_path: Path, change: str, words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        run_recipe(load_recipe(recipe, [change]), recipe.parent, tmp_path, cache=tmp_path)


def test_without_a_mask_token_or_an_embedding_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="tokenizer: has no mask token"):
        Masking.of(tiny.tokenizer().to_str(), "", 0.15)
    model, _ = load_classifier(tiny.write_checkpoint(tmp_path))
    for found in (lambda: None, lambda: torch.nn.Linear(2, 2)):
        model.encoder.get_input_embeddings = found
        with pytest.raises(TrainingError, match="BertModel: its word embedding cannot be found"):
            Guesser(model)


MASKED = with_mask()
MASK = MASKED.token_to_id("<mask>")
LINES = tiny.texts(300, 7)
PREFIX = "bada: "


def hide(
    share: float, lines: list[str], seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, mask, what is shown, and what is hidden."""
    ids, mask = Texts(MASKED.to_str(), lines, PREFIX, 64).batch(range(len(lines)))
    torch.manual_seed(seed)
    return ids, mask, *Masking.of(MASKED.to_str(), PREFIX, share)(ids, mask)


def test_a_share_of_each_text_is_hidden_and_no_special_token() -> None:
    ids, mask, shown, hidden = hide(0.15, LINES)
    head = 1 + len(MASKED.encode(PREFIX.rstrip(), add_special_tokens=False).ids)
    assert not hidden[:, :head].any()
    assert not hidden[mask == 0].any()
    special = torch.tensor([MASKED.token_to_id(piece) for piece in (*tiny.SPECIAL, "<mask>")])
    assert not torch.isin(ids[hidden], special).any()
    words = (~torch.isin(ids, special))[:, head:].sum(1)
    for found, n in zip(hidden.sum(1).tolist(), words.tolist(), strict=True):
        assert abs(found - max(1, 0.15 * n)) <= 0.5 + 1e-5
    assert torch.equal(shown[~hidden], ids[~hidden])


def test_of_ten_hidden_eight_are_masked_one_is_another_and_one_is_shown() -> None:
    ids, _, shown, hidden = hide(1.0, LINES)
    masked = shown[hidden] == MASK
    kept = shown[hidden] == ids[hidden]
    assert float(masked.float().mean()) == pytest.approx(0.8, abs=0.03)
    assert float(kept.float().mean()) == pytest.approx(0.1, abs=0.02)
    special = torch.tensor([MASKED.token_to_id(piece) for piece in (*tiny.SPECIAL, "<mask>")])
    assert not torch.isin(shown[hidden][~masked], special).any()


def test_what_is_hidden_comes_from_the_seed() -> None:
    assert torch.equal(hide(0.15, LINES, 1)[2], hide(0.15, LINES, 1)[2])
    assert not torch.equal(hide(0.15, LINES, 1)[3], hide(0.15, LINES, 2)[3])


@pytest.fixture
def guesser(tmp_path: Path) -> Guesser:
    return Guesser(load_classifier(tiny.write_checkpoint(tmp_path), dropout=0.0)[0]).eval()


def test_the_loss_is_of_the_hidden_places_alone(guesser: Guesser) -> None:
    texts = Texts(MASKED.to_str(), LINES[:8], PREFIX, 24)
    masking = Masking.of(MASKED.to_str(), PREFIX, 0.3)
    torch.manual_seed(3)
    loss = Masked(texts, masking, torch.device("cpu"))(guesser, range(8))
    torch.manual_seed(3)
    ids, mask = texts.batch(range(8))
    shown, hidden = masking(ids, mask)
    everywhere = guesser.guess(shown, mask, torch.ones_like(hidden)).reshape(*ids.shape, -1)
    each = torch.nn.functional.cross_entropy(everywhere.transpose(1, 2), ids, reduction="none").detach()
    assert float(loss.detach()) == pytest.approx(float(each[hidden].mean()), rel=1e-4)


def test_a_batch_with_all_hidden_and_one_with_nothing_to_hide_have_a_loss(guesser: Guesser) -> None:
    for share, length, hides in ((1.0, 24, True), (0.15, 3, False)):  # of 3 tokens, the prefix is all that is left
        texts = Texts(MASKED.to_str(), LINES[:3], PREFIX, length)
        loss = Masked(texts, Masking.of(MASKED.to_str(), PREFIX, share), torch.device("cpu"))(guesser, range(3))
        loss.backward()
        assert loss.isfinite()
        assert (float(loss.detach()) > 0) == hides


def test_the_head_has_no_word_embedding_of_its_own(guesser: Guesser) -> None:
    names = {name for name, _ in guesser.named_parameters()}
    assert {name for name in names if name.startswith("heads.")} == {
        "heads.pieces.bias",
        *(f"heads.pieces.{part}.{kind}" for part in ("dense", "norm") for kind in ("weight", "bias")),
    }

"""Translations, dictionaries and parallel sentences: what is made of them, and that the encoder gets closer by them."""

from __future__ import annotations

import gzip
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from tests.unit.training import corpus  # noqa: E402
from training.align import translate  # noqa: E402
from training.align.cache import CachedTranslator  # noqa: E402
from training.align.dictionary import FOLDER, load_dictionary, switch  # noqa: E402
from training.align.parallel import draw_pairs, read_groups, retrieval  # noqa: E402
from training.align.translate import BATCH, Apertium, HuggingFace, Ready, make_translator  # noqa: E402
from training.data.examples import Dataset  # noqa: E402
from training.errors import TrainingError  # noqa: E402
from training.recipe import load_recipe  # noqa: E402
from training.run import run_recipe  # noqa: E402

TEXTS = ["The house is big.", "I love this city!", "", "Two\nlines of a very bad day", "tab\there and 'quotes'"]


def test_apertium_translates_line_by_line() -> None:
    if shutil.which("apertium") is None or not Apertium().knows("en", "es"):
        pytest.skip("needs Debian's apertium and apertium-eng-spa")
    apertium = Apertium()
    found = apertium(TEXTS, "en", "es")
    assert len(found) == len(TEXTS)
    assert "casa" in found[0]
    assert "ciudad" in found[1]
    assert found[2] == ""
    assert "malo" in found[3]
    assert "house" in apertium(found[:1], "es", "en")[0]
    assert not apertium.knows("en", "sw")
    with pytest.raises(TrainingError, match="knows no pair en-sw"):
        apertium(["x"], "en", "sw")


def test_a_translator_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"is not installed \(apt-get install"):
        Apertium("apertium-of-nowhere")
    with pytest.raises(TrainingError, match="cannot be loaded"):
        make_translator(str(tmp_path), Path)(["x"], "en", "de")
    with pytest.raises(TrainingError, match="cannot be read"):
        make_translator("file:none.tsv", lambda name: tmp_path / name)


def test_ready_translations_are_looked_up(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("eng_Latn\tdeu_Latn\tsw\nGood day\tGuten Tag\tHabari\nYes\tJa\tNdiyo\n")
    ready = Ready(tmp_path / "t.tsv")
    assert ready(["Yes", "No", "Good day "], "en", "sw") == ["Ndiyo", "", "Habari"]
    assert ready(["Ja"], "de", "en") == ["Yes"]
    assert not ready.knows("en", "fr")
    (tmp_path / "t.tsv").write_text("en\tde\nYes\n")
    with pytest.raises(TrainingError, match="line 2 has another number of cells"):
        Ready(tmp_path / "t.tsv")


class Counting:
    """Turns texts round, and counts what it was asked."""

    name = "turns"

    def __init__(self, fails_after: int = 10**9) -> None:
        self.asked: list[str] = []
        self._fails_after = fails_after

    def knows(self, source: str, target: str) -> bool:
        return True

    def __call__(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        if len(self.asked) >= self._fails_after:
            raise TrainingError("no more")
        self.asked += texts
        return [f"{target}:{text[::-1]}" for text in texts]


def test_nothing_is_translated_twice_and_a_failure_costs_one_batch(tmp_path: Path) -> None:
    texts = [f"text {n % 600}" for n in range(700)]
    broken = CachedTranslator(Counting(fails_after=BATCH), tmp_path / "cache" / "t.sqlite")
    with pytest.raises(TrainingError, match="no more"):
        broken(texts, "en", "de")
    broken.close()
    counting = Counting()
    cached = CachedTranslator(counting, tmp_path / "cache" / "t.sqlite")
    done: list[int] = []
    assert cached(texts, "en", "de", done.append) == [f"de:{text[::-1]}" for text in texts]
    assert len(counting.asked) == 600 - BATCH
    assert sum(done) == 600
    assert cached(texts[:5], "en", "de") == [f"de:{text[::-1]}" for text in texts[:5]]
    assert len(counting.asked) == 600 - BATCH
    assert cached(["text 1"], "en", "fr") == ["fr:1 txet"]


def write_dictionary(folder: Path, entries: dict[str, str]) -> Path:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

    def digits(value: int) -> str:
        found = ""
        while value or not found:
            value, rest = divmod(value, 64)
            found = alphabet[rest] + found
        return found

    content, index = b"", ""
    for word, body in entries.items():
        entry = f"{word} /x/\n{body}\n".encode()
        index += f"{word}\t{digits(len(content))}\t{digits(len(entry))}\n"
        content += entry
    (folder / "freedict-eng-deu.index").write_text(index)
    (folder / "freedict-eng-deu.dict.dz").write_bytes(gzip.compress(content))
    return folder


def test_a_dictionary_gives_words_without_remarks(tmp_path: Path) -> None:
    folder = write_dictionary(
        tmp_path,
        {
            "00-database-info": "FreeDict",
            "derivation": "Ableitung <fem>, Folgerung <fem> [phys.]\n   Note: of something\n see: {derivative}",
            "Good": "1. gut\n2. ein sehr langes Wort",
            "city hall": "Rathaus",
        },
    )
    assert load_dictionary("en", "de", folder) == {"derivation": ["Ableitung", "Folgerung"], "good": ["gut"]}
    with pytest.raises(TrainingError, match="apt-get install dict-freedict-eng-fra"):
        load_dictionary("en", "fr", folder)
    (folder / "freedict-eng-deu.dict.dz").write_bytes(b"no gzip")
    with pytest.raises(TrainingError, match="is damaged"):
        load_dictionary("en", "de", folder)


def test_debians_dictionary_is_read() -> None:
    if not (FOLDER / "freedict-eng-spa.index").exists():
        pytest.skip("needs Debian's dict-freedict-eng-spa")
    found = load_dictionary("en", "es")
    assert len(found) > 2000
    assert "casa" in found["house"]


@given(text=st.text(max_size=80), share=st.floats(0, 1), seed=st.integers(0, 9))
def test_switching_changes_known_words_only(text: str, share: float, seed: int) -> None:
    assert switch(text, [{}], share, random.Random(seed)) == text
    assert switch(text, [{"good": ["gut"]}], 0.0, random.Random(seed)) == text


def test_switching_keeps_case_links_and_handles() -> None:
    words = {"good": ["gut"], "day": ["Tag"], "x": ["y"]}
    assert switch("Good DAY, good @good #day http://x.good/x", [words], 1.0, random.Random(0)) == (
        "Gut TAG, gut @good #day http://x.good/x"
    )


def test_parallel_sentences_of_both_kinds(tmp_path: Path) -> None:
    (tmp_path / "columns.tsv").write_text("eng_Latn\tdeu_Latn\nGood\tGut\nDay\tTag\n")
    assert read_groups(tmp_path / "columns.tsv") == [{"en": "Good", "de": "Gut"}, {"en": "Day", "de": "Tag"}]
    (tmp_path / "rows.tsv").write_text(
        "language\tindex_id\tcategory\ttext\neng_Latn\t7\ta\tGood\ndeu_Latn\t7\ta\tGut\nfra_Latn\t9\ta\tBon\n"
    )
    assert read_groups(tmp_path / "rows.tsv") == [{"en": "Good", "de": "Gut"}]
    with pytest.raises(TrainingError, match="no sentence in two languages"):
        read_groups(tmp_path / "rows.tsv", ["fr"])
    pairs = draw_pairs([{"en": "a", "de": "b", "fr": "c"}] * 3, random.Random(0))
    assert len(pairs) == 9
    assert all(a != b for _, a, b in pairs)


def test_retrieval_counts_both_ways() -> None:
    pivot = np.eye(4, dtype=np.float32)
    assert retrieval({"en": pivot, "de": pivot, "fr": pivot[[1, 0, 2, 3]]}, "en") == {"de": 1.0, "fr": 0.5}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stages one after the other: switched and translated texts, alignment, fine-tuning, a pruned student."""
    folder = tmp_path_factory.mktemp("recipe")
    path = corpus.write_all(folder)
    rng = random.Random(1)
    words = ["".join(rng.choices(corpus.tiny.SYLLABLES, k=2)) for _ in range(60)]
    rows = [rng.sample(words, 5) for _ in range(120)]
    # Each language has words of its own, so that an untrained encoder cannot tell what belongs together.
    other = dict(zip(words, ["".join(rng.choices(corpus.tiny.SYLLABLES, k=2)) for _ in words], strict=True))
    lines = ["en\tde", *(f"{' '.join(row)}\t{' '.join(other[word] for word in row)}" for row in rows)]
    (folder / "parallel.tsv").write_text("\n".join(lines) + "\n")
    posts = [line.split("\t") for line in (folder / "posts.tsv").read_text().splitlines()[1:]]
    ready = ["en\tsw", *(f"{text}\tdo {text}" for lang, _, text in posts if lang == "en")]
    (folder / "ready.tsv").write_text("\n".join(ready) + "\n")
    write_dictionary(folder, dict.fromkeys(corpus.tiny.SYLLABLES, "wort"))
    stages = """
[[stages]]
type = "switch"
origins = ["en"]
languages = ["de"]
folder = "."
copies = 1.0

[[stages]]
type = "translate"
sources = ["posts"]
languages = ["sw"]
translator = "file:ready.tsv"
quality = "back"
similarity = 0.5

[[stages]]
type = "align"
parallel = ["parallel.tsv"]
epochs = 15
batch_tokens = 600
learning_rate = 3e-3
freeze_embeddings = false
dropout = 0.0
evaluations = 2
max_length = 24

[[stages]]
type = "finetune"
epochs = 6
batch_tokens = 600
learning_rate = 5e-3
head_learning_rate = 2e-2
freeze_embeddings = false
dropout = 0.05
evaluations = 1

[[stages]]
type = "distil"
layers = 1
pieces = 400
epochs = 6
batch_tokens = 600
learning_rate = 5e-3
head_learning_rate = 1e-2
freeze_embeddings = false
hidden_weight = 1.0
dropout = 0.0
evaluations = 1

[calibrate]
"""
    head, _, rest = corpus.RECIPE.partition("[[stages]]")
    path.write_text(head + stages + rest.rpartition("[calibrate]\n")[2])
    return path


def test_every_stage_does_its_part(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recipe.parent)
    said: list[str] = []
    final = run_recipe(load_recipe(recipe), recipe.parent, tmp_path, cache=tmp_path, say=said.append)
    run = final.parent
    before, switched, translated = (Dataset.load(run / name) for name in ("data", "switch", "translate"))
    copies = switched.train[len(before.train) :]
    assert copies
    assert all("wort" in example.text.casefold() and example.lang == "en" for example in copies)
    made = translated.train[len(switched.train) :]
    assert made
    assert {(example.lang, example.source) for example in made} == {("sw", "posts")}
    by_row = {(e.source, e.row): e.label for e in before.train}
    assert all(by_row[example.source, example.row] == example.label for example in made)  # labels are projected
    assert translated.validation == before.validation
    assert json.loads((run / "translate" / "translations.json").read_text())["en-sw"]["kept"] == len(made)
    found = json.loads((run / "align" / "retrieval.json").read_text())
    assert found["after"]["de"] > found["before"]["de"] + 0.2
    student = json.loads((run / "distil" / "encoder" / "config.json").read_text())
    assert student["num_hidden_layers"] == 1
    assert student["vocab_size"] <= 400
    calibration = json.loads((final / "calibration.json").read_text())
    assert calibration["sentiment"]["*"]["macro_f1"] > 0.8  # the pruned student has learned what its teacher knew
    assert json.loads((final / "model.json").read_text())["languages"] == ["de", "en", "fr", "sw"]
    assert (run / "report" / "distil.loss.svg").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("stages.0.languages=['fr']", "apt-get install dict-freedict-eng-fra"),
        ("stages.1.languages=['yo']", "knows no pair en-yo"),
        ("stages.1.origins=['ja']", "no training text is in 'ja'"),
        ("stages.2.parallel=['none.tsv']", "none.tsv: cannot be read"),
        ("stages.2.pivot='ja'", "no parallel sentence is in 'ja'"),
        ("stages.4.layers=7", "the encoder has 2 layers"),
        ("stages.4.teachers=['nowhere']", "is no checkpoint"),
        ("stages.3.sources=['novels']", "no source is called novels"),
        ("stages.1.translater='x'", "stages.1.translater: no such key"),
    ],
)
def test_a_mistake_is_one_line(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, words: str
) -> None:
    monkeypatch.chdir(recipe.parent)
    stage = int(change.split(".")[1])
    quick = [f"stages.{n}.epochs=0.1" for n in (2, 3) if n < stage and "novels" not in change]
    with pytest.raises(TrainingError) as caught:
        run_recipe(load_recipe(recipe, [*quick, change]), recipe.parent, tmp_path, cache=tmp_path)
    assert words in str(caught.value)


def test_a_many_to_many_model_is_told_both_languages(tmp_path: Path) -> None:
    """A random NLLB of one layer: no meaning, but the real tokenizer, generation and language codes."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import M2M100Config, M2M100ForConditionalGeneration, NllbTokenizerFast

    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", *[f"▁{word}" for word in corpus.tiny.SYLLABLES]]
    made = Tokenizer(models.Unigram([(piece, -float(n)) for n, piece in enumerate(pieces)], unk_id=3))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.save(str(tmp_path / "raw.json"))
    tokenizer = NllbTokenizerFast(tokenizer_file=str(tmp_path / "raw.json"))
    tokenizer.save_pretrained(tmp_path / "nllb")
    config = M2M100Config(
        vocab_size=len(tokenizer), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    model = M2M100ForConditionalGeneration(config)
    model.generation_config.update(eos_token_id=2, pad_token_id=1, decoder_start_token_id=2)
    model.save_pretrained(tmp_path / "nllb")
    translator = make_translator("nllb", lambda name: tmp_path / name)
    assert isinstance(translator, HuggingFace)
    assert translator.knows("en", "de")
    assert not translator.knows("en", "tlh")
    first = translator(["ba do", "ki"], "en", "de")
    assert len(first) == 2
    assert first == translator(["ba do", "ki"], "en", "de")
    loaded, network = translator._load("en", "de")
    german = loaded.convert_tokens_to_ids("deu_Latn")
    assert translate._target_token(loaded, network, "en", "de") == german
    assert loaded.src_lang == "eng_Latn"
    with pytest.raises(TrainingError, match="knows no tlh"):
        translator(["ba"], "en", "tlh")

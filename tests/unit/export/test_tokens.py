"""The shipped tokenizer is the training's, or the export says where it is not."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from export import tokens
from export.errors import ExportError
from tests.unit.export import tiny
from training.corpus import read_texts
from training.recipe import load_recipe
from training.vocabulary import pieces_of, replacing, trim_tokenizer

WHOLE = tiny.tokenizer()
TEXTS = {"en": tiny.texts(80, 1), "el": ["бвгд жз", "中文 日本語", "כא"]}


def cut(kept: np.ndarray) -> Tokenizer:
    made = Tokenizer.from_str(trim_tokenizer(WHOLE, kept, 24))
    made.no_truncation()
    return made


def test_the_same_tokenizer_passes_and_every_script_is_counted() -> None:
    kept = np.arange(WHOLE.get_vocab_size())
    found = tokens.verify(WHOLE, cut(kept), kept, TEXTS)
    assert (found.lines, found.identical, found.fuzzed) == (83, 83, tokens.FUZZED)
    assert set(found.scripts) == {"LATIN", "CYRILLIC", "CJK", "HEBREW"}


def test_a_cut_tokenizer_passes_with_other_pieces_where_some_are_gone() -> None:
    kept = np.array([i for i, (piece, _) in enumerate(pieces_of(WHOLE)) if i < 4 or len(piece) < 5])
    found = tokens.verify(WHOLE, cut(kept), kept, TEXTS)
    assert 3 <= found.identical < 83


def damaged(**changes: object) -> Tokenizer:
    data = json.loads(WHOLE.to_str())
    data["model"] |= changes.get("model", {})  # type: ignore[arg-type]
    data |= {name: value for name, value in changes.items() if name != "model"}
    return Tokenizer.from_str(json.dumps(data))


@pytest.mark.parametrize(
    ("shipped", "words"),
    [
        (damaged(normalizer=None), "has other ids"),
        (damaged(normalizer={"type": "Lowercase"}), "has other ids"),
        (damaged(post_processor=None), "has other ids"),
        (
            damaged(
                model={"vocab": [[p, s - 9 * (len(p) > 3)] for p, s in json.loads(WHOLE.to_str())["model"]["vocab"]]}
            ),
            "has other ids",
        ),
    ],
)
def test_a_tokenizer_that_reads_otherwise_is_refused(shipped: Tokenizer, words: str) -> None:
    with pytest.raises(ExportError, match="no bundle was written") as caught:
        tokens.verify(WHOLE, shipped, np.arange(WHOLE.get_vocab_size()), TEXTS)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_lost_character_is_refused() -> None:
    kept = np.array([i for i, (piece, _) in enumerate(pieces_of(WHOLE)) if piece != "б"])
    with pytest.raises(ExportError, match="more unknown pieces"):
        tokens.verify(WHOLE, cut(kept), kept, TEXTS)


def test_fuzzed_texts_are_valid_varied_and_the_same_for_a_seed() -> None:
    first = list(tokens.fuzzed(500, 1))
    assert first == list(tokens.fuzzed(500, 1)) != list(tokens.fuzzed(500, 2))
    joined = "".join(first)
    assert joined.encode()  # no surrogates
    assert len({unicodedata.category(char) for char in joined}) > 20


@pytest.mark.slow
def test_the_shipped_tokenizer_is_the_bases_on_real_lines_of_every_script(pytestconfig: pytest.Config) -> None:
    data, shipped = os.environ.get("BABELWATCH_DATA"), pytestconfig.rootpath / "bundles" / "default" / "tokenizer.json"
    if not data or not shipped.exists():
        pytest.skip("needs BABELWATCH_DATA and the default bundle")
    base = pytest.importorskip("training.base")
    try:
        content = base.load_base(base.E5_SMALL, Path.home() / ".cache" / "babelwatch").tokenizer.decode()
    except base.TrainingError as error:
        pytest.skip(str(error))
    recipe = load_recipe(pytestconfig.rootpath / "training" / "recipes" / "default.toml")
    whole = Tokenizer.from_str(replacing(content, recipe.encoder.replace))
    made = Tokenizer.from_file(str(shipped))
    whole.no_truncation()
    made.no_truncation()
    pieces = [made.id_to_token(i) for i in range(made.get_vocab_size())]
    kept = np.array([whole.token_to_id(piece) for piece in pieces], dtype=np.int64)
    found = tokens.verify(whole, made, kept, read_texts(Path(data)), limit=8000)  # an export reads all
    assert found.lines == 8000
    assert {"LATIN", "ARABIC", "CYRILLIC", "DEVANAGARI", "THAI", "HANGUL", "CJK", "BENGALI", "TAMIL", "GREEK"} <= set(
        found.scripts
    )

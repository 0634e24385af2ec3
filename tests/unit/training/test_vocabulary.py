"""What must hold of a cut vocabulary, whatever is kept."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.unit.export import tiny
from training import vocabulary
from training.corpus import read_texts
from training.errors import TrainingError

WHOLE = tiny.tokenizer()
VOCAB = vocabulary.pieces_of(WHOLE)
SINGLES = {piece for piece, _ in VOCAB if len(piece.removeprefix("▁")) <= 1}
FORCED = [i for i, (piece, _) in enumerate(VOCAB) if piece in SINGLES or piece in tiny.SPECIAL]

any_text = st.text(alphabet=st.one_of(st.sampled_from([*tiny.LETTERS, " "]), st.characters()), max_size=80)
words = st.lists(st.sampled_from(tiny.SYLLABLES), max_size=12).map(" ".join)
texts = st.one_of(any_text, words, st.lists(st.sampled_from(tiny.SYLLABLES), max_size=9).map("".join))
choices = st.sets(st.integers(0, len(VOCAB) - 1)).map(
    lambda chosen: np.array(sorted({*chosen, *FORCED}), dtype=np.int64)
)


def cut(kept: np.ndarray) -> Tokenizer:
    made = Tokenizer.from_str(vocabulary.trim_tokenizer(WHOLE, kept, 10_000))
    assert made.get_vocab_size() == len(kept)
    return made


@given(kept=choices, text=texts)
def test_a_text_of_kept_pieces_keeps_its_pieces_under_new_ids(kept: np.ndarray, text: str) -> None:
    before = WHOLE.encode(text)
    if set(before.ids) <= set(kept.tolist()):
        after = cut(kept).encode(text)
        assert [int(kept[i]) for i in after.ids] == before.ids
        assert after.offsets == before.offsets


@given(kept=choices, text=texts)
def test_the_cut_makes_nothing_unknown_and_loses_no_text(kept: np.ndarray, text: str) -> None:
    before, made = WHOLE.encode(text), cut(kept)
    after = made.encode(text)
    known = [piece for piece, i in zip(before.tokens, before.ids, strict=True) if i != 3]
    if len(known) == len(before.ids):
        assert 3 not in [int(kept[i]) for i in after.ids]
        assert "".join(after.tokens) == "".join(before.tokens)
    assert [int(kept[after.ids[0]]), int(kept[after.ids[-1]])] == [0, 2]


@given(seed=st.integers(0, 99), size=st.integers(len(FORCED), len(VOCAB)), languages=st.integers(0, 3))
def test_selection_keeps_the_size_the_special_and_the_single_characters(seed: int, size: int, languages: int) -> None:
    shares = np.random.default_rng(seed).dirichlet(np.full(len(VOCAB), 0.1), languages)
    kept = vocabulary.select(VOCAB, range(4), {f"x{i}": share for i, share in enumerate(shares)}, size)
    assert len(kept) == size
    assert set(FORCED) <= set(kept.tolist())
    assert list(kept) == sorted(set(kept.tolist()))


def test_selection_keeps_what_saves_most_and_a_trained_language_counts_more() -> None:
    candidates = [i for i in range(len(VOCAB)) if i not in FORCED]
    first, second, rare = candidates[500], candidates[600], candidates[700]
    shares = {"aa": np.zeros(len(VOCAB)), "bb": np.zeros(len(VOCAB))}
    shares["aa"][[first, rare]] = [0.8, 0.2]
    shares["bb"][second] = 1.0
    kept = vocabulary.select(VOCAB, range(4), shares, len(FORCED) + 2)
    assert set(kept.tolist()) - set(FORCED) == {first, second}
    kept = vocabulary.select(VOCAB, range(4), shares, len(FORCED) + 1, trained={"aa"})
    assert set(kept.tolist()) - set(FORCED) == {first}


def test_a_script_without_a_text_keeps_its_likeliest_pieces() -> None:
    vocab = [("<s>", 0.0), *((f"▁w{i}x", -5.0) for i in range(60)), *((f"ሰላ{'ም' * i}", -9.0 - i) for i in range(1, 21))]
    shares = {"en": np.array([0.0, *[1 / 60] * 60, *[0.0] * 20])}
    kept = {vocab[i][0] for i in vocabulary.select(vocab, [0], shares, 31, script_pieces=4)}
    assert {f"ሰላ{'ም' * i}" for i in range(1, 5)} <= kept
    assert sum(vocabulary.script_of(piece) == "ETHIOPIC" for piece in kept) == 4
    few = {vocab[i][0] for i in vocabulary.select(vocab, [0], shares, 13, script_pieces=20)}
    assert sum(vocabulary.script_of(piece) == "ETHIOPIC" for piece in few) == 2, (
        "a third of the choice, for two scripts"
    )


def test_a_size_below_the_forced_pieces_is_refused() -> None:
    with pytest.raises(TrainingError, match="are fewer than"):
        vocabulary.select(VOCAB, range(4), {}, len(FORCED) - 1)


def test_replacements_come_before_the_pieces_in_the_saved_tokenizer() -> None:
    plain = WHOLE.to_str()
    made = Tokenizer.from_str(vocabulary.replacing(plain, {r"https?://\S+": "x", r"@\w+": "y"}))
    assert made.encode("a https://b.example/c?d @jo").tokens == WHOLE.encode("a x y").tokens
    assert made.encode("nothing here").tokens == WHOLE.encode("nothing here").tokens
    assert (
        Tokenizer.from_str(vocabulary.replacing(made.to_str(), {"y": "z"})).encode("@jo").tokens
        == made.encode("@jo").tokens
    ), "replacements that were there stay, after the new ones"
    with pytest.raises(TrainingError, match=r"encoder\.replace.*is no regular expression"):
        vocabulary.replacing(plain, {"(": "x"})


def test_another_kind_of_vocabulary_is_refused() -> None:
    from tokenizers import models

    with pytest.raises(TrainingError, match="BPE vocabulary cannot be trimmed"):
        vocabulary.pieces_of(Tokenizer(models.BPE()))


def test_word_lists_count_pieces_by_frequency_and_case() -> None:
    counts = vocabulary.language_counts(WHOLE, {}, {"en": [("ba", 3.0), ("do", 1.0)]})["en"]
    ids = {piece: i for i, (piece, _) in enumerate(VOCAB)}
    assert counts.sum() == pytest.approx(1.0)
    assert counts[ids["ba"]] == pytest.approx(3 * counts[ids["do"]])


def test_words_of_an_unspaced_language_are_counted_inside_a_run() -> None:
    counts = vocabulary.language_counts(
        WHOLE, {}, {"ja": [("日本", 1.0), ("中文", 1.0)], "en": [("日本", 1.0), ("中文", 1.0)]}
    )
    start = [piece for piece, _ in VOCAB].index("▁")
    assert counts["ja"][start] == pytest.approx(0.2)  # one start of word in a run of four characters
    assert counts["en"][start] == pytest.approx(1 / 3)


def test_coverage_tells_what_the_cut_costs() -> None:
    kept = np.array(FORCED, dtype=np.int64)
    found = vocabulary.coverage(WHOLE, cut(kept), kept, ["ba do", "b"], "en")
    assert found.lines == 2
    assert found.unchanged == 0.5
    assert found.tokens_per_word > found.tokens_per_word_before
    assert found.unknown_rate == found.unknown_rate_before == 0.0


def test_the_file_cuts_texts_at_the_length() -> None:
    made = Tokenizer.from_str(vocabulary.trim_tokenizer(WHOLE, np.arange(len(VOCAB)), 6))
    assert len(made.encode("ba " * 50).ids) == 6
    assert json.loads(made.to_str())["padding"] is None


@pytest.mark.slow
def test_the_shipped_tokenizer_reads_real_lines_of_every_script(pytestconfig: pytest.Config) -> None:
    """The cut pieces are a subset of some larger vocabulary's, so no line of a covered language may have unknowns."""
    data = os.environ.get("BABELWATCH_DATA")
    shipped = pytestconfig.rootpath / "bundles" / "default" / "tokenizer.json"
    if not data or not shipped.exists():
        pytest.skip("needs BABELWATCH_DATA and the default bundle")
    made = Tokenizer.from_file(str(shipped))
    unknown = made.token_to_id("<unk>")
    for lang, lines in read_texts(Path(data)).items():
        encodings = made.encode_batch_fast(lines[:500])
        tokens = sum(len(encoding.ids) for encoding in encodings)
        assert sum(encoding.ids.count(unknown) for encoding in encodings) / tokens < 0.005, lang

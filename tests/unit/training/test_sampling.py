"""Texts are drawn as the temperature says, none twice before all once, and in batches within the budget."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.examples import Example
from training.sampling import batches, draw, shares


def examples(**counts: int) -> list[Example]:
    """`head_lang_source=n`."""
    found = []
    for key, n in counts.items():
        head, lang, source = key.split("_")
        found += [Example(head, 0, lang, f"{key} {row}", source, row) for row in range(n)]
    return found


keys = st.tuples(st.sampled_from(["s", "t"]), st.sampled_from(["de", "en", "fr"]), st.sampled_from(["a", "b"])).map(
    "_".join
)
corpora = st.dictionaries(keys, st.integers(1, 40), min_size=1).map(lambda counts: examples(**counts))


def test_temperature_raises_small_languages_and_weights_move_sources_and_heads() -> None:
    corpus = examples(s_en_a=100, s_de_a=1, t_en_b=101)
    plain = shares(corpus, 1.0, {}, {})
    assert plain["s", "en", "a"] == pytest.approx(100 / 202)
    tempered = shares(corpus, 2.0, {}, {})
    assert tempered["s", "de", "a"] / tempered["s", "en", "a"] == pytest.approx(0.1)  # sqrt(1) against sqrt(100)
    assert tempered["t", "en", "b"] == pytest.approx(0.5)
    assert shares(corpus, 1.0, {"t": 3.0}, {})["t", "en", "b"] == pytest.approx(0.75)
    mixed = shares(examples(s_en_a=10, s_en_b=10), 2.0, {}, {"b": 0.25})
    assert mixed["s", "en", "b"] / mixed["s", "en", "a"] == pytest.approx(0.25)


@given(corpus=corpora, temperature=st.floats(1, 5), epochs=st.floats(0.1, 3), seed=st.integers(0, 9))
def test_each_group_gets_its_share_and_no_text_comes_twice_before_all_once(
    corpus: list[Example], temperature: float, epochs: float, seed: int
) -> None:
    wanted = shares(corpus, temperature, {}, {})
    assert sum(wanted.values()) == pytest.approx(1.0)
    found = np.concatenate(draw(corpus, wanted, epochs, seed, len(corpus)))
    drawn = Counter(found.tolist())
    for key, share in wanted.items():
        members = [n for n, e in enumerate(corpus) if (e.head, e.lang, e.source) == key]
        counts = [drawn[n] for n in members]
        assert abs(sum(counts) - share * len(corpus) * epochs) <= 1
        assert max(counts) - min(counts) <= 1


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=200),
    tokens=st.integers(16, 300),
    seed=st.integers(0, 9),
)
def test_batches_hold_every_text_once_within_the_budget(lengths: list[int], tokens: int, seed: int) -> None:
    places = np.random.default_rng(seed).permutation(len(lengths))
    found = batches(places, np.array(lengths), tokens, random.Random(seed))
    assert sorted(place for batch in found for place in batch) == list(range(len(lengths)))
    for batch in found:
        assert len(batch) == 1 or len(batch) * max(lengths[place] for place in batch) <= tokens
    assert found == batches(places, np.array(lengths), tokens, random.Random(seed))


def test_a_transfer_passes_over_the_named_sources_and_replays_the_others() -> None:
    pytest.importorskip("torch")
    from tests.unit.export import tiny
    from training.errors import TrainingError
    from training.model import Texts
    from training.stages.finetune import chosen, make_plan
    from training.stages.settings import TransferSettings

    corpus = examples(s_en_old=800, t_en_old=100, s_en_new=80, s_de_new=20)
    settings = TransferSettings(sources=("new",), replay=0.2, epochs=2, language_temperature=1.0)
    picked, weights = chosen(corpus, settings, {"old": 3.0, "new": 1.0})
    texts = Texts(tiny.tokenizer().to_str(), [example.text for example in picked], "", 24)
    plan = make_plan(picked, texts, settings, weights, seed=0)
    drawn = Counter((picked[place].source, picked[place].head) for batch in plan.batches for place in batch)
    assert drawn["new", "s"] == pytest.approx(200, abs=3)
    assert drawn["old", "s"] + drawn["old", "t"] == pytest.approx(50, abs=3)
    with pytest.raises(TrainingError, match="none of its sources has texts"):
        chosen(corpus, TransferSettings(sources=("none",)), {})

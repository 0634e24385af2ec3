"""Calibration: a mixed batch gives each text what its own language's entry gives it alone."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.errors import BundleError
from monitor.inference.bundle import ANY_LANGUAGE, Bundle, Calibration, Head
from monitor.inference.calibration import Calibrator
from monitor.inference.engine import Outputs
from monitor.inference.results import Reader
from tests.support.tiny_bundle import make_tiny_bundle

logits = st.floats(-50, 50, width=32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(make_tiny_bundle(tmp_path_factory.mktemp("bundle")))


def with_sentiment(bundle: Bundle, labels: tuple[str, ...], entries: dict[str, Calibration] | None = None) -> Bundle:
    """The bundle with other labels, or other calibration, of its sentiment head."""
    heads = tuple(Head(name=h.name, labels=labels) if h.name == "sentiment" else h for h in bundle.manifest.heads)
    calibration = bundle.manifest.calibration | ({"sentiment": entries} if entries else {})
    return dataclasses.replace(
        bundle, manifest=msgspec.structs.replace(bundle.manifest, heads=heads, calibration=calibration)
    )


def outputs(sentiment: list[list[float]], embedding: list[list[float]] | None = None) -> Outputs:
    return Outputs(
        logits={
            "sentiment": np.array(sentiment, dtype=np.float32),
            "topic": np.array([[0, 1, 3, 2]] * len(sentiment), dtype=np.float32),
        },
        embedding=None if embedding is None else np.array(embedding, dtype=np.float32),
    )


@given(
    texts=st.lists(
        st.tuples(st.sampled_from(["en", "xx", "th", "und"]), st.tuples(logits, logits, logits)), min_size=1, max_size=8
    )
)
def test_each_text_gets_its_own_languages_entry(
    bundle: Bundle, texts: list[tuple[str, tuple[float, float, float]]]
) -> None:
    def entry(temperature: float, *bias: float) -> Calibration:
        return Calibration(temperature=temperature, bias=bias, confusion=((1, 0, 0), (0, 1, 0), (0, 0, 1)), n=1)

    entries = {"en": entry(2.0, 0.5, 0.0, -1.0), "xx": entry(0.5, 0.0, 3.0, 0.0), ANY_LANGUAGE: entry(1.5, 0, 0, 0.25)}
    bundle = with_sentiment(bundle, ("negative", "neutral", "positive"), entries)
    batch = np.array([row for _, row in texts], dtype=np.float32)
    found = Calibrator(bundle, "sentiment").probabilities(batch, [lang for lang, _ in texts])
    alone = [bundle.calibration("sentiment", lang).probabilities(batch[[i]])[0] for i, (lang, _) in enumerate(texts)]
    np.testing.assert_allclose(found, alone, atol=1e-12)
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_sentiments_are_found_by_label_not_by_column(bundle: Bundle) -> None:
    turned = with_sentiment(bundle, ("positive", "negative", "neutral"))
    (found,) = Reader(turned).read(outputs([[9, 0, 4]]), ["th"])
    assert found.sentiment[2] > found.sentiment[1] > found.sentiment[0]
    assert found.heads["sentiment"][0] == found.sentiment[2]
    assert found.topic == "travel"
    assert sum(found.sentiment) == pytest.approx(1, abs=1e-5)
    assert found.bundle == bundle.version
    assert found.embedding is None


def test_an_embedding_keeps_its_direction(bundle: Bundle) -> None:
    given_rows = [[0.01, -0.02, 0.005], [0.0, 0.0, 0.0]]
    first, second = Reader(bundle).read(outputs([[0, 0, 0]] * 2, given_rows), ["en", "en"])
    assert first.embedding is not None
    assert np.frombuffer(first.embedding, dtype=np.int8).tolist() == [64, -127, 32]
    assert second.embedding == bytes(3)


def test_a_bundle_without_the_sentiments_is_refused(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="no head 'sentiment' with the labels negative, neutral, positive"):
        Reader(with_sentiment(bundle, ("good", "bad", "ugly")))

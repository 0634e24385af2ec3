"""One story or many complaints: told from the embeddings, in any mix of languages, and never without enough to go by."""

from __future__ import annotations

import numpy as np
import pytest

from monitor.detection.cells import Sample
from monitor.detection.stories import MIN_BACKGROUND, MIN_POSTS, likeness, story

HIDDEN = 96
LANGS = ("en", "es", "ja")


def posts(count: int, seed: int, towards: int | None = None, strength: float = 1.0) -> list[Sample]:
    """Posts whose embeddings have a place per language, noise of unequal spread, and perhaps a story's direction."""
    rng, world = np.random.default_rng(seed), np.random.default_rng(99)
    places = {lang: world.normal(0, 20, HIDDEN) for lang in LANGS}
    spread = world.uniform(4, 20, HIDDEN)
    found = []
    for number in range(count):
        lang = LANGS[number % len(LANGS)]
        vector = places[lang] + rng.normal(0, 1, HIDDEN) * spread
        if towards is not None:
            vector += strength * spread * np.random.default_rng(1000 + towards).normal(0, 1, HIDDEN) * 0.6
        found.append(
            Sample(
                rank=seed * 10_000 + number, document_id=f"d{seed}-{number}", text="text", lang=lang, published_ms=number,
                sentiment=0, embedding=np.clip(np.rint(vector), -127, 127).astype(np.int8).tobytes(),
            )
        )  # fmt: skip
    return found


def probability(rise: list[Sample], background: list[Sample]) -> float:
    found = story(rise, background, rise=0.8)
    assert found is not None
    assert found.one_event is not None
    return found.one_event


def test_one_story_is_told_from_ordinary_complaints() -> None:
    background = posts(120, 1)
    assert probability(posts(30, 2, towards=1), background) > 0.9
    assert probability(posts(30, 3), background) < 0.2


def test_other_languages_than_usual_are_no_story() -> None:
    only_one = [post for post in posts(90, 4) if post.lang == "ja"]
    assert probability(only_one, posts(120, 1)) < 0.3


def test_posts_of_the_story_belong_to_it() -> None:
    mixed = posts(30, 5, towards=1) + posts(15, 6)
    found = story(mixed, posts(120, 1), rise=0.7)
    assert found is not None
    assert found.belongs[:30].mean() > found.belongs[30:].mean() + 0.2


def test_a_story_is_alike_in_two_names_and_unlike_another() -> None:
    def centroid(towards: int, seed: int) -> str:
        found = story(posts(40, seed, towards=towards), posts(120, seed + 50), rise=0.9)
        assert found is not None
        return found.centroid

    same, other = likeness(centroid(1, 10), centroid(1, 11)), likeness(centroid(1, 10), centroid(2, 12))
    assert same is not None
    assert other is not None
    assert same > 0.8 > 0.4 > other


def test_nothing_is_said_of_too_little() -> None:
    assert story(posts(MIN_POSTS - 1, 1), posts(100, 2), rise=1.0) is None
    young = story(posts(20, 1, towards=1), posts(MIN_BACKGROUND - 1, 2), rise=1.0)
    assert young is not None
    assert young.one_event is None
    assert young.centroid == ""
    shorter = [Sample(rank=1, document_id="x", text="t", lang="en", published_ms=0, sentiment=0, embedding=b"123")]
    assert story(posts(20, 1) + shorter, posts(100, 2), rise=1.0) is None, "another encoder"


@pytest.mark.parametrize("text", ["", "!", "AAAA"])
def test_centroids_that_cannot_be_read_are_not_compared(text: str) -> None:
    assert likeness(text, text) is None

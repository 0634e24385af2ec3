"""What the posts of a rise have in common, whatever their language: geometry of the encoder's embeddings; pure.

What a name's posts usually say is taken off, language by language, and what is left is weighed by how much it usually
varies (whitening): then two posts of one story point the same way, and two ordinary complaints do not.
"""

from __future__ import annotations

import base64
import binascii
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from monitor.detection.cells import Sample

Floats = npt.NDArray[np.float64]

MIN_POSTS, MIN_BACKGROUND = 3, 30
"""Posts of the rise, and negative posts from before it, below which nothing is said about one event. On planted
stories, two names of one story are told from two of different ones nearly as well by three posts each as by five."""
MAX_POSTS = 400
"""Of either that are looked at; more tell no more, and cost seconds."""
LANGUAGE_PRIOR = 5.0
"""Posts that the mean over all languages is worth beside a language's own."""
SHRINKAGE = 0.6
"""Of the covariance towards a sphere: some hundred posts in some hundred dimensions say little about most directions.
Measured on planted stories: 0.5 to 0.7 part them equally well, and both better than none or all of it."""
COHERENT, WANDER = 0.025, 0.012
"""Mean cosine of two posts of a rise, beyond that of two ordinary ones in the same languages: between what planted
stories have (0.04 to 0.35) and what ordinary negative posts have (0, give or take `WANDER`, however many they are)."""
RELIABLE = 100.0
"""Length of a centroid that is known for certain; as int8, its components are then about 5."""


@dataclass(frozen=True, slots=True)
class Story:
    """What the posts of a rise have in common.

    Attributes:
        one_event: Probability that the posts of the rise tell of one event; None when too little is known of what is usual.
        belongs: float64 [posts], 0 to 1: part of the earlier posts that resemble the story less than this one does.
        vectors: float64 [posts, hidden], unit length: what each says beside what is usual.
        centroid: base64 of int8 [hidden]; see `likeness`. Empty where `one_event` is None.
    """

    one_event: float | None
    belongs: Floats
    vectors: Floats
    centroid: str


def story(posts: Sequence[Sample], background: Sequence[Sample], *, rise: float) -> Story | None:
    """Find the story in the negative posts of a rise.

    Args:
        posts: Since the onset, at most `MAX_POSTS`; those without embedding belong to no story.
        background: Negative posts from before.
        rise: Part of the posts that is beyond what was expected, 0 to 1.

    Returns:
        None when fewer than `MIN_POSTS` have embeddings, or they come from different encoders.
    """
    background = sorted((s for s in background if s.embedding), key=lambda s: s.rank)[:MAX_POSTS]
    told = [place for place, sample in enumerate(posts) if sample.embedding]
    chosen = [posts[place] for place in told]
    if len(told) < MIN_POSTS or len({len(s.embedding) for s in (*background, *chosen)}) > 1:
        return None
    belongs, vectors = np.ones(len(posts)), np.zeros((len(posts), len(chosen[0].embedding)))
    if len(background) < MIN_BACKGROUND:
        vectors[told] = _Space(chosen, whiten=False).place(chosen)
        return Story(None, belongs, vectors, "")
    # One half of the background tells what is usual, the other how well the unusual is told by it; and the other way round.
    halves = [_compare(chosen, background[n::2], background[1 - n :: 2]) for n in range(2)]
    belongs[:] = 0.0
    belongs[told] = np.mean([half.belongs for half in halves], axis=0).round(3)
    vectors[told] = _unit(np.mean([half.vectors for half in halves], axis=0))
    beyond, spread = np.mean([half.beyond for half in halves]), np.mean([half.spread for half in halves])
    part = min(max(rise, 0.3), 1.0)
    probability = float(ndtr((beyond / part**2 - COHERENT) / np.hypot(WANDER, spread)))
    return Story(round(probability, 2), belongs, vectors, _centroid(vectors[told]))


def likeness(left: str, right: str) -> float | None:
    """Cosine of two centroids as if each were known for certain, -1 to 1; None when they cannot be compared.

    Few posts make a centroid noisy, and noise hides a likeness: Spearman's (1904) correction for attenuation divides it
    out. A centroid carries its reliability in its length (`RELIABLE` times its root).
    """
    try:
        one, other = (np.frombuffer(base64.b64decode(text), np.int8).astype(np.float64) for text in (left, right))
    except (binascii.Error, ValueError):
        return None
    certain = float(one @ one) * float(other @ other)
    if one.size == 0 or one.size != other.size or certain == 0:
        return None
    return float(np.clip(float(one @ other) * RELIABLE**2 / certain, -1.0, 1.0))


class _Space:
    """The encoder's space, centred and whitened by what is usual."""

    def __init__(self, usual: Sequence[Sample], *, whiten: bool) -> None:
        rows = _rows(usual)
        by_language: defaultdict[str, list[int]] = defaultdict(list)
        for place, sample in enumerate(usual):
            by_language[sample.lang].append(place)
        self._mean = rows.mean(0)
        self._means = {
            lang: (rows[places].sum(0) + LANGUAGE_PRIOR * self._mean) / (len(places) + LANGUAGE_PRIOR)
            for lang, places in by_language.items()
        }
        self._whiten = np.eye(rows.shape[1])
        if not whiten:
            return
        centred = self._centre(usual)
        covariance = centred.T @ centred / len(centred)
        sphere = max(float(np.trace(covariance)) / len(covariance), 1e-9)
        values, vectors = np.linalg.eigh((1 - SHRINKAGE) * covariance + SHRINKAGE * sphere * np.eye(len(covariance)))
        # Symmetric, so that the spaces of two names can be compared.
        self._whiten = (vectors / np.sqrt(values)) @ vectors.T

    def place(self, samples: Sequence[Sample]) -> Floats:
        """Unit vectors, float64 [samples, hidden]."""
        rows = self._centre(samples) @ self._whiten
        return _unit(rows)

    def _centre(self, samples: Sequence[Sample]) -> Floats:
        means = np.array([self._means.get(sample.lang, self._mean) for sample in samples])
        centred: Floats = _rows(samples) - means
        return centred


def _rows(samples: Sequence[Sample]) -> Floats:
    return np.array([np.frombuffer(sample.embedding, np.int8) for sample in samples], np.float64)


def _unit(rows: Floats) -> Floats:
    unit: Floats = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    return unit


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Posts in a space that one half of the background makes, beside the other half."""

    vectors: Floats
    belongs: Floats
    beyond: float
    """Mean cosine of two posts beyond that of two ordinary ones in the same languages."""
    spread: float
    """Standard error of it."""


def _compare(posts: Sequence[Sample], usual: Sequence[Sample], ordinary: Sequence[Sample]) -> _Comparison:
    space = _Space(usual, whiten=True)
    inside, beside = space.place(posts), space.place(ordinary)
    total, n = inside.sum(0), len(posts)
    others = total - inside
    scores = (inside * others).sum(1) / np.maximum(np.linalg.norm(others, axis=1), 1e-9)
    usual_scores = np.sort(beside @ total / max(float(np.linalg.norm(total)), 1e-9))
    belongs = np.searchsorted(usual_scores, scores.round(9), side="left") / len(usual_scores)
    langs = np.array([sample.lang for sample in ordinary])
    cosines, same, pairs = beside @ beside.T, np.equal.outer(langs, langs), ~np.eye(len(langs), dtype=bool)
    # Posts of one language resemble each other anyway, so chance depends on how the languages are mixed.
    within, across = _mean(cosines[pairs & same]), _mean(cosines[pairs & ~same])
    counts = np.unique(np.array([sample.lang for sample in posts]), return_counts=True)[1].astype(np.float64)
    one_language = float((counts * (counts - 1)).sum()) / (n * (n - 1))
    chance = one_language * within + (1 - one_language) * across
    observed = (float(total @ total) - n) / (n * (n - 1))
    spread = (2 / (n * (n - 1))) ** 0.5 * float(np.std(cosines[pairs]))
    return _Comparison(inside, belongs, observed - chance, spread)


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else 0.0


def _centroid(unit: Floats) -> str:
    """The mean direction as base64 of int8, its length the root of its reliability times `RELIABLE`."""
    posts, total = len(unit), unit.sum(0)
    squared = float(total @ total)
    reliability = min(max((squared - posts) / (posts - 1) * posts / max(squared, 1e-9), 0.05), 1.0)
    length = RELIABLE * reliability**0.5
    scaled = np.clip(np.rint(total / max(squared**0.5, 1e-9) * length), -127, 127).astype(np.int8)
    return base64.b64encode(scaled.tobytes()).decode()

"""The evidence of an alert: what rose, from what, since when, where, who says so, and whether it is one story; pure."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from monitor.detection.cells import Cell, Sample
from monitor.detection.findings import HOUR_MS, Finding
from monitor.detection.stories import MAX_POSTS, Floats, Story, story
from monitor.detection.terms import distinctive, tokens
from monitor.documents.folding import fold
from monitor.records import MAX_REACH, UNDETERMINED, Evidence, Post, Share

MAX_SHARES = 8
"""Languages, sources and topics named; below that each is a few percent."""

MIN_LANGUAGE_SHARE, MIN_LANGUAGE_EXCESS = 0.08, 5.0
"""A language is part of an event when it brings a visible part of the rise, and more than a few stray posts."""

SAME_WORDS = 0.6
"""Jaccard similarity of words from which two posts are shown as one."""

PART_OF_IT = 0.8
"""Part of the earlier posts that must resemble the story less than a post does for that post to be shown as its first."""

GAIN_WORTH, TERM_WORTH, LANGUAGE_WORTH, SURE_WORTH, COPIES_WORTH = 3.0, 1.0, 0.3, 0.3, 0.1
"""What a post is chosen for: how well it stands for the others, the terms it adds, a language not yet shown, how surely it
is negative, how often it was said. The last three are small: they decide between equals."""


@dataclass(frozen=True, slots=True)
class Window:
    """What is remembered of one entity around an incident."""

    inside: Sequence[Cell]
    """Buckets since the onset."""
    before: Sequence[Cell]
    """Non-empty buckets before it."""
    before_buckets: int
    """All buckets before it that are remembered, empty ones too."""
    inside_buckets: int
    """Buckets since the onset, empty ones too."""
    bucket_ms: int
    """Length of a bucket."""


def evidence(finding: Finding, window: Window, *, posts: int, names: Sequence[str]) -> Evidence:
    """Everything an alert shows.

    Args:
        finding: What is in alarm.
        window: The entity's counts and samples.
        posts: Representative posts at most.
        names: The entity's names: no terms, since every post holds one.
    """
    if finding.unit == "topic":
        return _of_topic(finding, window, posts=posts, names=names)
    negative = [sample for cell in window.inside for sample in cell.negative]
    before = [sample for cell in window.before for sample in cell.negative]
    background = before + [s for cell in (*window.before, *window.inside) for s in cell.other]
    languages = language_shares(window)
    rising = {share.name for share in languages if share.share >= MIN_LANGUAGE_SHARE} or {s.lang for s in negative}
    shown = [sample for sample in negative if sample.lang in rising] or negative
    shown = sorted(shown, key=lambda sample: sample.rank)[:MAX_POSTS]
    documents = round(sum(cell.documents for cell in window.inside))
    told = story(shown, before, rise=_excess(finding))
    terms = distinctive(
        [(s.text, s.lang) for s in shown], [(s.text, s.lang) for s in background], most=12, without=names
    )
    return msgspec.structs.replace(
        _size(finding, documents),
        one_event=told.one_event if told is not None else None,
        languages=languages,
        sources=_rise(window, lambda cell: cell.sources),
        topics=_rise(window, lambda cell: cell.topics),
        terms=terms,
        posts=representative(shown, terms, told, most=posts),
        first_post=_first(shown, told),
        reposts=_reposts(window),
        authors=_authors(window),
        reach=min(sum(cell.reach for cell in window.inside), MAX_REACH),
        centroid=told.centroid if told is not None else "",
    )


def _size(finding: Finding, documents: int) -> Evidence:
    """What rose, by how much; nothing of who says so."""
    low, high = _effect(finding, finding.low), _effect(finding, finding.high)
    return Evidence(
        observed=round(finding.observed, 4),
        expected=round(finding.expected, 4),
        low=round(finding.low, 4),
        high=round(finding.high, 4),
        unit=finding.unit,
        documents=documents,
        negatives=round(finding.negatives, 1),
        log_evidence=round(finding.log_evidence, 2),
        effect=round(finding.effect, 4),
        effect_low=round(low, 4),
        effect_high=round(high, 4),
        topic=finding.topic,
    )


def _of_topic(finding: Finding, window: Window, *, posts: int, names: Sequence[str]) -> Evidence:
    """What is said of the topic on the rise, in any mood, beside all that was said before."""
    inside = [s for cell in window.inside for s in (*cell.negative, *cell.other) if s.topic == finding.topic]
    shown = sorted(inside, key=lambda sample: sample.rank)[:MAX_POSTS]
    before = [(s.text, s.lang) for cell in window.before for s in (*cell.negative, *cell.other)]
    terms = distinctive([(s.text, s.lang) for s in shown], before, most=12, without=names)
    return msgspec.structs.replace(
        _size(finding, round(sum(cell.documents for cell in window.inside))),
        languages=_rise(window, lambda cell: {lang: sum(row[:3]) for lang, row in cell.counts.items()}),
        topics=_rise(window, lambda cell: cell.by_topic),
        terms=terms,
        posts=representative(shown, terms, most=posts),
        first_post=_first(shown, None),
        reposts=_reposts(window),
    )


def closing(last: Evidence, signal: str, window: Window, negatives: float) -> Evidence:
    """What is shown at an incident's end: its whole course in numbers, without posts.

    Args:
        last: What was shown last.
        signal: The incident's.
        window: Up to the end.
        negatives: Since the onset, corrected for the classifier's known confusion.
    """
    documents = round(sum(cell.documents for cell in window.inside))
    if last.unit == "share":
        observed = min(max(negatives / max(documents, 1), 0.0), 1.0)
        effect = observed - last.expected
    elif last.unit in ("mean", "topic"):
        # What is remembered of an incident's course are counts of negatives: the rest stays what it was last told to be.
        observed, effect = last.observed, last.effect
    else:
        hours = window.inside_buckets * window.bucket_ms / HOUR_MS
        observed = (documents if signal == "volume" else negatives) / max(hours, 1e-9)
        effect = observed / max(last.expected, 1e-9)
    return msgspec.structs.replace(
        last, observed=round(observed, 4), low=round(observed, 4), high=round(observed, 4), effect=round(effect, 4),
        effect_low=0.0, effect_high=0.0, documents=documents, negatives=round(negatives, 1), posts=(),
        languages=language_shares(window), sources=_rise(window, lambda cell: cell.sources),
        topics=_rise(window, lambda cell: cell.topics), authors=_authors(window), reposts=_reposts(window),
        reach=min(sum(cell.reach for cell in window.inside), MAX_REACH),
    )  # fmt: skip


def _authors(window: Window) -> int:
    return len(set().union(*(cell.authors for cell in window.inside)))


def _reposts(window: Window) -> int:
    return round(sum(row[3] for cell in window.inside for row in cell.counts.values()))


def _effect(finding: Finding, value: float) -> float:
    """What a value is beside the expected one: a difference of shares and means, a factor of volumes."""
    return value / max(finding.expected, 1e-9) if finding.unit == "documents/h" else value - finding.expected


def _excess(finding: Finding) -> float:
    """Part of the negative posts that is beyond what was expected, 0 to 1."""
    if finding.unit == "mean":
        return min(1.0, abs(finding.effect))
    return max(0.0, 1 - finding.expected / max(finding.observed, 1e-9))


def _first(samples: Sequence[Sample], told: Story | None) -> Post | None:
    """The earliest post of the story; without one, the earliest of all."""
    if not samples:
        return None
    part = [s for place, s in enumerate(samples) if told is not None and told.belongs[place] >= PART_OF_IT]
    return min(part or samples, key=lambda s: (s.published_ms, s.rank)).post()


def language_shares(window: Window) -> tuple[Share, ...]:
    """Each language's part in the rise of negative opinions."""
    return _rise(window, lambda cell: {lang: row[0] for lang, row in cell.counts.items()}, least=MIN_LANGUAGE_EXCESS)


def event_languages(window: Window) -> list[str]:
    """The languages that an event is in: those with a visible part of the rise."""
    return sorted(
        share.name
        for share in language_shares(window)
        if share.share >= MIN_LANGUAGE_SHARE and share.name != UNDETERMINED
    )


def _rise(window: Window, counts: Callable[[Cell], Mapping[str, float]], least: float = 0.0) -> tuple[Share, ...]:
    """Counts since the onset beyond what the time before lets expect, as parts of the whole rise."""
    inside: defaultdict[str, float] = defaultdict(float)
    before: defaultdict[str, float] = defaultdict(float)
    for sums, cells in ((inside, window.inside), (before, window.before)):
        for cell in cells:
            for name, count in counts(cell).items():
                sums[name] += count
    scale = window.inside_buckets / window.before_buckets if window.before_buckets else 0.0
    excess = {name: count - scale * before[name] for name, count in inside.items()}
    excess = {name: value for name, value in excess.items() if value > 0 and value >= min(least, max(excess.values()))}
    total = sum(excess.values())
    ordered = sorted(excess.items(), key=lambda item: (-item[1], item[0]))[:MAX_SHARES]
    return tuple(Share(name=name, count=round(inside[name]), share=round(value / total, 4)) for name, value in ordered)


@dataclass(frozen=True, slots=True)
class Usual:
    """What was usual before a change, as it was counted."""

    share: float | None
    """Negative share, 0 to 1; None where the counts are not parts of anything."""
    rate: float | None
    """Negatives a bucket; None where too little was seen."""


def change_point(buckets: Sequence[tuple[int, float, float]], usual: Usual, last_ms: int, length_ms: int) -> int | None:
    """Where a rise began: the median over all onsets, each weighed by its generalised likelihood (Siegmund 1985, section II.6).

    A rise shows in two ways that add up: more of the documents are negative (binomial), and there are more negatives an hour (Poisson).
    Where a strong rise began is beyond doubt; of a weak one the likeliest onset is often a chance cluster, and the median, which has
    the least mean error, is not (`benchmarks/onset.py`).

    Args:
        buckets: (bucket, documents, negatives) in order of time, empty ones left out; in the opposite order, the change is an end.
        usual: Before the change.
        last_ms: The bucket up to which the change lasts: the newest, or in the opposite order the onset.
        length_ms: Of a bucket.

    Returns:
        A bucket with negatives; None when no stretch up to `last_ms` is above what is usual.
    """
    share = None if usual.share is None else min(max(usual.share, 0.01), 0.99)
    gains = np.zeros(len(buckets))
    documents = negatives = 0.0
    for place in reversed(range(len(buckets))):
        bucket, total, negative = buckets[place]
        documents += total
        negatives += negative
        if share is not None:
            gains[place] += _binomial_gain(documents, negatives, share)
        if usual.rate is not None:
            gains[place] += _poisson_gain(negatives, usual.rate * (abs(last_ms - bucket) / length_ms + 1))
    if not len(buckets) or gains.max() <= 0:
        return None
    starts = np.array([bucket for bucket, _, _ in buckets])
    # An onset in the empty time before a bucket leaves the same counts after it.
    waits = np.abs(np.diff(starts, prepend=starts[0] - length_ms)) / length_ms
    weights = np.cumsum(np.exp(gains - gains.max()) * waits)
    median = int(np.searchsorted(weights, weights[-1] / 2))
    return next((bucket for bucket, _, negative in buckets[median:] if negative > 0), None)


def _binomial_gain(documents: float, negatives: float, usual: float) -> float:
    """Log-likelihood that a share of its own gains over the usual one; 0 where it is not above it."""
    if negatives <= usual * documents:
        return 0.0
    share = negatives / documents
    gain = negatives * math.log(share / usual)
    return gain + (documents - negatives) * math.log((1 - share) / (1 - usual)) if share < 1 else gain


def _poisson_gain(negatives: float, expected: float) -> float:
    """The same of a count over the one expected."""
    return negatives * math.log(negatives / expected) - (negatives - expected) if negatives > expected > 0 else 0.0


def representative(
    samples: Sequence[Sample], terms: Sequence[str], told: Story | None = None, *, most: int
) -> tuple[Post, ...]:
    """Posts that together stand for what is said: each new one covers what the others leave out, none tells the same again.

    Posts that share most of their words are one. Then greedy choice (Nemhauser, Wolsey, Fisher 1978: within 1-1/e of the
    best for such coverage): facility location over the embeddings, where each post counts by how surely it belongs to the
    story, and weighted coverage of the terms.

    Args:
        samples: Negative posts since the onset.
        terms: The strongest first.
        told: Their story, place by place; None without embeddings.
        most: How many posts at most.
    """
    groups = _alike(samples)
    if not groups or most <= 0:
        return ()
    weight = {fold(term): 1.0 / (place + 2) for place, term in enumerate(terms)}
    places = [group.places[0] for group in groups]
    copies = np.array([len(group.places) for group in groups], np.float64)
    belongs = told.belongs[places] if told is not None else np.ones(len(groups))
    near = _nearness(told, places)
    worth = belongs * copies / max(float((belongs * copies).sum()), 1e-9)
    sure = np.array([samples[place].negative for place in places])
    fixed = SURE_WORTH * sure + COPIES_WORTH * np.minimum(copies, 10)
    best = np.zeros(len(groups))
    covered: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    chosen: list[int] = []
    left = set(range(len(groups)))
    while left and len(chosen) < most:
        gains = np.maximum(near - best[:, None], 0.0).T @ worth if near is not None else np.zeros(len(groups))

        def value(place: int, gains: Floats = gains) -> tuple[float, int]:
            group = groups[place]
            added = sum(weight.get(word, 0.0) / (1 + covered[word]) for word in sorted(group.words))
            new_language = LANGUAGE_WORTH / (1 + languages[samples[group.places[0]].lang])
            whole = float(gains[place]) * GAIN_WORTH + TERM_WORTH * added + new_language + float(fixed[place])
            return round(whole * (0.1 + float(belongs[place]) ** 2), 9), -samples[group.places[0]].rank

        picked = max(left, key=value)
        left.discard(picked)
        chosen.append(picked)
        covered.update(groups[picked].words)
        languages[samples[groups[picked].places[0]].lang] += 1
        if near is not None:
            best = np.maximum(best, near[:, picked])
    return tuple(samples[groups[place].places[0]].post(len(groups[place].places)) for place in chosen)


def _nearness(told: Story | None, places: Sequence[int]) -> Floats | None:
    """Cosine of each two of these posts, float64 [n, n], 0 where they point apart; rounded, so that ties stay ties."""
    if told is None:
        return None
    vectors = told.vectors[list(places)]
    near: Floats = np.maximum((vectors @ vectors.T).round(9), 0.0)
    return near


@dataclass(slots=True)
class _Group:
    """Posts of near-equal wording, the clearest negative first."""

    words: set[str]
    places: list[int]
    fingerprint: str


def _alike(samples: Sequence[Sample]) -> list[_Group]:
    """Samples grouped by near-equal wording."""
    groups: list[_Group] = []
    holding: defaultdict[str, list[int]] = defaultdict(list)
    by_fingerprint: dict[str, int] = {}
    for place in sorted(range(len(samples)), key=lambda n: (-samples[n].negative, samples[n].rank)):
        sample = samples[place]
        known = by_fingerprint.get(sample.fingerprint) if sample.fingerprint else None
        if known is not None:
            groups[known].places.append(place)
            continue
        words = tokens(sample.text, sample.lang)
        near = Counter(number for word in words for number in holding[word])
        # In an order of its own: a set's differs from process to process.
        for number, common in sorted(near.items(), key=lambda item: (-item[1], item[0]))[:5]:
            if common / max(1, len(words | groups[number].words)) >= SAME_WORDS:
                groups[number].places.append(place)
                break
        else:
            number = len(groups)
            for word in words:
                holding[word].append(number)
            groups.append(_Group(words, [place], sample.fingerprint))
        if sample.fingerprint:
            by_fingerprint[sample.fingerprint] = number
    return groups

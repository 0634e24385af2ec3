"""The evidence of an alert and the words for it: what rose, from what, since when, where, and who says so; pure."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from monitor.detection.bank import Finding
from monitor.detection.cells import Cell, Sample
from monitor.detection.terms import distinctive, tokens
from monitor.records import UNDETERMINED, Evidence, Post, Share

MAX_SHARES = 8
"""Languages, sources and topics named; below that each is a few percent."""

MIN_LANGUAGE_SHARE, MIN_LANGUAGE_EXCESS = 0.08, 5.0
"""A language is part of an event when it brings a visible part of the rise, and more than a few stray posts."""

SAME_STORY = 0.6
"""Jaccard similarity of words from which two posts are shown as one."""


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


def evidence(finding: Finding, window: Window, *, posts: int, names: Sequence[str]) -> Evidence:
    """Everything an alert shows.

    Args:
        finding: What is in alarm.
        window: The entity's counts and samples.
        posts: Representative posts at most.
        names: The entity's names: no terms, since every post holds one.
    """
    negative = [sample for cell in window.inside for sample in cell.negative]
    background = [s for cell in window.before for s in (*cell.negative, *cell.other)]
    background += [s for cell in window.inside for s in cell.other]
    languages = language_shares(window)
    rising = {share.name for share in languages if share.share >= MIN_LANGUAGE_SHARE} or {s.lang for s in negative}
    shown = [sample for sample in negative if sample.lang in rising] or negative
    terms = distinctive(
        [(s.text, s.lang) for s in shown], [(s.text, s.lang) for s in background], most=12, without=names
    )
    return Evidence(
        observed=round(finding.observed, 4),
        expected=round(finding.expected, 4),
        low=round(finding.low, 4),
        high=round(finding.high, 4),
        unit=finding.unit,
        documents=sum(cell.documents for cell in window.inside),
        negatives=round(finding.negatives, 1),
        log_evidence=round(finding.log_evidence, 2),
        languages=languages,
        sources=_rise(window, lambda cell: cell.sources),
        topics=_rise(window, lambda cell: cell.topics),
        terms=terms,
        posts=representative(shown, terms, most=posts),
        first_post=min(shown, key=lambda s: (s.published_ms, s.rank)).post() if shown else None,
        reposts=sum(row[3] for cell in window.inside for row in cell.counts.values()),
        authors=len(set().union(*(cell.authors for cell in window.inside))) if window.inside else 0,
        reach=sum(cell.reach for cell in window.inside),
    )


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


def _rise(window: Window, counts: Callable[[Cell], Mapping[str, int]], least: float = 0.0) -> tuple[Share, ...]:
    """Counts since the onset beyond what the time before lets expect, as parts of the whole rise."""
    inside: Counter[str] = Counter()
    before: Counter[str] = Counter()
    for cell in window.inside:
        inside.update(counts(cell))
    for cell in window.before:
        before.update(counts(cell))
    scale = window.inside_buckets / window.before_buckets if window.before_buckets else 0.0
    excess = {name: count - scale * before[name] for name, count in inside.items()}
    excess = {name: value for name, value in excess.items() if value > 0 and value >= min(least, max(excess.values()))}
    total = sum(excess.values())
    ordered = sorted(excess.items(), key=lambda item: (-item[1], item[0]))[:MAX_SHARES]
    return tuple(Share(name=name, count=inside[name], share=round(value / total, 4)) for name, value in ordered)


def change_point(buckets: Sequence[tuple[int, int, int]], usual: float) -> int | None:
    """Where a share changed, by the generalised likelihood ratio over every possible onset (Siegmund 1985, section II.6).

    Args:
        buckets: (bucket, documents, negatives) in order of time, up to now.
        usual: The share before, as it was counted.

    Returns:
        The bucket since when the counts differ most from the usual share, weighed by how many they are; None when no
        stretch up to now is above it.
    """
    usual = min(max(usual, 0.01), 0.99)
    best, onset, documents, negatives = 0.0, None, 0, 0
    for bucket, total, negative in reversed(buckets):
        documents += total
        negatives += negative
        if documents == 0 or negative == 0:
            continue  # an onset is where something was said
        share = negatives / documents
        if share <= usual:
            continue
        ratio = negatives * math.log(share / usual)
        if share < 1:
            ratio += (documents - negatives) * math.log((1 - share) / (1 - usual))
        if ratio > best:
            best, onset = ratio, bucket
    return onset


def representative(samples: Sequence[Sample], terms: Sequence[str], *, most: int) -> tuple[Post, ...]:
    """Posts that together cover what is said: each new one adds terms and languages, none tells the same again.

    Greedy weighted coverage (Nemhauser, Wolsey, Fisher 1978: within 1-1/e of the best choice), after collapsing posts
    that share most of their words.
    """
    groups = _stories(samples)
    weight = {term: 1.0 / (place + 2) for place, term in enumerate(terms)}
    chosen: list[tuple[Sample, int]] = []
    covered: Counter[str] = Counter()
    languages: Counter[str] = Counter()

    def worth(group: list[tuple[Sample, set[str]]]) -> tuple[float, int]:
        sample, words = group[0]
        new = sum(weight.get(word, 0.0) / (1 + covered[word]) for word in words)
        return (
            new + 0.3 / (1 + languages[sample.lang]) + 0.3 * sample.negative + 0.1 * min(len(group), 10),
            -sample.rank,
        )

    while groups and len(chosen) < most:
        best = max(groups, key=worth)
        groups.remove(best)
        sample, words = best[0]
        chosen.append((sample, len(best)))
        covered.update(words)
        languages[sample.lang] += 1
    return tuple(sample.post(copies) for sample, copies in chosen)


def _stories(samples: Sequence[Sample]) -> list[list[tuple[Sample, set[str]]]]:
    """Samples grouped by near-equal wording, the clearest negative first in each group."""
    groups: list[list[tuple[Sample, set[str]]]] = []
    holding: defaultdict[str, list[int]] = defaultdict(list)
    for sample in sorted(samples, key=lambda s: (-s.negative, s.rank)):
        words = tokens(sample.text, sample.lang)
        near = Counter(place for word in words for place in holding[word])
        for place, common in near.most_common(5):
            other = groups[place][0][1]
            if common / max(1, len(words | other)) >= SAME_STORY:
                groups[place].append((sample, words))
                break
        else:
            for word in words:
                holding[word].append(len(groups))
            groups.append([(sample, words)])
    return groups


def summary(
    name: str, state: str, finding: Finding | None, shown: Evidence, languages: Sequence[str], onset_ms: int
) -> str:
    """One line for a phone."""
    where = f" in {', '.join(languages[:6])}" if languages else ""
    if state == "resolved" or finding is None:
        return f"{name}: back to normal{where} after {shown.documents} posts since {_time(onset_ms)}"
    if finding.unit == "share":
        return (
            f"{name}: {shown.observed:.0%} negative (usually {shown.expected:.0%}) since {_time(onset_ms)}{where}, "
            f"{shown.documents} posts"
        )
    times = shown.observed / shown.expected if shown.expected > 0 else float("inf")
    what = "negative posts" if finding.signal == "negative_volume" else "posts"
    return f"{name}: {times:.1f} times the usual {what} since {_time(onset_ms)}{where}, {shown.documents} posts"


def description(headline: str, shown: Evidence, *, onset_ms: int, at_ms: int) -> str:
    """The whole explanation as plain text, complete in one message."""
    unit = "negative" if shown.unit == "share" else "an hour"
    number = "{:.0%}" if shown.unit == "share" else "{:.0f}"
    values = [number.format(v) for v in (shown.observed, shown.low, shown.high, shown.expected)]
    lines = [
        headline,
        "",
        f"Observed {values[0]} {unit} (95 % interval {values[1]} to {values[2]}), expected {values[3]}.",
        f"Since {_time(onset_ms)} until {_time(at_ms)}: {shown.documents} posts, {shown.authors} distinct authors of "
        f"negative ones at least, {shown.reposts} reposts, reach {shown.reach:,}.",
    ]
    for title, shares in (("Languages", shown.languages), ("Sources", shown.sources), ("Topics", shown.topics)):
        if shares:
            lines.append(f"{title} of the rise: " + ", ".join(f"{s.name} {s.share:.0%} ({s.count})" for s in shares))
    if shown.terms:
        lines.append("What sets it apart: " + ", ".join(shown.terms))
    if shown.first_post is not None:
        lines.append(f"First: {_time(shown.first_post.published_ms)} [{shown.first_post.lang}] {shown.first_post.text}")
    if shown.posts:
        lines += ["", "Posts:"]
        for post in shown.posts:
            copies = f" (×{post.copies})" if post.copies > 1 else ""
            link = f" {post.url}" if post.url else ""
            lines.append(f"- [{post.lang}] {post.text}{copies}{link}")
    return "\n".join(lines)


def _time(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%a %d %b %H:%M} UTC"

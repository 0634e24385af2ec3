"""The evidence of several entities' incidents as that of one: sums, parts, and what each has to tell; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import TypeVar

import msgspec

from monitor.detection.explain import MAX_SHARES
from monitor.detection.findings import INTERVAL_Z
from monitor.records import MAX_REACH, Alert, Evidence, IncidentKind, Post, Share

MAX_TERMS = 12
T = TypeVar("T")


def merged(alerts: Sequence[Alert], *, kind: IncidentKind, posts: int) -> Alert:
    """One alert for several entities: the strongest one's, with what all of them together show.

    Args:
        alerts: One of each member, in the order in which they joined.
        kind: Whether the members tell one story.
        posts: Representative posts at most.
    """
    ordered = sorted(alerts, key=lambda alert: (-_excess(alert.evidence), alert.entity, alert.incident))
    lead = ordered[0]
    shown = [alert.evidence for alert in ordered]
    weights = [_excess(evidence) for evidence in shown]
    total = max(sum(weights), 1e-9)
    labels = {alert.entity: alert.labels for alert in reversed(ordered)}
    entities = list(dict.fromkeys(alert.entity for alert in ordered))
    parts = dict.fromkeys(entities, 0.0)
    counts: Counter[str] = Counter()
    for alert, weight in zip(ordered, weights, strict=True):
        parts[alert.entity] += weight / total
        counts[alert.entity] += alert.evidence.documents
    firsts = [evidence.first_post for evidence in shown if evidence.first_post is not None]
    evidence = msgspec.structs.replace(
        _pooled(lead.evidence, shown),
        log_evidence=max(evidence.log_evidence for evidence in shown),
        languages=_shares(shown, weights, lambda evidence: evidence.languages),
        sources=_shares(shown, weights, lambda evidence: evidence.sources),
        topics=_shares(shown, weights, lambda evidence: evidence.topics),
        terms=tuple(_in_turn([evidence.terms for evidence in shown]))[:MAX_TERMS],
        posts=_posts(shown, posts),
        first_post=min(firsts, key=lambda post: (post.published_ms, post.document_id), default=None),
        reposts=sum(evidence.reposts for evidence in shown),
        # The same author may speak of several: at least as many as of any.
        authors=max(evidence.authors for evidence in shown),
        reach=min(sum(evidence.reach for evidence in shown), MAX_REACH),
        one_event=lead.evidence.one_event if kind == "story" else None,
        entities=tuple(Share(name=name, count=counts[name], share=round(parts[name], 4)) for name in entities),
    )
    languages = {lang for alert in ordered for lang in alert.languages}
    part = {share.name: share.share for share in evidence.languages}
    return msgspec.structs.replace(
        lead, evidence=evidence, entities=tuple(entities), entity_labels=tuple(labels[name] for name in entities),
        languages=tuple(sorted(languages, key=lambda lang: (-part.get(lang, 0.0), lang))), kind=kind,
    )  # fmt: skip


def _excess(shown: Evidence) -> float:
    """Negative posts beyond what was expected."""
    if shown.unit == "share":
        return max(shown.negatives - shown.expected * shown.documents, 0.0)
    return shown.negatives * max(1 - 1 / max(shown.effect, 1.0), 0.0)


def _pooled(lead: Evidence, shown: Sequence[Evidence]) -> Evidence:
    """The share over all members with its interval; where a volume rose, the strongest member's own."""
    documents = sum(evidence.documents for evidence in shown)
    negatives = sum(evidence.negatives for evidence in shown)
    whole = msgspec.structs.replace(lead, documents=documents, negatives=round(negatives, 1))
    if documents == 0 or any(evidence.unit != "share" for evidence in shown):
        return whole

    def pool(value: Callable[[Evidence], float]) -> float:
        return sum(value(evidence) * evidence.documents for evidence in shown) / documents

    observed, expected = pool(lambda e: e.observed), pool(lambda e: e.expected)
    variance = sum(((e.high - e.low) / 2 / INTERVAL_Z * e.documents / documents) ** 2 for e in shown)
    margin = INTERVAL_Z * variance**0.5
    low, high = max(observed - margin, 0.0), min(observed + margin, 1.0)
    told = any(evidence.effect_high for evidence in shown)
    return msgspec.structs.replace(
        whole, observed=round(observed, 4), expected=round(expected, 4), low=round(low, 4), high=round(high, 4),
        effect=round(observed - expected, 4), effect_low=round(low - expected, 4) if told else 0.0,
        effect_high=round(high - expected, 4) if told else 0.0,
    )  # fmt: skip


def _shares(
    shown: Sequence[Evidence], weights: Sequence[float], of: Callable[[Evidence], Sequence[Share]]
) -> tuple[Share, ...]:
    """Parts of the whole rise: each member's, weighed by its own part."""
    counts: Counter[str] = Counter()
    parts: dict[str, float] = {}
    for evidence, weight in zip(shown, weights, strict=True):
        for share in of(evidence):
            counts[share.name] += share.count
            parts[share.name] = parts.get(share.name, 0.0) + share.share * weight
    total = max(sum(parts.values()), 1e-9)
    ordered = sorted(parts, key=lambda name: (-parts[name], name))[:MAX_SHARES]
    return tuple(Share(name=name, count=counts[name], share=round(parts[name] / total, 4)) for name in ordered)


def _posts(shown: Sequence[Evidence], most: int) -> tuple[Post, ...]:
    """In turn of each member, no document twice."""
    found: dict[str, Post] = {}
    for post in _in_turn([evidence.posts for evidence in shown]):
        found.setdefault(post.document_id, post)
    return tuple(found.values())[:most]


def _in_turn(rows: Sequence[Sequence[T]]) -> list[T]:
    """The first of each, then the second of each, and so on; nothing twice."""
    found: list[T] = []
    for column in zip_longest(*rows):
        found += [item for item in column if item is not None and item not in found]
    return found

"""Incidents of several entities as people know them: what is kept of each, and what makes several one; pure."""

from __future__ import annotations

import msgspec
from scipy.special import bdtrc

from monitor.detection.stories import likeness
from monitor.records import Alert, IncidentKind, Severity

SHARED_POSTS = 3
"""Representative posts of two names that are the same documents, from which they have the same story without embeddings."""
RISING_ANYWAY = 0.3
"""Part of all entities that show some rise at any time, put high: on a small watchlist nearly all must rise."""
COMMON_CHANCE = 1e-3
"""So unlikely must it be that so many rise by chance, before one cause is assumed."""
COMMON_LEAST = 5
"""Entities below which "many at once" means nothing."""


class Member(msgspec.Struct):
    """One entity's part in an incident of several."""

    alert: Alert
    """Its newest step that showed evidence of the rise."""
    joined_ms: int
    resolved: bool = False


class Group(msgspec.Struct):
    """One incident as people know it."""

    id: str
    entity: str
    """Of the first member: what the incident's alerts are labelled by, from beginning to end."""
    kind: IncidentKind
    members: dict[str, Member]
    """By the incident id that its detector gave it."""
    at_ms: int
    """Of the newest step."""
    told_ms: int = 0
    told_members: int = 0
    sequence: int = 0
    severity: Severity = "info"
    languages: list[str] = msgspec.field(default_factory=list)
    owed: bool = False
    """Something is to be told as soon as enough time has passed since the last message."""
    ended_ms: int = 0
    """0 while it lasts."""

    @property
    def open(self) -> bool:
        """Whether any member still lasts."""
        return any(not member.resolved for member in self.members.values())

    @property
    def onset_ms(self) -> int:
        """Of the earliest member."""
        return min(member.alert.onset_ms for member in self.members.values())


def is_common(known: int, rising: int, part: float) -> bool:
    """Whether so many of the entities rise at once that one cause is likelier than many.

    Args:
        known: Entities with traffic and a baseline.
        rising: Those of them that show a rise, the one that raised the question among them.
        part: Least part of them, 0 to 1.
    """
    if known < COMMON_LEAST or rising < 2 or rising < part * known:
        return False
    # At least so many of the others, were each rising by chance.
    return float(bdtrc(rising - 2, known - 1, RISING_ANYWAY)) < COMMON_CHANCE


def sameness(left: Alert, right: Alert) -> float:
    """How far two entities' posts tell the same, -1 to 1."""
    value = likeness(left.evidence.centroid, right.evidence.centroid)
    if value is not None:
        return value
    shared = {post.document_id for post in left.evidence.posts} & {post.document_id for post in right.evidence.posts}
    return 1.0 if len(shared) >= SHARED_POSTS else -1.0


def trim(group: Group, posts: int) -> None:
    """Keep of each member the posts that can be shown: a hundred members are a message's worth of state, not a hundred."""
    most = max(2, posts // len(group.members) + 1)
    for member in group.members.values():
        shown = member.alert.evidence
        if len(shown.posts) > most:
            evidence = msgspec.structs.replace(shown, posts=shown.posts[:most])
            member.alert = msgspec.structs.replace(member.alert, evidence=evidence, description="")

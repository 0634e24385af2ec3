"""What people did that notifications heed: muted entities, acknowledged incidents; pure, fed from the audit topic."""

from __future__ import annotations

from monitor.records import Action

KEPT = 50_000
"""Incidents whose acknowledgement is remembered; the oldest goes first. Far more than are open at any time."""


class Actions:
    """The newest word on each entity and incident. Order of feeding does not matter: the later action wins.

    >>> actions = Actions()
    >>> actions.take(Action(id="1", kind="mute", who="ann", at_ms=10, entity="acme", until_ms=500))
    >>> actions.muted("acme", 499), actions.muted("acme", 500)
    (True, False)
    """

    def __init__(self) -> None:
        self._mutes: dict[str, tuple[int, str, int]] = {}  # entity -> (at, id, until)
        self._acknowledged: dict[str, int] = {}
        self.erased: set[str] = set()
        """Hashes of documents whose posts nobody may be shown any more."""

    def take(self, action: Action) -> None:
        """Heed an action; those that do not concern notifications are left alone."""
        if action.kind in ("mute", "unmute"):
            word = (action.at_ms, action.id, action.until_ms if action.kind == "mute" else 0)
            self._mutes[action.entity] = max(word, self._mutes.get(action.entity, word))
        elif action.kind in ("acknowledge", "false_alarm") and action.incident:
            self._acknowledged[action.incident] = max(action.at_ms, self._acknowledged.pop(action.incident, 0))
            if len(self._acknowledged) > KEPT:
                del self._acknowledged[next(iter(self._acknowledged))]
        elif action.kind == "erase":
            self.erased.update(action.changes)

    def muted(self, entity: str, now_ms: int) -> bool:
        """Whether an entity is muted at a time (Unix milliseconds of the wall clock)."""
        return entity in self._mutes and now_ms < self._mutes[entity][2]

    def acknowledged(self, incident: str) -> bool:
        """Whether somebody said that they know, or that it is a false alarm."""
        return incident in self._acknowledged

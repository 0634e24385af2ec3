"""One knob: how the false-alarm budget over everything watched becomes a bar for each series' evidence.

Shiryaev-Roberts evidence R starts at 0, grows in expectation by the time w that is given to it, and loses R when an alarm
sets it back to 0. As long as nothing happens, therefore, E[alarms] * bar <= E[sum of w], whatever the series, however they
depend on each other, over any stretch of time. Sharing the budget is sharing the time: an entity has the bar

    bar = SAFETY x (number of watched entities) / (false alarms a day)        in days

and its series and signals divide each passing day among themselves. The division may follow what was seen before (a language
that speaks more gets more), since only the past is used. It depends on the entity alone and on the watchlist's
length, so it is the same however entities are spread over partitions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monitor.detection.counts import SIGNALS, Floats
from monitor.detection.settings import DetectionSettings

SAFETY = 2.0
"""The bound above is exact where the baseline is known. It is learned, and traffic clumps in ways that no model has. With this,
simulated quiet traffic of no kind tried had more than a seventh of the alarms that were allowed. Raising the bar costs little: 0.7 nats."""
ROLLUP_PART = 0.5
"""Of an entity's budget: an event in several languages shows best in their sum."""
SIGNAL_WORTH = {
    "negative_share": 4.0,
    "negative_volume": 2.0,
    "sentiment": 1.0,
    "language_spread": 1.0,
    "volume": 2.0,
    "topic_shift": 1.0,
}
"""How signals share: half for what is asked of the detector first, so that the others cost it nothing."""
EQUAL_PART = 0.5
"""Of what the languages share, this much is shared equally and the rest by volume, so that a small language is heard
and a large one, where an event is likelier, gets more."""


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """How the budget is being spent.

    Attributes:
        allowed_per_day: False alarms a day over everything watched, as set.
        entities: Watched entities it is shared over.
        raised: Alarms raised by this bank since it was made, true and false together.
        allowed: False alarms that the budget allowed this bank's series in the same time.
    """

    allowed_per_day: float
    entities: int
    raised: int
    allowed: float


def bar_days(settings: DetectionSettings, entities: int) -> float:
    """The evidence, in days of budget time, at which any series of a watched entity is in alarm."""
    return SAFETY * max(entities, 1) / settings.false_alarms_per_day


def signal_parts(settings: DetectionSettings) -> Floats:
    """Each signal's part of the budget, float64 [signals]; 0 for a signal that raises no alarm."""
    worth = np.array([SIGNAL_WORTH[signal] * (signal in settings.signals) for signal in SIGNALS])
    parts: Floats = worth / _whole_worth(settings)
    return parts


def topic_part(settings: DetectionSettings) -> float:
    """The part of the budget that the topics have, which are series of their own (`topics.py`)."""
    return SIGNAL_WORTH["topic_shift"] * ("topic_shift" in settings.signals) / _whole_worth(settings)


def _whole_worth(settings: DetectionSettings) -> float:
    return max(sum(SIGNAL_WORTH[signal] for signal in set(settings.signals)), 1.0)


def without(parts: Floats, signal: int) -> Floats:
    """The parts where one of the signals does not exist, and the others share what it had."""
    rest = parts.copy()
    rest[signal] = 0.0
    total = float(rest.sum())
    return rest * (float(parts.sum()) / total) if total > 0 else rest


def language_parts(mass: Floats, entity_mass: Floats, languages: Floats) -> Floats:
    """Each language's part of its entity's budget, float64 [n].

    Args:
        mass: float64 [n], the language's discounted documents.
        entity_mass: float64 [n], its entity's; at least `mass`.
        languages: float64 [n], number of the entity's languages, at least 1.
    """
    by_volume = np.minimum(mass / np.maximum(entity_mass, 1e-9), 1.0)
    return (1 - ROLLUP_PART) * (EQUAL_PART / languages + (1 - EQUAL_PART) * by_volume)


def rollup_parts(languages: Floats) -> Floats:
    """The rollup's part, float64 [n]: all of it where counts come without languages."""
    return np.where(languages > 0, ROLLUP_PART, 1.0)

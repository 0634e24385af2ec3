"""The detector's options: one knob for false alarms, and few others that a person can reason about."""

from typing import Literal

from pydantic import Field

from monitor.settings import Settings

Signal = Literal["negative_share", "negative_volume", "sentiment", "language_spread", "volume", "topic_shift"]


class DetectionSettings(Settings):
    """How counts of opinions become alarms."""

    bucket_s: int = Field(60, ge=1, le=86_400, description="Length of an event-time bucket in seconds.")
    allowed_lateness_s: int = Field(
        120, ge=0, le=86_400, description="How long after its end a bucket still takes late opinions, in seconds."
    )
    false_alarms_per_day: float = Field(
        1.0, gt=0, le=1000, description="The budget: false alarms a day that are acceptable over everything watched."
    )
    minimal_effect: float = Field(
        0.05, gt=0, lt=1, description="A rise of the negative share below this many points (0 to 1) wakes nobody."
    )
    minimal_ratio: float = Field(1.5, gt=1, le=100, description="A rise of a volume below this factor wakes nobody.")
    minimum_documents: int = Field(
        8, ge=1, le=1_000_000, description="No alarm before this many documents since the onset."
    )
    half_life_days: float = Field(
        7.0, gt=0, le=365, description="The baseline forgets half of what it learned in this many days."
    )
    freeze_days: float = Field(
        2.0, gt=0, le=365, description="An alarm lasting longer than this many days becomes the new normal."
    )
    signals: tuple[Signal, ...] = Field(
        ("negative_share", "negative_volume", "sentiment", "language_spread"),
        description="Signals that raise alarms. More talk (`volume`) and other talk (`topic_shift`) are no bad news by "
        "themselves, so they are off.",
    )

    def closed_at(self, watermark_ms: int) -> int:
        """End of the last bucket that is over at a watermark, both in ms of event time."""
        safe_ms = watermark_ms - self.allowed_lateness_s * 1000
        return safe_ms - safe_ms % (self.bucket_s * 1000)

"""Sample alerts of one invented incident: for `babelwatch notify test`, and to try out templates."""

from __future__ import annotations

import msgspec

from monitor.records import Alert, Evidence, Post, Share

INCIDENT = "babelwatch-test"
"""The id of the sample's incident: always the same, so that a test resolved ends a test fired."""

ONSET_MS = 1_772_445_600_000
"""2026-03-02 10:00 UTC."""


def samples(onset_ms: int = ONSET_MS) -> tuple[Alert, Alert, Alert]:
    """The sample incident firing, escalated and resolved."""
    posts = (
        Post(
            document_id="test-1", text="Third day without a reply from support. I am done with them.", lang="en",
            published_ms=onset_ms + 120_000, sentiment="negative", source="forum", copies=4,
        ),
        Post(
            document_id="test-2", text="Uygulama yine çöktü, param nerede?", lang="tr",
            published_ms=onset_ms + 300_000, sentiment="negative", source="social",
        ),
        Post(
            document_id="test-3", text="الخدمة متوقفة منذ الصباح ولا أحد يجيب", lang="ar",
            published_ms=onset_ms + 480_000, sentiment="negative", source="social",
        ),
    )  # fmt: skip
    evidence = Evidence(
        observed=0.62, expected=0.18, low=0.55, high=0.69, unit="share", documents=184, negatives=114.0, log_evidence=21.4,
        languages=(Share(name="en", count=96, share=0.55), Share(name="tr", count=52, share=0.3), Share(name="ar", count=20, share=0.15)),
        sources=(Share(name="social", count=120, share=0.7), Share(name="forum", count=64, share=0.3)),
        topics=(), terms=("support", "çöktü", "متوقفة"), posts=posts, first_post=posts[0], reposts=31, authors=97, reach=48_200,
    )  # fmt: skip
    firing = Alert(
        id=f"{INCIDENT}-0", incident=INCIDENT, entity=INCIDENT, entity_name="Babelwatch test", signal="negative_share",
        state="firing", severity="warning", onset_ms=onset_ms, at_ms=onset_ms + 600_000, languages=("en", "tr"),
        summary="TEST: Babelwatch test: 62% negative (usually 18%)", labels={"test": "true"}, evidence=evidence, sequence=0,
        description="TEST: this is a sample, sent by `babelwatch notify test`. Nothing happened.",
    )  # fmt: skip
    escalated = msgspec.structs.replace(
        firing, id=f"{INCIDENT}-1", state="escalated", severity="critical", languages=("ar", "en", "tr"), sequence=1,
        at_ms=onset_ms + 1_800_000,
    )  # fmt: skip
    resolved = msgspec.structs.replace(
        escalated, id=f"{INCIDENT}-2", state="resolved", sequence=2, at_ms=onset_ms + 7_200_000, ended_ms=onset_ms + 6_300_000,
        summary="TEST: Babelwatch test: back to normal",
    )  # fmt: skip
    return firing, escalated, resolved

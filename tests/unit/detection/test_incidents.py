"""The life of an incident: confirmed, told once, grown, ended with hysteresis, re-opened."""

from __future__ import annotations

from monitor.detection.bank import Finding
from monitor.detection.incidents import AlertSettings, IncidentBook, Step

MINUTE_MS = 60_000


def finding(
    minute: int,
    lang: str = "*",
    effect: float = 0.2,
    signal: str = "negative_share",
    active: bool = True,
    entity: str = "air",
) -> Finding:
    return Finding(
        entity=entity, lang=lang, signal=signal, bucket_ms=minute * MINUTE_MS, onset_ms=10 * MINUTE_MS, active=active,
        log_evidence=9.0, threshold=8.0, observed=0.5, expected=0.3, low=0.4, high=0.6, unit="share", documents=40,
        negatives=20.0, effect=effect,
    )  # fmt: skip


def life(findings: dict[int, list[Finding]], minutes: int, **options: float) -> list[tuple[int, Step]]:
    settings = AlertSettings(**{"confirm_s": 60, "resolve_after_s": 300, "reopen_s": 1200, "update_s": 120, **options})  # type: ignore[arg-type]
    book = IncidentBook(settings, MINUTE_MS)
    return [
        (minute, step)
        for minute in range(minutes)
        for step in book.update(minute * MINUTE_MS, findings.get(minute, []))
    ]


def test_it_is_confirmed_told_once_and_ended_after_quiet() -> None:
    steps = life({minute: [finding(minute)] for minute in range(10, 20)}, 60)
    assert [(minute, step.state) for minute, step in steps] == [(11, "firing"), (24, "resolved")]
    assert steps[1][1].incident.ended_ms == 20 * MINUTE_MS


def test_one_bucket_alone_wakes_nobody() -> None:
    assert life({10: [finding(10)]}, 60) == []


def test_a_gap_shorter_than_the_patience_is_one_incident() -> None:
    minutes = [*range(10, 15), *range(18, 25)]
    steps = life({minute: [finding(minute)] for minute in minutes}, 60)
    assert [step.state for _, step in steps] == ["firing", "resolved"]


def test_languages_and_signals_of_one_entity_are_one_incident_that_grows() -> None:
    findings = {minute: [finding(minute, "en")] for minute in range(10, 40)}
    for minute in range(20, 40):
        findings[minute] += [finding(minute, "es"), finding(minute, "es", signal="negative_volume")]
    steps = life(findings, 60)
    assert [step.state for _, step in steps] == ["firing", "escalated", "resolved"]
    assert len({step.incident.id for _, step in steps}) == 1
    assert steps[-1][1].incident.languages == ["en", "es"]


def test_severity_never_falls_and_a_larger_effect_escalates() -> None:
    findings = {minute: [finding(minute, effect=0.6 if minute == 20 else 0.1)] for minute in range(10, 40)}
    steps = life(findings, 60)
    assert [step.state for _, step in steps] == ["firing", "escalated", "resolved"]
    assert steps[-1][1].incident.severity == "critical"


def test_soon_after_it_is_the_same_incident_and_later_another() -> None:
    def ids(second: int) -> list[str]:
        findings = {minute: [finding(minute)] for minute in [*range(10, 20), *range(second, second + 10)]}
        return [step.incident.id for _, step in life(findings, 200) if step.state == "firing"]

    assert len(set(ids(30))) == 1
    again = IncidentBook(AlertSettings(), MINUTE_MS)
    assert again.open == []


def test_entities_do_not_mix() -> None:
    findings = {minute: [finding(minute), finding(minute, entity="bank")] for minute in range(10, 20)}
    steps = life(findings, 40)
    assert sorted(step.incident.entity for _, step in steps if step.state == "firing") == ["air", "bank"]


def test_a_volume_alone_is_information() -> None:
    findings = {minute: [finding(minute, signal="volume")] for minute in range(10, 20)}
    assert life(findings, 20)[0][1].incident.severity == "info"


def test_a_rise_that_reaches_many_or_comes_fast_is_critical() -> None:
    def severity(reach: int, **options: float) -> str:
        book = IncidentBook(AlertSettings(confirm_s=0, **options), MINUTE_MS)  # type: ignore[arg-type]
        return book.update(10 * MINUTE_MS, [finding(10)], lambda _entity, _since: reach)[0].incident.severity

    assert severity(999_999) == "warning"
    assert severity(1_000_000) == "critical"
    assert severity(1_000_000, critical_reach=0) == "warning"
    # 20 negatives where 12 are usual, in a minute, which counts as a quarter of an hour: 32 an hour.
    assert severity(0, critical_speed=32) == "critical"
    assert severity(0, critical_speed=33) == "warning"

"""What raises an alarm, what must not, and that it is the same wherever and however it runs."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.detection.bank import ROLLUP, Finding, SeriesBank, SeriesKey
from monitor.detection.counts import Floats
from monitor.detection.settings import DetectionSettings

MINUTE_MS = 60_000
DAY = 288
"""Buckets of five minutes."""
SETTINGS = DetectionSettings(bucket_s=300, false_alarms_per_day=0.02)
"""So few that an unplanned alarm in a test is a fault, not a chance."""
KNOWN = DAY + 96
"""Buckets after which a series is known: a day must have been seen before a volume can be unusual."""
Mix = Callable[[int, str], tuple[float, float]]
"""Documents per bucket and negative share, by bucket and language."""


def bank_of(*entities: str, **changes: object) -> SeriesBank:
    return SeriesBank(SETTINGS.model_copy(update=changes), entities=list(entities))


def run(
    bank: SeriesBank, buckets: int, mix: Mix, *, langs: Sequence[str] = ("de", "fr"), seed: int = 0, start: int = 0
) -> list[Finding]:
    """Random traffic of entity `a`; returns every finding."""
    rng = np.random.default_rng(seed)
    findings = []
    for bucket in range(start, start + buckets):
        rows, counts = [], []
        for lang in langs:
            rate, share = mix(bucket, lang)
            documents = rng.poisson(rate)
            if documents:
                negatives = rng.binomial(documents, share)
                rows.append(("a", lang))
                counts.append([negatives, documents - negatives, 0])
        findings += bank.update(
            bucket * 5 * MINUTE_MS, rows, np.array(counts, float).reshape(-1, 3), np.zeros(len(rows), np.int64)
        )
    return findings


def calm(_bucket: int, _lang: str) -> tuple[float, float]:
    return 6.0, 0.2


def signals(findings: Sequence[Finding]) -> set[str]:
    return {finding.signal for finding in findings}


def test_a_bad_day_is_seen_with_its_onset_size_and_end():
    onset, end = KNOWN, KNOWN + 24

    def bad(bucket: int, lang: str) -> tuple[float, float]:
        return 6.0, 0.7 if onset <= bucket < end else 0.2

    findings = run(bank_of("a"), KNOWN + 72, bad)
    share = [f for f in findings if f.signal == "negative_share" and f.lang == ROLLUP]
    first = share[0]
    assert first.bucket_ms <= (onset + 4) * 5 * MINUTE_MS
    assert abs(first.onset_ms - onset * 5 * MINUTE_MS) <= 5 * MINUTE_MS
    hour = next(f for f in share if f.bucket_ms == (onset + 12) * 5 * MINUTE_MS)
    assert hour.low < hour.observed < hour.high
    assert hour.observed == pytest.approx(0.7, abs=0.1)
    assert hour.expected == pytest.approx(0.2, abs=0.03)
    assert hour.effect == pytest.approx(0.5, abs=0.1)
    assert hour.log_evidence > hour.threshold
    ends = [f for f in share if not f.active]
    assert len(ends) == 1
    assert end * 5 * MINUTE_MS <= ends[0].bucket_ms <= (end + 12) * 5 * MINUTE_MS


def last_bucket(findings: Sequence[Finding], lang: str) -> int:
    """The bucket at which the last alarm of one language's share ended."""
    return max(f.bucket_ms for f in findings if f.lang == lang and not f.active) // (5 * MINUTE_MS)


def test_an_alarm_that_came_with_a_burst_ends_with_it():
    end = KNOWN + 24

    def burst(bucket: int, _lang: str) -> tuple[float, float]:
        return (8.0, 0.8) if KNOWN <= bucket < end else (1.0, 0.25)

    # The share alone would have to be seen to be back, in some forty documents: three and a half hours.
    assert end <= last_bucket(run(bank_of("a"), end + DAY, burst, langs=["tr"]), "tr") <= end + 15


def test_a_language_of_few_posts_ends_with_its_entity():
    end = KNOWN + 48

    def rise(bucket: int, lang: str) -> tuple[float, float]:
        usual = 6.0 if lang == "en" else 0.3
        return (4 * usual, 0.8) if KNOWN <= bucket < end else (usual, 0.25)

    findings = run(bank_of("a"), end + DAY // 2, rise, langs=["en", "th"])
    assert {f.lang for f in findings if f.signal == "negative_share"} >= {"en", "th", ROLLUP}
    assert last_bucket(findings, "th") <= last_bucket(findings, ROLLUP) + 24


@pytest.mark.parametrize("seed", range(3))
def test_a_harmless_burst_of_volume_is_no_alarm(seed: int):
    def burst(bucket: int, _lang: str) -> tuple[float, float]:
        return 6.0 * (6 if KNOWN <= bucket < KNOWN + 24 else 1), 0.2

    assert run(bank_of("a"), KNOWN + 48, burst, seed=seed) == []
    assert signals(run(bank_of("a", signals=("volume",)), KNOWN + 48, burst, seed=seed)) == {"volume"}


def test_a_burst_of_bad_news_raises_both_signals():
    def news(bucket: int, _lang: str) -> tuple[float, float]:
        return (30.0, 0.6) if bucket >= KNOWN else (6.0, 0.2)

    assert signals(run(bank_of("a"), KNOWN + 12, news)) >= {"negative_share", "negative_volume"}


def mixed(
    bank: SeriesBank,
    buckets: int,
    mix: Callable[[int, str], tuple[float, list[float]]],
    langs: Sequence[str],
    seed: int = 0,
) -> list[Finding]:
    """Random traffic with all three sentiments; returns every finding."""
    rng, findings = np.random.default_rng(seed), []
    for bucket in range(buckets):
        rows, counts = [], []
        for lang in langs:
            rate, shares = mix(bucket, lang)
            found = rng.multinomial(rng.poisson(rate), shares)
            if found.sum():
                rows.append(("a", lang))
                counts.append(found)
        findings += bank.update(
            bucket * 5 * MINUTE_MS, rows, np.array(counts, float).reshape(-1, 3), np.zeros(len(rows), np.int64)
        )
    return findings


def test_praise_that_ends_is_a_drop_of_the_sentiment_and_no_rise_of_negatives():
    def dull(bucket: int, _lang: str) -> tuple[float, list[float]]:
        return 12.0, [0.2, 0.7, 0.1] if bucket >= KNOWN else [0.2, 0.3, 0.5]

    findings = mixed(bank_of("a"), KNOWN + 24, dull, ("de", "fr"))
    assert signals(findings) == {"sentiment"}
    first = next(f for f in findings if f.lang == ROLLUP)
    assert first.bucket_ms <= (KNOWN + 7) * 5 * MINUTE_MS
    last = [f for f in findings if f.lang == ROLLUP][-1]
    assert last.unit == "mean"
    assert last.expected == pytest.approx(0.3, abs=0.05)
    assert last.low < -0.1 < last.high
    assert last.effect == pytest.approx(-0.4, abs=0.1)


def test_the_same_rise_in_the_small_languages_is_not_drowned_by_the_large_one():
    small = ("da", "fi", "nl", "no", "pl", "sv")

    def spread(bucket: int, lang: str) -> tuple[float, list[float]]:
        if lang == "en":
            return 60.0, [0.2, 0.5, 0.3]
        negative = 0.38 if bucket >= KNOWN else 0.2
        return 1.5, [negative, 0.5, 0.5 - negative]

    def first(*wanted: str) -> int:
        bank = bank_of("a", signals=wanted)
        found = mixed(bank, KNOWN + DAY, spread, ("en", *small))
        return min((f.bucket_ms for f in found), default=(KNOWN + DAY) * 5 * MINUTE_MS)

    with_spread, without = first("negative_share", "language_spread"), first("negative_share")
    assert KNOWN * 5 * MINUTE_MS < with_spread < without


def test_quiet_days_stay_quiet_over_many_names():
    rng, names = np.random.default_rng(5), [f"e{number:02d}" for number in range(60)]
    rows, zeros = [(name, lang) for name in names for lang in ("de", "fr")], np.zeros(120, np.int64)
    bank = bank_of(*names)
    for bucket in range(3 * DAY):
        documents = rng.poisson(np.linspace(0.1, 20, 120))
        negatives = rng.binomial(documents, np.linspace(0.05, 0.6, 120))
        counts = np.stack([negatives, documents - negatives, 0 * documents], axis=1)
        some = documents > 0
        seen = [row for row, keep in zip(rows, some, strict=True) if keep]
        assert bank.update(bucket * 5 * MINUTE_MS, seen, counts[some], zeros[some]) == []


def test_a_rise_below_the_minimal_effect_wakes_nobody():
    def slight(bucket: int, _lang: str) -> tuple[float, float]:
        return 60.0, 0.2 + (0.04 if bucket >= KNOWN else 0.0)

    assert run(bank_of("a", minimal_effect=0.1), KNOWN + DAY, slight) == []


def test_nothing_is_known_of_a_new_name_so_nothing_is_alarming():
    # Mostly negative from the first document on: for this name that may be the rule.
    assert run(bank_of("a"), 3, lambda _b, _l: (12.0, 0.9), langs=("de",), seed=1) == []


def test_a_louder_language_is_no_change_of_mood():
    def louder(bucket: int, lang: str) -> tuple[float, float]:
        grumpy = lang == "de"
        return (40.0 if grumpy and bucket >= KNOWN else 6.0), (0.6 if grumpy else 0.1)

    findings = run(bank_of("a"), KNOWN + 24, louder)
    assert [f for f in findings if f.signal == "negative_share"] == []


def test_a_slow_rise_over_a_day_is_seen_too():
    def slow(bucket: int, _lang: str) -> tuple[float, float]:
        return 6.0, 0.2 + 0.25 * min(max(bucket - KNOWN, 0) / DAY, 1)

    findings = [f for f in run(bank_of("a"), KNOWN + DAY, slow) if f.signal == "negative_share"]
    assert findings
    assert findings[0].bucket_ms >= KNOWN * 5 * MINUTE_MS


def test_a_silent_source_poisons_nothing():
    bank = bank_of("a")
    run(bank, KNOWN, calm)
    assert run(bank, DAY // 2, calm, start=KNOWN + 3 * DAY, seed=1) == []
    expected = {v.lang: v.expected for v in bank.views() if v.signal == "negative_volume"}
    assert expected[ROLLUP] == pytest.approx(2 * 6 * 0.2 * 12, rel=0.25)


def test_the_baseline_does_not_learn_what_is_alerted_on():
    bank = bank_of("a")
    run(bank, KNOWN, calm)
    before = {v.lang: v.expected for v in bank.views() if v.signal == "negative_share"}
    run(bank, 100, lambda _b, _l: (6.0, 0.7), start=KNOWN, seed=1)
    after = {v.lang: v.expected for v in bank.views() if v.signal == "negative_share"}
    assert after[ROLLUP] == pytest.approx(before[ROLLUP], abs=0.02)


def test_an_alarm_that_lasts_becomes_the_new_normal():
    bank = bank_of("a", freeze_days=0.5)
    run(bank, KNOWN, calm)
    findings = run(bank, DAY, lambda _b, _l: (6.0, 0.6), start=KNOWN, seed=1)
    last = max(f.bucket_ms for f in findings if f.active)
    assert last < (KNOWN + DAY // 2 + 12) * 5 * MINUTE_MS
    assert run(bank, 36, lambda _b, _l: (6.0, 0.9), start=KNOWN + DAY, seed=2)


def test_reposts_weigh_less_than_documents_of_their_own():
    def first_alarm(reposted: float) -> int:
        bank = bank_of("a")
        run(bank, KNOWN, calm, langs=("de",))
        for bucket in range(KNOWN, KNOWN + DAY):
            counts = np.array([[4.0, 4.0, 0.0]])
            if bank.update(bucket * 5 * MINUTE_MS, [("a", "de")], counts, np.array([8 * reposted])):
                return bucket
        return KNOWN + DAY

    assert first_alarm(0.0) < first_alarm(1.0)


def test_a_document_that_stands_for_ten_is_no_more_evidence_than_one():
    def evidence(weight: float) -> list[float]:
        bank, found = bank_of("a"), []
        for bucket in range(KNOWN + 12):
            negatives = 5.0 if bucket >= KNOWN else 1.0
            counts = weight * np.array([[negatives, 6 - negatives, 0.0]])
            now = bank.update(bucket * 5 * MINUTE_MS, [("a", "de")], counts, np.array([0]), np.array([6 * weight**2]))
            found += [f.bucket_ms for f in now if f.signal == "negative_share" and f.lang == ROLLUP]
        return found

    assert evidence(10.0) == evidence(1.0)
    assert evidence(1000.0)[0] == evidence(1.0)[0]


def test_a_wrong_classifier_is_corrected_in_the_report_and_no_alarm_in_itself():
    confusion = np.array([[0.7, 0.2, 0.1], [0.25, 0.65, 0.1], [0.1, 0.2, 0.7]])
    bank = SeriesBank(SETTINGS, entities=["a"], confusion=lambda _lang: confusion)
    false_rate = confusion[1, 0]

    def classified(true: float) -> float:
        return true * 0.7 + (1 - true) * false_rate

    assert run(bank, KNOWN, lambda _b, _l: (6.0, classified(0.1))) == []
    findings = run(bank, 12, lambda _b, _l: (20.0, classified(0.6)), start=KNOWN, seed=1)
    last = [f for f in findings if f.signal == "negative_share" and f.lang == ROLLUP][-1]
    assert last.observed == pytest.approx(0.6, abs=0.1)
    assert last.expected == pytest.approx(0.1, abs=0.05)
    assert last.low < 0.6 < last.high


def event(bucket: int, lang: str) -> tuple[float, float]:
    return 6.0, 0.7 if lang == "de" and 400 <= bucket < 430 else 0.2


@pytest.mark.parametrize("cut", [1, 399, 404, 431])
def test_going_on_from_stored_state_is_as_if_nothing_had_happened(cut: int):
    straight = bank_of("a")
    expected = run(straight, 450, event)
    first, stored, found = bank_of("a"), {}, []
    rng_state: list[tuple[list[SeriesKey], Floats]] = []
    rng = np.random.default_rng(0)
    for bucket in range(450):
        rows, counts = [], []
        for lang in ("de", "fr"):
            rate, share = event(bucket, lang)
            documents = rng.poisson(rate)
            if documents:
                negatives = rng.binomial(documents, share)
                rows.append(("a", lang))
                counts.append([negatives, documents - negatives, 0])
        rng_state.append((rows, np.array(counts, float).reshape(-1, 3)))
    bank = first
    for bucket, (rows, counts) in enumerate(rng_state):
        if bucket == cut:
            stored.update(bank.changed())
            bank = bank_of("a")
            bank.restore(stored)
        # Rows in another order, too.
        found += bank.update(bucket * 5 * MINUTE_MS, rows[::-1], counts[::-1], np.zeros(len(rows), np.int64))
        if bucket % 7 == 0:
            stored.update(bank.changed())
    assert found == expected
    assert bank.dump() == straight.dump()
    assert bank.changed().items() <= bank.dump().items()


def test_decisions_do_not_depend_on_who_shares_the_partition():
    entities = ["a", "b"]
    alone = SeriesBank(SETTINGS, entities=entities)
    together = SeriesBank(SETTINGS, entities=entities)
    rng, one, both = np.random.default_rng(3), [], []
    for bucket in range(2 * DAY):
        x = rng.binomial(8, 0.7 if bucket > 400 else 0.2, 2).astype(float)
        counts = np.stack([x, 8 - x, 0 * x], axis=1)
        zeros = np.zeros(2, np.int64)
        one += alone.update(bucket * 5 * MINUTE_MS, [("a", "de")], counts[:1], zeros[:1])
        both += together.update(bucket * 5 * MINUTE_MS, [("b", "th"), ("a", "de")], counts[::-1], zeros)
    assert one
    assert one == [finding for finding in both if finding.entity == "a"]


def test_only_what_is_watched_exists():
    bank = bank_of("a", "b")
    counts, zeros = np.array([[1.0, 1.0, 0.0]] * 3), np.zeros(3, np.int64)
    bank.update(0, [("a", "de"), ("x", "de"), ("b", "de")], counts, zeros)
    assert {entity for entity, _ in bank.dump()} == {"a", "b"}
    assert bank.set_entities(["a"]) == [("b", ROLLUP), ("b", "de")]
    assert {entity for entity, _ in bank.dump()} == {"a"}
    stored = bank.dump()
    other = bank_of("c")
    other.restore(stored)
    assert len(other) == 0


def test_the_budget_counts_what_it_allowed_and_what_was_raised():
    bank = bank_of("a")
    run(bank, 2 * DAY, event)
    use = bank.budget_use()
    assert use.raised >= 2
    # One entity that is all of the watchlist is given all of the time.
    assert use.allowed == pytest.approx(2 * 0.02, rel=0.1)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(-5, 5 * DAY),
            st.lists(st.sampled_from([0.0, 1.0, 3.0, 500.0, 2.0**63]), min_size=3, max_size=3),
            st.sampled_from(["de", "fr", ROLLUP]),
        ),
        max_size=40,
    ),
    st.sampled_from([0, 4_102_444_800_000]),
)
def test_any_counts_at_any_time_leave_sound_state(steps: list[tuple[int, list[float], str]], start_ms: int):
    bank, bucket_ms = bank_of("a", false_alarms_per_day=1000.0), start_ms
    for move, counts, lang in steps:
        bucket_ms = max(bucket_ms + move * 5 * MINUTE_MS, 0)
        for finding in bank.update(bucket_ms, [("a", lang)], np.array([counts]), np.array([1])):
            assert np.isfinite([finding.observed, finding.expected, finding.low, finding.high, finding.effect]).all()
            assert finding.low <= finding.observed <= finding.high
    for view in bank.views():
        assert np.isfinite([view.observed, view.expected, view.low, view.high]).all()


def test_the_state_of_more_series_than_a_table_begins_with_comes_back():
    entities = [f"e{number}" for number in range(600)]
    bank = bank_of(*entities)
    rows = [(entity, "de") for entity in entities]
    bank.update(0, rows, np.ones((len(rows), 3)), np.zeros(len(rows), np.int64))
    again = bank_of(*entities)
    again.restore(bank.dump())
    assert again.dump() == bank.dump()
    assert len(again) == 1200


def test_how_much_documents_resemble_each_other_is_learned_without_bias():
    rng, names = np.random.default_rng(3), [f"e{number}" for number in range(60)]
    # A small budget: no alarms, which teach nothing.
    options = DetectionSettings(bucket_s=900, false_alarms_per_day=0.01)
    bank, alike, documents = SeriesBank(options, entities=names), 0.04, 20
    shape = (1 - alike) / alike
    for bucket in range(6 * 96):
        negatives = rng.binomial(documents, rng.beta(0.25 * shape, 0.75 * shape, len(names)))
        counts = np.stack([negatives, documents - negatives, 0 * negatives], axis=1)
        bank.update(bucket * 15 * MINUTE_MS, [(name, ROLLUP) for name in names], counts, np.zeros(len(names)))
    noise = bank._table.rows["share_noise"][bank._table.rollups()]
    # Of the variance per squared documents, as a document resembles the others only.
    assert noise["excess"].sum() / noise["weight"].sum() == pytest.approx(alike * (1 - 1 / documents), rel=0.15)

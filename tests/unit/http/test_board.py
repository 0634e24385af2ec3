"""The board: bounded, indifferent to the order and the repeats of what comes, and true to the detector."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.detection.bank import ROLLUP, SeriesBank
from monitor.detection.settings import DetectionSettings
from monitor.http import showing
from monitor.http.board import MAX_ACTIONS, MAX_INCIDENTS, Board
from monitor.http.rings import SLOTS, Ring
from monitor.privacy import document_hash
from monitor.records import Action, Post, Pulse
from tests.unit.sinks.test_sinks import alert


def action(identity: str, kind: str = "mute", at_ms: int = 0, **more: object) -> Action:
    return Action(id=identity, kind=kind, who="w", at_ms=at_ms, **more)  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 50))))
def test_a_ring_holds_the_newest_buckets_in_whatever_order_they_come(puts: list[tuple[int, int]]) -> None:
    ring, model, newest = Ring(), {}, -1
    for bucket, documents in puts:
        ring.put(bucket, documents, 0, 0)
        if bucket > newest - SLOTS:
            model[bucket] = documents
        newest = max(newest, bucket)
    expected = [model.get(b, 0) if b > newest - SLOTS else 0 for b in range(2001)]
    assert ring.window(0, 2001)[:, 0].tolist() == expected


def test_the_board_is_bounded() -> None:
    board = Board()
    board.watch({"e": ("E", {})})
    for n in range(1000):
        board.on_alert(alert(id=str(n), incident=str(n)))
        board.on_action(action(str(n), "acknowledge", incident=str(n)))
        board.on_pulse(Pulse(instance=str(n), at_ms=n * 10_000, role="all"))
    assert len(board.incidents) == MAX_INCIDENTS
    assert len(board.actions) == MAX_ACTIONS
    assert len(board.pulses) <= 361
    assert board.about("0") == []
    assert len(board.about("999")) == 1


def test_counts_are_corrected_for_the_classifier_s_known_confusion() -> None:
    confusion = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.2, 0.1, 0.7]])
    board = Board(confusion=lambda lang: confusion if lang == "en" else None)
    board.watch({"e": ("E", {})})
    board.closed_ms = 3_600_000
    board.on_counts("e", 0, {"en": (100, 50.0)})
    shown = showing.entity(board, "e", 0)
    # 50 of 100 are called negative: 0.2 + 0.6 x = 0.5.
    assert shown.now.share == pytest.approx(0.5)
    board.on_counts("e", 0, {"en": (100, 20.0)})
    assert showing.entity(board, "e", 0).now.share == 0
    plain = Board()
    plain.watch({"e": ("E", {})})
    plain.closed_ms = 3_600_000
    plain.on_counts("e", 0, {"en": (100, 50.0)})
    assert showing.entity(plain, "e", 0).now.high < shown.now.high  # type: ignore[operator]


def test_what_is_usual_is_read_from_the_detector_s_own_state() -> None:
    settings = DetectionSettings()
    bank = SeriesBank(settings, entities=["e"], confusion=lambda _: None)
    for bucket in range(200):
        bank.update(bucket * 60_000, [("e", "en")], np.array([[3.0, 3.0, 4.0]]), np.zeros(1, np.int64))
    board = Board(settings)
    board.watch({"e": ("E", {})})
    for (entity, lang), row in bank.dump().items():
        board.on_state(f"series|{entity}|{lang}".encode(), row)
    board.look_up()
    view = next(view for view in bank.views_of(("e", ROLLUP)) if view.signal == "negative_share")
    assert board.expected("e", ROLLUP) == pytest.approx(view.expected)
    assert board.expected("e", ROLLUP) == pytest.approx(0.3, abs=0.1)


@given(st.permutations([("mute", 10, 100), ("unmute", 20, 0), ("mute", 30, 50)]))
def test_the_last_word_on_a_mute_counts_in_whatever_order_it_is_heard(order: list[tuple[str, int, int]]) -> None:
    board = Board()
    for kind, at_ms, until_ms in order:
        board.on_action(action(f"{at_ms}", kind, at_ms, entity="e", until_ms=until_ms))
    assert board.muted("e", 40).until_ms == 50  # type: ignore[union-attr]
    assert board.muted("e", 60) is None


def test_an_action_may_be_heard_before_its_incident() -> None:
    board = Board()
    board.on_action(action("1", "acknowledge", incident=alert().incident))
    board.on_alert(alert())
    assert showing.incidents(board)[0].acknowledged_by == "w"


def test_erased_posts_are_not_shown_and_their_text_is_nowhere() -> None:
    board = Board()
    posts = [
        Post(document_id=name, text=f"says {name}", lang="en", published_ms=0, sentiment="negative")
        for name in ("one", "two")
    ]
    evidence = msgspec.structs.replace(alert().evidence, posts=tuple(posts), first_post=posts[0])
    board.on_alert(alert(evidence=evidence, description="says one, says two"))
    assert "says one" in str(showing.incident(board, alert().incident))
    board.on_action(action("1", "erase", changes=(document_hash("one"),)))
    detail = showing.incident(board, alert().incident)
    assert detail.evidence.posts == (posts[1],)
    assert "says one" not in str(detail)


def test_processes_that_go_by_different_watchlists_are_a_problem_unless_one_was_just_changed() -> None:
    board, now_ms = Board(), 1_000_000
    for name, version in (("a/1", "f00"), ("b/1", "f00"), ("c/1", "bad")):
        board.on_pulse(Pulse(instance=name, at_ms=now_ms, role="all", ready=True, watchlist=version))
    (told,) = showing.pipeline(board, now_ms).problems
    assert told == "the processes go by different watchlists: bad (c/1), f00 (a/1, b/1)"
    board.on_action(Action(id="w", kind="watchlist", who="ann", at_ms=now_ms - 5000, entity="acme", changes=("+acme",)))
    assert showing.pipeline(board, now_ms).problems == ()


def test_a_dead_process_a_lagging_role_and_a_missing_one_are_problems() -> None:
    board, now_ms = Board(), 1_000_000
    board.on_pulse(Pulse(instance="a/1", at_ms=now_ms - 60_000, role="classify", ready=True))
    board.on_pulse(
        Pulse(instance="b/1", at_ms=now_ms, role="detect", ready=True, lag={"detect": 20_000}, failing={"chat": 90.0})
    )
    board.on_pulse(Pulse(instance="c/1", at_ms=now_ms, role="notify", ready=False, waiting="restoring"))
    board.on_pulse(Pulse(instance="d/1", at_ms=now_ms, role="notify", stopped=True))
    shown = showing.pipeline(board, now_ms)
    assert [process.pulse.instance for process in shown.processes] == ["a/1", "b/1", "c/1"]
    text = "\n".join(shown.problems)
    for words in (
        "a/1 (classify) has been silent",
        "chat has been refusing",
        "detect is 20,000",
        "c/1 (notify) is not ready: restoring",
        "no process has the role classify",
    ):
        assert words in text
    assert shown.lag == {"detect": 20_000}

"""The sample stream: the same from the same seed, as rich as promised, and true to what `expected.json` says of it."""

from __future__ import annotations

import gzip
import json
from collections import Counter, defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from monitor.documents.entities import Matcher
from monitor.watchlist import load_watchlist
from tests.support.scripts import script

EXAMPLES = Path(__file__).parents[3] / "examples"
HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    return script("examples", "generate_stream")


@pytest.fixture(scope="module")
def truth() -> dict[str, Any]:
    expected: dict[str, Any] = json.loads((EXAMPLES / "expected.json").read_text(encoding="utf-8"))
    return expected


@pytest.fixture(scope="module")
def stream(generator: ModuleType, truth: dict[str, Any]) -> Any:
    return generator.generate(truth["seed"])


def test_committed_files_are_what_the_generator_writes(stream: Any, truth: dict[str, Any]) -> None:
    committed = gzip.decompress((EXAMPLES / "stream.jsonl.gz").read_bytes())
    assert b"\n".join(stream.lines) + b"\n" == committed
    assert json.loads(json.dumps(stream.expected)) == truth


def test_same_seed_same_bytes_other_seed_other_posts(generator: ModuleType, stream: Any) -> None:
    other = generator.generate(stream.expected["seed"] + 1)
    assert generator.generate(stream.expected["seed"]).lines == stream.lines
    assert {post.text for post in other.posts} != {post.text for post in stream.posts}


def test_another_start_moves_the_whole_stream_in_time(generator: ModuleType, stream: Any) -> None:
    start_ms = stream.expected["start_ms"] + 48 * HOUR_MS
    moved = generator.generate(stream.expected["seed"], start_ms)
    assert [post.text for post in moved.posts] == [post.text for post in stream.posts]
    assert all(post.published_ms >= start_ms for post in moved.posts)
    assert [event["start_ms"] - start_ms for event in moved.expected["events"]] == [
        event["start_ms"] - stream.expected["start_ms"] for event in stream.expected["events"]
    ]


def test_size_and_languages(stream: Any, truth: dict[str, Any]) -> None:
    assert truth["good_records"] == len(stream.posts) >= 4_000
    assert len(truth["languages"]) >= 16
    assert {"ar", "hi", "ja", "ko", "ru", "th", "tr", "zh"} <= truth["languages"].keys()
    assert min(truth["languages"].values()) >= 100
    assert 40 <= len(truth["malformed"]) <= 70
    assert (EXAMPLES / "stream.jsonl.gz").stat().st_size < 1 << 20


def test_texts_seldom_repeat_in_any_language(stream: Any) -> None:
    texts: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for post in stream.posts:
        texts[post.language].append((post.title, post.text))
    assert {
        lang: len(set(known)) / len(known) for lang, known in texts.items() if len(set(known)) < 0.9 * len(known)
    } == {}


def test_no_pattern_is_left_unfilled(stream: Any) -> None:
    left = [post.text for post in stream.posts if set("{}[]|") & set(post.title + post.text)]
    assert left == []


def test_posts_name_their_entity_and_no_other(stream: Any) -> None:
    matcher = Matcher(load_watchlist(EXAMPLES / "watchlist.toml"))
    found = matcher.match([f"{post.title}\n{post.text}" for post in stream.posts])
    unlike = [
        (post.entity, names, post.text)
        for post, names in zip(stream.posts, found, strict=True)
        if names != ((post.entity,) if post.entity else ())
    ]
    assert [miss for miss in unlike if miss[1]] == []
    assert len(unlike) <= 5, "only where a slip of the thumb hit the one word of context"


def test_a_good_share_names_no_entity(stream: Any) -> None:
    ordinary = [post for post in stream.posts if not post.event]
    assert 0.10 < sum(not post.entity for post in ordinary) / len(ordinary) < 0.20


def test_ordinary_mood_differs_from_the_events(stream: Any, truth: dict[str, Any]) -> None:
    ordinary = [post for post in stream.posts if not post.event and post.entity]
    mood = Counter(post.mood for post in ordinary)
    assert 0.15 < mood["negative"] / len(ordinary) < 0.25
    assert 0.45 < mood["neutral"] / len(ordinary) < 0.57
    for event in truth["events"]:
        ids = set(event["document_ids"])
        negative = sum(post.mood == "negative" for post in stream.posts if post.id in ids) / len(ids)
        assert negative > 0.75 if event["kind"] == "negative" else negative < 0.25


def test_events_are_where_the_truth_says(stream: Any, truth: dict[str, Any]) -> None:
    posts = {post.id: post for post in stream.posts}
    assert {event["kind"] for event in truth["events"]} == {"negative", "harmless"}
    assert {len(event["languages"]) > 1 for event in truth["events"] if event["kind"] == "negative"} == {True, False}
    for event in truth["events"]:
        mine = [posts[document_id] for document_id in event["document_ids"]]
        assert {post.entity for post in mine} == {event["entity"]}
        assert Counter(post.language for post in mine) == {
            lang: part["documents"] for lang, part in event["languages"].items()
        }
        for post in (post for post in mine if not post.repost_of):
            part = event["languages"][post.language]
            assert part["start_ms"] <= post.published_ms <= part["end_ms"]
        assert event["start_ms"] >= truth["start_ms"] + 10 * HOUR_MS, "the baseline needs quiet hours first"
        assert event["end_ms"] <= truth["end_ms"] - 3 * HOUR_MS, "incidents need quiet hours to resolve"


def test_the_harmless_burst_is_a_burst(stream: Any, truth: dict[str, Any]) -> None:
    (burst,) = (event for event in truth["events"] if event["kind"] == "harmless")
    hours = (burst["end_ms"] - burst["start_ms"]) / HOUR_MS
    before = [
        post
        for post in stream.posts
        if post.entity == burst["entity"] and burst["start_ms"] - 6 * HOUR_MS <= post.published_ms < burst["start_ms"]
    ]
    assert len(burst["document_ids"]) / hours > 5 * len(before) / 6


def test_days_differ_by_time_zone(stream: Any) -> None:
    def share_from_16_to_21_utc(lang: str) -> float:
        hours: list[int] = [
            post.published_ms // HOUR_MS % 24 for post in stream.posts if post.language == lang and not post.event
        ]
        return sum(16 <= hour < 21 for hour in hours) / len(hours)

    assert share_from_16_to_21_utc("ja") < 0.15, "it is after midnight in Japan"
    assert share_from_16_to_21_utc("de") > 0.35, "it is the evening in Germany"


def test_order_lateness_and_repeats_are_as_told(stream: Any, truth: dict[str, Any]) -> None:
    lines = [decoded(line) for line in stream.lines]
    broken = {entry["line"] for entry in truth["malformed"]}
    good = [(number, record) for number, record in enumerate(lines, 1) if number not in broken]
    counts = Counter(record["id"] for _, record in good)
    assert sorted(document_id for document_id, count in counts.items() if count == 2) == truth["duplicates"]
    assert max(counts.values()) == 2
    assert len(counts) == truth["good_records"]
    posts = {post.id: post for post in stream.posts}
    assert all(posts[copy].text != posts[first].text for copy, first in truth["near_duplicates"].items())
    assert all(posts[first].text in posts[copy].text for copy, first in truth["near_duplicates"].items())
    delays_ms = {post.id: post.arrives_ms - post.published_ms for post in stream.posts}
    late = set(truth["late"])
    assert len(late) > 30
    assert all((delay_ms > 10 * 60_000) == (document_id in late) for document_id, delay_ms in delays_ms.items())
    assert max(delays_ms.values()) <= 3 * HOUR_MS


def test_broken_lines_cover_every_kind(stream: Any, truth: dict[str, Any]) -> None:
    kinds = {entry["kind"]: stream.lines[entry["line"] - 1] for entry in truth["malformed"]}
    assert kinds.keys() >= {"not_json", "wrong_type", "empty_text", "null_value", "nul_byte", "lone_surrogate"}
    assert kinds.keys() >= {"oversized", "far_future", "unparsable_date", "unknown_language", "invalid_utf8"}
    assert kinds["null_value"] == b"null"
    assert len(kinds["oversized"]) > 300_000


def test_personal_data_is_there_to_be_masked(stream: Any) -> None:
    text = "\n".join(post.text.lower() for post in stream.posts)
    assert "@example." in text
    assert "+1 202 555 01" in text
    assert "4111 1111 1111 1111" in text
    assert any(net in text for net in ("192.0.2.", "198.51.100.", "203.0.113."))


def decoded(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None

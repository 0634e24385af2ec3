"""What someone asked to have erased is in no row of state afterwards, and nothing else has changed."""

from __future__ import annotations

import msgspec
import pytest

from monitor.detection.detector import Detector, EntityInfo
from monitor.detection.erasing import erase_from_alert
from monitor.detection.incidents import AlertSettings
from monitor.detection.settings import DetectionSettings
from monitor.privacy import document_hash
from monitor.records import Erasure, Post, decode_opinion_message, encode
from tests.unit.sinks.test_sinks import alert
from tests.web import scene


@pytest.fixture(scope="module")
def messages() -> list[object]:
    return list(scene.opinions(200, (150, 190)))


def state_after(messages: list[object], *orders: Erasure, before: int) -> tuple[dict[bytes, bytes], list[str]]:
    """All rows of state after the messages, with the orders in their place; and the alerts' ids."""
    entities = {name: EntityInfo(title, (title,), labels) for name, (title, labels) in scene.ENTITIES.items()}
    detector = Detector(DetectionSettings(), AlertSettings(), entities, lambda _: None)
    rows: dict[bytes, bytes] = {}
    told = []
    for part in (messages[:before], list(orders), messages[before:]):
        detector.observe(part)  # type: ignore[arg-type]
        told += [made.id for made in detector.advance()]
        for key, value in detector.take_changes():
            if value is None:
                rows.pop(key, None)
            else:
                rows[key] = value
    return rows, told


def test_an_order_takes_posts_and_voices_out_and_leaves_every_decision_as_it_was(messages: list[object]) -> None:
    spoken = [m for m in messages if getattr(m, "entity", "") == "skyharrow" and m.sentiment[0] > 0.5]  # type: ignore[attr-defined]
    before = len(messages) - 60
    told = [m for m in spoken if messages.index(m) < before][-30:]
    one, other = told[0], told[-1]
    order = Erasure(documents=frozenset({document_hash(one.document_id)}), authors=frozenset({other.author}))
    plain, alerts = state_after(messages, before=before)
    erased, same = state_after(messages, order, before=before)
    text = b"".join(erased.values())
    for opinion in (one, other):
        sample = b"document_id" + msgspec.msgpack.encode(opinion.document_id)
        assert sample in b"".join(plain.values())
        assert sample not in text
    assert other.author.encode() not in text
    assert alerts == same
    assert {k: v for k, v in plain.items() if k.startswith(b"series")} == {
        k: v for k, v in erased.items() if k.startswith(b"series")
    }
    assert plain[b"progress"] == erased[b"progress"]


def test_an_order_goes_over_the_topic_like_an_opinion() -> None:
    order = Erasure(documents=frozenset({"a", "b"}), authors=frozenset({"c"}))
    assert decode_opinion_message(encode(order)) == order


def test_an_alert_is_written_anew_without_the_post_and_says_the_rest() -> None:
    posts = tuple(
        Post(document_id=name, text=f"says {name}", lang="en", published_ms=0, sentiment="negative")
        for name in ("one", "two")
    )
    whole = alert(evidence=msgspec.structs.replace(alert().evidence, posts=posts, first_post=posts[0]))
    left = erase_from_alert(whole, {document_hash("one")})
    assert left.evidence.posts == posts[1:]
    assert left.evidence.first_post is None
    assert "says one" not in left.description
    assert "says two" in left.description
    assert (left.id, left.sequence, left.evidence.observed) == (whole.id, whole.sequence, whole.evidence.observed)
    assert erase_from_alert(whole, {document_hash("three")}) is whole

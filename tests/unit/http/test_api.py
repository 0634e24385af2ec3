"""The API: what it shows, what people do through it, and that its document says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from monitor.http import live
from monitor.http.access import SESSION_COOKIE, hash_token, new_token
from monitor.http.api import OPERATIONS, document
from monitor.http.board import Board
from monitor.http.settings import HttpSettings, TokenSettings
from monitor.records import Pulse
from monitor.watch import WatchlistKeeper
from monitor.watchlist import parse_watchlist
from tests.unit.http.conftest import WATCHLIST, Recorder
from tests.unit.sinks.test_sinks import alert

MINUTE_MS = 60_000


@pytest.fixture(autouse=True)
def known(board: Board) -> None:
    """One incident, and an hour and a half of opinions in two languages."""
    board.on_alert(alert())
    board.on_alert(alert())  # a repeat
    board.on_alert(alert(id="2", state="resolved", sequence=1, ended_ms=5))
    board.closed_ms = 100 * MINUTE_MS
    for minute in range(5, 105):
        board.on_counts("acme", minute * MINUTE_MS, {"en": (2, 1.0), "ar": (1, 0.0), "*": (3, 1.0)})


async def get(client: Any, path: str, status: int = 200) -> Any:
    answer = await client.get(f"/api/v1{path}")
    assert answer.status == status, await answer.text()
    return await answer.json()


async def post(client: Any, body: object, status: int = 201) -> Any:
    answer = await client.post("/api/v1/actions", json=body)
    assert answer.status == status, await answer.text()
    return await answer.json()


async def test_the_status_shows_what_is_watched_and_what_is_wrong(client: Any) -> None:
    status = await get(client, "/status")
    acme, globex = status["entities"]
    assert acme["name"] == "Acme & <b>Söhne</b>"
    assert (acme["now"]["documents"], acme["now"]["share"]) == (180, pytest.approx(1 / 3, abs=0.001))
    assert acme["now"]["low"] < 1 / 3 < acme["now"]["high"]
    assert [(now["lang"], now["documents"]) for now in acme["languages"]] == [("en", 120), ("ar", 60)]
    # What lies beyond the last closed bucket is not judged yet, and not shown.
    assert sum(acme["spark"]["documents"]) == 95 * 3
    assert globex["now"] == {"lang": "*", "documents": 0, "share": None, "low": None, "high": None, "expected": None}
    (incident,) = status["incidents"]
    assert (incident["state"], incident["observed"]) == ("resolved", 0.8)


async def test_an_incident_comes_with_its_posts_steps_and_course(client: Any, board: Board) -> None:
    name = "acme-incident"
    for id_, state in (("a", "firing"), ("b", "resolved")):
        board.on_alert(alert(id=id_, incident=name, entity="acme", state=state, onset_ms=65 * MINUTE_MS, ended_ms=0))
    detail = await get(client, f"/incidents/{name}")
    assert [step["state"] for step in detail["steps"]] == ["firing", "resolved"]
    assert detail["evidence"]["observed"] == 0.8
    assert detail["course"]["points"][0] == {"bucket_ms": 5 * MINUTE_MS, "documents": 3, "negatives": 1.0}
    await get(client, "/incidents/none", 404)


async def test_lists_can_be_narrowed(client: Any, board: Board) -> None:
    board.on_alert(alert(id="9", incident="another"))
    assert [i["id"] for i in await get(client, "/incidents?state=open")] == ["another"]
    assert [i["id"] for i in await get(client, "/incidents?state=resolved")] == [alert().incident]
    assert len(await get(client, "/incidents?limit=1")) == 1
    assert await get(client, "/incidents?entity=globex") == []
    for query in ("state=maybe", "limit=0", "limit=ten", "entity=No!"):
        await get(client, f"/incidents?{query}", 400)
    series = await get(client, f"/series?entity=acme&lang=ar&since_ms={90 * MINUTE_MS}")
    assert [point["documents"] for point in series["points"]] == [1] * 10
    await get(client, "/series?entity=nobody", 404)
    await get(client, "/series", 400)
    assert [line["now"]["lang"] for line in (await get(client, "/entities/acme"))["languages"]] == ["en", "ar"]


async def test_actions_are_recorded_before_they_count(client: Any, recorder: Recorder, board: Board) -> None:
    name = alert().incident
    made = await post(client, {"kind": "acknowledge", "incident": name, "note": "on it <3"})
    assert made["who"] == "local"
    await post(client, {"kind": "mute", "entity": "acme", "for_s": 3600})
    await post(client, {"kind": "false_alarm", "incident": name})
    topics = [(topic.split(".")[1], key, action.kind) for topic, key, action in recorder.sent]
    entity = alert().entity.encode()
    assert topics == [
        ("audit", entity, "acknowledge"), ("audit", b"acme", "mute"), ("review", entity, "false_alarm"), ("audit", entity, "false_alarm"),
    ]  # fmt: skip
    mute = recorder.sent[1][2]
    assert mute.until_ms - mute.at_ms == 3_600_000
    status = await get(client, "/status")
    assert status["entities"][0]["muted_until_ms"] == mute.until_ms
    assert (status["incidents"][0]["acknowledged_by"], status["incidents"][0]["false_alarm_by"]) == ("local", "local")
    await post(client, {"kind": "unmute", "entity": "acme"})
    assert (await get(client, "/status"))["entities"][0]["muted_until_ms"] == 0
    assert [a["kind"] for a in await get(client, "/actions?limit=2")] == ["unmute", "false_alarm"]


async def test_what_cannot_be_done_is_refused_and_not_recorded(client: Any, recorder: Recorder, site: Any) -> None:
    for body, status in (
        ({"kind": "acknowledge", "incident": "none"}, 404),
        ({"kind": "mute", "entity": "nobody", "for_s": 600}, 404),
        ({"kind": "mute", "entity": "acme"}, 400),
        ({"kind": "mute", "entity": "acme", "for_s": 10}, 400),
        ({"kind": "mute", "entity": "acme", "for_s": 3600, "forever": True}, 400),
        ({"kind": "mute", "entity": "acme", "for_s": 3600, "note": "x" * 501}, 400),
        ({"kind": "dance"}, 400),
        ([], 400),
    ):
        await post(client, body, status)
    answer = await client.post(
        "/api/v1/actions", data='{"kind":"unmute","entity":"acme"}', headers={"Content-Type": "text/plain"}
    )
    assert answer.status == 415
    assert not recorder.sent
    site.desk.producer = None
    await post(client, {"kind": "unmute", "entity": "acme"}, 503)


async def test_the_watchlist_is_changed_in_its_file_and_audited(
    client: Any, keeper: WatchlistKeeper, recorder: Recorder, tmp_path: Path
) -> None:
    before = await get(client, "/watchlist")
    assert before["writable"]
    fresh = {
        "id": "initech",
        "name": 'In"itech',
        "aliases": {"*": ["Initech"], "ar": ["إنيتك"]},
        "labels": {"owner": "x"},
    }
    answer = await client.put("/api/v1/watchlist/initech", json=fresh, headers={"If-Match": f'"{before["version"]}"'})
    assert answer.status == 200, await answer.text()
    changed = await answer.json()
    assert [entity["id"] for entity in changed["entities"]] == ["acme", "globex", "initech"]
    assert keeper.current.entities["initech"].names == ("Initech", "إنيتك")
    text = (tmp_path / "watchlist.toml").read_text(encoding="utf-8")
    assert text.startswith(WATCHLIST)
    assert (recorder.sent[-1][0], recorder.sent[-1][2].changes, recorder.sent[-1][2].version) == (
        "babelwatch.audit", ("+initech",), changed["version"],
    )  # fmt: skip
    stale = await client.delete("/api/v1/watchlist/acme", headers={"If-Match": before["version"]})
    assert stale.status == 412
    assert (await client.delete("/api/v1/watchlist/initech")).status == 200
    assert "# another" in (tmp_path / "watchlist.toml").read_text(encoding="utf-8")
    assert (await client.delete("/api/v1/watchlist/initech")).status == 404


async def test_a_watchlist_that_cannot_be_used_is_never_written(
    client: Any, keeper: WatchlistKeeper, tmp_path: Path
) -> None:
    for entity, status in (
        ({"id": "acme", "name": "Acme", "aliases": {"*": ["..."]}}, 422),
        ({"id": "other", "name": "Acme", "aliases": {"*": ["Acme"]}}, 422),
        ({"id": "acme", "name": "Acme", "aliases": {}}, 422),
        ({"id": "acme", "name": "Acme\x7f", "aliases": {"*": ["Acme"]}}, 422),
        ({"id": "acme", "name": "", "aliases": {"*": ["Acme"]}}, 400),
        ({"id": "acme", "name": "Acme", "aliases": {"*": ["Acme"]}, "colour": "red"}, 400),
    ):
        answer = await client.put("/api/v1/watchlist/acme", json=entity)
        assert answer.status == status, await answer.text()
    assert (tmp_path / "watchlist.toml").read_text(encoding="utf-8") == WATCHLIST
    assert [p.name for p in tmp_path.iterdir()] == ["watchlist.toml"]


async def test_a_change_is_laid_over_the_file_and_taken_back(
    client: Any, keeper: WatchlistKeeper, recorder: Recorder, tmp_path: Path
) -> None:
    keeper.in_file = False
    fresh = {"id": "initech", "name": "Initech", "aliases": {"*": ["Initech"]}}
    assert (await client.put("/api/v1/watchlist/initech", json=fresh)).status == 200
    shown = await (await client.delete("/api/v1/watchlist/acme")).json()
    assert [entity["id"] for entity in shown["entities"]] == ["globex", "initech"]
    assert [(e["entity"], e["who"], e["removed"], e["overtaken"]) for e in shown["edits"]] == [
        ("initech", "local", False, False), ("acme", "local", True, False),
    ]  # fmt: skip
    (topic, key, change), _ = recorder.sent[:2]
    assert (topic, key, change.entity) == ("babelwatch.watchlist", b"initech", "initech")
    assert (tmp_path / "watchlist.toml").read_text(encoding="utf-8") == WATCHLIST
    text = await (await client.get("/api/v1/watchlist.toml")).text()
    assert list(parse_watchlist(text, Path("w")).entities) == ["globex", "initech"]

    (tmp_path / "watchlist.toml").write_text(WATCHLIST.replace('["Acme"]', '["Acme", "#acme"]'), encoding="utf-8")
    keeper.reload()
    assert [e["overtaken"] for e in (await get(client, "/watchlist"))["edits"]] == [False, True]
    assert "acme" in keeper.current.entities, "who changes the file has the last word"

    assert (await client.delete("/api/v1/watchlist/globex/edit")).status == 404
    stale = await client.delete("/api/v1/watchlist/initech/edit", headers={"If-Match": '"old"'})
    assert stale.status == 412
    assert (await client.delete("/api/v1/watchlist/initech/edit")).status == 200
    assert recorder.sent[-1][2].changes == ("=initech",)
    assert list(keeper.current.entities) == ["acme", "globex"]
    for name, status in (("acme", 200), ("globex", 422)):
        assert (await client.delete(f"/api/v1/watchlist/{name}")).status == status, name


async def test_events_come_whole_first_and_then_only_what_changed(client: Any, board: Board, monkeypatch: Any) -> None:
    monkeypatch.setattr(live, "MIN_PUSH_S", 0.02)
    monkeypatch.setattr(live, "HEARTBEAT_S", 5.0)
    answer = await client.get("/api/v1/events")
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert answer.headers["Content-Security-Policy"]

    async def message() -> Any:
        while True:
            line = await answer.content.readline()
            if line.startswith(b"data: "):
                return json.loads(line.removeprefix(b"data: "))

    first = await message()
    assert [entity["id"] for entity in first["entities"]] == first["order"] == ["acme", "globex"]
    board.closed_ms += MINUTE_MS
    board.on_counts("globex", 100 * MINUTE_MS, {"de": (7, 7.0)})
    board.changed()
    second = await message()
    while not any(e["id"] == "globex" and e["now"]["documents"] == 7 for e in second["entities"]):
        second = await message()
    board.on_pulse(Pulse(instance="a/1", at_ms=1, role="all"))
    board.changed()
    third = await message()
    while not third["pipeline"]["processes"]:
        third = await message()
    assert third["entities"] == []
    assert third["order"] == ["acme", "globex"]
    answer.close()


class TestSignedIn:
    token = new_token()

    @pytest.fixture
    def settings(self) -> HttpSettings:
        return HttpSettings(tokens=(TokenSettings(name="olga", role="operator", sha256=hash_token(self.token)),))

    async def test_a_token_becomes_a_cookie_that_scripts_and_other_sites_cannot_use(self, client: Any) -> None:
        await get(client, "/session", 401)
        assert (await client.post("/api/v1/session", json={"token": "bw_nope"})).status == 401
        answer = await client.post("/api/v1/session", json={"token": self.token})
        assert await answer.json() == {"name": "olga", "role": "operator", "how": "session"}
        cookie = answer.headers["Set-Cookie"]
        assert SESSION_COOKIE in cookie
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert self.token not in cookie
        assert (await get(client, "/session"))["name"] == "olga"
        made = await post(client, {"kind": "mute", "entity": "acme", "for_s": 60})
        assert made["who"] == "olga"
        forged = {"Origin": "https://evil.example"}
        answer = await client.post("/api/v1/actions", json={"kind": "unmute", "entity": "acme"}, headers=forged)
        assert answer.status == 403
        assert (await client.delete("/api/v1/session")).status == 204
        await get(client, "/session", 401)


def test_the_document_names_every_operation_and_every_type() -> None:
    made = document()
    described = {(method.upper(), path) for path, methods in made["paths"].items() for method in methods}
    assert described == {(operation.method, operation.path) for operation in OPERATIONS}
    text = json.dumps(made)
    for schema in ("Action", "Evidence", "Entity", "Problem", "IncidentDetail"):
        assert schema in made["components"]["schemas"]
    for reference in {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}:
        assert reference in made["components"]["schemas"]

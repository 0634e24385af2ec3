"""The chats, each by its real plugin over TLS to a stand-in for its service: what arrives, and what each answer means."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from apprise.plugins.base import NotifyBase

from monitor.errors import ConfigError
from monitor.sinks import problems
from monitor.sinks.base import Delivered, Digest, Rejected, Retry
from monitor.sinks.chat import AppriseSink
from monitor.sinks.samples import samples
from monitor.sinks.settings import AppriseSettings
from tests.support.daemon import tool
from tests.support.services import Internet, Request, internet
from tests.unit.sinks.test_text import with_posts

FIRING, ESCALATED, RESOLVED = samples()

SERVICES = {
    "slack": ("https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ", "hooks.slack.com"),
    "workflow": ("workflows://teams.example:443/workfl0w/s1gnature", "teams.example"),
    "tgram": ("tgram://123456789:abcdefghijklmnopqrstuvwxyz/12315544", "api.telegram.org"),
    "feishu": ("https://open.feishu.cn/open-apis/bot/v2/hook/t0ken-abc", "open.feishu.cn"),
    "lark": ("https://open.larksuite.com/open-apis/bot/v2/hook/t0ken-abc", "open.larksuite.com"),
    "dingtalk": ("https://oapi.dingtalk.com/robot/send?access_token=t0kenabc", "oapi.dingtalk.com"),
    "wecombot": ("https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=t0ken-abc", "qyapi.weixin.qq.com"),
}


@pytest.fixture
async def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Internet]:
    from apprise.plugins.slack import NotifySlack

    # Apprise keeps seconds between two messages to one service; these tests send several.
    monkeypatch.setattr(NotifyBase, "request_rate_per_sec", 0)
    monkeypatch.setattr(NotifySlack, "request_rate_per_sec", 0)
    hosts = tuple(host for _, host in SERVICES.values())
    async with internet(tmp_path, tool("openssl"), hosts, monkeypatch) as made:
        yield made


def sink(name: str, **more: Any) -> AppriseSink:
    return AppriseSink(AppriseSettings(name=name, url=SERVICES[name][0], status_url="https://s.example", **more))  # type: ignore[arg-type]


def text_of(name: str, request: Request) -> str:
    body = request.body
    if name == "slack":
        return str(body["attachments"][0]["title"] + "\n" + body["attachments"][0]["text"])
    if name == "workflow":
        return "\n".join(block["text"] for block in body["attachments"][0]["content"]["body"])
    if name == "tgram":
        return str(body["text"])
    return str(body["text"]["content"] if "text" in body else body["content"]["text"])


@pytest.mark.parametrize("name", SERVICES)
async def test_each_chat_gets_the_message_whole_with_its_link(net: Internet, name: str) -> None:
    made = sink(name, language="tr", posts=3)
    assert made.schema == name
    assert await made.deliver(FIRING, key=FIRING.id) == Delivered()
    assert await made.deliver_digest(Digest("burst", (FIRING, RESOLVED), "k")) == Delivered()
    first, second = net.asked
    assert first.host == SERVICES[name][1]
    text = text_of(name, first)
    assert "%62" in text
    assert "çöktü" in text
    assert "babelwatch-test" in text
    assert "2" in text_of(name, second).splitlines()[0]


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ((404, "no such hook"), Rejected("HTTP 404: no such hook")),
        ((429, "slow down", {"Retry-After": "7"}), Retry("HTTP 429: slow down", 7.0)),
        ((503, "busy"), Retry("HTTP 503: busy")),
    ],
)
async def test_what_a_status_means(net: Internet, name: str, answer: Any, outcome: Any) -> None:
    net.answer = lambda _: answer
    assert await sink(name).deliver(FIRING, key="k") == outcome


@pytest.mark.parametrize(
    ("name", "body", "outcome"),
    [
        ("dingtalk", {"errcode": 0, "errmsg": "ok"}, Delivered),
        ("dingtalk", {"errcode": 130101, "errmsg": "send too fast"}, Retry),
        ("dingtalk", {"errcode": 310000, "errmsg": "keywords not in content"}, Rejected),
        ("wecombot", {"errcode": 0, "errmsg": "ok"}, Delivered),
        ("wecombot", {"errcode": 45009, "errmsg": "api freq out of limit"}, Retry),
        ("wecombot", {"errcode": 93000, "errmsg": "invalid webhook url"}, Rejected),
        ("feishu", {"code": 0, "msg": "success"}, Delivered),
        ("feishu", {"code": 11232, "msg": "frequency limited"}, Retry),
        ("lark", {"code": 19001, "msg": "param invalid"}, Rejected),
    ],
)
async def test_a_refusal_with_status_200_is_one(net: Internet, name: str, body: Any, outcome: type) -> None:
    net.answer = lambda _: (200, json.dumps(body))
    found = await sink(name).deliver(FIRING, key="k")
    assert isinstance(found, outcome)
    if not isinstance(found, Delivered):
        assert str(body.get("errcode") or body["code"]) in found.reason


@pytest.mark.parametrize("name", ["feishu", "lark"])
async def test_a_robot_that_demands_a_signature_gets_it(net: Internet, tmp_path: Path, name: str) -> None:
    file = tmp_path / "key"
    file.write_text("s3cret-key\n")
    made = sink(name, sign_secret_file=file)
    assert await made.deliver(FIRING, key="k") == Delivered()
    body = net.asked[0].body
    # As their documentation computes it: the text "time, line feed, key" is the key of an HMAC over nothing.
    wanted = hmac.new(f"{body['timestamp']}\ns3cret-key".encode(), digestmod=hashlib.sha256).digest()
    assert base64.b64decode(body["sign"]) == wanted
    assert abs(int(body["timestamp"]) - time.time()) < 600
    assert "babelwatch-test" in text_of(name, net.asked[0])
    net.answer = lambda _: (200, '{"code": 19021, "msg": "sign match fail"}')
    assert isinstance(await made.deliver(FIRING, key="k"), Retry)
    with pytest.raises(ConfigError, match=r"sinks\.slack\.sign_secret"):
        sink("slack", sign_secret_file=file)
    file.unlink()
    assert isinstance(await made.deliver(FIRING, key="k"), Retry)


async def test_telegram_says_in_the_body_when_to_come_again(net: Internet) -> None:
    net.answer = lambda _: (429, json.dumps({"ok": False, "error_code": 429, "parameters": {"retry_after": 33}}))
    found = await sink("tgram").deliver(FIRING, key="k")
    assert isinstance(found, Retry)
    assert found.after_s == 33.0


@pytest.mark.parametrize("name", SERVICES)
async def test_a_post_cannot_call_people_or_pose_as_a_link(net: Internet, name: str) -> None:
    await sink(name).deliver(
        with_posts("<!channel> <@U123> <at>all</at> @all <https://evil.example|here> *b* <b>x</b>"), key="k"
    )
    text = text_of(name, net.asked[0])
    for trick in ("<!", "<@", "<at>", "@all", "<https", "<b>x"):
        assert trick not in text.replace("<b>🟠", "")


async def test_a_broken_connection_is_tried_again_and_tells_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    for name, (url, _) in SERVICES.items():
        found = await sink(name, timeout_s=2).deliver(FIRING, key="k")
        assert isinstance(found, Retry), name
        for part in ("t0ken-abc", "t0kenabc", "TIiajkdnlazkcOXrIdevi7FQ", "s1gnature", "abcdefghijklmnopqrstuvwxyz"):
            assert part not in found.reason, url


async def test_a_rotated_url_is_used_at_once(net: Internet, tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("wecombot://first-key\n")
    made = AppriseSink(AppriseSettings(name="w", url_file=file))
    await made.deliver(FIRING, key="1")
    file.write_text("wecombot://second-key\n")
    await made.deliver(RESOLVED, key="2")
    assert [request.path.partition("key=")[2] for request in net.asked] == ["first-key", "second-key"]
    file.write_text("nonsense\n")
    assert isinstance(await made.deliver(RESOLVED, key="3"), Retry)


async def test_a_server_that_answers_a_byte_a_second_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"H")
            await asyncio.sleep(0.05)

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    monkeypatch.setattr(NotifyBase, "request_rate_per_sec", 0)
    url = f"json://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    begun = time.monotonic()
    found = await AppriseSink(AppriseSettings(name="j", url=url, timeout_s=0.2)).deliver(FIRING, key="k")  # type: ignore[arg-type]
    server.close()
    assert isinstance(found, Retry)
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize("url", ["slak://x", "", "not a url", "slack://short"])
def test_an_address_that_apprise_does_not_know_is_a_mistake(url: str) -> None:
    if not url:
        with pytest.raises(ValueError, match="url"):
            AppriseSettings(name="c")
        return
    with pytest.raises(ConfigError, match=r"sinks\.c\.url"):
        AppriseSink(AppriseSettings(name="c", url=url))  # type: ignore[arg-type]
    assert len(problems((AppriseSettings(name="c", url=url),))) == 1  # type: ignore[arg-type]


def test_settings_do_not_show_the_url() -> None:
    assert "t0ken" not in repr(AppriseSettings(name="c", url=SERVICES["lark"][0]))  # type: ignore[arg-type]


async def test_long_posts_are_cut_and_the_link_stays(net: Internet) -> None:
    alert = msgspec.structs.replace(with_posts(*["评论" * 900] * 40))
    assert await sink("wecombot", posts=50, language="zh").deliver(alert, key="k") == Delivered()
    content = text_of("wecombot", net.asked[0])
    assert len(content.encode()) <= 2048
    assert content.endswith("https://s.example/#/incident/babelwatch-test")

"""What docs/sinks.md shows works as it stands."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from monitor.config import load_config
from monitor.records import cloud_event, encode
from monitor.sinks.samples import samples
from monitor.sinks.settings import StdoutSettings
from monitor.sinks.text import Writer
from monitor.sinks.webhook import SIGNATURE, TIMESTAMP, sign
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "sinks.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize("block", [block for block in blocks("toml") if "[[sinks]]" in block])
def test_the_examples_are_valid(block: str, tmp_path: Path) -> None:
    for file in re.findall(r'_file = "(.+?)"', block):
        block = block.replace(file, str(tmp_path / "secret"))
    (tmp_path / "secret").write_text("wecombot://key-1")
    (tmp_path / "b.toml").write_text(block)
    assert len(load_config(tmp_path / "b.toml").sinks) == 1


def test_the_example_of_quiet_hours_is_valid() -> None:
    block = next(block for block in blocks("toml") if "quiet = " in block)
    StdoutSettings(name="s", **tomllib.loads(block))


def test_the_example_of_a_template_works(tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text(blocks("jinja")[0])
    message = Writer(StdoutSettings(name="s", template=own)).alert(samples()[0])
    assert message.title.startswith("🟠 everybody: Babelwatch test")
    assert samples()[0].evidence.posts[0].text in message.body


def test_the_example_of_a_check_tells_genuine_from_forged() -> None:
    scope: dict[str, Any] = {}
    exec(blocks("python")[0], scope)
    import time

    body, now = encode(cloud_event(samples()[0])), str(int(time.time()))
    headers = {TIMESTAMP: now, SIGNATURE: sign("k3y", now, body)}
    assert scope["genuine"](b"k3y", headers, body)
    assert not scope["genuine"](b"k3y", headers, body + b" ")
    assert not scope["genuine"](b"other", headers, body)
    old = str(int(time.time()) - 3600)
    assert not scope["genuine"](b"k3y", {TIMESTAMP: old, SIGNATURE: sign("k3y", old, body)}, body)


def test_every_type_and_language_is_described() -> None:
    from typing import get_args

    from monitor.sinks.settings import SinkSettings

    for kind in get_args(SinkSettings):
        assert f"`{kind.model_fields['type'].default}`" in PAGE

"""The configuration: file, environment, defaults; errors with place and hint; the example is the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from monitor.config import example, load_config
from monitor.errors import ConfigError


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("BABELWATCH__"):
            monkeypatch.delenv(name)


def write(tmp_path: Path, content: str) -> Path:
    file = tmp_path / "babelwatch.toml"
    file.write_text(content)
    return file


def test_the_example_is_valid_and_all_defaults(tmp_path: Path) -> None:
    loaded, plain = load_config(write(tmp_path, example())), load_config(None)
    for name in type(plain).model_fields:
        if name not in ("watchlist", "inference"):
            assert getattr(loaded, name) == getattr(plain, name), name


def test_every_option_has_a_description() -> None:
    text = example().splitlines()
    for place, line in enumerate(text):
        if "=" in line and not line.startswith("#"):
            assert text[place - 1].startswith("# "), line


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BABELWATCH__KAFKA__BOOTSTRAP_SERVERS", "broker:9092")
    monkeypatch.setenv("BABELWATCH__DETECTION__FALSE_ALARMS_PER_DAY", "2.5")
    config = load_config(write(tmp_path, '[kafka]\nbootstrap_servers = "other:1"\ngroup_prefix = "mine"\n'))
    assert config.kafka.bootstrap_servers == "broker:9092"
    assert config.kafka.group_prefix == "mine"
    assert config.detection.false_alarms_per_day == 2.5


def test_paths_in_the_file_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    config = load_config(
        write(tmp_path, 'watchlist = "w.toml"\n[inference]\nbundle = "models/b"\n[kafka]\nca_file = "ca.pem"\n')
    )
    assert config.watchlist == tmp_path / "w.toml"
    assert config.inference.bundle == tmp_path / "models/b"
    assert config.kafka.ca_file == tmp_path / "ca.pem"


def test_all_errors_at_once_with_place_and_hint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(
            write(
                tmp_path,
                '[kafka]\nbootstrap_server = "x"\ncommit_interval_s = -1\npassword = "hunter2"\nsasl_mechanism = "ROT13"\n'
                '[[sinks]]\ntype = "pigeon"\nname = "p"\n[[sinks]]\ntype = "webhook"\nname = "w"\nurl = "not a url"\nsecret = "s3cret"\n',
            )
        )
    told = str(caught.value)
    for said in (
        "kafka.bootstrap_server:",
        "no such option",
        "kafka.commit_interval_s",
        "got -1",
        "kafka.sasl_mechanism",
        "sinks.0",
        "sinks.1.webhook.url",
    ):
        assert said in told, told
    assert "hunter2" not in told
    assert "s3cret" not in told


def test_a_missing_or_broken_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="config example"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="line 2"):
        load_config(write(tmp_path, "a = 1\nb = = 2\n"))


def test_secrets_come_from_files_and_never_show(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("hunter2\n")
    config = load_config(
        write(
            tmp_path,
            '[kafka]\nsecurity_protocol = "SASL_SSL"\nusername = "u"\npassword_file = "pw"\nbootstrap_servers = "b:1"\n',
        )
    )
    assert config.kafka.secret() == "hunter2"
    assert "hunter2" not in repr(config)


def test_a_named_file_that_is_not_there_is_told_with_all_others(tmp_path: Path) -> None:
    content = '[service]\nauthor_salt_file = "salt"\n[[sinks]]\ntype = "webhook"\nname = "w"\nurl = "http://h/"\nsecret_file = "key"\n'
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, content))
    for part in ("service.author_salt_file", str(tmp_path / "salt"), "sinks.0.secret_file", str(tmp_path / "key")):
        assert part in str(caught.value)

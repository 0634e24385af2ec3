"""One browser, one broker and one page process for all tests here; each test has topics or a sign-in of its own."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from monitor.broker.settings import KafkaSettings, TopicSettings
from monitor.http.settings import HttpSettings
from tests.web import scene
from tests.web.browser import Browser, chromium
from tests.web.site import PageProcess


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    made = chromium()
    yield made
    made.quit()


@pytest.fixture(scope="session")
def a_day() -> scene.Scene:
    return scene.make()


Start = Callable[..., PageProcess]


@contextmanager
def starter(address: str, folder: Path) -> Iterator[Start]:
    """Starts page processes; those that are given the same topics are replicas of each other."""
    running: list[PageProcess] = []

    def started(topics: TopicSettings | None = None, **http: Any) -> PageProcess:
        prefix = f"w{uuid.uuid4().hex[:8]}"
        topics = topics or TopicSettings(**{field: f"{prefix}.{field}" for field in TopicSettings.model_fields})
        kafka = KafkaSettings(bootstrap_servers=address, partitions=1)
        own = Path(tempfile.mkdtemp(dir=folder))
        running.append(PageProcess(kafka, topics, own, HttpSettings.model_validate({"port": 0, **http})).start())
        return running[-1]

    yield started
    for process in running:
        process.stop()


@pytest.fixture
def start(tansu_address: str, tmp_path: Path) -> Iterator[Start]:
    with starter(tansu_address, tmp_path) as started:
        yield started


@pytest.fixture
def page(start: Start, a_day: scene.Scene) -> PageProcess:
    """A page that shows the scene, for a test that changes something."""
    process = start()
    process.show(a_day)
    return process


@pytest.fixture(scope="session")
def still(tansu_address: str, tmp_path_factory: pytest.TempPathFactory, a_day: scene.Scene) -> Iterator[PageProcess]:
    """A page that shows the scene, for tests that only look."""
    with starter(tansu_address, tmp_path_factory.mktemp("still")) as started:
        process = started()
        process.show(a_day)
        yield process

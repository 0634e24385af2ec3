"""Documents that kill the process: found, dead-lettered alone, and the rest goes on."""

from __future__ import annotations

import asyncio
import json
import signal
import textwrap
from pathlib import Path

import pytest

from monitor.broker import client
from monitor.broker.settings import KafkaSettings, TopicSettings
from monitor.inference.probe import deadly
from monitor.inference.settings import InferenceSettings
from tests.support.daemon import Daemon, deadletters, opinions, send
from tests.support.stream import documents
from tests.support.tiny_bundle import make_tiny_bundle

KILLER = "segfaulting"
HEAVY = "heavy"
"""One such text is borne, two in one batch are not."""

FAULTY = f"""
    # A native fault, put into every Python process that has this folder on its path.
    import importlib.abc, importlib.util, os, signal, sys

    class Patch(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name != "monitor.inference.engine":
                return None
            sys.meta_path.remove(self)
            spec = importlib.util.find_spec(name)
            load = spec.loader.exec_module

            def exec_module(module):
                load(module)
                encode = module.Engine.encode

                def faulty(self, texts):
                    if any("{KILLER}" in text for text in texts) or sum("{HEAVY}" in text for text in texts) > 1:
                        os.kill(os.getpid(), signal.SIGSEGV)
                    return encode(self, texts)

                module.Engine.encode = faulty

            spec.loader.exec_module = exec_module
            return spec

    sys.meta_path.insert(0, Patch())
"""


@pytest.fixture
def faulty(tmp_path: Path) -> dict[str, str]:
    """An environment in which one word is a segmentation fault."""
    (tmp_path / "faulty").mkdir()
    (tmp_path / "faulty" / "sitecustomize.py").write_text(textwrap.dedent(FAULTY))
    root = Path(__file__).parent.parent.parent
    # Under its name a killed member is taken in again at once.
    return {"PYTHONPATH": f"{tmp_path / 'faulty'}:{root}", "BABELWATCH__KAFKA__INSTANCE_ID": "one"}


async def test_a_probe_finds_each_deadly_text_and_no_other(
    tmp_path: Path, faulty: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in faulty.items():
        monkeypatch.setenv(name, value)
    settings = InferenceSettings(bundle=make_tiny_bundle(tmp_path / "bundle"), threads=1)
    texts = ["good", f"a {KILLER} text", "awful", f"{KILLER}", "okay"]
    assert await deadly(settings, texts) == {1, 3}
    assert await deadly(settings, []) == set()


@pytest.mark.kafka
@pytest.mark.timeout(600)
async def test_a_document_that_kills_the_process_is_dead_lettered_alone_and_those_that_do_so_together_are_parted(
    tmp_path: Path, kafka_address: str, names: TopicSettings, faulty: dict[str, str]
) -> None:
    kafka = KafkaSettings(bootstrap_servers=kafka_address, group_prefix=names.documents.split(".")[0], partitions=1)
    await client.ensure_topics(kafka, [names.documents])
    daemon = Daemon(tmp_path / "one", kafka, names, make_tiny_bundle(tmp_path / "bundle"))
    heavy = [json.dumps({"id": f"heavy{n}", "text": f"acme is {HEAVY} today, number {n}"}).encode() for n in range(3)]
    good = [*documents(minutes=30), *heavy]
    poison = json.dumps({"id": "poison", "text": f"acme is {KILLER}"}).encode()
    crashes = 0
    try:
        await daemon.start(env=faulty).ready()
        await send(kafka, names.documents, [*good[:60], poison, *good[60:]])
        assert daemon.process is not None
        while len(await opinions(kafka, names, committed=True)) < len(good):
            if daemon.process.poll() is not None:  # as an orchestrator would
                assert daemon.process.returncode == -signal.SIGSEGV
                crashes += 1
                assert crashes < 10, daemon.log()
                daemon.start(env=faulty)
            await asyncio.sleep(0.5)
        await daemon.ready()
        await daemon.until(lambda d: d.metric("babelwatch_lag_records", role="classify") == 0)
        assert await daemon.end() == 0
    finally:
        daemon.kill()
    assert 1 <= crashes <= 6
    letters = await deadletters(kafka, names, committed=True)
    assert [(letter.reason, json.loads(letter.value)["id"]) for letter in letters] == [("model_crash", "poison")]
    said = await opinions(kafka, names, committed=True)
    assert sorted(opinion.document_id for opinion in said) == sorted(json.loads(value)["id"] for value in good)

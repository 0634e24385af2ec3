"""What the clients leave behind is not told twice."""

from __future__ import annotations

import asyncio
import gc

import pytest
from aiokafka.errors import ProducerFenced

from monitor.broker.client import hush_orphans


async def test_kafka_errors_that_nobody_awaits_are_no_tracebacks_and_all_others_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = asyncio.get_running_loop()
    hush_orphans(loop)
    for error in (ProducerFenced("ours"), RuntimeError("a bug")):
        loop.create_future().set_exception(error)
    gc.collect()
    assert [record.exc_info[1].args for record in caplog.records if record.exc_info] == [("a bug",)]  # type: ignore[union-attr]

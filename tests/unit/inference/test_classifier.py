"""The classifier: callers share batches, bad texts fail alone, the queue is bounded, and closing and swapping lose nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from monitor.inference.bundle import Bundle
from monitor.inference.classifier import BatchReport, Classifier, StoppedError
from monitor.inference.engine import Engine, InferenceError, Outputs, TokenIds
from monitor.inference.results import Classification, Failure, Outcome
from monitor.inference.settings import InferenceSettings
from monitor.records import SENTIMENTS
from tests.support.tiny_bundle import CRASH_WORD, NAN_WORD, WORDS, make_tiny_bundle

SETTINGS = InferenceSettings(device="cpu", threads=2, drain_timeout_s=30)
ONE_THREAD = SETTINGS.model_copy(update={"threads": 1})
PATIENCE_S = 30


class GatedEngine(Engine):
    """The real engine, whose runs wait until the test opens the gate, and which can be broken."""

    def __init__(self, bundle: Bundle, settings: InferenceSettings = ONE_THREAD) -> None:
        super().__init__(bundle, settings)
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.encoded: list[str] = []
        self.broken = False
        self.sizes: list[int] = []

    def encode(self, texts: Sequence[str]) -> list[TokenIds]:
        self.encoded += texts
        return super().encode(texts)

    def infer(self, ids: Sequence[TokenIds], length: int) -> Outputs:
        self.entered.set()
        while not self.gate.wait(0.01):
            if self._run_options.terminate:
                raise InferenceError("inference", "aborted")
        if self.broken:
            raise InferenceError("inference", "the device is lost")
        self.sizes.append(len(ids))
        return super().infer(ids, length)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(make_tiny_bundle(tmp_path_factory.mktemp("bundle")))


@pytest.fixture
def gated(bundle: Bundle) -> GatedEngine:
    return GatedEngine(bundle)


def sentiments(outcomes: Sequence[Outcome]) -> list[str]:
    return [
        SENTIMENTS[max(range(3), key=o.sentiment.__getitem__)] if isinstance(o, Classification) else o.reason
        for o in outcomes
    ]


async def until_set(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, PATIENCE_S)


async def test_outcomes_come_in_the_order_of_the_texts(bundle: Bundle) -> None:
    texts = [f"{'the ' * (n % 5)}{word} {n}" for n, word in enumerate([*WORDS] * 60)]
    async with Classifier(Engine(bundle, SETTINGS), SETTINGS) as classifier:
        found = await asyncio.gather(*(classifier.classify(texts[n::3], ["th"] * len(texts[n::3])) for n in range(3)))
        assert await classifier.classify([], []) == []
    for n in range(3):
        assert sentiments(found[n]) == ([*WORDS.values()] * 60)[n::3]


async def test_each_text_is_calibrated_for_its_own_language(bundle: Bundle) -> None:
    async with Classifier(Engine(bundle, SETTINGS), SETTINGS) as classifier:
        found = await classifier.classify(["awful"] * 3, ["en", "xx", "th"])
    assert sentiments(found) == ["negative", "positive", "negative"]


async def test_callers_share_batches(gated: GatedEngine) -> None:
    async with Classifier(gated, ONE_THREAD) as classifier:
        first = await classifier.submit(["good"], ["en"])
        await until_set(gated.entered)  # the model is busy, so what follows waits together
        others = [await classifier.submit(["good"], ["en"]) for _ in range(8)]
        while len(gated.encoded) < 9:
            await asyncio.sleep(0.001)
        gated.gate.set()
        await asyncio.gather(first, *others)
    assert gated.sizes == [1, 8]


async def test_the_next_texts_are_tokenised_while_the_model_runs(gated: GatedEngine) -> None:
    async with Classifier(gated, ONE_THREAD) as classifier:
        await classifier.submit(["good"], ["en"])
        await until_set(gated.entered)
        second = await classifier.submit(["bad"], ["en"])
        while "bad" not in gated.encoded:
            await asyncio.sleep(0.001)
        assert not second.done()
        gated.gate.set()
        assert sentiments(await second) == ["negative"]


async def test_bad_texts_fail_alone_and_their_neighbours_do_not_change(bundle: Bundle) -> None:
    texts = ["good one", "bad one", "okay one", "a 1 b 2"] * 10
    bad = {3: (NAN_WORD, "not_finite"), 17: (CRASH_WORD, "inference"), 18: ("\ud800", "not_encodable")}
    reports: list[BatchReport] = []
    async with Classifier(Engine(bundle, SETTINGS), SETTINGS, on_batch=reports.append) as classifier:
        clean = await classifier.classify(texts, ["en"] * len(texts))
        assert all(report.runs == 1 for report in reports)
        for index, (word, _) in bad.items():
            texts[index] = f"{texts[index]} {word}"
        mixed = await classifier.classify(texts, ["en"] * len(texts))
    for index, outcome in enumerate(mixed):
        if index in bad:
            assert isinstance(outcome, Failure)
            assert outcome.reason == bad[index][1]
        else:
            assert outcome == clean[index]
    assert any(report.runs > 1 for report in reports)
    assert sum(report.documents for report in reports) == 2 * len(texts) - 1  # one never reached the model


async def test_a_broken_engine_blames_no_text(gated: GatedEngine) -> None:
    gated.broken = True
    gated.gate.set()
    async with Classifier(gated, ONE_THREAD) as classifier:
        with pytest.raises(InferenceError, match="the device is lost"):
            await classifier.classify(["good", "bad", "okay"], ["en"] * 3)
        with pytest.raises(InferenceError, match="the device is lost"):
            await classifier.submit(["good"], ["en"])


async def test_a_fault_in_a_thread_reaches_the_caller(bundle: Bundle) -> None:
    def fault(report: BatchReport) -> None:
        raise ZeroDivisionError("in the metrics")

    async with Classifier(Engine(bundle, SETTINGS), SETTINGS, on_batch=fault) as classifier:
        with pytest.raises(InferenceError, match="in the metrics"):
            await classifier.classify(["good"], ["en"])


async def test_the_queue_is_bounded_and_submit_waits_for_room(gated: GatedEngine) -> None:
    async with Classifier(gated, ONE_THREAD.model_copy(update={"queue_documents": 10})) as classifier:
        large = asyncio.create_task(classifier.submit(["good"] * 35, ["en"] * 35))
        await until_set(gated.entered)
        assert (classifier.pending, classifier.room) == (10, 0)
        small = asyncio.create_task(classifier.submit(["bad"], ["en"]))
        await asyncio.sleep(0)
        assert not large.done()
        assert not small.done()
        gated.gate.set()
        assert sentiments(await (await large)) == ["positive"] * 35
        assert sentiments(await (await small)) == ["negative"]
        assert (classifier.pending, classifier.room) == (0, 10)
    assert max(gated.sizes) <= 10


async def test_a_caller_that_gives_up_harms_nobody(gated: GatedEngine) -> None:
    settings = ONE_THREAD.model_copy(update={"queue_documents": 2, "drain_timeout_s": 1e6})
    async with asyncio.timeout(PATIENCE_S), Classifier(gated, settings) as classifier:
        first = await classifier.submit(["good"], ["en"])
        waiting = asyncio.create_task(classifier.submit(["good"] * 5, ["en"] * 5))
        await until_set(gated.entered)
        first.cancel()
        waiting.cancel()
        gated.gate.set()
        assert sentiments(await classifier.classify(["bad"], ["en"])) == ["negative"]
    assert classifier.pending == 0


async def test_closing_finishes_what_was_accepted(gated: GatedEngine) -> None:
    async with Classifier(gated, ONE_THREAD) as classifier:
        futures = [await classifier.submit(["good"] * 20, ["en"] * 20) for _ in range(5)]
        await until_set(gated.entered)
        asyncio.get_running_loop().call_soon(gated.gate.set)
    assert all(sentiments(future.result()) == ["positive"] * 20 for future in futures)
    with pytest.raises(StoppedError):
        await classifier.submit(["good"], ["en"])


async def test_closing_gives_up_at_the_deadline(gated: GatedEngine) -> None:
    async with Classifier(gated, ONE_THREAD.model_copy(update={"drain_timeout_s": 0})) as classifier:
        future = await classifier.submit(["good"], ["en"])
        await until_set(gated.entered)
    with pytest.raises(StoppedError):
        await future
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("inference-")]


async def test_a_swap_finishes_the_old_texts_with_the_old_bundle(gated: GatedEngine, tmp_path: Path) -> None:
    new = Engine(Bundle.load(make_tiny_bundle(tmp_path, seed=1)), ONE_THREAD)
    async with Classifier(gated, ONE_THREAD) as classifier:
        before = await classifier.submit(["good"] * 40, ["en"] * 40)
        await until_set(gated.entered)
        swap = asyncio.create_task(classifier.swap(new))
        await asyncio.sleep(0)
        after = await classifier.submit(["good"] * 40, ["en"] * 40)
        assert not swap.done()
        gated.gate.set()
        assert await swap is gated
        versions = [{o.bundle for o in await f if isinstance(o, Classification)} for f in (before, after)]
        assert classifier.bundle == new.bundle.version
    assert versions == [{gated.bundle.version}, {new.bundle.version}]

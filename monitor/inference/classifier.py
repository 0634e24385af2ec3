"""Texts in, classifications out, for asyncio: batches shared by all callers, the model off the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType
from typing import Any

import numpy as np

from monitor.errors import BabelwatchError
from monitor.inference.batching import Batch, Batcher, isolate
from monitor.inference.engine import Engine, InferenceError, TokenIds
from monitor.inference.results import Classification, Failure, Outcome, Reader
from monitor.inference.settings import InferenceSettings

_ENCODE_TEXTS = 256
"""Texts to tokenise in one call: some 10 ms, so that the model starts early on a large submission, and enough that the
call itself costs nothing."""
_JOIN_TIMEOUT_S = 5.0
"""A run ends soon after `Engine.abort`; a thread stuck in a driver must not hold up the shutdown, and is a daemon."""


_NO_IDS: TokenIds = np.empty(0, np.int64)
"""Of a text that could not be tokenised."""


class StoppedError(BabelwatchError):
    """The classifier was closed before these texts had their turn: nothing is known of them, good or bad."""

    def __init__(self) -> None:
        super().__init__("the classifier is closed", where="inference")


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What one batch cost, for metrics."""

    documents: int
    tokens: int
    """Without padding."""
    padded_tokens: int
    """With padding: what the model computed."""
    waited_s: float
    """How long the oldest document had waited, tokenised, for the model."""
    run_s: float
    """In the model and in reading its outputs."""
    runs: int
    """Runs of the model; more than 1 when the batch failed and was halved."""


class Classifier:
    """The model behind a bounded queue. Use it as an async context manager, from one event loop.

    One thread tokenises, `Engine.concurrency` threads run the model; while they run, the next batches are tokenised and
    wait, sorted by length. The event loop does work per submission and per batch, never per token.

        async with Classifier(engine, settings) as classifier:
            outcomes = await classifier.classify(texts, langs)

    A batch that fails is halved until the texts at fault stand alone as `Failure`; the others are classified. When not
    even a blank text can be classified, the engine is broken: every open call and all later ones raise `InferenceError`.

    Args:
        engine: Warmed up; stays the caller's to close, after this is closed.
        settings: `starvation_s`, `queue_documents` and `drain_timeout_s` are used.
        on_batch: Told of each batch, in a thread of the model; must be quick and must not raise.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        engine: Engine,
        settings: InferenceSettings,
        *,
        on_batch: Callable[[BatchReport], None] = lambda report: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._on_batch = on_batch
        self._clock = clock
        # Shared with the threads, under `_changed`; the event loop holds it only for an instant, at the very end.
        self._changed = threading.Condition()
        self._stage = self._make_stage(engine)
        self._running = 0
        self._stopping = False
        # The event loop's own.
        self._pending = 0
        self._open: set[asyncio.Future[Any]] = set()
        self._error: BabelwatchError | None = None
        self._roomy = asyncio.Event()
        self._intake: SimpleQueue[_Part | _Swap | None] = SimpleQueue()
        targets = [self._feed] + [self._work] * engine.concurrency
        self._threads = [
            threading.Thread(target=self._guard, args=(target,), name=f"inference-{i}", daemon=True)
            for i, target in enumerate(targets)
        ]

    async def __aenter__(self) -> Classifier:
        self._loop = asyncio.get_running_loop()
        for thread in self._threads:
            thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close(self._settings.drain_timeout_s)

    @property
    def pending(self) -> int:
        """Documents accepted and not yet done."""
        return self._pending

    @property
    def room(self) -> int:
        """Documents that `submit` would accept without waiting."""
        return self._settings.queue_documents - self._pending

    @property
    def bundle(self) -> str:
        """Version of the bundle in use."""
        return self._stage.engine.bundle.version

    async def submit(self, texts: Sequence[str], langs: Sequence[str]) -> asyncio.Future[list[Outcome]]:
        """Queue texts; returns once the queue has taken all of them.

        Args:
            texts: Any number, without prefix; not empty strings, best.
            langs: Their languages, for the calibration.

        Returns:
            Resolves to one outcome for each text, in order. It raises `InferenceError` when the engine breaks, and
            `StoppedError` when the classifier is closed first. Cancelling it does not take the texts out of the queue.

        Raises:
            InferenceError: The engine is broken.
            StoppedError: The classifier is closed.
        """
        if len(texts) != len(langs):
            raise ValueError(f"{len(texts)} texts, but {len(langs)} languages")
        if self._error is not None:
            raise self._error
        submission = _Submission(texts, langs, self._promise())
        start = 0
        while start < len(texts):
            while not self.room:
                self._roomy.clear()
                try:
                    await self._roomy.wait()
                except asyncio.CancelledError:
                    submission.future.cancel()  # or closing would wait for texts that never came
                    raise
                if submission.future.done():
                    return submission.future
            stop = min(len(texts), start + self.room)
            self._pending += stop - start
            self._intake.put(_Part(submission, start, stop))
            start = stop
        if not texts:
            submission.future.set_result([])
        return submission.future

    async def classify(self, texts: Sequence[str], langs: Sequence[str]) -> list[Outcome]:
        """Queue texts and wait for their outcomes; see `submit`."""
        return await (await self.submit(texts, langs))

    async def swap(self, engine: Engine) -> Engine:
        """Put another engine in place of this one; texts submitted before are finished by the old one.

        Args:
            engine: Warmed up.

        Returns:
            The old engine, no longer in use.

        Raises:
            BundleError: The new bundle lacks what a classification needs; the old engine goes on.
            InferenceError: The old engine broke while it finished.
            StoppedError: The classifier was closed first.
        """
        if self._error is not None:
            raise self._error
        stage = self._make_stage(engine)
        done: asyncio.Future[Engine] = self._promise()
        self._intake.put(_Swap(stage, done))
        return await done

    async def close(self, timeout_s: float) -> None:
        """Take no more texts, finish those in the queue, and stop the threads.

        Args:
            timeout_s: After so long the rest is given up: its callers get `StoppedError`, and the engine is aborted.
        """
        self._error = self._error or StoppedError()
        if self._open:
            _, late = await asyncio.wait(list(self._open), timeout=timeout_s)
            if late:
                self._stage.engine.abort()
                self._fail(StoppedError())
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._intake.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join, _JOIN_TIMEOUT_S)

    # On the event loop

    def _promise(self) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        self._open.add(future)
        future.add_done_callback(self._open.discard)
        return future

    def _deliver(self, outcomes: Sequence[tuple[_Submission, int, Outcome]]) -> None:
        for submission, index, outcome in outcomes:
            submission.settle(index, outcome)
        self._pending -= len(outcomes)
        self._roomy.set()

    def _fail(self, error: BabelwatchError) -> None:
        self._error = error
        for future in list(self._open):
            if not future.done():
                future.set_exception(error)
        self._roomy.set()

    # In the threads

    def _guard(self, target: Callable[[], None]) -> None:
        try:
            target()
        except BabelwatchError as error:
            self._post(self._fail, error)
        except Exception as error:
            self._post(self._fail, InferenceError("inference", f"inference stopped: {error!r}"))

    def _post(self, callback: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self._stopping = True

    def _feed(self) -> None:
        while (task := self._intake.get()) is not None:
            if isinstance(task, _Swap):
                self._replace(task)
                continue
            for start in range(task.start, task.stop, _ENCODE_TEXTS):
                self._tokenise(task.submission, range(start, min(start + _ENCODE_TEXTS, task.stop)))

    def _tokenise(self, submission: _Submission, indices: range) -> None:
        stage = self._stage
        texts = submission.texts[indices.start : indices.stop]
        encoded = isolate(stage.engine.encode, texts, InferenceError)
        failed = []
        with self._changed:
            now = self._clock()
            for index, ids in zip(indices, encoded, strict=True):
                if isinstance(ids, InferenceError):
                    failed.append((submission, index, Failure(ids.reason, ids.what)))
                else:
                    stage.batcher.add(_Text(submission, index, ids), len(ids), now)
            self._changed.notify_all()
        if failed:
            self._post(self._deliver, failed)

    def _replace(self, swap: _Swap) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or not (self._stage.batcher.depth or self._running))
            old, self._stage = self._stage, swap.stage
        self._post(_resolve, swap.done, old.engine)

    def _work(self) -> None:
        while (taken := self._take()) is not None:
            stage, batch = taken
            outcomes = self._run(stage, batch)
            with self._changed:
                self._running -= 1
                self._changed.notify_all()
            delivery = [(text.submission, text.index, o) for text, o in zip(batch.items, outcomes, strict=True)]
            self._post(self._deliver, delivery)

    def _take(self) -> tuple[_Stage, Batch[_Text]] | None:
        with self._changed:
            while not self._stopping:
                batch = self._stage.batcher.next(self._clock())
                if batch is not None:
                    self._running += 1
                    return self._stage, batch
                self._changed.wait()
        return None

    def _run(self, stage: _Stage, batch: Batch[_Text]) -> list[Outcome]:
        runs = 0

        def run(texts: Sequence[_Text]) -> list[Classification]:
            nonlocal runs
            runs += 1
            outputs = stage.engine.infer([text.ids for text in texts], batch.length)
            return stage.reader.read(outputs, [text.lang for text in texts])

        begun_s = self._clock()
        results = isolate(run, batch.items, InferenceError)
        if any(isinstance(result, InferenceError) for result in results):
            # Is it the text or the engine? Losing every document of the stream to a broken engine would be far worse.
            stage.engine.infer(stage.engine.encode([""]), batch.length)
        padded_tokens = stage.engine.grid.rows_for(len(batch.items)) * batch.length
        run_s = self._clock() - begun_s
        self._on_batch(BatchReport(len(batch.items), batch.tokens, padded_tokens, batch.waited_s, run_s, runs))
        return [Failure(r.reason, r.what) if isinstance(r, InferenceError) else r for r in results]

    def _make_stage(self, engine: Engine) -> _Stage:
        batcher = Batcher[_Text](
            engine.grid, starvation_s=self._settings.starvation_s, capacity=self._settings.queue_documents
        )
        return _Stage(engine, Reader(engine.bundle), batcher)


class _Submission:
    """The texts of one call, and their outcomes as they come."""

    def __init__(self, texts: Sequence[str], langs: Sequence[str], future: asyncio.Future[list[Outcome]]) -> None:
        self.texts = texts
        self.langs = langs
        self.future = future
        self._outcomes: dict[int, Outcome] = {}

    def settle(self, index: int, outcome: Outcome) -> None:
        self._outcomes[index] = outcome
        if len(self._outcomes) == len(self.texts):
            _resolve(self.future, [self._outcomes[i] for i in range(len(self.texts))])


@dataclass(frozen=True, slots=True)
class _Part:
    """A run of texts of a submission that the queue has room for."""

    submission: _Submission
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class _Text:
    """One tokenised text on its way through the queue and the model."""

    submission: _Submission
    index: int
    ids: TokenIds

    @property
    def lang(self) -> str:
        return self.submission.langs[self.index]


@dataclass(frozen=True, slots=True)
class _Stage:
    """All that belongs to one bundle: it is swapped as a whole."""

    engine: Engine
    reader: Reader
    batcher: Batcher[_Text]


@dataclass(frozen=True, slots=True)
class _Swap:
    stage: _Stage
    done: asyncio.Future[Engine]


def _resolve(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)

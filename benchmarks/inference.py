"""The whole classifier against bare ONNX Runtime on the same texts, already tokenised: `python benchmarks/inference.py`.

Both sides take turns in one process, so that what else the machine does hurts both; the figure is the ratio. Bare means
`InferenceSession.run` and nothing else: ids made, sorted by length, cut into batches and padded before the clock starts,
in whichever of several set-ups is the fastest here. The classifier gets strings in the order of the stream, in small
submissions as the daemon makes them, and gives calibrated values.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from monitor.inference.bundle import Bundle
from monitor.inference.classifier import BatchReport, Classifier
from monitor.inference.engine import Engine, TokenIds
from monitor.inference.processor import cpu_options
from monitor.inference.settings import InferenceSettings

ROOT = Path(__file__).parent.parent
SUBMISSION_TEXTS = 100
"""What one fetch brings: small enough that it takes many submissions to fill the queue."""
BEAT_S = 0.005


@dataclass(frozen=True)
class Spent:
    """One pass over all texts."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True)
class Bare:
    """One way of running bare ONNX Runtime."""

    name: str
    session: Any
    runners: int
    feeds: list[dict[str, TokenIds]]

    def run(self) -> Spent:
        """One pass over all batches."""
        feeds, lock = iter(self.feeds), threading.Lock()

        def work() -> None:
            while True:
                with lock:
                    feed = next(feeds, None)
                if feed is None:
                    return
                self.session.run(None, feed)

        def run_all() -> None:
            threads = [threading.Thread(target=work) for _ in range(self.runners)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        return timed(run_all)


def timed(action: Callable[[], object]) -> Spent:
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    action()
    return Spent(time.perf_counter() - wall_s, time.process_time() - cpu_s)


def sample_texts(file: Path, documents: int) -> list[str]:
    """Different texts of a JSONL stream (`text`) in its order, again from the start when there are too few."""
    texts: dict[str, None] = {}
    with gzip.open(file, "rb") as lines:
        for line in lines:
            try:
                text = json.loads(line)["text"]
            except (ValueError, KeyError, TypeError):
                continue  # the stream holds broken records on purpose
            if isinstance(text, str) and text.strip() and text.isprintable():
                texts[text] = None
    return list(islice(cycle(texts), documents))


def feeds(ids: Sequence[TokenIds], budget_tokens: int, pad_id: int) -> list[dict[str, TokenIds]]:
    """Batches sorted by length, each padded to its own longest, none above the budget."""
    found: list[dict[str, TokenIds]] = []
    batch: list[TokenIds] = []
    for text in [*sorted(ids, key=len), None]:
        if text is None or (batch and (len(batch) + 1) * len(text) > budget_tokens):
            input_ids = np.full((len(batch), len(batch[-1])), pad_id, dtype=np.int64)
            mask = np.zeros_like(input_ids)
            for row, one in enumerate(batch):
                input_ids[row, : len(one)], mask[row, : len(one)] = one, 1
            found.append({"input_ids": input_ids, "attention_mask": mask})
            batch = []
        if text is not None:
            batch.append(text)
    return found


def bare_ways(engine: Engine, ids: Sequence[TokenIds]) -> list[Bare]:
    """ONNX Runtime as it comes (all cores in each run), and one core a run with as many runs at once."""
    model = engine.bundle.model_file("int8") or engine.bundle.model_file("fp32")
    cores, pad_id = engine.concurrency, engine.bundle.manifest.pad_id
    ways = []
    for threads, runners in {(cores, 1), (1, cores)}:
        options = cpu_options(threads)
        session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        for budget_tokens in (engine.grid.budget_tokens, 4 * engine.grid.budget_tokens):
            name = f"{runners} run(s) of {threads} thread(s), {budget_tokens} tokens"
            ways.append(Bare(name, session, runners, feeds(ids, budget_tokens, pad_id)))
    return ways


async def classify(
    classifier: Classifier, texts: Sequence[str], langs: Sequence[str], lags_s: list[float]
) -> tuple[Spent, int]:
    """One pass through the classifier, with a beat on the event loop to see what it loses."""
    beat = asyncio.create_task(_beat(lags_s))
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    futures = [
        await classifier.submit(texts[i : i + SUBMISSION_TEXTS], langs[i : i + SUBMISSION_TEXTS])
        for i in range(0, len(texts), SUBMISSION_TEXTS)
    ]
    outcomes = [outcome for part in await asyncio.gather(*futures) for outcome in part]
    spent = Spent(time.perf_counter() - wall_s, time.process_time() - cpu_s)
    beat.cancel()
    return spent, len(outcomes)


async def _beat(lags_s: list[float]) -> None:
    while True:
        before_s = time.perf_counter()
        await asyncio.sleep(BEAT_S)
        lags_s.append(time.perf_counter() - before_s - BEAT_S)


async def compare(engine: Engine, settings: InferenceSettings, texts: list[str], rounds: int) -> None:
    langs = ["en"] * len(texts)
    ids: list[TokenIds] = []
    tokenising = timed(lambda: ids.extend(engine.encode(texts)))
    describe(engine, texts, ids, tokenising)
    ways = bare_ways(engine, ids)
    for way in ways:
        way.session.run(None, way.feeds[-1])
    trials = {way.name: way.run() for way in ways}
    for name, spent in trials.items():
        print(
            f"bare {name:42} {len(texts) / spent.wall_s:7.1f} texts/s  {1e3 * spent.cpu_s / len(texts):.2f} ms CPU a text"
        )
    best = min(ways, key=lambda way: trials[way.name].wall_s)
    print(f"against: bare {best.name}")
    reports: list[BatchReport] = []
    lags_s: list[float] = []
    bare, whole = [], []
    async with Classifier(engine, settings, on_batch=reports.append) as classifier:
        await classifier.classify(texts[:200], langs[:200])
        reports.clear()
        for _ in range(rounds):
            bare.append(await asyncio.to_thread(best.run))
            spent, done = await classify(classifier, texts, langs, lags_s)
            assert done == len(texts)
            whole.append(spent)
            print(
                f"round: bare {len(texts) / bare[-1].wall_s:7.1f} texts/s, classifier {len(texts) / spent.wall_s:7.1f};"
                f" {spent.wall_s / bare[-1].wall_s:.3f} of its wall time, {spent.cpu_s / bare[-1].cpu_s:.3f} of its CPU time"
            )
    summarise(bare, whole, reports, lags_s)


def describe(engine: Engine, texts: Sequence[str], ids: Sequence[TokenIds], tokenising: Spent) -> None:
    cpu = next((x.split(":")[1].strip() for x in _lines("/proc/cpuinfo") if x.startswith("model name")), "unknown CPU")
    load = os.getloadavg()[0]
    print(f"{cpu}, {engine.concurrency} cores used; Python {platform.python_version()}, onnxruntime {ort.__version__}")
    print(f"bundle {engine.bundle.manifest.name} {engine.bundle.version}; load before the start {load:.1f}")
    lengths = np.array([len(text) for text in ids])
    percentiles = np.percentile(lengths, [5, 25, 50, 75, 95, 100]).astype(int).tolist()
    print(f"{len(texts)} texts ({len(set(texts))} different), tokens a text: mean {lengths.mean():.1f}, ", end="")
    print(
        f"5/25/50/75/95/100 % {percentiles}; tokenising alone {1e6 * tokenising.cpu_s / len(texts):.0f} us CPU a text"
    )


def summarise(bare: list[Spent], whole: list[Spent], reports: list[BatchReport], lags_s: list[float]) -> None:
    tokens = sum(report.tokens for report in reports)
    padding = sum(report.padded_tokens for report in reports) / tokens - 1
    wall = statistics.median(w.wall_s / b.wall_s for b, w in zip(bare, whole, strict=True))
    cpu = statistics.median(w.cpu_s / b.cpu_s for b, w in zip(bare, whole, strict=True))
    print(f"padding {padding:.1%}, {sum(r.documents for r in reports) / len(reports):.1f} documents a batch")
    late = np.percentile(np.array(lags_s) * 1e3, [50, 99, 100])
    print(f"event loop late by (ms): median {late[0]:.1f}, 99 % {late[1]:.1f}, worst {late[2]:.1f}")
    print(f"classifier / bare, median of {len(bare)} rounds: wall time {wall:.3f}, CPU time {cpu:.3f} (target: 1.05)")


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=ROOT / "bundles" / "default")
    parser.add_argument("--texts", type=Path, default=ROOT / "examples" / "stream.jsonl.gz", help="JSONL, gzip")
    parser.add_argument("--documents", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    settings = InferenceSettings(bundle=options.bundle, device="cpu", threads=options.threads)
    engine = Engine(Bundle.load(options.bundle), settings)
    engine.warm_up()
    asyncio.run(compare(engine, settings, sample_texts(options.texts, options.documents), options.rounds))


if __name__ == "__main__":
    main()

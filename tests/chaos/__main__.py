"""`make chaos MINUTES=60 SEED=1`: faults for as long as you like, with progress and a report; exit code 1 when not clean."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.harness import Chaos
from tests.chaos.schedule import schedule
from tests.support.cluster import Cluster
from tests.support.tiny_bundle import make_tiny_bundle


async def main(duration_s: float, seed: int, every_s: float, folder: Path) -> int:
    home = os.environ.get("KAFKA_HOME", "")
    if not (Path(home) / "kafka-node").exists():
        print("KAFKA_HOME names no Apache Kafka", file=sys.stderr)
        return 2
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begun:7.1f}] {text}", flush=True)

    cluster = Cluster(Path(home).resolve())
    bundle = make_tiny_bundle(folder / "bundle")
    say(f"seed {seed}, {duration_s / 60:.0f} minutes; logs in {folder}")
    try:
        await cluster.start()
        report = await Chaos(cluster, folder, bundle, seed, say).run(schedule(seed, duration_s, every_s=every_s))
    finally:
        await cluster.stop()
    print(report)
    return 0 if report.clean else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=float, default=5.0, help="mean seconds between two faults")
    parser.add_argument("--folder", type=Path, default=None, help="where logs are left; a new one by default")
    options = parser.parse_args()
    where = options.folder or Path(tempfile.mkdtemp(prefix="babelwatch-chaos-"))
    where.mkdir(parents=True, exist_ok=True)
    sys.exit(asyncio.run(main(options.minutes * 60, options.seed, options.every, where)))

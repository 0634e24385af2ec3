"""`babelwatch demo`: the sample day through the whole daemon on an embedded broker, shown live on the terminal.

The view reads the `opinions` and `alerts` topics as any other consumer would; nothing in it looks inside the daemon but
the counters of what was refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from monitor import log as logging_setup
from monitor.app import App, Role
from monitor.broker import client
from monitor.config import Config
from monitor.detection.settings import DetectionSettings
from monitor.errors import BabelwatchError
from monitor.http.settings import HttpSettings
from monitor.log import LogSettings
from monitor.records import Alert, Opinion, decode_alert_event, decode_opinion_message
from monitor.replay import count_lines, read_lines, replay

STREAM, WATCHLIST, BUNDLE = "examples/stream.jsonl.gz", "examples/watchlist.toml", "bundles/default"

WINDOW_MS = 3_600_000
"""The share shown beside an entity is that of its last hour of event time."""

QUIET_S = 3.0
"""The end: the file is sent, nothing lags, and no alert has come for so long."""

SPARKS = " ▁▂▃▄▅▆▇█"


@dataclass
class EntityView:
    """What the terminal shows of one entity."""

    documents: int = 0
    hourly: dict[int, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))  # hour -> [all, negative]

    def add(self, opinion: Opinion) -> None:
        """Count one opinion in its hour of event time."""
        self.documents += 1
        cell = self.hourly[opinion.published_ms // WINDOW_MS]
        cell[0] += 1
        cell[1] += opinion.sentiment[0] == max(opinion.sentiment)

    def shares(self, last: int, hours: int = 26) -> Iterator[float]:
        """Negative share of each of the last hours, 0 where there was nothing."""
        for hour in range(last - hours + 1, last + 1):
            total, negative = self.hourly.get(hour, (0, 0))
            yield negative / total if total else 0.0


@dataclass
class View:
    """Everything on the screen, counted from the topics."""

    total: int
    entities: dict[str, EntityView]
    names: dict[str, str]
    sent: int = 0
    opinions: int = 0
    reposts: int = 0
    time_ms: int = 0
    languages: Counter[str] = field(default_factory=Counter)
    incidents: dict[str, list[Alert]] = field(default_factory=dict)
    recent: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=50))
    last_alert_at: float = 0.0

    def on_opinion(self, opinion: Opinion) -> None:
        """Count an opinion."""
        self.opinions += 1
        self.reposts += bool(opinion.repost_of)
        self.languages[opinion.lang] += 1
        self.entities.setdefault(opinion.entity, EntityView()).add(opinion)

    def on_alert(self, alert: Alert) -> None:
        """Add a step to its incident."""
        self.incidents.setdefault(alert.incident, []).append(alert)
        self.last_alert_at = time.monotonic()

    def rate(self) -> float:
        """Documents per second over the last moments."""
        if len(self.recent) < 2 or self.recent[-1][0] == self.recent[0][0]:
            return 0.0
        (t0, n0), (t1, n1) = self.recent[0], self.recent[-1]
        return (n1 - n0) / (t1 - t0)


def screen(view: View, done: int) -> RenderableType:
    """The live picture."""
    clock = f"{datetime.fromtimestamp(view.time_ms / 1000, UTC):%a %H:%M} UTC" if view.time_ms else "starting"
    head = Table.grid(padding=(0, 2))
    head.add_row(
        Text("babelwatch", style="bold"),
        Text(clock, style="cyan"),
        ProgressBar(total=view.total, completed=done, width=30),
        f"{done}/{view.total} documents",
        f"{view.rate():.0f}/s",
        f"{view.opinions} opinions",
    )
    languages = Text("  ".join(f"{name} {count}" for name, count in view.languages.most_common(18)), style="dim")
    return Group(head, languages, entity_table(view), *incident_panels(view, limit=4))


def entity_table(view: View) -> Table:
    """One row per entity: its last hour, and the day as a line of blocks."""
    table = Table(box=None, padding=(0, 2), expand=False)
    for column, justify in (("entity", "left"), ("opinions", "right"), ("negative", "right"), ("by the hour", "left")):
        table.add_column(column, justify=justify, header_style="dim")  # type: ignore[arg-type]
    hour = view.time_ms // WINDOW_MS
    open_entities = {steps[-1].entity for steps in view.incidents.values() if steps[-1].state != "resolved"}
    for name, entity in sorted(view.entities.items()):
        shares = list(entity.shares(hour))
        style = "bold red" if name in open_entities else ""
        line = "".join(SPARKS[round(share * (len(SPARKS) - 1))] for share in shares)
        now = shares[-1] if shares[-1] else shares[-2]
        table.add_row(
            Text(view.names.get(name, name), style=style), str(entity.documents), f"{now:4.0%}", Text(line, style=style)
        )
    return table


def incident_panels(view: View, limit: int) -> list[Panel]:
    """The newest incidents with their evidence."""
    return [_incident(steps) for steps in list(view.incidents.values())[-limit:]]


def _incident(steps: list[Alert]) -> Panel:
    last = steps[-1]
    widest = max(steps, key=lambda alert: (alert.state != "resolved", alert.evidence.documents))
    evidence = widest.evidence
    colour = (
        "green" if last.state == "resolved" else {"critical": "red", "warning": "yellow"}.get(last.severity, "blue")
    )
    lines = [Text(widest.summary, style="bold")]
    facts = f"since {_clock(last.onset_ms)}  ·  " + ", ".join(
        f"{share.name} {share.share:.0%}" for share in evidence.languages[:6]
    )
    if last.state == "resolved":
        facts += f"  ·  over at {_clock(last.ended_ms or last.at_ms)}"
    lines.append(Text(facts, style="dim"))
    if evidence.terms:
        lines.append(Text("terms: " + "  ".join(evidence.terms[:8]), style="cyan"))
    lines += [
        Text(
            f"  {post.lang:>3}  {post.text[:110]}" + (f"  (×{post.copies})" if post.copies > 1 else ""),
            overflow="ellipsis",
            no_wrap=True,
        )
        for post in evidence.posts[:3]
    ]
    return Panel(
        Group(*lines),
        title=f"{last.state} · {last.severity} · {last.entity_name}",
        border_style=colour,
        title_align="left",
    )


def _clock(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%a %H:%M}"


def sample_root() -> Path:
    """The folder with the sample stream: where the command runs, or the checkout that is installed.

    Raises:
        BabelwatchError: there is none.
    """
    for root in (Path.cwd(), Path(__file__).resolve().parent.parent):
        if (root / STREAM).exists():
            return root
    raise BabelwatchError(
        "the sample stream is not here", where=STREAM, hint="run `make demo` in a clone of the repository"
    )


def demo_config(root: Path, port: int) -> Config:
    """The daemon's configuration for the demo: everything by default but the files and the port."""
    base = Config()
    return base.model_copy(
        update={
            "watchlist": root / WATCHLIST,
            "inference": base.inference.model_copy(update={"bundle": root / BUNDLE}),
            "http": HttpSettings(port=port),
            "log": LogSettings(level="error"),
            "detection": DetectionSettings(),
        }
    )


async def run_demo(console: Console, *, stay: bool, seconds: float, port: int, picture: Path | None = None) -> int:
    """Run it; returns the exit code.

    Args:
        console: Where to draw.
        stay: Keep the daemon up after the stream has ended.
        seconds: How long the replay should take.
        port: Of the status page, 0 for a free one.
        picture: Where to save the last screen as SVG.

    Raises:
        BabelwatchError: the sample stream, the watchlist or the bundle is missing.
    """
    root = sample_root()
    config = demo_config(root, port)
    logging_setup.setup(config.log)
    stream = root / STREAM
    due = [line.due_ms for line in read_lines(stream, config.documents) if line.due_ms is not None]
    app = App(config, Role.ALL)
    daemon = asyncio.create_task(app.run())
    started = time.monotonic()
    try:
        await _up(app, daemon)
        names = {entity.id: entity.name for entity in app.watchlist.current.entities.values()}
        view = View(total=count_lines(stream), entities={name: EntityView() for name in names}, names=names)
        console.print(f"daemon up on an embedded broker; status page {app.url}", style="dim")
        speed = (due[-1] - due[0]) / 1000 / seconds
        await _show(console, app, daemon, view, stream, speed)
        _summary(console, app, view, time.monotonic() - started)
        if picture is not None:
            drawn = Console(record=True, width=118, file=StringIO())
            drawn.print(screen(view, app.documents_done()))
            drawn.save_svg(str(picture), title="babelwatch demo")
        if stay:
            console.print(f"\nstaying up: {app.url} and {app.url}/metrics; Ctrl-C ends it")
            await daemon
    finally:
        app.stop()
        with contextlib.suppress(asyncio.CancelledError):
            await daemon
    return 0


async def _up(app: App, daemon: asyncio.Task[int]) -> None:
    while not app.ready:
        if daemon.done():
            daemon.result()
            raise BabelwatchError("the daemon ended while starting")
        await asyncio.sleep(0.05)


async def _show(console: Console, app: App, daemon: asyncio.Task[int], view: View, stream: Path, speed: float) -> None:
    """Replay and draw until everything sent has been judged."""
    config = app.config

    def on_progress(sent: int, time_ms: int | None) -> None:
        view.sent = sent
        view.time_ms = time_ms or view.time_ms

    tail = asyncio.create_task(_tail(app, view, console))
    sender = asyncio.create_task(
        replay(
            stream,
            kafka=app.kafka,
            topic=config.topics.documents,
            documents=config.documents,
            speed=speed,
            on_progress=on_progress,
        )
    )
    with Live(console=console, refresh_per_second=6, transient=True, auto_refresh=False) as live:
        quiet_since = time.monotonic()
        while not (sender.done() and time.monotonic() - quiet_since > QUIET_S):
            if daemon.done() or tail.done() or (sender.done() and sender.exception()):
                for task in (daemon, tail, sender):
                    if task.done():
                        task.result()
                break
            done = app.documents_done()
            view.recent.append((time.monotonic(), done))
            if app.lag() > 0 or done < view.sent:
                quiet_since = time.monotonic()
            quiet_since = max(quiet_since, view.last_alert_at)
            if console.is_terminal:
                live.update(screen(view, done), refresh=True)
            await asyncio.sleep(0.15)
    tail.cancel()
    await asyncio.gather(tail, return_exceptions=True)


async def _tail(app: App, view: View, console: Console) -> None:
    """Read opinions and alerts as they come, like any other consumer."""
    topics = app.config.topics
    reader: AIOKafkaConsumer = client.consumer(app.kafka, group=None, read_committed=False)
    await reader.start()
    try:
        reader.assign(
            [TopicPartition(name, p) for name in (topics.opinions, topics.alerts) for p in range(app.partitions[name])]
        )
        await reader.seek_to_beginning()
        while True:
            for partition, records in (await reader.getmany(timeout_ms=200)).items():
                for record in records:
                    if partition.topic == topics.alerts:
                        alert = decode_alert_event(record.value).data
                        view.on_alert(alert)
                        if not console.is_terminal:
                            console.print(
                                f"{_clock(alert.at_ms)}  {alert.state:9} {alert.summary}",
                                highlight=False,
                                soft_wrap=True,
                            )
                    elif isinstance(message := decode_opinion_message(record.value), Opinion):
                        view.on_opinion(message)
    finally:
        await reader.stop()


def _summary(console: Console, app: App, view: View, seconds: float) -> None:
    refused = app.dead_letters()
    console.print(entity_table(view))
    for panel in incident_panels(view, limit=10):
        console.print(panel)
    facts = Table.grid(padding=(0, 2))
    facts.add_row("documents", f"{app.documents_done()} in {len(view.languages)} languages, {view.opinions} opinions")
    facts.add_row("reposts", f"{view.reposts} counted, classified once")
    facts.add_row("refused", ", ".join(f"{count} {reason}" for reason, count in refused.most_common()) or "none")
    opened = len(view.incidents)
    still = sum(steps[-1].state != "resolved" for steps in view.incidents.values())
    facts.add_row("incidents", f"{opened} opened, {opened - still} resolved")
    facts.add_row("took", f"{seconds:.0f} s on {sys.platform}")
    console.print(facts)

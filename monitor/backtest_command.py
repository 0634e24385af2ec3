"""`babelwatch backtest`: what is asked for, run with each set of parameters, judged, and written down."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from monitor import backtest, backtest_stream
from monitor.backtest import BacktestError, Window
from monitor.backtest_report import Backtested, report, summary
from monitor.detection.detector import EntityInfo
from monitor.detection.settings import DetectionSettings
from monitor.errors import BabelwatchError
from monitor.records import Opinion, cloud_event, encode

if TYPE_CHECKING:
    from monitor.config import Config
    from monitor.inference.bundle import Bundle

AS_SET = "as configured"


@dataclass(frozen=True, slots=True)
class _Stream:
    """Opinions to be judged, and what is known of where they come from."""

    name: str
    opinions: Sequence[Opinion]
    entities: dict[str, EntityInfo]
    bundle: Bundle | None
    refused: dict[str, int]


def run_backtest(
    config: Config,
    *,
    counts: Sequence[Path],
    opinions: Path | None,
    documents: Path | None,
    out: Path | None,
    windows: Path | None,
    report: Path | None,
    compare: Sequence[str],
) -> list[str]:
    """Run a backtest; returns what is told of it, line by line.

    Raises:
        BabelwatchError: The question or a file cannot be used.
    """
    if sum((bool(counts), opinions is not None, documents is not None)) != 1:
        raise BacktestError("say what to run over: one of --counts, --opinions and --documents")
    variants = {AS_SET: config.detection} | {text: variant(text, config.detection) for text in compare}
    labels = backtest.read_labels(windows) if windows is not None else None
    if counts:
        return _over_counts(counts, variants, out, labels, report)
    if documents is not None:
        return _over_stream(config, _documents(config, documents), variants, out, labels, report)
    assert opinions is not None
    return _over_stream(config, _opinions(config, opinions), variants, out, labels, report)


def variant(text: str, settings: DetectionSettings) -> DetectionSettings:
    """The settings with some options changed.

    Args:
        text: `option=value,option=value`, values as in the configuration file.
        settings: To start from.

    Raises:
        BabelwatchError: An option does not exist, or its value cannot be.

    >>> variant("false_alarms_per_day=0.1, minimal_ratio=2", DetectionSettings()).minimal_ratio
    2.0
    """
    try:
        # A comma inside a list is no end of an option: TOML says where one ends.
        lines = _options(text)
        changes = tomllib.loads("\n".join(lines))
        return DetectionSettings.model_validate({**settings.model_dump(), **changes})
    except tomllib.TOMLDecodeError as error:
        raise BabelwatchError(f"{text!r} is not option=value,option=value: {error}", where="--compare") from None
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise BabelwatchError(
            told, where=f"--compare {text}", hint="the options of [detection] in `babelwatch config example`"
        ) from None


def _options(text: str) -> list[str]:
    parts: list[str] = []
    for part in text.split(","):
        if "=" in part or not parts:
            parts.append(part.strip())
        else:
            parts[-1] += "," + part
    return parts


def _over_counts(
    files: Sequence[Path],
    variants: dict[str, DetectionSettings],
    out: Path | None,
    labels: dict[str, list[Window]] | None,
    page: Path | None,
) -> list[str]:
    names = [file.name for file in files]
    if len(set(names)) < len(names):
        raise BacktestError("two files have the same name", where="--counts", hint="rename one: names stand for series")
    if len(files) > 1 and out is not None:
        out.mkdir(parents=True, exist_ok=True)
    runs: dict[str, list[Backtested]] = {}
    told = []
    for name, settings in variants.items():
        first = name == AS_SET
        for file in files:
            target = None if out is None or not first else out / file.name if len(files) > 1 else out
            rows = backtest.backtest_counts(file, target, settings, band=page is not None and first)
            spans = None if labels is None else backtest.windows_of(labels, file.name)
            judged = None if spans is None else backtest.judge(rows, spans)
            runs.setdefault(name, []).append(Backtested(file.name, rows, spans, judged))
            if first:
                where = f"; scores in {target}" if target is not None else ""
                told.append(f"{file.name}: {len(rows)} rows, {sum(row.alert for row in rows)} alerts{where}")
    return told + _judged(runs, page, "Backtest of count series")


def _over_stream(
    config: Config,
    stream: _Stream,
    variants: dict[str, DetectionSettings],
    out: Path | None,
    labels: dict[str, list[Window]] | None,
    page: Path | None,
) -> list[str]:
    runs: dict[str, list[Backtested]] = {}
    told: list[str] = []
    for name, settings in variants.items():
        found = backtest_stream.backtest_opinions(
            stream.opinions, settings, config.alerts, stream.entities, stream.bundle,
            band=page is not None or labels is not None,
        )  # fmt: skip
        firing = [alert for alert in found.alerts if alert.state == "firing"]
        if name == AS_SET:
            refused = "".join(f", {count} refused ({reason})" for reason, count in sorted(stream.refused.items()))
            told.append(
                f"{stream.name}: {found.opinions} opinions, {found.late} late{refused}; {len(firing)} incidents"
            )
            told += [f"  {alert.summary}" for alert in firing]
            if out is not None:
                _write_alerts(out, [encode(cloud_event(alert)) for alert in found.alerts])
                told.append(f"{len(found.alerts)} alerts in {out}")
        elif labels is None and page is None:
            told.append(f"{name}: {len(firing)} incidents")
        for entity, rows in found.series.items():
            spans = None if labels is None else backtest.windows_of(labels, entity)
            judged = None if spans is None or not rows else backtest.judge(rows, spans)
            runs.setdefault(name, []).append(
                Backtested(stream.entities[entity].name, rows, spans, judged, unit="share")
            )
    return told + _judged(runs, page, "Backtest of a stream")


def _judged(runs: dict[str, list[Backtested]], page: Path | None, title: str) -> list[str]:
    told = []
    if any(series.quality for many in runs.values() for series in many):
        told += [f"{name}: {summary(many)}" for name, many in runs.items()]
    elif len(runs) > 1:
        told += [f"{name}: {sum(row.alert for s in many for row in s.scored)} alerts" for name, many in runs.items()]
    if page is not None:
        _write(page, report(runs, title=title).encode())
        told.append(f"report in {page}")
    return told


def _opinions(config: Config, path: Path) -> _Stream:
    opinions = list(backtest_stream.read_opinions(path))
    bundle = _bundle(config)
    return _Stream(path.name, opinions, backtest_stream.entities_of(opinions), bundle, {})


def _documents(config: Config, path: Path) -> _Stream:
    from monitor.inference.bundle import Bundle
    from monitor.watchlist import load_watchlist

    watched = load_watchlist(config.watchlist).entities.values()
    entities = {item.id: EntityInfo(item.name, item.names, dict(item.labels)) for item in watched}
    bundle, refused = Bundle.load(config.inference.bundle), dict[str, int]()
    opinions = list(backtest_stream.read_documents(path, config, bundle, refused))
    return _Stream(path.name, opinions, entities, bundle, refused)


def _bundle(config: Config) -> Bundle | None:
    """The configured bundle's confusion, when there is one: opinions on their own do not say how often they are wrong."""
    from monitor.inference.bundle import Bundle

    return Bundle.load(config.inference.bundle) if config.inference.bundle.exists() else None


def _write_alerts(path: Path, lines: Sequence[bytes]) -> None:
    _write(path, b"".join(line + b"\n" for line in lines))


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise BacktestError(f"cannot be written: {error.strerror}", where=str(path), hint="check the folder") from error

"""Classifying a handful of texts from the command line, and showing what a bundle is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from monitor.documents.language import LanguageIdentifier
from monitor.errors import BabelwatchError
from monitor.inference.bundle import Bundle, Manifest
from monitor.inference.classifier import Classifier
from monitor.inference.engine import Engine
from monitor.inference.results import Failure
from monitor.inference.settings import InferenceSettings
from monitor.records import SENTIMENTS, UNDETERMINED

COLOURS = {"negative": "red", "neutral": "", "positive": "green"}


class Result(msgspec.Struct, frozen=True):
    """What is told of one text."""

    text: str
    lang: str
    sentiment: str
    probabilities: dict[str, float]
    topic: str


def default_bundle() -> Path:
    """The bundle of the configuration's default, from the working folder or the checkout that is installed."""
    wanted = InferenceSettings().bundle
    beside = Path(__file__).resolve().parent.parent / wanted
    return wanted if wanted.exists() or not beside.exists() else beside


def classify_texts(texts: Sequence[str], bundle: Path | None) -> list[Result]:
    """Classify texts with a bundle; what the terminal passed on that is no Unicode becomes U+FFFD.

    Raises:
        BabelwatchError: the bundle cannot be used, or a text cannot be classified.
    """
    settings = InferenceSettings()
    loaded = Bundle.load(bundle or default_bundle())
    texts = [text.encode("utf-8", "surrogatepass").decode("utf-8", "replace") for text in texts]
    langs = LanguageIdentifier().identify(texts, [UNDETERMINED] * len(texts))

    async def run() -> list[Result]:
        engine = Engine(loaded, settings)
        async with Classifier(engine, settings) as classifier:
            outcomes = await classifier.classify(texts, langs)
        results = []
        for text, lang, outcome in zip(texts, langs, outcomes, strict=True):
            if isinstance(outcome, Failure):
                raise BabelwatchError(f"cannot be classified: {outcome.detail}", where=repr(text[:60]))
            probabilities = {str(name): p for name, p in zip(SENTIMENTS, outcome.sentiment, strict=True)}
            best = max(probabilities, key=lambda name: probabilities[name])
            results.append(Result(text, lang, best, probabilities, outcome.topic))
        return results

    return asyncio.run(run())


def print_table(console: Console, results: Sequence[Result]) -> None:
    """Results for people."""
    table = Table(box=None, header_style="dim", padding=(0, 2))
    for column in ("lang", "sentiment", "p", "topic", "text"):
        table.add_column(column)
    for result in results:
        name = Text(result.sentiment, style=COLOURS[result.sentiment])
        share = f"{result.probabilities[result.sentiment]:.2f}"
        table.add_row(result.lang, name, share, result.topic, Text(result.text))
    console.print(table)


def print_manifest(console: Console, manifest: Manifest) -> None:
    """What a bundle is, for people."""
    facts = Table.grid(padding=(0, 2))
    facts.add_row("name", manifest.name)
    facts.add_row("version", f"{manifest.version} (format {manifest.format})")
    for head in manifest.heads:
        facts.add_row(f"head {head.name}", ", ".join(head.labels))
    facts.add_row("max length", f"{manifest.max_length} tokens, prefix {manifest.text_prefix!r}")
    facts.add_row("languages", " ".join(manifest.languages))
    for name, entry in manifest.files.items():
        facts.add_row(name, f"{entry.size_bytes / 1e6:.1f} MB  {entry.sha256[:12]}")
    for key, value in manifest.provenance.items():
        facts.add_row(key, Text(str(value)))
    console.print(facts, highlight=False)

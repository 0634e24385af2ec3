"""Translations on disk: none is made twice, and a broken-off run loses a batch at most."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from training.align.translate import Translator, in_batches


class CachedTranslator:
    """A translator that remembers.

    Args:
        translator: Asked for what is not known yet.
        path: An SQLite file; made when it is not there.
    """

    def __init__(self, translator: Translator, path: Path) -> None:
        self._translator = translator
        self.name = translator.name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._store = sqlite3.connect(path)
        self._store.execute(
            "CREATE TABLE IF NOT EXISTS translations (translator TEXT, source TEXT, target TEXT, text TEXT, "
            "translation TEXT NOT NULL, PRIMARY KEY (translator, source, target, text)) WITHOUT ROWID"
        )

    def knows(self, source: str, target: str) -> bool:
        """Whether the translator knows the pair."""
        return self._translator.knows(source, target)

    def __call__(
        self, texts: Sequence[str], source: str, target: str, done: Callable[[int], None] = lambda _: None
    ) -> list[str]:
        """As `Translator` says.

        Args:
            texts: Any.
            source: Their language.
            target: The language to translate into.
            done: Told how many more texts there are, after each batch.
        """
        found: dict[str, str] = {}
        wanted = list(dict.fromkeys(texts))
        key = (self.name, source, target)
        for batch in in_batches(wanted):
            found |= dict(
                self._store.execute(
                    "SELECT text, translation FROM translations WHERE translator = ? AND source = ? AND target = ? "
                    "AND text IN (SELECT value FROM json_each(?))",
                    (*key, json.dumps(batch)),
                )
            )
        done(len(found))
        missing = [text for text in wanted if text not in found]
        for batch in in_batches(missing):
            made = dict(zip(batch, self._translator(batch, source, target), strict=True))
            with self._store:  # one transaction: a batch is there or not
                self._store.executemany(
                    "INSERT OR REPLACE INTO translations VALUES (?, ?, ?, ?, ?)",
                    [(*key, text, translation) for text, translation in made.items()],
                )
            found |= made
            done(len(batch))
        return [found[text] for text in texts]

    def close(self) -> None:
        """Close the file."""
        self._store.close()

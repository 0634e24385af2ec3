"""Rows of a file, whatever its kind: TSV, CSV, JSON Lines, Parquet, or a data set of the package `datasets`."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from training.errors import TrainingError

HUB = "hub:"
"""Begins the name of a data set on the Hugging Face hub: `hub:NAME:SPLIT`."""

Row = tuple[int, Mapping[str, str]]
"""A row's number for people (a file's header is line 1), and its cells by column."""

csv.field_size_limit(min(sys.maxsize, 2**31 - 1))


def read_rows(path: Path | str) -> Iterator[Row]:
    """The rows of a data set, cells as text.

    Args:
        path: A file, a folder of `datasets`, or `hub:NAME:SPLIT`.

    Raises:
        TrainingError: It is not there, of no known kind, or damaged; with its line.
    """
    if isinstance(path, str) and path.startswith(HUB):
        yield from _plain(_from_hub(path), first=0)
        return
    path = Path(path)
    if not path.exists():
        raise TrainingError("is not there", where=str(path), hint="check the path and the variable it starts with")
    try:
        if path.is_dir():
            from datasets import DatasetDict, load_from_disk

            found = load_from_disk(str(path))
            if isinstance(found, DatasetDict):
                raise TrainingError(
                    f"holds the splits {', '.join(found)}", where=str(path), hint="name the folder of one"
                )
            yield from _plain(found, first=0)
        elif path.suffix in (".tsv", ".csv"):
            yield from _separated(path)
        elif path.suffix in (".jsonl", ".ndjson"):
            yield from _json_lines(path)
        elif path.suffix == ".parquet":
            import pyarrow.parquet

            yield from _plain(
                (row for b in pyarrow.parquet.ParquetFile(path).iter_batches() for row in b.to_pylist()), 0
            )
        else:
            raise TrainingError(
                f"{path.suffix or 'no ending'} is no known kind of data",
                where=str(path),
                hint="tsv, csv, jsonl or parquet",
            )
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise TrainingError(f"cannot be read: {error}", where=str(path)) from None


def _separated(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix == ".tsv":
            reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        else:
            reader = csv.DictReader(file)
        for row in reader:
            if None in row or None in row.values():
                raise TrainingError(
                    f"has another number of cells than the header's {len(reader.fieldnames or ())}",
                    where=f"{path}:{reader.line_num}",
                    hint="a tab or line break inside a cell?",
                )
            yield reader.line_num, row


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise TrainingError(f"is not JSON: {error}", where=f"{path}:{number}") from None
                if not isinstance(row, dict):
                    raise TrainingError("is no JSON object", where=f"{path}:{number}")
                yield from _plain([row], number)


def _plain(rows: Iterable[Mapping[str, Any]], first: int) -> Iterator[Row]:
    for number, row in enumerate(rows, first):
        yield number, {key: "" if value is None else str(value) for key, value in row.items()}


def _from_hub(path: str) -> Iterable[Mapping[str, Any]]:
    from datasets import load_dataset

    name, _, split = path.removeprefix(HUB).partition(":")
    try:
        found: Iterable[Mapping[str, Any]] = load_dataset(name, split=split or "train")
    except Exception as error:  # of many kinds: network, name, split, script
        raise TrainingError(f"cannot be had from the hub: {error}".splitlines()[0], where=path) from None
    return found

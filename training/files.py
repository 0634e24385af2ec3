"""Folders that are whole or not there: written beside their place, synced to disk, then renamed."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.errors import TrainingError


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Fill a folder; it takes its name only once everything in it is on disk, and what had that name stays until then.

    Yields:
        An empty folder beside `target`.

    Raises:
        TrainingError: The disk is full or the place cannot be written; `target` is as it was.
    """
    draft = target.with_name(f".{target.name}.partial")
    old = target.with_name(f".{target.name}.old")
    recover(target)
    try:
        for leftover in (draft, old):
            shutil.rmtree(leftover, ignore_errors=True)
        draft.mkdir(parents=True)
        yield draft
        for path in [*draft.rglob("*"), draft]:
            _sync(path)
        if target.exists():
            target.rename(old)
        draft.rename(target)
        _sync(target.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        if error.errno == errno.ENOSPC:
            raise TrainingError(
                "no space left on the disk",
                where=str(target),
                hint="make room and run the same command again: it goes on",
            ) from None
        if isinstance(error, PermissionError):
            raise TrainingError(f"cannot be written: {error.strerror}", where=str(target)) from None
        raise
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def recover(target: Path) -> None:
    """Undo the half of a replacement: a crash between its two renames left the old folder under its other name."""
    old = target.with_name(f".{target.name}.old")
    if old.exists() and not target.exists():
        old.rename(target)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Put a bundle together so that it is whole or not there: a hidden folder, synced to disk, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.checkpoint import Checkpoint
from export.errors import ExportError
from monitor.inference.bundle import CARD_FILE, TOKENIZER_FILE, Manifest, Variant, model_file_name, write_manifest


def write_bundle(
    out_dir: Path,
    checkpoint: Checkpoint,
    *,
    name: str,
    models: Mapping[Variant, bytes],
    tokenizer_json: str,
    card: str,
    pad_id: int,
    languages: tuple[str, ...],
    metrics: Mapping[str, Any],
) -> Manifest:
    """Write a bundle, replacing what is there only once the new one is complete.

    Args:
        out_dir: The bundle's folder; its parent must be on the same file system as the folder itself.
        checkpoint: Gives heads, calibration and provenance.
        name: Of the bundle, for people.
        models: ONNX bytes by precision. All but int8 are optional in the manifest: they may be kept elsewhere.
        tokenizer_json: Content of the tokenizer file.
        card: Content of the model card.
        pad_id: Token id for padding.
        languages: That the vocabulary covers.
        metrics: JSON values.

    Raises:
        ExportError: The disk is full or the folder cannot be written; what was there stays.
    """
    out_dir = out_dir.absolute()
    fresh = out_dir.with_name(f".{out_dir.name}.{os.getpid()}.new")
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        for variant, data in models.items():
            _write(fresh / model_file_name(variant), data)
        _write(fresh / TOKENIZER_FILE, tokenizer_json.encode())
        _write(fresh / CARD_FILE, card.encode())
        manifest = write_manifest(
            fresh,
            name=name,
            heads=checkpoint.heads,
            max_length=checkpoint.max_length,
            text_prefix=checkpoint.text_prefix,
            pad_id=pad_id,
            hidden=checkpoint.hidden,
            languages=languages,
            calibration=checkpoint.calibration,
            metrics=metrics,
            provenance={"base": checkpoint.base, **checkpoint.provenance},
            optional=[model_file_name(variant) for variant in models if variant != "int8"],
        )
        _sync(fresh)
        _replace(fresh, out_dir)
    except OSError as error:
        raise ExportError(f"cannot write the bundle: {error.strerror}", where=str(error.filename or out_dir)) from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return manifest


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(fresh: Path, target: Path) -> None:
    """Rename into place. A folder cannot be renamed over another, so the old one steps aside for that moment."""
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    if target.exists():
        target.rename(old)
    try:
        fresh.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    _sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)

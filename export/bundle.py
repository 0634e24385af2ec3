"""Put a bundle together so that it is whole or not there: a hidden folder, synced to disk, then renamed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.checkpoint import Checkpoint
from export.errors import ExportError
from monitor.inference.bundle import CARD_FILE, TOKENIZER_FILE, Manifest, Variant, model_file_name, write_manifest
from training.errors import TrainingError
from training.files import whole_folder


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
    try:
        with whole_folder(out_dir.absolute()) as fresh:
            for variant, data in models.items():
                (fresh / model_file_name(variant)).write_bytes(data)
            (fresh / TOKENIZER_FILE).write_text(tokenizer_json, encoding="utf-8")
            (fresh / CARD_FILE).write_text(card, encoding="utf-8")
            return write_manifest(
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
    except TrainingError as error:
        raise ExportError(error.what, where=error.where, hint="no bundle was written") from None
    except OSError as error:
        raise ExportError(f"cannot write the bundle: {error.strerror}", where=str(error.filename or out_dir)) from None

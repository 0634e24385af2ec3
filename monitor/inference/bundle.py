"""The model bundle: the folder that passes from training to the daemon; its format, checks and loading."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from monitor.errors import BundleError

FORMAT = 1
"""The only format version that this code reads and writes; a change of meaning of any field raises it."""

MANIFEST_FILE = "bundle.json"
TOKENIZER_FILE = "tokenizer.json"
CARD_FILE = "MODEL_CARD.md"

Variant = Literal["int8", "int4", "fp16", "fp32"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)

ANY_LANGUAGE = "*"
"""The calibration entry for a language that has none of its own; every head has it."""

_HASH_CHUNK_BYTES = 1 << 20
_VERSION_HEX_DIGITS = 12  # 48 bits: two bundles of one user never share a version by chance, and it fits a log line


def model_file_name(variant: Variant) -> str:
    """The file that holds one precision of the model.

    >>> model_file_name("int8")
    'model.int8.onnx'
    """
    return f"model.{variant}.onnx"


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """One classifier on the encoder: the name of the graph's output, and its labels in the order of the columns."""

    name: str
    labels: tuple[str, ...]


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one head in one language."""

    temperature: float
    """Divides the logits; above 0."""
    bias: tuple[float, ...]
    """Added to the divided logits; *Shape:* ``[labels]``."""
    confusion: tuple[tuple[float, ...], ...]
    """Probability of the predicted label (column) given the true one (row), ``[labels, labels]``; rows sum to 1."""
    n: int
    """Labelled texts that the figures rest on."""

    def probabilities(self, logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Calibrated probabilities, ``softmax(logits / temperature + bias)`` (Guo et al. 2017, with a bias).

        Args:
            logits: *Shape:* ``[texts, labels]``.

        Returns:
            *Shape:* ``[texts, labels]``; each row sums to 1.
        """
        scaled = logits.astype(np.float64) / self.temperature + np.asarray(self.bias)
        scaled -= scaled.max(axis=-1, keepdims=True)
        np.exp(scaled, out=scaled)
        return cast(NDArray[np.float64], scaled / scaled.sum(axis=-1, keepdims=True))


class FileEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file of the bundle as it must be."""

    sha256: str
    size_bytes: int
    optional: bool = False
    """May be absent: a precision that is kept outside the repository; checked like any other when it is there."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``bundle.json``."""

    format: int
    name: str
    version: str
    """Content hash over everything else in the manifest, so equal versions mean equal bundles."""
    heads: tuple[Head, ...]
    max_length: int
    """Tokens per text, special ones included; longer texts are cut."""
    text_prefix: str
    """Put before every text, as in training."""
    pad_id: int
    hidden: int
    """Width of the ``embedding`` output."""
    languages: tuple[str, ...]
    """Languages whose pieces the vocabulary was chosen to cover."""
    calibration: dict[str, dict[str, Calibration]]
    """By head, then by language, with ``*`` for all others."""
    metrics: dict[str, Any]
    provenance: dict[str, Any]
    files: dict[str, FileEntry]

    def head(self, name: str) -> Head | None:
        """The head of this name, or None when the bundle has no such head."""
        return next((head for head in self.heads if head.name == name), None)


@dataclass(frozen=True)
class Bundle:
    """A folder whose manifest and files have been checked."""

    path: Path
    manifest: Manifest

    @classmethod
    def load(cls, path: Path | str) -> Bundle:
        """Read and check a bundle.

        Args:
            path: The bundle's folder.

        Raises:
            BundleError: No such folder or file, unreadable or inconsistent manifest, a format version that this code
                does not know, or a file whose size or SHA-256 is not the one in the manifest.
        """
        folder = Path(path)
        manifest = read_manifest(folder)
        for name, entry in manifest.files.items():
            _check_file(folder / name, entry)
        if TOKENIZER_FILE not in manifest.files:
            raise BundleError("lists no tokenizer.json", where=str(folder / MANIFEST_FILE), hint="export it again")
        bundle = cls(folder, manifest)
        if all(bundle.model_file(variant) is None for variant in VARIANTS):
            raise BundleError(
                "holds no model", where=str(folder), hint=f"one of model.{'|'.join(VARIANTS)}.onnx is needed"
            )
        return bundle

    @property
    def version(self) -> str:
        """The bundle's identity, as opinions carry it."""
        return self.manifest.version

    @property
    def tokenizer_file(self) -> Path:
        """The file for ``tokenizers.Tokenizer.from_file``: normaliser, special tokens and truncation are inside."""
        return self.path / TOKENIZER_FILE

    def model_file(self, variant: Variant) -> Path | None:
        """The ONNX file of a precision, or None when this bundle does not carry it."""
        name = model_file_name(variant)
        path = self.path / name
        return path if name in self.manifest.files and path.exists() else None

    def calibration(self, head: str, lang: str) -> Calibration:
        """The calibration of a head for a language, for it without its script (`hi-Latn`), or the head's general one.

        Raises:
            KeyError: The bundle has no such head (`Manifest.head` tells beforehand).
        """
        return find_calibration(self.manifest.calibration[head], lang)


def find_calibration(entries: Mapping[str, Calibration], lang: str) -> Calibration:
    """The entry for a language tag: its own, its language's without the script, or `ANY_LANGUAGE`'s."""
    return entries.get(lang) or entries.get(lang.partition("-")[0]) or entries[ANY_LANGUAGE]


def read_manifest(folder: Path) -> Manifest:
    """Read ``bundle.json`` and check it in itself, without looking at the other files.

    Raises:
        BundleError: As in `Bundle.load`.
    """
    path = folder / MANIFEST_FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        what = "no bundle.json in this folder" if folder.is_dir() else "no such bundle folder"
        raise BundleError(what, where=str(folder), hint="make one with `babelwatch export`") from None
    except OSError as error:
        raise BundleError(f"cannot be read: {error.strerror}", where=str(path)) from None
    try:
        found = msgspec.json.decode(data, type=_Format).format
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"is not a bundle manifest: {error}", where=str(path), hint="export it again") from None
    if found != FORMAT:
        hint = "upgrade babelwatch" if found > FORMAT else "export it again"
        raise BundleError(
            f"format version {found} is not known, this release reads {FORMAT}", where=str(path), hint=hint
        )
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"is not a bundle manifest: {error}", where=str(path), hint="export it again") from None
    problem = _inconsistency(manifest)
    if problem:
        raise BundleError(problem, where=str(path), hint="export it again")
    return manifest


def write_manifest(
    folder: Path,
    *,
    name: str,
    heads: Sequence[Head],
    max_length: int,
    text_prefix: str,
    pad_id: int,
    hidden: int,
    calibration: Mapping[str, Mapping[str, Calibration]],
    languages: Sequence[str] = (),
    metrics: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    optional: Sequence[str] = (),
) -> Manifest:
    """Hash what lies in a folder and write its ``bundle.json``, which makes the folder a bundle.

    Equal inputs give equal bytes: keys are sorted, and nothing of the time or the machine goes in.

    Args:
        folder: Holds ``tokenizer.json`` and at least one model file; every file in it is listed.
        name: A short name for people.
        heads: In the order in which they are shown.
        max_length: Tokens per text, special ones included.
        text_prefix: Put before every text.
        pad_id: Token id for the places that the attention mask hides.
        hidden: Width of the ``embedding`` output.
        calibration: By head and language; each head needs ``*``.
        languages: That the vocabulary covers.
        metrics: JSON values; see `docs/bundle.md`.
        provenance: JSON values; where the weights came from.
        optional: Names of files that may be taken out again.

    Raises:
        BundleError: The parts do not fit together.
    """
    files = {
        path.name: FileEntry(sha256=sha256(path), size_bytes=path.stat().st_size, optional=path.name in optional)
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != MANIFEST_FILE
    }
    draft = Manifest(
        format=FORMAT,
        name=name,
        version="",
        heads=tuple(heads),
        max_length=max_length,
        text_prefix=text_prefix,
        pad_id=pad_id,
        hidden=hidden,
        languages=tuple(languages),
        calibration={head: dict(entries) for head, entries in calibration.items()},
        metrics=dict(metrics or {}),
        provenance=dict(provenance or {}),
        files=files,
    )
    manifest = msgspec.structs.replace(draft, version=_version(draft))
    problem = _inconsistency(manifest)
    if problem:
        raise BundleError(problem, where=str(folder))
    data = msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=1) + b"\n"
    with (folder / MANIFEST_FILE).open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return manifest


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


class _Format(msgspec.Struct):
    format: int


def _version(manifest: Manifest) -> str:
    unnamed = msgspec.structs.replace(manifest, version="")
    return hashlib.sha256(msgspec.json.encode(unnamed, order="deterministic")).hexdigest()[:_VERSION_HEX_DIGITS]


def _check_file(path: Path, entry: FileEntry) -> None:
    try:
        size_bytes = path.stat().st_size
        if size_bytes != entry.size_bytes:
            raise BundleError(
                f"is damaged: {size_bytes} bytes, not {entry.size_bytes}", where=str(path), hint="copy the bundle again"
            )
        if sha256(path) != entry.sha256:
            raise BundleError(
                "is damaged: its SHA-256 is not the one in bundle.json", where=str(path), hint="copy the bundle again"
            )
    except FileNotFoundError:
        if not entry.optional:
            raise BundleError("is missing from the bundle", where=str(path), hint="copy the bundle again") from None
    except OSError as error:
        raise BundleError(f"cannot be read: {error.strerror}", where=str(path)) from None


def _inconsistency(manifest: Manifest) -> str:
    """What in the manifest contradicts itself, or an empty string."""
    if not manifest.heads:
        return "has no heads"
    if manifest.max_length < 1:
        return "max_length is below 1"
    for name in manifest.files:
        if Path(name).name != name:
            return f"lists the file {name!r} outside the bundle"
    for head in manifest.heads:
        entries = manifest.calibration.get(head.name, {})
        if ANY_LANGUAGE not in entries:
            return f"head {head.name!r} has no calibration for {ANY_LANGUAGE!r}"
        for lang, entry in entries.items():
            k = len(head.labels)
            square = len(entry.confusion) == k and all(len(row) == k for row in entry.confusion)
            if len(entry.bias) != k or not square or not entry.temperature > 0:
                return f"the calibration of head {head.name!r} for {lang!r} does not fit its {k} labels"
    if manifest.version != _version(manifest):
        return "was changed after it was written"
    return ""

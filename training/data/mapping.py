"""Label mappings: a small TOML file per data set that says which columns to read and what its labels mean here."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field, ValidationError, model_validator

from training.corpus import language_code
from training.data.clean import clean
from training.data.examples import Example
from training.data.readers import Row
from training.errors import TrainingError
from training.settings import Settings

SHIPPED = Path(__file__).parent.parent / "mappings"
_SHOWN = 5
"""Wrong rows that an error names."""


class LabelMapping(Settings):
    """How a data set is read."""

    head: str = Field(description="The head that its labels are for.")
    about: str = Field("", description="What it is; for the data card.")
    licence: str = Field("", description="Its terms; for the data card and the model card.")
    origin: str = Field("", description="Where it is from.")
    text: str = Field("text", description="Column of the text.")
    label: str = Field("label", description="Column of the label.")
    language: str = Field("", description="Column of the language; or else `lang`.")
    lang: str = Field("", description="The language of all its texts.")
    group: str = Field(
        "", description="Column of what must not be torn apart by a split (the same sentence in many languages)."
    )
    separator: str = Field(
        "", description="Between several labels in one cell; they must come to one label here, or the row is left out."
    )
    labels: dict[str, str] = Field(min_length=1, description="Label there to label here; to an empty string: left out.")

    @model_validator(mode="after")
    def _one_language(self) -> LabelMapping:
        if bool(self.language) == bool(self.lang):
            raise ValueError("name either `language` (a column) or `lang` (a code)")
        return self


@dataclass
class Mapped:
    """The examples of a source, and what was left out."""

    examples: list[Example] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    """Rows left out, by reason."""
    labels: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Rows by label there and label here (empty: left out)."""


def load_mapping(name: str, folder: Path) -> LabelMapping:
    """A mapping by its file, relative to a folder, or by the name of one that comes along.

    Raises:
        TrainingError: There is none, or it is wrong.
    """
    path = mapping_path(name, folder)
    try:
        return LabelMapping.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainingError(f"is not TOML: {error}", where=str(path)) from None
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, found['loc']))}: {found['msg']}".removeprefix(": ") for found in error.errors()]
        raise TrainingError("; ".join(lines), where=str(path)) from None


def mapping_path(name: str, folder: Path) -> Path:
    """The file of a mapping.

    Raises:
        TrainingError: There is none.
    """
    for path in (folder / name, SHIPPED / f"{name}.toml"):
        if path.is_file():
            return path
    known = ", ".join(sorted(path.stem for path in SHIPPED.glob("*.toml")))
    raise TrainingError("no such mapping", where=name, hint=f"a file beside the recipe, or one of {known}")


def map_rows(rows: Iterable[Row], mapping: LabelMapping, labels: tuple[str, ...], source: str, path: str) -> Mapped:
    """Rows to examples.

    Args:
        rows: Of one file.
        mapping: How to read them.
        labels: Of the head, in order.
        source: Name for the examples.
        path: For errors.

    Raises:
        TrainingError: A column is missing, a language or label is empty or unknown, or the text column holds numbers.
    """
    places = {label: place for place, label in enumerate(labels)}
    strange = sorted({label for label in mapping.labels.values() if label and label not in places})
    if strange:
        raise TrainingError(
            f"the mapping leads to {', '.join(strange)}",
            where=path,
            hint=f"head {mapping.head!r} has {', '.join(labels)}",
        )
    found, codes, wrong, numbers = Mapped(), dict[tuple[str, bool], str](), list[str](), 0
    for number, row in rows:
        _check_columns(row, mapping, path)
        text, raw = clean(row[mapping.text]), row[mapping.label].strip()
        lang = mapping.lang or row[mapping.language].strip()
        parts = [part.strip() for part in raw.split(mapping.separator)] if mapping.separator else [raw]
        unknown = [part for part in parts if part not in mapping.labels]
        if not lang:
            wrong.append(f"row {number}: the language is empty")
        elif not raw:
            wrong.append(f"row {number}: the label is missing")
        elif unknown:
            wrong.append(f"row {number}: the label {unknown[0]!r} is not in the mapping")
        else:
            meant = {mapping.labels[part] for part in parts} - {""}
            here = meant.pop() if len(meant) == 1 else ""
            found.labels[raw, here] += 1
            if not text:
                found.dropped["no text"] += 1
            elif not here:
                found.dropped["label left out by the mapping"] += 1
            else:
                numbers += _is_number(text)
                found.examples.append(
                    Example(
                        mapping.head,
                        places[here],
                        _code(codes, lang, text),
                        text,
                        source,
                        number,
                        row.get(mapping.group, ""),
                    )
                )
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise TrainingError(
            "; ".join(wrong[:_SHOWN]) + more, where=path, hint=f"mend the rows, or the mapping of {source!r}"
        )
    if not found.examples:
        raise TrainingError("holds no usable rows", where=path)
    if numbers > 0.5 * len(found.examples):
        raise TrainingError(
            f"the text column {mapping.text!r} holds numbers", where=path, hint="name the right column in the mapping"
        )
    return found


def _check_columns(row: Mapping[str, str], mapping: LabelMapping, path: str) -> None:
    needed = [mapping.text, mapping.label, *filter(None, (mapping.language, mapping.group))]
    missing = [name for name in needed if name not in row]
    if missing:
        raise TrainingError(f"has no column {', '.join(missing)}", where=path, hint=f"it has {', '.join(row)}")


def _code(codes: dict[tuple[str, bool], str], lang: str, text: str) -> str:
    key = (lang, any("\u0900" <= char <= "\u097f" for char in text))
    if key not in codes:
        codes[key] = language_code(lang, text)
    return codes[key]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

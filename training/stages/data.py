"""Stage `data`: every source read, mapped, cleaned, without duplicates and leaks, split; with a data card."""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.data.card import data_card
from training.data.clean import essence
from training.data.duplicates import near_duplicates
from training.data.examples import Dataset, Example
from training.data.mapping import Mapped, load_mapping, map_rows, mapping_path
from training.data.packages import PACKAGES, read_package
from training.data.readers import HUB, read_rows
from training.errors import TrainingError
from training.recipe import DataSettings, Recipe, SourceSettings, Split, resolved

if TYPE_CHECKING:
    from training.run import Context

_SHOWN = 5
"""Pairs of rows that a leak's error names."""


@dataclass(frozen=True)
class Source:
    """One source as it was read."""

    settings: SourceSettings
    mapped: Mapped
    facts: dict[str, str]
    """About, licence and origin."""


def run(context: Context, folder: Path) -> None:
    """The stage."""
    data, sources, dropped = prepare(context.recipe, context.recipe_folder, context.cache)
    data.save(folder)
    (folder / "DATA_CARD.md").write_text(data_card(context.recipe, data, sources, dropped), encoding="utf-8")
    context.say(", ".join(f"{len(getattr(data, split))} {split}" for split in data.__struct_fields__))
    for reason, count in sorted(dropped.items()):
        context.say(f"{count} left out: {reason}")


def digest(recipe: Recipe, folder: Path) -> str:
    """A hash over the contents of all sources and mappings."""
    found = hashlib.sha256()
    for source in recipe.data.sources:
        found.update(mapping_path(source.mapping, folder).read_bytes())
        if source.path.startswith((HUB, *PACKAGES)):
            found.update(source.path.encode())
            continue
        path = resolved(source.path, folder)
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                found.update(file.read_bytes())
    return found.hexdigest()


def prepare(recipe: Recipe, folder: Path, cache: Path) -> tuple[Dataset, list[Source], Counter[str]]:
    """All examples of a recipe, the sources they are from, and how many were left out, by reason.

    Args:
        recipe: Checked.
        folder: Relative paths of the recipe start here.
        cache: Where fetched packages are kept.

    Raises:
        TrainingError: A source cannot be used, or a train text is one of validation or test.
    """
    sources = [_read(recipe, source, folder, cache) for source in recipe.data.sources]
    dropped: Counter[str] = Counter()
    splits: dict[Split, list[Example]] = {"train": [], "validation": [], "test": []}
    for source in sources:
        for split, examples in _split(source, recipe).items():
            splits[split] += examples
        dropped.update(source.mapped.dropped)
    dropped.update(_deduplicate(splits, recipe.data))
    empty = [head for head in recipe.heads if not any(e.head == head for e in splits["train"])]
    unchecked = [head for head in recipe.heads if not any(e.head == head for e in splits["validation"])]
    if empty or unchecked:
        where, what = ("train", empty[0]) if empty else ("validation", unchecked[0])
        raise TrainingError(
            f"the head {what!r} has no {where} texts",
            where="data.sources",
            hint=f'add a source with split = "{where}"'
            + ("" if empty else ", or `validation = 0.1` to one for training"),
        )
    return Dataset(**splits), sources, dropped


def _read(recipe: Recipe, source: SourceSettings, folder: Path, cache: Path) -> Source:
    mapping = load_mapping(source.mapping, folder)
    if mapping.head not in recipe.heads:
        raise TrainingError(
            f"labels of the head {mapping.head!r}",
            where=f"data.sources.{source.name}",
            hint=f"the recipe has {', '.join(recipe.heads)}",
        )
    path: Path | str = source.path if source.path.startswith((HUB, *PACKAGES)) else resolved(source.path, folder)
    rows = read_package(source.path, cache) if source.path.startswith(PACKAGES) else read_rows(path)
    mapped = map_rows(rows, mapping, recipe.heads[mapping.head].labels, source.name, str(path))
    if source.languages:
        missing = set(source.languages) - {example.lang for example in mapped.examples}
        if missing:
            raise TrainingError(
                f"holds no text in {', '.join(sorted(missing))}",
                where=str(path),
                hint=f"data.sources.{source.name}.languages",
            )
        mapped.examples = [example for example in mapped.examples if example.lang in source.languages]
    if source.skip:
        by_lang = _by(mapped.examples, lambda example: example.lang).values()
        mapped.examples = [example for members in by_lang for example in members[source.skip :]]
        if not mapped.examples:
            raise TrainingError(
                f"no language has more than {source.skip} texts",
                where=str(path),
                hint=f"data.sources.{source.name}.skip",
            )
    if source.limit:
        mapped.examples = _limited(mapped.examples, source.limit, _rng(recipe, source))
    return Source(source, mapped, {"about": mapping.about, "licence": mapping.licence, "origin": mapping.origin})


def _rng(recipe: Recipe, source: SourceSettings) -> random.Random:
    return random.Random(f"{recipe.seed} {source.name} {source.split}")


def _limited(examples: Sequence[Example], limit: int, rng: random.Random) -> list[Example]:
    found = []
    for members in _by(examples, lambda example: example.lang).values():
        found += (
            members if len(members) <= limit else sorted(rng.sample(members, limit), key=lambda example: example.row)
        )
    return found


def _by(examples: Sequence[Example], key: Any) -> dict[Any, list[Example]]:
    groups: defaultdict[Any, list[Example]] = defaultdict(list)
    for example in examples:
        groups[key(example)].append(example)
    return dict(sorted(groups.items()))


def _split(source: Source, recipe: Recipe) -> dict[Split, list[Example]]:
    """Hold back a share, whole groups at a time, evenly over languages and labels; languages left out are only checked."""
    settings, examples = source.settings, source.mapped.examples
    if settings.split != "train":
        return {settings.split: examples}
    # A sentence of a group is trained on in other languages, so the left-out language must not be judged by it.
    left_out = [e for e in examples if e.lang in recipe.data.leave_out.get(e.head, ()) and not e.group]
    examples = [e for e in examples if e.lang not in recipe.data.leave_out.get(e.head, ())]
    if not settings.validation:
        return {"train": examples, "validation": left_out}
    rng, held = _rng(recipe, settings), set[str]()
    if any(example.group for example in examples):
        label_of = {example.group: example.label for example in examples}
        strata = [[g for g, found in label_of.items() if found == label] for label in sorted(set(label_of.values()))]
        for groups in strata:
            held |= set(rng.sample(groups, round(settings.validation * len(groups))))
        return {
            "train": [e for e in examples if e.group not in held],
            "validation": [e for e in examples if e.group in held] + left_out,
        }
    checked = []
    for members in _by(examples, lambda example: (example.lang, example.label)).values():
        checked += rng.sample(members, round(settings.validation * len(members)))
    rows = {example.row for example in checked}
    return {"train": [e for e in examples if e.row not in rows], "validation": checked + left_out}


def _deduplicate(splits: dict[Split, list[Example]], settings: DataSettings) -> Counter[str]:
    """Remove repeats within a split and refuse or remove train texts that are in the others; changes `splits`."""
    dropped: Counter[str] = Counter()
    rank: dict[Split, int] = {"test": 0, "validation": 1, "train": 2}
    leaks: list[tuple[Example, Example]] = []
    for head in sorted({example.head for examples in splits.values() for example in examples}):
        # Test first, train last: of two copies, the train text is the one that goes.
        placed = [(split, e) for split in sorted(splits, key=rank.__getitem__) for e in splits[split] if e.head == head]
        first = near_duplicates(
            [essence(e.text) for _, e in placed], [e.lang.split("-")[0] for _, e in placed], settings.similarity
        )
        groups = {e.group: e for split, e in placed if split != "train" and e.group}
        gone: set[int] = set()
        for place, (split, example) in enumerate(placed):
            other_split, other = placed[first[place]]
            torn = (
                groups.get(example.group)
                if split == "train" and example.source == getattr(groups.get(example.group), "source", None)
                else None
            )
            if first[place] == place and torn is None:
                continue
            if split == other_split and torn is None:
                dropped[f"repeats within {split}"] += 1
            else:
                leaks.append((example, torn or other))
                dropped[f"{split} texts that are in {'validation or test' if split == 'train' else 'test'}"] += 1
            gone.add(id(example))
        for split in splits:
            splits[split] = [example for example in splits[split] if id(example) not in gone]
    if leaks and settings.leaks == "error":
        shown = "; ".join(f"{a.source} row {a.row} is {b.source} row {b.row}" for a, b in leaks[:_SHOWN])
        more = f" and {len(leaks) - _SHOWN} more" if len(leaks) > _SHOWN else ""
        raise TrainingError(
            f"texts for training are in validation or test too: {shown}{more}",
            where="data",
            hint='take them out, or set data.leaks = "drop"',
        )
    return dropped

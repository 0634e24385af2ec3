"""The data card: what a run was trained and checked on, as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from training.data.examples import Dataset
from training.recipe import Recipe

if TYPE_CHECKING:
    from training.stages.data import Source


def data_card(recipe: Recipe, data: Dataset, sources: Sequence[Source], dropped: Counter[str]) -> str:
    """The card.

    Args:
        recipe: Of the run.
        data: As prepared.
        sources: As read.
        dropped: Texts left out, by reason.
    """
    lines = [f"# Data of {recipe.name}", "", "## Sources", ""]
    lines += _table(
        ("source", "split", "texts", "languages", "what", "terms", "from"),
        [
            (
                source.settings.name, source.settings.split, f"{len(source.mapped.examples):,}",
                str(len({example.lang for example in source.mapped.examples})),
                source.facts["about"], source.facts["licence"], source.facts["origin"],
            )
            for source in sources
        ],
    )  # fmt: skip
    lines += ["", "## Left out", "", *_table(("texts", "why"), [(f"{n:,}", why) for why, n in sorted(dropped.items())])]
    for head, settings in recipe.heads.items():
        lines += ["", f"## Texts of the head `{head}`", ""]
        counts = Counter(
            (example.lang, split, example.label)
            for split in data.__struct_fields__
            for example in getattr(data, split)
            if example.head == head
        )
        columns = [
            (split, label)
            for split in data.__struct_fields__
            for label in range(len(settings.labels))
            if any(key[1] == split for key in counts)
        ]
        lines += _table(
            ("language", *(f"{split}: {settings.labels[label]}" for split, label in columns)),
            [
                (lang, *(str(counts[lang, split, label]) for split, label in columns))
                for lang in sorted({key[0] for key in counts})
            ],
        )
    lines += ["", "## Labels", ""]
    lines += _table(
        ("source", "label there", "label here", "texts"),
        [
            (source.settings.name, there, here or "left out", f"{count:,}")
            for source in sources
            for (there, here), count in sorted(source.mapped.labels.items(), key=lambda item: (-item[1], item[0]))[
                :_LABELS
            ]
        ],
    )
    return "\n".join([*lines, ""])


_LABELS = 20
"""Of a source with combinations of labels, only the most frequent are shown."""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]

"""The model card that goes into the bundle: what it is, what it was trained on, how well it does, where it ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from export.checkpoint import Checkpoint
from training.pages import markdown_table
from training.report import score_table
from training.vocabulary import Coverage


def model_card(
    checkpoint: Checkpoint,
    name: str,
    sizes: Mapping[str, int],
    coverage: Mapping[str, Coverage],
    parity: Mapping[str, Any],
    pieces: int,
) -> str:
    """The card as Markdown; the same inputs give the same text.

    Args:
        checkpoint: What was exported.
        name: Of the bundle.
        sizes: Bytes by file name.
        coverage: By language, what the vocabulary cut costs.
        parity: By variant, `export.parity.summary`.
        pieces: Size of the vocabulary.
    """
    lines = [
        f"# {name}",
        "",
        f"A {'multilingual ' if len(checkpoint.languages) != 1 else ''}text classifier with the heads "
        + ", ".join(f"`{head.name}` ({', '.join(head.labels)})" for head in checkpoint.heads)
        + f". It reads up to {checkpoint.max_length} tokens of a text"
        + (f", each preceded by `{checkpoint.text_prefix}`." if checkpoint.text_prefix else "."),
        "",
        "## Origin",
        "",
        *_origin(checkpoint),
        "",
        "## Files",
        "",
        *markdown_table(("file", "bytes"), [(file, f"{size:,}") for file, size in sorted(sizes.items())]),
    ]
    lines += _scores(checkpoint)
    if parity:
        lines += [
            "",
            "## Agreement of the files with the checkpoint",
            "",
            "Compared with the checkpoint in PyTorch with its whole vocabulary, except for `trim`: the checkpoint with "
            "the cut vocabulary. F1 drop: points lost on average over the languages with labels.",
            "",
            *_parity(parity),
        ]
    if coverage:
        lines += [
            "",
            "## Vocabulary",
            "",
            f"{pieces:,} pieces. A text is never lost to the cut, only spelt with more tokens; per language, tokens per "
            "word (per character where words are not spaced) before and after:",
            "",
            *_coverage(coverage),
        ]
    lines += ["", "## Limits", "", *_LIMITS, ""]
    return "\n".join(lines)


_LIMITS = (
    "- The scores above are of posts and news sentences like those it was trained on; other kinds of text score lower.",
    "- A probability is calibrated per language where that language has an entry in `bundle.json`, and by the general "
    "entry otherwise; irony, quotation and mixed languages are where it fails first.",
    "- It judges the tone of a text, not of the sentence about one entity in it, and it is not meant to judge people.",
)


def _origin(checkpoint: Checkpoint) -> list[str]:
    lines = [f"- base: {checkpoint.base}"]
    lines += [f"- {key}: {_inline(value)}" for key, value in sorted(checkpoint.provenance.items())]
    if checkpoint.languages:
        lines.append(f"- languages in training: {', '.join(checkpoint.languages)}")
    return lines


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_inline(inner)}" for key, inner in sorted(value.items()))
    if isinstance(value, list | tuple):
        return ", ".join(map(_inline, value))
    return str(value)


def _scores(checkpoint: Checkpoint) -> list[str]:
    if not checkpoint.scores:
        lines = []
        for head in checkpoint.heads:
            lines += ["", f"## Scores of `{head.name}` on validation texts", "", *_calibrated(checkpoint, head.name)]
        return lines
    lines = ["", "In brackets, 95 % bootstrap intervals; each language weighs the same in a mean. A language marked "
             "zero-shot was never trained on for that head."]  # fmt: skip
    for split, heads in checkpoint.scores.items():
        for head, found in heads.items():
            lines += ["", f"## Scores of `{head}` on {split} texts", "", *score_table(found)]
    return lines


def _calibrated(checkpoint: Checkpoint, head: str) -> list[str]:
    """What a checkpoint without a report knows of itself."""
    rows = [
        (lang, str(entry.get("n", "")), _points(entry.get("macro_f1")), _short(entry.get("ece_after")))
        for lang, entry in sorted(checkpoint.metrics[head].items())
    ]
    return markdown_table(("language", "texts", "macro-F1", "calibration error"), rows)


def _parity(parity: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            variant,
            head,
            _short(found["max_probability_difference"]),
            f"{100 * found['min_agreement']:.1f} %",
            "" if found["mean_f1_drop"] is None else f"{found['mean_f1_drop']:+.2f}",
        )
        for variant, heads in parity.items()
        for head, found in heads.items()
    ]
    return markdown_table(("file", "head", "largest probability difference", "lowest agreement", "F1 drop"), rows)


def _coverage(coverage: Mapping[str, Coverage]) -> list[str]:
    rows = [
        (
            lang,
            f"{found.tokens_per_word_before:.2f}",
            f"{found.tokens_per_word:.2f}",
            f"{100 * found.unknown_rate_before:.3f} %",
            f"{100 * found.unknown_rate:.3f} %",
        )
        for lang, found in sorted(coverage.items())
    ]
    return markdown_table(("language", "before", "after", "unknown before", "unknown after"), rows)


def _points(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"

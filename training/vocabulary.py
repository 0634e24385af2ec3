"""Cut a multilingual vocabulary to what its languages use: tokenizer and embedding together.

A Unigram tokenizer picks the segmentation with the best sum of piece scores. Taking pieces away changes nothing for a text
whose best segmentation uses kept pieces only, and every other text is spelt with shorter kept pieces; since single
characters stay, nothing new becomes unknown.
"""

from __future__ import annotations

import json
import unicodedata
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, normalizers

from training.corpus import UNSPACED
from training.errors import TrainingError

WORD_START = "▁"
TRAINED_WEIGHT = 3.0
"""Of a trained language in the choice. At 82,000 pieces, equal weights spell posts of the trained languages with 9 % more
tokens and others' news with 8 to 20 %; this weight, 5 % against 5 to 27 %, and a third of the loss in F1."""
SCRIPT_PIECES = 300
"""Of each script that stay in any case. Without them, scripts in which there is no text to count are left with single characters:
Amharic news then takes 44 % more tokens."""
_GENERAL_WEIGHT = 3.0
"""Of the vocabulary's own scores, which stand for all the languages without a corpus here."""
_TEXT_WEIGHT = 0.8
"""Of running text against a word list, which gives words without their company."""
_CASED_SHARE = 0.15
"""Weight of a word's capitalised form beside the listed one: word lists are folded to lower case, posts are not."""
_RUN_WORDS = 40
"""Words of an unspaced language joined into one run, so that pieces within a sentence are counted, not only at its start."""
_MAX_LISTED_WORDS = 30_000
_BATCH = 4096
_MEASURED = 500
"""Texts of a language on which the cut is measured."""

COVERAGE = "coverage.json"
"""File of a checkpoint whose vocabulary was cut before it was trained: what that costs by language."""


@dataclass(frozen=True)
class Coverage:
    """What the cut costs one language."""

    lines: int
    unknown_rate: float
    """Unknown tokens among the tokens, 0 to 1, after the cut."""
    unknown_rate_before: float
    tokens_per_word: float
    tokens_per_word_before: float
    """Words are runs between spaces; for an unspaced language, characters."""
    unchanged: float
    """Share of the lines whose tokens are the same pieces as before."""


def pieces_of(tokenizer: Tokenizer) -> list[tuple[str, float]]:
    """The pieces of a Unigram tokenizer with their log probabilities, by id.

    Raises:
        TrainingError: The tokenizer is of another kind, which cannot be cut this way.
    """
    model = json.loads(tokenizer.to_str())["model"]
    if model.get("type") != "Unigram":
        raise TrainingError(f"a {model.get('type')} vocabulary cannot be trimmed", hint="leave the vocabulary whole")
    return [(piece, float(score)) for piece, score in model["vocab"]]


def count_pieces(tokenizer: Tokenizer, texts: Iterable[tuple[str, float]], pieces: int) -> NDArray[np.float64]:
    """How often each piece is used.

    Args:
        tokenizer: The whole one.
        texts: With a weight each.
        pieces: Size of the vocabulary.

    Returns:
        Weighted counts; *Shape:* ``[pieces]``.
    """
    counts = np.zeros(pieces)
    batch: list[tuple[str, float]] = []

    def flush() -> None:
        encodings = tokenizer.encode_batch_fast([text for text, _ in batch], add_special_tokens=False)
        for encoding, (_, weight) in zip(encodings, batch, strict=True):
            np.add.at(counts, np.asarray(encoding.ids, dtype=np.int64), weight)
        batch.clear()

    for item in texts:
        batch.append(item)
        if len(batch) == _BATCH:
            flush()
    flush()
    return counts


def language_counts(
    tokenizer: Tokenizer,
    texts: Mapping[str, Sequence[str]],
    words: Mapping[str, Sequence[tuple[str, float]]],
) -> dict[str, NDArray[np.float64]]:
    """Piece frequencies per language, from running text and word lists.

    Returns:
        By language, shares that sum to 1; *Shape:* ``[pieces]``.
    """
    pieces = len(pieces_of(tokenizer))
    counts = {}
    for lang in sorted(set(texts) | set(words)):
        listed = _word_texts(words.get(lang, ())[:_MAX_LISTED_WORDS], unspaced=lang in UNSPACED)
        sources = (
            (_TEXT_WEIGHT, count_pieces(tokenizer, ((text, 1.0) for text in texts.get(lang, ())), pieces)),
            (1 - _TEXT_WEIGHT, count_pieces(tokenizer, listed, pieces)),
        )
        mixed = sum((weight * found / found.sum() for weight, found in sources if found.any()), np.zeros(pieces))
        if mixed.any():
            counts[lang] = mixed / mixed.sum()
    return counts


def _word_texts(words: Sequence[tuple[str, float]], *, unspaced: bool) -> Iterable[tuple[str, float]]:
    if unspaced:
        for start in range(0, len(words), _RUN_WORDS):
            run = words[start : start + _RUN_WORDS]
            yield "".join(word for word, _ in run), sum(weight for _, weight in run) / len(run)
        return
    for word, weight in words:
        yield word, weight
        if word[:1].islower():
            yield word.capitalize(), weight * _CASED_SHARE


def script_of(piece: str) -> str:
    """The script of a piece's first letter, as its Unicode name begins; empty where there is no letter.

    >>> script_of("▁Hello"), script_of("ሰላም"), script_of("…")
    ('LATIN', 'ETHIOPIC', '')
    """
    letter = next((char for char in piece if char.isalpha()), "")
    return unicodedata.name(letter, "").partition(" ")[0] if letter else ""


def always_kept(vocab: Sequence[tuple[str, float]], special: Iterable[int], size: int) -> NDArray[np.bool_]:
    """The special pieces and the single characters, without which some text could not be spelt.

    Args:
        vocab: Pieces with log probabilities, by id.
        special: Ids that stay.
        size: Pieces to keep at most.

    Returns:
        *Shape:* ``[pieces]``.

    Raises:
        TrainingError: They are more than `size`.
    """
    kept = np.zeros(len(vocab), dtype=bool)
    kept[list(special)] = True
    kept[[i for i, (piece, _) in enumerate(vocab) if len(piece.removeprefix(WORD_START)) <= 1]] = True
    if kept.sum() > size:
        raise TrainingError(f"{size} pieces are fewer than the {int(kept.sum())} special ones and single characters")
    return kept


def likeliest_by_script(
    vocab: Sequence[tuple[str, float]], kept: NDArray[np.bool_], size: int, script_pieces: int
) -> list[int]:
    """The most probable pieces of each script beside those kept; all together at most a third of what is left to choose."""
    by_script: defaultdict[str, list[int]] = defaultdict(list)
    for i, (piece, _) in enumerate(vocab):
        if not kept[i] and (script := script_of(piece)):
            by_script[script].append(i)
    each = min(script_pieces, (size - int(kept.sum())) // (3 * max(1, len(by_script))))
    return [i for ids in by_script.values() for i in sorted(ids, key=lambda i: -vocab[i][1])[:each]]


def select(
    vocab: Sequence[tuple[str, float]],
    special: Iterable[int],
    counts: Mapping[str, NDArray[np.float64]],
    size: int,
    trained: Container[str] = (),
    trained_weight: float = TRAINED_WEIGHT,
    script_pieces: int = SCRIPT_PIECES,
) -> NDArray[np.int64]:
    """Choose the pieces to keep: those that save the most tokens over all languages.

    Kept in any case are the special pieces, the single characters and the most probable pieces of each script. The rest are the pieces with the largest sum of
    shares over the languages, each language counting once and a trained one `trained_weight` times. The vocabulary's own
    scores take part as one more language, for those without a corpus here.

    Args:
        vocab: Pieces with log probabilities, by id.
        special: Ids that stay.
        counts: Per language, shares that sum to 1; *Shape:* ``[pieces]``.
        size: Pieces to keep at most; at least the ones that stay in any case.
        trained: Languages that the model is trained in.
        trained_weight: What one of these counts.
        script_pieces: Of each script that stay in any case, as far as a third of the choice allows.

    Returns:
        Ids that are kept, ascending; *Shape:* ``[kept]``, ``kept <= size``.
    """
    forced = always_kept(vocab, special, size)
    forced[likeliest_by_script(vocab, forced, size, script_pieces)] = True
    general = np.exp([score for _, score in vocab])
    general[forced] = 0
    value = _GENERAL_WEIGHT * general / max(general.sum(), 1e-300)
    for lang, shares in counts.items():
        value += (trained_weight if lang in trained else 1.0) * shares
    value[forced] = np.inf
    order = np.argsort(-value, kind="stable")[:size]
    return np.sort(order[value[order] > 0]).astype(np.int64)


def trim_tokenizer(tokenizer: Tokenizer, kept: NDArray[np.int64], max_length: int) -> str:
    """The tokenizer with only these pieces, their ids the positions in `kept`, texts cut at a length.

    Args:
        tokenizer: The whole one.
        kept: Old ids, ascending.
        max_length: Tokens per text, special ones included.

    Returns:
        The content of a ``tokenizer.json``.
    """
    data = json.loads(tokenizer.to_str())
    new = {int(old): position for position, old in enumerate(kept)}
    model = data["model"]
    model["vocab"] = [model["vocab"][old] for old in kept]
    model["unk_id"] = new[model["unk_id"]]
    data["added_tokens"] = [token | {"id": new[token["id"]]} for token in data["added_tokens"] if token["id"] in new]
    _renumber_template(data.get("post_processor"), new)
    data["padding"] = None
    data["truncation"] = {"direction": "Right", "max_length": max_length, "strategy": "LongestFirst", "stride": 0}
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def replacing(tokenizer: str, replacements: Mapping[str, str]) -> str:
    """The tokenizer with replacements made before anything else, in their order.

    Args:
        tokenizer: The content of a ``tokenizer.json``.
        replacements: By regular expression, what stands in place of a match.

    Raises:
        TrainingError: One is no regular expression.
    """
    made = Tokenizer.from_str(tokenizer)
    steps = []
    for pattern, text in replacements.items():
        try:
            steps.append(normalizers.Replace(Regex(pattern), text))
        except Exception as error:  # the package raises nothing narrower
            raise TrainingError(f"is no regular expression: {error}", where=f"encoder.replace.{pattern!r}") from None
    made.normalizer = normalizers.Sequence([*steps, *([made.normalizer] if made.normalizer else [])])
    # As `trim_tokenizer` writes it, so that equal tokenizers are equal bytes.
    return json.dumps(json.loads(made.to_str()), ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _renumber_template(processor: dict[str, Any] | None, new: Mapping[int, int]) -> None:
    if processor is None:
        return
    if processor["type"] == "Sequence":
        for part in processor["processors"]:
            _renumber_template(part, new)
    elif processor["type"] == "TemplateProcessing":
        for token in processor["special_tokens"].values():
            token["ids"] = [new[i] for i in token["ids"]]
    elif processor["type"] in ("RobertaProcessing", "BertProcessing"):
        for key in ("sep", "cls"):
            processor[key] = [processor[key][0], new[processor[key][1]]]


def special_ids(tokenizer: Tokenizer) -> list[int]:
    """Ids of the added tokens that the vocabulary holds, and of the unknown piece."""
    data = json.loads(tokenizer.to_str())
    pieces = len(data["model"]["vocab"])
    ids = {token["id"] for token in data["added_tokens"]} | {data["model"]["unk_id"]}
    return sorted(i for i in ids if i is not None and i < pieces)


def pad_id(tokenizer: Tokenizer) -> int:
    """The id for padding; where a tokenizer names none, 0: the mask hides it, so any id serves."""
    for piece in ("<pad>", "[PAD]"):
        found = tokenizer.token_to_id(piece)
        if found is not None:
            return int(found)
    return 0


def mask_id(tokenizer: Tokenizer) -> int | None:
    """The id of the piece that stands for a hidden one; None where a tokenizer has none."""
    for piece in ("<mask>", "[MASK]"):
        found = tokenizer.token_to_id(piece)
        if found is not None:
            return int(found)
    return None


def coverage(whole: Tokenizer, cut: Tokenizer, kept: NDArray[np.int64], texts: Sequence[str], lang: str) -> Coverage:
    """Measure the cut on texts of one language."""
    before = whole.encode_batch_fast(list(texts), add_special_tokens=False)
    after = cut.encode_batch_fast(list(texts), add_special_tokens=False)
    unknown_before, unknown_after = whole.token_to_id("<unk>"), cut.token_to_id("<unk>")
    old = [encoding.ids for encoding in before]
    new = [[int(kept[i]) for i in encoding.ids] for encoding in after]
    words = sum(len(text.replace(" ", "")) if lang in UNSPACED else len(text.split()) for text in texts)
    tokens_before, tokens_after = sum(map(len, old)), sum(map(len, new))
    return Coverage(
        lines=len(texts),
        unknown_rate=sum(e.ids.count(unknown_after) for e in after) / max(tokens_after, 1),
        unknown_rate_before=sum(e.ids.count(unknown_before) for e in before) / max(tokens_before, 1),
        tokens_per_word=tokens_after / max(words, 1),
        tokens_per_word_before=tokens_before / max(words, 1),
        unchanged=sum(a == b for a, b in zip(old, new, strict=True)) / max(len(texts), 1),
    )


def coverages(
    whole: Tokenizer,
    cut: Tokenizer,
    kept: NDArray[np.int64],
    lines: Mapping[str, Sequence[str]],
    words: Mapping[str, Sequence[tuple[str, float]]],
) -> dict[str, Coverage]:
    """Measure the cut on some texts of each language; where it has none, on its words.

    Args:
        whole: Before the cut; it does not cut texts.
        cut: After it.
        kept: For each id of `cut`, the id in `whole`; *Shape:* ``[pieces]``.
        lines: Texts by language.
        words: With their frequencies, by language.
    """
    untruncated = Tokenizer.from_str(cut.to_str())
    untruncated.no_truncation()
    found = {}
    for lang in sorted(lines.keys() | words.keys()):
        texts = lines.get(lang) or [word for word, _ in words[lang]]
        found[lang] = coverage(whole, untruncated, kept, texts[:: max(1, len(texts) // _MEASURED)][:_MEASURED], lang)
    return found


def write_coverages(found: Mapping[str, Coverage], path: Path) -> None:
    """As JSON, by language."""
    path.write_text(json.dumps({lang: asdict(one) for lang, one in found.items()}, indent=1) + "\n", encoding="utf-8")


def read_coverages(path: Path) -> dict[str, Coverage]:
    """What `write_coverages` wrote; nothing where there is no file."""
    if not path.exists():
        return {}
    return {lang: Coverage(**one) for lang, one in json.loads(path.read_text(encoding="utf-8")).items()}

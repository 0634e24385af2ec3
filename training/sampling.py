"""Which texts next: drawn evenly enough over languages, batched by length within a budget of tokens. Pure, from a seed."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from training.data.examples import Example

_CHUNK_BATCHES = 48
"""Texts sorted by length among themselves, in batches: fewer pad more, more make an epoch begin with all short texts of a kind."""


def shares(
    examples: Sequence[Example],
    temperature: float,
    head_weights: Mapping[str, float],
    source_weights: Mapping[str, float],
) -> dict[tuple[str, str, str], float]:
    """Share of each (head, language, source) among the texts drawn; they sum to 1.

    Within a head, a language of n texts has a share like n^(1/temperature) (Conneau et al. 2020, section 3.1, with
    temperature 1/alpha), split over its sources by their texts times their weight; heads share by their texts times
    their weight.
    """
    texts: defaultdict[tuple[str, str, str], float] = defaultdict(float)
    for example in examples:
        texts[example.head, example.lang, example.source] += source_weights.get(example.source, 1.0)
    by_lang: defaultdict[tuple[str, str], float] = defaultdict(float)
    by_head: defaultdict[str, float] = defaultdict(float)
    for (head, lang, _), n in texts.items():
        by_lang[head, lang] += n
        by_head[head] += n
    tempered: defaultdict[str, float] = defaultdict(float)
    for (head, _), n in by_lang.items():
        tempered[head] += n ** (1 / temperature)
    all_heads = sum(n * head_weights.get(head, 1.0) for head, n in by_head.items())
    return {
        (head, lang, source): (by_head[head] * head_weights.get(head, 1.0) / all_heads)
        * (by_lang[head, lang] ** (1 / temperature) / tempered[head])
        * (n / by_lang[head, lang])
        for (head, lang, source), n in sorted(texts.items())
    }


def draw(
    examples: Sequence[Example], wanted: Mapping[tuple[str, str, str], float], epochs: float, seed: int, size: int
) -> list[NDArray[np.int64]]:
    """Places of the texts of each epoch (the last may be a part of one).

    Each group goes through its texts in a new random order again and again, so that none comes a second time before all
    others have.

    Args:
        examples: To draw from.
        wanted: The groups' shares, as `shares` gives them.
        epochs: How many.
        seed: Of the order.
        size: Texts in an epoch.
    """
    groups: defaultdict[tuple[str, str, str], list[int]] = defaultdict(list)
    for place, example in enumerate(examples):
        groups[example.head, example.lang, example.source].append(place)
    rng = np.random.default_rng([seed, 1])
    queues: dict[tuple[str, str, str], list[int]] = {key: [] for key in sorted(groups)}
    owed = dict.fromkeys(queues, 0.0)
    found = []
    left = epochs
    while left > 1e-9:
        part, left = min(left, 1.0), left - 1.0
        places: list[int] = []
        for key, queue in queues.items():
            owed[key] += wanted[key] * size * part
            count = round(owed[key])
            owed[key] -= count
            while len(queue) < count:
                queue.extend(rng.permutation(groups[key]).tolist())
            places += queue[:count]
            del queue[:count]
        found.append(rng.permutation(np.array(places, dtype=np.int64)))
    return found


def batches(places: NDArray[np.int64], lengths: NDArray[np.int64], tokens: int, rng: random.Random) -> list[list[int]]:
    """Batches of texts of like length, each within a budget of padded tokens, in random order.

    Args:
        places: Texts in random order.
        lengths: Tokens per text, by place.
        tokens: Padded tokens in a batch, at most; a longer text is a batch of its own.
        rng: Shuffles the batches.
    """
    per_chunk = max(1, int(_CHUNK_BATCHES * tokens / max(1.0, float(lengths[places].mean())))) if len(places) else 1
    found: list[list[int]] = []
    for start in range(0, len(places), per_chunk):
        chunk = places[start : start + per_chunk]
        batch: list[int] = []
        for place in chunk[np.argsort(lengths[chunk], kind="stable")].tolist():
            if batch and (len(batch) + 1) * int(lengths[place]) > tokens:
                found.append(batch)
                batch = []
            batch.append(place)
        found.append(batch)
    rng.shuffle(found)
    return found

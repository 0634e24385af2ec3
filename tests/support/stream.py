"""Documents for tests whose sentiment the tiny bundle reads from one word, with a planted rise of negative ones."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime

START_MS = 1_772_323_200_000
"""2026-03-01 00:00 UTC."""

MINUTE_MS = 60_000

WATCHLIST = """
[[entity]]
id = "acme"
name = "Acme"
aliases = { "*" = ["Acme", "#acme"] }
labels = { owner = "brands" }

[[entity]]
id = "globex"
name = "Globex"
aliases = { "*" = ["Globex"] }
labels = { owner = "brands" }
"""


def documents(
    *, minutes: int, rise: tuple[int, int] | None = None, per_minute: int = 4, seed: int = 7
) -> Iterator[bytes]:
    """JSON documents in the order of their time; within `rise` (minutes) most of Acme's are awful."""
    rng = random.Random(seed)
    number = 0
    for minute in range(minutes):
        for _ in range(per_minute):
            number += 1
            entity = rng.choice(("Acme", "Globex"))
            bad = 0.85 if rise and entity == "Acme" and rise[0] <= minute < rise[1] else 0.15
            word = "awful" if rng.random() < bad else rng.choice(("okay", "good"))
            at_ms = START_MS + minute * MINUTE_MS + rng.randrange(MINUTE_MS)
            yield json.dumps(
                {
                    "id": f"d{number}",
                    "text": f"{entity} is {word} today, says visitor {number} of the shop in the north",
                    "published_at": datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(),
                    "lang": "en",
                    "source": rng.choice(("forum", "news")),
                    "author": f"visitor{number}",
                }
            ).encode()

"""An endless stream of documents with known ids: rises, reposts, repeats, late ones, and records that are none."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime

from tests.support.stream import MINUTE_MS, START_MS
from tests.support.tiny_bundle import CRASH_WORD, NAN_WORD

PARTITIONS = 4

RISES = ((600, 640, "Acme"), (760, 800, "Globex"), (930, 970, "Acme"), (1100, 1130, "Globex"))
"""(first minute, last minute, entity): when most of what is said of it is bad; repeated every `CYCLE` minutes."""
CYCLE = 1300

Record = tuple[int, bytes]
"""(partition, value)"""


def minutes(seed: int) -> Iterator[list[Record]]:
    """The records of one minute of event time after the other, for ever."""
    rng = random.Random(seed)
    number = 0
    minute = 0
    recent: list[Record] = []
    while True:
        records: list[Record] = []
        for _ in range(rng.randint(3, 7)):
            number += 1
            partition = number % PARTITIONS
            records.append((partition, _document(rng, number, minute)))
        chance = rng.random()
        if chance < 0.05 and recent:
            records.append(rng.choice(recent))  # the very same record once more
        elif chance < 0.09:
            number += 1
            bad = rng.choice((f"acme {NAN_WORD}", f"acme {CRASH_WORD}", ""))
            records.append((number % PARTITIONS, json.dumps({"id": f"bad{number}", "text": bad}).encode()))
        elif chance < 0.11:
            number += 1
            records.append((number % PARTITIONS, b"no json, number %d" % number))
        recent = [*recent, *records][-50:]
        yield records
        minute += 1


def _document(rng: random.Random, number: int, minute: int) -> bytes:
    entity = rng.choice(("Acme", "Globex", "Acme and Globex", "Nobody"))
    place = minute % CYCLE
    rising = any(first <= place < last and name in entity for first, last, name in RISES)
    word = "awful" if rng.random() < (0.85 if rising else 0.15) else rng.choice(("okay", "good"))
    said = f"visitor {number}" if rng.random() < 0.9 else "everybody who was at the shop with me"
    at_ms = START_MS + minute * MINUTE_MS + rng.randrange(MINUTE_MS)
    chance = rng.random()
    if chance < 0.05:
        at_ms -= MINUTE_MS  # out of order, and in time
    elif chance < 0.07:
        at_ms -= 30 * MINUTE_MS  # late
    return json.dumps(
        {
            "id": f"d{number}",
            "text": f"{entity} is {word} today, says {said} of the shop in the north",
            "published_at": datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(),
            "lang": rng.choice(("en", "en", "xx")),
            "source": rng.choice(("forum", "news")),
            "author": f"visitor{number}",
        }
    ).encode()

"""Write the sample stream: invented posts and headlines in many languages, with events planted in ordinary traffic.

    python examples/generate_stream.py --seed 7

The same seed, start and text files give the same bytes. `scenario.toml` says what happens, `texts/*.toml` hold the
sentences (the syntax is explained in `texts/README.md`), `watchlist.toml` the names. Beside the stream goes
`expected.json`, the truth about it: the planted events and every record that is late, repeated or broken.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import random
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sentences import FILLERS, Writer, token

HERE = Path(__file__).resolve().parent
MINUTE_MS = 60_000
MOODS = ("negative", "neutral", "positive")
SOCIAL = ("chirp", "plaza", "forum", "reviews")
NEWS = ("newswire", "morning-ledger", "city-courier")


@dataclass(frozen=True, kw_only=True)
class Post:
    """One good record, with the truth about it that the stream does not tell."""

    text: str
    title: str = ""
    """Set for news: then `text` is the body."""
    language: str
    entity: str
    """Empty when the text names no entity of the watchlist."""
    mood: str
    published_ms: int
    event: str = ""
    repost_of: str = ""
    id: str = ""
    arrives_ms: int = 0
    late: bool = False
    record: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stream:
    """The lines as bytes in their order, the good posts behind them, and what `expected.json` says."""

    lines: list[bytes]
    posts: list[Post]
    expected: dict[str, Any]


def activity(hour: float) -> float:
    """How much people write at this local hour, from 0.12 in the small hours to about 1.3 in the evening."""

    def hump(centre: float, width: float) -> float:
        distance = min(abs(hour - centre), 24 - abs(hour - centre))
        return math.exp(-0.5 * (distance / width) ** 2)

    return 0.12 + 0.55 * hump(8.5, 1.6) + 0.7 * hump(13, 2.5) + 1.1 * hump(20.5, 2.6)


class Scenario:
    """Draws the posts that the scenario describes."""

    def __init__(self, scenario: dict[str, Any], watchlist: dict[str, Any], texts: Path, start_ms: int, seed: int):
        self.rng = random.Random(seed)
        self.start_ms = start_ms
        self.hours = int(scenario["hours"])
        self.spec = scenario
        self.writers: dict[str, Writer] = {}
        for name, language in scenario["languages"].items():
            mentions = {
                entity["id"]: mentions_in(entity["aliases"], language["lang"], name) for entity in watchlist["entity"]
            }
            patterns = tomllib.loads((texts / f"{name}.toml").read_text(encoding="utf-8"))
            self.writers[name] = Writer(language["lang"], patterns, mentions, self.rng)

    def posts(self) -> list[Post]:
        """All good posts in no order, reposts among them."""
        posts = [*self._ordinary(), *self._events()]
        return posts + list(self._reposts(posts))

    def _ordinary(self) -> Iterator[Post]:
        totals = dict.fromkeys(self.writers, 0)
        for entity, spec in self.spec["ordinary"].items():
            for name, count in spec["posts"].items():
                totals[name] += count
                for at_ms in self._times(name, count):
                    yield self._post(name, entity, entity, self._mood(spec["mood"]), at_ms)
        share = self.spec["unrelated_share"]
        for name, total in totals.items():
            for at_ms in self._times(name, round(total * share / (1 - share))):
                yield self._post(name, "unrelated", "", self._mood({"negative": 0.2, "neutral": 0.5}), at_ms)

    def _events(self) -> Iterator[Post]:
        for event in self.spec["event"]:
            for part in event["parts"]:
                begin_ms, length_ms = self.start_ms + part["start_min"] * MINUTE_MS, part["minutes"] * MINUTE_MS
                for _ in range(part["posts"]):
                    at_ms = begin_ms + int(self.rng.betavariate(*event["shape"]) * length_ms)
                    post = self._post(part["language"], event["id"], event["entity"], self._mood(event["mood"]), at_ms)
                    yield replace(post, event=event["id"])

    def _reposts(self, posts: list[Post]) -> Iterator[Post]:
        """The same words again from someone else, minutes later; events are passed on more often."""
        last_ms = self.start_ms + self.hours * 60 * MINUTE_MS
        for number, post in enumerate(posts):
            at_ms = post.published_ms + int(self.rng.expovariate(1 / 9) * MINUTE_MS) + 30_000
            if self.rng.random() < (0.12 if post.event else 0.02) and not post.title and at_ms < last_ms:
                text = self.rng.choice(
                    (f"RT {FILLERS['user'](self.rng)}: {post.text}", f"{post.text} {FILLERS['url'](self.rng)}")
                )
                yield replace(post, text=text, published_ms=at_ms, repost_of=str(number))

    def _post(self, name: str, section: str, entity: str, mood: str, at_ms: int) -> Post:
        title, text = self.writers[name].write(section, mood, entity)
        lang = self.spec["languages"][name]["lang"]
        return Post(title=title, text=text, language=lang, entity=entity, mood=mood, published_ms=at_ms)

    def _mood(self, shares: dict[str, float]) -> str:
        negative, neutral = shares["negative"], shares["neutral"]
        return self.rng.choices(MOODS, (negative, neutral, 1 - negative - neutral))[0]

    def _times(self, name: str, count: int) -> list[int]:
        """Times over the whole stream, as dense as the language's people are awake."""
        offsets = self.spec["languages"][name]["utc_offsets_h"]
        start_hour = self.start_ms / 3_600_000 % 24
        minutes = range(self.hours * 60)
        weights = [sum(activity((start_hour + minute / 60 + offset) % 24) for offset in offsets) for minute in minutes]
        drawn = self.rng.choices(minutes, weights, k=count)
        return [self.start_ms + minute * MINUTE_MS + self.rng.randrange(MINUTE_MS) for minute in drawn]


def mentions_in(aliases: dict[str, list[str]], lang: str, name: str) -> list[str]:
    """What people call an entity: names in their own script first, except where they write in Latin letters."""
    own = [] if name.endswith("-latn") else aliases.get(lang, [])
    return list(dict.fromkeys([*own, *aliases["*"]]))


def iso(ms: int) -> str:
    """RFC 3339 with seconds, in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def number_and_dress(posts: list[Post], rng: random.Random) -> list[Post]:
    """Give every post its id, its place in the stream and the fields of its record."""
    order = sorted(range(len(posts)), key=lambda i: (posts[i].published_ms, i))
    ids = {old: f"{posts[old].language}-{new:05d}" for new, old in enumerate(order)}
    languages = sorted({post.language for post in posts})
    dressed = []
    for old in order:
        post = posts[old]
        late = rng.random() < 0.012
        delay_min = rng.uniform(12, 178) if late else min(rng.expovariate(2.2), 2.0)
        record: dict[str, Any] = {"id": ids[old]}
        if post.title:
            record |= {"title": post.title, "body": post.text, "source": rng.choice(NEWS)}
        else:
            record |= {"text": post.text, "source": rng.choices(SOCIAL, (6, 3, 2, 1))[0]}
        record["published_at"] = iso(post.published_ms)
        if (draw := rng.random()) < 0.80:
            record["lang"] = post.language
        elif draw < 0.83:
            record["lang"] = rng.choice([lang for lang in languages if lang != post.language])
        record["author"] = f"desk-{record['source']}" if post.title else f"u{rng.randrange(3000):04d}"
        record["url"] = f"https://{record['source']}.example/{post.language}/{token(rng, 8)}"
        if post.title or rng.random() < 0.7:
            record["reach"] = int(10 ** rng.gauss(4.3 if post.title else 2.3, 0.6))
        repost_of = ids[int(post.repost_of)] if post.repost_of else ""
        arrives_ms = post.published_ms + int(delay_min * MINUTE_MS)
        dressed.append(replace(post, id=ids[old], repost_of=repost_of, arrives_ms=arrives_ms, late=late, record=record))
    return dressed


def broken_lines(start_ms: int, end_ms: int, rng: random.Random) -> Iterator[tuple[int, bytes, str]]:
    """Records that no reader should trip over: (arrives_ms, line, kind)."""

    def line(**fields: Any) -> bytes:
        record = {"id": "odd-NUMBER", "text": "Zelvaro: what is this", "source": "chirp", "published_at": "NOW"}
        return json.dumps(record | fields, ensure_ascii=False).encode()

    once = [
        ("oversized", line(text="Skyharrow " + "la " * 100_000)),
        ("oversized", line(text="アズーラメトロ" + "草" * 300_000)),
        ("nul_byte", line(text="Orvane\0Bank app\0")),
        ("nul_byte", b'{"id":"odd-NUMBER","text":"Biskavo \x00 raw","published_at":"NOW"}'),
        ("lone_surrogate", b'{"id":"odd-NUMBER","text":"Biskavo \\ud83d yum","published_at":"NOW"}'),
        ("lone_surrogate", b'{"id":"odd-NUMBER","text":"\\udc00","published_at":"NOW"}'),
        ("invalid_utf8", b'{"id":"odd-NUMBER","text":"Azura Transit tr\xe8s bien","published_at":"NOW"}'),
        ("invalid_utf8", b"\xff\xfe{\x00"),
    ]
    often = {
        "not_json": [b"<html>502 Bad Gateway</html>", b'{"id": "odd-NUMBER", "text": "Skyharrow flig', b"{'id': 1}"],
        "wrong_type": [
            b"[1, 2, 3]",
            b"42",
            b'"just a string"',
            line(text=17),
            line(text=["a"]),
            line(published_at={"at": 1}),
        ],
        "empty_text": [line(text=""), line(text="  \n\t "), line(text="\u200b\u200d")],
        "missing_text": [b'{"id":"odd-NUMBER"}', b"{}"],
        "null_value": [b"null"],
        "far_future": [line(published_at="2199-01-01T00:00:00Z"), line(published_at="9999-12-31T23:59:59Z")],
        "unparsable_date": [line(published_at="yesterday-ish"), line(published_at="2026-13-45T99:00:00Z")],
        "unknown_language": [line(lang="xx-klingon"), line(lang="zzz"), line(lang="!!")],
    }
    chosen = once + [(kind, lines[turn % len(lines)]) for kind, lines in often.items() for turn in range(6)]
    for number, (kind, pattern) in enumerate(chosen):
        at_ms = rng.randrange(start_ms, end_ms)
        yield at_ms, pattern.replace(b"NUMBER", b"%03d" % number).replace(b"NOW", iso(at_ms).encode()), kind


def generate(seed: int, start_ms: int | None = None) -> Stream:
    """The whole stream for this seed; `start_ms` moves it in time (milliseconds since 1970-01-01 UTC)."""
    scenario = tomllib.loads((HERE / "scenario.toml").read_text(encoding="utf-8"))
    watchlist = tomllib.loads((HERE / "watchlist.toml").read_text(encoding="utf-8"))
    if start_ms is None:
        start_ms = int(datetime.fromisoformat(scenario["start"]).timestamp() * 1000)
    drawn = Scenario(scenario, watchlist, HERE / "texts", start_ms, seed)
    rng = drawn.rng
    posts = number_and_dress(drawn.posts(), rng)
    end_ms = start_ms + drawn.hours * 60 * MINUTE_MS

    placed = [(post.arrives_ms, json.dumps(post.record, ensure_ascii=False).encode(), "") for post in posts]
    repeats = rng.sample(posts, 60)
    for post in repeats:
        again = json.dumps(post.record, ensure_ascii=False).encode()
        placed.append((post.arrives_ms + rng.randrange(1_000, 40 * MINUTE_MS), again, ""))
    placed.extend(broken_lines(start_ms, end_ms, rng))
    placed.sort(key=lambda item: item[0])

    expected = {
        "seed": seed,
        "start_ms": start_ms,
        "end_ms": end_ms,
        "records": len(placed),
        "good_records": len(posts),
        "languages": {
            lang: sum(post.language == lang for post in posts) for lang in sorted({p.language for p in posts})
        },
        "events": [describe(event, posts, start_ms) for event in scenario["event"]],
        "duplicates": sorted(post.id for post in repeats),
        "near_duplicates": {post.id: post.repost_of for post in posts if post.repost_of},
        "late": [post.id for post in posts if post.late],
        "wrong_lang": [post.id for post in posts if post.record.get("lang", post.language) != post.language],
        "malformed": [{"line": number, "kind": kind} for number, (_, _, kind) in enumerate(placed, 1) if kind],
    }
    return Stream([line for _, line, _ in placed], posts, expected)


def describe(event: dict[str, Any], posts: list[Post], start_ms: int) -> dict[str, Any]:
    """The truth about one planted event; times in milliseconds since 1970-01-01 UTC."""
    mine = [post for post in posts if post.event == event["id"]]
    languages: dict[str, dict[str, int]] = {}
    for part in event["parts"]:
        begin_ms = start_ms + part["start_min"] * MINUTE_MS
        lang = part["language"].partition("-")[0]
        known = languages.setdefault(lang, {"start_ms": begin_ms, "end_ms": 0})
        known["start_ms"] = min(known["start_ms"], begin_ms)
        known["end_ms"] = max(known["end_ms"], begin_ms + part["minutes"] * MINUTE_MS)
        known["documents"] = sum(post.language == lang for post in mine)
    return {
        "id": event["id"],
        "entity": event["entity"],
        "kind": event["kind"],
        "summary": event["summary"],
        "start_ms": min(times["start_ms"] for times in languages.values()),
        "end_ms": max(times["end_ms"] for times in languages.values()),
        "languages": languages,
        "document_ids": [post.id for post in mine],
    }


def main() -> None:
    """Write the stream and its truth."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--out", type=Path, default=HERE / "stream.jsonl.gz", help="gzip file; expected.json goes beside it"
    )
    parser.add_argument("--start", help="RFC 3339 time of the first minute; the scenario's own by default")
    options = parser.parse_args()
    start_ms = int(datetime.fromisoformat(options.start).timestamp() * 1000) if options.start else None
    stream = generate(options.seed, start_ms)
    options.out.write_bytes(gzip.compress(b"\n".join(stream.lines) + b"\n", 9, mtime=0))
    truth = json.dumps(stream.expected, ensure_ascii=False, indent=1)
    options.out.with_name("expected.json").write_text(truth + "\n", encoding="utf-8")
    print(f"{len(stream.lines)} records, {len(stream.posts)} of them good, {options.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()

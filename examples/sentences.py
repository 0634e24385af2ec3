"""Turns the patterns of `texts/*.toml` into posts: choices, slots, company, and what thumbs do to sentences."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

NO_SPACES = {"zh", "ja", "th"}
ENDINGS = frozenset(",.!?:;…，。！？：؟،।")
PAUSES = (". ", ". ", "! ", "... ", "\n")
QUESTION = re.compile(r"[?？؟]|ไหม|ยังไง|เท่าไหร่|ที่ไหน|เปล่า|กี่|อะไร")  # Thai asks by words, not by a mark
EMOJI = {
    "negative": ["😡", "🤬", "😤", "🙄", "😠", "👎", "😒", "💔", "🤦", "😩"],
    "neutral": ["🤔", "👀", "📌", "🗓️", "🧵"],
    "positive": ["😍", "🙏", "❤️", "🎉", "👏", "😊", "🔥", "👍", "🥰", "✨"],
}


class Writer:
    """Writes texts in one language from its pattern file."""

    def __init__(self, language: str, patterns: dict[str, Any], mentions: dict[str, list[str]], rng: random.Random):
        self.language = language
        self.joiner = "" if language in NO_SPACES else " "
        self._patterns = patterns
        self._mentions = mentions
        self._rng = rng
        self._bags: dict[tuple[str, str], list[str]] = {}

    def write(self, section: str, mood: str, entity: str) -> tuple[str, str]:
        """A (title, text) of this mood about `entity`; the title is empty unless the pattern is a headline."""
        rng = self._rng
        pattern = self._draw(section, mood)
        if " // " in pattern:
            title, _, body = pattern.partition(" // ")
            return self._expand(title, entity, "plain"), self._expand(body, entity, "plain")
        text = self._expand(pattern, entity, "any")
        chatter = self._patterns["chatter"]
        tone = "question" if mood == "neutral" and QUESTION.search(text) else mood
        if f"open_{tone}" in chatter and rng.random() < 0.35:
            opener = self._expand(rng.choice(lines_of(chatter[f"open_{tone}"])), entity, "any")
            name_or_shout = text.startswith(("I", "İ", *self._mentions.get(entity, ()))) or text[1:2].isupper()
            if opener.endswith(",") and not name_or_shout:
                text = text[0].lower() + text[1:]
            text = opener + ("" if opener[-1] in "，。！？：…" else " ") + text
        if rng.random() < 0.4:
            text = self._follow(text, self._expand(rng.choice(lines_of(chatter[f"close_{tone}"])), entity, "any"))
        if mood == "negative" and entity and "contact" in chatter and rng.random() < 0.06:
            text = self._follow(text, self._expand(rng.choice(lines_of(chatter["contact"])), entity, "any"))
        return "", self._roughen(text, mood)

    def _follow(self, first: str, second: str) -> str:
        """Two pieces of one post, set apart as people do it in this language."""
        if first[-1] in "，。！？：…":
            return first + second
        if first[-1] in ENDINGS or second[0] == "#" or "http" in first + second or self.language == "th":
            return f"{first} {second}"
        return first + self._rng.choice({"zh": "，。！", "ja": "。。！"}.get(self.language, PAUSES)) + second

    def _draw(self, section: str, mood: str) -> str:
        """The next pattern of a shuffled bag: each is used once before any comes again."""
        bag = self._bags.setdefault((section, mood), [])
        if not bag:
            bag.extend(lines_of(self._patterns[section][mood]))
            self._rng.shuffle(bag)
        return bag.pop()

    def _expand(self, pattern: str, entity: str, style: str) -> str:
        rng = self._rng
        drawn: set[str] = set()
        while match := re.search(r"\[([^\[\]]*)\]", pattern):
            pattern = pattern[: match.start()] + rng.choice(match[1].split("|")) + pattern[match.end() :]

        def fill(match: re.Match[str]) -> str:
            name = match[1]
            if name == "e":
                return self._mention(entity, style)
            if name in FILLERS:
                return FILLERS[name](rng)
            choices = lines_of(self._patterns["lists"][name])
            while (word := self._expand(rng.choice(choices), entity, style)) in drawn:
                pass  # no route from a city to itself
            drawn.add(word)
            return word

        text = re.sub(r"\{([\w-]+)\}", fill, pattern)
        return re.sub(r" +([,.،，。])", r"\1", re.sub(r" {2,}", " ", text)).strip()

    def _mention(self, entity: str, style: str) -> str:
        """One of the entity's aliases, the earlier the likelier; headlines take no handles or hashtags."""
        names = self._mentions[entity]
        if style == "plain":
            names = [name for name in names if name[0] not in "@#"]
        weights = [1 / (1 + rank) for rank in range(len(names))]
        name = self._rng.choices(names, weights)[0]
        if self.joiner:
            return name
        if self.language == "ja" and name.isascii() and name.isalpha() and self._rng.random() < 0.15:
            return "".join(chr(ord(char) + 0xFEE0) for char in name)  # full width, as Japanese keyboards write it
        return f" {name} " if name[0] in "@#" else name

    def _roughen(self, text: str, mood: str) -> str:
        """What thumbs do to sentences: no capitals, no full stop, a slip, an emoji, a link."""
        rng = self._rng
        latin = self.language not in {"ar", "hi", "zh", "ja", "ko", "th", "ru", "uk"}
        if latin and rng.random() < 0.08:
            text = slip(text, rng)
        if latin and self.language != "tr" and rng.random() < 0.2:
            text = " ".join(word if word.startswith("http") else word.lower() for word in text.split(" "))
        if rng.random() < 0.3:
            text = text.rstrip(".。 ।")
        if rng.random() < 0.28:
            text += rng.choice(("", " ")) + rng.choice(EMOJI[mood]) * rng.choice((1, 1, 1, 2, 3))
        if rng.random() < 0.08:
            text += f" https://pic.example/{token(rng, 6)}"
        return text


def lines_of(block: str) -> list[str]:
    """The patterns of a block: one a line."""
    return [line.strip() for line in block.splitlines() if line.strip()]


def slip(text: str, rng: random.Random) -> str:
    """Swap two letters inside one longer lower-case word; names, handles and links stay readable."""
    words = text.split(" ")
    places = [
        i for i, word in enumerate(words) if len(word) >= 6 and word.isalpha() and word.islower() and word.isascii()
    ]
    if places:
        place = rng.choice(places)
        word, cut = words[place], rng.randrange(1, len(words[place]) - 2)
        words[place] = word[:cut] + word[cut + 1] + word[cut] + word[cut + 2 :]
    return " ".join(words)


def token(rng: random.Random, length: int) -> str:
    """Letters and digits as in the addresses of posts."""
    return "".join(rng.choices("abcdefghijkmnopqrstuvwxyz23456789", k=length))


# Names, addresses and numbers below are from ranges reserved for documentation, tests and fiction.
FILLERS: dict[str, Callable[[random.Random], str]] = {
    "n": lambda rng: str(rng.randint(2, 9)),
    "nn": lambda rng: str(rng.randint(11, 58)),
    "min": lambda rng: str(rng.choice((10, 15, 20, 25, 30, 35, 40, 45, 50, 70, 90))),
    "day": lambda rng: str(rng.randint(1, 28)),
    "h": lambda rng: f"{rng.randint(6, 22):02d}:{rng.choice((0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55)):02d}",
    "flight": lambda rng: f"SH{rng.randint(101, 989)}",
    "line": lambda rng: str(rng.randint(1, 14)),
    "price": lambda rng: str(rng.choice((9, 12, 15, 19, 25, 29, 39, 45, 49, 59, 79, 99))),
    "user": lambda rng: (
        "@" + rng.choice(("mira", "tomo", "lena", "kofi", "ravi", "sole", "juno", "aziz")) + token(rng, 3)
    ),
    "url": lambda rng: f"https://{rng.choice(('chirp', 'plaza', 'go'))}.example/{token(rng, 7)}",
    "mail": lambda rng: (
        f"{rng.choice(('maria', 'j.doe', 'sam', 'ayse', 'k.lee'))}{rng.randint(1, 99)}@example.{rng.choice(('com', 'org', 'net'))}"
    ),
    "phone": lambda rng: rng.choice((f"+1 202 555 01{rng.randint(10, 99)}", f"+44 20 7946 0{rng.randint(100, 999)}")),
    "card": lambda rng: rng.choice(("4111 1111 1111 1111", "5555 5555 5555 4444", "4242-4242-4242-4242")),
    "iban": lambda rng: rng.choice(("TR33 0006 1005 1978 6457 8413 26", "DE89 3704 0044 0532 0130 00")),
    "ip": lambda rng: f"{rng.choice(('192.0.2', '198.51.100', '203.0.113'))}.{rng.randint(1, 254)}",
    "reset": lambda rng: f"https://account.example/reset?token={token(rng, 20)}",
}

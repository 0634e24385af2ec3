"""The words of an alert: one line for a lock screen, and the whole explanation as one message; pure, from the alert alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache

import msgspec
from babel import Locale
from babel.numbers import format_compact_decimal

from monitor.records import UNDETERMINED, Alert, Evidence, Post, Share

MESSAGE_UNITS = 2_900
"""UTF-16 units that a description has at most: one block of Slack takes 3,000, a message of Telegram or Discord 4,096."""
POST_CHARS = 180
"""Of a post in the description: what a phone shows in three or four lines. The evidence holds more."""
NAMED = 4
"""Languages and entities in the first line; the rest is a number."""
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
_RIGHT_TO_LEFT = ("\u0590", "\u08ff")
_LINK = re.compile(r"https?://\S+")
_ISOLATE, _END = "\u2068", "\u2069"


def worded(alert: Alert, names: Mapping[str, str]) -> Alert:
    """The alert with its texts.

    Args:
        alert: All but its texts is used.
        names: For people, by entity id.
    """
    return msgspec.structs.replace(alert, summary=headline(alert, names), description=description(alert, names))


def headline(alert: Alert, names: Mapping[str, str]) -> str:
    """One line: who, how much against what is usual, since when, where."""
    who, shown = _who(alert, names), alert.evidence
    if alert.merged_into:
        return f"{who}: part of a wider incident, told there from now on ({alert.merged_into})"
    if alert.state == "resolved":
        end_ms = alert.ended_ms or alert.at_ms
        return f"{who}: back to normal after {_length(end_ms - alert.onset_ms)}, {_span(alert.onset_ms, end_ms)}"
    growing = ", growing" if alert.state == "escalated" else ""
    where = f" · {_listed([language_name(lang) for lang in alert.languages])}" if alert.languages else ""
    return f"{who}{growing}: {_rise(alert.signal, shown)} since {_since(alert.onset_ms, alert.at_ms)}{where}"


def description(alert: Alert, names: Mapping[str, str]) -> str:
    """The whole explanation as plain text, complete in one message of `MESSAGE_UNITS`; the last posts give way."""
    lines = [headline(alert, names), ""]
    lines += _facts(alert)
    lines += _breakdown(alert.evidence, names)
    text = "\n".join(lines)
    for number, post in enumerate(_told(alert.evidence)):
        line = ("\n\n" if number == 0 else "\n") + _post(post, first=number == 0 and alert.evidence.first_post is post)
        if _units(text) + _units(line) > MESSAGE_UNITS:
            break
        text += line
    return text


def language_name(code: str) -> str:
    """A language's English name (Unicode CLDR).

    >>> [language_name(code) for code in ("tr", "hi-Latn", "und", "qqq")]
    ['Turkish', 'Hindi (Latin)', 'unknown language', 'qqq']
    """
    return "unknown language" if code == UNDETERMINED else _language_names().get(code.replace("-", "_"), code)


@cache
def _language_names() -> Mapping[str, str]:
    return dict(Locale("en").languages)


def _who(alert: Alert, names: Mapping[str, str]) -> str:
    if len(alert.entities) < 2:
        return alert.entity_name
    if alert.kind == "common":
        return f"{len(alert.entities)} names at once"
    return _listed([names.get(entity, entity) for entity in alert.entities], most=2)


def _rise(signal: str, shown: Evidence) -> str:
    if shown.unit == "share":
        return f"{shown.observed:.0%} negative, usually {shown.expected:.0%},"
    if shown.unit == "topic":
        return f"{shown.observed:.0%} about {shown.topic}, usually {shown.expected:.0%},"
    if shown.unit == "mean":
        return f"mood down to {shown.observed:+.2f}, usually {shown.expected:+.2f},"
    what = "negative posts" if signal == "negative_volume" else "posts"
    times = f"{shown.effect:.1f}" if shown.effect < 10 else f"{shown.effect:.0f}"
    return f"{times} times the usual {what}"


def _facts(alert: Alert) -> list[str]:
    shown = alert.evidence
    lines = []
    if alert.kind == "common":
        lines.append(
            "So many names rarely turn at once by themselves: look at the sources below, and at the classifier, first."
        )
    end_ms = alert.ended_ms or alert.at_ms
    negatives = f"{shown.negatives:.0f} {f'about {shown.topic}' if shown.topic else 'negative'}"
    if shown.unit in ("share", "topic"):
        negatives += f" (about {shown.expected * shown.documents:.0f} would be usual)"
    lines.append(f"{_span(alert.onset_ms, end_ms, dated=True)}: {shown.documents:,} posts, {negatives}.")
    if shown.unit in ("share", "topic") and shown.effect_high > 0:
        lines.append(
            f"Rise: {100 * shown.effect:+.0f} points "
            f"(95% interval {100 * shown.effect_low:+.0f} to {100 * shown.effect_high:+.0f})."
        )
    elif shown.unit == "mean" and shown.effect_low < 0:
        lines.append(
            f"Mean of positive (+1) and negative (-1): {shown.effect:+.2f} "
            f"(95% interval {shown.effect_low:+.2f} to {shown.effect_high:+.2f})."
        )
    elif shown.unit == "documents/h" and shown.effect_high > 0:
        lines.append(
            f"Rise: {shown.effect:.1f} times (95% interval {shown.effect_low:.1f} to {shown.effect_high:.1f}), "
            f"{shown.observed:.0f} an hour against {shown.expected:.0f}."
        )
    if shown.one_event is not None:
        lines.append(_one_event(shown.one_event))
    return lines


def _one_event(probability: float) -> str:
    if probability >= 0.8:
        return f"Very likely one event ({probability:.0%})."
    if probability >= 0.5:
        return f"Probably one event ({probability:.0%})."
    if probability >= 0.2:
        return f"Perhaps more than one event ({probability:.0%} that it is one)."
    return f"Looks like many separate complaints ({probability:.0%} that it is one event)."


def _breakdown(shown: Evidence, names: Mapping[str, str]) -> list[str]:
    lines = []
    for title, shares, name in (
        ("Names", shown.entities, lambda entity: names.get(entity, entity)),
        ("Languages", shown.languages, language_name),
        ("Sources", shown.sources, str),
        ("Topics", shown.topics, str),
    ):
        if shares:
            lines.append(f"{title}: " + ", ".join(_share(share, name(share.name)) for share in _worth_naming(shares)))
    if shown.terms:
        lines.append("Words: " + ", ".join(isolated(term) for term in shown.terms))
    voices = []
    if shown.authors:
        voices.append(f"at least {_plural(shown.authors, 'author')}")
    if shown.reposts:
        voices.append(_plural(shown.reposts, "repost"))
    if shown.reach:
        voices.append(f"reach {compact(shown.reach)}")
    if voices:
        lines.append("Voices: " + ", ".join(voices))
    return lines


def _worth_naming(shares: Sequence[Share]) -> list[Share]:
    """The largest, and no crumbs: a phone shows little."""
    return [share for place, share in enumerate(shares) if place == 0 or (place < 6 and share.share >= 0.03)]


def _share(share: Share, name: str) -> str:
    return f"{name} {share.share:.0%} ({share.count:,})"


def _told(shown: Evidence) -> list[Post]:
    """The first post, then the representative ones; none at the end, when they were told before."""
    if not shown.posts:
        return []
    first = shown.first_post
    rest = [post for post in shown.posts if first is None or post.document_id != first.document_id]
    return [first, *rest] if first is not None else rest


def _post(post: Post, *, first: bool) -> str:
    marks = [f"{_clock(post.published_ms)} UTC", language_name(post.lang)]
    if first:
        marks.insert(0, "First")
    if post.source:
        marks.append(post.source)
    if post.copies > 1:
        marks.append(f"{post.copies - 1} more alike")
    text, link = (_LINK.sub("", post.text), f" {post.url}") if post.url else (post.text, "")
    return f"• {', '.join(marks)}: {isolated(shortened(text))}{link}"


def shortened(text: str, most: int = POST_CHARS) -> str:
    """On one line, and cut at a word's end where the script has words.

    >>> shortened("one two three", 9)
    'one two…'
    """
    line = " ".join(text.split())
    if len(line) <= most:
        return line
    cut = line[: most - 1]
    space = cut.rfind(" ")
    return (cut[:space] if space > most // 2 else cut) + "…"


def isolated(text: str) -> str:
    """Text that is written from right to left, set apart so that it does not turn the rest of its line round."""
    low, high = _RIGHT_TO_LEFT
    return f"{_ISOLATE}{text}{_END}" if any(low <= char <= high for char in text) else text


def compact(number: int) -> str:
    """A number rounded for reading.

    >>> [compact(n) for n in (950, 12_345, 3_400_000)]
    ['950', '12K', '3.4M']
    """
    digits = 0 if number < 1000 or 10_000 <= number < 1_000_000 else 1
    return str(format_compact_decimal(number, locale="en", fraction_digits=digits))


def _listed(names: Iterable[str], most: int = NAMED) -> str:
    every = list(names)
    rest = len(every) - most
    return ", ".join(every[:most]) + (f" and {rest} more" if rest > 0 else "")


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _length(span_ms: int) -> str:
    minutes = max(round(span_ms / 60_000), 1)
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    parts = [(days, "d"), (hours, "h"), (minutes if not days else 0, "min")]
    return " ".join(f"{count} {unit}" for count, unit in parts if count)


def _clock(time_ms: int) -> str:
    return f"{_moment(time_ms):%H:%M}"


def _since(onset_ms: int, at_ms: int) -> str:
    """The day is told when it is not today."""
    day = "" if onset_ms // DAY_MS == at_ms // DAY_MS else f"{_day(onset_ms)} "
    return f"{day}{_clock(onset_ms)} UTC"


def _span(start_ms: int, end_ms: int, *, dated: bool = False) -> str:
    start = (
        f"{_day(start_ms)} {_clock(start_ms)}" if dated or start_ms // DAY_MS != end_ms // DAY_MS else _clock(start_ms)
    )
    end = _clock(end_ms) if start_ms // DAY_MS == end_ms // DAY_MS else f"{_day(end_ms)} {_clock(end_ms)}"
    return f"{start} to {end} UTC"


def _day(time_ms: int) -> str:
    moment = _moment(time_ms)
    return f"{moment:%a} {moment.day} {moment:%b}"


def _moment(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1000, UTC)

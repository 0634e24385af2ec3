"""Messages for people: an alert or a digest in one of ten languages, or by the operator's own template, cut to fit.

Numbers, dates and the names of languages come from the CLDR (Babel); the sentences from `phrases/`. Templates run in
Jinja2's sandbox. What strangers wrote (posts, terms) is quoted: on one line, unable to mention people or to pose as a
link, and isolated from the direction of the text around it (Unicode Standard Annex #9).
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import jinja2
import msgspec
import regex
import structlog
from babel import Locale
from babel.dates import format_skeleton
from babel.numbers import format_compact_decimal, format_decimal, format_percent
from jinja2.sandbox import ImmutableSandboxedEnvironment

from monitor.errors import ConfigError
from monitor.records import Alert, Share
from monitor.sinks.base import Digest, incident_link
from monitor.sinks.samples import samples
from monitor.sinks.settings import TextSinkSettings

log = structlog.get_logger("monitor.text")

HERE = Path(__file__).parent

ICONS = {"info": "🔵", "warning": "🟠", "critical": "🔴"}
OVER = "✅"

QUOTE_CHARS = 280
"""Of a quoted post: enough to know what it says."""

MOST_IN_A_DIGEST = 100
"""Nobody reads more; the rest is counted."""

LEAST_LINE = 30
"""No line of a digest is shorter: what cannot fit is not tried."""

FSI, PDI, RLM = "\u2068", "\u2069", "\u200f"
"""First strong isolate and its end, and the right-to-left mark."""

WORD_JOINER = "\u2060"

_RTL = regex.compile(r"[\p{Bidi_Class=R}\p{Bidi_Class=AL}]")
_MENTION = regex.compile(r"@(?=[\p{L}\p{N}_])")
_ANGLES = str.maketrans({"<": "‹", ">": "›"})
_INVISIBLE = regex.compile(r"[\p{Cc}\p{Cs}\u2066-\u2069\u202a-\u202e]+")


@dataclass(frozen=True, slots=True)
class Limit:
    """How long a message may be for a channel."""

    size: int
    """Of title and body together."""
    measure: Callable[[str], int] = len
    title: int = 250


def utf16_units(text: str) -> int:
    """Length as Telegram counts."""
    return len(text.encode("utf-16-le")) // 2


def utf8_bytes(text: str) -> int:
    """Length as WeCom, Feishu and Lark count."""
    return len(text.encode("utf-8"))


def escaped_bytes(text: str) -> int:
    r"""Length as JSON with `\uXXXX` escapes, which is how DingTalk gets it."""
    return len(json.dumps(text))


UNLIMITED = Limit(200_000)


@dataclass(frozen=True, slots=True)
class Message:
    """What goes out."""

    title: str
    body: str
    html: str = ""
    """The same as HTML, empty with a template of one's own."""


@cache
def phrases(language: str) -> dict[str, str]:
    """The sentences of a language, by name."""
    texts: dict[str, str] = tomllib.loads((HERE / "phrases" / f"{language}.toml").read_text(encoding="utf-8"))
    return texts


class Writer:
    """Writes messages for one sink.

    Args:
        settings: Language, template, posts, time zone, status page.

    Raises:
        ConfigError: the template cannot be read, is broken, or fails on an ordinary alert.
    """

    def __init__(self, settings: TextSinkSettings) -> None:
        self._settings = settings
        self._locale = Locale.parse(settings.language)
        self._zone = ZoneInfo(settings.time_zone)
        # Babel builds a format anew at each call; a digest has the same times and languages over and over.
        self._when = lru_cache(1024)(self._format_time)
        self._language = lru_cache(1024)(self._name_language)
        self.rtl = self._locale.character_order == "right-to-left"
        self.phrases = phrases(settings.language)
        self._text = self._load("message.txt", settings.template)
        self._html = self._load("message.html", None) if settings.template is None else None
        self._trying = True
        if settings.template is not None:
            self._try_out(settings.template)
        self._trying = False

    def alert(self, alert: Alert, *, limit: Limit = UNLIMITED, reminder: bool = False) -> Message:
        """The message of one alert, with as many posts as fit."""
        posts = alert.evidence.posts
        shared = {"kind": "alert", "alerts": [alert], "left": 0, "reminder": reminder, "link": self._link(alert)}
        shared["name"] = alert.entity_name
        most = min(self._settings.posts, len(posts))
        return self._fit([{**shared, "posts": posts[:n]} for n in _fewer(most, 0)], limit)

    def digest(self, digest: Digest, *, limit: Limit = UNLIMITED) -> Message:
        """The message of several alerts, with as many of them as fit; the rest is counted."""
        count = len(digest.alerts)
        named = [alert.entity_name for alert in digest.alerts if alert.entity == digest.about]
        shared = {"kind": digest.kind, "posts": (), "reminder": False, "link": self._settings.status_url}
        shared["name"] = named[0] if named else digest.about
        sizes = _fewer(min(count, MOST_IN_A_DIGEST, 1 + limit.size // LEAST_LINE), 1)
        return self._fit([{**shared, "alerts": digest.alerts[:n], "left": count - n} for n in sizes], limit)

    def _link(self, alert: Alert) -> str:
        return incident_link(self._settings.status_url, alert.incident)

    def _fit(self, attempts: Sequence[dict[str, Any]], limit: Limit) -> Message:
        """The first of the attempts, longest to shortest, that fits; the shortest is cut if even that is too long."""
        for attempt in attempts:
            context = {**attempt, "alert": attempt["alerts"][0]}
            title, _, body = self._rendered(context).strip().partition("\n")
            title = shorten(title.strip(), limit.title)
            body = "\n".join(self._directed(line.rstrip()) for line in body.strip().splitlines())
            if limit.measure(title) + limit.measure(body) <= limit.size:
                break
        else:
            body = shorten(body, max(0, limit.size - limit.measure(title)), limit.measure, keep=context["link"])
        html = self._html.render({**context, "title": title}) if self._html is not None else ""
        return Message(title, body, html)

    def _rendered(self, context: dict[str, Any]) -> str:
        """By the operator's template; should it fail on this very alert, by ours: the alert matters more."""
        try:
            return self._text.render(context)
        except Exception as error:
            if self._trying or self._settings.template is None:
                raise
            log.error("template.failed", template=str(self._settings.template), line=_line(error), reason=str(error))
            return self._load("message.txt", None).render(context)

    def _directed(self, line: str) -> str:
        """A line of a right-to-left message stays one, whatever it begins with."""
        return RLM + line if self.rtl and line else line

    # --- templates ----------------------------------------------------------------------------------------------------

    def _load(self, name: str, own: Path | None) -> jinja2.Template:
        folders = [str(HERE / "templates"), *([str(own.parent)] if own is not None else [])]
        environment = ImmutableSandboxedEnvironment(
            loader=jinja2.FileSystemLoader(folders),
            autoescape=name.endswith(".html"),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {
            "number": self._number, "percent": self._percent, "when": self._when, "language": self._language,
            "listed": self._listed, "quote": self._quote, "shares": self._shares, "shorten": shorten,
        }  # fmt: skip
        environment.globals |= {
            "t": self.phrases, "headline": self.headline, "icon": icon, "worst": worst, "rtl": self.rtl,
            "lang": self._settings.language, "link_to": self._link,
        }  # fmt: skip
        if own is None:
            return environment.get_template(name)
        try:
            return environment.from_string(own.read_text(encoding="utf-8"))
        except jinja2.TemplateSyntaxError as error:
            raise ConfigError(f"the template is broken: {error.message}", where=f"{own}:{error.lineno}") from None
        except jinja2.TemplateNotFound as error:
            raise ConfigError(f"the template needs {error}, which is not there", where=str(own)) from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the template cannot be read: {error}", where=str(own)) from None

    def _try_out(self, own: Path) -> None:
        """An error that only shows when the template runs shows now, not at night."""
        # An entity need not carry any label.
        alerts = (*samples(), msgspec.structs.replace(samples()[0], labels={}, languages=()))
        attempts: list[Callable[[], Message]] = [lambda alert=alert: self.alert(alert) for alert in alerts]  # type: ignore[misc]
        attempts += [
            lambda: self.digest(Digest("burst", alerts, "k")),
            lambda: self.digest(Digest("daily", alerts, "k")),
        ]
        for attempt in attempts:
            try:
                message = attempt()
            except Exception as error:  # a template can fail in any way that Python can
                line = _line(error)
                where = f"{own}:{line}" if line else str(own)
                raise ConfigError(
                    f"the template fails: {error}",
                    where=where,
                    hint="docs/sinks.md says what there is; a label need not be: alert.labels.get('owner', '')",
                ) from None
            if not message.title:
                raise ConfigError("the template writes nothing", where=str(own), hint="its first line is the title")

    # --- words and numbers --------------------------------------------------------------------------------------------

    def headline(self, alert: Alert) -> str:
        """What happened, in one line."""
        name, shown = self._who(alert), alert.evidence
        if alert.merged_into:
            return self.phrases["merged"].format(name=name)
        if alert.state == "resolved":
            return self.phrases["resolved"].format(name=name)
        if shown.unit == "share":
            return self.phrases["share"].format(
                name=name, observed=self._percent(shown.observed), expected=self._percent(shown.expected)
            )
        if shown.unit == "topic":
            told = {"observed": self._percent(shown.observed), "expected": self._percent(shown.expected)}
            return self.phrases["topic"].format(name=name, topic=shown.topic, **told)
        if shown.unit == "mean":
            observed, expected = self._signed(shown.observed), self._signed(shown.expected)
            return self.phrases["mood"].format(name=name, observed=observed, expected=expected)
        which = "posts_rate" if alert.signal == "volume" else "negative_rate"
        times = self._number(round(shown.observed / shown.expected, 1)) if shown.expected > 0 else "∞"
        return self.phrases[which].format(name=name, times=times)

    def _who(self, alert: Alert) -> str:
        count = len(alert.entities)
        if count < 2:
            return alert.entity_name
        if alert.kind == "common":
            return self.phrases["common"].format(count=self._number(count))
        return self.phrases["others"].format(name=alert.entity_name, count=self._number(count - 1))

    def _signed(self, value: float) -> str:
        return format_decimal(value, "+0.00;-0.00", locale=self._locale)

    def _percent(self, value: float) -> str:
        return format_percent(value, locale=self._locale)

    def _number(self, value: float) -> str:
        if abs(value) >= 100_000:
            return format_compact_decimal(value, locale=self._locale, fraction_digits=1)
        return format_decimal(value, locale=self._locale)

    def _format_time(self, time_ms: int) -> str:
        local = datetime.fromtimestamp(time_ms / 1000, self._zone)
        day, hour = (format_skeleton(form, local, locale=self._locale) for form in ("MMMEd", "Hm"))
        return f"{day} {hour} {local:%Z}"

    def _name_language(self, code: str) -> str:
        return self._locale.languages.get(code) or code

    def _listed(self, items: Sequence[str]) -> str:
        return self.phrases["separator"].join(items)

    def _shares(self, shares: Sequence[Share], most: int = 5) -> str:
        return self._listed([f"{self._language(s.name)} {self._percent(s.share)}" for s in shares[:most]])

    def _quote(self, text: str, length: int = QUOTE_CHARS) -> str:
        # No character that people see takes more than some code points; cleaning a whole article would be waste.
        text = " ".join(_INVISIBLE.sub(" ", text[: 20 * length]).translate(_ANGLES).split())
        text = shorten(_MENTION.sub("@" + WORD_JOINER, text), length)
        return f"{FSI}{text}{PDI}" if self.rtl or _RTL.search(text) else text


def icon(alert: Alert) -> str:
    """A sign that reads alike in all languages.

    >>> [icon(alert) for alert in samples()]
    ['🟠', '🔴', '✅']
    """
    return OVER if alert.state == "resolved" else ICONS[alert.severity]


def _fewer(most: int, least: int) -> list[int]:
    """Numbers from `most` down to `least` in a few steps.

    >>> _fewer(50, 0), _fewer(2, 1)
    ([50, 37, 25, 12, 6, 3, 2, 1, 0], [2, 1])
    """
    steps = {most, most * 3 // 4, most // 2, most // 4, most // 8, 3, 2, 1, 0}
    return sorted((n for n in steps if least <= n <= most), reverse=True)


def worst(alerts: Sequence[Alert]) -> str:
    """The sign of several alerts: of the most severe one that is still open."""
    still = [alert for alert in alerts if alert.state != "resolved"]
    return ICONS[max((alert.severity for alert in still), key=list(ICONS).index)] if still else OVER


def shorten(text: str, size: int, measure: Callable[[str], int] = len, keep: str = "") -> str:
    """Cut a text to a size, between characters as people see them (grapheme clusters, UAX #29), at a word if one is near.

    Args:
        text: What to cut.
        size: The most that `measure` may give for the result.
        measure: Counts what the channel counts; must grow with the text.
        keep: A link that stays at the end if it was in the text.

    >>> shorten("the quick brown fox", 12)
    'the quick…'
    >>> shorten("नमस्ते", 3), shorten("👩‍👩‍👧‍👧👩‍👩‍👧‍👧", 8)
    ('नम…', '👩‍👩‍👧‍👧…')
    """
    if measure(text) <= size:
        return text
    tail = f"…\n{keep}" if keep and keep in text else "…"
    if measure(tail) > size:
        tail = "…" if size >= measure("…") else ""
    characters = regex.findall(r"\X", text)
    low, high = 0, len(characters)
    while low < high:  # the most characters that fit
        middle = (low + high + 1) // 2
        low, high = (middle, high) if measure("".join(characters[:middle]) + tail) <= size else (low, middle - 1)
    head = "".join(characters[:low])
    word = max(head.rfind(" "), head.rfind("\n"))
    if word > 0 and len(head) - word <= 24 and not text[len(head) : len(head) + 1].isspace():
        head = head[:word]
    return head.rstrip() + tail


def _line(error: BaseException) -> int | None:
    """The line of the template in which an error arose."""
    line = getattr(error, "lineno", None)
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line

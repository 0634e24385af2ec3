"""Messages: ten languages, right-to-left, posts that try to break out, templates of one's own, and every channel's limit."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from monitor.errors import ConfigError
from monitor.records import Alert, Post
from monitor.sinks.base import Digest
from monitor.sinks.chat import LIMITS, as_markdown
from monitor.sinks.samples import samples
from monitor.sinks.settings import StdoutSettings, TextLanguage
from monitor.sinks.text import FSI, PDI, RLM, Limit, Writer, phrases, shorten, utf8_bytes, utf16_units

LANGUAGES = get_args(TextLanguage)
FIRING, ESCALATED, RESOLVED = samples()
LINK = "https://status.example"


def writer(**more: Any) -> Writer:
    return Writer(StdoutSettings(name="s", status_url=LINK, **more))


def with_posts(*texts: str) -> Alert:
    posts = tuple(
        Post(document_id=str(n), text=text, lang="en", published_ms=0, sentiment="negative")
        for n, text in enumerate(texts)
    )
    return msgspec.structs.replace(FIRING, evidence=msgspec.structs.replace(FIRING.evidence, posts=posts))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_says_everything(language: str) -> None:
    own, english = phrases(language), phrases("en")
    assert own.keys() == english.keys()
    for name, text in english.items():
        fields = {field for _, field, _, _ in string.Formatter().parse(text) if field}
        assert {field for _, field, _, _ in string.Formatter().parse(own[name]) if field} == fields, name
    made = writer(language=language)
    message = made.alert(FIRING)
    assert "62" in message.title
    assert own["test"] in message.title
    assert f"{LINK}/#/incident/{FIRING.incident}" in message.body
    for post in FIRING.evidence.posts:
        assert post.text in message.body
    assert message.body.count("{") == 0
    assert made.alert(RESOLVED).title.startswith("✅")
    assert own["reminder"] in made.alert(FIRING, reminder=True).title
    sunk = msgspec.structs.replace(FIRING.evidence, unit="mean", observed=-0.42, expected=0.12)
    title = made.alert(msgspec.structs.replace(FIRING, evidence=sunk)).title
    assert "0.42" in title.replace(",", ".")
    assert "+0.12" in title.replace(",", ".")
    shift = msgspec.structs.replace(FIRING.evidence, unit="topic", topic="health", observed=0.31, expected=0.1)
    title = made.alert(msgspec.structs.replace(FIRING, evidence=shift)).title
    assert "31" in title
    assert "health" in title
    volume = msgspec.structs.replace(
        FIRING,
        signal="volume",
        evidence=msgspec.structs.replace(FIRING.evidence, unit="documents/h", observed=60, expected=10),
    )
    assert "6" in made.alert(volume).title


def test_incidents_of_several_entities_and_the_summary_of_one() -> None:
    several = msgspec.structs.replace(FIRING, entities=("acme", "globex", "other"), kind="story")
    made = writer()
    assert "Babelwatch test and 2 more: 62% negative" in made.alert(several).title
    assert "3 names at once" in made.alert(msgspec.structs.replace(several, kind="common")).title
    assert "part of a wider incident" in made.alert(msgspec.structs.replace(RESOLVED, merged_into="i")).title
    assert made.digest(Digest("daily", (several,), "k", "globex")).title == "📋 globex: summary of the day"
    assert made.digest(Digest("daily", (FIRING,), "k", FIRING.entity)).title == "📋 Babelwatch test: summary of the day"


def test_numbers_dates_and_names_of_languages_are_those_of_the_language() -> None:
    message = writer(language="de", time_zone="Europe/Berlin").alert(FIRING)
    assert "62\u00a0%" in message.title
    assert "Mo., 2. März 11:00" in message.body
    assert "Englisch, Türkisch" in message.body
    assert "48.200" in message.body


def test_a_right_to_left_message_stays_so_and_its_quotes_are_isolated() -> None:
    arabic = writer(language="ar").alert(FIRING)
    assert all(line.startswith(RLM) for line in arabic.body.splitlines() if line)
    assert 'dir="rtl"' in arabic.html
    assert f"{FSI}{FIRING.evidence.posts[0].text}{PDI}" in arabic.body
    english = writer().alert(FIRING)
    assert f"{FSI}{FIRING.evidence.posts[2].text}{PDI}" in english.body
    assert f"{FSI}{FIRING.evidence.posts[0].text}" not in english.body


def test_a_post_is_quoted_and_nothing_more() -> None:
    nasty = "<!channel> <at>all</at>\n\n@here <https://evil.example|click> <script>alert(1)</script> \u202eevil\u2066 {{ 7*7 }}"
    message = writer().alert(with_posts(nasty))
    line = next(line for line in message.body.splitlines() if "evil" in line)
    assert line.startswith("• [en]")
    for trick in ("<", ">", "@here", "\u202e", "\u2066", "49"):
        assert trick not in line
    assert "{{ 7*7 }}" in line
    assert "<script" not in message.html


def test_markdown_shows_the_text_as_it_is() -> None:
    shown = as_markdown("*a* _b_ [c](http://d) #e\nhttp://x/#a_b")
    assert shown == r"\*a\* \_b\_ \[c\](http://d) \#e" + "\n\n" + r"[http://x/\#a\_b](http://x/#a_b)"


@pytest.mark.parametrize("name", sorted(LIMITS))
@pytest.mark.parametrize(
    "text", ["plain words " * 300, "长文本没有空格" * 400, "👩‍👩‍👧‍👧" * 500, "नमस्ते " * 500, "ا" * 5000]
)
def test_every_channel_gets_what_it_takes_with_the_link(name: str, text: str) -> None:
    limit = LIMITS[name]
    made = writer(language="zh", posts=50)
    message = made.alert(with_posts(*[text] * 40), limit=limit)
    assert limit.measure(message.title) + limit.measure(message.body) <= limit.size
    assert message.body.endswith(f"{LINK}/#/incident/{FIRING.incident}")
    many = Digest(
        "burst",
        tuple(msgspec.structs.replace(FIRING, entity_name=text[:190], incident=str(n)) for n in range(300)),
        "k",
    )
    digest = made.digest(many, limit=limit)
    assert limit.measure(digest.title) + limit.measure(digest.body) <= limit.size
    assert LINK in digest.body
    assert "300" in digest.title


def test_what_does_not_fit_in_a_digest_is_counted() -> None:
    many = Digest("burst", tuple(msgspec.structs.replace(FIRING, incident=str(n)) for n in range(64)), "k")
    body = writer().digest(many, limit=Limit(2_000)).body
    shown = body.count("🟠")
    assert 1 <= shown < 64
    assert f"and {64 - shown} more" in body


@given(st.text(max_size=400), st.integers(0, 300), st.sampled_from([len, utf16_units, utf8_bytes]))
def test_a_cut_keeps_whole_characters_and_the_limit(text: str, size: int, measure: Any) -> None:
    cut = shorten(text, size, measure)
    assert measure(cut) <= size
    if cut != text:
        head = cut.removesuffix("…")
        characters = regex.findall(r"\X", text)
        starts = ["".join(characters[:n]) for n in range(len(characters) + 1)]
        assert head in {start.rstrip() for start in starts} | set(starts)


@given(st.text(min_size=60, max_size=400), st.integers(40, 200))
def test_a_cut_keeps_the_link(text: str, size: int) -> None:
    link = "https://s.example/#incident-1"
    cut = shorten(f"{text}\n{link}", size, keep=link)
    assert cut.endswith(link)
    assert len(cut) <= size


def test_own_template_replaces_the_text(tmp_path: Path) -> None:
    own = tmp_path / "short.txt"
    own.write_text(
        "{{ alert.entity_name }} {{ alert.evidence.observed | percent }}\n{% for p in posts %}> {{ p.text | quote }}\n{% endfor %}{{ link }}"
    )
    message = writer(template=own, language="tr", posts=1).alert(FIRING)
    assert message.title == "Babelwatch test %62"
    assert message.body == f"> {FIRING.evidence.posts[0].text}\n{LINK}/#/incident/{FIRING.incident}"
    assert message.html == ""


def test_own_template_may_change_a_part_of_ours(tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text('{% extends "message.txt" %}\n{% block title %}PR team: {{ headline(alert) }}{% endblock %}')
    message = writer(template=own).alert(FIRING)
    assert message.title == "PR team: Babelwatch test: 62% negative, usually 18%"
    assert FIRING.evidence.posts[0].text in message.body


@pytest.mark.parametrize(
    ("template", "place", "said"),
    [
        ("fine\n{% if x %}\nnever ends", ":3", "broken"),
        ("title\n\n{{ alert.nonsense }}", ":3", "nonsense"),
        ("title\n{{ alert.entity | no_such_filter }}", ":2", "no_such_filter"),
        ("title\n{% if alert.state == 'resolved' %}\n{{ unknown }}\n{% endif %}", ":3", "unknown"),
        ("title\n{{ ''.__class__.__mro__[1].__subclasses__() }}", ":2", "unsafe"),
        ("title\n{% include '../../../etc/passwd' %}", ":2", "passwd"),
        ("title\n{{ alert.labels.owner }}", ":2", "alert.labels.get"),
        ("{# nothing #}", "", "writes nothing"),
    ],
)
def test_a_broken_template_is_told_with_its_place(tmp_path: Path, template: str, place: str, said: str) -> None:
    own = tmp_path / "own.txt"
    own.write_text(template)
    with pytest.raises(ConfigError) as caught:
        writer(template=own)
    assert f"{own}{place}" in str(caught.value)
    assert said in str(caught.value)


def test_a_template_that_fails_on_one_alert_gives_way_to_ours(tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("{{ alert.entity_name }} {{ (100 / (alert.evidence.documents - 7)) | round }}")
    made = writer(template=own)
    assert made.alert(FIRING).title == "Babelwatch test 1.0"
    seven = msgspec.structs.replace(FIRING, evidence=msgspec.structs.replace(FIRING.evidence, documents=7))
    assert made.alert(seven).title.startswith("🟠")

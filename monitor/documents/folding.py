"""Text as it is compared: case, width, accents, vowel points and joiners taken out, the same for names and for posts."""

from __future__ import annotations

import re
import unicodedata

# Combining accents; Arabic vowel points and hamza signs; tatweel; Devanagari nukta; soft hyphen, zero-width and bidi
# marks; variation selectors. Vowel signs of Indic scripts and Thai are letters of the word and stay.
_DROPPED = re.compile(
    "[\u0300-\u036f\u064b-\u065f\u0670\u0640\u093c\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufe00-\ufe0f\ufeff]"
)
# Signs that Unicode calls letters or digits in a frame (™, ℹ, Ⓜ, ²): beside a name they are decoration, not its end.
_SIGNS = re.compile("[\u00b2\u00b3\u00b9\u2070-\u209f\u2100-\u214f\u2460-\u24ff\U0001f100-\U0001f1ff]")
# Letters that writers of Arabic, Persian and Turkish keyboards interchange.
_EQUAL = str.maketrans({"ى": "ي", "ی": "ي", "ک": "ك", "ة": "ه", "ٱ": "ا", "ı": "i", "ß": "ss"})
_NEEDS_EQUAL = re.compile("[ىیکةٱıß]")
_SPACES = re.compile(r"[\s_\-\u2010-\u2015\u00b7\u30fb]+")
_ASCII_SPACES = re.compile(r"[\s_\-]+")


def fold(text: str) -> str:
    """The form in which names and texts are compared.

    >>> fold("Ｎorthwind—AIR"), fold("İSTANBUL"), fold("أورفان"), fold("Café_Zoë")
    ('northwind air', 'istanbul', 'اورفان', 'cafe zoe')
    """
    if text.isascii():
        return _ASCII_SPACES.sub(" ", text.lower()).strip()
    folded = _DROPPED.sub("", unicodedata.normalize("NFKD", _SIGNS.sub(" ", text)).casefold())
    if _NEEDS_EQUAL.search(folded):
        folded = folded.translate(_EQUAL)
    return _SPACES.sub(" ", unicodedata.normalize("NFC", folded)).strip()

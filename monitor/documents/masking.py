"""Personal data out of texts before they leave the process: mail, phone, handles, cards, ids, IBANs, addresses of machines.

Precision matters as much as recall: prices, years, flight numbers and scores stay, or the evidence would be unreadable.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Callable, Collection
from urllib.parse import urlsplit, urlunsplit

from monitor.documents.folding import fold

# Digits of other scripts are written as ASCII ones for matching only; one character for one, so places agree.
_DIGITS = {
    code: str(value)
    for base in (0x0660, 0x06F0, 0x0966, 0x09E6, 0x0E50, 0xFF10)
    for value, code in enumerate(range(base, base + 10))
}
_WIDE = {0xFF20: "@", 0xFF0E: ".", 0xFF0B: "+", 0xFF0D: "-", 0xFF1A: ":", 0xFF0F: "/", 0x3000: " ", 0x00A0: " "}
_PLAIN = str.maketrans(_DIGITS | _WIDE)

_URL = re.compile(r"(?:https?://|www\.)[^\s<>\"'，。]+", re.IGNORECASE)
_MAIL = re.compile(r"[\w.+%-]+(?:@|\s?\[at\]\s?|\s?\(at\)\s?)[\w-]+(?:\.[\w-]+)+", re.IGNORECASE)
_HANDLE = re.compile(r"(?<![\w@/.])@\w[\w.]{0,63}(?<!\.)")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b")
_IPV6 = re.compile(r"(?<![\w:])[0-9a-f]{0,4}:[0-9a-f:.]{2,40}(?![\w:])", re.IGNORECASE)
_IPV4 = re.compile(r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.])")
_LONG_NUMBER = re.compile(r"(?<![\w.,])\+?\(?\d(?:[ \-./()]{0,2}\d){6,30}(?![\w])")
_DATE_OR_PRICE = re.compile(
    r"(?:\d{1,4}[./-]\d{1,2}[./-]\d{1,4}|\d{1,3}(?:[ .,]\d{3})+(?:[.,]\d{1,2})?|(?:19|20)\d\d[ /-]{1,3}(?:19|20)?\d\d)"
)

MIN_PHONE_DIGITS, MAX_PHONE_DIGITS = 8, 15
"""E.164 allows 15; below 8 a number is a price, a flight or a score more often than a telephone."""


def mask(text: str, keep_handles: Collection[str] = ()) -> str:
    """The text with personal data replaced by what it was: `<email>`, `<phone>`, `<user>` ...

    Args:
        text: As it was written.
        keep_handles: Folded @handles that are public names (the watched entities' own).

    >>> mask("call +44 20 7946 0958 or mail jo@example.org, flight 417 cost 1,299.00")
    'call <phone> or mail <email>, flight 417 cost 1,299.00'
    """
    plain = text.translate(_PLAIN) if not text.isascii() else text
    if not any(mark in plain for mark in "@:/.[(") and not _LONG_NUMBER.search(plain):
        return text
    text, plain = _replace(text, plain, _URL, lambda match: mask_url(match.group()))
    text, plain = _replace(text, plain, _MAIL, lambda _: "<email>")
    text, plain = _replace(
        text, plain, _HANDLE, lambda match: None if fold(match.group()) in keep_handles else "<user>"
    )
    text, plain = _replace(text, plain, _IBAN, lambda match: "<iban>" if _is_iban(match.group()) else None)
    text, plain = _replace(text, plain, _IPV4, lambda _: "<ip>")
    text, plain = _replace(text, plain, _IPV6, _ipv6)
    text, _ = _replace(text, plain, _LONG_NUMBER, _number)
    return text


def mask_url(url: str) -> str:
    """An address without what may name a person or hold a secret: user info, query and fragment.

    >>> mask_url("https://jo:pw@example.org/a?token=s3cret#x")
    'https://example.org/a'
    """
    if not url:
        return ""
    try:
        parts = urlsplit(url)
        if not parts.scheme:
            return url.split("?")[0].split("#")[0]
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit((parts.scheme, host, parts.path, "", ""))
    except ValueError:
        return "<url>"


def author_hash(author: str, key: bytes) -> str:
    """A keyed hash that stands for an author: equal for equal names, and of no use without the key; 64 bits in hex."""
    return hmac.new(key, author.encode(), hashlib.sha256).hexdigest()[:16] if author else ""


def _replace(
    text: str, plain: str, pattern: re.Pattern[str], by: Callable[[re.Match[str]], str | None]
) -> tuple[str, str]:
    """Replace matches found in `plain` at the same places of `text`; None leaves a match."""
    parts: list[str] = []
    plains: list[str] = []
    done = 0
    for match in pattern.finditer(plain):
        replacement = by(match)
        if replacement is None or replacement == match.group():
            continue
        parts += [text[done : match.start()], replacement]
        plains += [plain[done : match.start()], replacement]
        done = match.end()
    if not done:
        return text, plain
    return "".join([*parts, text[done:]]), "".join([*plains, plain[done:]])


def _number(match: re.Match[str]) -> str | None:
    """What a long number is, by its digits and how they are grouped; None for one that names nobody."""
    written = match.group()
    digits = re.sub(r"\D", "", written)
    if 13 <= len(digits) <= 19 and _luhn(digits):
        return "<card>"
    if _DATE_OR_PRICE.fullmatch(written.strip()):
        return None
    if written.startswith("+") or MIN_PHONE_DIGITS <= len(digits) <= MAX_PHONE_DIGITS:
        # Digits in one run that start with neither + nor 0 are more often an id (passport, account, order) than a phone.
        grouped = bool(re.search(r"\D", written.strip("+")))
        return "<phone>" if written.startswith(("+", "0", "(")) or grouped else "<id>"
    return "<id>" if len(digits) > MAX_PHONE_DIGITS else None


def _ipv6(match: re.Match[str]) -> str | None:
    """Times of day look alike; only a real address is one."""
    try:
        ipaddress.IPv6Address(match.group().rstrip(".:") if not match.group().endswith("::") else match.group())
    except ValueError:
        return None
    return "<ip>"


def _luhn(digits: str) -> bool:
    total = 0
    for place, ch in enumerate(reversed(digits)):
        value = int(ch) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _is_iban(written: str) -> bool:
    """ISO 13616: moved and spelt out as digits, the number is 1 modulo 97."""
    compact = written.replace(" ", "")
    return 15 <= len(compact) <= 34 and int("".join(str(int(ch, 36)) for ch in compact[4:] + compact[:4])) % 97 == 1

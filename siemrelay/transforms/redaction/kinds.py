"""Finds kinds of secrets in text by their form, and confirms them by their check digits.

Every pattern is bounded: no repetition in it is unlimited where something must follow, so that a
hostile text costs no more than its length (test_a_kind_takes_time_linear_in_the_text).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

from siemrelay.core.memo import BoundedMemo


class SecretSpan(NamedTuple):
    """A secret's place in a text, and its value in the one spelling that pseudonyms go by."""

    start: int
    end: int
    value: str


Finder = Callable[[str], Iterator[SecretSpan]]
"""Finds all of a kind in a text, in order and without overlaps."""


class Kind(NamedTuple):
    """One kind of secret. Where `hint` finds nothing, `find` would not either; it is faster."""

    find: Finder
    hint: Callable[[str], object]
    names: Callable[[str], object] | None = None
    """Whether the value under a key of that name is such a secret, whatever it looks like."""


# A search in a very long text holds up every other thread until it has found something. It is done
# in windows of so many characters; what begins in the last ones is looked for again in the next.
_WINDOW: Final = 1 << 16
_MARGIN: Final = 1 << 13


def long_matches(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """As `finditer`, with a bound on each search.

    It finds the same of patterns that end at the end of a text rather than not at all, and in
    which at most `_MARGIN` characters must come before that.
    """
    at, size = 0, _WINDOW
    while at < len(text):
        end = min(at + size, len(text))
        is_last = end == len(text)
        sure, start = end if is_last else end - _MARGIN, at
        for match in pattern.finditer(text, at, end):
            start = match.start()
            if start >= sure or (match.end() == end and not is_last):
                break
            yield match
            at = match.end()
        else:
            if is_last:
                return
            at, size = max(at, sure), _WINDOW
            continue
        # What is cut at the end begins the next window; if it fills this one, in a larger one.
        at, size = (start, _WINDOW) if start > at else (start, size * 2)


# -- e-mail addresses (RFC 5321, 4.5.3.1: 64 characters before the @), also percent-encoded --

_EMAIL: Final = re.compile(
    r"(?:(?<![\w.%+-])|(?<=%[0-9A-Fa-f]{2}))[\w.%+'-]{1,64}?(?:@|%40)(?:[\w-]{1,63}\.){1,8}[^\W\d_][\w-]{0,62}[^\W_]"
)


def _emails(text: str) -> Iterator[SecretSpan]:
    for match in long_matches(_EMAIL, text):
        yield SecretSpan(*match.span(), match[0].replace("%40", "@").casefold())


# -- payment cards (ISO/IEC 7812: 13 to 19 digits here, the last one by Luhn) --

# Beside a letter they are a part of an identifier, of which one in ten would be right by Luhn.
# A longer run is taken in pieces, so that no search takes long.
_MOST_DIGITS: Final = 4000
_DIGITS: Final = re.compile(
    rf"(?<![0-9A-Za-z])[0-9](?:[ -]?[0-9]){{12,{_MOST_DIGITS}}}(?![0-9A-Za-z])"
)
_NOT_DIGITS: Final = bytes(ord("0") if 48 <= code <= 57 else ord(".") for code in range(256))
"""Digits as `0`, everything else as `.`."""


def _many_digits(text: str) -> bool:
    # By hand: a regular expression would try at every digit.
    return b"0" * _CARD_DIGITS[0] in text.encode("ascii", "replace").translate(_NOT_DIGITS, b" -")


_GROUP: Final = re.compile(r"[0-9]+")
_CARD_DIGITS: Final = range(13, 20)
_CARD_CHARACTERS: Final = 2 * _CARD_DIGITS[-1]
_ISSUERS: Final = frozenset("23456")


def _cards(text: str) -> Iterator[SecretSpan]:
    at = 0
    while (run := _DIGITS.search(text, at)) is not None:
        groups = [match.span() for match in _GROUP.finditer(text, *run.span())]
        is_cut = run.end() - run.start() >= _MOST_DIGITS
        sure = run.end() - (_CARD_CHARACTERS if is_cut else 0)
        at = sure
        for span in _cards_in(text, groups):
            if span.start >= sure:
                break
            yield span
            at = max(at, span.end)
        if is_cut:
            at = next((start for start, _ in groups if start >= at), run.end())


def _cards_in(text: str, groups: list[tuple[int, int]]) -> Iterator[SecretSpan]:
    digits = "".join([text[start:end] for start, end in groups])
    # Where each group ends among the digits alone.
    ends = list(accumulate(end - start for start, end in groups))
    at = first = shortest = 0
    while first < len(groups):
        last = None
        while shortest < len(groups) and ends[shortest] - at < _CARD_DIGITS[0]:
            shortest += 1
        if digits[at] in _ISSUERS:
            last = _longest_card(digits, ends, at, shortest)
        if last is not None:
            number = digits[at : ends[last]]
            yield SecretSpan(groups[first][0], groups[last][1], number)
            first = last
        at, first = ends[first], first + 1


def _longest_card(digits: str, ends: list[int], at: int, shortest: int) -> int | None:
    """The last group of the longest card number that begins there."""
    found = None
    for group in range(shortest, len(ends)):
        if ends[group] - at > _CARD_DIGITS[-1]:
            break
        if _luhn(digits[at : ends[group]]):
            found = group
    return found


_DOUBLED: Final = bytes.maketrans(b"0123456789", b"0246813579")


def _luhn(number: str) -> bool:
    digits = number.encode("ascii")
    total = sum(digits[-1::-2]) + sum(digits[-2::-2].translate(_DOUBLED))
    return (total - len(digits) * ord("0")) % 10 == 0


# -- IBANs (ISO 13616: each country has its length; the check digits are modulo 97) --

_IBAN_LENGTHS: Final = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FK FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV", 22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST", 26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB NI PL SV", 29: "BR EG PS QA UA",
        30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip
_IBAN: Final = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]){11,30}(?<![ -])")
_LETTER_OR_DIGIT: Final = bytes(
    ord("A") if 65 <= code <= 90 else ord("0") if 48 <= code <= 57
    else ord("a") if 97 <= code <= 122 else ord(".")
    for code in range(256)
)  # fmt: skip
"""Capital letters as `A`, other letters as `a`, digits as `0`, everything else as `.`."""


def _begins_as_iban(text: str) -> bool:
    return b".AA00" in b"." + text.encode("ascii", "replace").translate(_LETTER_OR_DIGIT)


def _ibans(text: str) -> Iterator[SecretSpan]:
    at = 0
    while (match := _IBAN.search(text, at)) is not None:
        length = _IBAN_LENGTHS.get(match[0][:2], 0)
        compact = match[0].replace(" ", "").replace("-", "")[:length]
        at = match.start() + 4
        if len(compact) == length and length and _modulo_97(compact):
            end = match.start()
            for _ in range(length):
                end += 1 + (text[end] in " -")
            if end == len(text) or not text[end].isalnum():
                yield SecretSpan(match.start(), end, compact)
                at = end


_BASE_36: Final = {ord(c): str(int(c, 36)) for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


def _modulo_97(iban: str) -> bool:
    return int((iban[4:] + iban[:4]).translate(_BASE_36)) % 97 == 1


# -- tokens and keys --

_TOKEN: Final = re.compile(
    r"(?i:\b(?:bearer|basic|token|splunk|apikey)[ \t]{1,8})(?P<value>[A-Za-z0-9._~+/=-]{8,})"
    r"|\b(?P<jwt>eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,3})"
    r"|\b(?P<key>(?:AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{20,}"
    r"|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}|xox[abeprs]-[A-Za-z0-9-]{10,}"
    r"|(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}|AIza[A-Za-z0-9_-]{30,}"
    r"|hv[sb]\.[A-Za-z0-9_-]{20,})"
    r"|(?P<pem>-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,32}-----|\Z))",
    re.DOTALL,
)
_TOKEN_HINTS: Final = (
    "bearer", "basic", "token", "splunk", "apikey", "eyj", "akia", "asia", "ghp_", "gho_", "ghu_",
    "ghs_", "ghr_", "github_pat_", "glpat-", "xox", "_live_", "_test_", "aiza", "hvs.", "hvb.",
    "private key",
)  # fmt: skip


def _holds(parts: Sequence[str]) -> Callable[[str], bool]:
    """Whether a text has one of the parts, in whatever case; far faster than a pattern."""

    def holds(text: str) -> bool:
        small = text.lower()
        return any(part in small for part in parts)

    return holds


def _named_groups(pattern: re.Pattern[str]) -> Finder:
    def find(text: str) -> Iterator[SecretSpan]:
        for match in long_matches(pattern, text):
            name = match.lastgroup
            assert name is not None
            yield SecretSpan(*match.span(name), match[name])

    return find


# -- passwords, where the text says that one follows --

_NAMES: Final = (
    r"pass(?:word|wd|phrase|code)?|pwd|secret|client[_ -]?secret|api[_ -]?key|access[_ -]?key"
    r"|private[_ -]?key|(?:access|auth|refresh|session|id)[_ -]?token|credentials?|authorization"
)
_CAMEL: Final = r"Pass(?:word|wd|phrase|code)|Pwd|Secret|ApiKey|AccessKey|(?:Access|Auth)Token"
_PASSWORD: Final = re.compile(
    r"(?<![A-Za-z0-9_.-])(?:"
    rf"(?:[A-Za-z0-9_.-]{{0,60}}[_.-])?(?i:{_NAMES})|[A-Za-z0-9_.-]{{1,60}}?(?:{_CAMEL})"
    r")\\?[\"']?[ \t]{0,8}(?:[:=]|\bis\b)[ \t]{0,8}(?i:bearer[ \t]|basic[ \t])?"
    r"(?:\[[ \t]{0,8}(?=\\?[\"']))?"
    r"(?:\\\"(?P<escaped>(?:[^\"\\]|\\[^\"])+)|\"(?P<double>(?:[^\"\\]|\\.)+)"
    r"|'(?P<single>[^']+)|(?P<bare>[^\s,;&\"'\\)\]}]+))"
    # `--password hunter2`, and what stands in `postgres://user:hunter2@host`
    rf"|(?<![A-Za-z0-9_.-])--?(?:[A-Za-z0-9_.-]{{0,60}}[_.-])?(?i:{_NAMES})[ \t]{{1,8}}"
    r"[\"']?(?P<option>[^\s\"'-][^\s\"']*)"
    r"|://[^\s/:@\"']{0,64}:(?P<url>[^\s/\"']{1,128})@",
    re.DOTALL,
)
_PASSWORD_HINTS: Final = (
    "pass", "pwd", "secret", "key", "token", "credential", "authorization", "jwt", "cookie",
)  # fmt: skip
_SECRET_NAME: Final = re.compile(
    rf"(?:.{{0,60}}[_. -])?(?i:(?:{_NAMES})s?|token|jwt|(?:set-)?cookie)|.{{1,60}}(?:{_CAMEL})"
).fullmatch


_names_follow: Final = _holds(_PASSWORD_HINTS)


def _may_hold_password(text: str) -> bool:
    return _names_follow(text) or ("://" in text and "@" in text)


def _names_password(name: str) -> bool:
    return _SECRET_NAME(name) is not None


_PASSWORD_NAME: Final = BoundedMemo(_names_password).__getitem__


KINDS: Final[dict[str, Kind]] = {
    "email": Kind(_emails, lambda text: "@" in text or "%40" in text),
    "card": Kind(_cards, _many_digits),
    "iban": Kind(_ibans, _begins_as_iban),
    "token": Kind(_named_groups(_TOKEN), _holds(_TOKEN_HINTS)),
    "password": Kind(_named_groups(_PASSWORD), _may_hold_password, _PASSWORD_NAME),
}
"""The kinds by their name in the configuration."""

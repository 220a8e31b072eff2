r"""`key=value key="quoted value"`: messages made of pairs, and pairs inside prose.

Who may choose a value (a user name, a URL) must not choose the event. So a message is structure by
itself only if it is pairs from its beginning to its end:

- an unquoted value ends at white space; a comma or semicolon before that separates pairs;
- a value in `"` or `'` ends at the same quote without a backslash before it, and white space, a
  comma or a semicolon must follow;
- anything that is left over makes the message prose, and so does a lone pair.

Where a key comes twice the first one counts, and the whole text is the event's message.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from siemrelay.decoders.escapes import unescape
from siemrelay.decoders.fields import MOST_PAIRS, first_of_each

_NAME: Final = r"[A-Za-z_@][A-Za-z0-9_.@-]{0,63}"
_DOUBLE: Final = r'[^"\\]*+(?:\\.[^"\\]*+)*+'
_SINGLE: Final = r"[^'\\]*+(?:\\.[^'\\]*+)*+"
# White space, a comma or a semicolon stands before and after a pair; among words brackets, too.
_WHOLE: Final = re.compile(
    rf"""(?<![^\s,;])({_NAME})=(?:"({_DOUBLE})"|'({_SINGLE})'|((?!["'])[^\s"]*+))(?=[\s,;]|\Z)""",
    re.DOTALL,
)
_GROUPS: Final = 4
_AROUND: Final = " \t\r\n\v\f,;"
_END: Final = r"(?=[\s,;\])}]|\Z)"
# After a quote that does not end as it should, the rest of the message is that value: nothing in
# it becomes a pair.
_AMONG_WORDS: Final = re.compile(
    rf"(?<![^\s,;\[({{])({_NAME})="
    rf"""(?:"({_DOUBLE})"{_END}|'({_SINGLE})'{_END}|(["'].*)"""
    rf"""|([^\s,;"]*+(?:[,;](?!\s|\Z|{_NAME}=)[^\s,;"]*+)*){_END})""",
    re.DOTALL,
)
_BRACKETS: Final = {"]": "[", ")": "(", "}": "{"}
_ESCAPES: Final = ((b'\\"', b'"'), (b"\\'", b"'"), (b"\\]", b"]"))

# `Type: message (id="…" time="…")`: what `format: rfc3164` writes.
_QUOTED: Final = rf'{_NAME}="{_DOUBLE}"'
_OWN: Final = re.compile(
    rf'([^:()"]{{1,256}})(?:: (.*))? \(({_QUOTED}(?: {_QUOTED})*+)\)', re.DOTALL
)
_OWN_END: Final = '")'

_CHECK_POINT: Final = re.compile(
    rf'\[(?:[A-Za-z_][\w.-]{{0,63}}:"{_DOUBLE}"(?:; ?|(?=\]\Z)))++\]', re.DOTALL
)
_CHECK_POINT_PAIR: Final = re.compile(rf'([A-Za-z_][\w.-]{{0,63}}):"({_DOUBLE})"', re.DOTALL)

_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_CLOCK: Final = re.compile(r"\d\d:\d\d:\d\d(?:\.\d+)?", re.ASCII)
_ZONES: Final = ("tz", "timezone")

# SonicWall's, an address with its port and interface.
_ENDPOINT: Final = re.compile(
    r"(\d{1,3}(?:\.\d{1,3}){3}):(\d{0,5})(?::([^:\s]{0,64}))?(?::\S{0,255})?"
)

_ABSENT: Final = frozenset({"N/A", "n/a", "-", "null", "NULL", "(null)"})
"""Values that devices write for none."""

# One pair may be all that a message of words comes to; two are a record.
_LEAST: Final = 2


def whole_pairs(text: str) -> dict[str, Any] | None:
    """The pairs of a message that is nothing but pairs, and the message itself; None if it is not.

    A message with more than `MOST_PAIRS` equals signs is not looked into.
    """
    if not _LEAST <= text.count("=") <= MOST_PAIRS:
        return None
    if len(text[: text.index("=")].split(None, 1)) != 1:
        return None  # it begins with words: nearly all prose ends here
    parts = _WHOLE.split(text)
    if "".join(parts[:: _GROUPS + 1]).strip(_AROUND):
        return None
    names, *columns = (parts[i :: _GROUPS + 1] for i in range(1, _GROUPS + 1))
    values = [
        quoted or other or (plain.rstrip(",;") if plain else "")
        for quoted, other, plain in zip(*columns, strict=True)
    ]
    if "\\" in text:
        # Only a quoted value has escapes: in an unquoted one a backslash is itself.
        values = [value if plain is not None else unescape(value, _ESCAPES)
                  for value, plain in zip(values, columns[-1], strict=True)]  # fmt: skip
    return _record(names, values, text)


def check_point_pairs(text: str) -> dict[str, Any] | None:
    """The pairs of `[name:"value"; name:"value"]`, Check Point's; None if it is anything else."""
    if not text.startswith("[") or text.count('"') > 2 * MOST_PAIRS:
        return None
    whole = _CHECK_POINT.fullmatch(text)
    if whole is None:
        return None
    found = _CHECK_POINT_PAIR.findall(text)
    values = [unescape(value, _ESCAPES) for _, value in found]
    return _record([name for name, _ in found], values, text)


def _record(names: Sequence[str], values: Sequence[str], text: str) -> dict[str, Any] | None:
    """The pairs with a message; None if they are too few for a record."""
    pairs: dict[str, Any] = first_of_each(names, values)
    if len(pairs) < _LEAST:
        return None
    if len(pairs) < len(names):  # the message says more than the pairs do
        pairs["message"] = text
    elif "msg" not in pairs:  # as long as it names no message of its own, it is the message
        pairs.setdefault("message", text)
    return pairs


def normalise_device_pairs(pairs: dict[str, Any] | None) -> dict[str, Any] | None:
    """Pairs of a device with one `time`, and without the fields whose value says "none".

    FortiGate and Sophos write the day, the clock and the zone apart, SonicWall an address together
    with its port and interface. `N/A` and the like stay among
    the attributes.
    """
    if pairs is None:
        return None
    if (
        "date" in pairs and "time" in pairs
        and _DAY.fullmatch(pairs["date"]) and _CLOCK.fullmatch(pairs["time"])
    ):  # fmt: skip
        zone = next((pairs.pop(name) for name in _ZONES if name in pairs), "")
        pairs["time"] = f"{pairs.pop('date')} {pairs['time']}{zone and f' {zone}'}"
    for name in ("src", "dst"):
        endpoint = _ENDPOINT.fullmatch(pairs[name]) if ":" in pairs.get(name, "") else None
        if endpoint is not None:
            pairs[name] = endpoint[1]
            parts = {f"{name}_port": endpoint[2], f"{name}_interface": endpoint[3]}
            pairs |= {key: value for key, value in parts.items() if value and key not in pairs}
    if not _ABSENT.isdisjoint(pairs.values()):
        absent = {name: value for name, value in pairs.items() if value in _ABSENT}
        pairs = {name: value for name, value in pairs.items() if name not in absent}
        pairs["attributes"] = absent
    return pairs


def declared_pairs(text: str) -> dict[str, Any] | None:
    """The pairs of a message whose source is declared to write pairs; None if it has none.

    Words between them are passed over. Lines of this relay's own `format: rfc3164` are read, too.
    """
    pairs = whole_pairs(text)
    if pairs is not None:
        return pairs
    own = _OWN.fullmatch(text) if text.endswith(_OWN_END) else None
    pairs = pairs_in_text(own[3] if own else text)
    if own is not None:
        pairs["type"] = own[1]
        if own[2] is not None:
            pairs["message"] = own[2]
    if pairs:
        pairs.setdefault("message", text)
    return pairs or None


def pairs_in_text(text: str) -> dict[str, Any]:
    """The pairs among the words of a message: for people to search by, never an event's own fields.

    A message with more than `MOST_PAIRS` equals signs is not looked into.
    """
    if not 0 < text.count("=") <= MOST_PAIRS:
        return {}
    found = _AMONG_WORDS.findall(text)
    values = [
        unescape(double or single, _ESCAPES) or rest or _trimmed(plain)
        for _, double, single, rest, plain in found
    ]
    return first_of_each([name for name, *_ in found], values)


def _trimmed(value: str) -> str:
    """An unquoted value without the comma or the bracket that closes around it."""
    value = value.rstrip(",;")
    opened = _BRACKETS.get(value[-1:])
    return value if opened is None or opened in value else value[:-1]

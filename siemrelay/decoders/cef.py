"""ArcSight's Common Event Format: `CEF:0|Vendor|Product|Version|Id|Name|Severity|key=value …`.

Rules: ArcSight CEF implementation standard, revision 26. Read as written by those who follow it
loosely, too: a value may have unescaped `=` and spaces, and ends where the next key begins.
"""

from __future__ import annotations

import re
from typing import Any, Final

from siemrelay.decoders.escapes import unescape
from siemrelay.decoders.fields import MOST_PAIRS, first_of_each, with_extension

_HEADER: Final = re.compile(
    r"CEF: ?\d{1,3}(?:\.\d)?\|" + r"\|".join([r"([^|\\]*+(?:\\.[^|\\]*+)*+)"] * 6) + r"(?:\||$)",
    re.DOTALL,
)
_KEY: Final = re.compile(r"\s([A-Za-z0-9_.\[\]-]{1,255})=")
_ESCAPES: Final = ((b"\\=", b"="), (b"\\|", b"|"), (b"\\n", b"\n"), (b"\\r", b"\r"))

_FIELDS: Final = {
    "externalId": "id", "rt": "time", "cat": "category", "outcome": "outcome",
    "suser": "actor.name", "suid": "actor.id", "src": "actor.address", "msg": "message",
    "duser": "target.name", "duid": "target.id",
}  # fmt: skip
"""CEF's keys for an event's fields."""

# Where an address is no IPv4 one it stands elsewhere.
_ADDRESSES: Final = ("c6a2", "shost")

_SEVERITIES: Final = {"unknown": "3", "low": "2", "medium": "5", "high": "8", "very-high": "10"}


def cef_fields(text: str) -> dict[str, Any] | None:
    """The fields of a CEF message under the event's names, the others as they are; None if none.

    Name and severity are the header's. Where a key comes twice the first one counts, and the whole
    text is the message; so it is where text is before the first key. A message with more than
    `MOST_PAIRS` equals signs is not looked into.
    """
    match = _HEADER.match(text)
    if match is None or text.count("=") > MOST_PAIRS:
        return None
    plain = _plain if "\\" in text else str
    vendor, product, version, signature, name, severity = map(plain, match.groups())
    before, *pairs = _KEY.split(f" {text[match.end() :]}")
    own = first_of_each(pairs[::2], [plain(value.rstrip(" \r\n\0")) for value in pairs[1::2]])
    fields: dict[str, Any] = {"type": name or signature}
    fields["severity"] = _SEVERITIES.get(severity.strip().casefold(), severity.strip())
    fields |= {_FIELDS[key]: value for key, value in own.items() if key in _FIELDS}
    # The message says more than its pairs do: a key twice, or text before the first one, as there
    # is where somebody writes `|` into the header without its escape.
    if len(own) < len(pairs) // 2 or before.strip():
        fields["message"] = text
    others = {key: value for key, value in own.items() if key not in _FIELDS}
    for key in _ADDRESSES:
        if others.get(key) and not fields.get("actor.address"):
            fields["actor.address"] = others.pop(key)
            others.pop(f"{key}Label", None)
    device = {"vendor": vendor, "product": product, "version": version}
    if signature != name:
        device["signature"] = signature
    fields["device"] = device
    return with_extension(fields, others, "cef")


def _plain(text: str) -> str:
    return unescape(text, _ESCAPES)

"""IBM QRadar's Log Event Extended Format, versions 1.0 and 2.0.

`LEEF:2.0|Vendor|Product|Version|EventID|DELIMITER|key=value<DELIMITER>key=value …`. Rules: IBM's
LEEF guide; version 1.0 has no delimiter field, it is the tab.
"""

from __future__ import annotations

import re
from typing import Any, Final

from siemrelay.decoders.fields import MOST_PAIRS, with_extension
from siemrelay.decoders.times import time_by_pattern

_HEADER: Final = re.compile(r"LEEF: ?([12])\.\d\|([^|]*)\|([^|]*)\|([^|]*)\|([^|]*)(?:\||$)")
_DELIMITER: Final = re.compile(r"(?:0?x([0-9A-Fa-f]{2,4})|([^|]?))\|")

_FIELDS: Final = {
    "externalId": "id", "devTime": "time", "cat": "category", "sev": "severity",
    "outcome": "outcome", "usrName": "actor.name", "usrId": "actor.id", "src": "actor.address",
    "resource": "target.name", "resourceType": "target.type", "resourceId": "target.id",
    "msg": "message",
}  # fmt: skip
"""LEEF's keys for an event's fields."""


def leef_fields(text: str) -> dict[str, Any] | None:
    """The fields of a LEEF message under the event's names, others as they are; None if none.

    The type is the header's. Where a key comes twice the first one counts, and the whole text
    is the message; so it is where text without a key is among the pairs. A message with more than
    `MOST_PAIRS` pairs is not looked into.
    """
    match = _HEADER.match(text)
    if match is None:
        return None
    version, vendor, product, product_version, event_id = match.groups()
    rest, delimiter = text[match.end() :], "\t"
    if version == "2":
        named = _DELIMITER.match(rest)
        if named is not None:
            rest = rest[named.end() :]
            delimiter = chr(int(named[1], 16)) if named[1] else named[2] or "\t"
    if rest.count(delimiter) > MOST_PAIRS:
        return None
    pairs, said = dict[str, str](), 0
    for pair in rest.rstrip("\r\n\0").split(delimiter):
        key, equals, value = pair.strip(" ").partition("=")
        said += bool(key)
        if equals and key:
            pairs.setdefault(key, value)
    names = len(pairs)
    pattern = pairs.pop("devTimeFormat", None)
    if pattern is not None and "devTime" in pairs:
        pairs["devTime"] = time_by_pattern(pairs["devTime"], pattern) or pairs["devTime"]
    if pairs.get("identHostName") and not pairs.get("src"):
        pairs["src"] = pairs.pop("identHostName")
    fields: dict[str, Any] = {"type": event_id}
    fields |= {_FIELDS[key]: value for key, value in pairs.items() if key in _FIELDS}
    if names < said:  # the message says more than its pairs do
        fields["message"] = text
    fields["device"] = {"vendor": vendor, "product": product, "version": product_version}
    others: dict[str, Any] = {key: v for key, v in pairs.items() if key not in _FIELDS}
    return with_extension(fields, others, "leef")

"""What records and events can hold: for the properties of decoders and formats."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import strategies as st

from siemrelay.core.event import Actor, AuditEvent, Batch, DecodedBatch, Selection, Target
from siemrelay.decoders.fields import Spellings
from siemrelay.products.product import BUILT_IN
from tests.support.events.products import GENERIC

SPECIAL = "|=\\\"'[](){}<>,;: \0\a\b\t\n\v\f\r\x1b\x7f\x85\u00a0\u2028\u2029\ufeffé渡😀"

SPELLINGS: dict[str, Spellings] = {
    **{name: BUILT_IN[name].spellings for name in ("generic", "alm", "lightrun", "journal")},
    # These step into lists and make texts of several values.
    **{name: BUILT_IN[name].spellings for name in ("okta", "windows")},
    # As `fields:` puts the user's own paths before the common ones.
    "fields": {
        **GENERIC,
        "type": ("eventName", *GENERIC["type"]),
        "actor.name": ("user.email", *GENERIC["actor.name"]),
        "target.name": ("request.target.name", *GENERIC["target.name"]),
        "message": ("attributes.note", *GENERIC["message"]),
    },
    "one path twice": {**GENERIC, "message": ("action",), "type": ("action",)},
    "odd names": {**GENERIC, "type": ('a "b"', "type"), "id": ("a.b.c", "é", "id")},
}


HOSTILE: dict[str, bytes] = {
    "nothing": b"",
    "space": b" \t ",
    "a NUL": b"\0",
    "a NUL in a text": b'{"type":"a\0b"}',
    "no UTF-8": b"\xff\xfe\x80",
    "no UTF-8 in a text": b'{"type":"a\xff","message":"\xc3("}',
    "a half line": b'{"type":"Account Prov',
    "two values": b'{"type":"a"}{"type":"b"}',
    "an array": b'[{"type":"a"}]',
    "a text": b'"type"',
    "a number": b"17",
    "null": b"null",
    "an empty object": b"{}",
    "a trailing comma": b'{"type":"a",}',
    "an unquoted key": b"{type:1}",
    "nested arrays": b"[" * 100_000 + b"]" * 100_000,
    "nested objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "nested in a field": b'{"type":"x","a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nested but not closed": b'{"type":' + b"[" * 100_000,
    "nested as far as it goes": b'{"type":"x","a":' + b"[" * 800 + b"]" * 800 + b"}",
    "a long integer": b'{"severity":' + b"9" * 5000 + b',"time":' + b"9" * 5000 + b"}",
    "a large number": b'{"severity":1e999,"time":-1e999,"outcome":1e999,"id":1e999}',
    "no number": b'{"severity":NaN,"time":Infinity,"outcome":-Infinity,"type":NaN}',
    "half a surrogate pair": b'{"type":"\\ud800","message":"\\udc00","\\ud800":"\\udfff"}',
    "a byte order mark": b'\xef\xbb\xbf{"type":"a"}',
    "the same key twice": b'{"type":"a","type":"b"}',
    "numbers for texts": b'{"type":1,"id":2,"message":3.5,"actor":{"name":true,"id":0}}',
    "objects for texts": b'{"type":{"a":1},"id":[],"message":{},"actor":{"name":{}}}',
    "nulls": b'{"type":null,"id":null,"actor":null,"target":{"name":null}}',
    "a control character": b'{"type":"a","message":"tab\there"}',
    "space around": b' \t{"type":"a"}\t \r',
}
"""What may stand on a line where a record belongs."""


def texts(max_size: int = 30) -> st.SearchStrategy[str]:
    """Texts in which every character that means something somewhere is common."""
    characters = st.one_of(
        st.sampled_from(SPECIAL), st.sampled_from("abc xyz019"), st.characters(codec="utf-8")
    )
    return st.one_of(
        st.text(characters, max_size=max_size),
        st.sampled_from(
            ["", " ", "-", "x=y suser=root", "a|b", "a\nCEF:0|forged", "\\", "a\\", "]"]
        ),
    )


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.integers(-2, 12),
    st.floats(allow_nan=False, allow_infinity=False), texts(),
)  # fmt: skip
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(8), inner, max_size=3),
    max_leaves=6,
)
ATTRIBUTES = st.dictionaries(texts(12), JSON, max_size=4)


def _raw(attributes: dict[str, Any]) -> msgspec.Raw | dict[str, Any]:
    try:
        return msgspec.Raw(msgspec.json.encode(attributes))
    except UnicodeEncodeError:
        return attributes


TIMES = st.one_of(
    st.datetimes().map(lambda t: t.isoformat(timespec="milliseconds") + "Z"),
    st.builds(
        lambda t, zone: t.isoformat() + zone,
        st.datetimes(), st.sampled_from(["Z", "+00:00", "-00:00", "+14:00", "-11:30"]),
    ),
)  # fmt: skip
"""RFC 3339, as decoders promise it; the years 1 and 9999 among them."""

_TYPES = texts().filter(bool) | st.sampled_from(["Account Provisioned", "a|b=c\\d\ne"])
_MAYBE = st.none() | texts()
ADDRESSES = st.one_of(
    _MAYBE, st.ip_addresses().map(str), st.sampled_from(["10.0.0.1", "010.0.0.1", "fe80::1%eth0"])
)

EVENTS = st.builds(
    AuditEvent,
    id=texts(),
    time=TIMES,
    type=_TYPES,
    category=texts(),
    severity=st.integers(0, 10),
    outcome=st.sampled_from(["success", "failure", "unknown"]),
    actor=st.builds(Actor, _MAYBE, _MAYBE, ADDRESSES),
    target=st.builds(Target, _MAYBE, _MAYBE, _MAYBE),
    message=_MAYBE | texts(2000),
    attributes=st.one_of(st.none(), ATTRIBUTES, ATTRIBUTES.map(_raw)),
)
"""Any event that keeps the promises of a decoder."""


def batch_of(
    records: list[bytes], first_sequence: int = 1, received_at: float = 1_700_000_000.25
) -> Batch:
    """These records as one batch of the source `test`."""
    payload = b"".join(record + b"\n" for record in records)
    return Batch(first_sequence, len(records), "test", received_at, payload)


def selection_of(events: list[AuditEvent], records: list[bytes] | None = None) -> Selection:
    """All of these events, as if they had been decoded of the records."""
    batch = batch_of(records or [b"{}"] * len(events), first_sequence=7)
    return Selection(DecodedBatch(batch, events))


def written(record: dict[str, Any]) -> bytes:
    """A record as its source would write it."""
    return json.dumps(record, separators=(",", ":")).encode()


_PATHS = sorted({path for paths in GENERIC.values() for path in paths})
_OTHER_PATHS = ["user.email", "eventName", "request.target.name", "attributes.note", "a.b.c", "é",
                "attributes", "actor", "user", "target", "other", "attributes.other"]  # fmt: skip
_USUAL = ["id", "time", "type", "category", "severity", "outcome", "actor.name", "actor.id",
          "actor.address", "target.type", "target.name", "target.id", "message",
          "attributes.region"]  # fmt: skip
_VALUES = {
    "text": st.sampled_from(["x", "é", "true", "2024-03-01T08:00:00Z", "failed", "high"]),
    "integer": st.integers(0, 12) | st.just(10**25),
    "float": st.sampled_from([0.5, 3.0, 1e300]),
    "boolean": st.booleans(),
}
_SURPRISES = st.one_of(
    st.none(), st.just(""), st.booleans(), st.integers(0, 3), st.just(1.5), st.just("y"),
    st.lists(st.integers(0, 1), max_size=1),
    st.dictionaries(st.sampled_from(["name", "id", "other"]), st.none() | st.just("z")),
)  # fmt: skip


def put(record: dict[str, Any], path: str, value: Any) -> None:
    """Sets the value at a dotted path, objects made as needed, scalars left in peace."""
    *parents, last = path.split(".")
    for name in parents:
        inner = record.setdefault(name, {})
        if not isinstance(inner, dict):
            return
        record = inner
    record[last] = value


@st.composite
def alike(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Records of one make, and others of nearly that make, in which anything may differ."""
    paths = st.sampled_from(_USUAL) | st.sampled_from(_PATHS) | st.sampled_from(_OTHER_PATHS)
    kinds = draw(st.dictionaries(paths, st.sampled_from(sorted(_VALUES)[-1:] * 4 + sorted(_VALUES)),
                                 min_size=1, max_size=9))  # fmt: skip
    optional = draw(st.sets(st.sampled_from(sorted(kinds)), max_size=2))

    def one(surprised: bool) -> dict[str, Any]:
        record: dict[str, Any] = {}
        for path, kind in kinds.items():
            if path not in optional or draw(st.booleans()):
                put(record, path, draw(_VALUES[kind]))
        if surprised:
            for path in draw(st.lists(st.sampled_from(sorted(kinds)) | paths, max_size=2)):
                if draw(st.booleans()):
                    put(record, path, draw(_SURPRISES))
                else:
                    record[path] = draw(_SURPRISES)
        return record

    sample = [one(False) for _ in range(draw(st.integers(1, 3)))]
    return sample, [one(draw(st.booleans())) for _ in range(draw(st.integers(1, 4)))]


RECORDS = st.lists(
    st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"")) | texts().map(
        lambda text: text.encode("utf-8", "replace").replace(b"\n", b"")
    ),
    min_size=3, max_size=3,
)  # fmt: skip
"""Three records of any bytes."""

CUT_MESSAGES: dict[str, st.SearchStrategy[Any]] = {
    "messages": st.lists(
        st.builds(lambda head, much: b'{"' + head + much * b"x", st.binary(), st.integers(0, 5000)),
        max_size=8,
    ),
    "datagram_bytes": st.integers(512, 8192),
    "compress": st.booleans(),
    "shuffle": st.randoms(),
    "first_id": st.integers(0, 2**64 - 1),
}
"""GELF messages, how they are cut into datagrams, and in which order these arrive."""

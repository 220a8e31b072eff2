"""Every format of the registry: one message an event, on one line, with the event's fields only.

A new format earns these tests by its row in the registry; `READERS` wants a parser for it that is
written by the format's rules and not by our code.
"""

from __future__ import annotations

import gc
import json
import re
import time
import tracemalloc
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import msgspec
import pycef
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from ocsf_json_schema import (
    OcsfJsonSchemaEmbedded,
    get_ocsf_schema,
)

from siemrelay.core.event import (
    FIELDS,
    AuditEvent,
    DecodedBatch,
    Selection,
    attributes_of,
    field_getter,
)
from siemrelay.formats.contract import Canonical
from siemrelay.proof.envelopes import sent_hashes
from siemrelay.proof.leaf import leaf_of
from siemrelay.registry import FORMATS
from tests.support.events.formats import PLAIN, alone, carried, made
from tests.support.events.hostile import ATTRIBUTE_DICTS as HOSTILE_ATTRIBUTES
from tests.support.events.hostile import EVENTS as HOSTILE_EVENTS
from tests.support.events.hostile import NAMES as HOSTILE_NAMES
from tests.support.events.readers import once, parse_cef, parse_gelf, parse_leef, parse_rfc5424
from tests.support.events.strategies import EVENTS, RECORDS, batch_of, selection_of
from tests.support.examples import examples

with warnings.catch_warnings():
    # What it parses with is older than the Python that warns of it.
    warnings.simplefilter("ignore", DeprecationWarning)
    from syslog_rfc5424_parser import SyslogMessage

EVERY: list[tuple[str, Any]] = [
    (name, header)
    for name, kind in FORMATS.items()
    for header in (("none", "rfc3164", "rfc5424") if kind.headers else ("none",))
]
DELIMITERS = {"leef": {0x09}, "leef1": {0x09}}
"""The control characters that a format itself is made of."""


@pytest.mark.parametrize(("name", "header"), EVERY)
@examples(30)
@given(events=st.lists(EVENTS, min_size=3, max_size=3), records=RECORDS)
def test_any_event_becomes_one_line_of_utf8(
    name: str, header: Any, events: list[AuditEvent], records: list[bytes]
) -> None:
    form = made(name, header)
    messages = form.encode(selection_of(events, records))
    assert len(messages) == len(events)
    for message in messages:
        message.decode()
        if form.members is not None:
            assert message[:1] + message[-1:] == b"{}"
            said = json.loads(message)
            assert [name for name in form.members if said.get(name) is None] == []
        assert not {*message} & {*range(0x20)} - DELIMITERS.get(name, set())
    assert form.encode(selection_of(events, records)) == messages
    assert made(name, header).encode(selection_of(events, records)) == messages
    decoded = selection_of(events, records).decoded
    for i, message in enumerate(messages):
        assert form.encode(Selection(decoded, [i == j for j in range(3)])) == [message]


@pytest.mark.parametrize(("name", "header"), EVERY)
@examples(60)
@given(events=st.lists(EVENTS, min_size=1, max_size=4), alike=st.booleans())
def test_many_events_become_what_each_becomes_alone(
    name: str, header: Any, events: list[AuditEvent], alike: bool
) -> None:
    if alike:
        # Attributes under the same names, as a source's events have them.
        names = list(attributes_of(events[0]))
        events = [
            msgspec.structs.replace(event, attributes=dict.fromkeys(names, event.message))
            for event in events
        ]
    many = selection_of(events * 16)
    form = made(name, header)
    assert form.encode(many) == [
        form.encode(Selection(many.decoded, [i == j for j in range(len(many))]))[0]
        for i in range(len(many))
    ]


@pytest.mark.parametrize(("name", "header"), EVERY)
@pytest.mark.parametrize(
    "attributes",
    [{"a": {"b": 1}, "a.b": 2}, {"a": None, "b": ["x", None]}, {"a b": 1, "a_b": 2, "id": "x"}],
    ids=["a dotted name twice", "null", "names that become alike"],
)
def test_attributes_of_one_event_are_written_as_those_of_many(
    name: str, header: Any, attributes: dict[str, Any]
) -> None:
    form, event = made(name, header), msgspec.structs.replace(PLAIN, attributes=attributes)
    many = selection_of([event] * 16)
    assert form.encode(many)[3] == form.encode(many.alone(3))[0]


@pytest.mark.parametrize(("name", "header"), EVERY)
def test_a_long_text_is_carried_whole(name: str, header: Any) -> None:
    text = "é|=" * 300_000
    message = made(name, header).encode(
        selection_of([msgspec.structs.replace(PLAIN, message=text)], [text.encode()])
    )[0]
    assert message.count("é".encode()) == 300_000


@pytest.mark.parametrize(("name", "header"), EVERY)
def test_an_empty_selection_gives_no_message(name: str, header: Any) -> None:
    assert (
        made(name, header).encode(Selection(DecodedBatch(batch_of([b"x"]), [PLAIN]), [False])) == []
    )


@pytest.mark.parametrize(("name", "header"), EVERY)
def test_a_format_names_the_fields_that_it_reads(name: str, header: Any) -> None:
    form = made(name, header)
    unread = PLAIN
    if "attributes" not in form.fields:
        unread = msgspec.structs.replace(unread, attributes=None)
    for field in ("id", "time", "category", "message"):
        if field not in form.fields:
            unread = msgspec.structs.replace(unread, **{field: None})
    assert alone(form, unread) == alone(form, PLAIN)


# Exactly the event's own fields


class Reader(NamedTuple):
    """A parser of messages, and what it must find.

    `fields` gives the event's own fields, by their names in the event, and raises AssertionError
    for a message that breaks the format's rules or says something twice. `shown` is what a text of
    the event becomes in the format, `without` are the fields for which it has no place, or none
    that is read here.
    """

    fields: Callable[[str], Mapping[str, str]]
    shown: Callable[[str], str] = carried
    without: frozenset[str] = frozenset()


def _read_rfc5424(line: str) -> dict[str, str]:
    header, params, message = parse_rfc5424(line)
    found = once(params)
    if '\\\\"' not in line:  # where a value ends with a backslash that parser goes astray
        read = SyslogMessage.parse(line)
        assert read.sd["event@32473"].keys() == found.keys()
        assert (list(read.sd), read.msg) == (["event@32473"], message)
    assert found.pop("sequence").isdigit()
    own = {name: value for name, value in found.items() if not name.startswith("attributes.")}
    return {**own, "time": header[1], "message": message or ""}


def _read_rfc3164(line: str) -> dict[str, str]:
    # Found from the end: within a value `"` has a backslash before it, so no pair can begin there.
    match = re.fullmatch(rf"<\d+>.{{15}} \S+ siemrelay: (.*) \(((?: ?{_PAIR})+)\)", line, re.DOTALL)
    assert match, line
    pairs = re.findall(_PAIR.replace("(?:", "(", 1), match[2])
    own = once([(name, re.sub(r"\\(.)", r"\1", value)) for name, value in pairs])
    return {**own, "message": match[1]}


_PAIR = r"(?:[a-z.]+)=\"((?:[^\"\\\]]|\\.)*)\""


def _read_json(line: str) -> dict[str, str]:
    found = json.loads(line, object_pairs_hook=once)
    found.pop("attributes", None)
    assert set(found.pop("siemrelay")) == {"sequence", "source", "received"}
    for part in ("actor", "target"):
        found |= {f"{part}.{name}": value for name, value in found.pop(part, {}).items()}
    return {name: str(value) for name, value in found.items()}


def _read_cef(line: str) -> dict[str, str]:
    header, extension = parse_cef(line)
    assert header[4] == header[5]
    # pycef knows no escapes in a header, and its patterns take the square of the time.
    if not set(header[4]) & set("=\\|") and len(line) < 2_000:
        read = pycef.parse(line)
        assert {key for key in read if key[0].islower()} == {
            key for key in extension if not key.startswith("c6a2")
        }
    address = [extension.pop(key, "") for key in ("src", "shost", "c6a2", "c6a2Label")]
    extension.pop("rt")
    own = {_CEF[key]: value for key, value in extension.items()}
    return {**own, "type": header[4], "severity": header[6], "actor.address": "".join(address[:3])}


_CEF = {
    "externalId": "id", "cat": "category", "outcome": "outcome", "suser": "actor.name",
    "suid": "actor.id", "duser": "target.name", "duid": "target.id", "msg": "message",
}  # fmt: skip


def _read_leef(line: str) -> dict[str, str]:
    header, found = parse_leef(line)
    address = found.pop("src", "") + found.pop("identHostName", "")
    del found["devTime"], found["devTimeFormat"], found["sev"]
    own = {_LEEF[key]: value for key, value in found.items()}
    return {**own, "type": header[4], "actor.address": address}


_LEEF = {
    "cat": "category", "usrName": "actor.name", "resource": "target.name", "externalId": "id",
    "outcome": "outcome", "usrId": "actor.id", "resourceType": "target.type",
    "resourceId": "target.id", "msg": "message",
}  # fmt: skip


def _read_gelf(line: str) -> dict[str, str]:
    found = parse_gelf(line.encode())
    own = {
        name.removeprefix("_").replace("_", ".", name.startswith(("_actor", "_target"))): value
        for name, value in found.items()
        if name.startswith("_") and not name.startswith(("_attributes_", "_siemrelay_"))
    }
    own["id"] = own.pop("event.id", None) or own.pop("event_id")
    message = found.get("full_message", found["short_message"])
    return {**{name: str(value) for name, value in own.items()}, "message": message}


def _read_ecs(line: str) -> dict[str, str]:
    found = json.loads(line, object_pairs_hook=once)
    event, user, labels = found["event"], found.get("user", {}), found.get("labels", {})
    to = user.get("target") or found.get("group") or {
        name: labels[f"target_{name}"] for name in ("name", "id") if f"target_{name}" in labels
    }  # fmt: skip
    own = {
        "id": event["id"], "time": found["@timestamp"], "type": event["action"],
        "category": labels.get("category"), "severity": str(event["severity"]),
        "outcome": event["outcome"], "actor.name": user.get("name"), "actor.id": user.get("id"),
        "actor.address": found.get("source", {}).get("address"),
        "target.type": labels.get("target_type"), "target.name": to.get("name"),
        "target.id": to.get("id"), "message": found.get("message"),
    }  # fmt: skip
    return {name: value for name, value in own.items() if value is not None}


@cache
def _ocsf_class(uid: int) -> Draft202012Validator:
    schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(version="1.5.0"))
    return Draft202012Validator(schema.get_class_schema(schema.lookup_class_name_from_uid(uid)))


def _read_ocsf(line: str) -> dict[str, str]:
    found = json.loads(line, object_pairs_hook=once)
    _ocsf_class(found["class_uid"]).validate(found)
    unmapped = found.get("unmapped", {})
    assert unmapped.keys() <= {"category", "attributes", "actor", "target"}
    own = {
        "id": found["metadata"]["uid"], "type": found["metadata"]["event_code"],
        "category": unmapped.get("category"), "message": found.get("message"),
    }  # fmt: skip
    return {name: value for name, value in own.items() if value is not None}


_AS_IT_IS = Reader(_read_json, lambda text: text.encode("utf-8", "replace").decode())
_LEEF_READER = Reader(_read_leef, without=frozenset({"time", "severity"}))
READERS: dict[str, Reader] = {
    "syslog": Reader(_read_rfc5424),
    "rfc3164": Reader(_read_rfc3164, without=frozenset({"type"})),
    "json": _AS_IT_IS,
    "cef": Reader(
        _read_cef, lambda text: carried(text, breaks=True), frozenset({"time", "target.type"})
    ),
    "leef": _LEEF_READER,
    "leef1": _LEEF_READER,
    "gelf": _AS_IT_IS._replace(fields=_read_gelf, without=frozenset({"time"})),
    "ecs": _AS_IT_IS._replace(fields=_read_ecs),
    "ocsf": _AS_IT_IS._replace(
        fields=_read_ocsf, without=frozenset(FIELDS) - {"id", "type", "category", "message"}
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_a_parser_that_is_not_ours(name: str) -> None:
    assert (name in READERS) is not FORMATS[name].as_received


def expected(name: str, event: AuditEvent) -> dict[str, str]:
    """The event's own fields, as far as the format has a place for them."""
    reader = READERS[name]
    values = {field: field_getter(field)(event) for field in FIELDS if field not in reader.without}
    found = {f: reader.shown(str(value)) for f, value in values.items() if value not in (None, "")}
    if name == "rfc3164":
        found["message"] = carried(f"{event.type}: {event.message}")
    if name == "cef":
        found["type"] = carried(event.type)  # a header has no escape for a line break
    if name.startswith("leef"):
        found["type"] = carried(event.type.replace("|", "\uff5c"))
    return found


def read(name: str, message: bytes) -> dict[str, str]:
    """The event's own fields in a message."""
    return {field: text for field, text in READERS[name].fields(message.decode()).items() if text}


@pytest.mark.parametrize("name", READERS)
@examples(150)
@given(events=HOSTILE_EVENTS)
def test_a_hostile_event_is_read_as_itself_and_as_one(name: str, events: list[AuditEvent]) -> None:
    messages = made(name).encode(selection_of(events))
    assert [read(name, message) for message in messages] == [
        expected(name, event) for event in events
    ]


@pytest.mark.parametrize("name", READERS)
@examples(100)
@given(attributes=HOSTILE_ATTRIBUTES)
def test_no_attribute_stands_for_a_field(name: str, attributes: dict[str, Any]) -> None:
    plain = AuditEvent(
        id="e", time="2024-03-01T08:00:00.123Z", type="t", category="c", severity=3,
        outcome="failure", message="m",
    )  # fmt: skip
    event = msgspec.structs.replace(plain, attributes=attributes)
    (without,), (message,) = (made(name).encode(selection_of([one])) for one in (plain, event))
    assert read(name, message) == read(name, without)


@pytest.mark.parametrize("name", ["syslog", "gelf", "ecs"])
@given(names=st.lists(st.sampled_from(HOSTILE_NAMES) | st.text(), unique=True, max_size=30))
def test_flat_attributes_are_all_there_whatever_they_are_called(
    name: str, names: list[str]
) -> None:
    attributes = {attribute: f"<{number}>" for number, attribute in enumerate(names)}
    event = msgspec.structs.replace(PLAIN, attributes=attributes)
    message = alone(made(name), event)
    assert [message.count(value) for value in attributes.values()] == [1] * len(names)


# Growth


def _selections(times: int) -> dict[str, Selection]:
    """Of which each is as long as `times` says in another way."""
    many: dict[str, dict[str, Any]] = {
        "a long message": {"message": 'x="|\\ é\n' * (4_000 * times)},
        "a long id": {"id": "\x7f]" * (8_000 * times)},
        "many attributes": {"attributes": {f"a.{i}": f'"{i}' for i in range(2_000 * times)}},
        "attributes of one name": {
            "attributes": {f"{'.' * (i % 30)}{i // 30 * '_'}": i for i in range(100 * times)}
        },
        "names with one beginning": {
            "attributes": {f"{'x' * 30}{i}": "y" for i in range(2_000 * times)}
        },
        "a long name": {"attributes": {"ab." * (8_000 * times): "x"}},
        "a long list": {"attributes": {"list": list(range(10_000 * times))}},
    }
    selections = {
        name: selection_of(
            [msgspec.structs.replace(PLAIN, **fields)],
            [b'{"x":"' + b"\xff" * 40_000 * times + b'"}'],
        )
        for name, fields in many.items()
    }
    events = [
        msgspec.structs.replace(PLAIN, type=f"t{i}", attributes={f"a{i}": "\x00", "b": {"c": i}})
        for i in range(1_000 * times)
    ]
    return {**selections, "many events": selection_of(events)}


@pytest.mark.parametrize("grown", list(_selections(1)))
@pytest.mark.parametrize("name", list(FORMATS))
def test_four_times_as_much_takes_four_times_the_time_and_memory(name: str, grown: str) -> None:
    small, large = _selections(1)[grown].decoded, _selections(4)[grown].decoded
    # Growth with the square would be 16 times; 9 leaves room for caches. A busy machine may slow
    # every run of one size, so both are measured again, in turn, until the least of each is known.
    least_large = least_small = float("inf")
    for _ in range(8):
        least_large = min(least_large, _least_s(name, large))
        least_small = min(least_small, _least_s(name, small))
        if least_large < 9 * max(least_small, 0.0005):
            break
    assert least_large < 9 * max(least_small, 0.0005)
    assert _most_bytes(name, large) < 9 * max(_most_bytes(name, small), 50_000)


def _least_s(name: str, decoded: DecodedBatch) -> float:
    taken = []
    for _ in range(4):
        form = made(name)  # one that has seen no name yet
        gc.disable()  # a collection costs what all the tests of the process have left behind
        try:
            started = time.process_time()
            form.encode(Selection(decoded))
            taken.append(time.process_time() - started)
        finally:
            gc.enable()
    return min(taken)


def _most_bytes(name: str, decoded: DecodedBatch) -> int:
    form = made(name)
    tracemalloc.start()
    try:
        form.encode(Selection(decoded))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", list(FORMATS))
def test_memory_for_names_that_were_seen_is_bounded(name: str) -> None:
    form = made(name)

    def see(beginning: int) -> None:
        numbers = range(beginning, beginning + 5_000)
        events = [msgspec.structs.replace(PLAIN, type=f"type {i}", attributes={f"name {i}": 1})
                  for i in numbers]  # fmt: skip
        long = "x" * 100_000 + str(beginning)
        events.append(msgspec.structs.replace(PLAIN, type=long, attributes={long: 1}))
        form.encode(selection_of(events))

    see(0)
    tracemalloc.start()
    try:
        for beginning in range(5_000, 15_000, 5_000):
            see(beginning)
        gc.collect()
        # 10,000 more names would take several megabytes.
        assert tracemalloc.get_traced_memory()[0] < 1_500_000
    finally:
        tracemalloc.stop()


# Numbers under a seal

NUMBERED = [(name, header) for name, header in EVERY if FORMATS[name].numbered]


@pytest.mark.parametrize(("name", "header"), NUMBERED)
@examples(60)
@given(events=HOSTILE_EVENTS)
def test_a_number_is_read_from_where_no_sender_can_write(
    name: str, header: Any, events: list[AuditEvent]
) -> None:
    form, plain = made(name, header), selection_of(events)
    numbered = Selection(plain.decoded, number="abcdefgh22:7")
    assert [leaf_of(message)[1:] for message in form.encode(plain)] == [(None, None)] * len(events)
    messages = form.encode(numbered)
    leaves = list(map(leaf_of, messages))
    assert [leaf[1:] for leaf in leaves] == [("abcdefgh22", 7)] * len(events)
    assert [message.count(b"abcdefgh22:7") for message in messages] == [1] * len(events)
    canonical = isinstance(form, Canonical) and form.canonical
    assert [leaf.hash for leaf in leaves] == sent_hashes(messages, canonical=canonical)
    # The header belongs to the way: with it or without it, the leaf is the same.
    if header != "none":
        assert leaves == list(map(leaf_of, made(name, "none").encode(numbered)))

"""Every format: one message an event, safe on one line, read back by parsers that are not ours."""

from __future__ import annotations

import ipaddress
import json
import re
import warnings
from contextlib import suppress
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pycef  # type: ignore[import-untyped]
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from siemrelay.core.event import (
    Actor,
    AuditEvent,
    DecodedBatch,
    Selection,
    Target,
    attributes_of,
    field_getter,
)
from siemrelay.core.times import epoch_ms, rfc3339
from siemrelay.formats.cef import Cef, CefOptions
from siemrelay.formats.contract import Format
from siemrelay.formats.json import Json, JsonOptions
from siemrelay.formats.raw import Raw, RawOptions
from siemrelay.formats.rfc3164 import Rfc3164
from siemrelay.formats.rfc5424 import Rfc5424, Rfc5424Options
from siemrelay.formats.syslog_header import FACILITIES, HeaderOptions
from siemrelay.formats.writing.columns import FEW
from siemrelay.formats.writing.templates import QuotedPairs, escaped
from siemrelay.formats.writing.text import CONTROL_PICTURES, cut_utf8, one_line_each, text_of
from siemrelay.registry import FORMATS, build_format
from tests.support.strategies import EVENTS, SPECIAL, batch_of, selection_of, texts

with warnings.catch_warnings():
    # What it parses with is older than the Python that warns of it.
    warnings.simplefilter("ignore", DeprecationWarning)
    from syslog_rfc5424_parser import SyslogMessage  # type: ignore[import-untyped]

HOST = "relay.example.com"
EVERY: list[tuple[str, Any]] = [
    (name, header)
    for name, kind in FORMATS.items()
    for header in (("none", "rfc3164", "rfc5424") if kind.headers else ("none",))
]
DELIMITERS = {"leef": {0x09}, "leef1": {0x09}}
"""The control characters that a format itself is made of."""
RECORDS = st.lists(
    st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"")) | texts().map(
        lambda text: text.encode("utf-8", "replace").replace(b"\n", b"")
    ),
    min_size=3, max_size=3,
)  # fmt: skip
PLAIN = AuditEvent(
    id="e1", time="2024-03-01T08:00:00.123Z", type="Account Provisioned", category="account",
    severity=5, outcome="success", actor=Actor("Ada Lovelace", "u1", "10.0.0.1"),
    target=Target("account", "svc", "t1"), message="done", attributes={"region": "eu"},
)  # fmt: skip


def made(name: str, header: Any = "none", **options: Any) -> Format:
    return build_format(name, header, FORMATS[name].options.model_validate(options), HOST)


def alone(form: Format, event: AuditEvent) -> str:
    (message,) = form.encode(selection_of([event]))
    return message.decode()


def carried(text: str, *, breaks: bool = False) -> str:
    """What a text is when it comes out: controls as pictures, half surrogate pairs as `?`."""
    kept = {ord("\n"), ord("\r")} if breaks else set()
    pictures = {code: p for code, p in CONTROL_PICTURES.items() if code not in kept}
    return text.translate(pictures).encode("utf-8", "replace").decode()


@pytest.mark.parametrize(("name", "header"), EVERY)
@settings(max_examples=30)
@given(events=st.lists(EVENTS, min_size=3, max_size=3), records=RECORDS)
def test_any_event_becomes_one_line_of_utf8(
    name: str, header: Any, events: list[AuditEvent], records: list[bytes]
) -> None:
    form = made(name, header)
    messages = form.encode(selection_of(events, records))
    assert len(messages) == len(events)
    for message in messages:
        message.decode()
        assert not {*message} & {*range(0x20)} - DELIMITERS.get(name, set())
    assert form.encode(selection_of(events, records)) == messages
    assert made(name, header).encode(selection_of(events, records)) == messages
    decoded = selection_of(events, records).decoded
    for i, message in enumerate(messages):
        assert form.encode(Selection(decoded, [i == j for j in range(3)])) == [message]


@pytest.mark.parametrize(("name", "header"), EVERY)
@settings(max_examples=60)
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
    many = selection_of(events * FEW)
    form = made(name, header)
    assert form.encode(many) == [
        form.encode(Selection(many.decoded, [i == j for j in range(len(many))]))[0]
        for i in range(len(many))
    ]


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


def test_what_is_remembered_of_names_is_bounded() -> None:
    many = [msgspec.structs.replace(PLAIN, type=f"t{i}", attributes={f"a{i}": 1})
            for i in range(9000)]  # fmt: skip
    long = msgspec.structs.replace(PLAIN, type="x" * 100_000, attributes={"y" * 100_000: 1})
    cef, syslog = Cef(CefOptions()), Rfc5424(Rfc5424Options(), HOST)
    for form in (cef, syslog):
        form.encode(selection_of(many))
        form.encode(selection_of([long]))
    for memory in (cef._heads, syslog._names):
        assert len(memory) <= 4096
        assert max(map(len, memory)) <= 256


# CEF


def parse_cef(line: str) -> tuple[list[str], dict[str, str]]:
    """Reads CEF by the letter: what the standard does not say is an error."""
    fields, at = [""], 0
    while len(fields) < 8:
        character = line[at]
        if character == "\\":
            assert line[at + 1] in "\\|", line
            fields[-1] += line[at + 1]
        elif character == "|":
            fields.append("")
        else:
            fields[-1] += character
        at += 2 if character == "\\" else 1
    assert fields.pop() == ""
    assert fields[0] == "CEF:0"
    extension: dict[str, str] = {}
    rest = line[at:]
    equals, escape = [], False
    for i, character in enumerate(rest):
        if character == "=" and not escape:
            equals.append(i)
        escape = character == "\\" and not escape
    starts = []
    for equal in equals:
        key = re.search(r"[A-Za-z0-9_]+$", rest[:equal])
        assert key is not None, line
        assert key.start() == 0 or rest[key.start() - 1] == " ", line
        starts.append(key.start())
    ends = [start - 1 for start in starts[1:]] + [len(rest)]
    for start, equal, end in zip(starts, equals, ends, strict=True):
        assert rest[start:equal] not in extension
        extension[rest[start:equal]] = re.sub(r"\\(.?)", _unescaped, rest[equal + 1 : end])
    return fields, extension


def _unescaped(match: re.Match[str]) -> str:
    return {"\\": "\\", "=": "=", "n": "\n", "r": "\r"}[match[1]]


def expected_extension(event: AuditEvent) -> dict[str, str]:
    said = {
        "rt": str(epoch_ms(event.time or "")), "externalId": event.id, "cat": event.category,
        "outcome": event.outcome, "suser": event.actor.name, "suid": event.actor.id,
        "duser": event.target.name, "duid": event.target.id, "msg": event.message,
    }  # fmt: skip
    return {key: carried(text, breaks=True) for key, text in said.items() if text}


@settings(max_examples=200)
@given(event=EVENTS)
def test_cef_is_read_back_as_it_went_in(event: AuditEvent) -> None:
    header, extension = parse_cef(alone(Cef(CefOptions(vendor="a|b", product="\\", version="="))
                                        , event))  # fmt: skip
    name = carried(event.type)
    assert header == ["CEF:0", "a|b", "\\", "=", name, name, str(event.severity)]
    by_address = {
        k: extension.pop(k) for k in ("src", "shost", "c6a2", "c6a2Label") if k in extension
    }
    assert extension == expected_extension(event)
    address = event.actor.address
    assert [v for k, v in by_address.items() if k != "c6a2Label"] == (
        [carried(address, breaks=True)] if address else []
    )


@settings(max_examples=100)
@given(text=st.text(st.sampled_from("abcdefghij-.,;:é渡"), min_size=1), event=EVENTS)
def test_pycef_reads_the_same(text: str, event: AuditEvent) -> None:
    """pycef knows no escapes and takes none away, refuses `=` and a backslash in the header, ends
    a value at any white space before a `key=`, and puts what has a `…Label` under that name: so it
    is asked about texts without all of these. The strict parser above reads everything else."""
    event = msgspec.structs.replace(
        event, type=text, id=text, category=text, message=f"{text} {text}",
        actor=Actor(text, text, "10.0.0.1"), target=Target(text, text, text),
    )  # fmt: skip
    line = alone(Cef(CefOptions()), event)
    read = pycef.parse(line)
    header, extension = parse_cef(line)
    names = ("DeviceVendor", "DeviceProduct", "DeviceVersion", "DeviceEventClassID", "Name",
             "Severity")  # fmt: skip
    assert [read[name] for name in names] == header[1:]
    assert {key: read[key] for key in extension} == extension


MAPS: list[dict[str, str | None]] = [
    {},
    {"rt": "time", "src": "actor.address", "cat": None, "suid": None, "duser": None, "duid": None,
     "shost": None, "c6a2": None, "c6a2Label": None},
    {"cs1": "target.type", "cs1Label": None, "cn1": "severity", "msg": "message"},
    {"src": None}, {"suser": "actor.name", "suid": "actor.id", **dict.fromkeys(
        ("externalId", "cat", "outcome", "duser", "duid", "msg"))},
    {"rt": None, "shost": None}, {"cs1": "attributes.region"},
    dict.fromkeys(("externalId", "cat", "outcome", "suser", "suid", "duser", "duid")),
    dict.fromkeys(("externalId", "cat", "outcome", "suser", "suid", "duser", "duid", "msg", "rt",
                   "src", "shost", "c6a2", "c6a2Label")),
]  # fmt: skip


def careful(chosen: dict[str, str | None], event: AuditEvent) -> str:
    """A line with the default header, by the letter: key by key, character by character."""
    address, version = event.actor.address, 0
    with suppress(ValueError):
        version = ipaddress.ip_address(address or "").version
    default: dict[str, Any] = {
        "rt": str(epoch_ms(event.time or "")),
        "src": address if version == 4 else None, "shost": address if not version else None,
        "c6a2": address if version == 6 else None,
        "c6a2Label": "Source IPv6 Address" if version == 6 else None,
    }  # fmt: skip
    values = {key: value for key, value in default.items() if key not in chosen}
    fields = {
        "externalId": "id", "cat": "category", "outcome": "outcome", "suser": "actor.name",
        "suid": "actor.id", "duser": "target.name", "duid": "target.id", "msg": "message",
    }  # fmt: skip
    plain = {key: field for key, field in fields.items() if key not in chosen}
    plain |= {key: field for key, field in chosen.items() if field is not None}
    for key in sorted(plain, key="msg".__eq__):
        values[key] = field_getter(plain[key])(event)
    controls: dict[int, Any] = {**CONTROL_PICTURES, ord("\\"): "\\\\"}
    name = event.type.translate({**controls, ord("|"): "\\|"})
    said: dict[int, Any] = {**controls, ord("="): "\\=", ord("\n"): "\\n", ord("\r"): "\\r"}
    extension = " ".join(
        f"{key}={text_of(value).translate(said)}"
        for key, value in values.items()
        if value is not None and value != ""
    )
    line = f"CEF:0|siemrelay|audit|1.0|{name}|{name}|{event.severity}|{extension}"
    return line.encode("utf-8", "replace").decode()


@pytest.mark.parametrize("chosen", MAPS, ids=str)
@settings(max_examples=60)
@given(events=st.lists(EVENTS, min_size=1, max_size=4))
def test_the_fast_line_equals_the_careful_line(
    chosen: dict[str, str | None], events: list[AuditEvent]
) -> None:
    form = Cef(CefOptions(map=chosen))
    events.append(PLAIN)
    lines = [careful(chosen, event) for event in events]
    assert [alone(form, event) for event in events] == lines
    assert [line.decode() for line in form.encode(selection_of(events * FEW))] == lines * FEW


@pytest.mark.parametrize("chosen", MAPS, ids=str)
def test_plain_events_take_the_fast_line(chosen: dict[str, str | None]) -> None:
    form = Cef(CefOptions(map=chosen))
    some = msgspec.structs.replace(PLAIN, target=Target(), message=None)
    if form._values is not None:
        assert form._line(PLAIN) == careful(chosen, PLAIN)
        assert form._line(some) == careful(chosen, some)


@pytest.mark.parametrize("count", [1, FEW])
def test_a_del_in_plain_ascii_is_its_picture_in_cef_too(count: int) -> None:
    event = msgspec.structs.replace(PLAIN, message="a\x7fb")
    for line in Cef(CefOptions()).encode(selection_of([event] * count)):
        assert line.endswith("msg=a\u2421b".encode())


def test_a_cef_map_adds_replaces_and_removes_keys() -> None:
    form = Cef(CefOptions(map={
        "rt": "time", "cat": None, "suser": "actor.id", "cs1": "attributes.region",
        "cs2": "attributes.deep.er", "cs3": "attributes.deep", "cn1": "severity",
        "cs4": "attributes.no", "flexString1": "type",
    }))  # fmt: skip
    event = msgspec.structs.replace(PLAIN, attributes={"region": "eu=1", "deep": {"er": True}})
    _, extension = parse_cef(alone(form, event))
    assert extension == {
        "rt": "2024-03-01T08:00:00.123Z", "externalId": "e1", "outcome": "success", "suser": "u1",
        "suid": "u1", "src": "10.0.0.1", "duser": "svc", "duid": "t1", "msg": "done",
        "cs1": "eu=1", "cs2": "true", "cs3": '{"er": true}', "cn1": "5",
        "flexString1": "Account Provisioned",
    }  # fmt: skip
    assert form.fields >= {"attributes", "time", "type", "severity", "actor.id"}
    assert "category" not in form.fields


def test_the_cef_of_the_benchmark() -> None:
    form = Cef(CefOptions(vendor="Vendor", product="Product", version="1.0", map=MAPS[1]))
    header, extension = parse_cef(alone(form, PLAIN))
    assert header == ["CEF:0", "Vendor", "Product", "1.0", "Account Provisioned",
                      "Account Provisioned", "5"]  # fmt: skip
    assert extension == {
        "rt": "2024-03-01T08:00:00.123Z", "externalId": "e1", "suser": "Ada Lovelace",
        "src": "10.0.0.1", "outcome": "success", "msg": "done",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.0.1", {"src": "10.0.0.1"}),
        ("010.0.0.1", {"shost": "010.0.0.1"}),
        ("256.0.0.1", {"shost": "256.0.0.1"}),
        ("::1", {"c6a2": "::1", "c6a2Label": "Source IPv6 Address"}),
        ("laptop.example.com", {"shost": "laptop.example.com"}),
        ("", {}),
        (None, {}),
    ],
)
def test_an_address_goes_where_its_kind_belongs(
    address: str | None, expected: dict[str, str]
) -> None:
    event = msgspec.structs.replace(PLAIN, actor=Actor("a", None, address))
    _, extension = parse_cef(alone(Cef(CefOptions()), event))
    keys = ("src", "shost", "c6a2", "c6a2Label")
    assert {key: extension[key] for key in keys if key in extension} == expected


@pytest.mark.parametrize("wrong", [{"a b": "id"}, {"": "id"}, {"k=": "id"}, {"k": "actor"}])
def test_a_cef_map_of_no_meaning_is_a_fault(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        CefOptions(map=wrong)


# Syslog


def unescaped(value: str) -> str:
    return re.sub(r"\\([\"\\\]])", r"\1", value)


# RFC 5424, section 6, by the letter; in values a backslash stands only before what it escapes.
_NAME = r"[!#-<>-\\^-~]{1,32}"
_VALUE = r"(?:[^\"\\\]]|\\[\"\\\]])*"
_PARAM = re.compile(rf' ({_NAME})="({_VALUE})"')
_SYSLOG = re.compile(
    r"<([1-9]?\d|1[0-8]\d|19[01])>1 (\S+) "
    r"([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128}) ([!-~]{1,32}) "
    rf'\[(?P<id>{_NAME})(?P<sd>(?: {_NAME}="{_VALUE}")*)\](?: (?P<msg>.*))?',
    re.DOTALL,
)


def parse_rfc5424(line: str) -> tuple[list[str], list[tuple[str, str]], str | None]:
    """PRI to MSGID, the parameters with their escapes taken away, the message."""
    match = _SYSLOG.fullmatch(line)
    assert match is not None, line
    datetime.fromisoformat(match[2])
    assert match["id"] == "event@32473"
    params = [(name, unescaped(value)) for name, value in _PARAM.findall(match["sd"])]
    return list(match.groups()[:6]), params, match["msg"]


def expected_params(event: AuditEvent) -> list[tuple[str, str]]:
    own = {
        "sequence": "7", "id": event.id, "type": event.type, "category": event.category,
        "severity": str(event.severity), "outcome": event.outcome,
        "actor.name": event.actor.name, "actor.id": event.actor.id,
        "actor.address": event.actor.address, "target.type": event.target.type,
        "target.name": event.target.name, "target.id": event.target.id,
    }  # fmt: skip
    attributes = [
        (re.sub(r'[^!-~]|[\]="]', "_", name)[:32] or "_",
         value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for name, value in attributes_of(event).items()
    ]  # fmt: skip
    pairs = [*((name, value) for name, value in own.items() if value), *attributes]
    return [(name, carried(value)) for name, value in pairs]


def flat(event: AuditEvent) -> AuditEvent:
    return msgspec.structs.replace(
        event,
        attributes={k: v for k, v in attributes_of(event).items() if not isinstance(v, dict)},
    )


@settings(max_examples=200)
@given(event=EVENTS.map(flat))
def test_rfc5424_is_read_back_as_it_went_in(event: AuditEvent) -> None:
    header, params, message = parse_rfc5424(alone(Rfc5424(Rfc5424Options(), HOST), event))
    assert header[1:] == [event.time, HOST, "siemrelay", "-",
                          re.sub(r"[^!-~]", "", event.type)[:32] or "-"]  # fmt: skip
    assert params == expected_params(event)
    assert message == carried(event.message or event.type)


@settings(max_examples=50)
@given(event=EVENTS.map(flat))
def test_an_independent_parser_reads_the_same(event: AuditEvent) -> None:
    r"""syslog-rfc5424-parser leaves the escapes in, keeps the last of equal names, and takes the
    quote of a value that ends with a backslash (`a\\"`) for an escaped one: not asked about it."""
    line = alone(Rfc5424(Rfc5424Options(), HOST), event)
    assume('\\\\"' not in line)
    read = SyslogMessage.parse(line)
    header, params, message = parse_rfc5424(line)
    assert read.facility.value * 8 + read.severity.value == int(header[0])
    assert [read.timestamp, read.hostname, read.appname] == header[1:4]
    assert (read.procid, read.msgid or "-") == (None, header[5])
    assert {n: unescaped(v) for n, v in read.sd["event@32473"].items()} == dict(params)
    assert read.msg == message


@settings(max_examples=100)
@given(values=st.lists(st.none() | texts(), min_size=3, max_size=3))
def test_quoted_pairs_are_the_same_by_template_and_one_by_one(values: list[str | None]) -> None:
    names = ["a", "b", "c"]
    one_by_one = [f'{n}="{escaped(v)}"' for n, v in zip(names, values, strict=True) if v]
    assert QuotedPairs(names).fill(tuple(values)) == " ".join(one_by_one)


@pytest.mark.parametrize("level", range(11))
def test_severity_and_facility_make_the_priority(level: int) -> None:
    event = msgspec.structs.replace(PLAIN, severity=level)
    expected = {0: 6, 1: 6, 2: 6, 3: 6, 4: 4, 5: 4, 6: 4, 7: 3, 8: 3, 9: 2, 10: 2}[level]
    for facility in ("kern", "audit", "local7"):
        number = FACILITIES.index(facility) * 8 + expected
        for name in ("syslog", "rfc3164"):
            assert alone(made(name, facility=facility), event).startswith(f"<{number}>")
    assert alone(made("syslog"), event).startswith(f"<{13 * 8 + expected}>1 ")


def test_the_parts_of_a_syslog_message() -> None:
    assert alone(Rfc5424(Rfc5424Options(enterprise_id=99), HOST), PLAIN) == (
        "<108>1 2024-03-01T08:00:00.123Z relay.example.com siemrelay - AccountProvisioned "
        '[event@99 sequence="7" id="e1" type="Account Provisioned" category="account" severity="5" '
        'outcome="success" actor.name="Ada Lovelace" actor.id="u1" actor.address="10.0.0.1" '
        'target.type="account" target.name="svc" target.id="t1" region="eu"] done'
    )
    assert alone(Rfc3164(HeaderOptions(timezone="UTC"), HOST), PLAIN) == (
        "<108>Mar  1 08:00:00 relay.example.com siemrelay: Account Provisioned: done "
        '(id="e1" time="2024-03-01T08:00:00.123Z" category="account" severity="5" '
        'outcome="success" actor.name="Ada Lovelace" actor.id="u1" actor.address="10.0.0.1" '
        'target.type="account" target.name="svc" target.id="t1")'
    )


def test_attributes_in_structured_data_are_flat_and_named_by_the_rules() -> None:
    event = msgspec.structs.replace(PLAIN, attributes={
        "a": {"b": {"c": {"d": {"e": 1}}}}, "list": [1, "x"], "none": None, "yes": True, "n": -0.5,
        'na me="]': "v]", "": "empty", "x" * 40: 1, "é": 1, "empty": {},
    })  # fmt: skip
    line = alone(Rfc5424(Rfc5424Options(), HOST), event)
    assert line.split('target.id="t1" ')[1] == (
        'a.b.c.d="{\\"e\\": 1}" list="[1, \\"x\\"\\]" none="null" yes="true" n="-0.5" '
        f'na_me___="v\\]" _="empty" {"x" * 32}="1" _="1" empty="{{}}"] done'
    )


@pytest.mark.parametrize(
    ("time", "zone", "stamp"),
    [
        ("2024-03-01T08:00:00.999Z", "UTC", "Mar  1 08:00:00"),
        ("2024-12-31T23:30:00Z", "Europe/Berlin", "Jan  1 00:30:00"),
        ("2024-07-14T12:00:00+02:00", "America/New_York", "Jul 14 06:00:00"),
        ("0001-01-01T00:00:00+14:00", "UTC", "Jan  1 00:00:00"),
        ("9999-12-31T23:59:59-11:30", "Asia/Tokyo", "Dec 31 23:59:59"),
    ],
)
def test_rfc3164_has_english_months_a_padded_day_and_the_chosen_zone(
    time: str, zone: str, stamp: str
) -> None:
    line = alone(made("rfc3164", timezone=zone), msgspec.structs.replace(PLAIN, time=time))
    assert re.fullmatch(r"<\d+>(.{15}) (\S+) (\S+): .*", line, re.DOTALL)
    assert line[5:20] == stamp


@given(event=EVENTS)
def test_rfc3164_is_read_back_as_it_went_in(event: AuditEvent) -> None:
    line = alone(Rfc3164(HeaderOptions(timezone="Asia/Kolkata"), HOST), event)
    match = re.fullmatch(
        r"<(\d{1,3})>([A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d) (\S+) (\w+): (.*)", line
    )
    assert match is not None
    pri, stamp, host, tag, text = match.groups()
    assert (int(pri) // 8, host, tag) == (13, HOST, "siemrelay")
    assert text.startswith(carried(event.type))
    moment = datetime.fromisoformat(event.time or "")
    if 2 < moment.year < 9998:
        there = moment.astimezone(ZoneInfo("Asia/Kolkata"))
        assert datetime.strptime(f"{there.year:04} {stamp}", "%Y %b %d %H:%M:%S") == there.replace(
            tzinfo=None, microsecond=0
        )


def test_a_host_or_name_that_no_header_can_hold_is_made_to_fit() -> None:
    options = {"hostname": "höst name\n" + "x" * 300, "app_name": "[my app]\n" + "y" * 90}
    read = SyslogMessage.parse(alone(made("syslog", **options), PLAIN))
    assert read.hostname == ("hstname" + "x" * 300)[:255]
    assert read.appname == ("[myapp]" + "y" * 90)[:48]
    line = alone(made("rfc3164", **options), PLAIN)
    assert line.split(" ")[-1] != ""
    assert f" {('myapp' + 'y' * 90)[:32]}: " in line
    assert alone(made("syslog", hostname="\u00fc"), PLAIN).split(" ")[2] == "-"


@pytest.mark.parametrize("inner", [name for name, kind in FORMATS.items() if kind.headers])
def test_a_header_stands_before_the_very_message(inner: str) -> None:
    record = b'{"type":"as received"}'
    (body,) = made(inner).encode(selection_of([PLAIN], [record]))
    tag = b"siemrelay: " if FORMATS[inner].tag else b""
    (bsd,) = made(inner, "rfc3164", timezone="UTC").encode(selection_of([PLAIN], [record]))
    assert bsd == b"<108>Mar  1 08:00:00 relay.example.com " + tag + body
    (ietf,) = made(inner, "rfc5424").encode(selection_of([PLAIN], [record]))
    assert ietf == (
        b"<108>1 2024-03-01T08:00:00.123Z relay.example.com siemrelay - AccountProvisioned - "
        + body
    )


# JSON and raw


def nested(event: AuditEvent) -> dict[str, Any]:
    """The event's vocabulary as a JSON line has it, without what it lacks."""

    def some(**named: str | None) -> dict[str, str]:
        return {name: value for name, value in named.items() if value is not None}

    actor, target = event.actor, event.target
    parts: dict[str, Any] = {
        "id": event.id, "time": event.time, "type": event.type, "category": event.category,
        "severity": event.severity, "outcome": event.outcome,
        "actor": some(name=actor.name, id=actor.id, address=actor.address) or None,
        "target": some(type=target.type, name=target.name, id=target.id) or None,
        "message": event.message, "attributes": attributes_of(event) or None,
    }  # fmt: skip
    received = "2023-11-14T22:13:20.250Z"
    parts["siemrelay"] = {"sequence": 7, "source": "test", "received": received}
    return {name: value for name, value in parts.items() if value is not None}


def without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {without_surrogates(k): without_surrogates(v) for k, v in value.items()}
    return [without_surrogates(v) for v in value] if isinstance(value, list) else value


@settings(max_examples=150)
@given(event=EVENTS)
def test_json_is_exactly_the_events_vocabulary(event: AuditEvent) -> None:
    read = json.loads(alone(Json(JsonOptions()), event))
    expected = without_surrogates(nested(event))
    if isinstance(event.attributes, msgspec.Raw) and event.attributes == msgspec.Raw(b"{}"):
        read.pop("attributes", None)
    assert read == expected
    assert list(read) == [name for name in nested(event) if name in read]


def test_json_passes_attributes_on_as_they_were_received() -> None:
    text = '{"b":1.0,"a":"\\u00e9", "n":12345678901234567890123, "c":{}}'
    event = msgspec.structs.replace(PLAIN, attributes=msgspec.Raw(text.encode()))
    assert f'"attributes":{text}' in alone(Json(JsonOptions()), event)


def test_json_tells_the_time_of_receipt_and_the_place_in_the_buffer() -> None:
    batch = batch_of([b"{}"] * 3, first_sequence=40)
    messages = Json(JsonOptions()).encode(
        Selection(DecodedBatch(batch, [PLAIN] * 3), [True, False, True])
    )
    relay = [json.loads(message)["siemrelay"] for message in messages]
    received = rfc3339(batch.received_at)
    assert relay == [{"sequence": n, "source": "test", "received": received} for n in (40, 42)]


@given(records=RECORDS)
def test_raw_is_the_bytes_as_received_where_they_are_clean(records: list[bytes]) -> None:
    messages = Raw(RawOptions()).encode(selection_of([PLAIN] * 3, records))
    for record, message in zip(records, messages, strict=True):
        text = record.rstrip(b"\r").decode("utf-8", "replace")
        assert message.decode() == carried(text)
        if text.encode() == record and text.isprintable():
            assert message == record


# Text


@given(messages=st.lists(texts().map(lambda t: t.encode("utf-8", "replace")), max_size=20))
def test_halving_a_run_gives_what_each_message_gives_alone(messages: list[bytes]) -> None:
    assert one_line_each(messages) == [carried(m.decode()).encode() for m in messages]


@pytest.mark.parametrize("character", SPECIAL)
def test_a_cut_message_is_still_utf8_and_says_that_it_was_cut(character: str) -> None:
    message = (character * 40).encode("utf-8", "replace")
    for limit in range(len(message) + 2):
        cut = cut_utf8(message, limit)
        assert len(cut) <= limit or cut == message
        if 8 <= limit < len(message):
            assert cut.endswith(b"...[cut]")
            assert message.startswith(cut[:-8])
            cut.decode()

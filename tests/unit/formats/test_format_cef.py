"""CEF: read back by a parser written by the letter of the standard, and by pycef."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from typing import Any

import msgspec
import pycef
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from siemrelay.core.event import Actor, AuditEvent, Target, field_getter
from siemrelay.core.times import epoch_ms
from siemrelay.formats.cef import Cef, CefOptions
from siemrelay.formats.writing.text import CONTROL_PICTURES, text_of
from tests.support.events.formats import PLAIN, alone, carried
from tests.support.events.readers import parse_cef
from tests.support.events.strategies import EVENTS, selection_of
from tests.support.examples import examples


def expected_extension(event: AuditEvent) -> dict[str, str]:
    said = {
        "rt": str(epoch_ms(event.time or "")), "externalId": event.id, "cat": event.category,
        "outcome": event.outcome, "suser": event.actor.name, "suid": event.actor.id,
        "duser": event.target.name, "duid": event.target.id, "msg": event.message,
    }  # fmt: skip
    return {key: carried(text, breaks=True) for key, text in said.items() if text}


@examples(200)
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


@examples(100)
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
@examples(60)
@given(events=st.lists(EVENTS, min_size=1, max_size=4))
def test_a_batch_and_a_lone_event_become_what_the_rules_say_letter_by_letter(
    chosen: dict[str, str | None], events: list[AuditEvent]
) -> None:
    form = Cef(CefOptions(map=chosen))
    events.append(PLAIN)
    lines = [careful(chosen, event) for event in events]
    assert [alone(form, event) for event in events] == lines
    assert [line.decode() for line in form.encode(selection_of(events * 16))] == lines * 16


@pytest.mark.parametrize("count", [1, 16])
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

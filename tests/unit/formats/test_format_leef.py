"""LEEF: read back by a parser written by the letter of IBM's guide, whatever the event.

There is no LEEF parser in the package index, and QRadar's own is not to be had: the one below takes
nothing that the guide does not allow.
"""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from siemrelay.core.event import Actor, AuditEvent, Target, field_getter
from siemrelay.formats.leef import Leef, Leef1Options, LeefOptions
from siemrelay.formats.writing.text import CONTROL_PICTURES, text_of
from tests.support.events.readers import parse_leef
from tests.support.events.strategies import EVENTS, selection_of
from tests.support.examples import examples

DELIMITERS = ["\t", "^", "\x01", "~", "#"]
PLAIN = AuditEvent(
    id="e1", time="2024-03-01T08:00:00.123Z", type="Account Provisioned", category="account",
    severity=5, outcome="success", actor=Actor("Ada Lovelace", "u1", "10.0.0.1"),
    target=Target("account", "svc", "t1"), message="done", attributes={"region": "eu"},
)  # fmt: skip


def leef(version: Literal["1.0", "2.0"] = "2.0", /, **options: Any) -> Leef:
    kind = LeefOptions if version == "2.0" else Leef1Options
    return Leef(kind.model_validate(options), version)


def alone(form: Leef, event: AuditEvent) -> str:
    (message,) = form.encode(selection_of([event]))
    return message.decode()


def carried(text: str, delimiter: str) -> str:
    """What a text is when it comes out; only what would end it is another character."""
    instead = chr(CONTROL_PICTURES.get(ord(delimiter), ord(delimiter) + 0xFEE0))
    shown = text.replace(delimiter, instead).translate(CONTROL_PICTURES)
    return shown.encode("utf-8", "replace").decode()


@pytest.mark.parametrize("delimiter", DELIMITERS, ids=ascii)
@examples(100)
@given(event=EVENTS)
def test_any_event_is_read_back_as_it_went_in(delimiter: str, event: AuditEvent) -> None:
    options = {"vendor": "a|b", "product": "\\\t", "version": "="}
    header, attributes = parse_leef(alone(leef(delimiter=delimiter, **options), event))
    kind = carried(event.type.replace("|", "\uff5c"), "\t")
    assert header == ["LEEF:2.0", "a\uff5cb", "\\␉", "=", kind]
    moment = datetime.fromisoformat(event.time or "")
    assert attributes.pop("devTimeFormat") == "yyyy-MM-dd'T'HH:mm:ss.SSSX"
    sent = datetime.strptime(attributes.pop("devTime"), "%Y-%m-%dT%H:%M:%S.%fZ")
    if 2 < moment.year < 9998:
        milliseconds = moment.microsecond // 1000 * 1000
        assert sent.replace(tzinfo=UTC) == moment.replace(microsecond=milliseconds)
    assert 1 <= int(attributes.pop("sev")) <= 10
    address = attributes.pop("src", attributes.pop("identHostName", None))
    assert address == (carried(event.actor.address, delimiter) if event.actor.address else None)
    said = {
        "cat": event.category, "usrName": event.actor.name, "usrId": event.actor.id,
        "resource": event.target.name, "resourceType": event.target.type,
        "resourceId": event.target.id, "externalId": event.id, "outcome": event.outcome,
        "msg": event.message,
    }  # fmt: skip
    assert attributes == {key: carried(text, delimiter) for key, text in said.items() if text}


@examples(100)
@given(event=EVENTS)
def test_version_one_has_no_delimiter_field_and_the_same_attributes(event: AuditEvent) -> None:
    old, new = parse_leef(alone(leef("1.0"), event)), parse_leef(alone(leef(), event))
    assert old[0] == ["LEEF:1.0", *new[0][1:]]
    assert old[1] == new[1]


def careful(delimiter: str, chosen: dict[str, str | None], event: AuditEvent) -> str:
    """A line with the default header, by the letter: key by key, character by character."""
    address, typed = event.actor.address, False
    with suppress(ValueError):
        typed = bool(ipaddress.ip_address(address or "")) and "%" not in (address or "")
    default = {
        "devTime": _sent(event.time or ""), "devTimeFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSX",
        "sev": str(event.severity or 1), "src": address if typed else None,
        "identHostName": None if typed else address,
    }  # fmt: skip
    fields = {
        "cat": "category", "usrName": "actor.name", "resource": "target.name", "externalId": "id",
        "outcome": "outcome", "usrId": "actor.id", "resourceType": "target.type",
        "resourceId": "target.id", "msg": "message",
    }  # fmt: skip
    plain = {key: field for key, field in fields.items() if key not in chosen}
    plain |= {key: field for key, field in chosen.items() if field is not None}
    values: dict[str, Any] = {key: said for key, said in default.items() if key not in chosen}
    for key in sorted(plain, key="msg".__eq__):
        values[key] = field_getter(plain[key])(event)
    written = delimiter if delimiter.isprintable() else f"x{ord(delimiter):02X}"
    kind = event.type.replace("|", "\uff5c").translate(CONTROL_PICTURES)
    kind = kind.encode("utf-8", "replace").decode()
    return f"LEEF:2.0|siemrelay|audit|1.0|{kind}|{written}|" + delimiter.join(
        f"{key}={carried(text_of(value), delimiter)}"
        for key, value in values.items()
        if value is not None and value != ""
    )


def _sent(time: str) -> str:
    moment = datetime.fromisoformat(time)
    with suppress(OverflowError):
        moment = moment.astimezone(UTC)
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


@pytest.mark.parametrize("chosen", [
    {}, {"sev": None}, {"src": "id", "identHostName": None}, {"a1": "attributes.region"},
    {"policy": "target.type", "msg": None, "cat": "severity"}, {"devTime": "time"},
    {"devTime": "target.id", "devTimeFormat": None, "src": None},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("delimiter", ["\t", "^", "`"], ids=ascii)
@examples(60)
@given(events=st.lists(EVENTS, min_size=1, max_size=4))
def test_a_batch_and_a_lone_event_become_what_the_rules_say_letter_by_letter(
    delimiter: str, chosen: dict[str, str | None], events: list[AuditEvent]
) -> None:
    form = leef(delimiter=delimiter, map=chosen)
    events.append(PLAIN)
    lines = [careful(delimiter, chosen, event) for event in events]
    assert [alone(form, event) for event in events] == lines
    assert [line.decode() for line in form.encode(selection_of(events * 16))] == lines * 16


def test_a_leef_line_is_spelled_as_the_guide_spells_it() -> None:
    assert alone(leef(vendor="V", product="P", version="1"), PLAIN) == (
        "LEEF:2.0|V|P|1|Account Provisioned|x09|devTime=2024-03-01T08:00:00.123Z"
        "\tdevTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSX\tsev=5\tsrc=10.0.0.1\tcat=account"
        "\tusrName=Ada Lovelace\tresource=svc\texternalId=e1\toutcome=success\tusrId=u1"
        "\tresourceType=account\tresourceId=t1\tmsg=done"
    )


@pytest.mark.parametrize(
    ("address", "key"),
    [("10.0.0.1", "src"), ("::1", "src"), ("fe80::1%eth0", "identHostName"),
     ("010.0.0.1", "identHostName"), ("laptop^1", "identHostName")],
)  # fmt: skip
def test_an_address_that_is_no_ip_address_is_a_host_name(address: str, key: str) -> None:
    event = msgspec.structs.replace(PLAIN, actor=Actor("a", None, address))
    _, attributes = parse_leef(alone(leef(delimiter="^"), event))
    assert attributes[key] == address.replace("^", "\uff3e")
    assert not {"src", "identHostName"} - {key} & attributes.keys()


@pytest.mark.parametrize(
    ("time", "sent"),
    [
        ("2024-03-01T08:00:00Z", "2024-03-01T08:00:00.000Z"),
        ("2024-03-01T08:00:00.123999+05:30", "2024-03-01T02:30:00.123Z"),
        ("0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00.000Z"),
    ],
)
def test_times_are_in_the_one_form_that_is_announced(time: str, sent: str) -> None:
    _, attributes = parse_leef(alone(leef(), msgspec.structs.replace(PLAIN, time=time)))
    assert attributes["devTime"] == sent


def test_a_leef_map_adds_replaces_and_removes_keys() -> None:
    form = leef(map={
        "policy": "attributes.policy.name", "role": "attributes.role", "usrName": "actor.id",
        "outcome": None, "sev": None, "devTime": "time", "devTimeFormat": None,
        "accountName": "target.name",
    })  # fmt: skip
    event = msgspec.structs.replace(PLAIN, attributes={"policy": {"name": "p\t1"}, "role": ["x"]})
    _, attributes = parse_leef(alone(form, event))
    assert attributes == {
        "src": "10.0.0.1", "cat": "account", "resource": "svc", "externalId": "e1", "usrId": "u1",
        "resourceType": "account", "resourceId": "t1", "msg": "done", "policy": "p␉1",
        "role": '["x"]', "usrName": "u1", "devTime": "2024-03-01T08:00:00.123Z",
        "accountName": "svc",
    }  # fmt: skip
    assert form.fields >= {"attributes", "type", "actor.id"}
    assert not form.fields & {"outcome", "severity"}


@pytest.mark.parametrize(
    ("written", "character"),
    [("^", "^"), ("x5E", "^"), ("0x5e", "^"), ("x09", "\t"), ("tab", "\t"), ("\t", "\t")],
)
def test_a_delimiter_is_a_character_or_its_code(written: str, character: str) -> None:
    assert LeefOptions.model_validate({"delimiter": written}).delimiter == character


@pytest.mark.parametrize(
    "written", ["", "ab", "a", "7", "=", "|", " ", ":", "-", "x0A", "x00", "xFF", "é", "x5", 5]
)
def test_a_delimiter_that_values_or_keys_need_is_a_fault(written: Any) -> None:
    with pytest.raises(ValidationError):
        LeefOptions.model_validate({"delimiter": written})


@given(
    texts=st.lists(st.sampled_from(["a|b", "x^y", "k=v", "%s", "%", "é\t"]), min_size=4, max_size=4)
)
def test_signs_of_the_template_language_are_texts_like_others(texts: list[str]) -> None:
    event = msgspec.structs.replace(PLAIN, type=texts[0], id=texts[1], actor=Actor(*texts[1:]))
    _, attributes = parse_leef(alone(leef(delimiter="^", map={"x": "actor.name"}), event))
    assert attributes["x"] == carried(texts[1], "^")

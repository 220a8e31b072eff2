"""`map:` of JSON: members renamed, added and left out, the others byte for byte."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from pydantic import ValidationError

from siemrelay.core.event import Actor, AuditEvent, Target
from siemrelay.formats.json import Json, JsonOptions
from tests.support.events.strategies import EVENTS, selection_of
from tests.support.examples import examples

PLAIN = AuditEvent(
    id="e1", time="2024-03-01T08:00:00.123Z", type="Account Provisioned", category="account",
    severity=5, outcome="success", actor=Actor("Ada", "u1"), target=Target("account", "svc"),
    message="done", attributes={"region": "eu", "deep": {"er": [1, None]}},
)  # fmt: skip


def read(chosen: dict[str, str | None], event: AuditEvent = PLAIN) -> dict[str, Any]:
    (message,) = Json(JsonOptions(map=chosen)).encode(selection_of([event]))
    found: dict[str, Any] = json.loads(message)
    return found


def test_a_json_map_renames_adds_and_removes_members() -> None:
    found = read({
        "eventName": "type", "type": None, "who.login": "actor.name", "who.number": "actor.id",
        "actor": None, "siemrelay": None, "attributes.deep": None, "er": "attributes.deep.er",
        "target.type": None, "target.name": None, "message.text": "message",
        "gone": "actor.address", "severity": "severity", "no.such.member": None, "id.inner": None,
    })  # fmt: skip
    assert found == {
        "id": "e1", "time": "2024-03-01T08:00:00.123Z", "category": "account", "severity": 5,
        "outcome": "success", "attributes": {"region": "eu"}, "eventName": "Account Provisioned",
        "who": {"login": "Ada", "number": "u1"}, "er": [1, None], "message": {"text": "done"},
    }  # fmt: skip


@examples(200)
@given(event=EVENTS)
def test_what_a_map_does_not_name_stays_byte_for_byte(event: AuditEvent) -> None:
    (plain,) = Json(JsonOptions()).encode(selection_of([event]))
    (mapped,) = Json(JsonOptions(map={"no.such.member": None})).encode(selection_of([event]))
    assert json.loads(mapped) == json.loads(plain)
    before = msgspec.json.decode(plain, type=dict[str, msgspec.Raw])
    after = msgspec.json.decode(mapped, type=dict[str, msgspec.Raw])
    attributes = bytes(before.get("attributes", b"")).replace(b"\x7f", b"\\u007f")
    assert bytes(after.get("attributes", b"")) == attributes


@examples(100)
@given(event=EVENTS)
def test_a_mapped_member_has_the_fields_value(event: AuditEvent) -> None:
    plain = read({}, event)
    found = read({"x.y": "message", "x.z": "actor.name"}, event)
    said = {"y": plain.get("message"), "z": plain.get("actor", {}).get("name")}
    said = {name: value for name, value in said.items() if value is not None}
    assert found.get("x", {}) == said


@pytest.mark.parametrize(
    "wrong",
    [{"": "id"}, {"a..b": "id"}, {".a": "id"}, {"a": "actor"}, {"a": "attributes."},
     {"a": "id", "a.b": "type"}, {"a.b": "id", "a.b.c": None}],
    ids=str,
)  # fmt: skip
def test_a_json_map_of_no_meaning_is_a_fault(wrong: dict[str, str | None]) -> None:
    with pytest.raises(ValidationError):
        JsonOptions(map=wrong)

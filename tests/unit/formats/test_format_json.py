"""JSON and raw: exactly the event, and exactly the record."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given

from siemrelay.core.canonical_json import canonical
from siemrelay.core.event import AuditEvent, DecodedBatch, Selection, attributes_of
from siemrelay.core.times import rfc3339
from siemrelay.formats.json import Json, JsonOptions
from siemrelay.formats.raw import Raw
from tests.support.events.formats import PLAIN, alone, carried
from tests.support.events.strategies import EVENTS, RECORDS, batch_of, selection_of
from tests.support.examples import examples


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


@examples(150)
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
    messages = Raw().encode(selection_of([PLAIN] * 3, records))
    for record, message in zip(records, messages, strict=True):
        text = record.rstrip(b"\r").decode("utf-8", "replace")
        assert message.decode() == carried(text)
        if text.encode() == record and text.isprintable():
            assert message == record


def test_json_under_a_seal_is_in_canonical_form_unless_it_has_none() -> None:
    def numbered(attributes: bytes) -> bytes:
        event = msgspec.structs.replace(PLAIN, attributes=msgspec.Raw(attributes))
        selection = Selection(selection_of([event]).decoded, number="abcdefgh22:7")
        (message,) = Json(JsonOptions()).encode(selection)
        return bytes(message)

    message = numbered(b'{"b":1.0, "a":"\\u00e9", "n":1E3, "c":{}}')
    assert message == canonical(message)
    assert '"attributes":{"a":"é","b":1,"c":{},"n":1000}'.encode() in message
    twice = b'{"a":1, "a":2}'
    assert twice in numbered(twice)
    with pytest.raises(ValueError, match="twice"):
        canonical(numbered(twice))

"""`add:`: every event has the operator's fields, each once, in every format."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from siemrelay.core.event import AuditEvent, attributes_of, field_getter
from siemrelay.registry import FORMATS, build_format, carrying
from siemrelay.transforms.additions import Add, Additions
from tests.support.events.formats import HOST, PLAIN
from tests.support.events.strategies import EVENTS, selection_of

READ = TypeAdapter(Add).validate_python


@given(
    st.lists(EVENTS, min_size=1, max_size=4),
    st.dictionaries(
        st.sampled_from(["attributes.env", "attributes.a", "attributes.b.c", "attributes.é"]),
        st.sampled_from(["prod", 7, True, ["x", "y"], 'a "b"']), min_size=1,
    ),
)  # fmt: skip
def test_added_attributes_are_there_and_the_others_stay(
    events: list[AuditEvent], add: dict[str, Any]
) -> None:
    before = [dict(attributes_of(event)) for event in events]
    changed = Additions(READ(add)).apply(events)
    assert [attributes_of(event) for event in events] == before, "the events are shared"
    for event, own in zip(changed, before, strict=True):
        for path, value in add.items():
            assert field_getter(path)(event) == value
        kept = {name: own[name] for name in own if f"attributes.{name}" not in add and name != "b"}
        assert attributes_of(event).items() >= kept.items()
        if isinstance(event.attributes, msgspec.Raw):
            pairs = json.loads(bytes(event.attributes), object_pairs_hook=list)
            assert len({name for name, _ in pairs}) == len(pairs), "a name comes twice"


RAWS = [
    b'{"region":"eu"}', b"{}", b'{"env":"test"}', b'{"\\u0065nv":"test"}', b'{ "env" : "test" }',
    b'{"deep":{"env":"test"}}', b'{"deep":{}}', b'{"path":"C:\\\\temp"}', b'{"note":"env"}',
]  # fmt: skip


@pytest.mark.parametrize("raws", [RAWS, RAWS[:1] * 3, [RAWS[0], RAWS[8]], *([raw] for raw in RAWS)])
def test_an_attribute_of_the_sender_gives_way_however_it_is_spelled(raws: list[bytes]) -> None:
    events = [AuditEvent(attributes=msgspec.Raw(raw)) for raw in raws]
    for event, raw in zip(Additions({"attributes.env": "prod"}).apply(events), raws, strict=True):
        assert isinstance(event.attributes, msgspec.Raw)
        assert b"\n" not in bytes(event.attributes)
        pairs = json.loads(bytes(event.attributes), object_pairs_hook=list)
        assert [value for name, value in pairs if name == "env"] == ["prod"]
        assert dict(pairs).keys() == {*json.loads(raw), "env"}


def test_fields_of_the_event_are_set() -> None:
    add = {"category": "custom", "severity": 9, "outcome": "unknown", "actor.name": "x",
           "target.type": "host", "message": "m", "type": "Door Opened"}  # fmt: skip
    (event,) = Additions(READ(add)).apply([PLAIN])
    assert {path: field_getter(path)(event) for path in add} == add
    assert (event.actor.id, event.target.name, event.id) == ("u1", "svc", PLAIN.id)


@pytest.mark.parametrize("name", [name for name, kind in FORMATS.items() if not kind.as_received])
def test_every_format_carries_what_is_added(name: str) -> None:
    add = {"attributes.env": "prod-eu", "attributes.tags": ["pci", "dmz"], "category": "own-cat"}
    options = carrying(name, FORMATS[name].options(), [p for p in add if p.startswith("attr")])
    form = build_format(name, "none", options, HOST)
    selection = selection_of([PLAIN] * 20)
    selection = selection.changed(Additions(READ(add)).apply(selection.events))
    for message in form.encode(selection):
        for text in ("prod-eu", "pci", "dmz", "own-cat"):
            assert text in message.decode()
        assert "eu" in message.decode()


def test_an_added_attribute_takes_no_key_of_the_formats_own() -> None:
    options = carrying("cef", FORMATS["cef"].options(), ["attributes.src"])
    assert options.map == {"attributes_src": "attributes.src"}
    mapped = FORMATS["cef"].options(map={"cs1": "attributes.env"})  # type: ignore[call-arg]  # CEF's
    assert carrying("cef", mapped, ["attributes.env"]) is mapped


@pytest.mark.parametrize(
    ("add", "fault"),
    [
        ({"id": "x"}, "`id` is the event's own"),
        ({"time": "x"}, "`time` is the event's own"),
        ({"severity": 11}, "a whole number from 0 to 10"),
        ({"severity": "high"}, "a whole number from 0 to 10"),
        ({"outcome": "good"}, "expected one of success, failure, unknown"),
        ({"category": 5}, "category: write a text"),
        ({"env": "prod"}, "all others are attributes.NAME"),
    ],
)
def test_what_cannot_be_added_is_a_fault(add: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError) as refused:
        READ(add)
    assert fault in str(refused.value)

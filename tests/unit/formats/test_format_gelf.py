"""GELF 1.1: what Graylog's specification allows and nothing else, and nothing lost.

No GELF parser is to be had without Graylog: the reader below refuses what the specification
("GELF Payload Specification") does not allow, and what Graylog's own input refuses or drops.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given

from siemrelay.core.event import Actor, AuditEvent, Target, attributes_of
from siemrelay.core.times import epoch_ms
from siemrelay.formats.gelf import Gelf, GelfOptions
from tests.support.events.readers import parse_gelf
from tests.support.events.strategies import EVENTS, selection_of
from tests.support.examples import examples

PLAIN = AuditEvent(
    id="e1", time="2024-03-01T08:00:00.123Z", type="Account Provisioned", category="account",
    severity=5, outcome="success", actor=Actor("Ada Lovelace", "u1", "10.0.0.1"),
    target=Target("account", "svc", "t1"), message="done", attributes={"region": "eu"},
)  # fmt: skip


def read(event: AuditEvent, **options: Any) -> dict[str, Any]:
    (message,) = Gelf(GelfOptions(**options), "relay").encode(selection_of([event]))
    return parse_gelf(message)


def shown(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


@examples(300)
@given(event=EVENTS)
def test_any_event_is_gelf_and_comes_back_as_it_went_in(event: AuditEvent) -> None:
    fields = read(event)
    assert fields["host"] == "relay"
    assert fields["timestamp"] == epoch_ms(event.time or "") / 1000
    own = {
        "_event_id": event.id, "_type": event.type, "_category": event.category,
        "_outcome": event.outcome, "_actor_name": event.actor.name, "_actor_id": event.actor.id,
        "_actor_address": event.actor.address, "_target_type": event.target.type,
        "_target_name": event.target.name, "_target_id": event.target.id,
    }  # fmt: skip
    for name, value in own.items():
        assert fields.get(name) == (None if value is None else shown(value))
    assert (fields["_severity"], fields["_siemrelay_sequence"]) == (event.severity, 7)
    if event.message and event.message.strip():
        assert fields.get("full_message", fields["short_message"]) == shown(event.message)
        assert fields["short_message"].strip() in shown(event.message)
        assert not re.search("[\r\n]", fields["short_message"])
    flat = {k: v for k, v in attributes_of(event).items() if not isinstance(v, (dict, list))}
    values = [value for name, value in fields.items() if name.startswith("_attributes_")]
    for value in flat.values():
        if isinstance(value, str):
            assert shown(value) in values
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            assert value in values or str(value) in values


def test_gelf_is_spelled_as_the_specification_spells_it() -> None:
    assert read(PLAIN, hostname="edge-1") == {
        "version": "1.1", "host": "edge-1", "short_message": "done", "timestamp": 1709280000.123,
        "level": 4, "_event_id": "e1", "_type": "Account Provisioned", "_category": "account",
        "_severity": 5, "_outcome": "success", "_siemrelay_sequence": 7,
        "_siemrelay_source": "test", "_actor_name": "Ada Lovelace", "_actor_id": "u1",
        "_actor_address": "10.0.0.1", "_target_type": "account", "_target_name": "svc",
        "_target_id": "t1", "_attributes_region": "eu",
    }  # fmt: skip


def test_attributes_are_flat_texts_and_numbers_under_names_of_their_own() -> None:
    attributes = {
        "a": {"b": {"c": 1}}, "a.b": {"c": 2}, "a_b_c": 3, "id": "x", "_id": "y", "": "empty",
        "yes": True, "none": None, "list": [1, "é"], "big": 2**63, "small": -(2**63), "half": 0.5,
        "né me": 1, "n\x7f": "\x7f",
    }  # fmt: skip
    fields = read(msgspec.structs.replace(PLAIN, attributes=attributes))
    own = {n.removeprefix("_attributes_"): v for n, v in fields.items() if "_attributes_" in n}
    assert own == {
        "a_b_c": 1, "a_b_c_2": 2, "a_b_c_3": 3, "id": "x", "_id": "y", "": "empty", "yes": "true",
        "list": '[1, "é"]', "big": str(2**63), "small": -(2**63), "half": 0.5, "n__me": 1,
        "n_": "\x7f",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("message", "short", "full"),
    [
        ("one line", "one line", None),
        ("first\nsecond", "first", "first\nsecond"),
        ("\r\n first \r\nsecond", "first ", "\r\n first \r\nsecond"),
        (None, "Account Provisioned", None), ("", "Account Provisioned", None),
        (" \n ", "Account Provisioned", " \n "),
    ],
)  # fmt: skip
def test_the_first_line_of_a_message_is_the_short_one(
    message: str | None, short: str, full: str | None
) -> None:
    fields = read(msgspec.structs.replace(PLAIN, message=message))
    assert (fields["short_message"], fields.get("full_message")) == (short, full)


def test_a_thousand_attributes_of_one_name_are_all_kept() -> None:
    attributes = {f"a{'.' * (i % 10)}{'_' * (9 - i % 10)}{i // 10 * ' '}": i for i in range(1000)}
    fields = read(msgspec.structs.replace(PLAIN, attributes=attributes))
    assert sorted(v for n, v in fields.items() if "_attributes_" in n) == list(range(1000))

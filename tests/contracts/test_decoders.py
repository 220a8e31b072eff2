"""Every decoder of the registry: one event a record, with the promises of an event, for any bytes.

A new decoder earns these tests by its row in the registry.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.core.event import FIELDS, AuditEvent, Batch, Selection, attributes_of, field_getter
from siemrelay.core.event_types import UNPARSED
from siemrelay.decoders.contract import Decoder
from siemrelay.products.product import BUILT_IN
from siemrelay.registry import DECODERS, FORMATS
from tests.support.events.formats import made
from tests.support.events.hostile import FORGERIES, RECORDS
from tests.support.events.products import CATALOGUE
from tests.support.events.readers import once
from tests.support.events.strategies import HOSTILE, batch_of
from tests.support.examples import examples

EVERYTHING = frozenset({*FIELDS, "attributes"})
_HEADERS = ["", "<13>1 2024-03-01T08:00:00Z h a - - - ", "<13>Mar  1 08:00:00 h a: "]
_BODIES = [
    "CEF:0|v|p|1|t|n|5|src=10.0.0.1 msg=", "LEEF:2.0|v|p|1|t|^|usrName=a^msg=", "a=b c=d e=",
    "1,2026/11/19 07:00:00,0018,SYSTEM,auth,0,2026/11/19 07:00:00,,e,o,0,0,m,high,x,7,0x0,0,0,0,0,",
    '{"type":"t","message":', "",
]  # fmt: skip
_LINES = st.one_of(
    RECORDS.map(lambda records: records[0]),
    st.sampled_from(list(HOSTILE.values())),
    st.binary(max_size=60),
    st.tuples(st.sampled_from(_HEADERS), st.sampled_from(_BODIES), st.sampled_from(FORGERIES)).map(
        lambda parts: "".join(parts).encode("utf-8", "replace")
    ),
).map(lambda record: record.replace(b"\n", b" "))
BATCHES = st.lists(_LINES, min_size=1, max_size=6)


def decoder(name: str, wanted: frozenset[str] = EVERYTHING, product: str = "generic") -> Decoder:
    return DECODERS[name].build(BUILT_IN[product].spellings, wanted, CATALOGUE)


def values(event: AuditEvent, fields: frozenset[str] = frozenset(FIELDS)) -> dict[str, Any]:
    return {field: field_getter(field)(event) for field in sorted(fields)}


@pytest.mark.parametrize("name", DECODERS)
@examples(100)
@given(records=BATCHES, product=st.sampled_from(sorted(BUILT_IN)))
def test_every_record_becomes_one_event_that_keeps_the_promises(
    name: str, records: list[bytes], product: str
) -> None:
    events = decoder(name, product=product).decode(batch_of(records)).events
    assert len(events) == len(records)
    for event in events:
        assert event.id is not None
        assert event.type
        assert event.category is not None
        assert event.outcome in ("success", "failure", "unknown")
        assert event.severity in range(11)
        assert event.time is not None
        assert event.time[-1] == "Z" or event.time[-6] in "+-"
        assert all(isinstance(text, (str, int, type(None))) for text in values(event).values())
        if isinstance(event.attributes, msgspec.Raw):
            text = bytes(event.attributes).decode()
            assert isinstance(json.loads(text, object_pairs_hook=once), dict)
            assert not set(text) & set(map(chr, range(0x20)))


@pytest.mark.parametrize("name", DECODERS)
@examples(60)
@given(records=BATCHES)
def test_an_event_does_not_depend_on_the_batch_that_its_record_is_in(
    name: str, records: list[bytes]
) -> None:
    batch = batch_of(records * 3)
    sequences = range(batch.first_sequence, batch.next_sequence)
    alone = [decoder(name).decode(one).events[0] for one in batch.alone(sequences)]
    learned = decoder(name)
    for _ in range(2):
        events = learned.decode(batch).events
        assert list(map(values, events)) == list(map(values, alone))
        assert list(map(attributes_of, events)) == list(map(attributes_of, alone))


@pytest.mark.parametrize("name", DECODERS)
@examples(60)
@given(records=BATCHES, wanted=st.sets(st.sampled_from(sorted(EVERYTHING))).map(frozenset))
def test_a_field_is_the_same_whatever_else_is_wanted(
    name: str, records: list[bytes], wanted: frozenset[str]
) -> None:
    every = decoder(name).decode(batch_of(records)).events
    some = decoder(name, wanted).decode(batch_of(records)).events
    fields = wanted - {"attributes"}
    assert [values(event, fields) for event in some] == [values(event, fields) for event in every]
    if "attributes" in wanted:
        assert list(map(attributes_of, some)) == list(map(attributes_of, every))


@pytest.mark.parametrize("name", DECODERS)
def test_a_piece_of_a_record_is_an_event_of_its_own(name: str) -> None:
    batch = Batch(1, 1, "test", 1_700_000_000.0, b'{"type":"a","message":"\n' * 9 + b"\n", part=2)
    (event,) = decoder(name).decode(batch).events
    assert event.type == UNPARSED


@pytest.mark.parametrize("name", DECODERS)
@examples(40)
@given(records=BATCHES)
def test_every_format_has_a_message_for_each_event(name: str, records: list[bytes]) -> None:
    decoded = decoder(name).decode(batch_of(records))
    for form in FORMATS:
        messages = made(form).encode(Selection(decoded))
        assert len(messages) == len(records)
        for message in messages:
            message.decode()

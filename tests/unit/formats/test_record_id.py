"""The id of a record: the same whenever it is sent, and nobody else's."""

from __future__ import annotations

import pytest

from siemrelay.core.event import AuditEvent, Batch, DecodedBatch, Selection
from siemrelay.formats.envelopes.record_id import record_ids


def id_of(
    record: bytes = b'{"id":"ev-1001"}', *, own: str | None = "ev-1001", source: str = "audit",
    sequence: int = 7, received_at: float = 1.7e9, part: int | None = None,
) -> str:  # fmt: skip
    batch = Batch(sequence, 1, source, received_at, record + b"\n", part)
    (found,) = record_ids(Selection(DecodedBatch(batch, [AuditEvent(id=own)])))
    return found


def test_a_record_keeps_its_id_though_it_is_read_and_numbered_again() -> None:
    assert id_of() == id_of(sequence=99, received_at=1.8e9)


@pytest.mark.parametrize(
    "other",
    [
        {"source": "hosts"}, {"record": b'{"id":"ev-1001","type":"forged"}'}, {"own": "ev-1002"},
        {"part": 1},
        # The id's end and the record's beginning cannot change places.
        {"own": "ev-10", "record": b'01{"id":"ev-1001"}'}, {"own": 'ev-1001{"id"', "record": b":"},
    ],
)  # fmt: skip
def test_another_source_id_content_or_part_has_another_id(other: dict[str, str]) -> None:
    assert id_of(**other) != id_of()  # type: ignore[arg-type]  # the table is of keywords


@pytest.mark.parametrize(
    ("own", "record"),
    [("", b"{}"), (None, b"{}"), ("abc...[cut]", b"{}"), ("abc", b"{...[cut]"), ("\ud800", b"{}")],
)
def test_events_that_may_be_alike_by_shortening_or_without_id_stay_apart(
    own: str | None, record: bytes
) -> None:
    first = id_of(record, own=own, sequence=1)
    assert first == id_of(record, own=own, sequence=1, received_at=0.0)
    if own != "\ud800":
        assert first != id_of(record, own=own, sequence=2)

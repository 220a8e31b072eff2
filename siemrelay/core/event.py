"""The values that pass between the layers: batches of records, events, a sink's selection.

One vocabulary (`FIELDS`) names an event's parts in `fields:`, filters, `map:`, JSON output and
`preview`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from itertools import compress
from operator import attrgetter
from typing import Any, Final

import msgspec

from siemrelay.core.forgiving_json import forgiving_json
from siemrelay.core.lines import invalid_utf8, lines_of, records_of

FIELDS: Final = (
    "id", "time", "type", "category", "severity", "outcome",
    "actor.name", "actor.id", "actor.address",
    "target.type", "target.name", "target.id", "message",
)  # fmt: skip
"""Every field that has a place of its own; `attributes.*` holds everything else, as received."""

SYSLOG_SEVERITY: Final = "syslog_severity"
"""Beside `FIELDS` in a sink's `map:`: the event's severity on syslog's scale."""

DEFAULT_SEVERITY: Final = 3
FAILED_SEVERITY: Final = 5
"""A failed outcome without a severity of its own is at least this."""


class Actor(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The person or program that acted."""

    name: str | None = None
    id: str | None = None
    address: str | None = None


class Target(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The object that was acted on."""

    type: str | None = None
    name: str | None = None
    id: str | None = None


NOBODY: Final = Actor()
NOTHING: Final = Target()


class AuditEvent(msgspec.Struct, gc=False, kw_only=True):
    """One audit event, as filters and formats see it.

    After decoding: `id`, `time` (RFC 3339 with an offset), `type`, `category`, `severity` (0 to 10)
    and `outcome` (success, failure, unknown) are always there; the rest is None where the record
    did not say. `attributes` is filled only when the decoder was asked for it; as `msgspec.Raw` it
    is one JSON object in UTF-8 without control characters, and no object in it has a name twice.
    Read it through `attributes_of`.

    `gc=False`: events live for one batch, hold no cycles, and are made by the hundred thousand.
    """

    id: str | None = None
    time: str | None = None
    type: str = ""
    category: str | None = None
    severity: int | None = None
    outcome: str | None = None
    actor: Actor = NOBODY
    target: Target = NOTHING
    message: str | None = None
    attributes: dict[str, Any] | msgspec.Raw | None = None


REDACTED_PART: Final = 0
"""`part` of a batch that holds one record, and that not as received: an event of which a part was
redacted, as JSON with the event's own names. Whatever the source's decoder, it is read as that."""


class Batch(msgspec.Struct, frozen=True, weakref=True):
    """Consecutive records from one source: the unit of reading, storing and sending.

    `payload` holds `count` records as lines (see `core.lines`). Record i has the sequence number
    `first_sequence + i`, unique in the buffer and never reused. `received_at` is in seconds since
    the epoch. `part` is None, or the number (from 1) of this piece of a record that was too long
    to keep in one: such a batch holds just that piece; or it is `REDACTED_PART`. `identity` is the
    source's name in the ids of the records, where that is another one than its present name.
    """

    first_sequence: int
    count: int
    source: str
    received_at: float
    payload: bytes
    part: int | None = None
    identity: str | None = None

    @property
    def next_sequence(self) -> int:
        """The sequence number after this batch's last."""
        return self.first_sequence + self.count

    def records(self) -> list[bytes]:
        """The records, without the line feeds that end them."""
        return records_of(self.payload, self.count)

    def alone(self, wanted: Container[int]) -> list[Batch]:
        """The records with these sequence numbers, each as a batch of its own."""
        return [
            Batch(sequence, 1, self.source, self.received_at, record + b"\n", self.part)
            for sequence, record in enumerate(self.records(), self.first_sequence)
            if sequence in wanted
        ]


class DecodedBatch:
    """A batch and its events: exactly `batch.count` of them, in order.

    Every sink near the end of the buffer shares it, so nothing changes once it is made; what is
    not needed at once is only filled in later.
    """

    __slots__ = ("_decode", "_events", "_records", "_replaced", "batch", "is_syslog", "unparsed")

    def __init__(
        self, batch: Batch, events: list[AuditEvent] | Callable[[], DecodedBatch], *,
        unparsed: int = 0, is_syslog: bool = False,
    ) -> None:  # fmt: skip
        """`events` may be what decodes the batch, for when an event is first looked at.

        `is_syslog`: each record is a whole syslog message, and its event says what it says.
        """
        self.batch, self.unparsed, self.is_syslog = batch, unparsed, is_syslog
        self._decode = events if callable(events) else None
        self._events: list[AuditEvent] | None = None if callable(events) else events
        self._replaced: frozenset[int] | None = None if callable(events) else frozenset()
        self._records: Sequence[bytes] | None = None
        # Invariant: one event per record, or sequence numbers would shift between sinks;
        # checked by test_every_record_becomes_exactly_one_event.
        assert callable(events) or len(events) == batch.count, (events, batch.count)

    @property
    def events(self) -> list[AuditEvent]:
        """One for each record."""
        if self._events is None:
            assert self._decode is not None
            decoded = self._decode()
            self._events, self._replaced = decoded.events, decoded.replaced
            self.unparsed = decoded.unparsed
        return self._events

    @property
    def is_decoded(self) -> bool:
        """Whether the events are there; `unparsed` counts nothing before."""
        return self._events is not None

    @property
    def replaced(self) -> frozenset[int]:
        """Which records (by index) have bytes that are not UTF-8, replaced in events."""
        if self._replaced is None:
            self._replaced = frozenset(invalid_utf8(self.records))
        return self._replaced

    @replaced.setter
    def replaced(self, replaced: frozenset[int]) -> None:
        self._replaced = replaced

    @property
    def records(self) -> Sequence[bytes]:
        """The records' bytes, taken apart when first looked at."""
        if self._records is None:
            self._records = lines_of(self.batch.payload, self.batch.count)
        return self._records


class Selection:
    """The events of one decoded batch that one sink takes, with the batch that they came from.

    `events` and `records` may have been changed for this sink; `received` is as it came.
    """

    __slots__ = (
        "_columns", "_count", "_events", "_keep", "_rewrite", "_rewritten", "decoded", "is_changed",
        "number",
    )  # fmt: skip

    def __init__(
        self, decoded: DecodedBatch, keep: Sequence[bool] | None = None,
        number: str | None = None, *, events: list[AuditEvent] | None = None,
        rewrite: Rewrite | None = None,
    ) -> None:  # fmt: skip
        """`keep` has a truth value per event; None takes them all.

        `events` are the selected events, changed, and `rewrite` returns their changed records.
        """
        self.decoded, self._keep = decoded, keep
        self._rewrite = rewrite
        self._rewritten: list[bytes] = []
        self.number = number
        """Stands for the number of each message in a sealed stream; None without `seal:`.

        A format writes it where no sender can (see `proof.leaf`), once in a message.
        """
        self._events = events
        self.is_changed = events is not None
        """Whether the events say something else than their records as they came."""
        self._columns: dict[str, list[Any]] = {}
        self._count = decoded.batch.count if keep is None else sum(map(bool, keep))

    @property
    def events(self) -> list[AuditEvent]:
        """The selected events, as this sink sends them."""
        if self._events is None:
            every = self.decoded.events
            self._events = every if self._keep is None else list(compress(every, self._keep))
        return self._events

    def changed(self, events: list[AuditEvent], rewrite: Rewrite | None = None) -> Selection:
        """The same selection with other events, one for each, in order; see `__init__`."""
        assert len(events) == len(self), (len(events), len(self))
        return Selection(
            self.decoded, self._keep, self.number, events=events, rewrite=rewrite or self._rewrite
        )

    def alone(self, index: int) -> Selection:
        """The selected event at `index`, as a selection of its own."""
        at = self.sequences[index] - self.decoded.batch.first_sequence
        keep = [number == at for number in range(self.decoded.batch.count)]
        events = [self.events[index]] if self.is_changed else None
        return Selection(self.decoded, keep, self.number, events=events, rewrite=self._rewrite)

    def where(self, some: Sequence[object]) -> Selection:
        """Those of the selected events, as they came, for which `some` has a true value."""
        assert not self.is_changed
        if self._keep is None:
            return Selection(self.decoded, list(map(bool, some)), self.number)
        fits = iter(some)
        keep = [bool(taken and next(fits)) for taken in self._keep]
        return Selection(self.decoded, keep, self.number)

    def __len__(self) -> int:
        return self._count

    @property
    def sequences(self) -> Sequence[int]:
        """The events' sequence numbers, rising."""
        batch = self.decoded.batch
        every = range(batch.first_sequence, batch.next_sequence)
        return every if self._keep is None else list(compress(every, self._keep))

    def column(self, field: str) -> list[Any]:
        """One of `FIELDS`, or `attributes.NAME`, of every event; read once, not to be changed."""
        column = self._columns.get(field)
        if column is None:
            whole, get = _GETTERS.get(field) or ("", field_getter(field))
            column = list(map(get, self.column(whole) if whole else self.events))
            self._columns[field] = column
        return column

    @property
    def decoded_events(self) -> list[AuditEvent]:
        """The selected events as they were decoded."""
        every = self.decoded.events
        return every if self._keep is None else list(compress(every, self._keep))

    @property
    def received(self) -> Sequence[bytes]:
        """The events' bytes as received."""
        every = self.decoded.records
        return every if self._keep is None else list(compress(every, self._keep))

    @property
    def records(self) -> Sequence[bytes]:
        """The events' bytes as this sink may forward them."""
        if self._rewrite is None:
            return self.received
        if not self._rewritten:
            self._rewritten = self._rewrite(self)
        return self._rewritten


_SYSLOG_SEVERITY: Final = (6, 6, 6, 6, 4, 4, 4, 3, 3, 2, 2)


def syslog_severity(severity: int) -> int:
    """The event's 0 to 10 on syslog's scale: 6 informational, 4 warning, 3 error, 2 critical."""
    return _SYSLOG_SEVERITY[severity]


Rewrite = Callable[[Selection], list[bytes]]
"""Returns the records of a selection as they may be forwarded."""


def field_getter(field: str) -> Callable[[AuditEvent], Any]:
    """A function that reads a field of `FIELDS`, `syslog_severity` or `attributes.NAME`.

    Dots in NAME descend, or are part of a name in the record where there is no such object. If they
    descend into a list of objects, the value is the list of what is in them.
    """
    if field == SYSLOG_SEVERITY:
        return lambda event: syslog_severity(event.severity or 0)
    if field.startswith("attributes."):
        path = field.split(".")[1:]
        return lambda event: _value_at(attributes_of(event), path)
    return attrgetter(field)


def _part_getter(field: str) -> tuple[str, Callable[[Any], Any]]:
    whole, _, part = field.rpartition(".")
    return whole, attrgetter(part)


_GETTERS: Final = {f: _part_getter(f) for f in (*FIELDS, "actor", "target", "attributes")}
"""For a field the one that it is a part of, empty for an event's own, and how it is read there."""


def _value_at(value: Any, path: Sequence[str]) -> Any:
    for end in range(1, len(path) + 1):
        name = ".".join(path[:end])
        found = [place[name] for place in _objects(value) if name in place]
        if end < len(path):
            found = [inner for each in found if (inner := _value_at(each, path[end:])) is not None]
        if found and isinstance(value, list):
            return [one for each in found for one in (each if isinstance(each, list) else [each])]
        if found:
            return found[0]
    return None


def places_of(value: Any, path: Sequence[str]) -> Iterator[tuple[dict[str, Any], str]]:
    """Every member of nested objects and lists that a dotted path may name: its object, its name.

    `["user", "email"]` is `email` in `user`, in each element of a list `user`, and `user.email`.
    """
    for place in _objects(value):
        for end in range(1, len(path) + 1):
            name = ".".join(path[:end])
            if name in place and end == len(path):
                yield place, name
            elif name in place:
                yield from places_of(place[name], path[end:])


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """A value that is an object, or all those in a list, however its lists are nested."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            yield one
        elif isinstance(one, list):
            left += reversed(one)


def attributes_of(event: AuditEvent) -> dict[str, Any]:
    """The event's other fields; empty where there are none."""
    attributes = event.attributes
    if isinstance(attributes, msgspec.Raw):
        found = forgiving_json(attributes)
        return found if isinstance(found, dict) else {}
    return attributes or {}

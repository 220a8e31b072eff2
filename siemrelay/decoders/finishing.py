"""From what records said to events as they are promised: the last step of every decoder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

from siemrelay.core.event import AuditEvent, Batch, DecodedBatch, attributes_of
from siemrelay.core.event_types import UNPARSED, Catalogue
from siemrelay.core.times import rfc3339
from siemrelay.decoders.normalise import Kind, Kinds, not_understood, time_of, times_are_plain

ALWAYS_WANTED: Final = frozenset({"id", "type", "category", "severity", "outcome"})
"""The fields that every decoder fills, asked or not: filters and promises rest on them."""

_kind: Final = attrgetter("type", "category", "severity", "outcome")
_severity: Final = attrgetter("severity")
_SEVERITY: Final = 2
_TEXT: Final = frozenset({str, type(None)})
_PLAIN: Final = _TEXT | {int}

_id, _time, _type = attrgetter("id"), attrgetter("time"), attrgetter("type")


class Finisher:
    """Normalises the events of one source, batch by batch; remembers kinds, in bounded memory."""

    def __init__(self, catalogue: Catalogue, wanted: frozenset[str]) -> None:
        self._kinds = Kinds(catalogue)
        self._attributes, self._times = "attributes" in wanted, "time" in wanted

    def finished(
        self, batch: Batch, events: list[AuditEvent], unparsed: int, *, tidy: bool = False
    ) -> DecodedBatch:
        """The batch with its events, which are normalised in place.

        `tidy`: categories, severities and outcomes are known to be normal, only types are not.
        A severity, outcome or time that means nothing here is kept among the attributes.
        """
        decoded = DecodedBatch(batch, events, unparsed=unparsed)
        if not (tidy and self._kinds.all_canonical(set(map(_type, events)))):
            self._set_kinds(events)
        if self._times:
            self._set_times(batch, events)
        if None in map(_id, events):
            _set_ids(decoded)
        return decoded

    def _set_kinds(self, events: list[AuditEvent]) -> None:
        normal: Callable[[Any], tuple[Kind, dict[str, Any]]] = self._normal
        distinct = set(map(_kind, events))
        # True == 1 == 1.0 hide each other in a set, in all but texts: looked for apart.
        if set(map(type, map(_severity, events))) <= _PLAIN and all(
            type(part) in _TEXT
            for kind in distinct
            for part in (*kind[:_SEVERITY], *kind[_SEVERITY + 1 :])
        ):
            made = {kind: normal(kind) for kind in distinct}
            if all(kind == done for kind, (done, _) in made.items()):
                return
            normal = made.__getitem__
        for event in events:
            done, lost = normal(_kind(event))
            event.type, event.category, event.severity, event.outcome = done
            if lost and self._attributes:
                _keep(event, lost)

    def _normal(self, said: tuple[Any, ...]) -> tuple[Kind, dict[str, Any]]:
        return self._kinds.normal(said), not_understood(said)

    def _set_times(self, batch: Batch, events: list[AuditEvent]) -> None:
        times: list[Any] = list(map(_time, events))
        if set(map(type, times)) == {str} and times_are_plain(times):
            return
        received = rfc3339(batch.received_at)
        for event, said in zip(events, times, strict=True):
            event.time = time_of(said)
            if event.time is None:
                event.time = received
                if said is not None and self._attributes:
                    _keep(event, {"time": said})


def _keep(event: AuditEvent, lost: dict[str, Any]) -> None:
    event.attributes = {**lost, **attributes_of(event)}


def unparsed(record: bytes, *, part: int | None = None) -> AuditEvent:
    """The event of a record that could not be read: its text, its bad bytes replaced."""
    return AuditEvent(
        type=UNPARSED, message=record.decode("utf-8", "replace"),
        attributes=None if part is None else {"part": part},
    )  # fmt: skip


def _set_ids(decoded: DecodedBatch) -> None:
    """Ids for events without one: the same at every retry and replay, different for equal lines."""
    batch = decoded.batch
    source = f"\n{batch.source}\n".encode()
    for sequence, event, record in zip(
        range(batch.first_sequence, batch.next_sequence), decoded.events, decoded.records,
        strict=True,
    ):  # fmt: skip
        if event.id is None:
            event.id = hashlib.blake2b(
                b"%b%b%d" % (record, source, sequence), digest_size=16, salt=b"siemrelay-id"
            ).hexdigest()

"""A stored batch becomes the messages of every sink that takes it: decode, filter, format.

Nothing here waits, logs or knows a receiver: what it finds comes back as values.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import compress
from operator import or_
from typing import Any, Final

import msgspec

from siemrelay.core.event import DEFAULT_SEVERITY, AuditEvent, Batch, DecodedBatch, Selection
from siemrelay.core.event_types import UNPARSED
from siemrelay.core.lines import size_of
from siemrelay.core.memo import BoundedMemo
from siemrelay.core.times import rfc3339
from siemrelay.decoders.contract import Decoder, ReadsSyslog
from siemrelay.pipeline.formatting.messages import (
    NO_MESSAGES,
    FormattedBatch,
    GroupMessages,
    InternalError,
    SelectedMessages,
    SinkMessages,
    internal_error,
)
from siemrelay.pipeline.formatting.sink_format import SinkFormat

NONE: Final[Mapping[str, str]] = {}

DecoderOf = Callable[[frozenset[str]], Decoder]
"""Makes a source's decoder that fills these fields."""

# Sinks that fail or lag make other sets of fields: a set that comes back finds what its decoder has
# learned. A source with more sets than these is rare, and learns again.
_DECODERS_PER_SOURCE: Final = 4

Place = tuple[int, int]
"""The numbers of a sink's group and filter."""

_Made = tuple[Sequence[bytes], Sequence[int], list[int], list[int], dict[int, str]]
"""Messages, the record of each, what was redacted and truncated, the errors of those failed."""


class Formatter:
    """Decodes batches and makes the messages of all sinks.

    Sinks whose messages are made alike are a group, and each different filter in it has a number:
    an event is formatted once for all the sinks of a group that take it.
    """

    def __init__(
        self, sinks: Mapping[str, SinkFormat], decoders: Mapping[str, DecoderOf],
        fallback: Decoder, identities: Mapping[str, str] = NONE,
    ) -> None:  # fmt: skip
        """`fallback` decodes records of removed sources.

        `identities` are the former names of renamed sources, by which the ids of their records go.
        """
        self._decoders, self._fallback, self._identities = decoders, fallback, identities
        self.sinks = sinks
        self.places: dict[str, Place] = {}
        self._groups: list[tuple[SinkFormat, list[SinkFormat]]] = []
        for name, sink in sinks.items():
            self.places[name] = self._place(sink)
        self._fields = BoundedMemo(self._fields_of)
        most = _DECODERS_PER_SOURCE * len(decoders)
        self._made = BoundedMemo[tuple[str, frozenset[str]], Decoder](
            lambda key: decoders[key[0]](key[1]), most
        )
        # To ask for a protocol is slow: done once.
        self._of_syslog = {
            name for name in decoders
            if isinstance(self._made[name, self.fields(self._taking(name))], ReadsSyslog)
        }  # fmt: skip
        self._forwarding = {name: sink.forwarding for name, sink in sinks.items()}
        self._own_fields = {name: sink.fields for name, sink in sinks.items()}

    def _taking(self, source: str) -> frozenset[Place]:
        return frozenset(
            self.places[name] for name, sink in self.sinks.items()
            if sink.sources is None or source in sink.sources
        )  # fmt: skip

    def fields(self, places: frozenset[Place]) -> frozenset[str]:
        """The event fields that a decoder has to fill for the sinks at these places."""
        return self._fields[places]

    def _fields_of(self, places: frozenset[Place]) -> frozenset[str]:
        none = frozenset[str]()
        return none.union(*(self._groups[group][1][view].fields for group, view in places))

    def _place(self, sink: SinkFormat) -> Place:
        for group, (first, filters) in enumerate(self._groups):
            if not _same(sink.made_of, first.made_of):
                continue
            for view, other in enumerate(filters):
                if _same(sink.filtered_by, other.filtered_by):
                    return group, view
            filters.append(sink)
            return group, len(filters) - 1
        self._groups.append((sink, [sink]))
        return len(self._groups) - 1, 0

    def decode(
        self, batch: Batch, errors: list[InternalError], fields: frozenset[str] | None = None
    ) -> DecodedBatch:
        """The events of a batch. Never raises: bugs are appended to `errors`.

        Only `fields` are filled: a sink that is down asks for nothing. None: what every sink needs.
        Those of syslog messages are decoded when one is looked at: their sinks may need none. A
        record on which its decoder raises becomes an Unparsed Record: a bug in one decoder must
        not stop the sinks for ever.
        """
        source, decoder = batch.source, self._fallback
        if source in self._decoders:
            wanted = self.fields(self._taking(source)) if fields is None else fields
            decoder = self._made[source, wanted]
        if (identity := self._identities.get(batch.source)) is not None:
            batch = msgspec.structs.replace(batch, identity=identity)
        if batch.part is None and source in self._of_syslog:
            return DecodedBatch(batch, partial(_decoded, decoder, batch, errors), is_syslog=True)
        return _decoded(decoder, batch, errors)

    def forwards(self, sink: str, batch: Batch) -> bool:
        """Whether that sink gets the batch's records as they came, by the looks of the first."""
        form, first = self._forwarding[sink], batch.payload[: batch.payload.find(b"\n")]
        is_syslog = batch.part is None and batch.source in self._of_syslog
        return form is not None and form.forwards(first, is_syslog=is_syslog)

    def redacts(self, sink: str) -> bool:
        """Whether that sink's messages are redacted: of long records, a matter of seconds."""
        transform = self.sinks[sink].transform
        return transform is not None and transform.redacts

    def messages(self, sink: str, batch: Batch, errors: list[InternalError]) -> SinkMessages:
        """One sink's messages: what `messages_of` takes out of `formatted`, in fewer steps.

        A few events that just came in are most of what a relay does; never raises, as `decode`.
        """
        group, view = self.places[sink]
        first, filters = self._groups[group]
        own = filters[view]
        if not batch.count or not (own.sources is None or batch.source in own.sources):
            return NO_MESSAGES
        decoded = self.decode(batch, errors, self._own_fields[sink])
        keep, sampled = own.select(decoded)
        messages, sequences, redacted, cut, failed = _made(
            first, Selection(decoded, keep, first.number), errors
        )
        return SinkMessages(
            messages, sequences, cut, redacted,
            replaced_of(decoded, sequences) if decoded.replaced else [], [*failed.items()],
            decoded.unparsed,
            _type_of(decoded, sequences[-1:]), sampled,
        )  # fmt: skip

    def format(
        self, decoded: DecodedBatch, group: int, views: Collection[int],
        errors: list[InternalError],
    ) -> GroupMessages:  # fmt: skip
        """The messages of a group for some of its filters. Never raises, as `decode`."""
        first, filters = self._groups[group]
        kept: dict[int, list[bool] | None] = {}
        sampled: dict[int, dict[str, list[int]]] = {}
        for view in views:
            kept[view], sampled[view] = filters[view].select(decoded)
        together = _either([*kept.values()])
        messages, sequences, redacted, cut, failed = _made(
            first, Selection(decoded, together, first.number), errors
        )
        start = decoded.batch.first_sequence
        made = GroupMessages(messages, sequences, cut, redacted, {}, size_of(messages))
        for view, keep in kept.items():
            made.views[view] = _view(decoded, keep, together, sequences, failed, start)
            made.views[view].sampled = sampled[view]
        return made

    def formatted(self, batch: Batch, wanted: Mapping[int, Collection[int]]) -> FormattedBatch:
        """The messages of all wanted groups, each for its filters. Never raises."""
        errors: list[InternalError] = []
        places = frozenset((group, view) for group, views in wanted.items() for view in views)
        decoded = self.decode(batch, errors, self.fields(places))
        groups: dict[int, GroupMessages] = {}
        for group, views in wanted.items():
            groups[group] = self.format(decoded, group, views, errors)
        return FormattedBatch(decoded.unparsed, replaced_of(decoded), groups, errors)


def _same(one: Any, other: Any) -> bool:
    return one is other or (one is not None and bool(one == other))


def _either(kept: list[list[bool] | None]) -> list[bool] | None:
    """The events that any of the filters selects; None for all."""
    if None in kept:
        return None
    first, *others = [keep for keep in kept if keep is not None]
    for keep in others:
        first = list(map(or_, first, keep)) if keep != first else first
    return first


def _view(
    decoded: DecodedBatch, keep: list[bool] | None, together: list[bool] | None,
    sequences: Sequence[int], failed: Mapping[int, str], start: int,
) -> SelectedMessages:  # fmt: skip
    own = [] if not failed else [
        (sequence, error)
        for sequence, error in failed.items()
        if keep is None or keep[sequence - start]
    ]  # fmt: skip
    if keep is None or keep == together:
        return SelectedMessages(None, _type_of(decoded, sequences[-1:]), own)
    if failed:
        chosen = bytes(keep[sequence - start] for sequence in sequences)
    else:
        chosen = bytes(keep if together is None else compress(keep, together))
    at = chosen.rfind(1)
    return SelectedMessages(chosen, _type_of(decoded, sequences[at : at + 1]), own)


def _type_of(decoded: DecodedBatch, last: Sequence[int]) -> str:
    """The type of the last record's event, for people; empty if no event was looked at."""
    if not last or not decoded.is_decoded:
        return ""
    return decoded.events[last[0] - decoded.batch.first_sequence].type


def replaced_of(decoded: DecodedBatch, wanted: Sequence[int] | None = None) -> list[int]:
    """The records (by sequence) of a batch, or the `wanted` ones, with bytes that are not UTF-8."""
    if not (replaced := decoded.replaced):
        return []
    found = [decoded.batch.first_sequence + i for i in sorted(replaced)]
    if wanted is None:
        return found
    own = {*wanted}
    return [sequence for sequence in found if sequence in own]


def _decoded(decoder: Decoder, batch: Batch, errors: list[InternalError]) -> DecodedBatch:
    try:
        return decoder.decode(batch)
    except Exception as error:  # noqa: BLE001  (logged by the caller; any bug ends here)
        return _decoded_one_by_one(decoder, batch, error, errors)


def _decoded_one_by_one(
    decoder: Decoder, batch: Batch, error: Exception, errors: list[InternalError]
) -> DecodedBatch:
    """Decode each record alone; those on which the decoder raises become Unparsed Records."""
    events, failed = [], []
    for sequence, record in enumerate(batch.records(), batch.first_sequence):
        alone = msgspec.structs.replace(
            batch, first_sequence=sequence, count=1, payload=record + b"\n"
        )
        try:
            events += decoder.decode(alone).events
        except Exception as again:  # noqa: BLE001  (logged below, with the last traceback)
            error = again
            failed.append(sequence)
            events.append(_unparsed(alone, record))
    errors.append(internal_error(
        "internal error: decoder failed, records are forwarded as Unparsed Record",
        batch, failed, error,
    ))  # fmt: skip
    return DecodedBatch(batch, events, unparsed=len(failed))


def _unparsed(batch: Batch, record: bytes) -> AuditEvent:
    return AuditEvent(
        id=f"{batch.source}-{batch.first_sequence}", time=rfc3339(batch.received_at), type=UNPARSED,
        category="relay", severity=DEFAULT_SEVERITY, outcome="unknown",
        message=record.decode("utf-8", "replace"),
    )  # fmt: skip


def _made(sink: SinkFormat, selection: Selection, errors: list[InternalError]) -> _Made:
    try:
        messages, redacted, cut = sink.made(selection, errors)
    except Exception as error:  # noqa: BLE001  (logged by the caller; any bug ends here)
        return _made_one_by_one(sink, selection, error, errors)
    return messages, selection.sequences, redacted, cut, {}


def _made_one_by_one(
    sink: SinkFormat, selection: Selection, error: Exception, errors: list[InternalError]
) -> _Made:
    """Make each message alone: of those that fail the errors, by sequence.

    A bug in a format or transform must neither stop the sink for ever nor lose the event.
    """
    batch = selection.decoded.batch
    messages, redacted, cut = list[bytes](), list[int](), list[int]()
    failed = dict[int, str]()
    for index, sequence in enumerate(selection.sequences):
        try:
            made, changed, too_long = sink.made(selection.alone(index), errors)
        except Exception as again:  # noqa: BLE001  (logged below, with the last traceback)
            error = again
            failed[sequence] = f"{type(again).__name__}: {again}"
        else:
            messages += made
            redacted, cut = redacted + changed, cut + too_long
    errors.append(internal_error(
        "internal error: format failed, records become dead letters", batch, [*failed], error
    ))  # fmt: skip
    sequences = [sequence for sequence in selection.sequences if sequence not in failed]
    return messages, sequences, redacted, cut, failed

"""The form of a source's records, learned from some of them, as a typed decoder that runs in C.

A worked example. Of the spellings of `type` (`type`, `eventType`, …), `message` and the others, the
records of a sample have these:

    {"type": "Login", "severity": 2, "actor": {"name": "ada"}, "attributes": {"mfa": true}}
    {"type": "Logout", "severity": 1, "actor": {"name": "bob"}}

`learn` notes for each key which types its values had and whether every record had it, and builds

    class ShapedAuditEvent(AuditEvent):     # fields are renamed to the keys that hold them
        type: Annotated[str, MinLen(1)]     # required: an empty text would be no value
        severity: Annotated[int, Range(0, 10)]
        actor: ShapedActor                  # name: Annotated[str, MinLen(1)]; no other key
        attributes: Raw | None = None       # passed on unread
        message: Never = None               # under a key that no record has

which msgspec fills from a whole batch at once. A record with `{"eventType": "Login"}`, an empty
`type`, or a `severity` of "high" does not fit: it is a type error, and `lookup` tries every
spelling of every field for it, about ten times slower.

A shape is exact, not a guess: wherever it accepts a record it gives the very event that looking up
all spellings gives (test_the_learned_shape_agrees_with_looking_everywhere). So a spelling that
would win over the learned one, or fill a field that the sample lacks, may only be null in it; where
attributes are wanted, every key that is not read is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from math import inf
from operator import attrgetter, itemgetter
from typing import Annotated, Any, Final, Literal, get_args

import msgspec

from siemrelay.core.event import (
    FIELDS,
    NOBODY,
    NOTHING,
    Actor,
    AuditEvent,
    Target,
)
from siemrelay.core.forgiving_json import LONG_RECORD_BYTES, may_hold_long_record
from siemrelay.decoders.fields import TEXT_FIELDS, Spellings, Where, event_of, is_plain, text_of
from siemrelay.decoders.json.lookup import FieldLookup
from siemrelay.decoders.json.structs import (
    NoShape,
    Slot,
    attribute,
    event_struct,
    nests_as_events_do,
    plain_struct,
)

REFUSALS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""The errors that a shape raises for records that it does not fit."""

DEEPEST: Final = 100
"""Attributes nested deeper than this are no data of anybody's; what writes them would recurse."""


class Shape:
    """A typed decoder for NDJSON payloads whose records look like the sample."""

    def __init__(
        self, root: Slot, places: Mapping[str, Where], *, attributes: Any, tidy: bool
    ) -> None:
        """`attributes` as in `learn`.

        `tidy`: category, severity and outcome come out as events have them.
        """
        self.tidy = tidy
        native = nests_as_events_do(root, places)
        if attributes is not None and not native:
            raise NoShape
        kind: Any = (
            event_struct(root, places, attributes=attributes) if native else plain_struct(root)
        )
        self._raw, self._native = attributes is msgspec.Raw, native
        # Without attributes an empty object and none give the same event.
        self._optional = [] if attributes is None else _optional(root, places)
        self._may_lack = self._raw or bool(self._optional)
        self._decoder = msgspec.json.Decoder(kind)
        self._columns = {
            field: attrgetter(".".join(map(attribute, where))) for field, where in places.items()
        }

    def rows(self, payload: bytes, count: int) -> list[Any] | None:
        """All `count` records of a payload, for `events`.

        None, or one of REFUSALS raised, if one does not fit.
        """
        rows = decoded_lines(self._decoder, payload, count)
        if rows is None or not self._may_lack:
            return rows
        return rows if self._are_complete(rows) else None

    def row(self, record: bytes) -> Any:
        """One record, for `events`; as `rows`."""
        row = self._decoder.decode(record)
        return row if self._are_complete([row]) else None

    def _are_complete(self, rows: list[Any]) -> bool:
        """Whether the rows hold everything that the records do."""
        # An empty object is kept among the attributes.
        for get, nothing in self._optional:
            nodes = [node for node in map(get, rows) if node is not nothing]
            if nodes and type(nodes[0])() in nodes:
                return False
        return not self._raw or self._go_out_as_they_are(rows)

    def _go_out_as_they_are(self, rows: list[Any]) -> bool:
        """Whether everything that was taken as attributes is an object that may be passed on.

        Nobody reads them again. Proven here are their UTF-8, the space in them, and that no object
        has a name twice: readers would take different values for it.
        """
        raws = [raw for raw in map(_attributes, rows) if raw is not None]
        if not raws:
            return True
        # All in one go: no record has a line feed, so each line is one value.
        joined = b"\n".join(raws)
        if b"\t" in joined or b"\r" in joined:
            return False
        objects = _objects(joined)
        inner = joined.count(b"{") + joined.count(b"[") - len(raws)
        if inner >= DEEPEST and any(
            text.count(b"{") + text.count(b"[") > DEEPEST for text in map(bytes, raws)
        ):
            return False
        # Each member has a colon of its own. As many as there are names: none is there twice.
        return joined.count(b":") == sum(map(len, objects)) or _names_are_unique(joined, objects)

    def events(self, rows: list[Any]) -> list[AuditEvent]:
        """The events of rows, not normalised yet."""
        if self._native:
            return rows
        columns = []
        for field in FIELDS:
            get = self._columns.get(field)
            if get is None:
                columns.append([None] * len(rows))
                continue
            column = list(map(get, rows))
            if field in TEXT_FIELDS and not set(map(type, column)) <= {str, type(None)}:
                column = [text_of(value) for value in column]
            columns.append(column)
        return [event_of(*values) for values in zip(*columns, strict=True)]


def decoded_lines(
    decoder: msgspec.json.Decoder[Any], payload: bytes, count: int
) -> list[Any] | None:
    """The values of `decoder` for each of `count` lines with an object each; None if one has none.

    Raises one of REFUSALS.
    """
    if count == 1:  # the decoder takes no second value
        return [decoder.decode(payload)] if payload.find(b"\n") == len(payload) - 1 else None
    # Two values on one line and one on two would change places with each other. Between a line that
    # ends with `}` and one that begins with `{` no value can go on; and then, if there are as many
    # values as lines, every line has its own.
    lines = BytesIO(payload).readlines()
    if len(lines) != count or set(map(_first, lines)) != _OPENED:
        return None
    if set(map(_last, lines)) != _CLOSED:
        return None
    values = decoder.decode_lines(payload)
    return values if len(values) == count else None


def _optional(
    root: Slot, places: Mapping[str, Where]
) -> list[tuple[Callable[[Any], Any], Actor | Target]]:
    """How to read the objects that records may lack, and what stands there then."""
    tops = {field.partition(".")[0]: where[0] for field, where in places.items()}
    return [
        (attrgetter(group), nothing)
        for group, nothing in (("actor", NOBODY), ("target", NOTHING))
        if group in tops and not root.children[tops[group]].needed
    ]


def _names_are_unique(written: bytes, objects: list[dict[str, Any]]) -> bool:
    # Written again after it was read, an object has each name once. The colons in texts are the
    # same in both, unless one was written as an escape.
    if b"\\u003a" in written or b"\\u003A" in written:
        return False
    return written.count(b":") == _written_again(objects).count(b":")


_objects: Final = msgspec.json.Decoder(dict[str, Any]).decode_lines
_written_again: Final = msgspec.json.Encoder().encode_lines
_attributes: Final = attrgetter("attributes")
_first: Final = itemgetter(0)
_last: Final = itemgetter(-2)  # before the line feed; a line that is opened has two bytes
_OPENED: Final = {ord("{")}
_CLOSED: Final = {ord("}")}


def learn(sample: list[dict[str, Any]], spellings: Spellings, *, attributes: Any) -> Shape | None:
    """The shape of these records, None if they have no common one.

    `attributes` is the type to decode an event's attributes to, `Raw` or a dict; None: not wanted.
    """
    if not sample or not all(is_plain(path) for paths in spellings.values() for path in paths):
        return None
    finder = FieldLookup(spellings)
    seen: dict[str, list[tuple[Where, Any]]] = {field: [] for field in spellings}
    for record in sample:
        for field, where, value in finder.find(record):
            assert isinstance(where, tuple), "all paths are plain"
            seen[field].append((where, value))
    try:
        root, places = Slot(), {}
        for field, found in seen.items():
            place = _place(root, found, len(sample))
            if place is not None:
                places[field] = place
                root.at(place).nullable = attributes is None
        for field in seen:
            for rival in _rivals(root, spellings[field], places.get(field)):
                # Another field would take this value if its own were absent: no type says so.
                if rival in places.values():
                    raise NoShape
                if attributes is None:
                    root.at(rival).probed = True
                # Every other key is a type error already, but attributes are passed on unread.
                elif rival[0] == "attributes":
                    raise NoShape
        # Keys are looked for in the order of the struct's, from the last one found on.
        root.order_as(sample[0])
        narrowed = [_narrowed(f, root, places, seen[f]) for f in _KIND if f in seen]
        return Shape(root, places, attributes=attributes, tidy=all(narrowed))
    except NoShape:
        return None


_KIND: Final = ("category", "severity", "outcome")
_SEVERITY: Final = Annotated[int, msgspec.Meta(ge=0, le=10)]
_OUTCOME: Final = Literal["success", "failure", "unknown"]


def _narrowed(
    field: str, root: Slot, places: Mapping[str, Where], found: list[tuple[Where, Any]]
) -> bool:
    """Narrow a field's type to its normal values, if the sample has only those.

    Whether it is: then `Finisher` need not look at the field.
    """
    if field not in places or list(places.values()).count(places[field]) > 1:
        return False
    slot, values = root.at(places[field]), [value for _, value in found]
    if not slot.required:
        return False
    if field == "category":
        return slot.types == {str}
    if field == "severity" and slot.types == {int} and all(0 <= value <= 10 for value in values):
        slot.exact = _SEVERITY
    if field == "outcome" and set(values) <= set(get_args(_OUTCOME)):
        slot.exact = _OUTCOME
    return slot.exact is not None


def _place(root: Slot, found: list[tuple[Where, Any]], records: int) -> Where | None:
    places = {where for where, _ in found}
    if not places:
        return None
    (place, *others) = places
    if others or (len(place) == 1 and "." in place[0]):
        raise NoShape
    slot = root.at(place)
    slot.types |= {type(value) for _, value in found}
    slot.required |= len(found) == records
    return place


def _rivals(root: Slot, paths: tuple[str, ...], place: Where | None) -> Iterator[Where]:
    """Places whose value would win over the learned place, or be found if that is absent."""
    learned = None if place is None else ".".join(place)
    for path in paths:
        # A key with dots in it comes first.
        steps = tuple(path.split("."))
        if len(steps) > 1:
            yield (path,)
        if path != learned or place is None:
            yield steps
        elif root.at(place).required:
            return  # a place that always has a value hides all that come after it


# Enough records to meet every common one; each costs about 10 µs, once.
_SAMPLE_RECORDS: Final = 64

# If more than one record in ten of a batch does not fit, a shape is learned from that batch.
_MISFITS_TO_LEARN_ANEW: Final = 0.1

# In a source without a common shape, one is looked for at doubling intervals up to this.
_LONGEST_BACKOFF_BATCHES: Final = 1024

_RECORD: Final = msgspec.json.Decoder(dict[str, Any])


class Learner:
    """Decodes the records of one source by their shape, as far as they have one.

    The events are not normalised yet. Call `together` for each batch; if it gives None, `each`,
    and then `misfits`.
    """

    def __init__(self, spellings: Spellings, attributes: Any, *, learns: bool = True) -> None:
        """`attributes` as in `learn`. Without `learns` no record ever fits."""
        self._spellings, self._attributes = spellings, attributes
        self.shape: Shape | None = None
        self._backoff_batches = 1
        self._learn_at: float = 0 if learns else inf
        self._batches = 0

    @property
    def tidy(self) -> bool:
        """Whether categories, severities and outcomes come out as events have them."""
        return self.shape is not None and self.shape.tidy

    def together(
        self, payload: bytes, count: int, records: Callable[[], Sequence[bytes]]
    ) -> list[AuditEvent] | None:
        """The events of all `count` records of a payload, None if one of them does not fit.

        `records` splits the payload; it is called only if a shape is to be learned from it.
        """
        self._batches += 1
        if may_hold_long_record(payload):
            return None  # bounds are per record: see `forgiving_json`
        if self.shape is None and self._batches > self._learn_at:
            self._learn(records())
        if self.shape is None:
            return None
        try:
            rows = self.shape.rows(payload, count)
        except REFUSALS:
            return None
        return None if rows is None else self.shape.events(rows)

    def each(self, records: Sequence[bytes]) -> list[AuditEvent | None]:
        """The event of each record, None where it does not fit."""
        if self.shape is None:
            return [None] * len(records)
        rows = list(map(self._row, records))
        events = iter(self.shape.events([row for row in rows if row is not None]))
        return [None if row is None else next(events) for row in rows]

    def misfits(self, number: int, records: Sequence[bytes]) -> None:
        """Report how many records are JSON objects that do not fit: many lead to another shape."""
        if number > len(records) * _MISFITS_TO_LEARN_ANEW and self._batches > self._learn_at:
            self._learn(records)

    def _learn(self, records: Sequence[bytes]) -> None:
        sample = []
        for record in records[:: max(len(records) // _SAMPLE_RECORDS, 1)][:_SAMPLE_RECORDS]:
            try:
                sample.append(_RECORD.decode(record[:LONG_RECORD_BYTES]))
            except REFUSALS:
                continue
        self.shape = learn(sample, self._spellings, attributes=self._attributes)
        self._backoff_batches = min(self._backoff_batches * 2, _LONGEST_BACKOFF_BATCHES)
        self._learn_at = self._batches + self._backoff_batches

    def _row(self, record: bytes) -> Any:
        assert self.shape is not None
        if len(record) > LONG_RECORD_BYTES:
            return None
        try:
            return self.shape.row(record)
        except REFUSALS:
            return None

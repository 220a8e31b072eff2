"""From the values in a record to those that an event promises: the last step of every decoder.

The four low-cardinality fields are worked out together, once per distinct combination, and
remembered: a batch pays for the combinations in it, not for its events.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from fnmatch import translate
from itertools import compress, repeat
from operator import attrgetter
from typing import Any, Final

import msgspec

from siemrelay.core.event import (
    DEFAULT_SEVERITY,
    FAILED_SEVERITY,
    REDACTED_PART,
    Actor,
    AuditEvent,
    Batch,
    DecodedBatch,
    Target,
    attributes_of,
)
from siemrelay.core.event_types import UNPARSED, UNTYPED, Catalogue
from siemrelay.core.memo import BoundedMemo
from siemrelay.core.times import rfc3339
from siemrelay.decoders.contract import MAX_TIME_AHEAD_S, MAX_TIME_PAST_S
from siemrelay.decoders.fields import text_of
from siemrelay.decoders.times import plain_times, time_of

Kind = tuple[str, str | None, int | None, str | None]
"""type, category, severity, outcome of one event."""

_OUTCOMES: Final = {
    **dict.fromkeys(
        ("success", "successful", "succeeded", "ok", "true", "allowed", "allow", "granted",
         "passed", "pass", "completed", "complete", "approved", "accepted", "1"), "success"),
    **dict.fromkeys(
        ("failure", "failed", "fail", "error", "false", "denied", "deny", "refused", "rejected",
         "blocked", "unauthorized", "forbidden", "0"), "failure"),
}  # fmt: skip

_HTTP_STATUS: Final = re.compile(r"[2-5]\d\d", re.ASCII)

_SEVERITIES: Final = {
    "debug": 0, "trace": 0, "info": 2, "informational": 2, "information": 2, "low": 2,
    "notice": 3, "minor": 4, "medium": 5, "moderate": 5, "warning": 5, "warn": 5,
    "error": 7, "high": 8, "major": 7, "severe": 8, "critical": 9, "crit": 9, "alert": 9,
    "emergency": 10, "emerg": 10, "fatal": 10,
}  # fmt: skip

# The levels of Node's pino and bunyan. Their 10 (trace) looks like the highest severity.
_NODE_LEVELS: Final = {20: 0, 30: 2, 40: 5, 50: 7, 60: 10}


def severity_of(value: Any) -> int | None:
    """A number or a name on the event's scale of 0 to 10; None if it is neither.

    Numbers from 20 to 100 are a level of pino or bunyan, or else percent (a risk score); those
    from 11 to 19 are beyond a scale that ends at 10.
    """
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        # Compared before it is made an integer: infinity and NaN have none.
        return _on_scale(int(min(max(value, 0), 100))) if value == value else None
    text = str(value).strip().casefold()
    if text in _SEVERITIES:
        return _SEVERITIES[text]
    return _on_scale(int(text)) if text.isdecimal() and len(text) < 4 else None


def _on_scale(number: int) -> int:
    if number < 20:
        return min(number, 10)
    return _NODE_LEVELS.get(number, min(number // 10, 10))


def outcome_of(value: Any) -> str:
    """success, failure or unknown, of a word, a truth value or a status of HTTP (RFC 9110, 15)."""
    text = str(value).strip().casefold()
    if _HTTP_STATUS.fullmatch(text):
        return "success" if text < "4" else "failure"
    return _OUTCOMES.get(text, "unknown")


class Kinds:
    """The normal form of each combination of type, category, severity and outcome seen."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._meanings = {f: Meanings(values) for f, values in catalogue.values.items()}
        self.as_written = not self._meanings
        """Whether no value has a meaning of the product's own."""
        self._normal = BoundedMemo[tuple[Any, ...], Kind](lambda key: self._work_out(*key[:4]))
        self._is_canonical = BoundedMemo[str, bool](
            lambda name: bool(name) and catalogue.canonical(name) == name
        )

    def all_canonical(self, names: set[str]) -> bool:
        """Whether every type name is spelled as events promise it."""
        return all(map(self._is_canonical.__getitem__, names))

    def normal(self, given: tuple[Any, ...]) -> Kind:
        """The combination as an event promises it. Its parts are hashable scalars or None."""
        # True == 1 == 1.0 in a dict; the types keep them apart.
        return self._normal[(*given, *map(type, given))]

    def lost(self, given: tuple[Any, ...]) -> dict[str, Any]:
        """The severity and the outcome of a record that have no meaning on the event's scales.

        What the product's own values are read from stays among the attributes in any case.
        """
        _, _, severity, outcome = given
        lost = {}
        if severity is not None and severity_of(severity) is None:
            lost["severity"] = severity
        if outcome is not None and outcome != "unknown" and outcome_of(outcome) == "unknown":
            lost["outcome"] = outcome
        return {field: value for field, value in lost.items() if field not in self._meanings}

    def _work_out(self, *given: Any) -> Kind:
        written = given
        if self._meanings:
            given = tuple(
                self._meanings[field].of(value) if field in self._meanings else value
                for field, value in zip(_KIND, given, strict=True)
            )
        name, category, severity, outcome = given
        name = UNTYPED if name in (None, "") else self._catalogue.canonical(str(text_of(name)))
        known = self._catalogue.find(name)
        outcome = "unknown" if outcome is None else outcome_of(outcome)
        level = severity_of(severity)
        if level is None:
            level = known.severity if known else DEFAULT_SEVERITY
            if outcome == "failure":
                level = max(level, FAILED_SEVERITY)
        # A type's own category is more exact than a pattern for many types.
        by_type = "category" in self._meanings and written[1] == written[0]
        if category in (None, "") or (known and by_type):
            category = known.category if known else "other"
        return name, str(text_of(category)), level, outcome


class Meanings:
    """The meanings of a product's values of one field: exact ones first, then patterns in order."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._exact = {written.casefold(): meaning for written, meaning in values.items()}
        self._patterns = [
            (re.compile(translate(written.casefold())), meaning)
            for written, meaning in values.items()
            if "*" in written or "?" in written
        ]

    def of(self, value: Any) -> Any:
        """The meaning; the value itself if the product's file does not have it."""
        text = (text_of(value) or "").strip().casefold()
        if text in self._exact:
            return self._exact[text]
        # Nothing is no text that `*` stands for.
        found = (meaning for form, meaning in self._patterns if text and form.match(text))
        return next(found, value)


ALWAYS_WANTED: Final = frozenset({"id", "type", "category", "severity", "outcome"})
"""The fields that every decoder fills, wanted or not: filters and promises rely on them."""

_KIND: Final = ("type", "category", "severity", "outcome")
_kind: Final = attrgetter(*_KIND)
_severity: Final = attrgetter("severity")
_SEVERITY: Final = 2
_TIME_FROM: Final = "siemrelay.time_from"
_TEXT: Final = frozenset({str, type(None)})
_PLAIN: Final = _TEXT | {int}

_id, _time, _type = attrgetter("id"), attrgetter("time"), attrgetter("type")


class Finisher:
    """Normalises the events of one source, batch by batch; keeps kinds in bounded memory."""

    def __init__(
        self, catalogue: Catalogue, wanted: frozenset[str],
        max_time_past_s: float = MAX_TIME_PAST_S, max_time_ahead_s: float = MAX_TIME_AHEAD_S,
        zone: tzinfo = UTC,
    ) -> None:  # fmt: skip
        """A record's own time counts if it lies within these two of when the record came.

        Without a zone it is in `zone`.
        """
        self._kinds = Kinds(catalogue)
        self._attributes = "attributes" in wanted
        self._times = self._attributes or "time" in wanted  # an odd time is an attribute
        self._past_s, self._ahead_s, self._zone = max_time_past_s, max_time_ahead_s, zone

    def finished(
        self, batch: Batch, events: list[AuditEvent], unparsed: int, *,
        tidy: bool = False, header_times: Sequence[str | None] | None = None,
    ) -> DecodedBatch:  # fmt: skip
        """The batch with its events, which are normalised in place.

        `tidy`: categories, severities and outcomes are known to be normal, only types are not.
        `header_times` count where an event has no time of its own that can be true; they are the
        device's clock and not bounded. After them comes the time at which the record came. A
        severity, outcome or time that is not taken is kept among the attributes, and for a time
        `siemrelay.time_from` says whose the event's is: the `header`'s or its `arrival`'s.
        """
        decoded = DecodedBatch(batch, events, unparsed=unparsed)
        tidy = tidy and self._kinds.as_written
        if not (tidy and self._kinds.all_canonical(set(map(_type, events)))):
            self._set_kinds(events)
        if self._times:
            self._set_times(batch, events, header_times)
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

    def _normal(self, given: tuple[Any, ...]) -> tuple[Kind, dict[str, Any]]:
        return self._kinds.normal(given), self._kinds.lost(given)

    def _set_times(
        self, batch: Batch, events: list[AuditEvent], headers: Sequence[str | None] | None
    ) -> None:
        own: list[Any] = list(map(_time, events))
        times = own
        if headers is not None and None in own:
            times = [header if time is None else time
                     for time, header in zip(own, headers, strict=True)]  # fmt: skip
        moments = plain_times(times) if set(map(type, times)) == {str} else None
        if moments is not None and self._are_credible(
            moments if times is own else list(compress(moments, own)), batch.received_at
        ):
            if times is not own:
                for event, time in zip(events, times, strict=True):
                    event.time = time
            return
        received = rfc3339(batch.received_at)
        arrival = datetime.fromtimestamp(batch.received_at, UTC)
        for event, written, time, header in zip(
            events, own, self._credible(own, batch.received_at), headers or repeat(None, len(own)),
            strict=True,
        ):  # fmt: skip
            event.time, lost = time, written if time is None else None
            if time is None and header is not None:
                event.time = time_of(header, arrival, self._zone)
                lost = header if event.time is None and lost is None else lost
            headed = time is None and event.time is not None
            event.time = event.time or received
            if lost is not None and self._attributes:
                _keep(event, {"time": lost})
                place = "header" if headed else "arrival"
                event.attributes = {**attributes_of(event), _TIME_FROM: place}

    def _credible(self, own: list[Any], received_at: float) -> list[str | None]:
        """The times of records as RFC 3339, None where there is none that can be true."""
        received = datetime.fromtimestamp(received_at, UTC)
        times = [
            None if written is None else time_of(written, received, self._zone) for written in own
        ]
        moments = [None if time is None else datetime.fromisoformat(time) for time in times]
        if self._are_credible(list(filter(None, moments)), received_at):
            return times
        return [
            time if moment is not None and self._are_credible([moment], received_at) else None
            for time, moment in zip(times, moments, strict=True)
        ]

    def _are_credible(self, moments: list[datetime], received_at: float) -> bool:
        """Whether these times of records lie within the bounds around when the records came."""
        return not moments or (
            min(moments).timestamp() >= received_at - self._past_s
            and max(moments).timestamp() <= received_at + self._ahead_s
        )


def _keep(event: AuditEvent, lost: dict[str, Any]) -> None:
    event.attributes = {**lost, **attributes_of(event)}


def unparsed(record: bytes) -> AuditEvent:
    """The event of a record that cannot be parsed: its text, with invalid bytes replaced."""
    return AuditEvent(type=UNPARSED, message=record.decode("utf-8", "replace"))


def event_of_part(batch: Batch) -> tuple[AuditEvent, int]:
    """The event of a batch with a `part`, and 1 if its record cannot be parsed, else 0."""
    if batch.part == REDACTED_PART:
        # A disk that lies is possible, a sender who writes this is not: no record is refused.
        with suppress(msgspec.DecodeError, msgspec.ValidationError, TypeError):
            fields = msgspec.json.decode(batch.payload, type=dict[str, Any])
            for name, part in (("actor", Actor), ("target", Target)):
                if name in fields:
                    fields[name] = msgspec.convert(fields[name], part)
            return AuditEvent(**fields), 0
        return unparsed(batch.payload[:-1]), 1
    event = unparsed(batch.payload[:-1])
    event.attributes = {"part": batch.part}
    return event, 1


def _set_ids(decoded: DecodedBatch) -> None:
    """Give events without an id one that is the same at every retry and replay.

    It depends on the sequence number, so equal lines get different ids.
    """
    batch = decoded.batch
    source = batch.identity or batch.source
    for sequence, event, record in zip(
        range(batch.first_sequence, batch.next_sequence), decoded.events, decoded.records,
        strict=True,
    ):  # fmt: skip
        if event.id is None:
            event.id = made_id(record, source, sequence)


def made_id(record: bytes, source: str, sequence: int) -> str:
    """The id of an event whose record has none."""
    text = b"%b\n%b\n%d" % (record, source.encode(), sequence)
    return hashlib.blake2b(text, digest_size=16, salt=b"siemrelay-id").hexdigest()

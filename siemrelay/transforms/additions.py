"""`add:` of a source or sink: fields that the operator sets on every event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec.structs import replace
from pydantic import AfterValidator

from siemrelay.core.event import AuditEvent, Batch, DecodedBatch, attributes_of
from siemrelay.decoders.contract import Decoder
from siemrelay.transforms.event_paths import ATTRIBUTES, EventPath, Scalar, decoded_field

_OUTCOMES: Final = ("success", "failure", "unknown")
_MOST_SEVERE: Final = 10


def _settable(path: str) -> str:
    if path in ("id", "time"):
        raise ValueError(f"`{path}` is the event's own; choose another field or attributes.NAME")
    return path


def _fitting(chosen: dict[str, Any]) -> dict[str, Any]:
    for path, value in chosen.items():
        if path == "severity":
            if not isinstance(value, int) or isinstance(value, bool):
                raise ValueError("severity: write a whole number from 0 to 10")
            if not 0 <= value <= _MOST_SEVERE:
                raise ValueError("severity: write a whole number from 0 to 10")
        elif path == "outcome":
            if value not in _OUTCOMES:
                raise ValueError(f"outcome: expected one of {', '.join(_OUTCOMES)}")
        elif not path.startswith(f"{ATTRIBUTES}.") and not (isinstance(value, str) and value):
            raise ValueError(f"{path}: write a text")
    return chosen


Add = Annotated[
    dict[Annotated[EventPath, AfterValidator(_settable)], Scalar | list[Scalar]],
    AfterValidator(_fitting),
]
"""`add:`, by field. A value takes the place of one that the event has."""


class Additions:
    """Sets fields of events. Pure; several threads may use it."""

    def __init__(self, add: Mapping[str, Any]) -> None:
        self.fields = frozenset(map(decoded_field, add))
        """The fields that the decoder has to fill, so that nothing of them is lost."""
        self._attributes = {
            path.split(".", 1)[1]: value
            for path, value in add.items() if path.startswith(ATTRIBUTES)
        }  # fmt: skip
        self._plain = {path: value for path, value in add.items() if "." not in path}
        self._parts = [
            (part, values) for part in ("actor", "target")
            if (values := {path.split(".", 1)[1]: value
                           for path, value in add.items() if path.startswith(f"{part}.")})
        ]  # fmt: skip
        nested = _nested(self._attributes)
        self._members = msgspec.json.encode(nested)[:-1] + b","
        self._names = [msgspec.json.encode(name) for name in nested]
        self._nested = nested

    def apply(self, events: Sequence[AuditEvent]) -> list[AuditEvent]:
        """Copies of the events with the fields set."""
        copies = list(map(AuditEvent.__copy__, events))  # type: ignore[attr-defined]  # msgspec's own
        self.set(copies)
        return copies

    def set(self, events: Sequence[AuditEvent]) -> None:
        """Set the fields of events that nobody else has yet."""
        if self._attributes:
            for event, attributes in zip(events, self._with_attributes(events), strict=True):
                event.attributes = attributes
        for name, value in self._plain.items():
            for event in events:
                setattr(event, name, value)
        for part, values in self._parts:
            for event in events:
                setattr(event, part, replace(getattr(event, part), **values))

    def _with_attributes(self, events: Sequence[AuditEvent]) -> Sequence[Any]:
        raws: list[Any] = [event.attributes for event in events]
        try:
            # Raw attributes have no line feed, nor blanks before the first name: one a line.
            joined = b"\n".join(raws)
        except TypeError:
            return list(map(self._one, events))
        begin_alike = joined.startswith(b'{"') and joined.count(b'\n{"') == len(raws) - 1
        if begin_alike and not self._may_clash(joined):
            spliced = self._members + joined[1:].replace(b'\n{"', b"\n" + self._members + b'"')
            return list(map(msgspec.Raw, spliced.split(b"\n")))
        return list(map(self._one, events))

    def _may_clash(self, attributes: bytes) -> bool:
        """Whether a name may be there already, perhaps in escapes: none may come twice."""
        return b"\\u" in attributes or any(name in attributes for name in self._names)

    def _one(self, event: AuditEvent) -> msgspec.Raw:
        if isinstance(event.attributes, msgspec.Raw):
            own = bytes(event.attributes)
            if own.startswith(b'{"') and not self._may_clash(own):
                return msgspec.Raw(self._members + own[1:])
        return msgspec.Raw(msgspec.json.encode(_merge(attributes_of(event), self._nested)))


class AddingDecoder:
    """A source's decoder whose events have the fields that the operator adds."""

    def __init__(self, decoder: Decoder, additions: Additions) -> None:
        self._decoder, self._additions = decoder, additions

    def decode(self, batch: Batch) -> DecodedBatch:
        """See `decoders.contract.Decoder`."""
        decoded = self._decoder.decode(batch)
        self._additions.set(decoded.events)
        decoded.is_syslog = False  # the events say more than their records
        return decoded


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`{"a.b": 1}` as `{"a": {"b": 1}}`."""
    result: dict[str, Any] = {}
    for path, value in flat.items():
        *above, last = path.split(".")
        place = result
        for name in above:
            place = place.setdefault(name, {})
        place[last] = value
    return result


def _merge(own: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    """`own` with `added` in it; objects are merged member by member."""
    result = dict(own)
    for name, value in added.items():
        there = result.get(name)
        both = isinstance(there, dict) and isinstance(value, dict)
        result[name] = _merge(there, value) if both else value  # type: ignore[arg-type]  # both are
    return result

"""The messages of a batch, behind their headers: JSON, CEF, LEEF, PAN-OS, Snare, pairs or text.

Text is not structure: unless the source declares a form, a message gives an event its fields only
if it is structure as a whole (test_text_is_not_structure).

The events are not normalised yet, and their attributes, if wanted, are dicts. Messages that are
read together give the events that each gives alone
(test_a_batch_gives_the_events_that_each_record_gives_alone).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, Literal

import msgspec

from siemrelay.core.event import AuditEvent
from siemrelay.core.forgiving_json import forgiving_json, may_hold_long_record
from siemrelay.decoders.auditd.decoder import audit_event
from siemrelay.decoders.auditd.laurel import laurel_event
from siemrelay.decoders.cef import cef_fields
from siemrelay.decoders.fields import Spellings
from siemrelay.decoders.json.learned import REFUSALS, Learner, decoded_lines
from siemrelay.decoders.json.lookup import FieldLookup
from siemrelay.decoders.key_value import (
    check_point_pairs,
    declared_pairs,
    normalise_device_pairs,
    pairs_in_text,
    whole_pairs,
)
from siemrelay.decoders.leef import leef_fields
from siemrelay.decoders.pan_os import pan_os_fields
from siemrelay.decoders.snare import BEGINNINGS as SNARE_BEGINNINGS
from siemrelay.decoders.snare import snare_fields

Fields = dict[str, Any]

Body = Literal["auto", "text", "json", "key_value", "cef", "leef", "pan_os", "snare", "laurel"]
"""The option `body`: the form of a source's messages."""


def _audit_or_pairs(text: str) -> Fields | None:
    """A line of Linux' audit log, as audisp-syslog or rsyslog's imfile send it, or pairs."""
    return audit_event(text) or normalise_device_pairs(whole_pairs(text))


_COOKIE: Final = "@cee:"
_OBJECT: Final = ("{", _COOKIE)

_BY_BEGINNING: Final[tuple[tuple[str, Callable[[str], Fields | None]], ...]] = (
    ("CEF:", cef_fields),
    ("LEEF:", leef_fields),
    ("1,", pan_os_fields),
    ("0,", pan_os_fields),
    *((beginning, snare_fields) for beginning in SNARE_BEGINNINGS),
    ("[", lambda text: normalise_device_pairs(check_point_pairs(text))),
    *((beginning, _audit_or_pairs) for beginning in ("type=", "node=")),
)
_BEGINNINGS: Final = tuple(beginning for beginning, _ in _BY_BEGINNING)

_first: Final = itemgetter(0)
_objects: Final = msgspec.json.Decoder(Fields)


def _by_its_beginning(text: str) -> Fields | None:
    if text.startswith(_BEGINNINGS):
        return next(read(text) for begin, read in _BY_BEGINNING if text.startswith(begin))
    return normalise_device_pairs(whole_pairs(text)) if "=" in text else None


def _declared(text: str) -> Fields | None:
    return normalise_device_pairs(declared_pairs(text))


def _nothing(_: str) -> None:
    return None


_READ: Final[dict[Body, Callable[[str], Fields | None]]] = {
    "auto": _by_its_beginning,
    "text": _nothing,
    "json": _nothing,
    "key_value": _declared,
    "cef": cef_fields,
    "leef": leef_fields,
    "pan_os": pan_os_fields,
    "snare": snare_fields,
    "laurel": laurel_event,
}
"""The fields of a message, under the event's names or known spellings; JSON objects are read apart,
unless another form is declared."""


class Bodies:
    """Reads the messages of one source. Keeps the shape that it learns from them."""

    def __init__(
        self, spellings: Spellings, body: Body, *, attributes: bool, kept: Collection[str] = (),
        learns: bool = True,
    ) -> None:  # fmt: skip
        """The values of the fields in `kept` stay among the attributes."""
        self._read, self._attributes = _READ[body], attributes
        self._json = body in ("auto", "json")
        self._pairs_in_text = body == "auto" and attributes
        self._lookup = FieldLookup(spellings, kept)
        self._learner = Learner(
            spellings, Fields if attributes else None, learns=learns and not (attributes and kept)
        )

    def events(
        self, texts: Sequence[str], known: Mapping[int, Fields]
    ) -> tuple[list[AuditEvent], bool]:
        """One event per text, and whether all of them are tidy (see `Finisher.finished`).

        `known` has the fields of some of them by their numbers; their texts are not read.
        """
        events: dict[int, AuditEvent] = {}
        fields: dict[int, Fields | None] = dict(known)
        objects = [
            i for i, text in enumerate(texts) if text.startswith(_OBJECT) and i not in known
        ] if self._json else []  # fmt: skip
        if objects:
            records = _Records([texts[i] for i in objects])
            shaped = self._learner.together(records.payload, len(objects), records.each)
            if shaped is not None and len(shaped) == len(texts):
                return shaped, self._learner.tidy
            for i, found in zip(objects, shaped or self._json_alone(records), strict=True):
                if isinstance(found, AuditEvent):
                    events[i] = found
                else:
                    fields[i] = found
        if not events and not fields:
            fields = dict(enumerate(map(self._read, texts)))
        else:
            for i, text in enumerate(texts):
                if i not in events and i not in fields:
                    fields[i] = self._read(text)
        present = {i: found for i, found in fields.items() if found}
        if len(present) < len(fields):
            events |= {i: self._prose(texts[i]) for i, found in fields.items() if not found}
        if present:
            made = self._lookup.events(list(present.values()), attributes=self._attributes)
            events |= zip(present, made, strict=True)
        return list(map(events.__getitem__, range(len(texts)))), False

    def _prose(self, text: str) -> AuditEvent:
        """An event without fields: what stands in prose may have been chosen by anybody."""
        if not self._pairs_in_text or "=" not in text:
            return AuditEvent()
        pairs = pairs_in_text(text)
        return AuditEvent(attributes={"text": pairs} if pairs else None)

    def _json_alone(self, records: _Records) -> Sequence[AuditEvent | Fields | None]:
        """For each its event if it has the shape, its fields if it is other JSON, else None."""
        each = records.each()
        if self._learner.shape is None and not may_hold_long_record(records.payload):
            try:
                found = decoded_lines(_objects, records.payload, len(each))
            except REFUSALS:
                found = None
            if found is not None:
                return found
        shaped = self._learner.each(each)
        fields = {i: _json_fields(each[i]) for i, event in enumerate(shaped) if event is None}
        self._learner.misfits(sum(found is not None for found in fields.values()), each)
        return [fields[i] if event is None else event for i, event in enumerate(shaped)]


class _Records:
    """The JSON of messages, as one payload and each by itself."""

    def __init__(self, texts: list[str]) -> None:
        if set(map(_first, texts)) != {"{"}:
            texts = list(map(_json, texts))
        # Joined as texts, one wide character would make all of them wide.
        self._each = [text.encode("utf-8", "replace") for text in texts]
        self.payload = b"\n".join([*self._each, b""])

    def each(self) -> list[bytes]:
        return self._each


def _json(text: str) -> str:
    """The JSON of a message, also behind `@cee:`."""
    return text.removeprefix(_COOKIE).lstrip()


def _json_fields(record: bytes) -> Fields | None:
    if not record.startswith(b"{"):
        return None
    try:
        found = forgiving_json(record)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None

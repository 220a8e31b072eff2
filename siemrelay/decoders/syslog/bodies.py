"""What the messages of a batch say, whatever stands before them: JSON, CEF, LEEF, pairs or text.

The events are not normalised yet, and their attributes, where they are asked for, are dicts. What
is read together gives what each message gives by itself
(test_a_batch_gives_the_events_that_each_record_gives_alone).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

import msgspec

from siemrelay.core.event import AuditEvent, forgiving_json
from siemrelay.decoders.cef import cef_fields
from siemrelay.decoders.fields import Spellings
from siemrelay.decoders.json.learned import Learner
from siemrelay.decoders.json.lookup import Finder
from siemrelay.decoders.json.shape import REFUSALS, decoded_lines
from siemrelay.decoders.key_value import key_values
from siemrelay.decoders.leef import leef_fields

Fields = dict[str, Any]
Inner = Callable[[str], Fields | None]
"""From a message's text to what it says, under the event's names or any known spelling."""

_COOKIE: Final = "@cee:"
_OBJECT: Final = ("{", _COOKIE)

_first: Final = itemgetter(0)
_objects: Final = msgspec.json.Decoder(Fields)


def anything(text: str) -> Fields | None:
    """CEF, LEEF, JSON or pairs, told apart by how they begin."""
    if text.startswith("CEF:"):
        return cef_fields(text)
    if text.startswith("LEEF:"):
        return leef_fields(text)
    if text.startswith(_OBJECT):
        return _json_fields(_json(text).encode("utf-8", "replace"))
    return key_values(text)


class Bodies:
    """Reads the messages of one source. Keeps what it learned of them."""

    def __init__(self, spellings: Spellings, inner: Inner, *, attributes: bool) -> None:
        self._inner, self._attributes = inner, attributes
        self._finder = Finder(spellings)
        self._learner = Learner(spellings, Fields if attributes else None)

    def events(
        self, texts: Sequence[str], known: Mapping[int, Fields]
    ) -> tuple[list[AuditEvent], bool]:
        """One event per text, and whether all of them are tidy (see `Finisher.finished`).

        `known` is what some say, by their places; their texts are not looked into.
        """
        events: dict[int, AuditEvent] = {}
        fields: dict[int, Fields | None] = dict(known)
        objects = [] if self._inner is not anything else [
            i for i, text in enumerate(texts) if text.startswith(_OBJECT) and i not in known
        ]  # fmt: skip
        if objects:
            records = _Records([texts[i] for i in objects])
            shaped = self._learner.together(records.payload, len(objects), records.each)
            if shaped is not None and len(shaped) == len(texts):
                return shaped, self._learner.tidy
            for i, found in zip(objects, shaped or self._looked_at(records), strict=True):
                if isinstance(found, AuditEvent):
                    events[i] = found
                else:
                    fields[i] = found
        for i, text in enumerate(texts):
            if i not in events and i not in fields:
                fields[i] = self._inner(text)
        said = {i: found for i, found in fields.items() if found}
        made = self._finder.events(list(said.values()), attributes=self._attributes)
        events |= zip(said, made, strict=True)
        return [events[i] if i in events else AuditEvent() for i in range(len(texts))], False

    def _looked_at(self, records: _Records) -> Sequence[AuditEvent | Fields | None]:
        """Of each its event if it has the shape, else its fields, if it is JSON."""
        each = records.each()
        if self._learner.shape is None:
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
        self._texts = texts
        self.payload = "\n".join([*texts, ""]).encode("utf-8", "replace")

    def each(self) -> list[bytes]:
        return [text.encode("utf-8", "replace") for text in self._texts]


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

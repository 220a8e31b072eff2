"""Truncates messages over a sink's limit by formatting a reduced event again until it fits.

Texts are shortened before fields are dropped, the longest and least needed first, each on a UTF-8
boundary and with a mark at its end. So JSON stays JSON, and keys, escapes and structured data stay
whole in every format, without help from the format. Only a message that is over the limit with
nothing left but id, time and type is truncated as bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from siemrelay.core.event import (
    Actor,
    AuditEvent,
    Batch,
    DecodedBatch,
    Selection,
    Target,
    attributes_of,
)
from siemrelay.formats.contract import Format
from siemrelay.formats.writing.text import cut_utf8

MARK: Final = "...[cut]"

# Attributes may be nested to any depth; below this one they are replaced by the mark.
_DEPTH: Final = 8


class _Draft(msgspec.Struct):
    """The reduced event so far, and its record for formats that forward the record itself."""

    event: AuditEvent
    record: bytes
    whole: AuditEvent


def truncated(
    form: Format, selection: Selection, index: int, message: bytes, limit_bytes: int
) -> bytes:
    """The message of the selected event at `index`, at most `limit_bytes` long, with a mark.

    Args: message: the event's full message from `form`, over the limit.
    Raises: whatever `form` raises.
    """
    event = selection.events[index]
    sequence = selection.sequences[index]
    draft = _Draft(event, selection.records[index], event)
    for step in _STEPS:
        before = draft.event, draft.record
        step(draft, len(message) - limit_bytes)
        if (draft.event, draft.record) == before:
            continue
        again = _message(form, selection, sequence, draft)
        if len(again) <= limit_bytes:
            return again
        # A step on a field that this format does not use leaves the message as long as before.
        message = again
    return cut_utf8(message, limit_bytes, MARK.encode())


def _message(form: Format, selection: Selection, sequence: int, draft: _Draft) -> bytes:
    batch = selection.decoded.batch
    alone = Batch(
        sequence, 1, batch.source, batch.received_at, draft.record + b"\n",
        batch.part,
    )  # fmt: skip
    decoded = DecodedBatch(alone, [draft.event], is_syslog=selection.decoded.is_syslog)
    reduced = Selection(decoded, number=selection.number)
    (message,) = form.encode(reduced.changed([draft.event]) if selection.is_changed else reduced)
    return message


def _text(text: str, limit_bytes: int) -> str:
    """`text` truncated to so many bytes of UTF-8, though never shorter than the mark."""
    data = text.encode("utf-8", "replace")
    limit_bytes = max(limit_bytes, len(MARK))
    return text if len(data) <= limit_bytes else cut_utf8(data, limit_bytes, MARK.encode()).decode()


def _record(draft: _Draft, excess_bytes: int) -> None:
    limit_bytes = max(len(draft.record) - excess_bytes, len(MARK))
    draft.record = cut_utf8(draft.record, limit_bytes, MARK.encode())


def _message_text(least_bytes: int, draft: _Draft, excess_bytes: int) -> None:
    # Escaping only lengthens a text, so shortening the text by n shortens the message by n or more.
    text = draft.event.message
    if text:
        limit_bytes = len(text.encode("utf-8", "replace")) - excess_bytes
        draft.event = replace(draft.event, message=_text(text, max(limit_bytes, least_bytes)))


def _attribute_texts(limit_bytes: int, draft: _Draft, excess_bytes: int) -> None:
    if draft.event.attributes:
        attributes = _within(attributes_of(draft.event), limit_bytes, _DEPTH)
        draft.event = replace(draft.event, attributes=attributes)


def _within(value: Any, limit_bytes: int, depth: int) -> Any:
    if isinstance(value, str):
        return _text(value, limit_bytes)
    if isinstance(value, (dict, list)) and depth == 0:
        return MARK
    if isinstance(value, dict):
        return {
            _text(name, limit_bytes): _within(inner, limit_bytes, depth - 1)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [_within(inner, limit_bytes, depth - 1) for inner in value]
    return value


def _names(limit_bytes: int, draft: _Draft, excess_bytes: int) -> None:
    def short(text: str | None) -> str | None:
        return text and _text(text, limit_bytes)

    event = draft.event
    actor, target = event.actor, event.target
    draft.event = replace(
        event,
        category=short(event.category),
        actor=Actor(short(actor.name), short(actor.id), short(actor.address)),
        target=Target(short(target.type), short(target.name), short(target.id)),
    )


def _without_attributes(draft: _Draft, excess_bytes: int) -> None:
    # The attributes are too many rather than too long: start again from the whole other texts.
    if draft.whole.attributes:
        text = (draft.whole.message or "") + MARK
        draft.event = replace(draft.whole, attributes=None, message=text)


def _without_second_names(draft: _Draft, excess_bytes: int) -> None:
    """Drop the ids of named actors and targets and the target's type: the least needed fields."""
    actor, target = draft.event.actor, draft.event.target
    draft.event = replace(
        draft.event,
        actor=Actor(actor.name, None if actor.name else actor.id, actor.address),
        target=Target(None, target.name, None if target.name else target.id),
    )


def _identity(limit_bytes: int, draft: _Draft, excess_bytes: int) -> None:
    event = draft.event
    draft.event = replace(
        event, type=_text(event.type, limit_bytes), id=event.id and _text(event.id, limit_bytes)
    )


def _short_type(draft: _Draft, excess_bytes: int) -> None:
    draft.event = replace(draft.event, type=_text(draft.event.type, 24))


def _without_places(draft: _Draft, excess_bytes: int) -> None:
    event = draft.event
    actor = Actor(event.actor.name, event.actor.id)
    draft.event = replace(event, category=None, actor=actor)


def _without_target(draft: _Draft, excess_bytes: int) -> None:
    draft.event = replace(draft.event, target=Target())


def _without_actor(draft: _Draft, excess_bytes: int) -> None:
    draft.event = replace(draft.event, actor=Actor())


_STEPS: Final[tuple[Callable[[_Draft, int], None], ...]] = (
    _record,
    partial(_attribute_texts, 1024), partial(_message_text, 256),
    partial(_attribute_texts, 256), partial(_attribute_texts, 64), partial(_names, 128),
    partial(_message_text, 0), partial(_attribute_texts, 16), partial(_names, 64),
    _without_attributes, partial(_message_text, 0), partial(_names, 128), partial(_names, 64),
    _without_second_names, partial(_identity, 128), partial(_names, 24),
    _without_places, partial(_identity, 48), _without_target, _without_actor,
    _short_type,
)  # fmt: skip
"""The steps in their order, until the message fits: shorten texts, then drop fields."""

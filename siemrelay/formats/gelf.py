"""Graylog's GELF 1.1: one flat JSON object an event, its own fields under names with `_`.

Rules: Graylog's "GELF Format", "GELF Payload Specification": `version`, `host` and `short_message`
must be there, `timestamp` is seconds with a decimal part, `level` is syslog's, additional names
match `^_[\\w\\.\\-]*$` and hold texts or numbers, `_id` is not allowed. Over TCP Graylog wants each
message ended by NUL, which is the sink's `framing: nul`.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from pydantic import Field

from siemrelay.event import FIELDS, AuditEvent, Selection, attributes_of
from siemrelay.formats.attributes import flattened
from siemrelay.formats.contract import FormatKind
from siemrelay.formats.epoch import EpochMs
from siemrelay.formats.objects import message_of, without_clashes
from siemrelay.formats.remembered import Remembered
from siemrelay.formats.text import syslog_severity, text_of
from siemrelay.options import Options

_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]")  # nor `.`, which Graylog would replace by `_`
_LINE_BREAK: Final = re.compile(r"[\r\n]")

# What Graylog's index keeps exactly, 64 bits; a larger number goes as text.
_INTEGER_END: Final = 1 << 63

_SPECIFIED: Final = frozenset(
    {"version", "host", "short_message", "full_message", "timestamp", "level"}
)


class GelfOptions(Options):
    """What a GELF sink may set."""

    hostname: str | None = Field(
        None, min_length=1, description="GELF's `host`; this machine's name by default"
    )


def _gelf_name(field: str) -> str:
    return field if field in _SPECIFIED else f"_{field}"


class _Message(msgspec.Struct, gc=False, omit_defaults=True, rename=_gelf_name):
    version: str
    host: str
    short_message: str
    timestamp: float
    level: int
    event_id: str | None
    type: str
    category: str | None
    severity: int | None
    outcome: str | None
    siemrelay_sequence: int
    siemrelay_source: str
    actor_name: str | None = None
    actor_id: str | None = None
    actor_address: str | None = None
    target_type: str | None = None
    target_name: str | None = None
    target_id: str | None = None
    full_message: str | None = None


class Gelf:
    """Events → GELF messages.

    Every field of the event has its own name, `actor.name` is `_actor_name`, but for the id, which
    is `_event_id`. Attributes are flat and begin with `_attributes_`, so that none can stand for a
    field of Graylog's own; texts and numbers stay what they are, everything else is text.
    """

    fields = frozenset({*FIELDS, "attributes"})

    def __init__(self, options: GelfOptions, host: str) -> None:
        self._host = options.hostname or host or "-"
        self._names = Remembered(lambda name: f"_attributes_{_NOT_IN_NAMES.sub('_', name)}")
        self._epoch = EpochMs()

    def encode(self, selection: Selection) -> list[bytes]:
        """See `formats.contract.Format`."""
        source = selection.decoded.batch.source
        return [
            self._message(event, sequence, source)
            for sequence, event in zip(selection.sequences, selection.events, strict=True)
        ]

    def _message(self, event: AuditEvent, sequence: int, source: str) -> bytes:
        actor, target, severity = event.actor, event.target, event.severity or 0
        short, full = event.message or event.type, None
        if not short.isprintable() and _LINE_BREAK.search(short):
            full, short = short, _LINE_BREAK.split(short.strip(), maxsplit=1)[0]
        if not short or short.isspace():  # Graylog refuses a blank one
            short = "-" if event.type.isspace() else event.type
        message = message_of(_Message(
            "1.1", self._host, short, int(self._epoch(event.time or "")) / 1000,
            syslog_severity(severity), event.id, event.type, event.category, severity,
            event.outcome, sequence, source, actor.name, actor.id, actor.address,
            target.type, target.name, target.id, full,
        ))  # fmt: skip
        if not event.attributes:
            return message
        more = message_of(self._additional(attributes_of(event)))
        return message if more == b"{}" else message[:-1] + b"," + more[1:]

    def _additional(self, attributes: dict[str, Any]) -> dict[str, Any]:
        names = self._names
        return without_clashes([
            (names[name], value if type(value) is str else _text_or_number(value))
            for name, value in flattened(attributes)
            if value is not None
        ])  # fmt: skip


def _text_or_number(value: Any) -> str | int | float:
    if isinstance(value, float):
        return value
    number = type(value) is int and -_INTEGER_END <= value < _INTEGER_END
    return value if number else text_of(value)


GELF: Final = FormatKind(GelfOptions, Gelf, "Graylog's GELF 1.1")

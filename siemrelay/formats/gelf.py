"""Graylog's GELF 1.1: one flat JSON object an event, its own fields under names with `_`.

Rules: Graylog's "GELF Format", "GELF Payload Specification": `version`, `host` and `short_message`
must be there, `timestamp` is seconds with a decimal part, `level` is syslog's, additional names
match `^_[\\w\\.\\-]*$` and hold texts or numbers, `_id` is not allowed. On streams Graylog wants
each message ended by NUL, uncompressed; over UDP it joins chunks (`wire.gelf`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import compress, count, repeat
from operator import contains
from typing import Any, Final

import msgspec
from pydantic import Field

from siemrelay.core.event import FIELDS, AuditEvent, Selection, attributes_of
from siemrelay.core.memo import BoundedMemo
from siemrelay.core.options import Options
from siemrelay.formats.contract import FormatKind
from siemrelay.formats.writing.attributes import Named, attribute_column, flattened
from siemrelay.formats.writing.columns import FEW, Column, Lines
from siemrelay.formats.writing.epoch import EpochMs
from siemrelay.formats.writing.json_text import inside, member, message_of, without_clashes
from siemrelay.formats.writing.text import syslog_severity, text_of

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
        self._names = BoundedMemo[str, str](
            lambda name: f"_attributes_{_NOT_IN_NAMES.sub('_', name)}"
        )
        self._epoch = EpochMs()
        self._begin = f'{{"version":"1.1","host":"{inside(self._host)}",'

    def encode(self, selection: Selection) -> list[bytes]:
        """See `formats.contract.Format`."""
        if len(selection) >= FEW:
            halves = self._epoch.halves(selection.column("time"))
            if halves and all(Column(selection.column(field)).complete for field in _ALWAYS):
                return self._together(selection, *halves)
        source = selection.decoded.batch.source
        return [
            self._message(event, sequence, source)
            for sequence, event in zip(selection.sequences, selection.events, strict=True)
        ]

    def _together(
        self, selection: Selection, seconds: list[str], milliseconds: list[str]
    ) -> list[bytes]:
        column = selection.column
        lines = Lines(len(selection))
        lines.text(self._begin)
        shorts, fulls = _first_lines(column("message"), column("type"))
        lines.pair(*member("short_message", shorts))
        lines.text(',"timestamp":')
        lines.each(seconds)
        lines.each(map(_FRACTIONS.__getitem__, milliseconds))
        lines.each(map(_LEVELS.__getitem__, column("severity")))
        lines.pair(*member("_event_id", Column(column("id")), ","))
        lines.pair(*member("_type", Column(column("type")), ","))
        lines.pair(*member("_category", Column(column("category")), ","))
        lines.each(map(_SEVERITIES.__getitem__, column("severity")))
        lines.pair(*member("_outcome", Column(column("outcome")), ","))
        lines.text(',"_siemrelay_sequence":')
        lines.each(map(repr, selection.sequences))
        lines.text(f',"_siemrelay_source":"{inside(selection.decoded.batch.source)}"')
        for field in FIELDS:
            if "." in field:
                lines.pair(*member(f"_{field.replace('.', '_')}", Column(column(field)), ","))
        if fulls:
            lines.pair(*member("full_message", fulls, ","))
        lines.pair("", attribute_column(selection, self._attributes, self._members))
        lines.text("}")
        return lines.encoded()

    def _message(self, event: AuditEvent, sequence: int, source: str) -> bytes:
        actor, target, severity = event.actor, event.target, event.severity or 0
        short, full = _first_line(event.message or event.type, event.type)
        message = message_of(_Message(
            "1.1", self._host, short, int(self._epoch(event.time or "")) / 1000,
            syslog_severity(severity), event.id, event.type, event.category, severity,
            event.outcome, sequence, source, actor.name, actor.id, actor.address,
            target.type, target.name, target.id, full,
        ))  # fmt: skip
        if not event.attributes:
            return message
        return message[:-1] + self._attributes(attributes_of(event)).encode() + b"}"

    def _attributes(self, attributes: dict[str, Any]) -> str:
        """The members, each with a comma before it."""
        names = self._names
        members = message_of(without_clashes([
            (names[name], value if type(value) is str else _text_or_number(value))
            for name, value in flattened(attributes)
            if value is not None
        ]))  # fmt: skip
        return "" if members == b"{}" else f",{members[1:-1].decode()}"

    def _members(self, lines: Lines, own: Sequence[Named]) -> bool:
        names = [self._names[named.name] for named in own]
        if len(set(names)) < len(names):
            return False
        for name, (_, values, types) in zip(names, own, strict=True):
            if types <= {str, type(None)}:
                lines.pair(*member(inside(name), Column(values), ","))
            else:
                said = [None if value is None else _json_of(value) for value in values]
                lines.pair(f',"{name}":', Column(said))
        return True


# As msgspec writes a number: `.5`, and `.0` for whole seconds.
_FRACTIONS: Final = {f"{ms:03d}": str(ms / 1000)[1:] for ms in range(1000)}
_LEVELS: Final = {
    severity: f',"level":{syslog_severity(severity or 0)}' for severity in (None, *range(11))
}
_SEVERITIES: Final = {severity: f',"_severity":{severity or 0}' for severity in (None, *range(11))}
_ALWAYS: Final = ("id", "category", "outcome")


def _first_line(message: str, kind: str) -> tuple[str, str | None]:
    """What is short of a message, and all of it if that is more."""
    short, full = message, None
    if _LINE_BREAK.search(message):
        full, short = message, _LINE_BREAK.split(message.strip(), maxsplit=1)[0]
    if not short or short.isspace():  # Graylog refuses a blank one
        short = "-" if kind.isspace() else kind
    return short, full


def _first_lines(messages: list[str], kinds: list[str]) -> tuple[Column, Column | None]:
    """`_first_line` of many."""
    if not all(messages):
        messages = [message or kind for message, kind in zip(messages, kinds, strict=True)]
    odd = set(compress(count(), map(str.isspace, messages)))
    joined = "".join(messages)
    for line_break in "\r\n":
        if line_break in joined:
            odd.update(compress(count(), map(contains, messages, repeat(line_break))))
    if not odd:
        return Column(messages), None
    shorts, fulls = list(messages), list[str | None]([None]) * len(messages)
    for at in odd:
        shorts[at], fulls[at] = _first_line(messages[at], kinds[at])
    return Column(shorts), Column(fulls)


def _text_or_number(value: Any) -> str | int | float:
    if isinstance(value, float):
        return value
    number = type(value) is int and -_INTEGER_END <= value < _INTEGER_END
    return value if number else text_of(value)


def _json_of(value: Any) -> str:
    return message_of(_text_or_number(value)).decode()


# Graylog's own port for each kind of GELF input.
_STREAM: Final = {"port": 12201, "framing": "nul"}

GELF: Final = FormatKind(
    GelfOptions, Gelf, "Graylog's GELF 1.1",
    implies={"tcp": _STREAM, "tls": _STREAM, "unix": {"framing": "nul"},
             "udp": {"port": 12201, "framing": "gelf"}},
)  # fmt: skip

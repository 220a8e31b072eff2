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
from operator import attrgetter, contains
from typing import Any, Final

from pydantic import Field

from siemrelay.core.event import FIELDS, AuditEvent, Selection, syslog_severity
from siemrelay.core.options import Options
from siemrelay.formats.contract import FormatKind
from siemrelay.formats.writing.attributes import FlatAttributes, Written
from siemrelay.formats.writing.columns import FEW_EVENTS, Column, Lines, column_of
from siemrelay.formats.writing.epoch import EpochMs
from siemrelay.formats.writing.json_text import json_escape, member, members, message_of
from siemrelay.formats.writing.text import text_of

_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]")  # nor `.`, which Graylog would replace by `_`
_LINE_BREAK: Final = re.compile(r"[\r\n]")

# Graylog's index keeps 64 bits exactly; a larger number goes as text.
_INTEGER_END: Final = 1 << 63


class GelfOptions(Options):
    """The options of a sink with GELF messages."""

    hostname: str | None = Field(
        None, min_length=1, description="GELF's `host`; this machine's name by default"
    )


class Gelf:
    """Events → GELF messages.

    Every field of the event has its own name, `actor.name` is `_actor_name`, but for the id, which
    is `_event_id`. Attributes are flat and begin with `_attributes_`, so that none can stand for a
    field of Graylog's own; texts and numbers stay what they are, everything else is text.
    """

    fields = frozenset({*FIELDS, "attributes"})
    members = frozenset[str]()

    def __init__(self, options: GelfOptions, host: str) -> None:
        self._epoch = EpochMs()
        self._attributes = FlatAttributes(
            ',"_attributes_{}":', lambda name: _NOT_IN_NAMES.sub("_", name), _attribute_values
        )
        self._host = options.hostname or host or "-"
        self._begin = f'{{"version":"1.1","host":"{json_escape(self._host)}"'

    def encode(self, selection: Selection) -> list[bytes]:
        """See `formats.contract.Format`."""
        if len(selection) <= FEW_EVENTS:
            source = selection.decoded.batch.source
            return [
                self._message(event, sequence, source, selection.number)
                for event, sequence in zip(selection.events, selection.sequences, strict=True)
            ]
        column, lines = selection.column, Lines(len(selection))
        shorts, fulls = _first_lines(column("message"), column("type"))
        lines.text(self._begin)
        lines.pair(*member("short_message", shorts, ","))
        lines.text(',"timestamp":')
        self._timestamps(lines, column("time"))
        lines.each(map(_LEVELS.__getitem__, column("severity")))
        named = {name: column_of(column(field)) for name, field in _NAMES.items()}
        for pair in members(named, ","):
            lines.pair(*pair)
        lines.text(',"_siemrelay_sequence":')
        lines.each(map(repr, selection.sequences))
        lines.text(f',"_siemrelay_source":"{json_escape(selection.decoded.batch.source)}"')
        if selection.number:
            lines.text(f',"_siemrelay_n":"{selection.number}"')
        if fulls:
            lines.pair(*member("full_message", fulls, ","))
        lines.pair("", self._attributes.column(selection))
        lines.text("}")
        return lines.encoded()

    def _message(self, event: AuditEvent, sequence: int, source: str, number: str | None) -> bytes:
        """One event's message: what the columns are for many, in a few steps."""
        short, full = _first_line(event.message or event.type, event.type)
        severity = event.severity or 0
        message: dict[str, Any] = {
            "version": "1.1", "host": self._host, "short_message": short,
            "timestamp": int(self._epoch(event.time or "")) / 1000,
            "level": syslog_severity(severity), "_severity": severity,
        }  # fmt: skip
        values = zip(_NAMES, _named_fields(event), strict=True)
        message.update((name, value) for name, value in values if value is not None)
        message |= {"_siemrelay_sequence": sequence, "_siemrelay_source": source}
        if number:
            message["_siemrelay_n"] = number
        if full:
            message["full_message"] = full
        for name, value in self._attributes.alone(event):
            if value is not None:
                message[f"_attributes_{name}"] = _number_or_text(value)
        return message_of(message)

    def _timestamps(self, lines: Lines, times: list[str]) -> None:
        halves = self._epoch.halves(times)
        if halves:
            seconds, milliseconds = halves
            lines.each(seconds)
            lines.each(map(_FRACTIONS.__getitem__, milliseconds))
        else:
            lines.each([repr(int(ms) / 1000) for ms in self._epoch.column(times)])


# `.5`, and `.0` for whole seconds.
_FRACTIONS: Final = {f"{ms:03d}": str(ms / 1000)[1:] for ms in range(1000)}
_LEVELS: Final = {
    severity: f',"level":{syslog_severity(severity or 0)},"_severity":{severity or 0}'
    for severity in (None, *range(11))
}
_NAMES: Final = {
    "_event_id": "id",
    **{
        f"_{field.replace('.', '_')}": field
        for field in FIELDS
        if field not in ("id", "time", "severity", "message")
    },
}

_named_fields: Final = attrgetter(*_NAMES.values())


def _first_line(message: str, kind: str) -> tuple[str, str | None]:
    """`short_message`, and `full_message` where a message is more than its first line."""
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
    return Column(shorts), column_of(fulls)


def _attribute_values(values: Sequence[Any], types: set[type]) -> Written:
    if types <= {str, type(None)}:
        return '"', column_of(values).escaped(json_escape), '"'
    return "", column_of([None if value is None else _json_of(value) for value in values]), ""


def _json_of(value: Any) -> str:
    return message_of(_number_or_text(value)).decode()


def _number_or_text(value: Any) -> Any:
    number = type(value) is float or (
        type(value) is int and -_INTEGER_END <= value < _INTEGER_END
    )  # fmt: skip
    return value if number else text_of(value)


# Graylog's own port for each kind of GELF input.
_STREAM: Final = {"port": 12201, "framing": "nul"}

GELF: Final = FormatKind(
    GelfOptions, Gelf, "Graylog's GELF 1.1", numbered=True,
    implies={"tcp": _STREAM, "tls": _STREAM, "unix": {"framing": "nul"},
             "udp": {"port": 12201, "framing": "gelf"}},
)  # fmt: skip

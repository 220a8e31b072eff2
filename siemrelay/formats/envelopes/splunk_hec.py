"""The envelope of Splunk's HTTP Event Collector around another format's messages.

Rules: Splunk, "Format events for HTTP Event Collector": an object with `event`, which is an object
or a text that is not blank, and the metadata `time`, `host`, `source`, `sourcetype` and `index`
beside it. `time` is in seconds as a plain decimal: scientific notation is refused. `fields`
("Automate indexed field extractions") is flat: texts, numbers, lists of them, and no objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import repeat
from typing import Any, Final

import msgspec

from siemrelay.core.event import AuditEvent, Selection, field_getter
from siemrelay.formats.contract import Canonical, Format
from siemrelay.formats.field_map import fields_read
from siemrelay.formats.writing.columns import Lines
from siemrelay.formats.writing.epoch import EpochMs
from siemrelay.formats.writing.json_text import message_of
from siemrelay.formats.writing.text import text_of

_check: Final = msgspec.json.Decoder(msgspec.Raw).decode

# A blank event would be refused; this keeps its place.
_BLANK: Final = b'"-"'


class HecEnvelope:
    """Messages → HEC events with the event's own time.

    A message that is a JSON object is the event as it is, so that Splunk finds its fields; every
    other one is a text in it.
    """

    members: frozenset[str] | None = frozenset({"event"})

    def __init__(
        self, inner: Format, *, host: str, source: str | None, sourcetype: str | None,
        index: str | None, fields: Mapping[str, str | None] | None = None,
    ) -> None:  # fmt: skip
        """`source` None: the name of the relay's own source. What else is None is left to the
        token's settings in Splunk. `fields`: names of indexed fields, each with the event field
        that it takes.
        """
        self._inner, self._source = inner, source
        self._metadata = {
            name: value
            for name, value in (("host", host), ("sourcetype", sourcetype), ("index", index))
            if value
        }
        # With indexed fields behind it, the event is not the rest of the envelope.
        self.canonical = isinstance(inner, Canonical) and inner.canonical and not fields
        self._epoch = EpochMs()
        taken = {name: field for name, field in (fields or {}).items() if field}
        self._indexed = [(name, field_getter(field)) for name, field in taken.items()]
        self.fields = inner.fields | fields_read({"time", *taken.values()})

    def encode(self, selection: Selection) -> list[bytes]:
        """See `formats.contract.Format`."""
        messages = self._inner.encode(selection)
        if self._inner.members is None:
            messages = list(map(_event, messages))
        ends = map(self._fields, selection.events) if self._indexed else repeat(b"}", len(messages))
        return list(map(b"".join, zip(self._starts(selection), messages, ends, strict=True)))

    def _starts(self, selection: Selection) -> list[bytes]:
        """Each envelope up to its event."""
        source = self._source or selection.decoded.batch.source
        lines, times = Lines(len(selection)), selection.column("time")
        halves = self._epoch.halves(times)
        if halves is not None:
            seconds, milliseconds = halves
            lines.text('{"time":')
            lines.each(seconds)
            lines.text(".")
            lines.each(milliseconds)
            lines.text(",")
        else:
            lines.text("{")
            lines.each([f'"time":{self._seconds(time)},' if time else "" for time in times])
        lines.text(message_of({**self._metadata, "source": source}).decode()[1:-1] + ',"event":')
        return lines.encoded()

    def _fields(self, event: AuditEvent) -> bytes:
        """The rest of the envelope after the event; what the event lacks is left out."""
        found = {name: _flat(get(event)) for name, get in self._indexed}
        found = {name: value for name, value in found.items() if value not in (None, "", [])}
        return b',"fields":' + message_of(found) + b"}" if found else b"}"

    def _seconds(self, time: str) -> str:
        epoch_ms = self._epoch(time)
        if len(epoch_ms) > 3 and epoch_ms[0] != "-":
            return f"{epoch_ms[:-3]}.{epoch_ms[-3:]}"
        return f"{int(epoch_ms) / 1000:.3f}"


def hec_events(form: Format, options: Any) -> Format:
    """The sink's format in the envelope of its endpoint."""
    if options.endpoint == "raw":
        return form
    return HecEnvelope(
        form, host=options.metadata_host, source=options.source, sourcetype=options.sourcetype,
        index=options.index, fields=options.fields,
    )  # fmt: skip


def _flat(value: Any) -> Any:
    """A value as an indexed field may have it: what is no text, number or list of them is JSON."""
    if value is None or type(value) in (str, int, float):
        return value
    if isinstance(value, list):
        return [text_of(item) for item in value if item is not None]
    return text_of(value)


def _event(message: bytes) -> bytes:
    if message[:1] == b"{":
        try:
            _check(message)
        except (msgspec.DecodeError, RecursionError):
            pass  # it only looks like an object: a text, like any other
        else:
            return message
    text = message.decode()
    # Also where all of it is space beyond ASCII's.
    return message_of(text) if text.strip() else _BLANK

"""Syslog, RFC 5424, with the whole event in structured data and its message as MSG."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import compress
from typing import Any, Final

from pydantic import Field

from siemrelay.core.event import FIELDS, AuditEvent, Selection
from siemrelay.formats.contract import FormatKind
from siemrelay.formats.syslog_header import HeaderOptions, Rfc5424Header
from siemrelay.formats.writing.attributes import FlatAttributes, Written, texts_of
from siemrelay.formats.writing.columns import FEW_EVENTS, Column, Lines, column_of
from siemrelay.formats.writing.structured_data import param_value, quoted_pairs
from siemrelay.formats.writing.text import forwarded, text_of, visible

_NOT_IN_NAMES: Final = re.compile(r'[^!-~]|[\]="]')  # RFC 5424, 6.3.3: SD-NAME
_NAME_CHARACTERS: Final = 32
_PREFIX: Final = "attributes."

_SHOWN_FIELDS: Final = [(field, field) for field in FIELDS if field not in ("time", "message")]
_SHOWN: Final = quoted_pairs(_SHOWN_FIELDS)
# The header is not under seal: receivers write it anew.
_UNDER_SEAL: Final = quoted_pairs([("time", "time"), *_SHOWN_FIELDS])


class Rfc5424Options(HeaderOptions):
    """The options of a sink with RFC 5424 messages."""

    enterprise_id: int = Field(
        32473, ge=1, description="the private enterprise number in the structured data's id "
        "(`event@32473`); 32473 is the one reserved for examples"
    )  # fmt: skip
    rewrite: bool = Field(
        False,
        description="write RFC 5424 messages of syslog sources anew, too, as events behind a "
        "header of this relay's; by default they leave as they came, header, structured data and "
        "text, unless the sink changes them (`add`, `redact`, `seal`) or their source has `add`",
    )


def _up_to_text() -> re.Pattern[bytes]:
    """Matches the beginning of a message in strict RFC 5424, up to its text (section 6).

    Its repetitions are bounded, so that what is remembered while it matches is, too.
    """
    clock = r"(?:[01]\d|2[0-3]):[0-5]\d"
    day = r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])"
    time = rf"(?:-|{day}T{clock}:[0-5]\d(?:\.\d{{1,6}})?(?:Z|[+-]{clock}))"
    names = "[!-~]{1,255} [!-~]{1,48} [!-~]{1,128} [!-~]{1,32}"
    name, value = r"[!#-<>-\\^-~]{1,32}", r'"[^"\\\]]*(?:\\.[^"\\\]]*){0,256}"'
    data = rf"(?:-|(?:\[{name}(?: {name}={value}){{0,64}}\]){{1,32}})"
    begin = rf"<(?:1[0-8]\d|19[01]|[1-9]?\d)>1 {time} {names} {data}(?: |\Z)"
    return re.compile(begin.encode())


_UP_TO_TEXT: Final = _up_to_text()


class Rfc5424:
    """Events → `<PRI>1 TIME HOST APP - MSGID [event@PEN id="…" … attributes.NAME="…"] MESSAGE`.

    Attributes follow the event's own fields. The prefix keeps them apart from these whatever they
    are called; the rest of a name is without what SD-NAME does not allow, 32 characters in all.

    A record that is such a message already is forwarded, as a relay should (RFC 5424, 3 and 6.2.4):
    HOSTNAME and APP-NAME are its originator's. What is typed into its text stays text, since its
    header and structured data are to the letter. Not so if its event was changed or has a number.
    """

    fields = frozenset({*FIELDS, "attributes"})
    members = None

    def __init__(self, options: Rfc5424Options, host: str) -> None:
        self._header, self._rewrites = Rfc5424Header(options, host), options.rewrite
        # SD-ID has 32 characters: the number cannot be as long as all that.
        self._open = f'[event@{options.enterprise_id} sequence="'
        self._attributes = FlatAttributes(
            f' {_PREFIX}{{}}="', _attribute_name, _attribute_values,
            most_characters=_NAME_CHARACTERS - len(_PREFIX),
        )  # fmt: skip

    def encode(self, selection: Selection) -> Sequence[bytes]:
        """See `formats.contract.Format`."""
        decoded = selection.decoded
        if self._rewrites or selection.number or selection.is_changed or not decoded.is_syslog:
            return self._written(selection)
        records = selection.records
        own = list(map(_UP_TO_TEXT.match, records))
        if None not in own:
            return forwarded(records)
        if not any(own):
            return self._written(selection)
        ready = iter(forwarded(list(compress(records, own))))
        written = iter(self._written(selection.where([match is None for match in own])))
        return [next(written) if match is None else next(ready) for match in own]

    def forwards(self, record: bytes, *, is_syslog: bool) -> bool:
        """See `formats.contract.Forwarding`."""
        return is_syslog and not self._rewrites and _UP_TO_TEXT.match(record) is not None

    def _written(self, selection: Selection) -> list[bytes]:
        if len(selection) <= FEW_EVENTS:
            return [
                self._line(event, sequence, selection.number).encode()
                for event, sequence in zip(selection.events, selection.sequences, strict=True)
            ]
        lines = Lines(len(selection))
        self._header.begin(lines, selection)
        lines.text(self._open)
        lines.each(map(repr, selection.sequences))
        lines.text(f'" n="{selection.number}" ' if selection.number else '" ')
        lines.pairs((_UNDER_SEAL if selection.number else _SHOWN).of(selection), " ")
        lines.pair("", self._attributes.column(selection))
        lines.text("] ")
        messages = selection.column("message")
        if not all(messages):
            messages = [event.message or event.type for event in selection.events]
        lines.pair("", Column(messages).escaped(visible))
        return lines.encoded()

    def _line(self, event: AuditEvent, sequence: int, number: str | None) -> str:
        """One event's message: what the columns are for many, in a few steps."""
        named = f' n="{number}"' if number else ""
        fields = (_UNDER_SEAL if number else _SHOWN).alone(event)
        attributes = "".join([
            f' {_PREFIX}{name}="{param_value(text_of(value))}"'
            for name, value in self._attributes.alone(event)
        ])  # fmt: skip
        return (
            f'{self._header.alone(event)}{self._open}{sequence}"{named} {fields}{attributes}] '
            f"{visible(event.message or event.type)}"
        )


def _attribute_name(name: str) -> str:
    return _NOT_IN_NAMES.sub("_", name)[: _NAME_CHARACTERS - len(_PREFIX)] or "_"


def _attribute_values(values: Sequence[Any], types: set[type]) -> Written:
    return "", column_of(texts_of(values, types)).escaped(param_value), '"'


SYSLOG: Final = FormatKind(
    Rfc5424Options, Rfc5424, "RFC 5424, the event in structured data", numbered=True
)

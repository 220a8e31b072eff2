"""Syslog records → events: the header, and the body if it is structure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import partial
from itertools import chain
from operator import attrgetter
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

from siemrelay.core.event import AuditEvent, Batch, DecodedBatch
from siemrelay.core.event_types import Catalogue
from siemrelay.core.lines import texts_of
from siemrelay.core.memo import BoundedMemo
from siemrelay.core.options import NonEmpty
from siemrelay.decoders.auditd.records import is_audit_line
from siemrelay.decoders.contract import (
    MAX_TIME_AHEAD_S,
    MAX_TIME_PAST_S,
    DecoderKind,
    ZonedOptions,
)
from siemrelay.decoders.fields import Spellings
from siemrelay.decoders.normalise import Finisher, event_of_part, unparsed
from siemrelay.decoders.snare import BEGINNINGS as SNARE_BEGINNINGS
from siemrelay.decoders.syslog.bodies import Bodies, Body, Fields
from siemrelay.decoders.syslog.columns import HeaderReader, Headers
from siemrelay.decoders.times import zone_of


class SyslogHeaderOptions(ZonedOptions):
    """Settings of the decoders that read syslog headers."""

    tag_without_colon: bool = Field(
        False,
        description="the word after the host is the tag whether or not a colon follows it, as in "
        "what rsyslog's ForwardFormat makes of imfile's tags; else such a word is text, since "
        "whoever writes the message might choose it",
    )


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class SyslogDecoderOptions(SyslogHeaderOptions):
    """Settings of the decoder that also finds out what follows the header."""

    body: Body = Field(
        "auto",
        description="what follows the header. `auto`: a message is CEF, LEEF, Palo Alto's CSV "
        "(`pan_os`) or Snare's Windows event (`snare`) if it begins as one, JSON if it is one "
        "object, key=value if it is pairs from beginning to end, else text; pairs among its words "
        "become attributes (`attributes.text.NAME`) and nothing more. Any other choice declares "
        "the form: `key_value` takes pairs from among words, too",
    )
    structured_data: Annotated[list[NonEmpty], BeforeValidator(_listed)] = Field(
        [],
        description="elements of RFC 5424's structured data, by their names or patterns "
        "(`login@32473`, `*@32473`), whose parameters are an event's fields, as those of a JSON "
        "object would be, and go before the message. Else they are attributes",
    )


# Framing leaves these at the end, and some senders put a byte order mark at the beginning.
_AROUND: Final = "\0\r\n \t"
_MARK: Final = "\ufeff"

# How compressed messages begin: gzip's and zlib's (GELF over UDP), behind a `z` rsyslog's. Text
# that happens to begin so is UTF-8 to its end, which they are not.
_COMPRESSED: Final = (b"\x1f\x8b", b"x\x01", b"x\x9c", b"x\xda", b"zx")


_OBJECT: Final = ("{", "@cee:")

_type = attrgetter("type")
_severity, _message = attrgetter("severity"), attrgetter("message")


class SyslogDecoder:
    """Decodes the batches of one source; see `decoders.contract.Decoder`.

    What a message says that is structure as a whole, or of the form that its source declares, goes
    before what the header says: the time, the severity by its PRI, the type by MSGID, else by the
    application's name. Of any other message everything but its text is the header's.
    """

    reads_syslog: Final = True

    def __init__(
        self, spellings: Spellings, wanted: frozenset[str], catalogue: Catalogue,
        body: Body = "auto", timezone: str = "UTC",
        max_time_past: float = MAX_TIME_PAST_S, max_time_ahead: float = MAX_TIME_AHEAD_S, *,
        tag_without_colon: bool = False, structured_data: Sequence[str] = (), learns: bool = True,
        of_one_form: bool = False,
    ) -> None:  # fmt: skip
        """The settings are as in `SyslogDecoderOptions`, times in seconds; `learns` as for JSON.

        `of_one_form`: a record that has neither a header nor such a body is unparsed.
        """
        self._of_one_form = of_one_form
        self._of_product = bool(catalogue.values)
        self._knows_auditd = catalogue.find("USER_LOGIN") is not None
        self._is_laurel = body == "laurel"
        self._attributes = "attributes" in wanted
        zone = zone_of(timezone)
        # Few names are met, and each batch asks for them.
        self._declared = BoundedMemo[str, bool](
            lambda name: any(fnmatchcase(name, wanted) for wanted in structured_data)
        )
        self._headers = HeaderReader(
            zone, tag_without_colon=tag_without_colon,
            data_of=lambda element: (
                self._attributes or _is_event(element) or self._declared[element]
            ),
        ).headers  # fmt: skip
        self._bodies = Bodies(
            spellings, body, attributes=self._attributes, kept=catalogue.values, learns=learns
        )
        self._finished = Finisher(catalogue, wanted, max_time_past, max_time_ahead, zone).finished

    def decode(self, batch: Batch) -> DecodedBatch:
        """Exactly one event per record; never raises for what is in the records."""
        if batch.part is not None:
            event, unparsed_count = event_of_part(batch)
            return self._finished(batch, [event], unparsed_count)
        messages, replaced = texts_of(batch.records())
        headers = self._headers(
            [text.strip(_AROUND).removeprefix(_MARK) for text in messages],
            datetime.fromtimestamp(batch.received_at, UTC),
        )
        own = self._own(headers)
        texts = [text.removeprefix(_MARK) for text in headers.texts]
        events, tidy = self._bodies.events(texts, own)
        formless = _formless(events, headers) if self._of_one_form else []
        if replaced and not self._of_one_form:
            formless = [i for i, record in enumerate(batch.records()) if _is_compressed(record)]
        self._complete(events, headers, texts)
        if formless:
            records = batch.records()
            for i in formless:
                events[i] = unparsed(records[i])
        decoded = self._finished(
            batch, events, len(formless), tidy=tidy, header_times=headers.times
        )
        decoded.replaced, decoded.is_syslog = replaced, True
        return decoded

    def _own(self, headers: Headers) -> dict[int, Fields]:
        """Message number → fields of an event in its structured data.

        They are those that `format: syslog` writes, else those of the elements that the source
        declares: of a name that comes twice the first value counts. Such elements are removed from
        the headers.
        """
        own: dict[int, Fields] = {}
        names = set(chain.from_iterable(filter(None, headers.data)))
        declared = set(filter(self._declared.__getitem__, names))
        if not declared and not any(map(_is_event, names)):
            return own
        for i, data in enumerate(headers.data):
            if not data:
                continue
            event = next((n for n, p in data.items() if _is_event(n) and "type" in p), None)
            if event is not None:
                own[i] = _event_fields(data.pop(event), headers.texts[i])
            elif not declared.isdisjoint(data):
                params: Fields = {}
                for name in [name for name in data if name in declared]:
                    params = data.pop(name) | params
                text = headers.texts[i]
                own[i] = {"message": text, **params} if text else params
        return own

    def _has_fixed_priority(self, text: str) -> bool:
        """Whether the PRI says nothing of the event: Snare and auditd's plugins have one for all.

        Where the product is known, the event's type says how grave it is.
        """
        return (
            (self._of_product and text.startswith(SNARE_BEGINNINGS))
            or (self._knows_auditd and is_audit_line(text))
            or (self._is_laurel and text.startswith(_OBJECT))
        )

    def _complete(self, events: list[AuditEvent], headers: Headers, texts: list[str]) -> None:
        """Fill in from the headers what the bodies lack."""
        if not all(map(_type, events)):
            for event, sender in zip(events, headers.senders, strict=True):
                event.type = event.type or sender.type
        if None in map(_severity, events):
            for event, sender, text in zip(events, headers.senders, texts, strict=True):
                if event.severity is None and not self._has_fixed_priority(text):
                    event.severity = sender.severity
        if None in map(_message, events):
            for event, text in zip(events, texts, strict=True):
                if event.message is None:
                    event.message = text
        if self._attributes:
            for event, sender, data in zip(events, headers.senders, headers.data, strict=True):
                # Never Raw: `Bodies` reads them as dicts.
                attributes: Any = event.attributes or {}
                about = sender.about | data if data else sender.about
                if about:
                    attributes["syslog"] = about
                event.attributes = attributes


def _formless(events: list[AuditEvent], headers: Headers) -> list[int]:
    """Which messages are text alone, without a header."""
    return [
        i
        for i, (event, sender, time) in enumerate(
            zip(events, headers.senders, headers.times, strict=True)
        )
        if not event.type and event.message is None and time is None and not sender.about
    ]


def _is_compressed(record: bytes) -> bool:
    if not record.startswith(_COMPRESSED):
        return False
    try:
        record.decode()
    except UnicodeDecodeError:
        return True
    return False


def _is_event(name: str) -> bool:
    return name.startswith("event@")


def _event_fields(params: Fields, text: str) -> Fields:
    """Attributes have a prefix, so that none of them is taken for a field of the event."""
    fields = {name: value for name, value in params.items() if not name.startswith(_PREFIX)}
    if len(fields) < len(params):
        fields["attributes"] = {
            name.removeprefix(_PREFIX): value
            for name, value in params.items()
            if name.startswith(_PREFIX)
        }
    return {**fields, "message": text} if text else fields


_PREFIX: Final = "attributes."


SYSLOG: Final = DecoderKind(
    SyslogDecoderOptions, SyslogDecoder,
    "syslog; a message that is CEF, LEEF, Palo Alto's CSV, Snare's `MSWinEventLog`, one JSON "
    "object or key=value as a whole is read as such",
    why=lambda record: "it is compressed: turn this off at its sender (rsyslog's `ziplevel`, "
    "`compress` of a GELF library)",
)  # fmt: skip

CEF: Final = DecoderKind(
    SyslogHeaderOptions, partial(SyslogDecoder, body="cef", of_one_form=True),
    "CEF lines, also behind a syslog header",
    why=lambda record: "neither CEF nor a syslog header",
)  # fmt: skip

LEEF: Final = DecoderKind(
    SyslogHeaderOptions, partial(SyslogDecoder, body="leef", of_one_form=True),
    "LEEF lines, also behind a syslog header",
    why=lambda record: "neither LEEF nor a syslog header",
)  # fmt: skip

KEY_VALUE: Final = DecoderKind(
    SyslogHeaderOptions, partial(SyslogDecoder, body="key_value", of_one_form=True),
    "key=value lines, also behind a syslog header and with words between the pairs",
    why=lambda record: "neither key=value pairs nor a syslog header",
)  # fmt: skip

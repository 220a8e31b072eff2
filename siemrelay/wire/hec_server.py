"""Requests to a HTTP Event Collector → records, and the collector's answers. Pure.

Rules: Splunk, "Format events for HTTP Event Collector" and "Troubleshoot HTTP Event Collector".
A record is the event itself, with the envelope's metadata in one object `hec` beside its own
fields, and the envelope's `time` where it has no time of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from siemrelay.core.errors import SiemrelayError
from siemrelay.core.forgiving_json import forgiving_json
from siemrelay.wire.http_bodies import TooManyRecords, line_slices
from siemrelay.wire.json_slices import SLICE_BYTES, JsonFault, decoded_json, value_slices

REPLIES: Final[Mapping[int, tuple[int, str]]] = {
    0: (200, "Success"),
    2: (401, "Token is required"),
    3: (401, "Invalid authorization"),
    4: (403, "Invalid token"),
    5: (400, "No data"),
    6: (400, "Invalid data format"),
    8: (500, "Internal server error"),
    9: (503, "Server is busy"),
    10: (400, "Data channel is missing"),
    11: (400, "Invalid data channel"),
    12: (400, "Event field is required"),
    13: (400, "Event field cannot be blank"),
    14: (400, "ACK is disabled"),
    15: (400, "Error in handling indexed fields"),
    16: (400, "Query string authorization is not enabled"),
    17: (200, "HEC is healthy"),
    18: (503, "HEC is unhealthy, queues are full"),
}
"""Code → HTTP status and text, as Splunk answers."""

_Maybe = msgspec.Raw | msgspec.UnsetType
_NULL: Final = b"null"
T = TypeVar("T")

# Ids of requests that are asked about at a time: some 20,000, far more than senders have open.
_ACKS_BYTES: Final = 256 * 1024

# Events that are read between two pauses: a few milliseconds.
_STEP: Final = 500

_EMPTY: Final = re.compile(rb"\{\s*\}")
_AT_EVENT: Final = re.compile(r"`\$\[(\d+)\]")
_check: Final = msgspec.json.Decoder(msgspec.Raw).decode


class HecRefused(SiemrelayError):
    """A request is refused as a whole: answer with `code`; `number` is the bad event, from 0."""

    def __init__(self, code: int, number: int | None = None) -> None:
        super().__init__(f"{REPLIES[code][1]} (code {code}, event {number})")
        self.code, self.number = code, number


class _Metadata(msgspec.Struct, frozen=True, gc=False):
    host: _Maybe = msgspec.UNSET
    source: _Maybe = msgspec.UNSET
    sourcetype: _Maybe = msgspec.UNSET
    index: _Maybe = msgspec.UNSET
    time: _Maybe = msgspec.UNSET
    fields: _Maybe = msgspec.UNSET


class _Envelope(_Metadata, frozen=True, gc=False):
    event: _Maybe = msgspec.UNSET


_envelopes: Final = msgspec.json.Decoder(_Envelope).decode_lines


class _Acks(msgspec.Struct, frozen=True, gc=False):
    acks: list[int]


_acks: Final = msgspec.json.Decoder(_Acks).decode


class HecReader:
    """Reads the events of one source."""

    def __init__(self, time_keys: Iterable[str], *, as_json: bool) -> None:
        """`time_keys` are the names under which events hold their own time. Without `as_json`
        events that are texts become records as they are, for a decoder of texts; their metadata is
        not kept.
        """
        keys = [key for key in time_keys if "." not in key]
        times = msgspec.defstruct(
            "Times",
            [(f"t{i}", _Maybe, msgspec.UNSET) for i in range(len(keys))],
            rename={f"t{i}": key for i, key in enumerate(keys)}, frozen=True, gc=False,
        )  # fmt: skip
        self._times: Any = msgspec.json.Decoder(times).decode
        self._untimed = times()
        self._as_json = as_json

    def events(self, body: bytes, most: int) -> Generator[None, None, list[bytes]]:
        """The records of a body of envelopes, one after the other, in steps.

        Raises HecRefused, and TooManyRecords when there are more than `most`.
        """
        records = list[bytes]()
        try:
            for envelopes in value_slices(body, _envelopes):
                yield
                for envelope in _counted(envelopes, records, most):
                    records.append(self._record(envelope, len(records)))
                    if len(records) % _STEP == 0:
                        yield
        except JsonFault as fault:
            found = _AT_EVENT.search(fault.reason)
            within = int(found[1]) if found else _values_before_fault(body, fault)
            raise HecRefused(6, fault.values + within) from fault
        if not records:
            raise HecRefused(5)
        return records

    def lines(
        self, body: bytes, query: Mapping[str, str], most: int
    ) -> Generator[None, None, list[bytes]]:
        """The records of a body of lines, in steps; `query` may have their metadata.

        Raises HecRefused, and TooManyRecords when there are more than `most`.
        """
        metadata = _Metadata(**{
            name: msgspec.Raw(msgspec.json.encode(query[name]))
            for name in ("host", "source", "sourcetype", "index", "time") if name in query
        })  # fmt: skip
        records = list[bytes]()
        for lines in line_slices(body):
            yield
            for line in _counted(lines, records, most):
                text = line.rstrip(b"\r\n")
                records.append(self._line(text, metadata) if self._as_json else text)
                if len(records) % _STEP == 0:
                    yield
        if not records:
            raise HecRefused(5)
        return records

    def _line(self, line: bytes, metadata: _Metadata) -> bytes:
        if _is_object(line):
            return self._with(line, metadata)
        try:
            text = msgspec.json.encode(line.decode())
        except UnicodeDecodeError:
            return line  # its bytes are worth more than its metadata
        return self._with(b'{"message":' + text + b"}", metadata)

    def _record(self, envelope: _Envelope, number: int) -> bytes:
        event = _given(envelope.event)
        if event is None:
            raise HecRefused(12, number)
        fields = _given(envelope.fields)
        if fields is not None and fields[:1] != b"{":
            raise HecRefused(15, number)
        if event[:1] == b"{":
            return self._with(event, envelope)
        if event[:1] != b'"':
            return self._with(b'{"message":' + event + b"}", envelope)
        text = str(forgiving_json(event))
        if not text.strip():
            raise HecRefused(13, number)
        line = text.encode("utf-8", "replace")
        if not self._as_json:
            return line
        # Many senders put their JSON into a text; Splunk finds its fields all the same.
        return self._with(line if _is_object(line) else b'{"message":' + event + b"}", envelope)

    def _with(self, event: bytes, metadata: _Metadata) -> bytes:
        """An object with the metadata in it, first: a field of the same name is the event's own."""
        if b"\n" in event:
            event = msgspec.json.format(event, indent=-1)
        given = _Metadata(
            metadata.host, metadata.source, metadata.sourcetype, metadata.index, metadata.time,
            metadata.fields,
        )  # fmt: skip
        if given == _NO_METADATA:
            return event
        hec = msgspec.json.encode(given)
        if b"\n" in hec:
            hec = msgspec.json.format(hec, indent=-1)
        time = _given(metadata.time)
        # The decoder of times refuses no object: every value in it is left as it came.
        timed = b'"time":' + time + b"," if time and self._times(event) == self._untimed else b""
        if _EMPTY.fullmatch(event):
            return b"{" + timed + b'"hec":' + hec + b"}"
        return b"{" + timed + b'"hec":' + hec + b"," + event[1:].lstrip()


_NO_METADATA: Final = _Metadata()


def read_ack_ids(body: bytes) -> Generator[None, None, list[int]]:
    """The ids that are asked about, in one step. Raises HecRefused."""
    if len(body) > _ACKS_BYTES:
        raise HecRefused(6)
    try:
        return decoded_json(_acks, body).acks
    except JsonFault as fault:
        raise HecRefused(6) from fault
    yield  # the other bodies are read in several


def _counted(more: Sequence[T], records: list[bytes], most: int) -> Sequence[T]:
    if len(records) + len(more) > most:
        raise TooManyRecords(most)
    return more


def reply(code: int, **more: Any) -> bytes:
    """The body of an answer."""
    return msgspec.json.encode({"text": REPLIES[code][1], "code": code, **more})


def _given(value: _Maybe) -> bytes | None:
    if isinstance(value, msgspec.UnsetType):
        return None
    found = bytes(value)
    return None if found == _NULL else found


def _is_object(text: bytes) -> bool:
    if text.lstrip()[:1] != b"{":
        return False
    try:
        _check(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _values_before_fault(body: bytes, fault: JsonFault) -> int:
    """The number of values in the slice before a fault."""
    end = len(body) if fault.byte is None else fault.byte + 1
    text = body[fault.start : min(end, fault.start + SLICE_BYTES)].decode("utf-8", "replace")
    at = count = 0
    decode, space = json.JSONDecoder(strict=False).raw_decode, re.compile(r"\s*")
    try:
        while found := space.match(text, at):
            _, at = decode(text, found.end())
            count += 1
    except (ValueError, RecursionError):
        pass
    return count

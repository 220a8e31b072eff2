"""OTLP/HTTP in JSON: log records as one export request, and what its answer says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

_encode: Final = msgspec.json.Encoder().encode

_TAIL: Final = b"]}]}]}"


class Envelope:
    """What stands around log records: the resource that they come from, and who collected them."""

    def __init__(self, resource: Mapping[str, str], scope: str, version: str) -> None:
        """`resource` is its attributes, all of them texts."""
        attributes = [
            {"key": name, "value": {"stringValue": value}} for name, value in resource.items()
        ]
        head = _encode({
            "resourceLogs": [{
                "resource": {"attributes": attributes},
                "scopeLogs": [{"scope": {"name": scope, "version": version}, "logRecords": []}],
            }]
        })  # fmt: skip
        self._head = head.removesuffix(_TAIL)

    def request(self, records: Sequence[bytes]) -> bytes:
        """An ExportLogsServiceRequest of these records, each a LogRecord in JSON."""
        return self._head + b",".join(records) + _TAIL


class Partial(NamedTuple):
    """A partial success: how many records were rejected (0: none, it is a warning), and why."""

    rejected: int
    words: str


class NoExportAnswer(Exception):
    """The bytes are no ExportLogsServiceResponse in JSON."""


class _Partial(msgspec.Struct, rename="camel"):
    rejected_log_records: int | str = 0  # 64-bit numbers are texts in JSON, or numbers
    error_message: str = ""


class _Response(msgspec.Struct, rename="camel"):
    partial_success: _Partial | None = None


_response: Final = msgspec.json.Decoder(_Response).decode


def read_partial(body: bytes) -> Partial:
    """What an answer of 2xx says of the records. Raises NoExportAnswer."""
    if not body.strip():
        return Partial(0, "")  # an answer without members, in any encoding
    try:
        found = _response(body).partial_success
        return Partial(int(found.rejected_log_records), found.error_message) if found else _WHOLE
    except (ValueError, RecursionError) as error:  # DecodeError is a ValueError
        raise NoExportAnswer(str(error)) from error


_WHOLE: Final = Partial(0, "")

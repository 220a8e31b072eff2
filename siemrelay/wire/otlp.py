"""OTLP/HTTP in JSON: the export request around log records, and its response.

Sources: OpenTelemetry Protocol 1.x, "OTLP/HTTP" and "Partial Success"; `logs_service.proto`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from siemrelay.wire.json_array import json_array

_encode: Final = msgspec.json.Encoder().encode

_TAIL: Final = b"]}]}]}"


class ResourceLogs:
    """Builds requests whose records all have one resource and one instrumentation scope."""

    def __init__(self, resource: Mapping[str, str], scope: str, version: str) -> None:
        """`resource` has the resource's attributes, `scope` and `version` name the collector."""
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
        """An ExportLogsServiceRequest with these records, each a LogRecord in JSON."""
        return json_array(records, self._head, _TAIL)


class PartialSuccess(NamedTuple):
    """The number of rejected records and the receiver's message. With 0 it is a warning at most."""

    rejected: int
    message: str


class NotAnExportResponse(Exception):
    """The bytes are not an ExportLogsServiceResponse in JSON."""


class _PartialSuccess(msgspec.Struct, rename="camel"):
    rejected_log_records: int | str = 0  # protobuf's JSON writes 64-bit integers as text
    error_message: str = ""


class _Response(msgspec.Struct, rename="camel"):
    partial_success: _PartialSuccess | None = None


_response: Final = msgspec.json.Decoder(_Response).decode
_COMPLETE: Final = PartialSuccess(0, "")


def read_partial_success(body: bytes) -> PartialSuccess:
    """The partial success in the body of a 2xx answer. Raises NotAnExportResponse.

    An empty body is a complete success: it is an empty response in protobuf, and some receivers
    send one in JSON, too.
    """
    if not body.strip():
        return _COMPLETE
    try:
        found = _response(body).partial_success
        if found is None:
            return _COMPLETE
        return PartialSuccess(int(found.rejected_log_records), found.error_message)
    except (ValueError, RecursionError) as error:  # DecodeError is a ValueError
        raise NotAnExportResponse(str(error)) from error

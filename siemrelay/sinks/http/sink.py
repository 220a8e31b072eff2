"""The HTTP sink: batches of messages as NDJSON or a JSON array, confirmed by a 2xx answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

from pydantic import Field

from siemrelay.core.options import Duration, Options, Size
from siemrelay.formats.envelopes.elements import array_elements
from siemrelay.net.url import Url
from siemrelay.sinks.contract import BatchLimits, ProtocolKind, Remark, Settlement
from siemrelay.sinks.http.client import Client, ExchangeSink
from siemrelay.sinks.http.options import RequestOptions
from siemrelay.wire.json_array import json_array
from siemrelay.wire.stream_framing import newline


class BatchOptions(Options):
    """Options about filling requests."""

    max_events: int = Field(2000, ge=1, le=10_000, description="the most events in one request")
    max_bytes: Size = Field(
        1024 * 1024, ge=1024, description="the most bytes in one request, before gzip"
    )
    max_wait: Duration = Field(
        0.2,
        ge=0,
        le=60,
        description="how long a request waits for more events while they trickle in; after a pause "
        "the first requests, as many as 2 s hold, at most 10, go at once",
    )

    def limits(self, in_flight: int = 1, around_bytes: int = 0) -> BatchLimits:
        """The limits of a batch. One more than is in flight is kept ready.

        `around_bytes`: what a request has beside its messages and a separator after each.
        """
        most_bytes = max(self.max_bytes - around_bytes, 1)
        return BatchLimits(self.max_events, most_bytes, self.max_wait, in_flight + 1)


BRACKETS_BYTES: Final = 1
"""Bytes of an array around its elements: two brackets, less the last comma."""


class BodyOptions(BatchOptions):
    """Options about filling requests, and about their form."""

    encoding: Literal["ndjson", "array"] = Field(
        "ndjson",
        description="`ndjson`: a message per line; `array`: one JSON array, in which a message "
        "that is not JSON is a text",
    )


class HttpSinkOptions(RequestOptions):
    """Options of `protocol: http`."""

    url: Url = Field(description="the address to POST to: http:// or https://")
    batch: BodyOptions = Field(default_factory=BodyOptions, description="how requests are filled")


class HttpSink(ExchangeSink):
    """Batches of events POSTed to one address."""

    def __init__(self, options: HttpSinkOptions) -> None:
        super().__init__(options)
        self._options = options
        self._array = options.batch.encoding == "array"

    async def exchange(self, client: Client, messages: Sequence[bytes]) -> Settlement:
        """See `ExchangeSink`; a batch is one request, confirmed or refused as a whole."""
        if self._array:
            body, kind = json_array(messages), "application/json"
        else:
            body, kind = newline(messages), "application/x-ndjson"
        answer = await client.post(self._options.url, body, kind)
        answer.raise_for_status()
        return ()


def _remarks(sink: Any) -> Iterator[Remark]:
    if sink.format == "gelf" and sink.batch.max_events > 1:
        yield (
            "format",
            "Graylog's GELF HTTP input reads the first message of a request only, unless `Enable "
            "Bulk Receiving` is on: set `batch: {max_events: 1}`, or better `protocol: tcp`",
        )


HTTP: Final = ProtocolKind(
    HttpSinkOptions, HttpSink, "json", "POST requests, confirmed by the answer",
    limits=lambda options: options.batch.limits(
        options.in_flight, BRACKETS_BYTES if options.batch.encoding == "array" else 0
    ),
    wrap=array_elements, remarks=_remarks,
)  # fmt: skip

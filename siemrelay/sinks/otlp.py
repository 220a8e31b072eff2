"""The OpenTelemetry sink: log records by OTLP/HTTP in JSON, with partial successes."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from pydantic import Field

from siemrelay import __version__
from siemrelay.core.errors import BatchRefused, SinkHolds
from siemrelay.formats.envelopes.otlp import BodyKind, log_records
from siemrelay.net.url import Url, url_below
from siemrelay.sinks.contract import BatchLimits, ProtocolKind, Refusal, Settlement
from siemrelay.sinks.http.answer import ADVICE
from siemrelay.sinks.http.client import Client, ExchangeSink
from siemrelay.sinks.http.options import RequestOptions
from siemrelay.sinks.http.sink import BatchOptions
from siemrelay.wire.otlp import NotAnExportResponse, ResourceLogs, read_partial_success

_PATH: Final = "/v1/logs"

_ADVICE: Final = ADVICE | {
    401: "set `authorization` or `headers` to what the receiver expects (vendors name a header)",
    404: f"check `url`: a path in it is used as it is, and usually ends in {_PATH}",
    405: f"check `url`: a path in it is used as it is, and usually ends in {_PATH}",
    501: "check `url`: the receiver does not take logs there",
}


class OtlpOptions(RequestOptions):
    """Options of `protocol: otlp`."""

    url: Url = Field(
        description="the receiver, with its port: http://collector.example.com:4318; "
        "/v1/logs is added unless it has a path"
    )
    service: str = Field("siemrelay", min_length=1, description="the resource's service.name")
    resource: dict[str, str] = Field(
        default={},
        description="further resource attributes (`deployment.environment.name: production`); "
        "host.name is always there",
    )
    body: BodyKind = Field(
        "text", description="the formatted message as text, or JSON as an OTLP map"
    )
    batch: BatchOptions = Field(default_factory=BatchOptions, description="how requests are filled")


def _resource_logs(options: OtlpOptions) -> ResourceLogs:
    resource = {"service.name": options.service, "host.name": socket.gethostname()}
    return ResourceLogs(resource | options.resource, "siemrelay", __version__)


def _limits(options: OtlpOptions) -> BatchLimits:
    around_bytes = len(_resource_logs(options).request([]))
    return options.batch.limits(options.in_flight, around_bytes)


class OtlpSink(ExchangeSink):
    """Batches of log records exported to one receiver."""

    def __init__(self, options: OtlpOptions) -> None:
        super().__init__(options)
        bare = urlsplit(options.url).path in ("", "/")
        self._url = url_below(options.url, _PATH) if bare else options.url
        self._logs = _resource_logs(options)

    async def exchange(self, client: Client, messages: Sequence[bytes]) -> Settlement:
        """See `ExchangeSink`; a partial success refuses the batch, so that it is halved."""
        answer = await client.post(self._url, self._logs.request(messages), "application/json")
        # The specification retries after 429, 502, 503 and 504. This waits after every other 5xx
        # as well: a receiver's fault must not cost an event.
        answer.raise_for_status(_ADVICE)
        try:
            rejected, message = read_partial_success(answer.body)
        except NotAnExportResponse as error:
            raise SinkHolds(
                f"HTTP {answer.status}, but no OTLP answer in JSON: {answer.text}",
                advice=f"is `url` the address of an OTLP receiver that takes JSON ({_PATH})?",
            ) from error
        if rejected <= 0:
            return ()
        why = message or "no reason given"
        if rejected >= len(messages):
            return [Refusal(index, "rejected", why) for index in range(len(messages))]
        # The answer does not say which ones. Halving finds them; meanwhile the others are exported
        # again, as often as their batch is halved (11 times at most for 2,000), with the same
        # `log.record.uid`.
        raise BatchRefused(
            code="rejected", reason=f"{rejected} of {len(messages)} log records: {why}"
        )


OTLP: Final = ProtocolKind(
    OtlpOptions, OtlpSink, "json",
    "OpenTelemetry log records (OTLP/HTTP, JSON), confirmed by the answer",
    port=4318, limits=_limits, wrap=log_records,
)  # fmt: skip

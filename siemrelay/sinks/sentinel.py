"""The Microsoft Sentinel sink: JSON arrays to the Logs Ingestion API, confirmed by 204.

The token comes from the tenant by client credentials. The service silently drops columns that the
data collection rule does not declare: `map:` of `format: json` gives them the declared names.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, ClassVar, Final, Literal
from urllib.parse import quote

from pydantic import AfterValidator, Field

from siemrelay.core.errors import SinkHolds
from siemrelay.core.options import Secret, Size
from siemrelay.formats.envelopes.timestamped import sentinel_records
from siemrelay.net.oauth import OauthOptions
from siemrelay.net.url import Url, url_below
from siemrelay.sinks.contract import ProtocolKind, Settlement
from siemrelay.sinks.http.answer import ADVICE, Answer
from siemrelay.sinks.http.client import Client, ExchangeSink
from siemrelay.sinks.http.options import RequestOptions, TransportOptions
from siemrelay.sinks.http.sink import BRACKETS_BYTES, BatchOptions
from siemrelay.wire.json_array import json_array

_API_VERSION: Final = "2023-01-01"

# The service takes 1,048,576 bytes in one call, brackets and commas included, before gzip.
_CALL_BYTES: Final = 1_000_000

MAX_RECORD_BYTES: Final = _CALL_BYTES - len("[]")
"""The largest record that fits into a call."""


class _Credentials(OauthOptions):
    advice: ClassVar[str] = (
        "check `tenant`, `client_id` and `client_secret` (its value, not its id; it may have "
        "expired), and `authority` and `scope` if the cloud is not the public one"
    )


def _rule(value: str) -> str:
    if not value.startswith("dcr-"):
        raise ValueError(
            "write the rule's immutable id, which begins with dcr- (in the JSON view of the data "
            "collection rule), not its name"
        )
    return value


def _stream(value: str) -> str:
    if not value.startswith(("Custom-", "Microsoft-")):
        raise ValueError("the rule's streams have names like Custom-AuditEvents_CL")
    return value


class CallOptions(BatchOptions):
    """Options about filling calls."""

    max_bytes: Size = Field(
        _CALL_BYTES, ge=1024, le=_CALL_BYTES,
        description="the most bytes in one call, before gzip; the service takes 1 MB",
    )  # fmt: skip


class SentinelOptions(TransportOptions):
    """Options of `protocol: sentinel`."""

    endpoint: Url = Field(
        description="the logs ingestion endpoint of the rule, or of a data collection endpoint: "
        "https://….ingest.monitor.azure.com"
    )
    rule: Annotated[str, AfterValidator(_rule)] = Field(
        description="the data collection rule's immutable id (dcr-…)"
    )
    stream: Annotated[str, AfterValidator(_stream)] = Field(
        description="the stream in the rule (Custom-…)"
    )
    tenant: str = Field(min_length=1, description="the Entra tenant: its id or domain")
    client_id: str = Field(min_length=1, description="the app registration's client id")
    client_secret: Secret = Field(description="the value of one of its secrets")
    authority: Url = Field(
        "https://login.microsoftonline.com",
        description="where tokens come from; https://login.microsoftonline.us in the US "
        "Government's cloud, https://login.partner.microsoftonline.cn in China's",
    )
    scope: str = Field(
        "https://monitor.azure.com/.default", min_length=1,
        description="the token's scope; https://monitor.azure.us/.default and "
        "https://monitor.azure.cn/.default in those clouds",
    )  # fmt: skip
    compression: Literal["none", "gzip"] = Field("gzip", description="of request bodies")
    batch: CallOptions = Field(default_factory=CallOptions, description="how calls are filled")

    def requests(self) -> RequestOptions:
        """The options of the HTTP client."""
        tenant = quote(self.tenant, safe="")
        credentials = _Credentials(
            token_url=url_below(self.authority, f"/{tenant}/oauth2/v2.0/token"),
            client_id=self.client_id, client_secret=self.client_secret, scope=self.scope,
            audience=None,
        )  # fmt: skip
        # Not validated again: durations are validated as text with a unit.
        return RequestOptions.model_construct(
            authorization=None, basic=None, oauth=credentials, headers={},
            compression=self.compression, timeout=self.timeout, tls=self.tls,
            in_flight=self.in_flight,
        )  # fmt: skip


# The API's answer to records that it took; it has no body.
_TAKEN: Final = 204


class SentinelSink(ExchangeSink):
    """Batches of records sent to one stream of a data collection rule."""

    def __init__(self, options: SentinelOptions) -> None:
        super().__init__(options.requests())
        rule, stream = quote(options.rule, safe=""), quote(options.stream, safe="")
        path = f"/dataCollectionRules/{rule}/streams/{stream}"
        self._url = url_below(options.endpoint, path, **{"api-version": _API_VERSION})
        self._unknown_stream = f"check `stream`: the rule has none called {options.stream}"
        self._advice = ADVICE | {
            401: "check that `authority` and `scope` belong to the cloud of `endpoint`",
            403: "give the app the role Monitoring Metrics Publisher on the data collection rule "
            "(it takes up to 30 minutes to be known), and use an endpoint that belongs to the rule",
            404: f"check `rule`: no data collection rule {options.rule} is known at `endpoint`",
            405: "check `endpoint`: it has no path of its own",
        }

    async def exchange(self, client: Client, messages: Sequence[bytes]) -> Settlement:
        """See `ExchangeSink`; a call is confirmed or refused as a whole."""
        answer = await client.post(self._url, json_array(messages), "application/json")
        code, message = _error(answer)
        reason = ": ".join(filter(None, (code, message))) or answer.text
        if answer.status == 400 and code == "InvalidStream":
            # The fault is in the options, though the status is that of a bad record.
            raise SinkHolds(f"HTTP 400 {reason}", advice=self._unknown_stream)
        answer.raise_for_status(self._advice, message=reason)
        if answer.status != _TAKEN:
            # A log-in page or a proxy's answer must not confirm records.
            raise SinkHolds(
                f"HTTP {answer.status}, but no answer of the Logs Ingestion API: {reason}",
                advice="check `endpoint`, and whether a proxy or a log-in page is in the way",
            )
        return ()


def _error(answer: Answer) -> tuple[str, str]:
    """The code and message of Azure's error object; empty texts where there is none."""
    try:
        error = json.loads(answer.body)["error"]
        return str(error.get("code") or ""), str(error.get("message") or "")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return "", ""


SENTINEL: Final = ProtocolKind(
    SentinelOptions, SentinelSink, "json",
    "Microsoft Sentinel's Logs Ingestion API, confirmed by the answer",
    limits=lambda options: options.batch.limits(options.in_flight, BRACKETS_BYTES),
    wrap=sentinel_records,
    max_message_bytes=lambda options: MAX_RECORD_BYTES,
)  # fmt: skip

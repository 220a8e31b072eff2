"""Options of a Splunk sink, and what follows from them: URLs, envelope, limits of a batch."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from siemrelay.core.options import formerly
from siemrelay.formats.field_map import fields_of_events
from siemrelay.net.url import Url, url_below
from siemrelay.sinks.contract import BatchLimits, Remark
from siemrelay.sinks.http.options import RequestOptions
from siemrelay.sinks.http.sink import BatchOptions

# Indexers acknowledge after seconds: with so many batches in flight a busy feed keeps up.
_UNACKNOWLEDGED_BATCHES: Final = 32

_COLLECTOR: Final = "/services/collector"
_ENDPOINT: Final = re.compile(r"/(event|raw)(?:/1\.0)?/?$")


# Metadata of every event in Splunk; those that a sink may set have an option of their own.
_METADATA: Final = frozenset(
    {"time", "host", "source", "sourcetype", "index", "event", "linecount"}
)


def _indexed(chosen: dict[str, str | None]) -> dict[str, str | None]:
    for name, field in chosen.items():
        if not name or name.startswith("_") or name in _METADATA:
            raise ValueError(f"{name!r} is reserved by Splunk; choose another name for the field")
        if field is None:
            raise ValueError(f"{name}: name the event field that it takes, like actor.name")
    return fields_of_events(chosen)


IndexedFields = Annotated[dict[str, str | None], AfterValidator(_indexed)]
"""Names of indexed fields, each with the event field that it takes."""


class SplunkHecOptions(RequestOptions):
    """Options of `protocol: splunk-hec`."""

    url: Url = Field(
        description="the collector, like https://splunk.example.com:8088; without a path the "
        "usual one is used"
    )
    endpoint: Literal["event", "raw"] = Field(
        "event",
        description="`event`: each event with its own time, host, source, sourcetype and index; "
        "`raw`: lines that Splunk reads as its `sourcetype` says",
    )
    index: str | None = Field(None, min_length=1, description="the index; the token's by default")
    source: str | None = Field(
        None,
        min_length=1,
        description="Splunk's `source`; by default the name of the relay's source, or on the raw "
        "endpoint what the token says",
    )
    sourcetype: str | None = Field(
        None, min_length=1, description="Splunk's `sourcetype`; the token's by default"
    )
    host: str | None = Field(
        None, min_length=1, description="Splunk's `host`; this machine's name by default"
    )
    fields: IndexedFields = Field(
        default={},
        description="indexed fields beside each event, on the event endpoint: a name and the event "
        "field it takes (`user: actor.name`)",
    )
    indexer_acknowledgement: bool = Field(
        False,
        description="whether the indexers must acknowledge; the token must have it on in Splunk",
        json_schema_extra=formerly("acknowledge"),
    )
    compression: Literal["none", "gzip"] = Field("gzip", description="of request bodies")
    batch: BatchOptions = Field(default_factory=BatchOptions, description="how requests are filled")

    @model_validator(mode="after")
    def _endpoint_is_that_of_the_url(self) -> SplunkHecOptions:
        found = _ENDPOINT.search(urlsplit(self.url).path)
        if found and found[1] != self.endpoint:
            raise ValueError(f"`url` ends in /{found[1]}, but `endpoint` is {self.endpoint}")
        return self

    @field_validator("fields")
    @classmethod
    def _lines_have_no_fields(
        cls, value: dict[str, str | None], info: ValidationInfo
    ) -> dict[str, str | None]:
        if value and info.data.get("endpoint") == "raw":
            raise ValueError("needs `endpoint: event`: raw lines have no fields beside them")
        return value

    def limits(self) -> BatchLimits:
        """The limits of a batch, and how many may wait for their acknowledgement."""
        batch = self.batch
        in_flight = _UNACKNOWLEDGED_BATCHES if self.indexer_acknowledgement else None
        return BatchLimits(batch.max_events, batch.max_bytes, batch.max_wait, in_flight)

    @property
    def metadata_host(self) -> str:
        """Splunk's `host`."""
        return self.host or socket.gethostname()


CREDENTIAL: Final = 'Splunk takes no events without a token: set `authorization: "Splunk TOKEN"`'
"""Advice for a sink without a credential."""

_PREFIX: Final = "splunk "


def token_remarks(options: SplunkHecOptions) -> Iterator[Remark]:
    """A token without its scheme in front, or with it where none belongs."""
    token = (options.authorization or "").strip()
    if options.authorization_header.lower() == "authorization":
        if token and " " not in token:
            yield "authorization", 'Splunk takes no bare token: write `"Splunk TOKEN"`'
        elif token.lower().removeprefix(_PREFIX).lstrip().startswith(_PREFIX):
            yield "authorization", "`Splunk` stands there twice: the secret has it in front, too"
    if options.basic is not None and options.basic.password.lower().startswith(_PREFIX):
        yield "basic", "the password is the token alone, without `Splunk` in front"


def event_url(options: SplunkHecOptions) -> str:
    """The URL for events."""
    path = "" if urlsplit(options.url).path.strip("/") else f"{_COLLECTOR}/{options.endpoint}"
    if options.endpoint == "event":
        return url_below(options.url, path)
    # Raw lines have no envelope: metadata of all of them is in the URL.
    metadata = {
        "host": options.metadata_host, "source": options.source,
        "sourcetype": options.sourcetype, "index": options.index,
    }  # fmt: skip
    return url_below(
        options.url, path, **{name: value for name, value in metadata.items() if value}
    )


def acknowledgement_url(options: SplunkHecOptions, channel: str) -> str:
    """The URL for questions about acknowledgements, next to the endpoint's."""
    parts = urlsplit(options.url)
    base = _ENDPOINT.sub("", parts.path).rstrip("/") or _COLLECTOR
    return url_below(parts._replace(path=base).geturl(), "/ack", channel=channel)

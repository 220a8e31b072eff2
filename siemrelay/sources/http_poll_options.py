"""What a polled HTTP API needs to be told."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from siemrelay.core.options import Duration, HeaderName, HeaderValue, Options, with_good_port
from siemrelay.net.pem import AuthorityFile


def _address(value: str) -> str:
    parts = with_good_port(urlsplit(value))
    if parts.scheme not in ("http", "https") or not parts.hostname or " " in parts.netloc:
        raise ValueError("write a whole address, like https://api.example.com/v1/audit")
    if parts.username or parts.password:
        raise ValueError("no user:password@ in the address; use `authorization`")
    return value


class CursorOptions(Options):
    """Paging and going on by a cursor that each answer names."""

    parameter: str = Field(min_length=1, description="the query parameter that takes the cursor")
    source: str = Field(
        min_length=1, alias="from", description="dotted path of the next cursor in the answer"
    )


class SinceOptions(Options):
    """Going on by the time of the newest item."""

    parameter: str = Field(min_length=1, description="the query parameter that takes the time")
    field: str = Field(min_length=1, description="dotted path of the time in an item")
    format: Literal["rfc3339", "epoch", "epoch_ms"] = Field(
        "rfc3339", description="how the parameter is written"
    )


class HttpPollOptions(Options):
    """Settings of `type: http_poll`."""

    url: Annotated[str, AfterValidator(_address)] = Field(description="what is asked, by GET")
    every: Duration = Field(30.0, gt=0, description="the pause between two polls")
    authorization: HeaderValue | None = Field(
        None, description="the Authorization header, word for word"
    )
    headers: dict[HeaderName, HeaderValue] = Field(
        default_factory=dict, description="further request headers; their values are not shown"
    )
    ca: AuthorityFile | None = Field(
        None, description="authorities to trust (PEM), instead of the system's"
    )
    timeout: Duration = Field(30.0, gt=0, description="for one request, answer included")
    items: str | None = Field(
        None, min_length=1, description="dotted path of the array of items in an answer; found by "
        "itself where it has a usual name",
    )  # fmt: skip
    next: str | None = Field(
        None, min_length=1, description="dotted path of the next page's address in an answer; a "
        "`Link` header with rel=next is followed by itself",
    )  # fmt: skip
    cursor: CursorOptions | None = Field(None, description="going on by the API's own cursor")
    since: SinceOptions | None = Field(None, description="going on by the newest item's time")
    start_at: Literal["beginning", "now"] = Field(
        "beginning", description="with `since`: what the very first poll asks for"
    )

    @model_validator(mode="after")
    def _one_way(self) -> HttpPollOptions:
        if self.cursor is not None and self.since is not None:
            raise ValueError("give one of `cursor` and `since`, not both")
        return self

"""Options of the HTTP poll source: the request, its pages, and where the next poll goes on."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from siemrelay.core.options import (
    Duration,
    HeaderName,
    Headers,
    HeaderValue,
    NonEmpty,
    Options,
    Timeout,
    formerly,
    seconds,
)
from siemrelay.net.oauth import OauthOptions
from siemrelay.net.tls_client import TlsOptions
from siemrelay.net.url import Url
from siemrelay.wire.request_templates import placeholders

# Of each value a position is kept, and each is a request at least every `every`.
_MOST_VALUES = 1000


TimeFormat = Literal["rfc3339", "rfc3339_s", "epoch", "epoch_ms"]


class TokenOptions(Options):
    """A value that each answer names and the next request repeats."""

    parameter: str = Field(
        min_length=1,
        description="the query parameter for the token (with `post`: the dotted path in the body)",
    )
    source: str = Field(
        min_length=1, alias="from", description="dotted path of the token in the answer"
    )


class CursorOptions(TokenOptions):
    """A cursor of the API's own, and how to ask while there is none yet."""

    first: dict[NonEmpty, Any] = Field(
        default={},
        description="further query parameters (with `post`: members of the body) of requests that "
        "have no cursor yet; `{start}` in them is the time of `start_at`",
    )
    format: TimeFormat = Field("rfc3339", description="how `{start}` is written")


class SinceOptions(Options):
    """Polling from the time of the newest item on."""

    parameter: str | None = Field(
        None, min_length=1, description="the query parameter that takes the time (with `post`: the "
        "dotted path in the body); not needed where `{since}` stands in `parameters` or `post`",
    )  # fmt: skip
    field: str = Field(min_length=1, description="dotted path of the time in an item")
    format: TimeFormat = Field(
        "rfc3339", description="how times are written; `rfc3339_s`: without fractions of a second"
    )


class PollWindowOptions(Options):
    """How much of the past is asked for again, because items come late."""

    overlap: Duration = Field(
        0.0, ge=0,
        description="each poll starts this long before the newest item, so that items which "
        "become visible late are not missed",
    )  # fmt: skip
    lag: Duration = Field(
        0.0, ge=0, description="`{until}` is this long before the present: later items are left "
        "to a later poll",
    )  # fmt: skip
    size: Duration | None = Field(
        None, gt=0,
        description="the longest time between `{since}` and `{until}`, for APIs that limit it; a "
        "longer past is read part by part",
    )  # fmt: skip

    reach: Duration | None = Field(
        None, gt=0,
        description="how far back the API answers: `{since}` never lies before that. After a "
        "longer stop, earlier items are lost, with a warning",
    )  # fmt: skip

    @model_validator(mode="after")
    def _goes_on(self) -> PollWindowOptions:
        if self.size is not None and self.size <= self.overlap:
            raise ValueError("`size` must be longer than `overlap`")
        return self


def _start(value: Any) -> Any:
    return value if value in ("beginning", "now") else seconds(value)


StartAt = Annotated[
    Literal["beginning", "now"] | float,
    BeforeValidator(_start, json_schema_input_type=Literal["beginning", "now"] | Duration),
]


def _written(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


_Text = Annotated[str, BeforeValidator(_written, json_schema_input_type=str | int)]


def _each(values: list[str]) -> list[str]:
    if len(set(values)) < len(values):
        raise ValueError("a value is given twice")
    return values


class HttpPollOptions(Options):
    """Options of `type: http_poll`."""

    url: Url = Field(
        description="the address that is requested; `{each}` in it stands for a value of `for_each`"
    )
    parameters: dict[NonEmpty, _Text] = Field(
        default={},
        description="query parameters; `{since}`, `{until}` (RFC 3339 or as `since: {format}` "
        'says) and `{each}` are filled in (`phrase: "created:>={since}"`), and one whose time is '
        "not known yet is left out",
    )
    post: dict[str, Any] | None = Field(
        None,
        description="the JSON object to send by POST (without it: GET); its texts are filled in "
        "like `parameters`",
    )
    for_each: Annotated[
        list[NonEmpty], AfterValidator(_each), Field(max_length=_MOST_VALUES)
    ] = Field(
        default=[],
        description="poll once for each of these values of `{each}`, every one with a position of "
        "its own",
    )  # fmt: skip
    every: Duration = Field(30.0, gt=0, description="the pause between two polls")
    authorization: HeaderValue | None = Field(
        None, description="the Authorization header, word for word"
    )
    oauth: OauthOptions | None = Field(
        None, description="OAuth client credentials, instead of `authorization`"
    )
    headers: Headers[HeaderName] = Field(
        default={},
        description="further request headers; values that may be credentials are not shown",
    )
    tls: TlsOptions = Field(
        default_factory=TlsOptions,
        description="verification, certificates",
        json_schema_extra=formerly("ca"),
    )
    timeout: Timeout = Field(30.0, description="for one request, answer included; 5m at most")
    may_lack_items: bool = Field(
        False, description="an answer without `items` is an empty page (Google leaves them out)"
    )
    next: str | None = Field(
        None, min_length=1, description="dotted path of the next page's address in an answer; a "
        "`Link` header with rel=next is followed without it. Only an address of the same scheme, "
        "host and port is followed",
    )  # fmt: skip
    next_header: HeaderName | None = Field(
        None, description="a header with the next page's address, where it is not `Link` "
        "(Microsoft 365's `NextPageUri`)",
    )  # fmt: skip
    follow: str | None = Field(
        None, min_length=1,
        description="dotted path of an address in each item: what is stored are the items of the "
        "answer there (Microsoft 365's `contentUri`). Only an address of the same scheme, host and "
        "port is followed",
    )  # fmt: skip
    keep_next: bool = Field(
        False,
        description="the last page names a next one, too, on which later items will be: the next "
        "poll begins there (Okta)",
    )
    page: TokenOptions | None = Field(
        None, description="the next page is asked for by a token (Google's `nextPageToken`)"
    )
    cursor: CursorOptions | None = Field(
        None, description="continue by the API's own cursor, which stays valid for later polls"
    )
    since: SinceOptions | None = Field(None, description="continue from the newest item's time")
    window: PollWindowOptions = Field(
        default_factory=PollWindowOptions, description="with `since`: how late items may come"
    )
    dedupe: str | None = Field(
        None, min_length=1,
        description="dotted path of an item's id: an item whose id has come before is not stored "
        "again. Without it an item counts as the same if all of it is",
    )  # fmt: skip
    start_at: StartAt = Field(
        "beginning",
        description="with `since`, or `{start}`: where the very first poll begins: `beginning` "
        "(without a time), `now`, or a time ago (`30d`)",
    )

    @model_validator(mode="after")
    def _one_way(self) -> HttpPollOptions:
        if self.cursor is not None and self.since is not None:
            raise ValueError("give one of `cursor` and `since`, not both")
        links = (self.next, self.next_header)
        if sum(map(bool, (self.page, self.cursor, any(links) or self.keep_next))) > 1 or all(links):
            raise ValueError("give one of `page`, `cursor`, `next` and `next_header`")
        if self.authorization is not None and self.oauth is not None:
            raise ValueError("give one of `authorization` and `oauth`, not both")
        names = [name.lower() for name in self.headers]
        names += ["authorization"] if self.authorization or self.oauth else []
        if len(set(names)) < len(names):
            raise ValueError("a header is given twice; only one can be sent")
        return self

    @model_validator(mode="after")
    def _filled_in(self) -> HttpPollOptions:
        used = placeholders([self.parameters, self.post])
        first = placeholders(self.cursor.first if self.cursor is not None else None)
        if "start" in used or first - {"start"}:
            raise ValueError("`{start}` belongs into `cursor: {first}`, and nothing else does")
        if placeholders(self.url) - {"each"}:
            raise ValueError("times belong in `parameters` or `post`; `url` takes `{each}` only")
        if bool(self.for_each) != ("each" in used | placeholders(self.url)):
            raise ValueError("`for_each` and `{each}` need each other")
        if self.since is None:
            if used & {"since", "until"}:
                raise ValueError("`{since}` and `{until}` need `since`")
            if self.window != PollWindowOptions():
                raise ValueError("`window` needs `since`")
            if isinstance(self.start_at, float) and not first:
                raise ValueError("a time in `start_at` needs `since`, or `{start}`")
        elif self.since.parameter is None and "since" not in used:
            raise ValueError("`since` needs a `parameter`, or `{since}` in `parameters` or `post`")
        if self.window.size is not None and self.start_at == "beginning":
            raise ValueError("`window: {size}` needs a time in `start_at`, like 30d, or `now`")
        return self

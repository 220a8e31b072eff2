"""The options that HTTP sinks have in common."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from siemrelay.core.options import HeaderName, Headers, HeaderValue, Options, Secret, Timeout
from siemrelay.net.oauth import OauthOptions
from siemrelay.net.tls_client import TlsOptions

_OWN_HEADERS: Final = {
    **dict.fromkeys(
        ("content-length", "transfer-encoding", "connection", "accept-encoding"),
        "the relay sets this header itself; leave it out",
    ),
    "content-encoding": "the relay sets this header itself; set `compression: gzip`",
}


def _not_own(name: str) -> str:
    if refused := _OWN_HEADERS.get(name.lower()):
        raise ValueError(refused)
    return name


_OwnHeader = Annotated[HeaderName, AfterValidator(_not_own)]


class BasicOptions(Options):
    """A user and password (RFC 7617)."""

    username: str = Field(min_length=1, description="the user")
    password: Secret = Field(description="the password")


class TransportOptions(Options):
    """Options about the transport of requests."""

    compression: Literal["none", "gzip"] = Field("none", description="of request bodies")
    in_flight: int = Field(
        1,
        ge=1,
        le=64,
        description="requests in flight at a time; more than one is faster over a long distance, "
        "but requests may overtake each other",
    )
    timeout: Timeout = Field(30.0, description="for one request, answer included; 5m at most")
    tls: TlsOptions = Field(default_factory=TlsOptions, description="verification, certificates")


class RequestOptions(TransportOptions):
    """Options of every HTTP sink about its requests."""

    authorization: HeaderValue | None = Field(
        None, description="the value of the Authorization header (`Bearer …`, `Splunk …`)"
    )
    authorization_header: HeaderName = Field(
        "Authorization",
        description="the header for `authorization`, where a receiver wants another one",
    )
    basic: BasicOptions | None = Field(
        None, description="user and password, instead of `authorization`"
    )
    oauth: OauthOptions | None = Field(
        None, description="OAuth client credentials, instead of `authorization`"
    )
    headers: Headers[_OwnHeader] = Field(
        default={},
        description="further request headers; values that may be credentials are not shown. A "
        "`Content-Type` here replaces the one that the protocol sets",
    )

    @model_validator(mode="after")
    def _no_header_twice(self) -> RequestOptions:
        names = [name.lower() for name in self.headers]
        if self.authorization is not None:
            names.append(self.authorization_header.lower())
        elif self.basic is not None or self.oauth is not None:
            names.append("authorization")
        if twice := [name for name in self.headers if names.count(name.lower()) > 1]:
            raise ValueError(f"the header {twice[-1]} is given twice; only one can be sent")
        return self

    @model_validator(mode="after")
    def _one_credential(self) -> RequestOptions:
        given = [n for n in ("authorization", "basic", "oauth") if getattr(self, n) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of {' and '.join(f'`{name}`' for name in given)}, not both")
        return self

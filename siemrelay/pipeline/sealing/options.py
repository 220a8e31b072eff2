"""The options of a sink's seals."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field

from siemrelay.core.options import UNREAD_CREDENTIAL, Duration, HeaderValue, Options, Secret
from siemrelay.net.tls_client import TlsOptions
from siemrelay.net.url import Url
from siemrelay.proof.note import Signer

_HOUR_S: Final = 3600.0


class TimestampOptions(Options):
    """Time stamps of seals by an authority (RFC 3161)."""

    url: Url = Field(description="the authority's address")
    every: Annotated[Duration, Field(ge=1)] = Field(
        _HOUR_S, description="how often a seal is stamped; each stamp vouches for all before it"
    )
    authorization: HeaderValue | None = Field(
        None, description="the value of the Authorization header, for an authority that wants one"
    )
    timeout: Duration = Field(30.0, gt=0, description="for one request, answer included")
    tls: TlsOptions = Field(default_factory=TlsOptions, description="verification, certificates")


def _with_url(value: Any) -> Any:
    """Expand the short form, a URL."""
    return {"url": value} if isinstance(value, str) else value


def _signing_key(value: Secret) -> Secret:
    if value != UNREAD_CREDENTIAL:
        Signer.read(value)
    return value


class SealOptions(Options):
    """Seals, by which an auditor verifies at the receiver that nothing is missing or changed."""

    every: Annotated[Duration, Field(ge=1)] = Field(
        60.0, description="how often a seal is sent: the longest time that is not sealed yet"
    )
    keep: Duration = Field(
        90 * 86400.0,
        description="how long the relay keeps the hash of each message (32 bytes), by which a "
        "changed one is named; seals stay for ever",
    )
    key: Annotated[Secret, AfterValidator(_signing_key)] | None = Field(
        None,
        description="the signing key, as in the file `seal.key`; by default that file in "
        "`state_dir`, which is made at the first start",
    )
    timestamp: Annotated[
        TimestampOptions | None,
        BeforeValidator(_with_url, json_schema_input_type=str | TimestampOptions | None),
    ] = Field(
        None,
        description="a time-stamping authority (RFC 3161) that vouches when seals existed: its "
        "URL, or a mapping; needs `pip install siemrelay[timestamps]`",
    )


def _expanded(value: Any) -> Any:
    """Expand the short forms `yes` and `no`."""
    if isinstance(value, bool):
        return {} if value else None
    if isinstance(value, (str, int, float, list)):
        raise ValueError("write `yes`, `no`, or a mapping like `{every: 60s}`")
    return value


SealChoice = Annotated[
    SealOptions | None,
    BeforeValidator(_expanded, json_schema_input_type=bool | SealOptions | None),
    Field(
        description="number every message and send signed seals, for `siemrelay verify`: `yes`, or "
        "a mapping"
    ),
]
"""The forms of `seal`: yes, no or a block."""

"""Whether a sender is who it must be: the `Authorization` field word for word, a signed body.

Secrets are compared in constant time, and never part of what is said or logged.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from siemrelay.core.options import Options, Secret

# What stands for a part of the signed text: a part of the signature field, or a field.
_PLACE: Final = re.compile(r"\{([A-Za-z0-9!#$%&'*+.^_`|~-]+)\}")

_BODY: Final = "body"


def _signed(value: str) -> str:
    if _PLACE.findall(value).count(_BODY) != 1:
        raise ValueError("`{body}` must be in it once, like v0:{X-Slack-Request-Timestamp}:{body}")
    return value


class SignatureOptions(Options):
    """The HMAC that a sender puts over each body, as it is sent (compressed, if it is)."""

    header: str = Field(
        "X-Signature",
        pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$",
        description="the field of the request that holds it; of several in it, with commas "
        "between (or spaces, if `prefix` has a comma), one must be right",
    )
    algorithm: Literal["sha256", "sha1", "sha512"] = Field("sha256", description="its hash")
    encoding: Literal["hex", "base64"] = Field("hex", description="how it is written")
    prefix: str = Field("", description="what stands before it in the field, like `sha256=`")
    signed: Annotated[str, AfterValidator(_signed)] = Field(
        "{body}",
        description="the text that is signed: `{body}`, and `{NAME}` for a field of the request or "
        "for what follows `NAME=` in the signature's own (Slack: "
        "`v0:{X-Slack-Request-Timestamp}:{body}`, Stripe: `{t}.{body}`)",
    )
    secret: Secret = Field(description="the key that sender and relay share")


class Authorization:
    """Compares the `Authorization` of requests with those that are allowed."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = [_plain(one) for one in allowed]

    def __bool__(self) -> bool:
        return bool(self._allowed)

    def allows(self, given: str) -> bool:
        """Whether it is one of them. The time taken does not tell how much of it is right."""
        said = _plain(given)
        # All are looked at, so that it does not tell which of them it was, either.
        return sum(hmac.compare_digest(said, one) for one in self._allowed) > 0


def basic(authorization: str) -> str:
    """`Basic USER:PASSWORD` as it is sent, in base64; everything else unchanged."""
    scheme, _, credentials = authorization.partition(" ")
    if scheme.casefold() != "basic" or ":" not in credentials:
        return authorization
    return f"Basic {base64.b64encode(credentials.strip().encode()).decode()}"


def basic_password(authorization: str) -> str | None:
    """The password of a `Basic` authorization; None if it is no such."""
    scheme, _, credentials = authorization.partition(" ")
    if scheme.casefold() != "basic":
        return None
    try:
        both = base64.b64decode(credentials.strip(), validate=True).decode("utf-8", "replace")
    except binascii.Error:
        return None
    return both.partition(":")[2]


def _plain(authorization: str) -> bytes:
    # The scheme's case means nothing (RFC 9110, 11.1); what follows it does.
    scheme, _, credentials = authorization.strip().partition(" ")
    return f"{scheme.casefold()} {credentials.strip()}".encode("utf-8", "surrogateescape")


class Signature:
    """Checks the signatures of bodies."""

    def __init__(self, options: SignatureOptions) -> None:
        self._field = options.header.lower()
        self._key, self._prefix = options.secret.encode(), options.prefix
        self._algorithm, self._hex = options.algorithm, options.encoding == "hex"
        self._between = None if "," in options.prefix else ","
        # Text and names by turns.
        self._signed = _PLACE.split(options.signed)

    def is_right(self, fields: Mapping[str, str], body: bytes) -> bool:
        """Whether the request's signature is that of the body with the shared key."""
        parts = [part.strip() for part in fields.get(self._field, "").split(self._between)]
        given = [part[len(self._prefix) :] for part in parts if part.startswith(self._prefix)]
        text = b"".join(self._text(fields, parts, body))
        mac = hmac.digest(self._key, text, self._algorithm)
        written = mac.hex().encode() if self._hex else base64.b64encode(mac)
        said = [(each.lower() if self._hex else each).encode() for each in given]
        return sum(hmac.compare_digest(each, written) for each in said) > 0

    def _text(self, fields: Mapping[str, str], parts: list[str], body: bytes) -> Iterator[bytes]:
        own = dict(part.partition("=")[::2] for part in parts)
        for i, piece in enumerate(self._signed):
            if i % 2 == 0:
                yield piece.encode()
            elif piece == _BODY:
                yield body
            else:
                yield (own.get(piece) or fields.get(piece.lower(), "")).encode("latin-1", "replace")

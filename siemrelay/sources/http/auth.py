"""Authenticates senders: by the `Authorization` field word for word, or by a signed body.

Secrets are compared in constant time, and are never part of an answer or a log line.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from siemrelay.core.options import Duration, Options, Secret

# `{NAME}` in `signed`: a part of the signature field, or a field of the request.
_PLACE: Final = re.compile(r"\{([A-Za-z0-9!#$%&'*+.^_`|~-]+)\}")

_BODY: Final = "body"

# Seconds since the epoch, or milliseconds from here on (in seconds it is the year 5138).
_TIMESTAMP: Final = re.compile(r"[0-9]{1,15}")
_MILLISECONDS_FROM: Final = 100_000_000_000


def _signed(value: str) -> str:
    pieces = _PLACE.split(value)
    texts, names = pieces[::2], pieces[1::2]
    if names.count(_BODY) != 1:
        raise ValueError("`{body}` must be in it once, like v0:{X-Slack-Request-Timestamp}:{body}")
    at = names.index(_BODY)
    beside = {before: (before, before + 1) for before in range(at)}
    beside |= {after: (after - 1, after) for after in range(at + 1, len(names))}
    for place, (left, right) in beside.items():
        touches_body = at in (left, right)
        if not texts[right] and not (touches_body and _is_time(names[place])):
            raise ValueError(
                f"some text must separate `{{{names[left]}}}` and `{{{names[right]}}}`, or a part "
                "of the one could be taken for a part of the other"
            )
    return value


def _is_time(name: str) -> bool:
    return "time" in name.casefold() or name.casefold() in ("t", "ts")


class SignatureOptions(Options):
    """The HMAC that a sender puts over each body, as it is sent (compressed, if it is)."""

    header: str = Field(
        "X-Signature",
        pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$",
        description="the header with the signature; of several in it, with commas "
        "between (or spaces, if `prefix` has a comma), one must be right",
    )
    algorithm: Literal["sha256", "sha1", "sha512"] = Field("sha256", description="the hash")
    encoding: Literal["hex", "base64"] = Field("hex", description="how the signature is written")
    prefix: str = Field(
        "", description="the text before the signature in the header, like `sha256=`"
    )
    signed: Annotated[str, AfterValidator(_signed)] = Field(
        "{body}",
        description="the text that is signed: `{body}`, and `{NAME}` for a header of the request "
        "or for what follows `NAME=` in the signature's own (Slack: "
        "`v0:{X-Slack-Request-Timestamp}:{body}`, Stripe: `{t}.{body}`)",
    )
    timestamp: str | None = Field(
        None,
        description="the `{NAME}` in `signed` that holds the time, in seconds or milliseconds "
        "since 1970; by default the one with `time` in its name, `t` or `ts`",
    )
    tolerance: Annotated[Duration, Field(gt=0)] | None = Field(
        300.0,
        description="how far the signed time may be from this machine's; a request that is sent "
        "again within it is stored once. `null`: however far. Without a time in `signed` it has no "
        "effect: a request that somebody recorded can be sent again at any time",
    )
    secret: Secret = Field(description="the key that sender and relay share")

    @model_validator(mode="after")
    def _timestamp_is_signed(self) -> SignatureOptions:
        if self.timestamp is not None and self.timestamp not in _PLACE.findall(self.signed):
            raise ValueError("`timestamp` names no `{NAME}` of `signed`")
        return self

    @property
    def time_place(self) -> str | None:
        """The place in `signed` that holds the time; None if the scheme has none."""
        names = [name for name in _PLACE.findall(self.signed) if name != _BODY]
        return self.timestamp or next((name for name in names if _is_time(name)), None)


class Authorization:
    """Compares the `Authorization` of requests with those that are allowed."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = [_plain(one) for one in allowed]

    def __bool__(self) -> bool:
        return bool(self._allowed)

    def find(self, given: str) -> int | None:
        """The index of the one that matches. The time it takes does not depend on the match."""
        shown = _plain(given)
        # All are compared, so that the time does not depend on which one matches, either.
        found = [hmac.compare_digest(shown, one) for one in self._allowed]
        return found.index(True) if any(found) else None


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
    except ValueError:  # no base64, or no ASCII
        return None
    return both.partition(":")[2]


def challenge(authorization: str | None) -> str:
    """The scheme that a refusal asks for (RFC 9110, 11.6.1).

    What stands before the first space may be a part of a secret without a scheme, so only these two
    are ever shown.
    """
    return "Basic" if (authorization or "").casefold().startswith("basic ") else "Bearer"


def _plain(authorization: str) -> bytes:
    # The scheme is case-insensitive (RFC 9110, 11.1), the credentials are not, with or without one.
    scheme, space, credentials = authorization.strip().partition(" ")
    plain = f"{scheme.casefold()} {credentials.strip()}" if space else scheme
    return plain.encode("utf-8", "surrogateescape")


class Signature:
    """Checks the signatures of bodies.

    The signed text can be split in one way only: no value may hold the character that separates it
    from its neighbour, and the time is digits. Otherwise a signature of the time `1` and the body
    `2:3` under `{ts}:{body}` would also be one of the time `1:2` and the body `3`.
    """

    def __init__(self, options: SignatureOptions) -> None:
        self._field = options.header.lower()
        self._key, self._prefix = options.secret.encode(), options.prefix
        self._algorithm, self._hex = options.algorithm, options.encoding == "hex"
        self._between = None if "," in options.prefix else ","
        self._time, self._tolerance_s = options.time_place, options.tolerance
        pieces = _PLACE.split(options.signed)
        self._texts, self._names = pieces[::2], pieces[1::2]
        self._at_body = self._names.index(_BODY)

    @property
    def has_time(self) -> bool:
        """Whether a request has a time that is signed, and must be fresh."""
        return self._time is not None and self._tolerance_s is not None

    def fault(self, fields: Mapping[str, str], now: float) -> str | None:
        """The fault of a head that no body can make right, in a sentence; None if there is none."""
        parts = self._parts(fields)
        if not self._given(parts):
            return f"the signature in {self._field} is missing"
        if self._time is None or self._tolerance_s is None:
            return None
        given = self._value(self._time, fields, parts)
        if not _TIMESTAMP.fullmatch(given):
            return f"`{self._time}` must be the time in seconds since 1970"
        signed_at = int(given) / (1000 if int(given) >= _MILLISECONDS_FROM else 1)
        if abs(now - signed_at) > self._tolerance_s:
            return (
                f"signed {abs(now - signed_at):.0f} s {'ago' if signed_at < now else 'ahead'}; "
                f"{self._tolerance_s:g} s are allowed: sign again, or set the clocks"
            )
        return None

    def verified(self, fields: Mapping[str, str], body: bytes) -> bytes | None:
        """The MAC, if the request's signature is that of the body with the shared key."""
        parts = self._parts(fields)
        text = self._signed_text(fields, parts, body)
        mac = hmac.digest(self._key, text or b"", self._algorithm)
        written = mac.hex().encode() if self._hex else base64.b64encode(mac)
        shown = [(each.lower() if self._hex else each).encode() for each in self._given(parts)]
        right = sum(hmac.compare_digest(each, written) for each in shown) > 0
        return mac if right and text is not None else None

    def _parts(self, fields: Mapping[str, str]) -> list[str]:
        return [part.strip() for part in fields.get(self._field, "").split(self._between)]

    def _given(self, parts: list[str]) -> list[str]:
        given = [part[len(self._prefix) :] for part in parts if part.startswith(self._prefix)]
        return [each for each in given if each]

    def _value(self, name: str, fields: Mapping[str, str], parts: list[str]) -> str:
        own = dict(part.partition("=")[::2] for part in parts)
        return own.get(name) or fields.get(name.lower(), "")

    def _signed_text(
        self, fields: Mapping[str, str], parts: list[str], body: bytes
    ) -> bytes | None:
        """The text that must be signed; None if it could be read in two ways."""
        texts, at_body = self._texts, self._at_body
        signed = [texts[0].encode()]
        for place, name in enumerate(self._names):
            if name == _BODY:
                signed.append(body)
            else:
                value = self._value(name, fields, parts)
                # Values before the body are split off from the left, those behind from the right.
                neighbour = texts[place + 1][:1] if place < at_body else texts[place][-1:]
                if neighbour and neighbour in value:
                    return None
                if not neighbour and not _TIMESTAMP.fullmatch(value):
                    return None
                if not neighbour and (body[:1] if place < at_body else body[-1:]).isdigit():
                    return None
                signed.append(value.encode("latin-1", "replace"))
            signed.append(texts[place + 1].encode())
        return b"".join(signed)

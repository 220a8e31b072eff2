"""The exchanges by which senders of webhooks make sure that an address expects them. Pure.

A request that asks is answered and holds no events. Each handshake is its vendor's: Okta's one-time
verification, Slack's `url_verification`, Zoom's `endpoint.url_validation`, Event Grid's
`SubscriptionValidationEvent`, Microsoft Graph's `validationToken`, the validation request of
CloudEvents' HTTP webhooks 1.0 (section 4), Meta's verification request, the `sync` message of
Google's push notifications.

What a sender sends comes back to that sender alone, bounded, as plain text or JSON that no browser
takes for a page.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

import msgspec

# The longest of them, Microsoft Graph's, has a few hundred characters.
_MOST_CHARACTERS: Final = 2048

# Vendors send a handful of parameters; a longer query is none of theirs.
_MOST_PARAMETERS: Final = 32

# A validation is one small object; events may be large, and are not read twice for it.
_MOST_BYTES: Final = 16 * 1024

_NO_SNIFF: Final = ("X-Content-Type-Options", "nosniff")


class HandshakeReply(NamedTuple):
    """The answer to a request that asks."""

    status: int
    body: bytes
    content_type: str = "application/json"
    fields: tuple[tuple[str, str], ...] = (_NO_SNIFF,)


class HandshakeSecrets(NamedTuple):
    """The secrets of both sides: the key of signatures, and the token that Meta shows."""

    signing: str = ""
    verify_token: str = ""


Names = Mapping[str, str]

ByHead = Callable[[str, Names, Names, HandshakeSecrets], HandshakeReply | None]
"""Method, parameters of the query, header fields by lower-case names, secrets → the answer."""

ByBody = Callable[[Names, Any, HandshakeSecrets], HandshakeReply | None]
"""Header fields, the decoded body, secrets → the answer."""


class Handshake(NamedTuple):
    """How one vendor asks: with the head of a request, or with its body."""

    by_head: ByHead | None = None
    by_body: ByBody | None = None
    authorized: bool = True
    """Whether the vendor authorizes the request that asks by its head, as it does its events."""
    signed: bool = False
    """Whether the answer takes the key of signatures."""
    token: bool = False
    """Whether the vendor shows a token that both sides know."""

    def to_head(
        self, method: str, query: str, fields: Names, secrets: HandshakeSecrets
    ) -> HandshakeReply | None:
        """The answer to a request that asks without a body; None if it does not ask."""
        if self.by_head is None:
            return None
        try:
            found = parse_qsl(query, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS)
        except ValueError:
            return None
        return self.by_head(method, dict(reversed(found)), fields, secrets)

    def to_body(
        self, fields: Names, body: bytes, secrets: HandshakeSecrets
    ) -> HandshakeReply | None:
        """The answer to a request that asks with its body; None if it does not ask."""
        if self.by_body is None or len(body) > _MOST_BYTES:
            return None
        try:
            return self.by_body(fields, msgspec.json.decode(body), secrets)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None


def _echo(value: Any) -> str | None:
    """The value, if it may be sent back."""
    good = isinstance(value, str) and 0 < len(value) <= _MOST_CHARACTERS and value.isprintable()
    return value if good else None


def _text(value: str) -> HandshakeReply:
    return HandshakeReply(200, value.encode(), "text/plain; charset=utf-8")


def _json(**members: str) -> HandshakeReply:
    return HandshakeReply(200, msgspec.json.encode(members))


def _okta(
    method: str, query: Names, fields: Names, secrets: HandshakeSecrets
) -> HandshakeReply | None:
    challenge = _echo(fields.get("x-okta-verification-challenge"))
    return _json(verification=challenge) if method == "GET" and challenge else None


def _graph(
    method: str, query: Names, fields: Names, secrets: HandshakeSecrets
) -> HandshakeReply | None:
    token = _echo(query.get("validationToken"))
    return _text(token) if method == "POST" and token else None


def _google(
    method: str, query: Names, fields: Names, secrets: HandshakeSecrets
) -> HandshakeReply | None:
    # The first message of a channel says that it is there, and has no body.
    is_sync = fields.get("x-goog-resource-state", "").casefold() == "sync"
    return HandshakeReply(200, b"") if method == "POST" and is_sync else None


def _meta(
    method: str, query: Names, fields: Names, secrets: HandshakeSecrets
) -> HandshakeReply | None:
    challenge = _echo(query.get("hub.challenge"))
    if method != "GET" or query.get("hub.mode") != "subscribe" or challenge is None:
        return None
    shown = query.get("hub.verify_token", "").encode()
    if not hmac.compare_digest(shown, secrets.verify_token.encode()):
        return HandshakeReply(403, b'{"error":"hub.verify_token is wrong"}')
    return _text(challenge)


def _cloudevents(
    method: str, query: Names, fields: Names, secrets: HandshakeSecrets
) -> HandshakeReply | None:
    origin = _echo(fields.get("webhook-request-origin"))
    if method != "OPTIONS" or origin is None or not origin.isascii():
        return None
    # Any rate: what the relay cannot take at once is answered with 503, and sent again.
    allowed = (("WebHook-Allowed-Origin", origin), ("WebHook-Allowed-Rate", "*"))
    return HandshakeReply(200, b"{}", fields=(("Allow", "POST, OPTIONS"), *allowed, _NO_SNIFF))


def _slack(fields: Names, body: Any, secrets: HandshakeSecrets) -> HandshakeReply | None:
    if not isinstance(body, dict) or body.get("type") != "url_verification":
        return None
    challenge = _echo(body.get("challenge"))
    return _text(challenge) if challenge else None


def _zoom(fields: Names, body: Any, secrets: HandshakeSecrets) -> HandshakeReply | None:
    if not isinstance(body, dict) or body.get("event") != "endpoint.url_validation":
        return None
    payload = body.get("payload")
    token = _echo(payload.get("plainToken")) if isinstance(payload, dict) else None
    if token is None:
        return None
    mac = hmac.digest(secrets.signing.encode(), token.encode(), "sha256").hex()
    return _json(plainToken=token, encryptedToken=mac)


_VALIDATION: Final = "Microsoft.EventGrid.SubscriptionValidationEvent"


def _event_grid(fields: Names, body: Any, secrets: HandshakeSecrets) -> HandshakeReply | None:
    event = body[0] if isinstance(body, list) and len(body) == 1 else None
    if not isinstance(event, dict) or event.get("eventType") != _VALIDATION:
        return None
    data = event.get("data")
    code = _echo(data.get("validationCode")) if isinstance(data, dict) else None
    return _json(validationResponse=code) if code else None


HANDSHAKES: Final[Mapping[str, Handshake]] = {
    "okta": Handshake(_okta),
    "slack": Handshake(by_body=_slack),
    "zoom": Handshake(by_body=_zoom, signed=True),
    "event_grid": Handshake(_cloudevents, _event_grid, authorized=False),
    "graph": Handshake(_graph, authorized=False),
    "google": Handshake(_google),
    "cloudevents": Handshake(_cloudevents, authorized=False),
    "meta": Handshake(_meta, authorized=False, token=True),
}
"""The value of `handshake:` → the exchange."""

"""The exchanges that vendors document for their webhooks, and what is none of them."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from siemrelay.sources.http.options import WebhookOptions
from siemrelay.wire.handshakes import HANDSHAKES, HandshakeReply, HandshakeSecrets

SECRETS = HandshakeSecrets(signing="zoom-secret", verify_token="meatyhamhock")
NO_SNIFF = ("X-Content-Type-Options", "nosniff")

# handshake, method, query, header fields → status, content type, body
BY_HEAD = [
    # Okta, "Event hooks": one-time verification request
    ("okta", "GET", "", {"x-okta-verification-challenge": "Me_rShK8JHsTnbyYrWXCEoMGbM_zsZ6k0h"},
     200, "application/json", b'{"verification":"Me_rShK8JHsTnbyYrWXCEoMGbM_zsZ6k0h"}'),
    # Microsoft Graph, "Receive change notifications through webhooks": notificationUrl validation
    ("graph", "POST",
     "validationToken=Validation%3a+Testing+client+application+reachability+for+subscription", {},
     200, "text/plain; charset=utf-8",
     b"Validation: Testing client application reachability for subscription"),
    # Google, "Push notifications": sync message
    ("google", "POST", "", {"x-goog-resource-state": "sync", "x-goog-channel-id": "c1"},
     200, "application/json", b""),
    # Meta, "Webhooks: getting started": verification requests
    ("meta", "GET",
     "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=meatyhamhock", {},
     200, "text/plain; charset=utf-8", b"1158201444"),
    ("meta", "GET", "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=guessed", {},
     403, "application/json", b'{"error":"hub.verify_token is wrong"}'),
    # CloudEvents, "HTTP 1.1 Web Hooks for Event Delivery", 4; Event Grid with CloudEvents' schema
    ("cloudevents", "OPTIONS", "", {"webhook-request-origin": "eventemitter.example.com",
                                    "webhook-request-rate": "120"},
     200, "application/json", b"{}"),
    ("event_grid", "OPTIONS", "", {"webhook-request-origin": "eventgrid.azure.net"},
     200, "application/json", b"{}"),
]  # fmt: skip

# handshake, body → content type, body
BY_BODY = [
    # Slack, "url_verification event"
    ("slack", {"token": "Jhj5dZrVaK7ZwHHjRyZWjbDl", "type": "url_verification",
               "challenge": "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"},
     "text/plain; charset=utf-8", b"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"),
    # Zoom, "Validate your webhook endpoint"; the MAC is of `openssl dgst -sha256 -hmac zoom-secret`
    ("zoom", {"payload": {"plainToken": "qgg8vlvZRS6UYooatFL8Aw"}, "event_ts": 1654503849680,
              "event": "endpoint.url_validation"},
     "application/json",
     b'{"plainToken":"qgg8vlvZRS6UYooatFL8Aw","encryptedToken":"b17f0320a1322a509340a1a835b3d9edbc491f0b0790ed2d20d0604d39dfe922"}'),
    # Azure Event Grid, "Endpoint validation with Event Grid event schema"
    ("event_grid", [{"id": "2d1781af-3a4c-4d7c-bd0c-e34b19da4e66", "topic": "/subscriptions/x",
                     "subject": "", "eventTime": "2022-10-28T04:23:35.1981776Z",
                     "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
                     "metadataVersion": "1", "dataVersion": "1",
                     "data": {"validationCode": "512d38b6-c7b8-40c8-89fe-f46f9e9622b6"}}],
     "application/json", b'{"validationResponse":"512d38b6-c7b8-40c8-89fe-f46f9e9622b6"}'),
]  # fmt: skip


def to_head(kind: str, method: str, query: str, fields: dict[str, str]) -> HandshakeReply | None:
    return HANDSHAKES[kind].to_head(method, query, fields, SECRETS)


def to_body(kind: str, body: object) -> HandshakeReply | None:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HANDSHAKES[kind].to_body({}, text, SECRETS)


@pytest.mark.parametrize(
    ("kind", "method", "query", "fields", "status", "content_type", "body"), BY_HEAD
)
def test_a_request_that_asks_with_its_head_is_answered_as_its_vendor_documents(
    kind: str, method: str, query: str, fields: dict[str, str], status: int, content_type: str,
    body: bytes,
) -> None:  # fmt: skip
    reply = to_head(kind, method, query, fields)
    assert reply is not None
    assert (reply.status, reply.content_type, reply.body) == (status, content_type, body)
    assert NO_SNIFF in reply.fields


@pytest.mark.parametrize(("kind", "asked", "content_type", "body"), BY_BODY)
def test_a_request_that_asks_with_its_body_is_answered_as_its_vendor_documents(
    kind: str, asked: object, content_type: str, body: bytes
) -> None:
    reply = to_body(kind, asked)
    assert reply is not None
    assert (reply.status, reply.content_type, reply.body) == (200, content_type, body)
    assert NO_SNIFF in reply.fields


def test_an_origin_that_asks_may_send_at_any_rate() -> None:
    reply = to_head("cloudevents", "OPTIONS", "", {"webhook-request-origin": "e.example.com"})
    assert reply is not None
    assert {*reply.fields} >= {
        ("WebHook-Allowed-Origin", "e.example.com"), ("WebHook-Allowed-Rate", "*"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "method", "query", "fields"),
    [
        ("okta", "POST", "", {"x-okta-verification-challenge": "x"}),
        ("okta", "GET", "", {}),
        ("okta", "GET", "", {"x-okta-verification-challenge": "x" * 2049}),
        ("graph", "GET", "validationToken=x", {}),
        ("graph", "POST", "validationToken=", {}),
        ("graph", "POST", "validationToken=a%0d%0ab", {}),
        ("graph", "POST", "&".join(["a=b"] * 40) + "&validationToken=x", {}),
        ("meta", "GET", "hub.mode=unsubscribe&hub.challenge=x&hub.verify_token=meatyhamhock", {}),
        ("cloudevents", "OPTIONS", "", {"origin": "x"}),
        ("cloudevents", "OPTIONS", "", {"webhook-request-origin": "é"}),
        ("google", "POST", "", {"x-goog-resource-state": "login_success"}),
        ("slack", "GET", "challenge=x", {}),
    ],
)
def test_another_request_is_no_handshake(
    kind: str, method: str, query: str, fields: dict[str, str]
) -> None:
    assert to_head(kind, method, query, fields) is None


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("slack", {"type": "event_callback", "challenge": "x"}),
        ("slack", {"type": "url_verification", "challenge": ["x"]}),
        ("slack", {"type": "url_verification", "challenge": "<\n>"}),
        ("slack", b"{"),
        ("slack", b"[" * 5000),
        ("slack", {"type": "url_verification", "challenge": "x", "filler": "y" * 20_000}),
        ("zoom", {"event": "meeting.started", "payload": {"plainToken": "x"}}),
        ("zoom", {"event": "endpoint.url_validation", "payload": "x"}),
        ("event_grid", [{"eventType": "Other", "data": {"validationCode": "x"}}]),
        ("event_grid", []),
        ("okta", {"verification": "x"}),
    ],
)
def test_an_event_is_no_handshake(kind: str, body: object) -> None:
    assert to_body(kind, body) is None


def test_the_options_name_every_handshake() -> None:
    choices = WebhookOptions.model_fields["handshake"].annotation
    (named, _) = get_args(choices)
    assert {*get_args(named)} == {*HANDSHAKES}

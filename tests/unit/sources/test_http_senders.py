"""Senders of webhooks with ways of their own, against a real daemon."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from urllib.parse import urlencode

import pytest

from siemrelay.config.load import load_text
from siemrelay.core.errors import ConfigurationRefused
from tests.conftest import MakeDaemon
from tests.support.daemon import until
from tests.support.http_sender import Sender, port_of, said
from tests.support.listening import forwarded, relay_of

HTTP = {"type": "http", "listen": "http://127.0.0.1:0/events"}
SECRET = "hook-secret"


def test_each_sender_is_answered_and_read_in_its_own_way(make_daemon: MakeDaemon) -> None:
    sources = {
        "github": {**HTTP, "form_field": "payload", "event_type_header": "X-GitHub-Event",
                   "delivery_header": "X-GitHub-Delivery",
                   "signature": {"header": "X-Hub-Signature-256", "prefix": "sha256=",
                                 "secret": SECRET}},
        "okta": {**HTTP, "handshake": "okta", "items": "data.events",
                 "authorization": "Bearer hook-token-2"},
        "gitlab": {**HTTP, "authorization_header": "X-Gitlab-Token",
                   "authorization": "hook-token-1"},
        "bare": {**HTTP, "handshake": "okta", "authorization": "Hook-token-5"},
        "slack": {**HTTP, "handshake": "slack", "items": "items", "max_records": 2,
                  "delivery_field": "event_id"},
        "graph": {**HTTP, "handshake": "graph", "authorization": "Bearer hook-token-3"},
        "hec": {"type": "splunk-hec", "listen": "http://127.0.0.1:0", "tokens": ["hook-token-4"],
                "items": "Records"},
    }  # fmt: skip
    daemon = relay_of(make_daemon, sources, "out").start()

    with Sender(port_of(daemon, "github")) as sender:
        form = urlencode({"payload": '{"action":"added"}'}).encode()
        given = {"X_GitHub_Event": "member", "Content_Type": "application/x-www-form-urlencoded"}
        # The second `d1` is a redelivery; an id with another body is none.
        for body, delivery in ((form, ""), (b"{}", "d1"), (b"{}", "d1"), (b'{"n":9}', "d1")):
            mac = hmac.digest(SECRET.encode(), body, hashlib.sha256).hex()
            given["X_Hub_Signature_256"] = f"sha256={mac}"
            if delivery:
                given |= {"X_GitHub_Delivery": delivery, "Content_Type": ""}
            status, _, answer = sender.post(body, **given)
            assert (status, answer) == (200, b'{"stored":1}')

    with Sender(port_of(daemon, "okta")) as sender:
        asked = {"X_Okta_Verification_Challenge": "a challenge"}
        assert sender.post(b"", method="GET", **asked)[0] == 401
    with Sender(port_of(daemon, "okta")) as sender:
        status, fields, answer = sender.post(
            b"", method="GET", Authorization="Bearer hook-token-2", **asked
        )
        assert (status, said(answer)) == (200, {"verification": "a challenge"})
        assert fields["x-content-type-options"] == "nosniff"
    with Sender(port_of(daemon, "okta")) as sender:
        body = b'{"eventId":"x","data":{"events":[{"n": 1},{"n":2}]}}'
        assert sender.post(body, Authorization="Bearer hook-token-2")[2] == b'{"stored":2}'
        assert sender.post(b'{"ping":1}', Authorization="Bearer hook-token-2")[2] == b'{"stored":1}'

    for shown, expected in (("hook-token-5", 401), ("Bearer Hook-token-5", 401),
                            ("Hook-token-5", 200)):  # fmt: skip
        with Sender(port_of(daemon, "bare")) as sender:
            status, fields, answer = sender.post(b"", method="GET", Authorization=shown, **asked)
            assert status == expected
            assert "Hook" not in f"{fields} {answer!r}"

    with Sender(port_of(daemon, "gitlab")) as sender:
        status, fields, answer = sender.post(b"3", Authorization="hook-token-1")
        assert status == 401
        assert "x-gitlab-token" in said(answer)["error"]
        assert fields["www-authenticate"] == 'Bearer realm="siemrelay"'
    with Sender(port_of(daemon, "gitlab")) as sender:
        assert sender.post(b"3", X_Gitlab_Token="Hook-Token-1")[0] == 401
    with Sender(port_of(daemon, "gitlab")) as sender:
        assert sender.post(b"3", X_Gitlab_Token="hook-token-1")[0] == 200

    with Sender(port_of(daemon, "slack")) as sender:
        asking = json.dumps({"type": "url_verification", "challenge": "3eZb"}).encode()
        status, fields, answer = sender.post(asking)
        assert (status, answer, fields["content-type"][:10]) == (200, b"3eZb", "text/plain")
        assert sender.post(b'{"items":[1,2,3]}')[0] == 413
        as_form = {"Content_Type": "application/x-www-form-urlencoded"}  # which `curl -d` says, too
        status, _, answer = sender.post(b"a=b", **as_form)
        assert (status, "form_field" in said(answer)["error"]) == (415, True)
        assert sender.post(b' {"items":[1,2]}', **as_form)[0] == 200
        for body in (b'{"event_id":"E1"}', b'{"event_id":"E1"}', b'{"event_id":"E1","n":2}',
                     b'{"event_id":9}', b'{"event_id":9}'):  # fmt: skip
            assert sender.post(body)[2] == b'{"stored":1}'

    with Sender(port_of(daemon, "graph")) as sender:
        status, fields, answer = sender.post(b"", "/events?validationToken=a%3cb%3e")
        assert (status, answer) == (200, b"a<b>")
        assert fields["content-type"] == "text/plain; charset=utf-8"
    with Sender(port_of(daemon, "graph")) as sender:
        assert sender.post(b"{}")[0] == 401

    with Sender(port_of(daemon, "hec")) as sender:
        status, _, answer = sender.post(
            b'{"Records":[{"r":1},{"r":2}]}\n{"r":3}', "/services/collector/raw",
            Authorization="Splunk hook-token-4",
        )  # fmt: skip
        assert (status, said(answer)["text"]) == (200, "Success")

    stored = [
        b'{"action":"added","X-GitHub-Event":"member"}',
        b'{"X-GitHub-Event":"member","X-GitHub-Delivery":"d1"}',
        b'{"n":9,"X-GitHub-Event":"member","X-GitHub-Delivery":"d1"}',
        b'{"n": 1}', b'{"n":2}', b'{"ping":1}', b"3", b"1", b"2",
        b'{"event_id":"E1"}', b'{"event_id":"E1","n":2}', b'{"event_id":9}', b'{"event_id":9}',
        b'{"r":1}', b'{"r":2}', b'{"r":3}',
    ]  # fmt: skip
    assert until(lambda: len(forwarded(daemon)) >= len(stored))
    assert forwarded(daemon) == stored


def test_products_answer_their_vendors_handshakes_and_check_signatures(
    make_daemon: MakeDaemon,
) -> None:
    signed = {"signature": {"secret": SECRET}}
    sources = {
        "slack": {**HTTP, "product": "slack", **signed},
        "zoom": {**HTTP, "product": "zoom", **signed},
        "azure": {**HTTP, "product": "azure_activity", "authorization": "Bearer grid-token"},
    }
    daemon = relay_of(make_daemon, sources, "out").start()
    now_s = str(int(time.time()))

    def mac(text: str) -> str:
        return hmac.digest(SECRET.encode(), text.encode(), hashlib.sha256).hex()

    def post(name: str, body: str) -> tuple[int, bytes]:
        sign = f"v0={mac(f'v0:{now_s}:{body}')}"
        fields = {
            "slack": {"X_Slack_Signature": sign, "X_Slack_Request_Timestamp": now_s},
            "zoom": {"x_zm_signature": sign, "x_zm_request_timestamp": now_s},
            "azure": {"Authorization": "BEARER grid-token"},
        }[name]
        with Sender(port_of(daemon, name)) as sender:
            status, _, answer = sender.post(body.encode(), **fields)
            return status, answer

    asked = '{"type":"url_verification","token":"t","challenge":"3eZb"}'
    assert post("slack", asked) == (200, b"3eZb")
    asked = '{"event":"endpoint.url_validation","payload":{"plainToken":"qgg8"},"event_ts":1}'
    status, answer = post("zoom", asked)
    assert (status, said(answer)) == (200, {"plainToken": "qgg8", "encryptedToken": mac("qgg8")})
    asked = (
        '[{"id":"1","eventType":"Microsoft.EventGrid.SubscriptionValidationEvent",'
        '"data":{"validationCode":"512d"}}]'
    )
    status, answer = post("azure", asked)
    assert (status, said(answer)) == (200, {"validationResponse": "512d"})

    for name, body in (("slack", '{"event_id":"s"}'), ("zoom", '{"event":"z"}'),
                       ("azure", '[{"id":"a"},{"id":"b"}]')):  # fmt: skip
        assert post(name, body)[0] == 200
        with Sender(port_of(daemon, name)) as sender:
            assert sender.post(body.encode())[0] == 401
    stored = [b'{"event_id":"s"}', b'{"event":"z"}', b'{"id":"a"}', b'{"id":"b"}']
    assert until(lambda: len(forwarded(daemon)) >= len(stored))
    assert forwarded(daemon) == stored


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("handshake: zoom", "sources.h.handshake: `zoom` is answered with the secret of `sign"),
        ("handshake: meta", "sources.h.handshake: `meta` needs `verify_token`"),
        ("handshake: octa", "did you mean `okta`?"),
        ("authorization_header: a b", "sources.h.authorization_header: write a header's name"),
    ],
)
def test_a_sender_that_could_not_be_answered_is_a_fault(source: str, fault: str) -> None:
    text = f"""
sources: {{h: {{type: http, listen: "http://127.0.0.1:1", {source}}}}}
sinks: {{s: {{server: h}}}}
"""
    with pytest.raises(ConfigurationRefused) as refused:
        load_text(text, "f.yaml", {})
    assert fault in str(refused.value)

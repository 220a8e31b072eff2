"""The Splunk HEC source: senders that are made for Splunk see what Splunk would say."""

from __future__ import annotations

import base64
import gzip
import json
import socket
from typing import Any

import pytest

from tests.conftest import MakeDaemon
from tests.support.daemon import QUICK_RETRY, Daemon, append, event, ids, until
from tests.support.http_sender import Sender, port_of, relay, said
from tests.support.listening import forwarded
from tests.support.servers import free_port

TOKEN = "5fb7a3c2-0000-4000-8000-00000000beef"
CHANNEL = "0aeb3d9c-1111-4222-8333-44444444cafe"
OTHER_CHANNEL = CHANNEL.replace("0", "1")
EVENT = b'{"event":{"n":1}}'


def collector(make: MakeDaemon, **source: Any) -> Daemon:
    settings = {"type": "splunk-hec", "listen": "http://127.0.0.1:0", "tokens": ["other", TOKEN]}
    return relay(make, **{**settings, **source})


def post(
    daemon: Daemon, body: bytes, path: str = "", **fields: str
) -> tuple[int, Any, dict[str, str]]:
    fields = {"Authorization": f"Splunk {TOKEN}", **fields}
    with Sender(port_of(daemon)) as sender:
        status, answered, found = sender.post(body, f"/services/collector{path}", **fields)
        return status, said(found), answered


def test_events_are_taken_at_every_address_of_splunks(make_daemon: MakeDaemon) -> None:
    daemon = collector(make_daemon).start()
    for path in ("", "/", "/event", "/event/1.0", "/event?channel="):
        assert post(daemon, EVENT, path)[:2] == (200, {"text": "Success", "code": 0})
    assert post(daemon, gzip.compress(EVENT * 3), Content_Encoding="gzip")[0] == 200
    assert post(daemon, b"text\n", "/raw?host=h&sourcetype=s")[0] == 200
    until(lambda: len(forwarded(daemon)) == 9)
    assert set(forwarded(daemon)[:8]) == {b'{"n":1}'}
    assert json.loads(forwarded(daemon)[8]) == {
        "message": "text", "hec": {"host": "h", "sourcetype": "s"}
    }  # fmt: skip


@pytest.mark.parametrize(
    ("authorization", "status", "code"),
    [
        ("", 401, 2),
        ("Splunk ", 401, 2),
        (f"Bearer {TOKEN}", 401, 3),
        ("Splunk 5fb7a3c2-0000-4000-8000-00000000beee", 403, 4),
        ("Basic !", 401, 2),
        ("Basic \xff", 401, 2),
        (TOKEN, 401, 3),
    ],
)
def test_a_sender_without_a_right_token_gets_the_reason(
    make_daemon: MakeDaemon, authorization: str, status: int, code: int
) -> None:
    daemon = collector(make_daemon).start()
    found = post(daemon, EVENT, Authorization=authorization)
    assert (found[0], found[1]["code"]) == (status, code)
    assert TOKEN not in daemon.log_text


def test_a_token_is_also_a_password_but_not_in_the_address(make_daemon: MakeDaemon) -> None:
    daemon = collector(make_daemon).start()
    basic = base64.b64encode(f"x:{TOKEN}".encode()).decode()
    assert post(daemon, EVENT, Authorization=f"Basic {basic}")[1]["code"] == 0
    found = post(daemon, EVENT, f"?token={TOKEN}", Authorization="")
    assert (found[0], found[1]["code"]) == (400, 16)


@pytest.mark.parametrize(
    ("body", "path", "code", "number"),
    [
        (b"", "", 5, None),
        (b"\n", "/raw", 5, None),
        (EVENT + b"{", "", 6, 1),
        (EVENT * 2 + b'{"host":"h"}', "", 12, 2),
        (b'{"event":""}', "", 13, 0),
        (b'{"event":1,"fields":[]}', "", 15, 0),
        (EVENT, "?channel=no-guid", 11, None),
    ],
)
def test_a_faulty_request_gets_splunks_code_and_stores_nothing(
    make_daemon: MakeDaemon, body: bytes, path: str, code: int, number: int | None
) -> None:
    daemon = collector(make_daemon).start()
    status, answer, _ = post(daemon, body, path)
    assert (status, answer["code"], answer.get("invalid-event-number")) == (400, code, number)
    assert post(daemon, b'{"event":{"n":2}}')[0] == 200
    assert until(lambda: forwarded(daemon)) == [b'{"n":2}']


def test_other_addresses_and_methods_are_refused(make_daemon: MakeDaemon) -> None:
    daemon = collector(make_daemon).start()
    assert post(daemon, EVENT, "/other")[0] == 404
    with Sender(port_of(daemon)) as sender:
        assert sender.post(b"", "/services/collector", "GET")[0] == 405


def test_health_is_shown_to_everybody(make_daemon: MakeDaemon) -> None:
    daemon = collector(make_daemon).start()
    with Sender(port_of(daemon)) as sender:
        status, _, body = sender.post(b"", "/services/collector/health", "GET")
    assert (status, said(body)["code"]) == (200, 17)


def test_a_channel_gets_ids_that_are_acknowledged_once(make_daemon: MakeDaemon) -> None:
    daemon = collector(make_daemon).start()
    first, second = (
        post(daemon, EVENT, X_Splunk_Request_Channel=CHANNEL)[1]["ackId"] for _ in range(2)
    )
    third = post(daemon, EVENT, f"?channel={CHANNEL}")[1]["ackId"]
    assert first < second < third < 2**53
    ask = b'{"acks":[%d,%d,7]}' % (first, third)
    asked = post(daemon, ask, f"/ack?channel={CHANNEL.upper()}")
    assert asked[:2] == (200, {"acks": {str(first): True, str(third): True, "7": False}})
    again = post(daemon, ask, "/ack", X_Splunk_Request_Channel=CHANNEL)[1]
    assert not any(again["acks"].values())
    other = post(daemon, b'{"acks":[%d]}' % second, f"/ack?channel={OTHER_CHANNEL}")[1]
    assert other == {"acks": {str(second): False}}
    assert post(daemon, b'{"acks":["x"]}', f"/ack?channel={CHANNEL}")[1]["code"] == 6
    assert post(daemon, ask, "/ack")[1]["code"] == 10


def test_no_token_takes_the_acknowledgement_of_another(make_daemon: MakeDaemon) -> None:
    daemon = collector(make_daemon).start()
    number = post(daemon, EVENT, f"?channel={CHANNEL}")[1]["ackId"]
    ask, path = b'{"acks":[%d]}' % number, f"/ack?channel={CHANNEL}"
    assert post(daemon, ask, path, Authorization="Splunk other")[1]["acks"] == {str(number): False}
    assert post(daemon, ask, path)[1]["acks"] == {str(number): True}


def test_an_id_of_before_a_restart_is_never_taken_for_a_later_one(
    make_daemon: MakeDaemon,
) -> None:
    daemon = collector(make_daemon).start()
    before = post(daemon, EVENT, f"?channel={CHANNEL}")[1]["ackId"]
    daemon.kill()
    daemon.start()
    after = post(daemon, EVENT, f"?channel={CHANNEL}")[1]["ackId"]
    ask = b'{"acks":[%d,%d]}' % (before, after)
    asked = post(daemon, ask, f"/ack?channel={CHANNEL}")[1]
    assert asked == {"acks": {str(before): False, str(after): True}}


def test_acknowledgement_can_be_required_and_disabled(make_daemon: MakeDaemon) -> None:
    required = collector(make_daemon, use_ack="required").start()
    assert post(required, EVENT)[1]["code"] == 10
    assert post(required, EVENT, f"?channel={CHANNEL}")[1]["ackId"] > 0
    disabled = collector(make_daemon, use_ack="disabled").start()
    assert "ackId" not in post(disabled, EVENT, f"?channel={CHANNEL}")[1]
    assert post(disabled, b'{"acks":[0]}', f"/ack?channel={CHANNEL}")[1]["code"] == 14


def test_with_delivered_an_id_waits_for_every_sink(make_daemon: MakeDaemon) -> None:
    port = free_port()
    daemon = collector(make_daemon, acknowledge="delivered")
    daemon.config["sinks"]["late"] = {
        "protocol": "tcp", "server": "127.0.0.1", "port": port, "retry": QUICK_RETRY,
    }  # fmt: skip
    daemon.start()
    number = post(daemon, EVENT, f"?channel={CHANNEL}")[1]["ackId"]
    until(lambda: forwarded(daemon))

    def acknowledged() -> bool:
        asked = post(daemon, b'{"acks":[%d]}' % number, f"/ack?channel={CHANNEL}")[1]
        return bool(asked["acks"][str(number)])

    assert not acknowledged()
    with socket.create_server(("127.0.0.1", port)):
        until(acknowledged)


@pytest.mark.parametrize("acknowledge", [False, True])
def test_our_own_sink_delivers_to_our_own_source(
    make_daemon: MakeDaemon, acknowledge: bool
) -> None:
    receiving = collector(make_daemon, use_ack="required" if acknowledge else "auto")
    receiving.config["sinks"]["out"]["format"] = "json"
    receiving.start()
    sink = {
        "siem": "splunk", "url": f"http://127.0.0.1:{port_of(receiving)}",
        "authorization": f"Splunk {TOKEN}", "indexer_acknowledgement": acknowledge,
            "retry": QUICK_RETRY,
    }  # fmt: skip
    sending = make_daemon({"relay": sink})
    append(sending.audit, (event(n) for n in range(700)))
    sending.start()
    until(lambda: len(forwarded(receiving)) >= 700)
    until(lambda: sending.metric("sink_backlog_records", sink="relay") == 0)
    arrived = [json.loads(line) for line in forwarded(receiving)]
    assert [each["id"] for each in arrived] == ids(range(700))
    assert {each["time"] for each in arrived} == {"2026-03-04T05:06:07.089Z"}
    assert {each["type"] for each in arrived} == {"Account Provisioned"}
    assert {each["actor"]["name"] for each in arrived} == {"ada"}


def test_a_path_in_listen_is_a_fault(make_daemon: MakeDaemon) -> None:
    checked = collector(make_daemon, listen="http://127.0.0.1:0/events").command("check")
    assert checked.returncode == 78
    assert "senders know Splunk's own" in checked.stdout + checked.stderr

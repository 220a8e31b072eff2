"""The HTTP source in a real daemon: each status, and what 200 promises."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import hmac
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trustme

from tests.conftest import MakeDaemon
from tests.support.daemon import event, ids, until
from tests.support.http_sender import TOKEN, Sender, port_of, relay, request, said
from tests.support.listening import forwarded
from tests.support.servers import free_port


def test_one_event_an_array_and_lines_are_taken_as_they_are(make_daemon: MakeDaemon) -> None:
    daemon = relay(make_daemon).start()
    with Sender(port_of(daemon)) as sender:
        assert sender.post(b'{"n": 1}')[::2] == (200, b'{"stored":1}')
        assert sender.post(b'[{"n":2},\n{"n": 3}]', Content_Type="application/json")[0] == 200
        assert sender.post(b'{"n":4}\n{"n":5}\n', Content_Type="application/x-ndjson")[0] == 200
        assert sender.post(b"plain\ntext", Content_Type="text/plain")[2] == b'{"stored":2}'
        assert sender.post(b"[]")[::2] == (200, b'{"stored":0}')
    expected = [b'{"n": 1}', b'{"n":2}', b'{"n": 3}', b'{"n":4}', b'{"n":5}', b"plain", b"text"]
    assert until(lambda: len(forwarded(daemon)) >= 7)
    assert forwarded(daemon) == expected
    assert daemon.metric("source_records_total", source="hooks") == 7


def test_a_client_library_posts_gzip_and_chunks(make_daemon: MakeDaemon) -> None:
    daemon = relay(make_daemon, authorization=TOKEN).start()
    url = f"http://127.0.0.1:{port_of(daemon)}/events"
    with httpx2.Client(trust_env=False, headers={"Authorization": TOKEN}) as client:
        body = gzip.compress(b'{"n":1}\n{"n":2}')
        assert client.post(url, content=body, headers={"Content-Encoding": "gzip"}).json() == {
            "stored": 2
        }
        assert client.post(url + "/?from=x", content=iter([b'{"n"', b":3}"])).status_code == 200
        assert client.post(url, json=[{"n": 4}]).status_code == 200
    assert until(lambda: len(forwarded(daemon)) >= 4)
    assert forwarded(daemon) == [b'{"n":1}', b'{"n":2}', b'{"n":3}', b'{"n":4}']


def test_requests_sent_ahead_are_answered_in_order(make_daemon: MakeDaemon) -> None:
    daemon = relay(make_daemon).start()
    with Sender(port_of(daemon)) as sender:
        sender.send(request(b'{"n":1}') + request(b"{") + request(b'[{"n":2},3]'))
        assert [sender.answer()[0] for _ in range(3)] == [200, 400, 200]
    assert until(lambda: len(forwarded(daemon)) == 3)


def test_a_fault_in_the_body_is_said_with_its_place_and_nothing_is_stored(
    make_daemon: MakeDaemon,
) -> None:
    daemon = relay(make_daemon).start()
    with Sender(port_of(daemon)) as sender:
        status, _, body = sender.post(b'{"n":1}\n{"n" 2}')
        assert status == 400
        assert said(body)["line"] == 2
        assert said(body)["column"] == 6
        assert "line 2, column 6 (byte 13)" in said(body)["error"]
        assert sender.post(b"")[0] == 400
        assert sender.post(b"no gzip", Content_Encoding="gzip")[0] == 400
        assert sender.post(b'{"n":9}')[0] == 200
    assert until(lambda: forwarded(daemon)) == [b'{"n":9}']
    assert daemon.refused("hooks") == 3


@pytest.mark.parametrize(
    ("status", "changed"),
    [
        (404, {"path": "/other"}),
        (405, {"method": "PUT"}),
        (405, {"method": "DELETE"}),
        (400, {"Transfer_Encoding": "chunked"}),
        (401, {"Authorization": "Bearer token-of-the-hooK"}),
        (401, {"Authorization": "Basic token-of-the-hook"}),
        (401, {"Authorization": ""}),
        (415, {"Content_Type": "application/xml"}),
        (415, {"Content_Type": "application/json; charset=utf-16"}),
        (415, {"Content_Encoding": "br"}),
        (413, {"Content_Length": "4000000000"}),
    ],
)
def test_what_is_not_taken_is_refused_before_its_body_is_read(
    make_daemon: MakeDaemon, status: int, changed: dict[str, str]
) -> None:
    daemon = relay(make_daemon, authorization=TOKEN).start()
    fields = {"Authorization": TOKEN, "Expect": "100-continue", "Content_Length": "8", **changed}
    with Sender(port_of(daemon)) as sender:
        found = sender.post(b"", **fields)
        assert found[0] == status
        assert found[1]["connection"] == "close"
    (line,) = until(lambda: daemon.said("request refused"))
    assert (line["peer"], line["status"], line["level"]) == ("127.0.0.1", status, "warning")
    assert "token-of-the" not in daemon.log_text


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_a_probe_for_a_webhook_is_answered_without_credentials(
    make_daemon: MakeDaemon, method: str
) -> None:
    daemon = relay(make_daemon, authorization=TOKEN).start()
    with Sender(port_of(daemon)) as sender:
        status, fields, _ = sender.post(b"", method=method, WebHook_Request_Origin="example.com")
    assert (status, fields["webhook-allowed-origin"]) == (200, "*")
    assert "POST" in fields["allow"]


def test_a_whole_address_is_a_path_here(make_daemon: MakeDaemon) -> None:
    daemon = relay(make_daemon).start()
    with Sender(port_of(daemon)) as sender:
        assert sender.post(b"1", "http://relay.example.com/events")[0] == 200
        assert sender.post(b"1", "http://relay.example.com/other")[0] == 404


def test_a_body_in_small_chunks_is_taken_and_one_in_the_smallest_is_refused(
    make_daemon: MakeDaemon,
) -> None:
    daemon = relay(make_daemon, max_body="8MiB").start()
    port = port_of(daemon)
    head = b"POST /events HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    with Sender(port) as sender:
        sender.post(b"1")
        before = daemon.peak_mb()
        sender.send(head + b"10\r\n%b\r\n" % (b" " * 16) * 20_000 + b"1\r\n1\r\n0\r\n\r\n")
        assert sender.answer()[0] == 200
        sender.send(head + b"2\r\n  \r\n" * 1100)
        status, _, body = sender.answer()
        assert status == 400
        assert "chunks" in said(body)["error"]
    assert daemon.peak_mb() - before < 20


def test_a_sender_that_waits_for_100_continue_gets_it(make_daemon: MakeDaemon) -> None:
    daemon = relay(make_daemon).start()
    with Sender(port_of(daemon)) as sender:
        sender.send(request(b"", Expect="100-continue", Content_Length="7"))
        assert sender.answer()[0] == 100
        sender.send(b'{"n":1}')
        assert sender.answer()[0] == 200


def test_a_body_over_the_limit_is_refused_however_it_comes(make_daemon: MakeDaemon) -> None:
    daemon = relay(make_daemon, max_body="64KiB").start()
    port = port_of(daemon)
    with Sender(port) as sender:
        assert sender.post(b"[" + b" " * 70_000 + b"]")[0] == 413
    with Sender(port) as sender:
        bomb = gzip.compress(b"[" + b" " * (1 << 24) + b"]")
        assert len(bomb) < 65536
        assert sender.post(bomb, Content_Encoding="gzip")[0] == 413
    with Sender(port) as sender:
        chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
        sender.send(b"POST /events HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        sender.send(chunk * 5)
        assert sender.answer()[0] == 413


def test_basic_authorization_is_written_as_user_and_password(make_daemon: MakeDaemon) -> None:
    daemon = relay(make_daemon, authorization="Basic alm:pass word").start()
    given = base64.b64encode(b"alm:pass word").decode()
    with Sender(port_of(daemon)) as sender:
        assert sender.post(b"1", Authorization=f"basic {given}")[0] == 200
        status, fields, _ = sender.post(b"1", Authorization="Basic YWxtOnBhc3M=")
    assert (status, fields["www-authenticate"]) == (401, 'Basic realm="siemrelay"')


@pytest.mark.parametrize(
    ("algorithm", "encoding", "prefix"),
    [("sha256", "hex", "sha256="), ("sha1", "base64", ""), ("sha512", "hex", "v1,")],
)
def test_only_bodies_with_the_right_signature_are_taken(
    make_daemon: MakeDaemon, algorithm: str, encoding: str, prefix: str
) -> None:
    key, body = "key-of-the-signature", gzip.compress(b'{"n":1}')
    signature = {"header": "X-Signed", "algorithm": algorithm, "encoding": encoding,
                 "prefix": prefix, "secret": key}  # fmt: skip
    daemon = relay(make_daemon, signature=signature).start()
    mac = hmac.new(key.encode(), body, getattr(hashlib, algorithm)).digest()
    right = prefix + (mac.hex() if encoding == "hex" else base64.b64encode(mac).decode())
    port = port_of(daemon)
    for given in ("", "x", right[:-1], right + "0", prefix + "é"):
        with Sender(port) as sender:
            assert sender.post(body, Content_Encoding="gzip", X_Signed=given)[0] == 401
    with Sender(port) as sender:
        assert sender.post(body)[0] == 401
    with Sender(port) as sender:
        assert sender.post(body, Content_Encoding="gzip", X_Signed=right)[0] == 200
    assert until(lambda: forwarded(daemon)) == [b'{"n":1}']
    assert key not in daemon.log_text


SCHEMES: dict[str, tuple[dict[str, str], str, dict[str, str]]] = {
    "slack": (
        {"header": "X-Slack-Signature", "prefix": "v0=",
         "signed": "v0:{X-Slack-Request-Timestamp}:{body}"},
        "v0:TIME:",
        {"X_Slack_Signature": "v0=MAC", "X_Slack_Request_Timestamp": "TIME"},
    ),
    "stripe": (
        {"header": "Stripe-Signature", "prefix": "v1=", "signed": "{t}.{body}"},
        "TIME.",
        {"Stripe_Signature": "t=TIME,v1=00,v1=MAC,v0=11"},
    ),
    "standard webhooks": (
        {"header": "webhook-signature", "prefix": "v1,", "encoding": "base64",
         "signed": "{webhook-id}.{webhook-timestamp}.{body}"},
        "msg_1.TIME.",
        {"webhook_signature": "v1,AAAA v1,MAC", "webhook_id": "msg_1", "webhook_timestamp": "TIME"},
    ),
}  # fmt: skip
"""Vendor → options, the signed text before the body, the fields of a request."""
KEY = "key-of-the-signature"


def signed_fields(scheme: str, body: bytes, at: str) -> dict[str, str]:
    """The fields of a request that was signed at that time."""
    options, before, fields = SCHEMES[scheme]
    mac = hmac.digest(KEY.encode(), before.replace("TIME", at).encode() + body, "sha256")
    written = base64.b64encode(mac).decode() if "encoding" in options else mac.hex()
    return {name: v.replace("MAC", written).replace("TIME", at) for name, v in fields.items()}


def now(offset_s: int = 0) -> str:
    return str(int(time.time()) + offset_s)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_time_is_signed_with_the_body_and_must_be_fresh(
    make_daemon: MakeDaemon, scheme: str
) -> None:
    body = b'{"n":1}'
    daemon = relay(make_daemon, signature={**SCHEMES[scheme][0], "secret": KEY}).start()
    at = now()
    given = signed_fields(scheme, body, at)
    with Sender(port_of(daemon)) as sender:
        assert sender.post(body, **given)[0] == 200
        assert sender.post(b'{"n":2}', **given)[0] == 401
        other_time = {name: value.replace(at, now(1)) for name, value in given.items()}
        assert sender.post(body, **other_time)[0] == 401
        assert sender.post(body, **signed_fields(scheme, body, now(-200)))[0] == 200
    for late in (now(-400), now(400), "yesterday", "", "-1", f"{at}.5"):
        with Sender(port_of(daemon)) as sender:
            status, _, answer = sender.post(body, **signed_fields(scheme, body, late))
            assert status == 401
            assert "time" in said(answer)["error"] or "300 s" in said(answer)["error"]


def test_a_time_in_milliseconds_and_a_wider_tolerance_are_taken(make_daemon: MakeDaemon) -> None:
    options = {**SCHEMES["stripe"][0], "secret": KEY, "tolerance": "1h"}
    daemon = relay(make_daemon, signature=options).start()
    with Sender(port_of(daemon)) as sender:
        for at in (now(-3000), now(-3000) + "000"):
            assert sender.post(b"1", **signed_fields("stripe", b"1", at))[0] == 200
        assert sender.post(b"1", **signed_fields("stripe", b"1", now(-4000)))[0] == 401


def test_a_signed_request_that_is_sent_again_is_answered_and_stored_once(
    make_daemon: MakeDaemon,
) -> None:
    """Whoever recorded it can change what is not signed, its Idempotency-Key for instance."""
    body = b'{"n":1}'
    daemon = relay(make_daemon, signature={**SCHEMES["slack"][0], "secret": KEY}).start()
    given = signed_fields("slack", body, now())
    for more in ({}, {"Idempotency_Key": "a"}, {"Idempotency_Key": "b"}):
        with Sender(port_of(daemon)) as sender:
            assert sender.post(body, **given, **more)[::2] == (200, b'{"stored":1}')
    daemon.kill()
    daemon.start()
    with Sender(port_of(daemon)) as sender:
        assert sender.post(body, **given)[0] == 200
        assert sender.post(body, **signed_fields("slack", body, now(1)))[0] == 200
    assert daemon.rows("SELECT sum(count) FROM batches") == [(2,)]


def test_no_part_of_a_signed_text_can_be_taken_for_another(make_daemon: MakeDaemon) -> None:
    """The MAC of `v0:1:2:3` is right for the time `1` only, not for the time `1:2`."""
    options = {"header": "X-Sig", "signed": "{X-Id}:{X-Time}:{body}", "secret": KEY}
    daemon = relay(make_daemon, signature=options).start()
    at = now()
    mac = hmac.digest(KEY.encode(), f"a:b:{at}:1".encode(), "sha256").hex()
    with Sender(port_of(daemon)) as sender:
        assert sender.post(b"1", X_Sig=mac, X_Id="a:b", X_Time=at)[0] == 401
        mac = hmac.digest(KEY.encode(), f"a:{at}:1".encode(), "sha256").hex()
        assert sender.post(b"1", X_Sig=mac, X_Id="a", X_Time=at)[0] == 200


@pytest.mark.parametrize("signed", ["{X-Id}{body}", "{body}{X-Id}", "{X-A}{X-Time}:{body}"])
def test_a_text_that_could_be_read_in_two_ways_is_a_fault(
    make_daemon: MakeDaemon, signed: str
) -> None:
    checked = relay(make_daemon, signature={"signed": signed, "secret": KEY}).command("check")
    assert checked.returncode == 78
    assert "some text must separate" in checked.stdout + checked.stderr


def test_a_key_belongs_to_one_sender(make_daemon: MakeDaemon) -> None:
    """All who sign share a secret: their addresses tell their keys apart."""
    daemon = relay(make_daemon, signature={"header": "X-Sig", "secret": KEY}).start()

    def post(body: bytes, address: str) -> int:
        mac = hmac.digest(KEY.encode(), body, "sha256").hex()
        with Sender(port_of(daemon), source=address) as sender:
            return sender.post(body, X_Sig=mac, Idempotency_Key="k")[0]

    assert post(b"1", "127.0.0.1") == 200
    assert post(b"2", "127.0.0.1") == 409
    assert post(b"2", "127.0.0.2") == 200
    until(lambda: sorted(forwarded(daemon)) == [b"1", b"2"])


def in_parallel(count: int, work: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(count) as threads:
        list(threads.map(work, range(count)))


def test_concurrent_requests_share_commits(make_daemon: MakeDaemon) -> None:
    daemon = relay(make_daemon).start()
    port = port_of(daemon)

    def post(first: int) -> None:
        with Sender(port) as sender:
            for n in range(20):
                assert sender.post(json.dumps(event(first * 20 + n)).encode())[0] == 200

    in_parallel(16, post)
    assert until(lambda: len(forwarded(daemon)) == 320)
    assert daemon.metric("buffer_commits_total") < 320


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_nothing_that_was_answered_is_lost_by_a_kill_or_a_stop_under_load(
    make_daemon: MakeDaemon, end: str
) -> None:
    daemon = relay(make_daemon).start()
    port, enough = port_of(daemon), threading.Event()
    answered: list[str] = []

    def post(first: int) -> None:
        try:
            with Sender(port) as sender:
                for n in range(first * 10_000, first * 10_000 + 10_000, 5):
                    body = json.dumps([event(n + i) for i in range(5)]).encode()
                    if sender.post(body)[0] == 200:
                        answered.extend(ids(range(n, n + 5)))
                    if len(answered) > 500:
                        enough.set()
        except OSError:
            return

    with ThreadPoolExecutor(8) as threads:
        done = [threads.submit(post, first) for first in range(1, 9)]
        assert enough.wait(20)
        if end == "kill":
            daemon.kill()
        else:
            assert daemon.terminate() == 0
        for each in done:
            each.result()
    daemon.config["sources"]["hooks"]["listen"] = "http://127.0.0.1:0/events"
    daemon.start()
    until(lambda: set(answered) <= {json.loads(line)["id"] for line in forwarded(daemon)})


def test_a_key_seen_before_is_answered_and_not_stored_again(make_daemon: MakeDaemon) -> None:
    daemon = relay(make_daemon).start()
    with Sender(port_of(daemon)) as sender:
        for _ in range(3):
            assert sender.post(b'[{"n":1},2]', Idempotency_Key="k")[2] == b'{"stored":2}'
        assert sender.post(b'{"n":3}', Idempotency_Key="k")[0] == 409
        assert sender.post(b'{"n":4}', Idempotency_Key="other")[0] == 200
    daemon.kill()
    daemon.start()
    port = port_of(daemon)
    with Sender(port) as sender:
        assert sender.post(b'[{"n":1},2]', Idempotency_Key="k")[2] == b'{"stored":2}'
        # Whoever shows another authorization has keys of his own.
        assert sender.post(b'{"n":5}', Idempotency_Key="k", Authorization="Bearer x")[0] == 200

    def post(_: int) -> None:
        with Sender(port) as sender:
            assert sender.post(b'{"n":6}', Idempotency_Key="at once")[0] == 200

    in_parallel(8, post)
    until(lambda: len(set(forwarded(daemon))) == 5)
    assert daemon.rows("SELECT sum(count) FROM batches") == [(5,)]


def test_a_full_buffer_is_said_with_a_time_to_come_again(make_daemon: MakeDaemon) -> None:
    daemon = relay(make_daemon)
    daemon.config["buffer"] = {"max_size": "16MiB"}
    daemon.config["sinks"] = {"dead": {"protocol": "tcp", "server": "127.0.0.1", "port": 1}}
    daemon.start()
    with Sender(port_of(daemon)) as sender:
        for _ in range(60):
            noise = base64.b64encode(os.urandom(600_000)).decode()
            status, fields, body = sender.post(json.dumps({"noise": noise}).encode())
            if status != 200:
                break
        assert (status, fields["retry-after"]) == (503, "5")
        assert "no room" in said(body)["error"]
    with Sender(port_of(daemon)) as sender:
        assert sender.post(b"{}")[0] == 503
        assert not sender.rest
    with Sender(port_of(daemon)) as sender:
        assert sender.post(b"{}", Idempotency_Key="k")[0] == 503


def test_a_sender_that_is_too_slow_is_disconnected(make_daemon: MakeDaemon) -> None:
    daemon = relay(make_daemon, request_timeout="500ms", idle_timeout="1s").start()
    port = port_of(daemon)
    with Sender(port) as sender:
        sender.send(b"POST /events HTTP/1.1\r\nHost")
        assert sender.at_end()
    with Sender(port) as sender:
        sender.send(request(b"", Content_Length="10"))
        assert sender.answer()[0] == 408
    with Sender(port) as sender:
        assert sender.at_end()


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x16\x03\x01\x00\xa5\x01\x00\r\n\r\n",
        b"POST /events HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70_000,
        b"POST /events HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /events HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /events HTTP/1.1\r\n\r\n",
    ],
)
def test_nonsense_is_refused_and_others_are_served(
    make_daemon: MakeDaemon, nonsense: bytes
) -> None:
    daemon = relay(make_daemon).start()
    port = port_of(daemon)
    with Sender(port) as sender:
        sender.send(nonsense)
        assert sender.answer()[0] in (400, 431)
    with Sender(port) as sender:
        assert sender.post(b"1")[0] == 200


def test_only_the_networks_that_are_allowed_may_connect(make_daemon: MakeDaemon) -> None:
    daemon = relay(make_daemon, allow=["10.0.0.0/8"]).start()
    with Sender(port_of(daemon)) as sender:
        with pytest.raises(ConnectionError):
            sender.post(b"1")
    assert daemon.refused("hooks") == 1


def test_more_connections_than_allowed_wait_their_turn(make_daemon: MakeDaemon) -> None:
    daemon = relay(make_daemon, max_connections=1).start()
    port = port_of(daemon)
    with contextlib.ExitStack() as stack:
        with Sender(port) as first:
            assert first.post(b"1")[0] == 200
            second = stack.enter_context(Sender(port))
            second.send(request(b"2"))
            assert first.post(b"3")[0] == 200
        assert second.answer()[0] == 200
    assert until(lambda: len(forwarded(daemon)) == 3)
    assert forwarded(daemon) == [b"1", b"3", b"2"]


def test_a_webhook_open_to_everybody_is_warned_of(make_daemon: MakeDaemon) -> None:
    daemon = relay(make_daemon, listen="http://0.0.0.0:0/").start()
    port_of(daemon)
    (warning,) = daemon.said("everybody who reaches this address can write audit events")
    assert "authorization" in warning["advice"]
    closed = relay(make_daemon, listen="http://0.0.0.0:0/", authorization=TOKEN).start()
    port_of(closed)
    assert not closed.said("everybody who reaches this address can write audit events")


def test_a_drain_serves_what_comes_and_ends(make_daemon: MakeDaemon) -> None:
    daemon = relay(make_daemon)
    daemon.start("--drain")
    with Sender(port_of(daemon)) as sender:
        assert sender.post(b'{"n":1}')[0] == 200
        assert daemon.wait() == 0
    assert forwarded(daemon) == [b'{"n":1}']


@pytest.mark.parametrize(
    ("listen", "fault"),
    [
        ("0.0.0.0:80", "write https://0.0.0.0:80 or http://0.0.0.0:80"),
        ("http://h/x", "http(s)://HOST:PORT/PATH"),
        ("ftp://h:1/", "http(s)://HOST:PORT/PATH"),
        ("http://h:80x/", "a port from 0 to 65535"),
        ("http://h:99999/", "a port from 0 to 65535"),
        ("http://user@h:80/", "only scheme, address, port and path"),
        ("http://h:80/a?b", "only scheme, address, port and path"),
        ("https://h:443/", "needs `tls: {certificate"),
    ],
)
def test_an_address_that_cannot_be_is_a_fault(
    make_daemon: MakeDaemon, listen: str, fault: str
) -> None:
    checked = relay(make_daemon, listen=listen).command("check")
    assert checked.returncode == 78
    assert fault in checked.stdout + checked.stderr


def test_an_address_in_use_is_said_and_taken_when_it_is_free(make_daemon: MakeDaemon) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        daemon = relay(make_daemon, listen=f"http://127.0.0.1:{port}/").start(ready=False)
        until(lambda: f"cannot listen on port {port} of 127.0.0.1" in daemon.log_text)
    assert port_of(daemon) == port
    assert "another program has it (ss -ltnup shows which)" in daemon.log_text


def _post_over_tls(port: int, client: ssl.SSLContext, body: bytes) -> bytes:
    """The beginning of the answer; raises OSError when the connection is not let in."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=10)
    with client.wrap_socket(plain, server_hostname="localhost") as secured:
        secured.sendall(request(body))
        answer = secured.recv(65536)
        if not answer:
            raise ConnectionError("closed")
        return answer


@pytest.mark.parametrize("by", ["nobody asked", "authority", "fingerprint"])
def test_over_tls_only_senders_that_are_let_in_are_served(
    make_daemon: MakeDaemon, tmp_path: Path, by: str
) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    shown = authority.issue_cert("localhost")
    certificate, key, ca = (tmp_path / name for name in ("cert.pem", "key.pem", "ca.pem"))
    certificate.write_bytes(b"".join(blob.bytes() for blob in shown.cert_chain_pems))
    shown.private_key_pem.write_to_path(str(key))
    authority.cert_pem.write_to_path(str(ca))
    mine, other = authority.issue_cert("a@example.com"), authority.issue_cert("b@example.com")
    tls: dict[str, Any] = {"certificate": str(certificate), "key": str(key)}
    if by != "nobody asked":
        tls["client_ca"] = str(ca)
    if by == "fingerprint":
        der = ssl.PEM_cert_to_DER_cert(mine.cert_chain_pems[0].bytes().decode())
        tls["client_fingerprints"] = [f"sha256:{hashlib.sha256(der).hexdigest()}"]
    daemon = relay(make_daemon, listen="https://127.0.0.1:0/events", tls=tls).start()
    let_in = {"nobody asked": 4, "authority": 2, "fingerprint": 1}[by]
    clients: list[trustme.LeafCert | None] = [
        mine, other, None, stranger.issue_cert("c@example.com"),
    ]  # fmt: skip
    for number, shows in enumerate(clients):
        client = ssl.create_default_context()
        authority.configure_trust(client)
        if shows is not None:
            shows.configure_cert(client)
        if number < let_in:
            body = json.dumps({"n": number}).encode()
            assert _post_over_tls(port_of(daemon), client, body).startswith(b"HTTP/1.1 200")
        else:
            with pytest.raises(OSError):  # noqa: PT011  (an alert or a reset, by the version of TLS)
                _post_over_tls(port_of(daemon), client, b'{"n": 9}')
    assert until(lambda: len(forwarded(daemon)) == let_in)
    assert daemon.terminate() == 0


def test_without_a_usable_certificate_the_source_says_which_file(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    tls = {"certificate": str(tmp_path / "nothing.pem")}
    daemon = relay(make_daemon, listen="https://127.0.0.1:0/events", tls=tls).start()
    (line,) = until(lambda: daemon.said("part failed, restarting it")[:1])
    assert "nothing.pem" in line["error"]
    assert daemon.terminate() == 0


def test_a_web_page_cannot_write_to_a_hook_of_this_machine(make_daemon: MakeDaemon) -> None:
    """A browser on it would post text for any site; pages of this machine are let in."""
    daemon = relay(make_daemon).start()
    foreign = (
        "https://evil.example", "null", "http://[", "http://127.0.0.1.evil.example",
        "http://127.0.0.1@evil.example", "http://evil.example:8080",
    )  # fmt: skip
    for origin in foreign:
        with Sender(port_of(daemon)) as sender:
            status, _, body = sender.post(b"forged", Content_Type="text/plain", Origin=origin)
            assert (status, "web page" in said(body)["error"]) == (403, True), origin
    own = ("http://localhost:3000", "http://127.0.0.1", "http://[::1]:1")
    with Sender(port_of(daemon)) as sender:
        for number, origin in enumerate(own):
            record = b"%d" % number
            assert sender.post(record, Content_Type="text/plain", Origin=origin)[0] == 200
    until(lambda: forwarded(daemon) == [b"0", b"1", b"2"])
    assert daemon.refused("hooks") == len(foreign)

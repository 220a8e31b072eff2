"""Bodies made to stop the relay: what the others get meanwhile, and what the sender is answered."""

from __future__ import annotations

import gzip
import hmac
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest

from tests.conftest import MakeDaemon
from tests.support.bystanders import with_bystanders
from tests.support.daemon import Daemon
from tests.support.http_sender import Sender, port_of, relay, request


def zipped(body: bytes) -> bytes:
    return gzip.compress(body, 9)


JSON, NDJSON, TEXT = "application/json", "application/x-ndjson", "text/plain"
MILLIONS = 5_000_000

BOMBS: dict[str, tuple[str, Callable[[], bytes], set[int]]] = {
    "lines": (TEXT, lambda: b"a\n" * MILLIONS, {413}),
    "blank lines": (TEXT, lambda: b"\n" * MILLIONS, {400}),
    "values": (NDJSON, lambda: b"1\n" * MILLIONS, {413}),
    "elements": (JSON, lambda: b"[" + b"1," * MILLIONS + b"1]", {413}),
    "nested": (JSON, lambda: b"[[" + b"[]," * 3_000_000 + b"1]]", {200}),
    "deep": (JSON, lambda: b"[" * MILLIONS, {400}),
    "half surrogates": (JSON, lambda: b'["' + rb"\ud800" * 1_700_000 + b'"]', {400}),
    "escapes": (JSON, lambda: b'{"message":"' + rb"\n" * MILLIONS + b'"}', {200}),
    "a fault at the end": (JSON, lambda: b"[" + b"1," * MILLIONS + b"}", {400, 413}),
    "commas in a text": (JSON, lambda: b'["' + b"}," * MILLIONS + b'"]', {200}),
    "more than max_body": (TEXT, lambda: b"a\n" * (4 * MILLIONS), {413}),
}
"""What is posted (made when needed), as what, and how it may be answered."""


@pytest.mark.parametrize("bomb", BOMBS)
def test_no_body_keeps_the_others_waiting(make_daemon: MakeDaemon, bomb: str) -> None:
    """Sixteen at a time, each some KiB of gzip."""
    daemon = relay(make_daemon)
    others = with_bystanders(daemon)
    content_type, make, statuses = BOMBS[bomb]
    body = zipped(make())
    assert len(body) < 64 * 1024

    def post(_: int) -> int:
        with Sender(port_of(daemon)) as sender:
            sender.socket.settimeout(60)
            return sender.post(body, Content_Encoding="gzip", Content_Type=content_type)[0]

    with others.watched(), ThreadPoolExecutor(16) as attackers:
        answers = set(attackers.map(post, range(16)))
    assert answers <= statuses | {503}
    assert daemon.peak_mb() < 512
    others.are_served()
    assert daemon.terminate() == 0


HEC_TOKEN = "0b5e7f3a-5b5e-4d0a-9c5e-1f2d3c4b5a69"
SECRET = "key-of-the-signature"
CHUNKED = b"POST %b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def hec(make_daemon: MakeDaemon) -> Daemon:
    return relay(
        make_daemon, type="splunk-hec", listen="http://127.0.0.1:0", tokens=[HEC_TOKEN],
    )  # fmt: skip


def signed(make_daemon: MakeDaemon) -> Daemon:
    return relay(make_daemon, signature={"header": "X-Sig", "secret": SECRET})


def opened(make_daemon: MakeDaemon) -> Daemon:
    return relay(make_daemon)


def mac(body: bytes) -> str:
    return hmac.digest(SECRET.encode(), body, "sha256").hex()


TINY: dict[str, tuple[Callable[[MakeDaemon], Daemon], bytes, dict[str, str], str]] = {
    "HEC health": (
        hec, CHUNKED % b"/services/collector/health",
        {"Authorization": f"Splunk {HEC_TOKEN}"}, "/services/collector",
    ),
    "HEC events": (
        hec, CHUNKED % b"/services/collector",
        {"Authorization": f"Splunk {HEC_TOKEN}"}, "/services/collector",
    ),
    "a signed hook": (
        signed, CHUNKED % b"/events", {"X_Sig": mac(b'{"event":1}')}, "/events",
    ),
    "a signed hook with a wrong signature": (
        signed, (CHUNKED % b"/events")[:-2] + b"X-Sig: 00\r\n\r\n",
        {"X_Sig": mac(b'{"event":1}')}, "/events",
    ),
    "an open hook": (opened, CHUNKED % b"/events", {}, "/events"),
}  # fmt: skip
"""The relay, the attackers' head, the fields and path of a real sender."""


@pytest.mark.parametrize("target", TINY)
def test_one_byte_chunks_without_credentials_take_nothing_from_a_real_sender(
    make_daemon: MakeDaemon, target: str
) -> None:
    """Eight connections cut a real sender from 171 requests a second to 1.6."""
    build, head, fields, path = TINY[target]
    daemon = build(make_daemon)
    others = with_bystanders(daemon)
    over, port = threading.Event(), port_of(daemon)
    chunks = b"1\r\n \r\n" * 50_000

    def send(_: int) -> None:
        while not over.is_set():
            with suppress(OSError), Sender(port) as sender:
                sender.send(head)
                while not over.is_set():
                    sender.send(chunks)

    with ThreadPoolExecutor(8) as attackers:
        try:
            attacking = attackers.map(send, range(8))
            with others.watched(), Sender(port) as real:
                for _ in range(200):
                    assert real.post(b'{"event":1}', path, **fields)[0] == 200
        finally:
            over.set()
        list(attacking)
    others.are_served()
    assert daemon.refused("hooks") > 0 or target == "HEC health"
    assert daemon.terminate() == 0


def test_bodies_that_never_end_make_room_for_a_real_sender(make_daemon: MakeDaemon) -> None:
    """Seven bodies of nearly the largest size, held open by senders who are nobody."""
    daemon = signed(make_daemon).start()
    port = port_of(daemon)
    head = request(b"", X_Sig="00", Content_Length=str(10 << 20))
    with ExitStack() as stack:
        for _ in range(12):
            holder = stack.enter_context(Sender(port))
            with suppress(OSError):
                holder.send(head + b" " * (9 << 20))
        body = b'{"text":"' + b"x" * (1 << 20) + b'"}'
        with Sender(port) as real:
            for _ in range(80):
                assert real.post(body, X_Sig=mac(body))[0] == 200
    assert daemon.refused("hooks") > 0
    assert daemon.peak_mb() < 300
    assert daemon.terminate() == 0


def test_holders_of_a_token_make_room_for_each_other(make_daemon: MakeDaemon) -> None:
    """Nobody is reserved anything there; whoever held most for longest goes."""
    token = {"Authorization": "Bearer of-the-hook"}
    daemon = relay(make_daemon, authorization=token["Authorization"]).start()
    port = port_of(daemon)
    head = request(b"", Content_Length=str(10 << 20), **token)
    with ExitStack() as stack:
        for _ in range(12):
            holder = stack.enter_context(Sender(port))
            with suppress(OSError):
                holder.send(head + b" " * (9 << 20))
        with Sender(port) as real:
            for _ in range(20):
                assert real.post(b"[" + b" " * (1 << 20) + b"1]", **token)[0] == 200
    assert daemon.terminate() == 0

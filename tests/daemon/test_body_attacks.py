"""Bodies made to stop the relay: what the others get meanwhile, and what the sender is answered."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import MakeDaemon
from tests.support.bystanders import with_bystanders
from tests.support.http_sender import Sender, port_of, relay


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

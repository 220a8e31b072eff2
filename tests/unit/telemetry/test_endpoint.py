"""The endpoint against real connections, well-behaved and not."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from siemrelay.core.errors import BufferBroken, StartRefused
from siemrelay.net.http_application import HttpLimits
from siemrelay.telemetry.endpoint import open_endpoint
from siemrelay.telemetry.endpoint_pages import serve
from siemrelay.telemetry.log import Redactor
from siemrelay.telemetry.stats import SinkCounts, SinkStats, Stats
from siemrelay.telemetry.status import RelayReport, StatusReporter


@dataclass
class Served:
    """An endpoint that is being served; `fault` is raised by its next refreshes."""

    port: int = 0
    stats: Stats = field(default_factory=Stats)
    refreshed: int = 0
    fault: Exception | None = None

    async def refresh(self) -> None:
        self.refreshed += 1
        if self.fault is not None:
            raise self.fault

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def ask(self, request: bytes) -> bytes:
        """Everything that is answered until the connection is closed."""
        with trio.fail_after(5):
            async with await self.connect() as stream:
                await stream.send_all(request)
                answer = b""
                try:
                    while data := await stream.receive_some():
                        answer += data
                except trio.BrokenResourceError:
                    pass  # closed with something unread
        return answer

    async def get(self, path: str, method: str = "GET") -> tuple[int, bytes]:
        request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        head, _, body = (await self.ask(request.encode())).partition(b"\r\n\r\n")
        return int(head.split()[1]), body


@asynccontextmanager
async def serving(**limits: Any) -> AsyncIterator[Served]:
    served = Served()
    served.stats.loop_at, served.stats.ready = trio.current_time(), True
    served.stats.sinks["siem"] = SinkStats("siem", counts=SinkCounts(delivered=3))
    listener = await open_endpoint(("127.0.0.1", 0))
    assert listener is not None
    served.port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        overview = StatusReporter(served.stats, Redactor([]))
        serving_it = partial(
            serve, listener, served.stats, overview, served.refresh, **{"hosts": ["x"], **limits}
        )
        nursery.start_soon(serving_it)
        yield served
        nursery.cancel_scope.cancel()


async def test_each_path_has_its_answer() -> None:
    async with serving() as served:
        status, body = await served.get("/metrics?collect=all")
        assert status == 200
        assert b'siemrelay_sink_delivered_total{sink="siem"} 3.0' in body
        assert served.refreshed == 1
        assert await served.get("/healthz") == (200, b"ok\n")
        assert await served.get("/readyz") == (200, b"ok\n")
        status, body = await served.get("/status")
        assert status == 200
        assert msgspec.json.decode(body, type=RelayReport).sinks[0].delivered == 3
        status, body = await served.get("/")
        assert status == 200
        assert b"siem  connecting" in body
        assert served.refreshed == 3
        assert (await served.get("/nothing"))[0] == 404
        assert (await served.get("/healthz", "DELETE"))[0] == 405


async def test_what_is_wrong_is_answered_with_503() -> None:
    async with serving() as served:
        served.stats.loop_at -= 100
        served.stats.stopping = True
        status, body = await served.get("/healthz")
        assert status == 503
        assert b"main loop" in body
        assert await served.get("/readyz") == (503, b"stopping\n")


async def test_head_has_the_headers_of_get_and_no_body() -> None:
    async with serving() as served:
        for path in ("/healthz", "/metrics", "/nothing"):
            get = await served.ask(b"GET %b HTTP/1.0\r\n\r\n" % path.encode())
            head = await served.ask(b"HEAD %b HTTP/1.0\r\n\r\n" % path.encode())
            # The metrics of the next moment may be a digit longer.
            expected, found = (re.sub(rb"\d+", b"N", answer) for answer in (get, head))
            assert found == expected.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


async def test_requests_that_come_at_once_are_answered_in_order() -> None:
    async with serving() as served:
        one = b"GET /%b HTTP/1.1\r\nHost: x\r\n"
        answer = await served.ask(
            one % b"healthz" + b"\r\n" + one % b"no" + b"\r\n"
            + one % b"healthz" + b"Connection: close\r\n\r\n"
        )  # fmt: skip
        assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"404", b"200"]


@pytest.mark.parametrize("empty_lines", [0, 1, 3])
async def test_http_1_0_is_answered_and_closed_also_behind_empty_lines(empty_lines: int) -> None:
    async with serving() as served:
        answer = await served.ask(b"\r\n" * empty_lines + b"GET /healthz HTTP/1.0\r\n\r\n")
        assert answer.endswith(b"\r\n\r\nok\n")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"garbage\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"400"),  # TLS to a plain port
        (b"GET /healthz HTTP/1.1\r\n\r\n", b"400"),  # no Host
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", b"431"),
        (b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\nabc", b"405"),
        (
            b"PUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
            b"405",
        ),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\nHost: x\n\n", b"400"),  # RFC 9112, 2.2
        (b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\rC: d\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", b"400"),  # 5.2
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 300 + b"\r\n", b"431"),
    ],
)
async def test_what_is_no_request_for_it_is_refused_and_the_connection_closed(
    request_bytes: bytes, status: bytes
) -> None:
    async with serving() as served:
        answer = await served.ask(request_bytes)
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert b"Connection: close" in answer
        assert await served.get("/healthz") == (200, b"ok\n")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:9614", 200), ("LOCALHOST.", 200), ("127.0.0.1:9614", 200), ("[::1]:9614", 200),
        ("[::1]", 200), ("192.0.2.7", 200), (socket.gethostname(), 200), ("relay.example:1", 200),
        ("evil.example", 421), ("evil.example:9614", 421), ("localhost.evil.example", 421),
        ("", 421), ("a:b:c", 421), ("[evil.example]", 421), ("127.0.0.1.evil.example:9614", 421),
    ],
)  # fmt: skip
async def test_only_requests_for_this_machines_names_are_answered(host: str, status: int) -> None:
    """By DNS rebinding a web page reads from its own name what only this machine may."""
    async with serving(hosts=["relay.example"]) as served:
        for path in ("/metrics", "/healthz", "/"):
            answer = await served.ask(
                f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
            )
            assert answer.startswith(b"HTTP/1.1 %d" % status)
            assert status == 200 or b"endpoint: {hosts: [...]}" in answer


async def test_an_asker_that_goes_away_in_the_middle_harms_nobody() -> None:
    async with serving() as served:
        for request in (b"", b"GET", b"GET / HTTP/1.1\r\nHost", b"GET /metrics HTTP/1.0\r\n\r\n"):
            stream = await served.connect()
            await stream.send_all(request)
            await stream.aclose()
        assert await served.get("/healthz") == (200, b"ok\n")


async def test_silent_and_slow_clients_are_disconnected() -> None:
    limits = HttpLimits(body_bytes=0, first_s=0.2, idle_s=0.2, request_s=0.1)
    async with serving(limits=limits) as served:
        assert await served.ask(b"") == b""
        with trio.fail_after(5):
            async with await served.connect() as stream:
                try:
                    while True:  # one byte at a time, each within the idle time
                        await stream.send_all(b"G")
                        with trio.move_on_after(0.02):
                            assert await stream.receive_some() == b""
                            break
                except trio.BrokenResourceError:
                    pass


async def test_only_so_many_are_served_at_once_and_the_rest_wait() -> None:
    async with serving(connections=2) as served:
        first, second = await served.connect(), await served.connect()
        await trio.testing.wait_all_tasks_blocked(0.02)
        got: list[tuple[int, bytes]] = []

        async def get() -> None:
            got.append(await served.get("/healthz"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(get)
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert got == []
            await first.aclose()
        assert got == [(200, b"ok\n")]
        await second.aclose()


async def test_a_fault_of_our_own_is_reported_and_does_not_stop_the_relay() -> None:
    async with serving() as served:
        served.fault = ValueError("a bug")
        with capture_logs() as logs:
            assert (await served.get("/metrics"))[0] == 500
        assert logs[0]["event"] == "request failed"
        served.fault = None
        assert (await served.get("/metrics"))[0] == 200


async def test_a_broken_disk_found_by_a_scrape_ends_the_relay() -> None:
    async def scrape() -> None:
        async with serving() as served:
            served.fault = BufferBroken("the disk")
            async with await served.connect() as stream:
                await stream.send_all(b"GET /metrics HTTP/1.0\r\n\r\n")
                await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await scrape()
    assert caught.value.subgroup(BufferBroken) is not None


async def test_an_address_in_use_refuses_the_start() -> None:
    listener = await open_endpoint(("127.0.0.1", 0))
    assert listener is not None
    async with listener:
        with pytest.raises(StartRefused, match="endpoint"):
            await open_endpoint(("127.0.0.1", listener.socket.getsockname()[1]))


async def test_without_an_address_there_is_no_endpoint() -> None:
    assert await open_endpoint(None) is None

"""The endpoint: metrics, health and status over plain HTTP/1.1, for one machine's own eyes.

The protocol is h11's; it and the metrics library are imported by the first request, so that a start
does not wait for them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any, Final

import msgspec
import structlog
import trio

from siemrelay.core.errors import BufferBroken, StartRefused
from siemrelay.net.listener import Door
from siemrelay.net.refusals import Refusals
from siemrelay.telemetry.health import stuck, unready
from siemrelay.telemetry.metrics import CONTENT_TYPE, render
from siemrelay.telemetry.stats import Stats
from siemrelay.telemetry.status import StatusReporter

_log = structlog.get_logger()

_READ_BYTES: Final = 16 * 1024

# A scraper asks every few seconds; who is silent for longer is let go.
_IDLE_S: Final = 75.0

# A request that has begun is small and its asker near; so is the reader of an answer.
_REQUEST_S: Final = 10.0

# Prometheus, a probe and a curious person: connections above this wait in the kernel.
_CONNECTIONS: Final = 32

_PATHS: Final = "/status (JSON), /metrics, /healthz and /readyz"
_PLAIN: Final = "text/plain; charset=utf-8"


async def open_endpoint(address: tuple[str, int] | None) -> trio.SocketListener | None:
    """Take the address, or raise StartRefused; None when the endpoint is off."""
    if address is None:
        return None
    host, port = address
    try:
        (listener, *_) = await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        raise StartRefused(
            f"cannot listen on {host}:{port} for the endpoint: {error.strerror or error}; set "
            "`endpoint: {listen: ...}` to a free address, or to off"
        ) from error
    if port == 0:
        _log.info("endpoint", port=listener.socket.getsockname()[1])
    return listener


async def serve(
    listener: trio.SocketListener, stats: Stats, overview: StatusReporter,
    refresh: Callable[[], Awaitable[None]],
) -> None:  # fmt: skip
    """Answer requests until cancelled. `refresh` brings gauges up to date before they are read."""
    where = listener.socket.getsockname()
    refusals = Refusals(_log, f"http://{where[0]}:{where[1]}")
    door = Door([], _CONNECTIONS, refusals, proxied=ip_address(where[0]).is_loopback)

    async def connection(stream: trio.SocketStream, _peer: str) -> None:
        try:
            await _Connection(stream, stats, overview, refresh).run()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the asker went away

    await door.serve([listener.socket], connection)


class _Connection:
    def __init__(
        self, stream: trio.SocketStream, stats: Stats, overview: StatusReporter,
        refresh: Callable[[], Awaitable[None]],
    ) -> None:  # fmt: skip
        import h11

        self._h11, self._stream, self._stats = h11, stream, stats
        self._overview, self._refresh = overview, refresh
        self._http = h11.Connection(h11.SERVER)

    async def run(self) -> None:
        h11 = self._h11
        while True:
            head = False
            try:
                request = await self._next_request()
                if request is None:
                    return
                head = request.method == b"HEAD"
                status, kind, body = await self._answered(
                    request.method.decode(), request.target.decode("ascii", "replace")
                )
            except h11.RemoteProtocolError as error:
                if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
                    return
                status, kind, body = error.error_status_hint, _PLAIN, b"not a request\n"
            await self._send(status, kind, body, head=head)
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                return
            self._http.start_next_cycle()

    async def _next_request(self) -> Any:
        """The next request; None when the asker is gone, idle or too slow.

        Only GET and HEAD are read to their end: others are answered before their body.
        """
        h11, request = self._h11, None
        with trio.move_on_after(_IDLE_S) as scope:
            while True:
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    data = await self._stream.receive_some(_READ_BYTES)
                    scope.deadline = min(scope.deadline, trio.current_time() + _REQUEST_S)
                    self._http.receive_data(data)
                elif isinstance(event, h11.Request):
                    request = event
                    if request.method not in (b"GET", b"HEAD"):
                        return request
                elif isinstance(event, h11.EndOfMessage):
                    return request
                elif isinstance(event, h11.ConnectionClosed):
                    return None
        return None

    async def _answered(self, method: str, target: str) -> tuple[int, str, bytes]:
        try:
            return await self._answer(method, target)
        except BufferBroken:
            raise
        except Exception as error:  # noqa: BLE001  (a scrape must not stop the relay)
            _log.exception("endpoint failed", target=target, error=str(error))
            return 500, _PLAIN, b"internal error, see the log\n"

    async def _answer(self, method: str, target: str) -> tuple[int, str, bytes]:
        path = target.partition("?")[0]
        if method not in ("GET", "HEAD"):
            return 405, _PLAIN, b"only GET and HEAD\n"
        if path == "/metrics":
            await self._refresh()
            return 200, CONTENT_TYPE, render(self._stats)
        if path == "/healthz":
            return _verdict(stuck(self._stats, trio.current_time()))
        if path == "/readyz":
            return _verdict(unready(self._stats))
        if path in ("/", "/status"):
            await self._refresh()
            status = self._overview.status(trio.current_time())
            if path == "/status":
                return 200, "application/json", msgspec.json.encode(status)
            from siemrelay.telemetry.status_text import lines  # no start waits for it

            shown = [line.text for line in lines(status)]
            return 200, _PLAIN, "\n".join([*shown, "", _PATHS, ""]).encode()
        return 404, _PLAIN, f"there is / and {_PATHS}\n".encode()

    async def _send(self, status: int, kind: str, body: bytes, *, head: bool) -> None:
        h11 = self._h11
        headers = [("Content-Type", kind), ("Content-Length", str(len(body)))]
        if self._http.their_state is not h11.DONE:
            headers.append(("Connection", "close"))  # what follows of theirs is not read
        data = self._http.send(h11.Response(status_code=status, headers=headers)) or b""
        if not head:
            data += self._http.send(h11.Data(data=body)) or b""
        data += self._http.send(h11.EndOfMessage()) or b""
        with trio.move_on_after(_REQUEST_S) as scope:
            await self._stream.send_all(data)
        if scope.cancelled_caught:
            raise trio.BrokenResourceError("the asker does not read the answer")


def _verdict(found: list[str]) -> tuple[int, str, bytes]:
    if found:
        return 503, _PLAIN, ("\n".join(found) + "\n").encode()
    return 200, _PLAIN, b"ok\n"

"""The pages of the endpoint: metrics, health, status and the overview, over HTTP/1.1."""

from __future__ import annotations

import re
import socket
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import ip_address
from typing import Final

import msgspec
import structlog
import trio

from siemrelay.net.body_memory import HeldBody
from siemrelay.net.http_application import Head, HttpAnswer, HttpLimits
from siemrelay.net.http_server import HttpServer
from siemrelay.net.listener import ConnectionLimiter
from siemrelay.net.rejection_log import RejectionLog
from siemrelay.telemetry.attention import attention
from siemrelay.telemetry.health import stuck, unready, unready_source
from siemrelay.telemetry.metrics import CONTENT_TYPE, render, sampled
from siemrelay.telemetry.page import OverviewReport, RecentReport, page
from siemrelay.telemetry.stats import Stats
from siemrelay.telemetry.status import HistoryReport, RelayReport, StatusReporter
from siemrelay.telemetry.status_text import lines

_log = structlog.get_logger()

# Requests are small and come from nearby. A connection that is silent for 5 seconds is closed, so
# that none is kept from others: scrapers, which ask every few seconds, connect again.
_LIMITS: Final = HttpLimits(body_bytes=0, first_s=5.0, idle_s=5.0, request_s=5.0)

# Prometheus, a probe and a curious person need three. For one more than these the idlest is closed,
# once it has been silent for so long: clients nearby send their request at once.
_CONNECTIONS: Final = 128
_EVICTABLE_AFTER_S: Final = 0.25

# A Host field: an IPv6 address in brackets, another address or a name; and a port (RFC 9110, 7.2).
_HOST: Final = re.compile(r"(?:\[([^\]]*)\]|([^:]*))(?::[0-9]*)?")

_PATHS: Final = "/status, /overview and /history (JSON), /metrics, /healthz and /readyz"


async def serve(
    listener: trio.SocketListener, stats: Stats, status: StatusReporter,
    refresh: Callable[[], Awaitable[None]], *, limits: HttpLimits = _LIMITS,
    recent: Callable[[], Awaitable[RecentReport]] | None = None,
    connections: int = _CONNECTIONS, hosts: Iterable[str] = (),
) -> None:  # fmt: skip
    """Answer requests until cancelled. `refresh` brings gauges up to date before they are read.

    `recent` reports the newest events.
    Requests for a name that is neither this machine's nor in `hosts` are refused.
    """
    host, port = listener.socket.getsockname()[:2]
    rejections = RejectionLog(_log, f"http://{host}:{port}")
    limiter = ConnectionLimiter(
        [],
        connections,
        rejections,
        proxied=ip_address(host).is_loopback,
        apart=True,
        evictable_after_s=_EVICTABLE_AFTER_S,
    )
    pages = _Pages(stats, status, refresh, recent or _no_events, hosts)
    server = HttpServer(pages, _Uncounted(), limits, None, limiter, rejections)
    await server.run([listener], drain=False)


class _Uncounted:
    """The endpoint's connections are not counted: see `ConnectionObserver`."""

    def connected(self, change: int) -> None:
        pass

    def progress(self) -> None:
        pass

    def refused(self, reason: str, records: int = 1) -> None:
        pass


class _Pages:
    """The pages of the endpoint: see `http_application.Application`."""

    def __init__(
        self, stats: Stats, status: StatusReporter, refresh: Callable[[], Awaitable[None]],
        recent: Callable[[], Awaitable[RecentReport]], hosts: Iterable[str],
    ) -> None:  # fmt: skip
        self._recent = recent
        here = socket.gethostname()
        self._hosts = {name.casefold() for name in ("localhost", here, here.split(".")[0], *hosts)}
        self._stats, self._reporter, self._refresh = stats, status, refresh

    def admit(self, head: Head) -> HttpAnswer | bool:
        if not self._is_own(head.fields.get("host", "localhost")):
            return _text(421, "the endpoint does not answer to this name; to allow it, add it to "
                         "`endpoint: {hosts: [...]}`\n")  # fmt: skip
        if head.method not in ("GET", "HEAD"):
            return _text(405, "only GET and HEAD\n")
        return True

    def _is_own(self, field: str) -> bool:
        """Whether a Host field names this machine.

        Any name can be made to lead here: by DNS rebinding a web page would read through it what
        only this machine may. A web page cannot choose the meaning of an IP address: all are own.
        """
        found = _HOST.fullmatch(field.strip())
        name = (found[1] or found[2]).rstrip(".").casefold() if found else ""
        try:
            ip_address(name)
        except ValueError:
            return name in self._hosts
        return True

    async def answer(self, head: Head, body: HeldBody) -> HttpAnswer:
        if head.path == "/metrics":
            await self._refresh()
            text = await trio.to_thread.run_sync(render, sampled(self._stats))
            return HttpAnswer(200, text, content_type=CONTENT_TYPE)
        if head.path == "/healthz":
            return _verdict(stuck(self._stats, trio.current_time()))
        if head.path == "/readyz":
            return _verdict(unready(self._stats))
        source = self._stats.sources.get(head.path.removeprefix("/readyz/"))
        if source is not None and head.path.startswith("/readyz/"):
            return _verdict(unready_source(source))
        if head.path == "/history":
            return _json(self._reporter.history())
        if head.path == "/" and "text/html" in head.fields.get("accept", ""):
            return page()
        if head.path in ("/", "/status", "/overview"):
            await self._refresh()
            status = self._reporter.status(trio.current_time())
            if head.path == "/status":
                return _json(status)
            if head.path == "/overview":
                return _json(OverviewReport(status, attention(status), await self._recent()))
            shown = [line.text for line in lines(status)]
            return _text(200, "\n".join([*shown, "", _PATHS, ""]))
        return _text(404, f"there is / and {_PATHS}\n")

    def fault(self, status: int, reason: str) -> HttpAnswer:
        return _text(status, f"{reason}\n")


def _verdict(found: list[str]) -> HttpAnswer:
    return _text(503, "\n".join(found) + "\n") if found else _text(200, "ok\n")


def _json(report: RelayReport | HistoryReport | OverviewReport) -> HttpAnswer:
    return HttpAnswer(200, msgspec.json.encode(report), (("Cache-Control", "no-store"),))


async def _no_events() -> RecentReport:
    return RecentReport(False, [])


def _text(status: int, text: str) -> HttpAnswer:
    return HttpAnswer(status, text.encode(), content_type="text/plain; charset=utf-8")

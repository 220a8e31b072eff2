"""RELP out, plain or within TLS: confirmed by the receiver's own `rsp 200` to each message.

What had no answer when a connection broke is sent again, so nothing is lost; what repeats is at
the most a window. Runs are a part of the window, because the cursor moves by whole runs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from pydantic import Field

from siemrelay.core.options import Port
from siemrelay.net.tls_client import TlsContexts, TlsOptions
from siemrelay.sinks.contract import BatchLimits, ProtocolKind, Report, no_report
from siemrelay.sinks.stream.beside import beside
from siemrelay.sinks.stream.connection import connect
from siemrelay.sinks.stream.failover import Address, addresses, first_of
from siemrelay.sinks.stream.relp_session import RelpSession
from siemrelay.sinks.stream.tcp import StreamOptions

# A window is filled by so many runs: the receiver has the next ones while one is settled.
_RUNS_IN_WINDOW: Final = 4

# One run's frames: a few writes' worth, whatever the window.
_RUN_BYTES: Final = 1024 * 1024


class RelpOptions(StreamOptions):
    """What a RELP sink may set."""

    port: Port = Field(2514, description="its TCP port")
    window: int = Field(
        128, ge=1, le=10_000, description="messages sent and not yet answered, at the most"
    )
    tls: TlsOptions | None = Field(
        None, description="verification, certificates; `{}` is TLS with the defaults, none is plain"
    )

    def limits(self) -> BatchLimits:
        """The limits of a run."""
        return BatchLimits(max(1, self.window // _RUNS_IN_WINDOW), _RUN_BYTES)


class RelpSink:
    """Messages as RELP `syslog` commands over one TCP connection."""

    def __init__(self, options: RelpOptions) -> None:
        self._options = options
        self._servers = addresses(options.server, options.port)
        self._server_name = options.tls.server_name if options.tls else None
        self._contexts = TlsContexts(options.tls) if options.tls else None

    @property
    def certificate_expires_at(self) -> float | None:
        """See `sinks.contract.Certified`."""
        return self._contexts.peer_expires_at if self._contexts else None

    @asynccontextmanager
    async def session(self, report: Report = no_report) -> AsyncIterator[RelpSession]:
        """See `sinks.contract.Sink`."""
        open_one = partial(self._open, report=report)
        session, passed_over = await first_of(self._servers, open_one, report)
        try:
            async with beside(session.listen) as nursery:
                if passed_over:
                    back = partial(self._open, report=no_report)
                    nursery.start_soon(session.go_home, self._servers[:passed_over], back)
                yield session
        finally:
            await session.aclose()

    async def _open(self, address: Address, report: Report) -> RelpSession:
        connection = await connect(
            address, self._options.timeout, report, self._contexts, self._server_name
        )
        try:
            session = RelpSession(connection, self._options.window, report)
            await session.open()
        except BaseException:
            await connection.aclose()
            raise
        return session


RELP: Final = ProtocolKind(
    RelpOptions, RelpSink, "syslog", "RELP, confirmed by the receiver's answer", port=2514,
    limits=lambda options: options.limits(),
)  # fmt: skip

"""Several servers of a stream sink: tried in order, the first one preferred.

Every connection starts with the first server. While it is with a later one, the earlier ones are
tried once a minute; when one is back, the session ends as soon as nothing is in flight.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, Generic, TypeVar

import trio
from pydantic import Field

from siemrelay.core.errors import DeliveryError, SinkHolds, SinkWaits
from siemrelay.core.options import Options, Timeout
from siemrelay.net.tasks import beside
from siemrelay.net.tcp_client import Address
from siemrelay.net.tls_client import TlsContexts, TlsOptions
from siemrelay.sinks.contract import Report, no_report
from siemrelay.sinks.stream.connection import Connection, connect
from siemrelay.sinks.stream.servers import Servers, addresses

# How often the earlier servers are tried. They were down, so minutes do not matter; a connection
# that is opened and closed costs them next to nothing.
FAIL_BACK_PROBE_S: Final = 60.0


class ServerSession(trio.abc.AsyncResource):
    """A session with one server. Closing it takes a second at most."""

    leaving = False
    """Set when the session is about to end, for a better server: `send` waits for the end."""

    @abstractmethod
    async def watch(self) -> None:
        """Read what the server sends until the session is over; raises the DeliveryError."""

    @abstractmethod
    async def everything_confirmed(self) -> None:
        """Wait until nothing is in flight."""

    async def fail_back(
        self, earlier: Sequence[Address], open_one: Callable[[Address], Awaitable[ServerSession]]
    ) -> None:
        """End the session when an earlier server is back, as soon as nothing is in flight."""
        back = await _earlier_is_back(earlier, open_one)
        self.leaving = True
        await self.everything_confirmed()
        raise SinkWaits(f"{back} is back")


S = TypeVar("S", bound=ServerSession)


class StreamOptions(Options):
    """Options of every sink over a byte stream to a server."""

    server: Servers
    timeout: Timeout = Field(
        30.0,
        description="how long the peer may accept nothing, and how long connecting "
        "may take (10 s at most); 5m at most",
    )


class ServerSink(ABC, Generic[S]):
    """The base of the sinks to one or several servers, over TCP or TLS."""

    def __init__(self, options: StreamOptions, port: int, tls: TlsOptions | None) -> None:
        self._servers = addresses(options.server, port)
        self._timeout_s = options.timeout
        self._server_name = tls.server_name if tls else None
        self._contexts = TlsContexts(tls) if tls else None

    @property
    def certificate_expires_at(self) -> float | None:
        """See `sinks.contract.Certified`."""
        return self._contexts.peer_expires_at if self._contexts else None

    @asynccontextmanager
    async def session(self, report: Report = no_report) -> AsyncIterator[S]:
        """See `sinks.contract.Sink`."""

        async def open_reported(address: Address) -> S:
            return await self._open(address, report)

        async def open_quietly(address: Address) -> S:
            return await self._open(address, no_report)

        session, skipped = await connect_first(self._servers, open_reported, report)
        async with watched(session) as nursery:
            if skipped:
                nursery.start_soon(session.fail_back, self._servers[:skipped], open_quietly)
            yield session

    async def _open(self, address: Address, report: Report) -> S:
        connection = await connect(
            address, self._timeout_s, report, self._contexts, self._server_name
        )
        try:
            return await self.start(connection, report)
        except BaseException:
            await connection.aclose()
            raise

    @abstractmethod
    async def start(self, connection: Connection, report: Report) -> S:
        """Begin a session on a new connection. Raises SinkWaits or SinkHolds."""


@asynccontextmanager
async def watched(session: ServerSession) -> AsyncIterator[trio.Nursery]:
    """Run the session's `watch` until the context ends, and close the session then."""
    try:
        async with beside(session.watch) as nursery:
            yield nursery
    finally:
        await session.aclose()


async def connect_first(
    servers: Sequence[Address], open_one: Callable[[Address], Awaitable[S]], report: Report
) -> tuple[S, int]:
    """Connect to the first server that can be reached; returns also how many were skipped.

    Raises the error of a single server; of several, SinkWaits if any of them may come back by
    itself, else SinkHolds.
    """
    faults: list[SinkWaits | SinkHolds] = []
    for index, address in enumerate(servers):
        try:
            return await open_one(address), index
        except (SinkWaits, SinkHolds) as error:
            faults.append(error)
            if index + 1 < len(servers):
                report("failed", f"{address}: {error}; the next server is tried")
    if len(faults) == 1:
        raise faults[0]
    reasons = "; ".join(f"{at}: {fault}" for at, fault in zip(servers, faults, strict=True))
    if any(isinstance(fault, SinkWaits) for fault in faults):
        raise SinkWaits(reasons)
    raise SinkHolds(reasons, advice="")


async def _earlier_is_back(
    earlier: Sequence[Address], open_one: Callable[[Address], Awaitable[ServerSession]]
) -> Address:
    """Wait until one of these servers accepts connections again, and return it."""
    while True:
        await trio.sleep(FAIL_BACK_PROBE_S)
        for address in earlier:
            try:
                await (await open_one(address)).aclose()
            except DeliveryError:
                continue
            return address

"""TCP and TLS out, proven through the kernel: what counts is what the peer's kernel acknowledged.

SIOCOUTQ says how many sent bytes the peer has not acknowledged yet; what had no acknowledgement
when a connection broke is sent again (other relays lose that window). It proves that the bytes
reached the peer's machine, not that the program there has stored them: plain TCP has no word for
that.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, Literal

from pydantic import Field

from siemrelay.core.options import Duration, Options, Port
from siemrelay.net.tls_client import TlsContexts, TlsOptions
from siemrelay.sinks.contract import BatchLimits, ProtocolKind, Report, no_report
from siemrelay.sinks.stream.connection import connect
from siemrelay.sinks.stream.failover import Servers, addresses, first_of
from siemrelay.sinks.stream.session import StreamSession, opened
from siemrelay.wire.syslog_framing import FRAMERS

# A kernel acknowledges bytes before its program has looked at the first of them, and then throws
# them away: a server that expects TLS on this port ends a plain connection up to 21 ms later
# (rsyslog; OpenSSL, stunnel and Python within one), a TLS 1.3 server looks at a certificate only
# after the client's handshake is over, a syslog server at the name in it even later. So a new
# connection proves something only once it has outlived its first bytes by this, which is what a
# busy server takes to refuse. Bytes go on meanwhile: what waits is the cursor, once a connection.
_PROBATION_S: Final = 0.25

# On their way in that time, and over a long distance, without a pause; see `in_flight` for bytes.
_LIMITS: Final = BatchLimits(in_flight_batches=64)


class StreamOptions(Options):
    """What every sink over a byte stream to a server may set."""

    server: Servers
    timeout: Duration = Field(
        30.0, gt=0, description="to connect, and how long the peer may take nothing"
    )


class TcpOptions(StreamOptions):
    """What a TCP sink may set."""

    port: Port = Field(514, description="its TCP port")
    framing: Literal["newline", "octet-counting", "nul"] = Field(
        "newline", description="how messages are told apart (RFC 6587)"
    )


class TlsStreamOptions(StreamOptions):
    """What a TLS sink may set."""

    port: Port = Field(6514, description="its TCP port")
    framing: Literal["octet-counting", "newline", "nul"] = Field(
        "octet-counting", description="how messages are told apart (RFC 5425)"
    )
    tls: TlsOptions = Field(default_factory=TlsOptions, description="verification, certificates")


class TcpSink:
    """Messages over one TCP connection, within TLS if the options have it."""

    def __init__(self, options: TcpOptions | TlsStreamOptions) -> None:
        self._options = options
        self._servers = addresses(options.server, options.port)
        tls = options.tls if isinstance(options, TlsStreamOptions) else None
        self._server_name = tls.server_name if tls else None
        self._contexts = TlsContexts(tls) if tls else None

    @property
    def certificate_expires_at(self) -> float | None:
        """See `sinks.contract.Certified`."""
        return self._contexts.peer_expires_at if self._contexts else None

    @asynccontextmanager
    async def session(self, report: Report = no_report) -> AsyncIterator[StreamSession]:
        """See `sinks.contract.Sink`."""
        open_one = partial(
            connect, timeout_s=self._options.timeout, report=report,
            contexts=self._contexts, server_name=self._server_name,
        )  # fmt: skip
        connection, passed_over = await first_of(self._servers, open_one, report)
        session = StreamSession(
            connection, FRAMERS[self._options.framing], report, probation_s=_PROBATION_S
        )
        async with opened(session) as nursery:
            if passed_over:
                back = partial(open_one, report=no_report)
                nursery.start_soon(session.fail_back, self._servers[:passed_over], back)
            yield session


TCP: Final = ProtocolKind(
    TcpOptions, TcpSink, "syslog", "a TCP stream, confirmed by the peer's kernel", port=514,
    framings=("newline", "octet-counting", "nul"), limits=lambda options: _LIMITS,
)  # fmt: skip

TLS: Final = ProtocolKind(
    TlsStreamOptions, TcpSink, "syslog", "a TCP stream within TLS, confirmed as tcp",
    port=6514, framings=("octet-counting", "newline", "nul"), limits=lambda options: _LIMITS,
)  # fmt: skip

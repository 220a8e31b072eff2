"""The TCP and TLS sinks: the peer's kernel confirms a batch by acknowledging its bytes.

Bytes that were not acknowledged when a connection broke are sent again. An acknowledgement proves
that the bytes reached the peer's machine, not that the program there has stored them: TCP cannot
say so.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from siemrelay.core.options import Port
from siemrelay.net.tls_client import TlsOptions
from siemrelay.sinks.contract import ProtocolKind, Report
from siemrelay.sinks.stream.connection import Connection
from siemrelay.sinks.stream.failover import ServerSink, StreamOptions
from siemrelay.sinks.stream.session import STREAM_LIMITS, StreamSession
from siemrelay.wire.stream_framing import FRAMERS

# A kernel acknowledges bytes before its program has read the first of them, and may then discard
# them. A server that expects TLS on this port closes a plain connection up to 21 ms later (rsyslog;
# OpenSSL, stunnel and Python within 1 ms). A TLS 1.3 server checks a client's certificate only when
# the client's handshake is over, a syslog server the name in it even later. So the first batch is
# confirmed only if the connection outlives its acknowledgement by this, in which a busy server
# refuses. More is sent meanwhile: only the cursor waits, once per connection, and in a rush not so
# long (`session._IS_READ_BYTES`).
_PROBATION_S: Final = 0.25


class TcpOptions(StreamOptions):
    """Options of `protocol: tcp`."""

    port: Port = Field(514, description="its TCP port")
    framing: Literal["newline", "octet-counting", "nul"] = Field(
        "newline", description="how messages are separated (RFC 6587)"
    )


class TlsStreamOptions(StreamOptions):
    """Options of `protocol: tls`."""

    port: Port = Field(6514, description="its TCP port")
    framing: Literal["octet-counting", "newline", "nul"] = Field(
        "octet-counting", description="how messages are separated (RFC 5425)"
    )
    tls: TlsOptions = Field(default_factory=TlsOptions, description="verification, certificates")


class TcpSink(ServerSink[StreamSession]):
    """Messages over one TCP connection, in TLS for `protocol: tls`."""

    def __init__(self, options: TcpOptions | TlsStreamOptions) -> None:
        tls = options.tls if isinstance(options, TlsStreamOptions) else None
        super().__init__(options, options.port, tls)
        self._frame = FRAMERS[options.framing]

    async def start(self, connection: Connection, report: Report) -> StreamSession:
        """See `ServerSink`; a stream needs no greeting."""
        return StreamSession(connection, self._frame, report, probation_s=_PROBATION_S)


TCP: Final = ProtocolKind(
    TcpOptions, TcpSink, "syslog", "a TCP stream, confirmed by the peer's kernel", port=514,
    limits=lambda options: STREAM_LIMITS,
)  # fmt: skip

TLS: Final = ProtocolKind(
    TlsStreamOptions, TcpSink, "syslog", "a TCP stream within TLS, confirmed as tcp",
    port=6514, limits=lambda options: STREAM_LIMITS,
)  # fmt: skip

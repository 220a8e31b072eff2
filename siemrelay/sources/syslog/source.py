"""The syslog source: UDP, TCP, TLS, RELP and Unix sockets, at one address or several."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, Any, Final

import structlog
import trio
from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from siemrelay.core.options import Duration, Options, Size
from siemrelay.net.listening import BindAddress
from siemrelay.net.tls_server import ServerTlsOptions
from siemrelay.sources.chunks import MAX_WHOLE_BYTES
from siemrelay.sources.contract import Intake, SourceKind
from siemrelay.sources.syslog.address import SyslogAddress, parse_address
from siemrelay.sources.syslog.datagram import DatagramListener
from siemrelay.sources.syslog.relp import RelpListener
from siemrelay.sources.syslog.stream import SourceActivity, StreamListener

# With `--drain`, so long a silence with no connection open counts as the end.
_QUIET_S: Final = 1.0

# The health check allows for minutes; a timer that ticks costs nothing.
_ALIVE_S: Final = 30.0


def _listen(value: str) -> str:
    parse_address(value)
    return value


def _network(value: str) -> str:
    try:
        return str(ip_network(value, strict=False))
    except ValueError:
        raise ValueError("write a network like 10.0.0.0/8, or an address") from None


def _mode(value: Any) -> Any:
    """Octal digits, as text; YAML reads 0660 as the number that it is in octal, 660 as decimal."""
    if isinstance(value, str):
        try:
            return int(value, 8)
        except ValueError:
            raise ValueError('write permissions in octal, like "0660"') from None
    return value


Listen = Annotated[str, AfterValidator(_listen)]
Network = Annotated[str, AfterValidator(_network)]


class SyslogOptions(Options):
    """Settings of `type: syslog`."""

    listen: Listen | Annotated[list[Listen], Field(min_length=1)] = Field(
        description="address to listen on, or a list: udp://0.0.0.0:514, tcp://0.0.0.0:514, "
        "tls://0.0.0.0:6514, relp://0.0.0.0:2514, relp+tls://0.0.0.0:2514, "
        "unix:///run/siemrelay/log.sock, unixgram:///run/siemrelay/log.sock. These ports need not "
        "be written; port 0 takes any free one. Octet counting, line feeds and NUL are recognised "
        "by themselves."
    )
    tls: ServerTlsOptions | None = Field(
        None, description="the certificate that tls:// shows, and which clients it lets in"
    )
    max_connections: Annotated[int, Field(ge=1, le=10_000)] = Field(
        4096,
        description="connections served at a time, at each address; for one more, the idlest "
        "connection of the peer that has the most is closed",
    )
    max_connections_per_address: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        None,
        description="of them, those of one address (in IPv6, of one /64 network; on a Unix socket, "
        "of one user); half of `max_connections` by default",
    )
    first_message_timeout: Annotated[Duration, Field(gt=0)] = Field(
        300.0,
        description="close connections that have sent no message for so long after they began",
    )
    idle_timeout: Annotated[Duration, Field(gt=0)] | None = Field(
        None,
        description="close connections that send nothing for so long; never by default, as quiet "
        "devices stay connected and the kernel finds out dead ones",
    )
    max_record_size: Annotated[Size, Field(gt=0, le=MAX_WHOLE_BYTES)] = Field(
        1 << 20,
        description="Longer messages are counted as oversize, and kept. Those over 16 MiB are "
        "split into parts.",
    )
    allow: list[Network] = Field(
        default_factory=list,
        description="networks or addresses that may connect; all if empty",
    )
    rate: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="messages per second that are read from one peer, an address or, on a Unix "
        "stream, a user; a peer that sends more on a stream waits, further datagrams over UDP are "
        "refused and counted",
    )
    add_host: bool = Field(
        False,
        description="put the sender's address (on a Unix socket this machine's name) into messages "
        "that name no host, as relays should (RFC 3164, 4.3); costs some microseconds a message",
    )
    receive_buffer: Annotated[Size, Field(ge=64 * 1024, le=1 << 30)] = Field(
        16 << 20, description="of the kernel, for datagrams that come faster than they are read"
    )
    mode: Annotated[
        int,
        BeforeValidator(_mode),
        Field(ge=0, le=0o777),
        WithJsonSchema({"type": "string", "format": "octal permissions"}),
    ] = Field(0o660, description='permissions of Unix sockets, like "0660"')

    @model_validator(mode="after")
    def _tls_where_it_is_spoken(self) -> SyslogOptions:
        spoken = any(address.scheme.endswith("tls") for address in self.addresses)
        if spoken and self.tls is None:
            raise ValueError("tls:// and relp+tls:// need `tls: {certificate: FILE, key: FILE}`")
        if self.tls is not None and not spoken:
            raise ValueError("`tls` has no effect without a tls:// address in `listen`")
        return self

    @property
    def addresses(self) -> list[SyslogAddress]:
        """Where it listens."""
        some = [self.listen] if isinstance(self.listen, str) else self.listen
        return [parse_address(one) for one in some]

    @property
    def binds(self) -> list[BindAddress]:
        """See `net.listening.Listening`."""
        return [address.bind for address in self.addresses]


_LISTENERS: Final[dict[str, type[DatagramListener | StreamListener]]] = {
    "udp": DatagramListener, "unixgram": DatagramListener,
    "relp": RelpListener, "relp+tls": RelpListener,
}  # fmt: skip
"""By scheme; all others are plain streams."""


class SyslogSource:
    """Receives what is sent to its addresses; one that cannot be opened stops them all."""

    def __init__(self, name: str, options: SyslogOptions) -> None:
        self.name, self._options = name, options

    async def run(self, intake: Intake, *, drain: bool) -> None:
        """Serve for ever; with `drain`, return when nothing came for a second and all have left.

        If cancelled, what the kernel has confirmed to senders is still read and handed over, if
        that takes no more than a second; then connections are closed. Raises TlsFilesUnusable
        before it listens where there can be no TLS, ListenRefused when an address cannot be taken.
        """
        options, activity = self._options, SourceActivity()
        log = structlog.get_logger().bind(source=self.name)
        async with trio.open_nursery() as nursery:
            for address in options.addresses:
                kind = _LISTENERS.get(address.scheme, StreamListener)
                listener = kind(address, options, intake, log, activity)
                await listener.prepare()
                sockets = await intake.sockets.take(self.name, address.bind, mode=options.mode)
                port = None if address.path else sockets[0].getsockname()[1]
                await nursery.start(listener.run, sockets)
                log.info("listening", listen=str(address), port=port)
            nursery.start_soon(_alive, intake)
            if drain:
                await _quiet(activity)
                nursery.cancel_scope.cancel()


async def _alive(intake: Intake) -> None:
    while True:
        intake.progress()
        await trio.sleep(_ALIVE_S)


async def _quiet(activity: SourceActivity) -> None:
    while True:
        left_s = activity.arrived_at + _QUIET_S - trio.current_time()
        if left_s <= 0 and not activity.open:
            return
        await trio.sleep(max(left_s, _QUIET_S / 10))


SYSLOG: Final = SourceKind(
    SyslogOptions, SyslogSource, "syslog", "syslog from the network and from Unix sockets"
)

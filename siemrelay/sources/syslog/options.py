"""The options of the syslog source."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from siemrelay.core.options import Duration, Size
from siemrelay.net.listener_options import ConnectionCount, ListenerOptions, port_as_text
from siemrelay.net.listening_sockets import BindAddress
from siemrelay.sources.chunks import RecordSize
from siemrelay.sources.syslog.address import SyslogAddress, parse_address


def _listen(value: str) -> str:
    parse_address(value)
    return value


def _mode(value: Any) -> Any:
    """Octal digits, as text; YAML reads 0660 as the number that it is in octal, 660 as decimal."""
    if isinstance(value, str):
        try:
            return int(value, 8)
        except ValueError:
            raise ValueError('write permissions in octal, like "0660"') from None
    return value


Listen = Annotated[
    str, BeforeValidator(port_as_text, json_schema_input_type=str), AfterValidator(_listen)
]


class SyslogOptions(ListenerOptions):
    """Options of `type: syslog`."""

    tls_schemes = ("tls", "relp+tls")

    listen: Listen | Annotated[list[Listen], Field(min_length=1)] = Field(
        description="address to listen on, or a list: udp://0.0.0.0:514, tcp://0.0.0.0:514, "
        "tls://0.0.0.0:6514, relp://0.0.0.0:2514, relp+tls://0.0.0.0:2514, "
        "unix:///run/siemrelay/log.sock, unixgram:///run/siemrelay/log.sock. These ports need not "
        "be written; port 0 takes any free one. Octet counting, line feeds and NUL are recognised "
        "by themselves."
    )
    max_connections: ConnectionCount = Field(
        4096,
        description="connections served at a time, at each address; for one more, the idlest "
        "connection of the peer that has the most is closed",
    )
    first_message_timeout: Annotated[Duration, Field(gt=0)] = Field(
        300.0,
        description="close connections that send no message within this time",
    )
    idle_timeout: Annotated[Duration, Field(gt=0)] | None = Field(
        None,
        description="close connections that send nothing for this long; never by default, because "
        "quiet devices stay connected and the kernel detects dead peers",
    )
    max_record_size: RecordSize = Field(
        1 << 20,
        description="longer messages are counted as oversize, and kept. Those over 16 MiB are "
        "split into parts",
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
        WithJsonSchema(
            {
                "type": ["string", "integer"],
                "pattern": "^[0-7]{1,4}$",
                "format": "octal permissions",
            }
        ),
    ] = Field(0o660, description='permissions of Unix sockets, like "0660"')

    @property
    def addresses(self) -> list[SyslogAddress]:
        """The addresses in `listen`."""
        return [parse_address(url) for url in self.listen_urls]

    @property
    def binds(self) -> list[BindAddress]:
        """See `net.listening_sockets.Listening`."""
        binds = [address.bind for address in self.addresses]
        return [
            bind if bind.port or bind.path else bind._replace(nth=number)
            for number, bind in enumerate(binds)
        ]

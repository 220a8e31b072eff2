"""Where a source listens for HTTP, and within which limits: what web hooks and HEC have alike."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from typing import Annotated, Final, NamedTuple
from urllib.parse import urlsplit

import structlog
import trio
from pydantic import AfterValidator, Field, model_validator

from siemrelay.core.options import Duration, Options, Size
from siemrelay.net.http_exchange import Application, Limits
from siemrelay.net.http_server import Handshakes, HttpServer
from siemrelay.net.listener import Door
from siemrelay.net.refusals import Refusals
from siemrelay.net.tls_server import ServerContexts, ServerTlsOptions
from siemrelay.sources.contract import Intake
from siemrelay.sources.cutting import MAX_WHOLE_BYTES

_log = structlog.get_logger()

# Visible ASCII without what a URL's path ends at.
_PATH: Final = re.compile(r"(/[!\"$-.0->@-~]*)*")


class Place(NamedTuple):
    """A `listen` taken apart."""

    tls: bool
    host: str
    port: int
    path: str

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host.partition("%")[0]).is_loopback
        except ValueError:
            return False


def place_of(listen: str) -> Place:
    """`https://0.0.0.0:8443/events` taken apart. Raises ValueError with an example."""
    example = "write http(s)://HOST:PORT/PATH, like https://0.0.0.0:8443/events"
    try:
        parts = urlsplit(listen)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{error}; {example}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port is None:
        raise ValueError(example)
    if parts.username is not None or parts.query or parts.fragment or not _PATH.fullmatch(
        parts.path
    ):  # fmt: skip
        raise ValueError(f"only scheme, address, port and path belong here; {example}")
    return Place(parts.scheme == "https", parts.hostname, port, parts.path or "/")


def _listen(value: str) -> str:
    place_of(value)
    return value


def _network(value: str) -> str:
    try:
        return str(ip_network(value, strict=False))
    except ValueError:
        raise ValueError("write a network like 10.0.0.0/8, or an address") from None


Listen = Annotated[str, AfterValidator(_listen)]
Network = Annotated[str, AfterValidator(_network)]


class HttpListenOptions(Options):
    """What every source that is posted to may set."""

    listen: Listen = Field(
        description="address to listen on, like https://0.0.0.0:8443/events; port 0 takes any "
        "free one"
    )
    allow: list[Network] = Field(
        default_factory=list,
        description="networks or addresses that may connect; everybody if empty",
    )
    max_body: Annotated[Size, Field(ge=1024, le=MAX_WHOLE_BYTES)] = Field(
        10 << 20,
        description="the largest request body, also after decompression; larger ones get 413",
    )
    max_connections: Annotated[int, Field(ge=1, le=10_000)] = Field(
        256,
        description="connections served at a time; more of them wait. No single peer gets more "
        "than half of them, unless `listen` is a loopback address, where a proxy stands for many",
    )
    idle_timeout: Annotated[Duration, Field(gt=0)] = Field(
        75.0, description="how long a connection may be silent between two requests"
    )
    request_timeout: Annotated[Duration, Field(gt=0)] = Field(
        60.0,
        description="how long one request may take to arrive, and its answer to be read",
    )

    tls: ServerTlsOptions | None = Field(
        None, description="certificate and key for https, and which clients are let in"
    )

    @model_validator(mode="after")
    def _tls_where_it_says_so(self) -> HttpListenOptions:
        if self.place.tls and self.tls is None:
            raise ValueError(
                "`https` needs `tls: {certificate: FILE, key: FILE}`; without them listen on "
                "http://127.0.0.1:PORT behind a TLS proxy"
            )
        if self.tls is not None and not self.place.tls:
            raise ValueError("`tls` has no effect on http://; write https:// in `listen`")
        return self

    @property
    def place(self) -> Place:
        """Where it listens."""
        return place_of(self.listen)

    @property
    def limits(self) -> Limits:
        """The server's share of the options."""
        return Limits(self.max_body, self.idle_timeout, self.request_timeout)


async def take_address(
    name: str, options: HttpListenOptions, *, open_to_all: bool
) -> list[trio.SocketListener]:
    """Begin to listen. `open_to_all`: the source asks nobody who he is, which is warned of.

    Raises OSError when the address cannot be taken.
    """
    place = options.place
    open_to_all &= options.tls is None or options.tls.client_ca is None
    if open_to_all and not place.is_loopback:
        _log.warning(
            "everybody who reaches this address can write audit events", source=name,
            listen=options.listen,
            advice="set `authorization`, `signature` or `tls: {client_ca: FILE}`, or listen on "
            "127.0.0.1",
        )  # fmt: skip
    try:
        listeners = await trio.open_tcp_listeners(place.port, host=place.host)
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot listen on {place.host} port {place.port}: {error.strerror or error}; set "
            "`listen` to a free address of this machine",
        ) from error
    port = listeners[0].socket.getsockname()[1]
    _log.info("listening", source=name, listen=options.listen, port=port)
    return listeners


async def serve(
    listeners: list[trio.SocketListener], name: str, options: HttpListenOptions,
    application: Application, intake: Intake, *, drain: bool,
) -> None:  # fmt: skip
    """Answer until cancelled, or with `drain` until nothing comes any more.

    Raises TlsFilesUnusable when there is no certificate to show.
    """
    tls = Handshakes(ServerContexts(options.tls)) if options.tls is not None else None
    if tls is not None:
        await tls.prepare()
    refusals = Refusals(_log.bind(source=name), options.listen, intake.refused)
    # Behind a proxy on this machine, its address is everybody's.
    door = Door(
        [ip_network(text) for text in options.allow], options.max_connections, refusals,
        proxied=options.place.is_loopback,
    )  # fmt: skip
    server = HttpServer(application, intake, options.limits, tls, door, name)
    await server.run(listeners, drain=drain)

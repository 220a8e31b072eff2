"""The options of every listener: who may connect, how often, and with which certificates."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, ClassVar, Final, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, Field, model_validator

from siemrelay.core.options import Options
from siemrelay.net.listener import ConnectionLimiter
from siemrelay.net.rejection_log import RejectionLog
from siemrelay.net.tls_server import ServerTlsOptions


def _network(value: str) -> str:
    try:
        return str(ip_network(value, strict=False))
    except ValueError:
        raise ValueError("write a network like 10.0.0.0/8, or an address") from None


_NO_SCHEME: Final = re.compile(r"(?:(?P<host>[\w.-]+|\[[\da-fA-F:.]+\]):|:)?(?P<port>\d{1,5})")


def port_as_text(value: Any) -> Any:
    """A port that stands alone is a number in YAML; as text its fault can say what to write."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def without_scheme(listen: str) -> str | None:
    """HOST:PORT of an address that lacks its scheme (`514`, `:514`); None for everything else."""
    match = _NO_SCHEME.fullmatch(listen.strip())
    return match and f"{match['host'] or '0.0.0.0'}:{match['port']}"


def split_address(listen: str, example: str) -> SplitResult:
    """The parts of an address to listen at. Raises ValueError with the example."""
    try:
        parts = urlsplit(listen)
        _ = parts.port  # it is looked at only now
    except ValueError:
        raise ValueError(f"not an address with a port from 0 to 65535; {example}") from None
    return parts


Network = Annotated[str, AfterValidator(_network)]
ConnectionCount = Annotated[int, Field(ge=1, le=10_000)]


class ListenerOptions(Options):
    """Options of every source to which peers connect.

    A source says what may stand in `listen`, and which of its schemes are those of TLS.
    """

    tls_schemes: ClassVar[tuple[str, ...]]
    tls_alternative: ClassVar[str] = ""
    """The alternative to a certificate, for the fault that asks for one."""

    listen: str | list[str]
    tls: ServerTlsOptions | None = Field(
        None, description="the certificate to show over TLS, and which clients are let in"
    )
    allow: list[Network] = Field(
        default=[],
        description="networks or addresses that may connect; all if empty",
    )
    max_connections: ConnectionCount = Field(
        256,
        description="connections served at a time; for one more, the idlest connection of the "
        "address that has the most is closed",
    )
    max_connections_per_address: ConnectionCount | None = Field(
        None,
        description="of them, those of one address (in IPv6, of one /64 network; on a Unix socket, "
        "of one user); half of `max_connections` by default",
    )

    @property
    def listen_urls(self) -> list[str]:
        """The addresses in `listen`, as they are written."""
        return [self.listen] if isinstance(self.listen, str) else self.listen

    @model_validator(mode="after")
    def _tls_where_it_is_spoken(self) -> Self:
        schemes = {url.partition("://")[0].lower() for url in self.listen_urls}
        speaks_tls = not schemes.isdisjoint(self.tls_schemes)
        shown = " or ".join(f"{scheme}://" for scheme in self.tls_schemes)
        if speaks_tls and self.tls is None:
            raise ValueError(
                f"{shown} in `listen` needs `tls: {{certificate: FILE, key: FILE}}`"
                + self.tls_alternative
            )
        if self.tls is not None and not speaks_tls:
            raise ValueError(f"`tls` has no effect without {shown} in `listen`")
        return self

    @property
    def networks(self) -> list[IPv4Network | IPv6Network]:
        """`allow`, as networks to compare addresses with."""
        return [ip_network(text) for text in self.allow]

    def limiter(self, rejections: RejectionLog, *, proxied: bool = False) -> ConnectionLimiter:
        """The limits for the sockets of one address; `proxied` as in `ConnectionLimiter`."""
        return ConnectionLimiter(
            self.networks, self.max_connections, rejections,
            most_of_one=self.max_connections_per_address, proxied=proxied,
        )  # fmt: skip

"""The options of the HTTP endpoint, `endpoint:` in the configuration."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field

from siemrelay.core.options import NonEmpty, Options

_MAX_PORT: Final = 65535


def _listen(value: Any) -> Any:
    if value is False:  # YAML's `off`
        return "off"
    if isinstance(value, int):
        port = value if 1024 <= value <= _MAX_PORT else 9614
        raise ValueError(f"write HOST:PORT, like 127.0.0.1:{port}, or off")
    if isinstance(value, str) and value != "off":
        _address(value)
    return value


def _address(value: str) -> tuple[str, int]:
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit():
        raise ValueError("write HOST:PORT, like 127.0.0.1:9614, or off")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError("put an IPv6 address in brackets, like [::1]:9614")
    if not 0 <= int(port) <= _MAX_PORT:
        raise ValueError("the port must be from 1 to 65535 (or 0 for any free one)")
    return host.strip("[]"), int(port)


HostPort = Annotated[str, Field(pattern=r"^(\[[^\]]+\]|[^:]+):\d{1,5}$|^off$")] | Literal[False]
"""The values of `listen` as written: YAML reads `off` as false."""


class EndpointOptions(Options):
    """Metrics, health and status."""

    listen: Annotated[str, BeforeValidator(_listen, json_schema_input_type=HostPort)] = Field(
        "127.0.0.1:9614", description="HOST:PORT of the page, metrics, health and status, or `off`"
    )
    hosts: list[NonEmpty] = Field(
        default=[],
        description="names that it answers to beside `localhost`, this machine's name and every IP "
        "address; requests for other names get 421, as a web page could send them from a browser "
        "on this machine",
    )

    show_events: bool = Field(
        False,
        description="whether the page shows actor, target and message of the last events, and not "
        "just their types: everybody who can reach the endpoint then reads them",
    )

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port to listen on (port 0: any free one); None when it is off."""
        return None if self.listen == "off" else _address(self.listen)

"""What is set for the process as a whole: its endpoint and its own log."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field

from siemrelay.core.options import Options

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


class EndpointOptions(Options):
    """Metrics, health and status."""

    listen: Annotated[str, BeforeValidator(_listen)] = Field(
        "127.0.0.1:9614", description="HOST:PORT to serve them on, or `off`"
    )

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port to listen on (port 0: any free one); None when it is off."""
        return None if self.listen == "off" else _address(self.listen)


class LogOptions(Options):
    """The relay's own log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="the least important lines that are written"
    )
    format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto` is console when attached to a terminal, else json"
    )

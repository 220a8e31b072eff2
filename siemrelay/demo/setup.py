"""The demo's configuration: two sources, three sinks, and what each sink should take."""

from __future__ import annotations

import glob
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from siemrelay.core.event_types import EventType
from siemrelay.demo.receivers import HOST

_CONFIGURATION: Final = """\
state_dir: {state_dir}
self_audit: no                       # so that the figures are those of the two products alone

sources:
  alm:
    type: file
    path: {alm}
    product: alm
  lightrun:
    type: file
    path: {lightrun}
    product: lightrun

sinks:
  syslog-udp:                        # everything, as the products' own default has it
    protocol: udp
    server: {host}
    port: {udp}
    format: syslog
  cef-tcp:                           # what an account team asks for
    protocol: tcp
    server: {host}
    port: {tcp}
    format: cef
    events:
      include: [category:account, category:request, "Provision *", New Synced User]
      exclude: [Account Requires Renewal]
    retry: {{initial: 200ms, max: 1s}}
  json-http:                         # log-ins and changed settings, but not every log-out
    url: http://{host}:{http}/events
    authorization: {authorization}
    events:
      include: [category:session, category:configuration]
      min_severity: 2
    batch: {{max_wait: 50ms}}

endpoint:
  listen: {host}:{endpoint}         # /metrics /healthz /readyz
shutdown_timeout: 3s
"""

_ALM_CATEGORIES: Final = ("account", "request")


def _cef_takes(known: EventType) -> bool:
    chosen = known.category in _ALM_CATEGORIES or known.name.startswith("Provision ")
    return (chosen or known.name == "New Synced User") and known.name != "Account Requires Renewal"


def _http_takes(known: EventType) -> bool:
    return known.category in ("session", "configuration") and known.severity >= 2


# Written again, independently of the relay's filter, so that the two can be compared.
CHOICES: Final[Mapping[str, Callable[[EventType], bool]]] = {
    "syslog-udp": lambda known: True,
    "cef-tcp": _cef_takes,
    "json-http": _http_takes,
}
"""A sink's name → whether it should take a type; the order is that of the view."""

TAKES: Final[Mapping[str, str]] = {
    "syslog-udp": "every event",
    "cef-tcp": "accounts",
    "json-http": "log-ins, config",
}
"""A sink's name → its choice in a word or two."""

TRANSPORTS: Final[Mapping[str, str]] = {
    "syslog-udp": "syslog/UDP",
    "cef-tcp": "CEF/TCP",
    "json-http": "JSON/HTTP",
}
"""A sink's name → format and protocol."""


@dataclass(frozen=True, slots=True)
class DemoFiles:
    """The files and ports of one demo."""

    directory: Path
    endpoint_port: int
    configuration: str

    @property
    def file(self) -> Path:
        """The configuration file."""
        return self.directory / "siemrelay.yaml"

    @property
    def log(self) -> Path:
        """The daemon's own log."""
        return self.directory / "siemrelay.log"


@contextmanager
def held_port() -> Iterator[int]:
    """A port for the daemon's endpoint, which nobody else gets before it: see `TcpReceiver`."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((HOST, 0))
        yield int(sock.getsockname()[1])


def write_configuration(
    directory: Path, ports: Mapping[str, int], endpoint_port: int, token: str
) -> DemoFiles:
    """Write configuration and token; `ports` has the receivers' ports by sink name."""
    token_file = directory / "token"
    token_file.touch(mode=0o600)
    token_file.write_text(token)
    # Only the part below the directory is a pattern: $TMPDIR may contain any character.
    inside = Path(glob.escape(str(directory)))
    text = _CONFIGURATION.format(
        host=HOST,
        state_dir=_scalar(directory / "state"),
        alm=_scalar(inside / "alm" / "audit*.json"),
        lightrun=_scalar(inside / "lightrun" / "audit*.json"),
        authorization=json.dumps(f"Bearer ${{file:{token_file}}}", ensure_ascii=False),
        udp=ports["syslog-udp"],
        tcp=ports["cef-tcp"],
        http=ports["json-http"],
        endpoint=endpoint_port,
    )
    files = DemoFiles(directory, endpoint_port, text)
    files.file.write_text(text)
    return files


def _scalar(path: Path) -> str:
    text = str(path)
    plain = all(char.isalnum() or char in "/._-*" for char in text)
    return text if plain else json.dumps(text, ensure_ascii=False)

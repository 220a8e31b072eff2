"""Real servers from Debian: found, started on loopback in a directory of their own, put away."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import pytest

from tests.support.daemon import until

# Daemons live where a user's PATH may not look.
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))


def missing(what: str) -> NoReturn:
    """What a test needs is not here: a failure under CI=true, else a skip."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}; under CI=true that is a failure")
    pytest.skip(what)


def program(name: str, package: str) -> str:
    """The program's path; see `missing`."""
    found = shutil.which(name, path=_PATH)
    return found or missing(f"{name} is not installed (Debian package {package})")


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A loopback port that nobody uses now, for servers that cannot choose one themselves."""
    with closing(socket.socket(socket.AF_INET, kind)) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


_PROPERTIES = (
    "pri", "syslogfacility", "syslogseverity", "hostname", "app-name", "programname", "syslogtag",
    "procid", "msgid", "structured-data", "msg", "rawmsg", "protocol-version", "inputname",
)  # fmt: skip

_CONFIGURATION = """
global(workDirectory="{directory}" parser.escapeControlCharactersOnReceive="on"
       parser.escapeControlCharacterTab="off" maxMessageSize="256k")
module(load="imudp")
module(load="{stream}")
template(name="parsed" type="list" option.jsonf="on") {{
{properties}
  property(outname="timereported" name="timereported" dateFormat="rfc3339" format="jsonf")
}}
ruleset(name="keep") {{
  action(type="omfile" file="{output}" template="parsed" asyncWriting="off")
}}
input(type="imudp" address="127.0.0.1" port="{udp}" ruleset="keep")
input(type="{stream}" address="127.0.0.1" port="{tcp}" ruleset="keep" {stream_settings})
"""


class Rsyslog:
    """rsyslogd on loopback, UDP and TCP, writing what it parsed as JSON lines.

    `stream` is the module that takes TCP: imtcp or imptcp. Both tell newline framing and octet
    counting apart by themselves.
    """

    def __init__(self, directory: Path, stream: str = "imtcp") -> None:
        self.output = directory / "parsed.jsonl"
        self.udp_port, self.tcp_port = free_port(socket.SOCK_DGRAM), free_port()
        configuration = directory / "rsyslog.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                directory=directory, stream=stream, output=self.output, udp=self.udp_port,
                tcp=self.tcp_port, stream_settings="",
                properties="\n".join(
                    f'  property(outname="{name}" name="{name}" format="jsonf")'
                    for name in _PROPERTIES
                ),
            )
        )  # fmt: skip
        self._errors = (directory / "rsyslog.err").open("wb")
        self._process = subprocess.Popen(
            [program("rsyslogd", "rsyslog"), "-n", "-f", str(configuration),
             "-i", str(directory / "rsyslog.pid")],
            stdin=subprocess.DEVNULL, stdout=self._errors, stderr=self._errors,
        )  # fmt: skip
        until(self._listens, what="rsyslogd listening")

    def _listens(self) -> bool:
        assert self._process.poll() is None, Path(self._errors.name).read_text()
        with closing(socket.socket()) as sock:
            return sock.connect_ex(("127.0.0.1", self.tcp_port)) == 0

    @property
    def parsed(self) -> list[dict[str, Any]]:
        """Every record so far, as rsyslog understood it."""
        if not self.output.exists():
            return []
        whole = self.output.read_bytes().rpartition(b"\n")[0].splitlines()
        return [json.loads(line) for line in whole]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._process.terminate()
        self._process.wait(20)
        self._errors.close()

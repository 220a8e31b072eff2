"""rsyslogd on loopback: one that keeps raw messages, with any input, and one that parses them.

What it has taken is on the disk before it answers (its queue is a direct one), so that a `kill -9`
of it shows what its senders promise and not what it forgot.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.servers import Server, free_port, json_lines, missing, program

_CONFIGURATION = """
global(workDirectory="{directory}" maxMessageSize="256k" {settings})
template(name="raw" type="string" string="%rawmsg%\\n")
ruleset(name="keep" queue.type="Direct") {{
  action(type="omfile" file="{output}" template="raw" asyncWriting="off" flushOnTXEnd="on")
}}
{modules}
input({input} ruleset="keep")
"""

_MODULES = Path("/usr/lib")
_PACKAGES = {
    'load="imrelp"': ("imrelp.so", "rsyslog-relp"),
    'Driver="ossl"': ("lmnsd_ossl.so", "rsyslog-openssl"),
    'Driver="gtls"': ("lmnsd_gtls.so", "rsyslog-gnutls"),
}


def _need(configuration: str) -> None:
    for text, (file, package) in _PACKAGES.items():
        if text in configuration and next(_MODULES.glob(f"*/rsyslog/{file}"), None) is None:
            missing(f"rsyslog's {file} is not installed (Debian package {package})")


class Rsyslogd(Server):
    """One rsyslogd with one listening input; `output` has a raw message a line.

    `listens` is the Unix socket that it makes; None: it listens at `port`.
    """

    def __init__(
        self, directory: Path, modules: str, input: str, settings: str = "",
        listens: Path | None = None,
    ) -> None:  # fmt: skip
        super().__init__(free_port(), directory / "rsyslog.err", listens)
        self.directory = directory
        where = "" if listens else f'port="{self.port}"'
        self.output = directory / "output"
        self.output.touch()
        _need(modules + settings)
        (directory / "rsyslog.conf").write_text(
            _CONFIGURATION.format(
                directory=directory, settings=settings, output=self.output, modules=modules,
                input=f"{input} {where}",
            )
        )  # fmt: skip

    def command(self) -> tuple[list[str], dict[str, str]]:
        return _command(self.directory), {}

    @property
    def messages(self) -> list[bytes]:
        """Every whole message so far."""
        return self.output.read_bytes().rpartition(b"\n")[0].splitlines()


def _command(directory: Path) -> list[str]:
    return [
        program("rsyslogd", "rsyslog"), "-n", "-f", str(directory / "rsyslog.conf"),
        "-i", str(directory / "rsyslog.pid"),
    ]  # fmt: skip


_PROPERTIES = (
    "pri", "syslogfacility", "syslogseverity", "hostname", "app-name", "programname", "syslogtag",
    "procid", "msgid", "structured-data", "msg", "rawmsg", "protocol-version", "inputname",
)  # fmt: skip

_PARSING = """
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
input(type="imudp" address="127.0.0.1" port="{udp}" ruleset="keep" rcvbufSize="4m")
input(type="{stream}" address="127.0.0.1" port="{tcp}" ruleset="keep" {stream_settings})
"""


class ParsingRsyslogd(Server):
    """rsyslogd that takes UDP and TCP and writes what it parsed as JSON lines.

    `stream` is the module that takes TCP: imtcp or imptcp. Both tell newline framing and octet
    counting apart by themselves.
    """

    def __init__(self, directory: Path, stream: str = "imtcp") -> None:
        super().__init__(free_port(), directory / "rsyslog.err")
        self.directory, self._output = directory, directory / "parsed.jsonl"
        self.udp_port = free_port(socket.SOCK_DGRAM)
        (directory / "rsyslog.conf").write_text(
            _PARSING.format(
                directory=directory, stream=stream, output=self._output, udp=self.udp_port,
                tcp=self.port, stream_settings="",
                properties="\n".join(
                    f'  property(outname="{name}" name="{name}" format="jsonf")'
                    for name in _PROPERTIES
                ),
            )
        )  # fmt: skip

    def command(self) -> tuple[list[str], dict[str, str]]:
        return _command(self.directory), {}

    @property
    def parsed(self) -> list[dict[str, Any]]:
        """Every record so far, as rsyslog understood it."""
        return json_lines(self._output)


_FILING = """
global(workDirectory="{directory}" maxMessageSize="64k")
module(load="imtcp")
ruleset(name="keep") {{
  action(type="omfile" file="{files}/file" template="RSYSLOG_FileFormat")
  action(type="omfile" file="{files}/traditional" template="RSYSLOG_TraditionalFileFormat")
  action(type="omfile" file="{files}/protocol23" template="RSYSLOG_SyslogProtocol23Format")
}}
input(type="imtcp" address="127.0.0.1" port="{port}" ruleset="keep")
"""


class FilingRsyslogd(Server):
    """rsyslogd that takes TCP and writes `files` by its own templates, with its own defaults."""

    def __init__(self, directory: Path) -> None:
        super().__init__(free_port(), directory / "rsyslog.err")
        self.directory, self.files = directory, directory / "rsyslog"
        self.files.mkdir()
        (directory / "rsyslog.conf").write_text(
            _FILING.format(directory=directory, files=self.files, port=self.port)
        )

    def command(self) -> tuple[list[str], dict[str, str]]:
        return _command(self.directory), {}


@contextmanager
def sending(directory: Path, configuration: str) -> Iterator[None]:
    """rsyslogd with this configuration of a sender, from `with` to its end."""
    (directory / "rsyslog.conf").write_text(configuration)
    process = subprocess.Popen(
        _command(directory), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)

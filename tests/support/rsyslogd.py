"""rsyslogd with any inputs, on loopback: started, killed and started again on the same port.

What it has taken is on the disk before it answers (its queue is a direct one), so that a `kill -9`
of it shows what its senders promise and not what it forgot.
"""

from __future__ import annotations

import subprocess
from contextlib import closing
from pathlib import Path
from socket import socket
from types import TracebackType
from typing import Self

from tests.support.daemon import until
from tests.support.servers import free_port, missing, program

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


class Rsyslogd:
    """One rsyslogd with one listening input; `output` has a raw message a line.

    `listens` is the Unix socket that it makes; None: it listens at `port`.
    """

    def __init__(
        self, directory: Path, modules: str, input: str, settings: str = "",
        listens: Path | None = None,
    ) -> None:  # fmt: skip
        self.directory, self.port, self._socket = directory, free_port(), listens
        where = "" if listens else f'port="{self.port}"'
        self.output = directory / "output"
        self.output.touch()
        _need(modules + settings)
        self._configuration = directory / "rsyslog.conf"
        self._configuration.write_text(
            _CONFIGURATION.format(
                directory=directory, settings=settings, output=self.output, modules=modules,
                input=f"{input} {where}",
            )
        )  # fmt: skip
        self._errors = directory / "rsyslog.err"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it and wait until it listens."""
        assert self._process is None
        with self._errors.open("ab") as errors:
            self._process = subprocess.Popen(
                [program("rsyslogd", "rsyslog"), "-n", "-f", str(self._configuration),
                 "-i", str(self.directory / "rsyslog.pid")],
                stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
            )  # fmt: skip
        until(self._listens, what="rsyslogd listening")
        return self

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.errors
        if self._socket is not None:
            return self._socket.exists()
        with closing(socket()) as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(20)
        self._process = None

    def stop(self) -> None:
        """SIGTERM, and wait for the end."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(20)
        self._process = None

    @property
    def errors(self) -> str:
        """What it said about itself."""
        return self._errors.read_text(errors="replace")

    @property
    def messages(self) -> list[bytes]:
        """Every whole message so far."""
        return self.output.read_bytes().rpartition(b"\n")[0].splitlines()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if self._process is not None:
            self.stop()

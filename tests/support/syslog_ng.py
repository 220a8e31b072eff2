"""syslog-ng on loopback, unpacked beside rsyslog (as packages the two exclude each other).

`tests/run` unpacks it into `syslog-ng` of the environment; an installed one will do as well.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from socket import socket
from types import TracebackType
from typing import Any, Self

from tests.support.daemon import until
from tests.support.servers import free_port, missing

_UNPACKED = Path(sys.prefix) / "syslog-ng"

_CONFIGURATION = """
@version: 3.35
options {{ keep-hostname(yes); use-dns(no); log-msg-size(262144); stats-freq(0); }};
source s {{ {driver}(ip("127.0.0.1") port({port}) {source}); }};
template t {{ template("$(format-json --scope rfc5424 --key MSGID,PROCID)\\n"); }};
destination d {{ file("{output}" template(t)); }};
log {{ source(s); destination(d); }};
"""


def command() -> tuple[list[str], dict[str, str]]:
    """The command and the environment that it wants."""
    installed = shutil.which("syslog-ng", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if installed:
        return [installed], {}
    found = _UNPACKED / "usr/sbin/syslog-ng"
    modules = next(iter(_UNPACKED.glob("usr/lib/syslog-ng/[0-9]*")), None)
    if not found.exists() or modules is None:
        missing("syslog-ng is not installed (Debian package syslog-ng-core; tests/run unpacks it)")
    libraries = {str(path.parent) for path in _UNPACKED.rglob("lib*.so*") if path.is_file()}
    return (
        [str(found), f"--module-path={modules}"],
        {"LD_LIBRARY_PATH": ":".join(sorted(libraries))},
    )


class SyslogNg:
    """One syslog-ng with one source; `source` is what follows its address and port.

    `driver`: `network` (newline framing), or `syslog` (RFC 5424 with octet counting).
    """

    def __init__(self, directory: Path, source: str, driver: str = "network") -> None:
        self.port = free_port()
        self._output, self._errors = directory / "parsed.jsonl", directory / "syslog-ng.err"
        configuration = directory / "syslog-ng.conf"
        configuration.write_text(
            _CONFIGURATION.format(driver=driver, port=self.port, source=source, output=self._output)
        )
        program, environment = command()
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [*program, "--foreground", "--no-caps", "--stderr", f"--cfgfile={configuration}",
                 f"--persist-file={directory}/persist", f"--control={directory}/control",
                 f"--pidfile={directory}/pid"],
                stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
                env={**os.environ, **environment},
            )  # fmt: skip
        until(self._listens, what="syslog-ng listening")

    def _listens(self) -> bool:
        assert self._process.poll() is None, self._errors.read_text()
        with closing(socket()) as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    @property
    def parsed(self) -> list[dict[str, Any]]:
        """Every record so far, as syslog-ng understood it."""
        if not self._output.exists():
            return []
        whole = self._output.read_bytes().rpartition(b"\n")[0].splitlines()
        return [json.loads(line) for line in whole]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._process.terminate()
        self._process.wait(20)

"""syslog-ng on loopback, unpacked beside rsyslog (as packages the two exclude each other).

`tests/run` unpacks it into `syslog-ng` of the environment; an installed one will do as well.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from tests.support.servers import Server, free_port, json_lines, missing

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


class SyslogNg(Server):
    """One syslog-ng with one source; `source` is what follows its address and port.

    `driver`: `network` (newline framing), or `syslog` (RFC 5424 with octet counting).
    """

    def __init__(self, directory: Path, source: str = "", driver: str = "network") -> None:
        super().__init__(free_port(), directory / "syslog-ng.err")
        self.directory, self._output = directory, directory / "parsed.jsonl"
        (directory / "syslog-ng.conf").write_text(
            _CONFIGURATION.format(driver=driver, port=self.port, source=source, output=self._output)
        )

    def command(self) -> tuple[list[str], dict[str, str]]:
        return _running(self.directory)

    @property
    def parsed(self) -> list[dict[str, Any]]:
        """Every record so far, as syslog-ng understood it."""
        return json_lines(self._output)


_FILING = """
@version: 3.35
options {{ keep-hostname(yes); use-dns(no); log-msg-size(262144); stats-freq(0); }};
source s {{ network(ip("127.0.0.1") port({port})); }};
destination d {{ file("{file}"); }};
log {{ source(s); destination(d); }};
"""


class FilingSyslogNg(Server):
    """syslog-ng that takes TCP and writes `file` by its own template."""

    def __init__(self, directory: Path) -> None:
        super().__init__(free_port(), directory / "syslog-ng.err")
        self.directory, self.file = directory, directory / "file"
        (directory / "syslog-ng.conf").write_text(_FILING.format(port=self.port, file=self.file))

    def command(self) -> tuple[list[str], dict[str, str]]:
        return _running(self.directory)


def _running(here: Path) -> tuple[list[str], dict[str, str]]:
    program, environment = command()
    return [
        *program, "--foreground", "--no-caps", "--stderr", f"--cfgfile={here}/syslog-ng.conf",
        f"--persist-file={here}/persist", f"--control={here}/control", f"--pidfile={here}/pid",
    ], environment  # fmt: skip

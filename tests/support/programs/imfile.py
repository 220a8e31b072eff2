"""rsyslogd following files (imfile), as a peer beside the relay."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.servers import program

_CONFIGURATION = """
global(workDirectory="{state}" maxMessageSize="256k")
module(load="imfile" mode="inotify")
template(name="message" type="string" string="%msg%\\n")
ruleset(name="keep" queue.type="Direct") {{
  action(type="omfile" file="{output}" template="message" asyncWriting="off" flushOnTXEnd="on")
}}
input(type="imfile" file="{pattern}" tag="log" ruleset="keep" reopenOnTruncate="on")
"""


class Imfile:
    """One rsyslogd that follows the files of a glob; `output` has a message a line."""

    def __init__(self, directory: Path, pattern: Path) -> None:
        directory.mkdir()
        state = directory / "state"
        state.mkdir()
        self.output = directory / "output"
        self._configuration = directory / "rsyslog.conf"
        self._configuration.write_text(
            _CONFIGURATION.format(state=state, output=self.output, pattern=pattern)
        )
        self._errors = directory / "errors"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        assert self._process is None
        with self._errors.open("ab") as errors:
            self._process = subprocess.Popen(
                [program("rsyslogd", "rsyslog"), "-n", "-f", str(self._configuration),
                 "-i", str(self._configuration.with_suffix(".pid"))],
                stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
            )  # fmt: skip

    def stop(self) -> None:
        """SIGTERM, and wait for the end."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None

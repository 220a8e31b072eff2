"""Debian's logrotate, run on the logs of a test with any options."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.servers import program

# `copytruncate` itself loses what is written between its copy and its truncation. With this the
# program that writes the log pauses for that long, as a careful operator lets it.
_HOLD = """
  prerotate
    log={control}/${{1##*/}}
    [ -e $log.writer ] || exit 0
    touch $log.hold
    while [ ! -e $log.held ]; do sleep 0.01; done
  endscript
  postrotate
    rm -f {control}/${{1##*/}}.hold
  endscript
"""


class Logrotate:
    """`rotate()` runs it once on the logs that `pattern` matches.

    `options` are directives of logrotate.conf(5), separated by semicolons. With `holds`, writers
    that were given `hold_of` their log pause while it is copied and truncated.
    """

    def __init__(
        self, directory: Path, pattern: Path, options: str, *, holds: bool = False
    ) -> None:
        self._program = program("logrotate", "logrotate")
        self._control = directory / "control"
        self._control.mkdir()
        self._status = directory / "logrotate.status"
        self._file = directory / "logrotate.conf"
        for command, package in (("bzip2", "bzip2"), ("xz", "xz-utils"), ("zstd", "zstd")):
            if f"compresscmd {command}" in options:
                program(command, package)
        lines = "".join(f"  {option.strip()}\n" for option in options.split(";"))
        hold = _HOLD.format(control=self._control) if holds else ""
        self._file.write_text(f'"{pattern}" {{\n  missingok\n{lines}{hold}}}\n')
        self._file.chmod(0o600)

    def hold_of(self, log: Path) -> Path:
        """The file that exists while the log's writer has to pause; there must be a writer."""
        (self._control / f"{log.name}.writer").touch()
        return self._control / f"{log.name}.hold"

    def rotate(self, *, force: bool = True) -> None:
        """Rotate now; without `force`, what its options say is due."""
        command = [self._program, *(["--force"] if force else []), "--state", str(self._status)]
        done = subprocess.run(
            [*command, str(self._file)], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr

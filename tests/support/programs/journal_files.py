"""Journal files that systemd itself writes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

REMOTE = Path("/lib/systemd/systemd-journal-remote")

MISSING = not (shutil.which("journalctl") and REMOTE.exists()) and not os.environ.get("CI")
"""Whether the programs are not installed; in CI they must be."""


def write_journal(directory: Path, numbers: range, message: str = "entry {}") -> None:
    """A journal file with an entry for each number, made by systemd from its export format."""
    directory.mkdir(exist_ok=True)
    export = "".join(
        f"__REALTIME_TIMESTAMP={1_700_000_000_000_000 + n}\n__MONOTONIC_TIMESTAMP={n + 1}\n"
        f"_BOOT_ID={'a' * 32}\nMESSAGE={message.format(n)}\n"
        f"SYSLOG_IDENTIFIER={'sshd' if n % 2 else 'cron'}\n"
        "_HOSTNAME=box\n_UID=0\n\n"
        for n in numbers
    )
    file = directory / f"audit-{numbers.start}.journal"
    subprocess.run(
        [REMOTE, "-o", file, "-"], input=export.encode(), check=True, capture_output=True
    )

"""Every single write, fsync and truncation of a buffer's life fails once, or for a while."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.torture.shim import Call, Shim
from tests.torture.sweep import Outcome
from tests.torture.workload import DISK_FAILED, NOT_STARTED

# A disk that is full stays so for a while: shorter than a look at it, and it is taken for broken.
FULL_CALLS = 30

# Cutting a file takes no room: a full disk that says otherwise is a broken one.
MAY_END = {Call.TRUNCATE: (DISK_FAILED,)}

STRIDES = {Call.WRITE: 9, Call.SYNC: 4, Call.TRUNCATE: 1}


def sweep(
    library: Path, ram: Path, call: Call, error: int, times: int, seed: int, *, every: bool
) -> list[Outcome]:
    root = ram / "sweep"
    root.mkdir()
    with Shim(library, root) as shim:
        done = subprocess.run(
            [sys.executable, "-m", "tests.torture.sweep", library, root, call.name, str(error),
             str(times), str(1 if every else STRIDES[call]), str(seed)],
            env=shim.environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert not done.returncode, done.stderr
    found = [msgspec.json.decode(line, type=Outcome) for line in done.stdout.splitlines()]
    print(f"{len(found)} calls failed")
    assert found
    return found


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("call", STRIDES)
def test_an_io_error_ends_the_relay_and_the_next_one_has_all_that_was_acknowledged(
    library: Path, ram: Path, seed: int, call: Call, every: bool
) -> None:
    for found in sweep(library, ram, call, errno.EIO, 1, seed, every=every):
        # 0: SQLite can do without, as in a copy of the log that it tries again later.
        assert found.first in (0, DISK_FAILED, NOT_STARTED), found
        assert found.second == 0, found
        assert not found.broken, found


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", STRIDES)
def test_a_full_disk_is_waited_for_and_nothing_acknowledged_is_lost(
    library: Path, ram: Path, seed: int, call: Call, error: int, every: bool
) -> None:
    for found in sweep(library, ram, call, error, FULL_CALLS, seed, every=every):
        assert found.first in (0, NOT_STARTED, *MAY_END.get(call, ())), found
        assert found.second == 0, found
        assert not found.broken, found

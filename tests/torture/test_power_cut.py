"""The power fails at every point of a buffer's life; a relay starts on what the disk then holds."""

from __future__ import annotations

import errno
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.torture.laws import Past, broken_laws
from tests.torture.power_cut import Disk, Operation, read_log
from tests.torture.shim import Call, Shim
from tests.torture.workload import DISK_FAILED, NOT_STARTED

LIVES = 3
STEPS = 12

# Where a file system tears: a disk's sector, a page of the kernel's.
SECTORS = (512, 4096)
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)

# The seed of a life that stores 25 records.
CONTROL = 5


class Cuts:
    """Builds crash images in one place and starts a relay on each."""

    def __init__(self, directory: Path, seed: object) -> None:
        self.images = 0
        self._image, self._chance = directory / "image", random.Random(str(seed))

    def at(self, disk: Disk, past: Past, shares: tuple[float, ...] = ()) -> list[str]:
        """What goes wrong after a cut here: with nothing of what is not certain, with all of it,
        and with some of it; or with these shares of it.
        """
        broken = []
        for share in shares or (0, 1, self._chance.choice(SHARES)):
            self.write(disk, share)
            broken += [f"{share}: {law}" for law in broken_laws(self._image / "state", past)]
        return broken

    def write(self, disk: Disk, share: float) -> Path:
        """One image."""
        self.images += 1
        shutil.rmtree(self._image, ignore_errors=True)
        sector = self._chance.choice(SECTORS)
        disk.write_image(self._image, self._chance, share=share, sector=sector)
        return self._image


def live(shim: Shim, root: Path, seed: object, steps: int) -> int:
    """One process of the workload; its exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.torture.workload", root, str(seed), str(steps)],
        env=shim.environment(recorded=True), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, DISK_FAILED, NOT_STARTED), done.stderr
    return done.returncode


def record(library: Path, root: Path, seed: object, steps: int = STEPS) -> list[Operation]:
    """What a few lives of one buffer did to the disk."""
    root.mkdir(exist_ok=True)
    with Shim(library, root) as shim:
        for number in range(LIVES):
            assert live(shim, root, f"{seed}.{number}", steps) == 0
        return [*read_log(shim.log)]


def replay(log: list[Operation], disk: Disk, past: Past) -> Iterator[Operation]:
    """Give each operation before it reaches the disk; what was acknowledged is noted after it."""
    for operation in log:
        yield operation
        disk.apply(operation)
        if operation.call == Call.WRITE and operation.path == "/marks":
            past.note(operation.data)


@pytest.mark.parametrize("lives", [1, pytest.param(40, marks=pytest.mark.slow)])
def test_after_a_power_cut_at_any_point_everything_acknowledged_arrives(
    library: Path, ram: Path, seed: int, lives: int
) -> None:
    chance = random.Random(seed)
    for number in range(lives):
        log = record(library, ram / f"root{number}", f"{seed}.{number}")
        disk, past, cuts = Disk(), Past(), Cuts(ram, seed)
        for at, operation in enumerate(replay(log, disk, past)):
            # What is not certain yet is most just before an fsync.
            every = operation.call == Call.SYNC or operation.path == "/marks"
            shares = () if every else (chance.choice((0, *SHARES, 1)),)
            assert not cuts.at(disk, past, shares), (at, operation.call, operation.path)
        assert not cuts.at(disk, past)
        print(f"{len(log)} operations, {cuts.images} images, {len(past.stored)} records")


def test_a_disk_that_ignores_fsync_loses_acknowledged_records(library: Path, ram: Path) -> None:
    """The control: without the fsyncs, the same cuts break the laws. One chosen life: another may
    store nothing, and then has nothing to lose.
    """
    log = record(library, ram / "root", CONTROL)
    disk, past, cuts = Disk(ignore_syncs=True), Past(), Cuts(ram, CONTROL)
    broken = [
        law
        for operation in replay(log, disk, past)
        if operation.path == "/marks"
        for law in cuts.at(disk, past, (0, 0.5))
    ]
    print(f"{len(broken)} broken laws in {cuts.images} images")
    assert any("acknowledged records do not arrive" in law for law in broken)
    assert any("is used again" in law for law in broken)


@pytest.mark.parametrize("crashes", [4, pytest.param(150, marks=pytest.mark.slow)])
def test_a_power_cut_while_it_recovers_from_a_power_cut_loses_nothing_either(
    library: Path, ram: Path, seed: int, crashes: int
) -> None:
    log, chance = record(library, ram / "first", seed), random.Random(seed)
    chosen = set(chance.sample(range(len(log)), min(crashes, len(log))))
    disk, past, cuts = Disk(), Past(), Cuts(ram, seed)
    for at, operation in enumerate(replay(log, disk, past)):
        if at not in chosen:
            continue
        found = cuts.write(disk, chance.choice((0, *SHARES, 1)))
        root = found.rename(ram / f"second{at}")
        again, so_far = Disk(root), past.copy()
        with Shim(library, root) as shim:
            assert live(shim, root, f"{seed}.{at}", steps=4) == 0
            second = [*read_log(shim.log)]
        for then, later in enumerate(replay(second, again, so_far)):
            if later.call == Call.SYNC or later.path == "/marks":
                assert not cuts.at(again, so_far), (at, operation.path, then, later.path)
        shutil.rmtree(root)


@pytest.mark.parametrize("step", [37, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("error", "times"), [(errno.EIO, 1), (errno.ENOSPC, 12)])
def test_after_a_failed_fsync_and_a_restart_a_power_cut_loses_nothing(
    library: Path, ram: Path, seed: int, error: int, times: int, step: int
) -> None:
    """The kernel takes what a failed fsync did not write for clean: it is never written."""
    # Lives differ in their fsyncs: 26 in one, 55 in another. The first step always finds one.
    fsyncs = sum(done.call == Call.SYNC for done in record(library, ram / "untroubled", seed))
    failures = 0
    for skip in range(random.Random(seed).randrange(min(step, fsyncs)), 10_000, step):
        root = ram / f"root{skip}"
        root.mkdir()
        with Shim(library, root) as shim:
            shim.fail(Call.SYNC, error, skip=skip, times=times)
            for number in range(LIVES):
                live(shim, root, f"{seed}.{number}", STEPS)
            if not shim.failed:
                break
            failures += 1
            log = [*read_log(shim.log)]
        failed = [operation.call == Call.FAILED_SYNC for operation in log].index(True)
        disk, past, cuts = Disk(), Past(), Cuts(ram, seed)
        for at, operation in enumerate(replay(log, disk, past)):
            if at > failed and (operation.call == Call.SYNC or operation.path == "/marks"):
                assert not cuts.at(disk, past, (0, 0.5)), (skip, log[failed].path, at)
        shutil.rmtree(root)
    assert failures

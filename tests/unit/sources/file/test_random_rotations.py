"""A writer that appends and rotates in every way, a source that is stopped and started at any
point: every line arrives exactly once, in order.
"""

from __future__ import annotations

import gzip
import os
import random
import shutil
from itertools import zip_longest
from pathlib import Path

import pytest
import trio

from tests.support.rotation.file_source_rig import PATIENCE_S, CollectingIntake, append, source


class Writer:
    """An application with its logrotate; everything here is one step that awaits nothing."""

    def __init__(self, directory: Path, rng: random.Random) -> None:
        self.log = directory / "audit.log"
        self.rng = rng
        self.written: list[bytes] = []
        self.log.touch()

    def write(self) -> None:
        """Some lines, in pieces that need not end where a line ends."""
        fresh = []
        for _ in range(self.rng.choice([1, 1, 3, 40])):
            width = self.rng.choice([0, 20, 400, 3000])
            fresh.append(b"%d-%d-%s" % (len(self.written), width, b"x" * width))
            self.written.append(fresh[-1])
        data = b"".join(line + b"\n" for line in fresh)
        cut = self.rng.randrange(len(data))
        append(self.log, data[:cut])
        append(self.log, data[cut:])

    def _shift(self, first: int) -> None:
        """logrotate's renaming: .1 becomes .2 and so on, from the oldest; and so do their .gz."""
        numbers = [
            int(path.name.removesuffix(".gz").rsplit(".", 1)[1])
            for path in self.log.parent.glob("audit.log.*")
        ]
        for number in sorted(numbers, reverse=True):
            for suffix in ("", ".gz"):
                path = self.log.with_name(f"audit.log.{number}{suffix}")
                if number >= first and path.exists():
                    path.rename(self.log.with_name(f"audit.log.{number + 1}{suffix}"))

    def rename(self) -> None:
        self._shift(1)
        self.log.rename(self.log.with_name("audit.log.1"))
        self._begin()

    def copytruncate(self) -> None:
        self._shift(1)
        shutil.copyfile(self.log, self.log.with_name("audit.log.1"))
        os.truncate(self.log, 0)

    def delete_and_create(self) -> None:
        self.log.unlink()
        self._begin()

    def compress(self) -> None:
        plain = [path for path in self.log.parent.glob("audit.log.*") if path.suffix != ".gz"]
        for path in plain[:1]:
            packed = path.with_name(path.name + ".gz")
            packed.write_bytes(gzip.compress(path.read_bytes()))
            os.utime(packed, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))  # as gzip does
            path.unlink()

    def _begin(self) -> None:
        self.log.touch()


@pytest.mark.parametrize("pattern", ["audit.log", "audit.log*"])
@pytest.mark.parametrize("seed", range(12))
async def test_every_line_arrives_once_and_in_order_whatever_happens(
    tmp_path: Path, seed: int, pattern: str
) -> None:
    written, arrived = await live_through(tmp_path, seed, pattern)
    lost = [line[:20] for line in written if line not in set(arrived)]
    assert not lost
    pairs = enumerate(zip_longest(arrived, written, fillvalue=b""))
    wrong = [(at, got[:20], want[:20]) for at, (got, want) in pairs if got != want]
    assert not wrong, wrong[:3]


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["audit.log", "audit.log*"])
@pytest.mark.parametrize("block", range(12))
async def test_every_line_arrives_once_and_in_order_in_a_thousand_histories(
    tmp_path: Path, block: int, pattern: str
) -> None:
    async with trio.open_nursery() as nursery:  # all at once: each of them waits most of the time
        for seed in range(12 + 40 * block, 52 + 40 * block):
            (directory := tmp_path / str(seed)).mkdir()
            nursery.start_soon(
                test_every_line_arrives_once_and_in_order_whatever_happens, directory, seed, pattern
            )


async def live_through(tmp_path: Path, seed: int, pattern: str) -> tuple[list[bytes], list[bytes]]:
    """One history; the lines that were written, and those that arrived."""
    rng = random.Random(seed)
    writer, intake = Writer(tmp_path, rng), CollectingIntake()
    sees_all = pattern != "audit.log"

    async def life() -> None:
        """One run of the source, during which the writer goes on; then it is killed."""
        async with trio.open_nursery() as nursery:
            running = source(str(tmp_path / pattern), poll="50ms")

            async def run() -> None:
                await running.run(intake, drain=False)

            nursery.start_soon(run)
            for _ in range(rng.randrange(1, 12)):
                await act(alive=True)
                for _ in range(rng.choice([0, 1, 5, 30])):
                    await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()

    async def kept_up() -> None:
        await intake.until(lambda: len(intake.lines) >= len(writer.written))

    async def act(*, alive: bool) -> None:
        step = rng.choice(["write"] * 5 + ["rename", "copytruncate", "delete", "compress"])
        if step == "write":
            await trio.to_thread.run_sync(writer.write)
        elif step == "rename" and sees_all:
            await trio.to_thread.run_sync(writer.rename)
        elif step == "rename" and alive:
            # A generation that was never met cannot be found by another name later.
            await trio.to_thread.run_sync(writer.write)
            await kept_up()
            await trio.to_thread.run_sync(writer.write)
            await trio.to_thread.run_sync(writer.rename)
            await trio.to_thread.run_sync(writer.write)
            await kept_up()
        elif step == "copytruncate" and (sees_all or alive):
            if not sees_all:
                await kept_up()  # what was not read is in a copy that nobody matches
            await trio.to_thread.run_sync(writer.copytruncate)
        elif step == "delete" and alive:
            # A file that was not open when it was deleted cannot be read.
            await trio.to_thread.run_sync(writer.write)
            await kept_up()
            await trio.to_thread.run_sync(writer.write)
            await trio.to_thread.run_sync(writer.delete_and_create)
            await trio.to_thread.run_sync(writer.write)
            await kept_up()  # killed before, nobody holds the deleted file
        elif step == "compress" and sees_all:
            await trio.to_thread.run_sync(writer.compress)

    with trio.fail_after(PATIENCE_S * 3):
        for _ in range(8):
            await life()
            for _ in range(rng.randrange(4)):
                await act(alive=False)
        await source(str(tmp_path / pattern)).run(intake, drain=True)
    return writer.written, list(intake.lines)

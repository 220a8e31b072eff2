"""The sink to standard output: pipes with slow, fast and no readers; nothing else gets there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from siemrelay.core.errors import SinkHolds, SinkWaits
from siemrelay.sinks.stdout import StdoutOptions, StdoutSink
from tests.conftest import MakeDaemon
from tests.support.daemon import append, event, ids

LARGE = 300_000  # more than a pipe holds


class Pipe:
    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def close_reader(self) -> None:
        os.close(self.reader)
        self.reader = -1

    def sink(self, timeout: str = "5s") -> StdoutSink:
        return StdoutSink(StdoutOptions.model_validate({"timeout": timeout}), self.writer)

    async def read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            data += await trio.to_thread.run_sync(os.read, self.reader, 1 << 16)
        return data


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    os.close(made.writer)
    if made.reader >= 0:
        made.close_reader()


async def test_each_message_is_one_line(pipe: Pipe) -> None:
    steps: list[str] = []
    async with pipe.sink().session(lambda step, detail: steps.append(step)) as session:
        assert await session.confirm(await session.send([b"one", "zwei é".encode()])) == ()
        assert await session.confirm(await session.send([b"three"])) == ()
    assert await pipe.read(18) == b"one\nzwei \xc3\xa9\nthree\n"
    assert steps == ["send", "answer"] * 2


@pytest.mark.parametrize("blocking", [True, False])
async def test_more_than_the_pipe_holds_waits_for_the_reader(pipe: Pipe, blocking: bool) -> None:
    os.set_blocking(pipe.writer, blocking)
    message, got = b"x" * LARGE, list[bytes]()
    async with pipe.sink().session() as session, trio.open_nursery() as nursery:

        async def read() -> None:
            got.append(await pipe.read(LARGE + 1))

        nursery.start_soon(read)
        await session.confirm(await session.send([message]))
    assert got == [message + b"\n"]


async def test_a_stop_is_not_held_up_by_a_reader_that_pauses(pipe: Pipe) -> None:
    with trio.fail_after(5), trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def cancel() -> None:
                await wait_all_tasks_blocked(0.05)
                scope.cancel()

            nursery.start_soon(cancel)
            async with pipe.sink(timeout="60s").session() as session:
                await session.send([b"x" * LARGE])
    assert scope.cancelled_caught


async def test_a_reader_that_pauses_for_too_long_gets_no_torn_line(pipe: Pipe) -> None:
    sink = pipe.sink(timeout="100ms")
    first, second = b"a" * LARGE, b"b" * 10
    with pytest.raises(SinkWaits, match="has taken nothing for 100ms"):
        async with sink.session() as session:
            await session.send([first, second])
    got: list[bytes] = []
    expected = 2 * (len(first) + 1) + len(second) + 1
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            got.append(await pipe.read(expected))

        nursery.start_soon(read)
        async with sink.session() as session:
            await session.confirm(await session.send([first, second]))
    assert got[0].split(b"\n") == [first, first, second, b""]


async def test_a_reader_that_has_gone_holds(pipe: Pipe) -> None:
    pipe.close_reader()
    async with pipe.sink().session() as session:
        with pytest.raises(SinkHolds, match="nobody reads standard output: Broken pipe"):
            await session.send([b"one"])


async def test_a_closed_standard_output_holds() -> None:
    with pytest.raises(SinkHolds, match="Bad file descriptor"):
        async with StdoutSink(StdoutOptions(), 9_999).session():
            pass


async def test_a_full_disk_behind_it_waits() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        async with StdoutSink(StdoutOptions(), full).session() as session:
            with pytest.raises(SinkWaits, match="No space left"):
                await session.send([b"one"])
    finally:
        os.close(full)


async def test_a_regular_file_behind_it_is_synced(tmp_path: Path) -> None:
    answers: list[str] = []
    with (tmp_path / "out").open("wb", buffering=0) as file:
        sink = StdoutSink(StdoutOptions(), file.fileno())
        async with sink.session(lambda step, detail: answers.append(detail)) as session:
            await session.confirm(await session.send([b"one"]))
    assert (tmp_path / "out").read_bytes() == b"one\n"
    assert answers[-1].endswith("is on disk")


def test_a_drain_into_a_pipe_writes_the_events_and_nothing_else(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"out": {"protocol": "stdout", "start_at": "oldest"}})
    append(daemon.audit, map(event, range(1, 2001)))
    daemon.write_config()
    done = subprocess.run(
        [sys.executable, "-m", "siemrelay", "run", "--drain", "-c", str(daemon.file)],
        capture_output=True, timeout=60, check=False, env=daemon.environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == ids(range(1, 2001))
    assert b'"started"' in done.stderr

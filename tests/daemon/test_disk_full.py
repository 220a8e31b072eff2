"""A full disk, a full buffer: intake waits, nothing acknowledged is lost, it resumes by itself."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from siemrelay.buffer.reserve import SMALL
from siemrelay.pipeline.intake.commit_group import FULL_BYTES
from tests.conftest import MakeDaemon
from tests.support import mounts
from tests.support.daemon import Daemon, append, event, ids, tcp, until
from tests.support.http_sender import Sender, port_of
from tests.support.mounts import SmallDisk
from tests.support.receivers.sockets import TcpReceiver

# What one portion of the writer takes on disk: incompressible, so that the disk is full soon.
PORTION = 100
PADDING_BYTES = 1000


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[SmallDisk]:
    """A file system of its own that is soon full; its size may be a parameter."""
    with mounts.small_disk(tmp_path, getattr(request, "param", "24m")) as made:
        yield made


class Writer:
    """Appends portions of incompressible events; remembers how many there are."""

    def __init__(self, path: Path, padding_bytes: int = PADDING_BYTES) -> None:
        self.written = 0
        self._padding_bytes = padding_bytes
        self._path, self._chance = path, random.Random(7)

    @property
    def stored_bytes(self) -> int:
        """About what was written takes in the buffer: hexadecimal digits compress to half."""
        return self.written * self._padding_bytes // 2

    def portion(self) -> None:
        first = self.written + 1
        append(
            self._path,
            (
                event(n, padding=self._chance.randbytes(self._padding_bytes // 2).hex())
                for n in range(first, first + PORTION)
            ),
        )
        self.written += PORTION

    def until_full(self, daemon: Daemon) -> None:
        """Write, at the pace at which it is stored, until the relay says that there is no room."""

        def stored_or_full() -> bool:
            stored = daemon.metric("source_records_total", source="audit")
            return bool(daemon.said("buffer is full")) or stored + before >= self.written

        before = self.written - daemon.metric("source_records_total", source="audit")
        while not daemon.said("buffer is full"):
            self.portion()
            until(stored_or_full)


def full_and_well(daemon: Daemon, what: str = "file system of state_dir") -> None:
    """The relay lives, says that it is full everywhere, and how to fix it."""
    until(lambda: daemon.metric("buffer_full") == 1)
    status, words = daemon.get("/readyz")
    assert (status, words) == (503, f"the {what} is full: intake waits\n")
    assert daemon.get("/healthz")[0] == 200
    line = daemon.said("buffer is full")[-1]
    assert line["level"] == "error"
    assert line["advice"]
    assert not daemon.process_ended()


def test_on_a_full_disk_intake_waits_and_resumes_by_itself(
    make_daemon: MakeDaemon, disk: SmallDisk
) -> None:
    with TcpReceiver(up=False) as receiver:
        daemon = make_daemon({"stream": tcp(receiver.port)}, state_dir=str(disk.path / "state"))
        daemon.start()
        writer = Writer(daemon.audit)
        disk.fill()
        writer.until_full(daemon)
        full_and_well(daemon)
        assert "file system of state_dir is full" in daemon.said("buffer is full")[0]["reason"]
        # A delivery can be stopped though the pause cannot be stored.
        disk.fill()
        found = daemon.command("pause", "stream")
        assert found.returncode == 0, found.stderr
        assert "No space left on device" in found.stdout
        assert daemon.state_of("stream") == "paused"
        found = daemon.command("resume", "stream")
        assert (found.returncode, "a restart before then pauses" in found.stdout) == (0, True)
        # What was acknowledged goes out while the disk is still full.
        acknowledged = int(daemon.metric("source_records_total", source="audit"))
        receiver.up()
        until(lambda: len(set(receiver.arrived.ids)) >= acknowledged)
        assert set(ids(range(1, acknowledged + 1))) <= set(receiver.arrived.ids)
        disk.free()
        until(lambda: daemon.said("buffer has room again"))
        until(lambda: daemon.said("stored which sinks are paused"))
        writer.portion()
        until(lambda: len(set(receiver.arrived.ids)) >= writer.written)
        until(lambda: daemon.metric("buffer_full") == 0)
        assert daemon.get("/readyz")[0] == 200
        assert daemon.terminate() == 0
    assert receiver.arrived.ids == ids(range(1, writer.written + 1)), "each once, in order"


@pytest.mark.parametrize("disk", ["16m", "24m", "80m"], indirect=True)
def test_a_disk_that_the_buffer_itself_has_filled_is_got_out_of(
    make_daemon: MakeDaemon, disk: SmallDisk
) -> None:
    with TcpReceiver(up=False) as receiver:
        daemon = make_daemon({"stream": tcp(receiver.port)}, state_dir=str(disk.path / "state"))
        daemon.start()
        writer = Writer(daemon.audit, padding_bytes=8_000)
        writer.until_full(daemon)
        full_and_well(daemon)
        # As much again as there is room for: what was delivered and kept for replay gives way.
        for _ in range(writer.written // PORTION):
            writer.portion()
        receiver.up()
        until(lambda: len(receiver.arrived) >= writer.written, 60)
        until(lambda: daemon.metric("buffer_full") == 0)
        assert daemon.terminate() == 0
    assert receiver.arrived.ids == ids(range(1, writer.written + 1)), "each once, in order"


@pytest.mark.parametrize("disk", ["24m", "80m"], indirect=True)
def test_a_stop_on_a_full_disk_stores_where_each_sink_is(
    make_daemon: MakeDaemon, disk: SmallDisk
) -> None:
    with TcpReceiver() as receiver, TcpReceiver(up=False) as dead:
        daemon = make_daemon(
            {"stream": tcp(receiver.port), "dead": tcp(dead.port)},
            state_dir=str(disk.path / "state"), shutdown_timeout="1s",
        ).start()  # fmt: skip
        writer = Writer(daemon.audit, padding_bytes=8_000)
        writer.until_full(daemon)
        acknowledged = int(daemon.metric("source_records_total", source="audit"))
        until(lambda: len(receiver.arrived) == acknowledged)
        until(lambda: daemon.metric("sink_backlog_records", sink="stream") == 0)
        assert daemon.terminate() == 0
        dead.up()
        daemon.start()
        until(lambda: len(dead.arrived) >= writer.written, 60)
        until(lambda: len(receiver.arrived) >= writer.written)
        assert daemon.terminate() == 0
    for arrived in (receiver.arrived, dead.arrived):
        assert arrived.ids == ids(range(1, writer.written + 1)), "each once, in order"


def test_web_hooks_get_503_on_a_full_disk_and_what_was_answered_outlives_a_kill(
    make_daemon: MakeDaemon, disk: SmallDisk
) -> None:
    chance, answered = random.Random(7), []
    with TcpReceiver(up=False) as receiver:
        daemon = make_daemon({"stream": tcp(receiver.port)}, state_dir=str(disk.path / "state"))
        daemon.config["sources"] = {
            "hooks": {"type": "http", "listen": "http://127.0.0.1:0/events"}
        }
        daemon.state = disk.path / "state"
        daemon.start()
        status, number = 200, 0
        while status == 200:
            number += 1
            if number == 10:
                disk.fill()
            body = json.dumps(event(number, padding=chance.randbytes(50_000).hex())).encode()
            with Sender(port_of(daemon)) as sender:
                status, fields, _ = sender.post(body, Idempotency_Key=str(number))
            if status == 200:
                answered.append(number)
        assert (status, fields["retry-after"]) == (503, "5")
        full_and_well(daemon)
        daemon.kill()
        disk.free()
        daemon.start()
        # The sender comes again with all of it, and gets 200 for each.
        with Sender(port_of(daemon)) as sender:
            chance = random.Random(7)
            for again in range(1, number + 1):
                body = json.dumps(event(again, padding=chance.randbytes(50_000).hex())).encode()
                assert sender.post(body, Idempotency_Key=str(again))[0] == 200
        receiver.up()
        until(lambda: len(set(receiver.arrived.ids)) >= number)
        assert daemon.rows("SELECT sum(count) FROM batches") == [(number,)], "each stored once"
        assert daemon.terminate() == 0
    assert answered
    assert sorted(set(receiver.arrived.ids)) == ids(range(1, number + 1))


@pytest.mark.parametrize("disk", ["160m"], indirect=True)
def test_on_a_disk_filled_by_others_what_was_kept_for_replay_makes_room(
    make_daemon: MakeDaemon, disk: SmallDisk
) -> None:
    state = disk.path / "state"
    reserve = state / "reserve"
    with TcpReceiver() as receiver:
        daemon = make_daemon({"stream": tcp(receiver.port)}, state_dir=str(state)).start()
        writer = Writer(daemon.audit, padding_bytes=16_000)

        def deliver(size_bytes: int) -> None:
            end = writer.stored_bytes + size_bytes
            while writer.stored_bytes < end:
                writer.portion()
                receiver.until(writer.written)

        deliver(24 << 20)
        until(lambda: reserve.exists() and reserve.stat().st_size == SMALL.reserve_bytes)
        disk.fill()
        # All of it is delivered and kept for 24 hours; twice of that needs room now.
        deliver(48 << 20)
        assert daemon.terminate() == 0
        disk.free()
    assert receiver.arrived.ids == ids(range(1, writer.written + 1))


def test_killed_on_a_full_disk_it_starts_there_and_loses_nothing(
    make_daemon: MakeDaemon, disk: SmallDisk
) -> None:
    with TcpReceiver(up=False) as receiver:
        daemon = make_daemon({"stream": tcp(receiver.port)}, state_dir=str(disk.path / "state"))
        daemon.start()
        writer = Writer(daemon.audit)
        disk.fill()
        writer.until_full(daemon)
        daemon.kill()
        disk.fill()
        # To open a buffer takes no room; with neither the reserve nor SQLite's index it takes some.
        daemon.start()
        until(lambda: daemon.said("buffer is full"))
        daemon.kill()
        for file in ("reserve", "buffer.db-shm"):
            (disk.path / "state" / file).unlink(missing_ok=True)
        disk.fill()
        daemon.start(ready=False)
        assert daemon.wait() == os.EX_TEMPFAIL
        where = disk.path / "state"
        assert f"cannot open the buffer in {where}: the file system of" in daemon.log_text
        assert "make some MiB of room there" in daemon.log_text
        disk.free()
        receiver.up()
        daemon.start()
        until(lambda: len(set(receiver.arrived.ids)) >= writer.written)
        assert daemon.terminate() == 0
    assert sorted(set(receiver.arrived.ids)) == ids(range(1, writer.written + 1))


def test_a_first_start_on_a_full_disk_says_what_to_do(
    make_daemon: MakeDaemon, disk: SmallDisk
) -> None:
    daemon = make_daemon({"stream": tcp(1)}, state_dir=str(disk.path / "state"))
    disk.fill()
    daemon.start(ready=False)
    assert daemon.wait() == os.EX_TEMPFAIL
    assert "make some MiB" in daemon.log_text
    # With room for the directory, but not for a database.
    disk.leave(40_000)
    daemon.start(ready=False)
    assert daemon.wait() == os.EX_TEMPFAIL
    assert "full; make some MiB" in daemon.log_text
    disk.free()
    daemon.start()
    assert daemon.terminate() == 0


def test_at_max_size_block_makes_intake_wait_for_the_sink(make_daemon: MakeDaemon) -> None:
    with TcpReceiver(up=False) as receiver, TcpReceiver() as healthy:
        daemon = make_daemon(
            {"late": tcp(receiver.port), "healthy": tcp(healthy.port)},
            buffer={"max_size": "16MiB", "when_full": "block"},
        ).start()
        writer = Writer(daemon.audit, padding_bytes=4000)
        writer.until_full(daemon)
        full_and_well(daemon, "buffer")
        assert "max_size" in daemon.said("buffer is full")[0]["reason"]
        assert daemon.said("buffer is full")[0]["held_by"] == ["late"]
        until(lambda: daemon.metric("sink_holds_buffer", sink="late") == 1)
        assert daemon.metric("sink_holds_buffer", sink="healthy") == 0
        assert "full: intake waits for late" in daemon.get("/")[1]
        # What is written meanwhile is counted as unread, beyond what waits in memory to be stored.
        in_memory = 2 * FULL_BYTES  # one group at the disk, one that collects
        stored = daemon.metric("source_bytes_total", source="audit")
        while daemon.audit.stat().st_size < stored + 2 * in_memory:
            writer.portion()
        written = daemon.audit.stat().st_size - stored
        until(lambda: daemon.metric("source_lag_bytes", source="audit") >= written - in_memory)
        assert daemon.metric("buffer_size_bytes") <= 16 << 20
        until(lambda: daemon.metric("sink_backlog_records", sink="healthy") == 0)
        receiver.up()
        until(lambda: daemon.said("buffer has room again"))
        receiver.until(writer.written)
        assert daemon.metric("sink_dropped_total", sink="late") == 0
        assert daemon.terminate() == 0
    assert receiver.arrived.ids == ids(range(1, writer.written + 1))
    assert healthy.arrived.ids == ids(range(1, writer.written + 1))


def test_at_max_size_drop_oldest_goes_on_and_counts_what_it_gave_up(
    make_daemon: MakeDaemon,
) -> None:
    with TcpReceiver(up=False) as receiver, TcpReceiver() as healthy:
        daemon = make_daemon(
            {"late": tcp(receiver.port, when_full="drop_oldest"), "healthy": tcp(healthy.port)},
            buffer={"max_size": "16MiB"},
        ).start()
        writer = Writer(daemon.audit, padding_bytes=4000)
        while not daemon.metric("sink_dropped_total", sink="late"):
            for _ in range(4):
                writer.portion()
            healthy.until(writer.written)
        receiver.up()
        until(lambda: daemon.metric("sink_backlog_records", sink="late") == 0)
        dropped = int(daemon.metric("sink_dropped_total", sink="late"))
        delivered = int(daemon.metric("sink_delivered_total", sink="late"))
        assert dropped + delivered == writer.written
        (line,) = daemon.said("the buffer is full: a sink loses its oldest records")
        assert (line["sink"], line["first_sequence"]) == ("late", 1)
        assert not daemon.said("buffer is full")
        assert daemon.terminate() == 0
    assert receiver.arrived.ids == ids(range(dropped + 1, writer.written + 1)), "the oldest went"
    assert healthy.arrived.ids == ids(range(1, writer.written + 1))


def test_a_disabled_sink_does_not_stop_the_others_when_its_records_fill_the_buffer(
    make_daemon: MakeDaemon,
) -> None:
    with TcpReceiver() as healthy:
        daemon = make_daemon(
            {"off": {**tcp(1), "enabled": False}, "healthy": tcp(healthy.port)},
            buffer={"max_size": "16MiB"},
        ).start()
        writer = Writer(daemon.audit, padding_bytes=4000)
        while not daemon.metric("sink_dropped_total", sink="off"):
            for _ in range(4):
                writer.portion()
            healthy.until(writer.written)
        (line,) = daemon.said("the buffer is full: a sink loses its oldest records")
        assert (line["sink"], line["first_sequence"], line["level"]) == ("off", 1, "error")
        assert "disabled" in line["advice"]
        assert not daemon.said("buffer is full")
        assert daemon.get("/readyz")[0] == 200
        dropped = int(daemon.metric("sink_dropped_total", sink="off"))
        assert daemon.metric("sink_backlog_records", sink="off") == writer.written - dropped
        assert daemon.terminate() == 0
    assert healthy.arrived.ids == ids(range(1, writer.written + 1))

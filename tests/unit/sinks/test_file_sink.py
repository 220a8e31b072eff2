# ruff: noqa: ASYNC240  (files are looked at while nothing else runs)
"""The file sink: durable lines, rotation, what a crash leaves, what the file system refuses."""

from __future__ import annotations

import errno
import gzip
import json
import os
import stat
import time
from pathlib import Path
from typing import NoReturn

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from siemrelay.config.load import load_text
from siemrelay.core.errors import ConfigurationRefused, SinkHolds, SinkWaits
from siemrelay.sinks.file.rotation import earlier, period, rotate, tidy
from siemrelay.sinks.file.sink import ArchiveOptions, ArchiveSession, ArchiveSink
from siemrelay.sinks.file.writer import ArchiveFile
from tests.conftest import MakeDaemon
from tests.support.daemon import QUICK_RETRY, append, event, ids, until
from tests.support.mounts import tmpfs

DAY_S = 86_400


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.json"


def sink(path: Path, **options: object) -> ArchiveSink:
    return ArchiveSink(ArchiveOptions.model_validate({"path": path, **options}))


async def deliver(session: ArchiveSession, *messages: bytes) -> None:
    assert await session.confirm(await session.send(messages)) == ()


def rotated(path: Path) -> list[Path]:
    return [file for files in earlier(path).values() for file in files]


async def test_messages_are_lines_of_a_file_that_nobody_else_may_read(path: Path) -> None:
    steps: list[str] = []
    async with sink(path).session(lambda step, detail: steps.append(step)) as session:
        await deliver(session, b"one", "zwei é".encode())
    assert path.read_text() == "one\nzwei é\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert steps == ["connect", "send", "answer"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
async def test_what_a_command_of_root_begins_belongs_to_the_owner_of_the_directory(
    path: Path,
) -> None:
    os.chown(path.parent, 65534, -1)
    async with sink(path).session(lambda step, detail: None) as session:
        await deliver(session, b"one")
    os.chown(path.parent, 0, -1)
    async with sink(path).session(lambda step, detail: None) as session:
        await deliver(session, b"two")
    assert (path.stat().st_uid, path.read_text()) == (65534, "one\ntwo\n")


async def test_a_later_session_appends(path: Path) -> None:
    for message in (b"one", b"two"):
        async with sink(path).session() as session:
            await deliver(session, message)
    assert path.read_bytes() == b"one\ntwo\n"


async def test_runs_are_synced_together_before_they_are_confirmed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    sync = ArchiveFile.sync

    def counted(file: ArchiveFile) -> None:
        sync(file)
        synced.append(file.size_bytes)

    monkeypatch.setattr(ArchiveFile, "sync", counted)
    async with sink(path).session() as session:
        tickets = [await session.send([b"%03d" % number]) for number in range(100)]
        assert not synced
        for ticket in tickets:
            await session.confirm(ticket)
    assert synced == [400]


@pytest.mark.parametrize("torn_bytes", [64, 200_000])
@pytest.mark.parametrize("whole", [b"", b"whole\n", b"x" * 100_000 + b"\n"])
@pytest.mark.parametrize("place", [0, 3])
@pytest.mark.parametrize("rotates", [False, True])
async def test_a_line_that_a_crash_tore_is_cut_off_when_its_record_is_written_again(
    path: Path, whole: bytes, torn_bytes: int, place: int, rotates: bool
) -> None:
    record = b"".join(b"%09d " % number for number in range(20_100))
    path.write_bytes(whole + record[:torn_bytes])
    messages = [b"before %d" % number for number in range(place)] + [record]
    async with sink(path, rotate_size="64KiB" if rotates else 0).session() as session:
        await deliver(session, *messages)
    earlier_files = b"".join(file.read_bytes() for file in rotated(path))
    expected = whole + b"".join(message + b"\n" for message in messages)
    assert earlier_files + path.read_bytes() == expected
    assert bool(earlier_files) == (rotates and bool(whole))


@pytest.mark.parametrize(
    ("torn", "message"),
    [
        (b"somebody else's " * 9, b"next"),  # longer than all that is sent
        (b"somebody else's " * 9, b"next " * 100),
        (b'{"id":"', b'{"id":"1"}' * 20),  # a beginning that any record may have
        (b"x" * 20_000_000, b"next"),
    ],
)
async def test_an_incomplete_line_that_is_not_the_relays_is_left_and_ended(
    path: Path, torn: bytes, message: bytes
) -> None:
    path.write_bytes(b"whole\n" + torn)
    async with sink(path).session() as session:
        await deliver(session, message)
        await deliver(session, b"more")
    assert path.read_bytes() == b"whole\n" + torn + b"\n" + message + b"\nmore\n"


async def test_a_full_file_makes_way_for_a_new_one(path: Path) -> None:
    async with sink(path, rotate_size="64KiB").session() as session:
        for number in range(10):
            await deliver(session, b"%05d" % number + b"x" * 20_000)
    files = [*rotated(path), path]
    assert [len(file.read_bytes().splitlines()) for file in files] == [3, 3, 3, 1]
    lines = b"".join(file.read_bytes() for file in files).splitlines()
    assert [line[:5] for line in lines] == [b"%05d" % number for number in range(10)]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


async def test_what_was_sent_before_a_rotation_is_confirmed_after_it(path: Path) -> None:
    async with sink(path, rotate_size="64KiB").session() as session:
        tickets = [await session.send([b"x" * 40_000]) for _ in range(4)]
        assert [await session.confirm(ticket) for ticket in tickets] == [()] * 4
    assert len(rotated(path)) == 3


@pytest.mark.parametrize(("interval", "age_s"), [("daily", DAY_S), ("hourly", 3_600)])
async def test_a_file_of_an_earlier_day_or_hour_makes_way(
    path: Path, interval: str, age_s: int
) -> None:
    path.write_bytes(b"old\n")
    then = time.time() - age_s
    os.utime(path, (then, then))
    async with sink(path, rotate_interval=interval).session() as session:
        await deliver(session, b"new")
    (old,) = rotated(path)
    assert old.name == time.strftime("audit-%Y%m%dT%H%M%SZ.json", time.gmtime(then))
    assert (old.read_bytes(), path.read_bytes()) == (b"old\n", b"new\n")


def test_a_period_is_a_day_or_an_hour_of_utc() -> None:
    assert period("none", 0) == period("none", 1e9)
    assert period("daily", DAY_S - 1) != period("daily", DAY_S)
    assert period("hourly", 3_599) == "1970010100" != period("hourly", 3_600)


@pytest.mark.parametrize("steps_s", [(0, 0, 0), (0, -1000, 5), (0, 1, 1)])
def test_rotated_names_sort_as_they_were_written(path: Path, steps_s: tuple[int, ...]) -> None:
    for number, step_s in enumerate(steps_s):
        path.write_text(str(number))
        rotate(path, 1.7e9 + step_s)
    assert [file.read_text() for file in rotated(path)] == ["0", "1", "2"]


async def test_earlier_files_are_compressed_and_the_oldest_deleted(path: Path) -> None:
    (path.parent / "audit-notes.json").write_text("not ours")
    options = {"rotate_size": "64KiB", "compression": "gzip", "keep_files": 3}
    async with sink(path, **options).session() as session:
        for number in range(8):
            await deliver(session, b"%05d" % number + b"x" * 60_000)
        with trio.fail_after(10):
            while [file.suffix for file in rotated(path)] != [".gz"] * 3:
                await trio.to_thread.run_sync(time.sleep, 0.01)
    kept = [gzip.decompress(file.read_bytes())[:5] for file in rotated(path)]
    assert kept == [b"00004", b"00005", b"00006"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in rotated(path)} == {0o600}
    assert (path.parent / "audit-notes.json").exists()


async def test_compressing_that_was_interrupted_is_done_again(path: Path) -> None:
    path.write_bytes(b"one\n")
    plain = rotate(path, 1.7e9)
    plain.with_name(plain.name + ".gz.part").write_bytes(b"half")
    plain.with_name(plain.name + ".gz").write_bytes(b"renamed, but the plain one is still there")
    await trio.to_thread.run_sync(lambda: tidy(path, compress=True, keep_files=1))
    (only,) = path.parent.iterdir()
    assert gzip.decompress(only.read_bytes()) == b"one\n"


async def test_a_stop_interrupts_compressing_and_leaves_nothing_half(path: Path) -> None:
    path.write_bytes(os.urandom(50_000_000))
    plain = rotate(path, 1.7e9)
    with trio.fail_after(10), trio.CancelScope() as scope:
        async with sink(path, compression="gzip").session():
            await wait_all_tasks_blocked(0.05)
            scope.cancel()
    assert sorted(path.parent.iterdir()) == [plain, path]


@pytest.mark.parametrize("how", ["moved", "deleted"])
async def test_a_file_that_is_taken_away_is_noticed_and_begun_anew(path: Path, how: str) -> None:
    async with sink(path).session() as session:
        await deliver(session, b"one")
        ticket = await session.send([b"two"])
        if how == "moved":
            path.rename(path.with_suffix(".old"))
        else:
            path.unlink()
        with pytest.raises(SinkWaits, match="moved or deleted"):
            await session.confirm(ticket)
        with pytest.raises(SinkWaits, match="moved or deleted"):
            await session.send([b"three"])
    async with sink(path).session() as session:
        await deliver(session, b"two")
    assert path.read_bytes() == b"two\n"


async def test_beside_another_process_lines_are_appended_and_it_rotates(path: Path) -> None:
    async with sink(path, rotate_size="64KiB").session() as session:
        await deliver(session, b"x" * 60_000)
        async with sink(path, rotate_size="64KiB").session() as beside:
            await deliver(beside, b"y" * 60_000)
        assert not rotated(path)
        await deliver(session, b"z")
    assert len(rotated(path)) == 1


async def test_what_a_person_must_fix_holds_with_advice(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    cases = {
        "none/audit.json": "create the directory",
        "file/audit.json": "not a directory",
        "pipe": "another name",
        ".": "name of a file",
        "a" * 300: "shorter",
    }
    for name, advice in cases.items():
        with pytest.raises(SinkHolds) as caught:
            async with sink(tmp_path / name).session():
                pass
        assert advice in caught.value.advice


async def test_a_directory_without_permission_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, flags: int, mode: int) -> NoReturn:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "open", refused)  # root may write anywhere
    with pytest.raises(SinkHolds, match="let the relay's user write there"):
        async with sink(tmp_path / "audit.json").session():
            pass


async def test_a_full_disk_waits_and_leaves_whole_lines(tmp_path: Path) -> None:
    with tmpfs(tmp_path, "64k") as disk:
        ballast, path = disk / "ballast", disk / "audit.json"
        ballast.write_bytes(b"x" * 20_000)
        async with sink(path).session() as session:
            await deliver(session, b"one")
            with pytest.raises(SinkWaits, match="No space left"):
                await session.send([b"x" * 100_000])
            assert path.read_bytes() == b"one\n", "the part that was written is cut off at once"
        ballast.unlink()
        async with sink(path).session() as session:
            await deliver(session, b"two")
        assert path.read_bytes() == b"one\ntwo\n"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"path": "audit.json"}, "absolute path"),
        ({"path": "/x/audit.json.gz"}, "is not compressed"),
        ({"rotate_size": "1KiB"}, "at least 64KiB"),
        ({"keep_files": 0}, "1"),
    ],
)
def test_settings_that_make_no_sense_are_faults_of_the_file(
    settings: dict[str, object], said: str
) -> None:
    archive = {"protocol": "file", "path": "/x/audit.json", **settings}
    config = {"sources": {"a": {"type": "file", "path": "/x"}}, "sinks": {"s": archive}}
    with pytest.raises(ConfigurationRefused) as caught:
        load_text(json.dumps(config), "x.yaml", {})
    assert said in str(caught.value)


def test_the_daemon_archives_everything_and_test_adds_a_line_beside_it(
    make_daemon: MakeDaemon, path: Path
) -> None:
    archive = {"protocol": "file", "path": str(path), "rotate_size": "64KiB", "retry": QUICK_RETRY}
    daemon = make_daemon({"archive": archive}).start()
    append(daemon.audit, map(event, range(1, 2001)))
    until(lambda: daemon.metric("sink_delivered_total", sink="archive") == 2000)
    # The cursor follows within moments; what it has not passed would be written again.
    until(lambda: daemon.rows("SELECT next_sequence FROM cursors") == [(2001,)])
    daemon.kill()
    daemon.start()
    found = daemon.command("test", "archive")
    assert found.returncode == 0, found.stderr
    assert "the file is on disk" in found.stdout
    append(daemon.audit, map(event, range(2001, 2003)))
    until(lambda: daemon.metric("sink_delivered_total", sink="archive") == 2002)
    assert daemon.terminate() == 0
    lines = b"".join(file.read_bytes() for file in [*rotated(path), path]).splitlines()
    found_ids = [json.loads(line)["id"] for line in lines]
    assert rotated(path)
    assert [found for found in found_ids if found.startswith("n0")] == ids(range(1, 2003))
    assert len(found_ids) == 2003


def test_a_link_in_the_place_of_the_archive_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"not ours")
    (tmp_path / "audit.json").symlink_to(tmp_path / "target")
    with pytest.raises(SinkHolds, match="name the file itself"):
        ArchiveFile(tmp_path / "audit.json")
    assert (tmp_path / "target").read_bytes() == b"not ours"

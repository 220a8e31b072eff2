"""The file source against real files."""

from __future__ import annotations

import errno
import gzip
import os
import random
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import structlog
import trio
from pydantic import ValidationError

from siemrelay.sources.contract import Records
from siemrelay.sources.file.disk import Disk, OpenFile
from siemrelay.sources.file.options import FileOptions
from tests.support.rotation.file_source_rig import (
    CollectingIntake,
    append,
    drained,
    running,
    source,
)

MIB = 1 << 20


def lines(first: int, last: int, width: int = 40) -> list[bytes]:
    return [b'{"n":%d,"pad":"%s"}' % (n, b"x" * width) for n in range(first, last)]


def text(records: list[bytes]) -> bytes:
    return b"".join(record + b"\n" for record in records)


async def test_file_never_seen_is_read_from_its_beginning(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(text(lines(0, 5000)))
    intake = CollectingIntake()
    assert await drained(log, intake) == lines(0, 5000)
    assert intake.lag_bytes == 0


async def test_appended_lines_arrive_at_once_through_inotify(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(b"one\n")
    intake = CollectingIntake()
    async with running(log, intake, poll="1h"):
        await intake.until_lines(1)
        for n in range(5):
            append(log, b"%d\n" % n)
            await intake.until_lines(2 + n)
    assert intake.lines == [b"one", b"0", b"1", b"2", b"3", b"4"]


async def test_more_events_than_one_read_takes_are_all_taken(tmp_path: Path) -> None:
    intake, names = CollectingIntake(), [f"{n:03}-{'x' * 200}.log" for n in range(60)]
    async with running(str(tmp_path / "*.log"), intake, poll="1h"):
        for name in names:
            (tmp_path / name).write_bytes(f"{name}\n".encode())
        await intake.until_lines(len(names))
    assert sorted(intake.lines) == [name.encode() for name in names]


async def test_file_that_appears_later_is_found_through_inotify(tmp_path: Path) -> None:
    intake = CollectingIntake()
    (tmp_path / "first.log").write_bytes(b"first\n")
    async with running(str(tmp_path / "*.log"), intake, poll="1h"):
        await intake.until_lines(1)
        (tmp_path / "second.log").write_bytes(b"second\n")
        await intake.until_lines(2)
    assert intake.lines == [b"first", b"second"]


async def test_directory_that_appears_later_is_found(tmp_path: Path) -> None:
    intake = CollectingIntake()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "audit.log").write_bytes(b"a\n")
    async with running(str(tmp_path / "*" / "audit.log"), intake, poll="50ms"):
        await intake.until_lines(1)
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "audit.log").write_bytes(b"b\n")
        await intake.until_lines(2)
    assert intake.lines == [b"a", b"b"]


async def test_source_without_inotify_polls_and_says_so_once(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(b"one\n")
    intake = CollectingIntake()
    refused = OSError(24, "Too many open files")
    with (
        patch("inotify_simple.INotify", side_effect=refused),
        structlog.testing.capture_logs() as logs,
    ):
        async with running(log, intake, poll="20ms"):
            await intake.until_lines(1)
            append(log, b"two\n")
            await intake.until_lines(2)
            log.rename(tmp_path / "audit.log.1")
            log.write_bytes(b"three\n")
            await intake.until_lines(3)
    assert intake.lines == [b"one", b"two", b"three"]
    warnings = [entry for entry in logs if entry["log_level"] == "warning"]
    assert [entry["advice"] for entry in warnings] == [
        "raise fs.inotify.max_user_instances or the limit of open files"
    ]


async def test_incomplete_last_line_waits_for_its_end(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(b"one\ntw")
    intake = CollectingIntake()
    async with running(log, intake):
        await intake.until_lines(1)
        append(log, b"o\nthree")
        await intake.until_lines(2)
        append(log, b"\n")
        await intake.until_lines(3)
    assert intake.lines == [b"one", b"two", b"three"]


async def test_drain_takes_an_incomplete_last_line(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(b"one\ntwo")
    intake = CollectingIntake()
    assert await drained(log, intake) == [b"one", b"two"]
    append(log, b"\nthree\n")
    assert await drained(log, intake) == [b"one", b"two", b"three"]


async def test_incomplete_last_line_of_a_rotated_file_is_taken_before_the_next_file(
    tmp_path: Path,
) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(b"one\ntwo")
    intake = CollectingIntake()
    async with running(log, intake):
        await intake.until_lines(1)
        log.rename(tmp_path / "audit.log.1")
        log.write_bytes(b"three\n")
        await intake.until_lines(3)
    assert intake.lines == [b"one", b"two", b"three"]


async def test_incomplete_last_line_of_a_deleted_file_is_taken(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(b"one\ntwo")
    intake = CollectingIntake()
    async with running(log, intake):
        await intake.until_lines(1)
        log.unlink()
        await intake.until_lines(2)
    assert intake.lines == [b"one", b"two"]


async def test_blank_lines_are_not_records(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(b"\none\n\n\r\ntwo\r\n\n\n")
    intake = CollectingIntake()
    assert await drained(log, intake) == [b"one", b"two\r"]
    append(log, b"\n\n")
    assert await drained(log, intake) == [b"one", b"two\r"]


async def test_nul_bytes_and_invalid_utf8_are_kept(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(b"\0\0one\0\n\xff\xfe\n")
    assert await drained(log, CollectingIntake()) == [b"\0\0one\0", b"\xff\xfe"]


async def test_renamed_file_is_read_to_its_end_while_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(b"one\n")
    intake = CollectingIntake()
    async with running(log, intake):
        await intake.until_lines(1)
        with log.open("ab", buffering=0) as writer:
            log.rename(tmp_path / "old")
            writer.write(b"two\n")
            await intake.until_lines(2)
            log.write_bytes(b"three\n")
            await intake.until_lines(3)
            writer.write(b"four\n")
            await intake.until_lines(4)
    assert intake.lines == [b"one", b"two", b"three", b"four"]


async def test_file_rotated_twice_in_a_row_is_read_though_its_name_never_matched(
    tmp_path: Path,
) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(b"one\n")
    intake = CollectingIntake()
    async with running(log, intake, poll="1h"):
        await intake.until_lines(1)
        # No await in between: the source sees only the outcome.
        log.rename(tmp_path / "audit.log.1")
        log.write_bytes(b"two\n")
        (tmp_path / "audit.log.1").rename(tmp_path / "audit.log.2")
        log.rename(tmp_path / "audit.log.1")
        log.write_bytes(b"three\n")
        await intake.until_lines(3)
    assert intake.lines == [b"one", b"two", b"three"]


async def test_file_rotated_while_stopped_is_finished_before_the_new_one(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(text(lines(0, 50)))
    intake = CollectingIntake()
    await drained(log, intake)
    append(log, text(lines(50, 70)))
    log.rename(tmp_path / "anything")
    log.write_bytes(text(lines(70, 80)))
    (tmp_path / "anything.else").write_bytes(b"not ours\n")
    assert await drained(log, intake) == lines(0, 80)
    assert await drained(log, intake) == lines(0, 80)


@pytest.mark.parametrize("pattern", ["audit.log", "audit.log*"])
async def test_copytruncate_neither_loses_nor_repeats(tmp_path: Path, pattern: str) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(text(lines(0, 50)))
    intake = CollectingIntake()
    async with running(str(tmp_path / pattern), intake):
        await intake.until_lines(50)
        shutil.copy(log, tmp_path / "audit.log.1")
        os.truncate(log, 0)
        append(log, text(lines(50, 60)))
        await intake.until_lines(60)
    assert await drained(str(tmp_path / pattern), intake) == lines(0, 60)


async def test_copytruncate_while_stopped_goes_on_in_the_copy(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(text(lines(0, 50)))
    intake = CollectingIntake()
    await drained(str(tmp_path / "audit.log*"), intake)
    append(log, text(lines(50, 60)))
    shutil.copy(log, tmp_path / "audit.log.1")
    os.truncate(log, 0)
    append(log, text(lines(60, 70)))
    assert await drained(str(tmp_path / "audit.log*"), intake) == lines(0, 70)


async def test_truncated_file_that_grew_beyond_the_old_place_is_read_anew(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(text(lines(0, 10)))
    intake = CollectingIntake()
    async with running(log, intake, poll="1h"):
        await intake.until_lines(10)
        with log.open("r+b") as file:  # no await until the new content is longer than the old
            file.truncate(0)
            file.write(text(lines(10, 40)))
        await intake.until_lines(40)
    assert intake.lines == lines(0, 40)


async def test_file_that_begins_alike_but_was_written_anew_is_another_file(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    header = b"#" + b"=" * 2000
    log.write_bytes(text([header, *lines(0, 10)]))
    intake = CollectingIntake()
    await drained(log, intake)
    log.write_bytes(text([header, *lines(10, 30)]))  # the same inode
    assert await drained(log, intake) == [header, *lines(0, 10), header, *lines(10, 30)]


async def test_deleted_file_is_read_to_its_end(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(b"one\n")
    intake = CollectingIntake()
    async with running(log, intake):
        await intake.until_lines(1)
        with log.open("ab", buffering=0) as writer:
            writer.write(text(lines(0, 5)))
            log.unlink()
            log.write_bytes(b"new\n")
            writer.write(text(lines(5, 10)))
        await intake.until_lines(12)
    assert intake.lines == [b"one", *lines(0, 10), b"new"]


async def test_reused_inode_is_another_file(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    intake = CollectingIntake()
    for n in range(20):  # most file systems give the inode to the next one
        log.write_bytes(b"%d\n" % n)
        await drained(log, intake)
        log.unlink()
    assert intake.lines == [b"%d" % n for n in range(20)]


async def test_identical_small_files_are_each_read(tmp_path: Path) -> None:
    for name in ("a.log", "b.log", "c.log"):
        (tmp_path / name).write_bytes(b"same\n")
    intake = CollectingIntake()
    assert await drained(str(tmp_path / "*.log"), intake) == [b"same"] * 3
    append(tmp_path / "b.log", b"more\n")
    assert await drained(str(tmp_path / "*.log"), intake) == [b"same"] * 3 + [b"more"]


async def test_generations_are_read_oldest_first_at_the_first_start(tmp_path: Path) -> None:
    now = time.time_ns()
    for number in range(12):
        name = f"audit.log.{number}" if number else "audit.log"
        (tmp_path / name).write_bytes(b"%d\n" % number)
        os.utime(tmp_path / name, ns=(now, now))
    intake = CollectingIntake()
    assert await drained(str(tmp_path / "audit.log*"), intake) == [
        b"%d" % number for number in reversed(range(12))
    ]


async def test_backlog_in_one_log_does_not_hold_up_another(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(text(lines(0, 200_000)))
    (tmp_path / "b.log").write_bytes(b"small\n")
    intake = CollectingIntake()
    await drained(str(tmp_path / "*.log"), intake)
    assert len(intake.lines) == 200_001
    assert any(records.payload == b"small\n" for records in intake.offered[:3])


async def test_start_at_end_skips_only_what_is_there_at_the_very_first_start(
    tmp_path: Path,
) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(b"old\nincompl")
    with gzip.open(tmp_path / "audit.log.1.gz", "wb") as file:
        file.write(b"older\n")
    intake = CollectingIntake()
    async with running(str(tmp_path / "*"), intake, start_at="end"):
        await intake.until(lambda: intake.is_at(log, 4))
        append(log, b"ete\n")
        await intake.until_lines(1)
    (tmp_path / "new.log").write_bytes(b"new\n")
    assert await drained(str(tmp_path / "*"), intake, start_at="end") == [b"incomplete", b"new"]


async def test_start_at_end_is_remembered_when_there_was_nothing_yet(tmp_path: Path) -> None:
    intake = CollectingIntake()
    await drained(str(tmp_path / "*.log"), intake, start_at="end")
    (tmp_path / "new.log").write_bytes(b"new\n")
    assert await drained(str(tmp_path / "*.log"), intake, start_at="end") == [b"new"]


async def test_record_over_the_limit_is_counted_and_kept(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    records = [b"a", b"b" * 3000, b"c", b"d" * (10 * MIB), b"e"]
    log.write_bytes(text(records))
    intake = CollectingIntake()
    assert await drained(log, intake, max_record_size="2KiB") == records
    assert intake.oversizes == [3000, 10 * MIB]


async def test_record_of_forty_mebibytes_comes_in_parts(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    record = os.urandom(MIB).replace(b"\n", b"x") * 40
    log.write_bytes(b"before\n" + record + b"\nafter\n")
    intake = CollectingIntake()
    await drained(log, intake)
    parts = [records for records in intake.offered if records.part is not None]
    assert [records.part for records in parts] == [1, 2, 3]
    assert b"".join(records.payload[:-1] for records in parts) == record
    assert intake.oversizes == [len(record)]
    assert intake.offered[0].payload == b"before\n"
    assert intake.offered[-1].payload == b"after\n"
    assert intake.offered[-1].part is None


async def test_parts_go_on_after_a_restart(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    record = os.urandom(MIB).replace(b"\n", b"x") * 20
    log.write_bytes(record)
    intake = CollectingIntake()
    async with running(log, intake):
        await intake.until(lambda: len(intake.offered) == 1)
    append(log, b"the rest\nafter\n")
    await drained(log, intake)
    assert [records.part for records in intake.offered] == [1, 2, None]
    assert b"".join(records.payload[:-1] for records in intake.offered[:2]) == record + b"the rest"
    assert intake.oversizes == [len(record) + len(b"the rest")]


@pytest.mark.parametrize("size", [16 * MIB, 16 * MIB + 1])
async def test_record_of_just_the_largest_size_stays_whole(tmp_path: Path, size: int) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(b"x" * size + b"\n")
    intake = CollectingIntake()
    await drained(log, intake)
    assert [records.part for records in intake.offered] == ([None] if size == 16 * MIB else [1, 2])


async def test_gzip_file_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "audit.log.1.gz"
    with gzip.open(path, "wb") as file:
        file.write(text(lines(0, 50_000)) + b"no line feed")
    with gzip.open(path, "ab") as file:
        file.write(b"\nsecond member\n")
    intake = CollectingIntake()
    expected = [*lines(0, 50_000), b"no line feed", b"second member"]
    assert await drained(str(tmp_path / "*.gz"), intake) == expected
    path.rename(tmp_path / "audit.log.2.gz")
    assert await drained(str(tmp_path / "*.gz"), intake) == expected


async def test_half_read_gzip_file_goes_on_after_a_restart(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "audit.log.1.gz", "wb") as file:
        file.write(text(lines(0, 60_000)))
    intake = CollectingIntake()
    async with running(str(tmp_path / "*.gz"), intake):
        await intake.until(lambda: len(intake.offered) >= 2)
    assert len(intake.lines) < 60_000
    assert await drained(str(tmp_path / "*.gz"), intake) == lines(0, 60_000)


@pytest.mark.parametrize("damage", ["flipped", "cut", "no gzip"])
async def test_damaged_gzip_file_gives_what_can_be_read_once(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "audit.log.1.gz"
    rng = random.Random(1)
    expected = [rng.randbytes(30).hex().encode() for _ in range(5000)]
    packed = bytearray(gzip.compress(text(expected)))
    if damage == "flipped":
        packed[len(packed) // 2] ^= 0xFF
    elif damage == "cut":
        del packed[len(packed) // 2 :]
    else:
        packed[:2] = b"no"
    path.write_bytes(packed)
    intake = CollectingIntake()
    with structlog.testing.capture_logs() as logs:
        got = list(await drained(str(tmp_path / "*.gz"), intake))
        await drained(str(tmp_path / "*.gz"), intake)
    assert intake.lines == got
    if damage == "no gzip":
        assert got == []
    else:
        # No upper bound: after a flipped bit anything may come, line feeds, too.
        assert len(got) > 1000
        assert got[:1000] == expected[:1000]
    assert len([entry for entry in logs if entry["log_level"] == "error"]) == 1


async def test_gzip_file_still_being_written_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "audit.log.1.gz"
    packed = gzip.compress(text([os.urandom(30).hex().encode() for _ in range(20_000)]))
    path.write_bytes(packed[:500_000])
    intake = CollectingIntake()
    async with running(str(tmp_path / "*.gz"), intake):
        await intake.until(lambda: len(intake.lines) > 5000)
        append(path, packed[500_000:])
        await intake.until_lines(20_000)
    assert text(intake.lines) == gzip.decompress(packed)


@pytest.mark.parametrize("stopped", [False, True])
async def test_compressed_form_of_what_was_read_is_not_read_again(
    tmp_path: Path, stopped: bool
) -> None:
    log, rotated = tmp_path / "audit.log", tmp_path / "audit.log.1"
    pattern = str(tmp_path / "audit.log*")
    log.write_bytes(text(lines(0, 50)))
    intake = CollectingIntake()

    def rotate() -> None:
        append(log, text(lines(50, 60)))
        log.rename(rotated)
        (tmp_path / "audit.log.1.gz").write_bytes(gzip.compress(rotated.read_bytes()))
        rotated.unlink()
        log.write_bytes(text(lines(60, 70)))

    if stopped:
        await drained(pattern, intake)
        rotate()
    else:
        async with running(pattern, intake):
            await intake.until_lines(50)
            rotate()
            await intake.until_lines(70)
            (tmp_path / "other.log").write_bytes(b"")
    assert await drained(pattern, intake) == lines(0, 70)
    assert await drained(pattern, intake) == lines(0, 70)


async def test_file_that_cannot_be_read_is_reported_until_it_can_be(tmp_path: Path) -> None:
    shut, gone, other = (tmp_path / name for name in ("shut.log", "gone.log", "other.log"))
    for path in (shut, gone, other):
        path.write_bytes(path.stem.encode() + b"\n")
    forbidden = {str(shut), str(gone)}

    opened = Disk.open

    def guarded(disk: Disk, path: str) -> OpenFile:
        if path in forbidden:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return opened(disk, path)

    intake = CollectingIntake()
    with patch.object(Disk, "open", guarded), structlog.testing.capture_logs() as logs:
        async with running(str(tmp_path / "*.log"), intake, poll="20ms"):
            await intake.until_lines(1)
            gone.unlink()
            append(other, b"more\n")
            await intake.until_lines(2)
            assert await trio.to_thread.run_sync(intake.third_unreadable.wait, 20)
            forbidden.clear()
            await intake.until_lines(3)
    counts, (first, both, one, over) = zip(*intake.unreadables, strict=True)
    assert counts == (1, 2, 1, 0)
    assert first.startswith(f"cannot read {tmp_path}/")
    assert both == first + " (and 1 more file cannot be read)"
    assert one == (
        f"cannot read {shut}: Permission denied; let the relay's user read it, by its group or an "
        "ACL (setfacl -m u:USER:r)"
    )
    assert over == ""
    assert intake.lines == [b"other", b"more", b"shut"]
    errors = [line["path"] for line in logs if line["log_level"] == "error"]
    assert sorted(errors) == [str(gone), str(shut)], "each of them once"


@pytest.mark.parametrize("pattern", ["app/*.log", "app/audit.log", "app/*/audit.log"])
async def test_directory_that_cannot_be_entered_is_reported_in_place_of_missing_files(
    tmp_path: Path, pattern: str
) -> None:
    closed = tmp_path / "app"
    (tmp_path / "app" / "audit.log").parent.mkdir()

    def may_enter(disk: Disk, directory: str, *, listed: bool = False) -> bool:
        return not Path(directory).is_relative_to(closed)

    intake = CollectingIntake()
    with structlog.testing.capture_logs() as logs, patch.object(Disk, "_may_enter", may_enter):
        await drained(str(tmp_path / pattern), intake)
    advice = "let the relay's user in, by its group or an ACL (setfacl -m u:USER:rx)"
    why = f"cannot read {closed}: Permission denied; {advice}"
    assert intake.unreadables == [(1, why)]
    assert [line["log_level"] for line in logs] == ["error"]


async def test_closed_directory_that_only_a_wildcard_leads_to_is_a_warning(tmp_path: Path) -> None:
    for name in ("closed", "app"):
        (tmp_path / name / "audit.log").parent.mkdir()
    append(tmp_path / "app" / "audit.log", b"one\n")

    def may_enter(disk: Disk, directory: str, *, listed: bool = False) -> bool:
        return not Path(directory).is_relative_to(tmp_path / "closed")

    intake = CollectingIntake()
    with structlog.testing.capture_logs() as logs, patch.object(Disk, "_may_enter", may_enter):
        assert await drained(f"{tmp_path}/*/*.log", intake) == [b"one"]
    assert intake.unreadables == []
    (warning,) = warnings(logs)
    assert warning["path"] == str(tmp_path / "closed")


async def test_paths_that_match_nothing_are_a_warning_at_the_start(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        await drained(str(tmp_path / "*.log"), CollectingIntake())
    (line,) = logs
    assert (line["log_level"], line["event"]) == ("warning", "no file matches `path`")
    assert line["patterns"] == [str(tmp_path / "*.log")]


async def test_position_that_is_not_understood_is_said_and_does_no_harm(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(b"one\n")
    intake = CollectingIntake()
    intake.stored["1:2:3"] = {"offset": "many"}
    with structlog.testing.capture_logs() as logs:
        assert await drained(log, intake) == [b"one"]
    assert [entry["key"] for entry in logs if entry["log_level"] == "error"] == ["1:2:3"]


async def test_more_files_than_may_be_open_are_all_followed(tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.log" for n in range(12)]
    for n, path in enumerate(paths):
        path.write_bytes(b"%d\n" % n)
    intake = CollectingIntake()
    with patch("siemrelay.sources.file.schedule.MAX_OPEN_FILES", 3):
        async with running(str(tmp_path / "*.log"), intake, poll="1h"):
            await intake.until_lines(12)
            for path in paths:
                append(path, b"more\n")
            await intake.until_lines(24)
            mine = [name for name in _open_files() if name.startswith(str(tmp_path))]
            assert len([name for name in mine if name.endswith(".log")]) <= 4
    assert sorted(intake.lines) == sorted([b"more"] * 12 + [b"%d" % n for n in range(12)])


def _open_files() -> list[str]:
    """The names of everything this process has open."""
    return [str(fd.readlink()) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]


async def test_cancelled_source_leaves_nothing_open(tmp_path: Path) -> None:
    (tmp_path / "audit.log").write_bytes(b"one\n")
    intake = CollectingIntake()
    async with running(str(tmp_path / "*.log"), intake):
        await intake.until_lines(1)
    assert not [name for name in _open_files() if str(tmp_path) in name or "inotify" in name]


async def test_positions_of_vanished_files_are_forgotten_after_a_day_not_before(
    tmp_path: Path,
) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(b"one\n")
    intake = CollectingIntake()
    await drained(log, intake)
    away = tmp_path.with_name(tmp_path.name + "-away")
    await trio.Path(tmp_path).rename(away)  # as if its file system were not mounted
    await drained(log, intake)
    assert len(intake.stored) == 1
    away.rename(tmp_path)
    assert await drained(log, intake) == [b"one"]
    log.unlink()
    await drained(log, intake)
    (key,) = intake.stored
    intake.stored[key] = {**intake.stored[key], "gone": time.time() - 86_500}
    await drained(log, intake)
    assert intake.stored == {}


async def test_link_is_followed_to_where_it_leads(tmp_path: Path) -> None:
    target, links = tmp_path / "target", tmp_path / "links"
    target.mkdir()
    links.mkdir()
    (target / "0.log").write_bytes(b"one\n")
    (links / "pod.log").symlink_to(target / "0.log")
    intake = CollectingIntake()
    async with running(str(links / "*.log"), intake, poll="50ms"):
        await intake.until_lines(1)
        (target / "0.log").rename(target / "0.log.20240101-000000")
        (target / "0.log").write_bytes(b"two\n")
        await intake.until_lines(2)
    append(target / "0.log.20240101-000000", b"late\n")
    assert await drained(str(links / "*.log"), intake) == [b"one", b"two", b"late"]


async def test_directory_and_fifo_that_match_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "directory.log").mkdir()
    os.mkfifo(tmp_path / "fifo.log")
    (tmp_path / "audit.log").write_bytes(b"one\n")
    assert await drained(str(tmp_path / "*.log"), CollectingIntake()) == [b"one"]


@pytest.mark.parametrize(
    "settings",
    [{"path": ""}, {"path": []}, {"path": "x", "max_record_size": "17MiB"},
     {"path": "x", "poll": 0}, {"path": "x", "start_at": "middle"}],
)  # fmt: skip
def test_impossible_options_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        FileOptions.model_validate(settings)


async def test_drain_of_nothing_returns(tmp_path: Path) -> None:
    with trio.fail_after(5):
        await source(tmp_path / "nothing*").run(CollectingIntake(), drain=True)


def warnings(logs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [entry for entry in logs if entry["log_level"] == "warning"]


@pytest.mark.parametrize("drain", [True, False])
@pytest.mark.parametrize("how", ["rotated and compressed", "deleted", "emptied", "written anew"])
async def test_log_that_left_while_stopped_is_warned_of_once(
    how: str, drain: bool, tmp_path: Path
) -> None:
    log, pattern = tmp_path / "audit.json", str(tmp_path / "audit*.json")
    log.write_bytes(b"one\n")
    intake = CollectingIntake()
    await drained(pattern, intake)
    append(log, b"unread\n")
    if how == "rotated and compressed":
        (tmp_path / "audit.json.1.gz").write_bytes(gzip.compress(log.read_bytes()))
    if how == "emptied":
        log.write_bytes(b"")
    else:
        log.unlink()
    if how != "deleted":
        append(log, b"two\n")
    (tmp_path / "audit-x.json").write_bytes(b"other\n")
    with structlog.testing.capture_logs() as logs:
        if drain:
            await drained(pattern, intake)
            await drained(pattern, intake)
        else:
            async with running(pattern, intake, poll="10ms"):
                await intake.until_lines(2 if how == "deleted" else 3)
                append(tmp_path / "audit-x.json", b"more\n")
                await intake.until_lines(3 if how == "deleted" else 4)
    (warning,) = warnings(logs)
    assert warning["event"] == (
        "files disappeared while the relay was stopped; what was written to them after the "
        "stored position is lost"
    )
    assert warning["files"] == {str(log): len(b"one\n")}
    assert warning["advice"] == "let `path` match rotated names, too (audit.json*)"


@pytest.mark.parametrize("pattern", ["audit*.json", "audit*.json*"])
async def test_log_that_was_rotated_while_stopped_and_is_found_is_not_warned_of(
    pattern: str, tmp_path: Path
) -> None:
    log, pattern = tmp_path / "audit.json", str(tmp_path / pattern)
    log.write_bytes(b"one\n")
    intake = CollectingIntake()
    await drained(pattern, intake)
    append(log, b"two\n")
    log.rename(tmp_path / "audit.json.1")
    log.write_bytes(b"three\n")
    with structlog.testing.capture_logs() as logs:
        assert await drained(pattern, intake) == [b"one", b"two", b"three"]
        (tmp_path / "audit.json.1").unlink()  # an older generation may go
        await drained(pattern, intake)
    assert not warnings(logs)


@pytest.mark.parametrize("drain", [True, False])
async def test_log_that_was_compressed_while_stopped_is_read_on_where_the_glob_matches(
    drain: bool, tmp_path: Path
) -> None:
    log, pattern = tmp_path / "audit.json", str(tmp_path / "audit*.json*")
    log.write_bytes(b"one\n")
    intake = CollectingIntake()
    await drained(pattern, intake)
    (tmp_path / "audit.json.0.gz").write_bytes(gzip.compress(b"one\ntwo\n"))
    log.unlink()
    log.write_bytes(b"three\n")
    with structlog.testing.capture_logs() as logs:
        if drain:
            await drained(pattern, intake)
        else:
            async with running(pattern, intake, poll="10ms"):
                await intake.until_lines(3)
                append(log, b"four\n")
                await intake.until_lines(4)
    assert intake.lines[:3] == [b"one", b"two", b"three"]
    assert not warnings(logs)


async def test_log_that_was_rotated_while_followed_is_not_warned_of_when_it_is_gone(
    tmp_path: Path,
) -> None:
    log, other = tmp_path / "audit.json", tmp_path / "other.json"
    log.write_bytes(b"one\n")
    intake = CollectingIntake()
    async with running(str(tmp_path / "*.json"), intake, poll="10ms"):
        await intake.until_lines(1)
        log.rename(tmp_path / "audit.json.1")
        log.write_bytes(b"new\n")
        await intake.until_lines(2)
    (tmp_path / "audit.json.1").unlink()
    other.write_bytes(b"two\n")
    with structlog.testing.capture_logs() as logs:
        await drained(str(tmp_path / "*.json"), intake)
    assert not warnings(logs)


async def test_log_whose_directory_is_not_there_is_not_warned_of(tmp_path: Path) -> None:
    directory = tmp_path / "mounted"
    directory.mkdir()
    (directory / "audit.json").write_bytes(b"one\n")
    intake = CollectingIntake()
    await drained(str(directory / "*.json"), intake)
    await trio.Path(directory).rename(tmp_path / "away")
    with structlog.testing.capture_logs() as logs:
        await drained(str(directory / "*.json"), intake)
    assert [line["event"] for line in warnings(logs)] == ["no file matches `path`"]


async def test_copies_under_another_logs_name_are_files_of_their_own(tmp_path: Path) -> None:
    log, pattern = tmp_path / "a.json", str(tmp_path / "*.json*")
    log.write_bytes(b"one\n")
    intake = CollectingIntake()
    async with running(pattern, intake, poll="10ms"):
        await intake.until_lines(1)
        shutil.copyfile(log, tmp_path / "b.json")
        await intake.until_lines(2)
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(log.read_bytes()))
    shutil.copyfile(log, tmp_path / "copy.json")
    assert await drained(pattern, intake) == [b"one"] * 3  # the gzip file is known


async def test_log_and_its_compressed_copy_are_read_once_at_the_very_first_start(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.json").write_bytes(b"one\n")
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(b"one\n"))
    intake = CollectingIntake()
    assert await drained(str(tmp_path / "*"), intake) == [b"one"]


class FullIntake(CollectingIntake):
    """Takes nothing until `room` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.room = trio.Event(), trio.Event()

    async def offer(self, *records: Records) -> None:
        if any(some.payload for some in records):
            self.asked.set()
            await self.room.wait()
        await super().offer(*records)


@pytest.mark.parametrize("older", [0, 20_000])
async def test_what_is_unread_in_a_deleted_file_is_read_before_the_relay_stops(
    tmp_path: Path, older: int
) -> None:
    # Behind the generation before it, which is still there.
    log, intake = tmp_path / "audit.log", FullIntake()
    lines = [b"line %06d %s" % (n, b"x" * 80) for n in range(older + 20_000)]
    append(tmp_path / "audit.log.1", b"".join(line + b"\n" for line in lines[:older]))
    append(log, b"".join(line + b"\n" for line in lines[older:]))
    append(log, b"the last one")
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await source(f"{log}*").run(intake, drain=False)

        nursery.start_soon(run)
        await intake.asked.wait()
        log.unlink()
        intake.room.set()
        nursery.cancel_scope.cancel()
    assert intake.lines == [*lines, b"the last one"]
    assert intake.lost_total == 0

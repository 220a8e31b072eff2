"""Compressed files of every kind, recognised by their content."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
import zstandard

from tests.support.rotation.file_source_rig import CollectingIntake, append, drained, running

LINES = [b'{"n":%d}' % n for n in range(20_000)]
TEXT = b"".join(line + b"\n" for line in LINES)
Pack = Callable[[bytes], bytes]

PACKS: dict[str, Pack] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("suffix", PACKS)
@pytest.mark.parametrize("named", [True, False])
async def test_compressed_file_is_read_once_whatever_it_is_called(
    suffix: str, named: bool, tmp_path: Path
) -> None:
    pack = PACKS[suffix]
    path = tmp_path / ("audit.log.1" + (suffix if named else ""))
    path.write_bytes(pack(TEXT[:100_000]) + pack(TEXT[100_000:]))  # two members
    intake = CollectingIntake()
    assert await drained(str(tmp_path / "*"), intake) == LINES
    path.rename(tmp_path / ("audit.log.2" + (suffix if named else "")))
    assert await drained(str(tmp_path / "*"), intake) == LINES


@pytest.mark.parametrize("suffix", PACKS)
async def test_compressed_form_of_a_log_that_was_read_is_not_read_again(
    suffix: str, tmp_path: Path
) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(TEXT)
    intake = CollectingIntake()
    async with running(str(tmp_path / "*"), intake, poll="20ms"):
        await intake.until_lines(len(LINES))
        append(log, b"unread\n")
        log.rename(tmp_path / "audit.log.1")
        log.write_bytes(b"next\n")
        (tmp_path / f"audit.log.1{suffix}").write_bytes(PACKS[suffix](TEXT + b"unread\n"))
        (tmp_path / "audit.log.1").unlink()
        await intake.until_lines(len(LINES) + 2)
    assert await drained(str(tmp_path / "*"), intake) == [*LINES, b"unread", b"next"]


@pytest.mark.parametrize("suffix", PACKS)
@pytest.mark.parametrize("cut", [100, 5000])
async def test_cut_off_compressed_file_gives_what_can_be_read_and_an_error(
    suffix: str, cut: int, tmp_path: Path
) -> None:
    (tmp_path / f"audit.log.1{suffix}").write_bytes(PACKS[suffix](TEXT)[:-cut])
    intake = CollectingIntake()
    with structlog.testing.capture_logs() as logs:
        got = await drained(str(tmp_path / "*"), intake)
    whole = got[:-1]  # the last line may be cut
    assert whole == LINES[: len(whole)]
    (error,) = [entry for entry in logs if entry["log_level"] == "error"]
    assert error["damage"] == "ends in the middle of its compressed data"


async def test_file_in_an_unsupported_compression_is_reported_until_it_is_gone(
    tmp_path: Path,
) -> None:
    packed = tmp_path / "audit.log.1.lz4"
    packed.write_bytes(b"\x04\x22\x4d\x18" + b"x" * 100)
    (tmp_path / "audit.log").write_bytes(b"one\n")
    intake = CollectingIntake()
    with structlog.testing.capture_logs() as logs:
        async with running(str(tmp_path / "*"), intake, poll="20ms"):
            await intake.until_lines(1)
            packed.unlink()
            while intake.unreadables[-1][0]:  # the next look at the directory finds it gone
                append(tmp_path / "audit.log", b"more\n")
                await intake.until_lines(len(intake.lines) + 1)
    (error,) = [entry for entry in logs if entry["log_level"] == "error"]
    assert error["error"] == "compressed with lz4, which is not supported"
    assert intake.unreadables[0][0] == 1
    assert intake.unreadables[-1] == (0, "")


async def test_an_empty_file_that_becomes_one_in_an_unsupported_compression_is_reported(
    tmp_path: Path,
) -> None:
    (log := tmp_path / "audit.log").write_bytes(b"")
    (other := tmp_path / "other.log").write_bytes(b"one\n")
    intake = CollectingIntake()
    with structlog.testing.capture_logs() as logs:
        async with running(str(tmp_path / "*"), intake, poll="20ms"):
            await intake.until_lines(1)
            append(log, b"\x04\x22\x4d\x18" + b"x" * 100)
            while not intake.unreadables:
                append(other, b"more\n")
                await intake.until_lines(len(intake.lines) + 1)
    assert [entry["error"] for entry in logs if entry["log_level"] == "error"] == [
        "compressed with lz4, which is not supported"
    ]
    assert intake.lost_total == 0

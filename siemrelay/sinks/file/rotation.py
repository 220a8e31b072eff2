"""The archive's earlier files: named for the second in which they ended, compressed, deleted.

`audit.json` becomes `audit-20260304T050607Z.json`, and compressed `audit-20260304T050607Z.json.gz`.
The names sort as the files were written. Every function blocks: call it in a thread of trio's.
"""

from __future__ import annotations

import calendar
import os
import re
import time
from pathlib import Path
from typing import Final, Literal

import trio

from siemrelay.durable_files import sync_directory
from siemrelay.sinks.file.writer import MODE

Interval = Literal["none", "hourly", "daily"]

_STAMP: Final = "%Y%m%dT%H%M%SZ"

# How much is compressed before the next look for a stop: some 20 ms.
_CHUNK_BYTES: Final = 1 << 20

# Level 6 is gzip's own: audit events become a tenth; higher levels cost twice the time for 1 %.
_LEVEL: Final = 6


def period(interval: Interval, at: float) -> str:
    """The hour or day (UTC) that a moment belongs to; the same text for all moments if `none`."""
    form = {"none": "", "hourly": "%Y%m%d%H", "daily": "%Y%m%d"}[interval]
    return time.strftime(form, time.gmtime(at))


def names(path: Path, at: float, *, compress: bool) -> list[Path]:
    """Every name that a file of this archive may have, with that moment as the stamp."""
    stamp = time.strftime(_STAMP, time.gmtime(at))
    rotated = path.with_name(f"{path.stem}-{stamp}{path.suffix}")
    packed = [rotated.with_name(rotated.name + end) for end in (".gz", ".gz.part")]
    return [path, rotated, *(packed if compress else ())]


def rotate(path: Path, ended_at: float) -> Path:
    """Give the current file its final name, and return it. Raises OSError."""
    # Two in one second, or a clock set back: the next second is used, so that the names sort.
    last = max((_ended_at(stamp) for stamp in earlier(path)), default=0)
    stamp = time.strftime(_STAMP, time.gmtime(max(ended_at, last + 1)))
    found = path.with_name(f"{path.stem}-{stamp}{path.suffix}")
    path.rename(found)
    sync_directory(path.parent)
    return found


def earlier(path: Path) -> dict[str, list[Path]]:
    """The rotated files of a path by their stamp, the oldest first. Raises OSError.

    After a crash a file may be there twice, plain and compressed.
    """
    own = re.compile(rf"{re.escape(path.stem)}-(\d{{8}}T\d{{6}}Z){re.escape(path.suffix)}(\.gz)?")
    found: dict[str, list[Path]] = {}
    for file in sorted(path.parent.iterdir()):
        if name := own.fullmatch(file.name):
            found.setdefault(name[1], []).append(file)
    return found


def tidy(path: Path, *, compress: bool, keep_files: int | None) -> None:
    """Delete the oldest of more than `keep_files`, and compress what is not compressed.

    May be stopped at any time and repeated. Raises OSError, and Cancelled when the caller is.
    """
    rotated = earlier(path)
    if keep_files is not None:
        for stamp in list(rotated)[:-keep_files]:
            for file in rotated.pop(stamp):
                file.unlink()
    for file in (file for files in rotated.values() for file in files):
        if compress and file.suffix != ".gz":
            _compress(file)
    sync_directory(path.parent)


def _ended_at(stamp: str) -> int:
    return calendar.timegm(time.strptime(stamp, _STAMP))


def _compress(file: Path) -> None:
    import gzip  # only an archive that compresses needs it

    part = file.with_name(file.name + ".gz.part")
    part.unlink(missing_ok=True)
    try:
        with open(part, "xb", opener=_private) as out, file.open("rb") as plain:
            with gzip.GzipFile(file.name, "wb", _LEVEL, out) as packed:
                while chunk := plain.read(_CHUNK_BYTES):
                    trio.from_thread.check_cancelled()
                    packed.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        part.rename(file.with_name(file.name + ".gz"))
        # The compressed file's name must last before the plain one's is gone.
        sync_directory(file.parent)
        file.unlink()
    finally:
        part.unlink(missing_ok=True)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, MODE)

"""Reads the files of `siemrelay verify`: exports, plain or compressed, and the relay's hashes."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import BinaryIO, Final

import click
import msgspec

from siemrelay.cli.record_files import decompressed
from siemrelay.proof.exports.parts import ExportPart, parts
from siemrelay.proof.leaf_store import LeafStore
from siemrelay.proof.merkle import HASH_BYTES
from siemrelay.proof.report import Discrepancy, Report, counted
from siemrelay.proof.seal import Timestamp
from siemrelay.proof.tiles import TIMESTAMPS_FOLDER, leaf_tile, split
from siemrelay.proof.timestamps import MOST_RESPONSE_BYTES
from siemrelay.proof.verification import Verification
from siemrelay.wire.compression import CannotExpand, Damaged

UNREADABLE: Final = (OSError, ValueError, Damaged, CannotExpand)
"""The errors raised for an export that cannot be read."""

# So much fits into a CPU's cache with all that is made of it.
_PIECE_BYTES: Final = 128 << 10

_PROGRESS_S: Final = 0.5


def read_export(checked: Verification, path: str, added: Sequence[str], of: str) -> None:
    """Add all messages of an export. `of` says which of several it is."""
    with _ExportFile(path) as file:
        progress = _Progress(file, path, of)
        for part in parts(file.pieces(), added):
            checked.add(part, path)
            progress.show(checked.rows)
        progress.clear()


class _ExportFile:
    """One export, opened: its bytes without compression."""

    def __init__(self, path: str) -> None:
        self._file: BinaryIO = (
            sys.stdin.buffer if path == "-" else Path(path).open("rb")  # noqa: SIM115 - `__exit__` closes it
        )
        self.size = 0 if path == "-" else Path(path).stat().st_size

    def __enter__(self) -> _ExportFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def read_bytes(self) -> int:
        """How much of the file is read."""
        return int(self._file.tell()) if self.size else 0

    def pieces(self) -> Iterator[bytes]:
        """The content, piece by piece."""
        return decompressed(self._file, _PIECE_BYTES)


class _Progress:
    """How far the reading is, on a terminal."""

    def __init__(self, file: _ExportFile, path: str, of: str) -> None:
        self._file, self._name, self._shown = file, f"{path}{of}", sys.stderr.isatty()
        self._begun_s = self._next_s = time.monotonic() + _PROGRESS_S
        self._rows: int | None = None

    def show(self, rows: int) -> None:
        """So many rows are read, of all exports together."""
        now_s = time.monotonic()
        if self._rows is None:
            self._rows = rows
        if not self._shown or now_s < self._next_s:
            return
        self._next_s = now_s + _PROGRESS_S
        rate = (rows - self._rows) / (now_s - self._begun_s + _PROGRESS_S)
        part = f", {100 * self._file.read_bytes // self._file.size} %" if self._file.size else ""
        click.echo(f"\r\033[K{self._name}{part}: {counted(rows, 'row')}, {rate:,.0f}/s", nl=False,
                   err=True)  # fmt: skip

    def clear(self) -> None:
        """Remove the line."""
        if self._shown:
            click.echo("\r\033[K", nl=False, err=True)


def located(report: Report, exports: Sequence[str], added: Sequence[str]) -> Report:
    """The report, with the places of messages that are named one by one; the exports are read once
    more for it, but for standard input."""
    wanted = {_number(finding) for finding in report.findings} - {""}
    places = dict[str, list[str]]()
    for path in exports if wanted else ():
        if path == "-":
            continue
        with _ExportFile(path) as file:
            for part in parts(file.pieces(), added):
                for place in _places_in(part, wanted):
                    of_one = places.setdefault(part.leaves.numbers[place] or "", [])
                    if len(of_one) < _MOST_PLACES:
                        of_one.append(f"{path}:{part.lines[place]}")
    findings = [
        msgspec.structs.replace(finding, places=tuple(found))
        if (found := places.get(_number(finding)))
        else finding
        for finding in report.findings
    ]
    return msgspec.structs.replace(report, findings=findings)


# Of a number that stands at a thousand places some are enough.
_MOST_PLACES: Final = 10


def _number(finding: Discrepancy) -> str:
    """The number of the one message that is there and wrong; empty if there is none."""
    if finding.kind not in ("changed", "added") or finding.first != finding.last:
        return ""
    return "" if finding.first is None else f"{finding.stream.rpartition('/')[2]}:{finding.first}"


def _places_in(part: ExportPart, wanted: AbstractSet[str]) -> list[int]:
    """Where in the part the messages with these numbers are."""
    if wanted.isdisjoint(part.leaves.numbers):
        return []
    return [place for place, number in enumerate(part.leaves.numbers) if number in wanted]


def read_tiles(checked: Verification, folder: Path) -> dict[str, LeafStore]:
    """The leaves in tiles of level 0, by the stream in whose folder they are."""
    streams = dict[str, LeafStore]()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        found = leaf_tile(name.as_posix()) if path.is_file() else None
        if found is None:
            continue
        first, hashes = found
        with path.open("rb") as file:
            tile = file.read(hashes * HASH_BYTES + 1)
        if len(tile) != hashes * HASH_BYTES:
            checked.note(f"the hashes in {name} (--tiles) are damaged: {len(tile):,} bytes, not "
                         f"{hashes * HASH_BYTES:,}; they are left out")  # fmt: skip
            continue
        store = streams.setdefault(name.parts[0], LeafStore())
        for number, leaf in enumerate(split(tile), first):
            if any(leaf):
                store.add(number, leaf)
    if not streams:
        checked.note(f"there are no hashes in {folder} (--tiles): give the folder that `siemrelay "
                     "seal export` wrote")  # fmt: skip
    return streams


def kept_timestamps(folder: Path) -> Iterator[tuple[str, Timestamp]]:
    """The time stamps that `siemrelay seal export` wrote, each with its stream."""
    for path in folder.glob(f"*/{TIMESTAMPS_FOLDER}/*.tsr"):
        if path.stem.isdecimal():
            with path.open("rb") as file:
                response = file.read(MOST_RESPONSE_BYTES + 1)
            yield path.parts[-3], Timestamp(int(path.stem), response)

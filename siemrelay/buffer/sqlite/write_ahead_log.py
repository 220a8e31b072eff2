"""SQLite's write-ahead log, frame by frame, also behind the frame where SQLite stops reading.

At the first frame with a wrong checksum SQLite takes the log for ended, and overwrites the rest.
That is right for a tail that a power cut has torn, and loses records where the disk has damaged a
frame in the middle. Each checksum continues the one of the frame before, so that frames behind a
damaged one still prove that they are whole, and that most changes of one byte can be put right.
Source: SQLite's file format, section 4 (write-ahead log).
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from siemrelay.buffer.sqlite.schema import PAGE_BYTES

_HEADER_BYTES: Final = 32
_FRAME_HEADER_BYTES: Final = 24
_STEP: Final = _FRAME_HEADER_BYTES + PAGE_BYTES

# The lowest bit says in which byte order checksums are computed.
_MAGIC: Final = (0x377F0682, 0x377F0683)
_VERSION: Final = 3007000

_WORD: Final = 0xFFFFFFFF

_Sum = tuple[int, int]


class Correction(NamedTuple):
    """Bytes that belong at a place of the log, as its checksums prove."""

    at: int
    content: bytes

    def apply(self, data: bytes) -> bytes:
        """The data with these bytes at that place."""
        return data[: self.at] + self.content + data[self.at + len(self.content) :]


class LogFrame(NamedTuple):
    """One page of a transaction."""

    at: int
    """Where it begins in the log, in bytes."""
    page: int
    commits: bool
    """Whether it is the last one of its transaction."""
    content: bytes
    proven: bool
    """Whether its checksum continues that of the frame before, perhaps once it is corrected."""
    intact: bool
    """Whether SQLite takes it, if it comes that far."""
    correction: Correction | None = None
    """What makes a frame intact that is not; `content` is corrected."""
    changes: Sequence[Correction] = ()
    """Of one byte each, one of which may prove the frame; places count from `content` on."""
    other_pages: Sequence[int] = ()
    """As `changes`, where it is the number of the page that is changed."""


class WriteAheadLog:
    """The frames of the log's current use; none where there is no log.

    For a log that nobody writes to meanwhile. Use as a context manager. Raises OSError.
    """

    def __init__(self, database: Path) -> None:
        self.whole_header = True
        """Whether SQLite takes the header."""
        self.correction: Correction | None = None
        """What makes a header whole that is not."""
        try:
            flags = os.O_RDONLY | os.O_CLOEXEC
            self._descriptor: int | None = os.open(log_file(database), flags)
        except FileNotFoundError:
            self._descriptor, self._count = None, 0
            return
        self._count = (os.fstat(self._descriptor).st_size - _HEADER_BYTES) // _STEP
        if self._count > 0 and not self._read_header(header := self._read(_HEADER_BYTES, 0)):
            self.whole_header = False  # SQLite takes the log for empty
            self._salts = self._salts_of(0)
            if (whole := self._corrected_header(header)) is not None:
                self.correction = Correction(0, whole)
                self._read_header(whole)
        while self._count > 0 and self._salts_of(self._count - 1) != self._salts:
            self._count -= 1  # of an earlier use of the log

    def __enter__(self) -> WriteAheadLog:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def pages(self) -> Iterator[bytes]:
        """The content of each frame, nothing verified."""
        for index in range(self._count):
            yield self._read(PAGE_BYTES, _HEADER_BYTES + index * _STEP + _FRAME_HEADER_BYTES)

    def frames(self) -> Iterator[LogFrame]:
        """Every frame, in order. Computes checksums: a second for 60 MiB."""
        if self._count <= 0:
            return
        seed = self._seed
        for index in range(self._count + 1):  # the salts of the last one may be damaged
            at = _HEADER_BYTES + index * _STEP
            if len(found := self._read(_STEP, at)) < _STEP:
                return
            frame = self._proven(index, found, seed)
            if frame is not None:
                frame = frame[:8] + self._salts + frame[16:]
                intact = frame == found and self.whole_header
                correction = None if frame == found else Correction(at, frame)
                yield LogFrame(at, *_parts(frame), True, intact, correction)
            elif index < self._count:
                changes = self._one_byte_changes(_summed(found), seed, _stored(found))
                yield LogFrame(
                    at, *_parts(found), False, False, None,
                    [Correction(each.at - 8, each.content) for each in changes if each.at >= 8],
                    [int.from_bytes(each.content) for each in changes if each.at == 0],
                )  # fmt: skip
            else:
                return
            seed = _stored(frame or found)

    def _read_header(self, header: bytes) -> bool:
        """Take over what a header says; returns whether SQLite would."""
        magic, version, page_bytes, _, *_, first, second = struct.unpack(">8I", header)
        known = magic in _MAGIC
        self._order = ("<", ">")[magic & 1] if known else "<>"[sys.byteorder == "big"]
        self._seed, self._salts = (first, second), header[16:24]
        return (
            known
            and (version, page_bytes) == (_VERSION, PAGE_BYTES)
            and self._sum(header[:24], (0, 0)) == self._seed
        )

    def _corrected_header(self, header: bytes) -> bytes | None:
        """The header as it was before one byte was damaged; None if more is."""
        for magic in _MAGIC:
            # What is known of it, also from frames. The rest is how often the log was begun anew.
            known = struct.pack(">3I", magic, _VERSION, PAGE_BYTES) + header[12:16] + self._salts
            self._read_header(known + header[24:])
            computed = self._sum(known, (0, 0))
            if computed == self._seed or self._is_followed(0, computed):
                return known + struct.pack(">II", *computed)
            for change in self._one_byte_changes(known, (0, 0), self._seed):
                if change.at == 12:
                    return change.apply(known) + header[24:]
        self._read_header(header)
        self._salts = self._salts_of(0)
        return None

    def _proven(self, index: int, frame: bytes, seed: _Sum) -> bytes | None:
        """The frame if its checksum continues this one, if need be with one byte put right.

        Which one that is must be certain, and whether of its content or of the checksum: the frame
        behind it shows that.
        """
        summed, stored = _summed(frame), _stored(frame)
        computed = self._sum(summed, seed)
        if computed == stored:
            return frame
        with_computed = frame[:16] + struct.pack(">II", *computed) + frame[_FRAME_HEADER_BYTES:]
        if self._is_followed(index + 1, computed):
            return with_computed
        changes = self._one_byte_changes(summed, seed, stored)
        found = [
            whole[:8] + frame[8:_FRAME_HEADER_BYTES] + whole[8:]
            for whole in (change.apply(summed) for change in changes[:2])
        ]
        if not self._is_followed(index + 1, stored) and _differ_by_a_byte(frame, with_computed):
            found.append(with_computed)
        return found[0] if len(found) == 1 else None

    def _is_followed(self, index: int, seed: _Sum) -> bool:
        """Whether a frame's checksum continues this one."""
        if index >= self._count:
            return False
        frame = self._read(_STEP, _HEADER_BYTES + index * _STEP)
        return self._sum(_summed(frame), seed) == _stored(frame)

    def _salts_of(self, index: int) -> bytes:
        return self._read(8, _HEADER_BYTES + index * _STEP + 8)

    def _read(self, size: int, at: int) -> bytes:
        return b"" if self._descriptor is None else os.pread(self._descriptor, size, at)

    # -- checksums --------------------------------------------------------

    def _sum(self, data: bytes, seed: _Sum) -> _Sum:
        words = iter(struct.unpack(f"{self._order}{len(data) // 4}I", data))
        first, second = seed
        for word, following in zip(words, words, strict=True):
            first = (first + word + second) & _WORD
            second = (second + following + first) & _WORD
        return first, second

    def _one_byte_changes(self, data: bytes, seed: _Sum, wanted: _Sum) -> list[Correction]:
        """The changes of one byte, in its word, each of which gives the data this checksum.

        What a change of a word adds to the checksum depends on its place alone: the change
        multiplied by two Fibonacci numbers. Modulo 256 they repeat after 384 words, so that a
        change of a word's highest byte may be in ten places of a page, or more. Of other damage
        one case in 10 ** 12 looks like a change of one byte.
        """
        first, second = self._sum(data, seed)
        missing = (wanted[0] - first) & _WORD, (wanted[1] - second) & _WORD
        words = struct.unpack(f"{self._order}{len(data) // 4}I", data)
        found, factors = list[Correction](), (0, 1)  # of the last word
        for place in range(len(words) - 1, -1, -1):
            odd = factors[0] % 2 == 0  # which of the two can be divided by
            change = missing[odd] * pow(factors[odd], -1, _WORD + 1) & _WORD
            if change * factors[not odd] & _WORD == missing[not odd]:
                before = struct.pack(f"{self._order}I", words[place])
                after = struct.pack(f"{self._order}I", (words[place] + change) & _WORD)
                if _differ_by_a_byte(before, after):
                    found.append(Correction(4 * place, after))
            factors = factors[1], (factors[0] + factors[1]) & _WORD
        return found


def _differ_by_a_byte(one: bytes, other: bytes) -> bool:
    return sum(a != b for a, b in zip(one, other, strict=True)) == 1


def _parts(frame: bytes) -> tuple[int, bool, bytes]:
    """The number of the page, whether the frame ends a transaction, and the page."""
    page, pages_after_commit = struct.unpack_from(">II", frame)
    return page, pages_after_commit > 0, frame[_FRAME_HEADER_BYTES:]


def _stored(frame: bytes) -> _Sum:
    first, second = struct.unpack_from(">II", frame, 16)
    return first, second


def _summed(frame: bytes) -> bytes:
    """What of a frame its checksum is computed of."""
    return frame[:8] + frame[_FRAME_HEADER_BYTES:]


def log_file(database: Path) -> Path:
    """The path of a database's write-ahead log."""
    return database.with_name(f"{database.name}-wal")


def correct_log(database: Path, corrections: Sequence[Correction]) -> None:
    """Write them into the log, and fsync it; no connection may be open. Raises OSError."""
    with log_file(database).open("r+b", buffering=0) as log:
        for correction in corrections:
            os.pwrite(log.fileno(), correction.content, correction.at)
        os.fsync(log.fileno())

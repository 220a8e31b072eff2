"""Logs of numbered lines, a program that writes them, and the count of what arrived."""

from __future__ import annotations

import bz2
import lzma
import os
import re
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import zstandard

_ID = re.compile(rb'\{"id":"([^"]+)-(\d{7})"')
_HEADER = re.compile(rb'\{"id":"([^"]+)-header"')

Line = tuple[str, int]


def line_of(log: str, number: int) -> bytes:
    """The line with that number; neighbours differ in length, so that no two cuts agree."""
    return (
        f'{{"id":"{log}-{number:07}","type":"User Logged In","message":"{"m" * (number % 97)}"}}'
    ).encode()


def header_of(log: str, size_bytes: int) -> bytes:
    """The line with which every generation of the log begins, equal in all of them."""
    start = f'{{"id":"{log}-header","type":"Service Started","message":"'.encode()
    return start + b"h" * (size_bytes - len(start) - 3) + b'"}'


def runs(lines: Iterable[Line]) -> str:
    """Lines as ranges: `a 3-7, a 9, b 1-2`."""
    found: list[list[int | str]] = []
    for log, number in sorted(lines):
        if found and found[-1][0] == log and found[-1][2] == number - 1:
            found[-1][2] = number
        else:
            found.append([log, number, number])
    shown = [f"{log} {a}" if a == b else f"{log} {a}-{b}" for log, a, b in found[:20]]
    return ", ".join(shown) + (f" and {len(found) - 20} more ranges" if len(found) > 20 else "")


@dataclass
class Contents:
    """What some bytes hold: numbered lines, header lines, and lines that nobody wrote."""

    lines: Counter[Line] = field(default_factory=Counter)
    headers: Counter[str] = field(default_factory=Counter)
    foreign: list[bytes] = field(default_factory=list)

    def add(self, data: bytes, *, within: bool = False) -> None:
        """Count whole lines; `within`: something may stand in front of each (a time, a stream)."""
        for line in data.split(b"\n"):
            found = _ID.search(line)
            if found is not None:
                log, number = found[1].decode(), int(found[2])
                whole = line[found.start() :] if within else line
                if whole == line_of(log, number):
                    self.lines[log, number] += 1
                    continue
            elif (header := _HEADER.match(line)) is not None and line.endswith(b'h"}'):
                self.headers[header[1].decode()] += 1
                continue
            if line:
                self.foreign.append(line[:120])


class Output:
    """A file that a relay writes; `contents` is what has arrived in it so far."""

    def __init__(self, path: Path, *, within: bool = False) -> None:
        self.path, self._within = path, within
        self.contents = Contents()
        self._read_to = 0

    def look(self) -> Contents:
        """Count what has been added since the last look."""
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self._read_to)
                whole, line_feed, _ = file.read().rpartition(b"\n")
            self._read_to += len(whole) + len(line_feed)
            self.contents.add(whole, within=self._within)
        return self.contents


def in_files(patterns: Iterable[str], *, within: bool = False) -> set[Line]:
    """The numbered lines in the files that these globs match, compressed ones included."""
    while True:
        # A file that is renamed meanwhile could be missed under both names.
        with suppress(FileNotFoundError):
            before, contents = _listing(patterns), Contents()
            for path, _ in before:
                contents.add(_plain(path.read_bytes()), within=within)
            if _listing(patterns) == before:
                return set(contents.lines)


def _listing(patterns: Iterable[str]) -> set[tuple[Path, int]]:
    found = {path for pattern in patterns for path in Path("/").glob(pattern.lstrip("/"))}
    # A link stays without a target for as long as its program is stopped.
    there = (path for path in found if path.exists() or not path.is_symlink())
    return {(path, path.stat().st_ino) for path in there}


def _plain(data: bytes) -> bytes:
    """The content; of a compressed file that is still being written, what there is."""
    if data.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(wbits=31).decompress(data)
    if data.startswith(b"BZh"):
        return bz2.BZ2Decompressor().decompress(data)
    if data.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMADecompressor().decompress(data)
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data


class Writer:
    """A program that writes one log, in a thread of its own, until it is stopped.

    `number` is that of the last line that it has written.
    """

    def __init__(self, log: str, pause_s: float = 0.01, burst: int = 1) -> None:
        self.log, self.number, self.headers = log, 0, 0
        self._pause_s, self._burst = pause_s, burst
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=log)
        self._error: BaseException | None = None

    def write(self, line: bytes) -> None:
        """Write one line, without its line feed."""
        raise NotImplementedError

    def close(self) -> None:
        """Close what is open; called in the writer's thread, after its last line."""

    def tick(self) -> bool:
        """Called before each burst; whether something can be written now."""
        return True

    def _run(self) -> None:
        try:
            while not self._stop.wait(self._pause_s):
                for _ in range(self._burst if self.tick() else 0):
                    self.write(line_of(self.log, self.number + 1))
                    self.number += 1
        except BaseException as error:  # noqa: BLE001 - raised again by stop(), in the test's thread
            self._error = error
        finally:
            self.close()

    def start(self) -> Self:
        """Begin to write."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Write no more, and wait until everything is written."""
        self._stop.set()
        self._thread.join()
        if self._error is not None:
            raise self._error


class AppendingWriter(Writer):
    """Keeps its log open for appending and opens it again after somebody renamed it.

    `creates`: it makes the log itself, instead of waiting until somebody does. `late_s`: it goes on
    writing into the renamed file for so long. `header_bytes`: begins every empty file with a header
    line of that size. While `hold` exists it writes nothing.
    """

    def __init__(
        self, path: Path, log: str, *, creates: bool, late_s: float = 0, header_bytes: int = 0,
        hold: Path | None = None, pause_s: float = 0.01, burst: int = 1,
    ) -> None:  # fmt: skip
        super().__init__(log, pause_s, burst)
        self._path, self._late_s, self._header_bytes = path, late_s, header_bytes
        self._hold = hold
        self._mode = os.O_WRONLY | os.O_APPEND | (os.O_CREAT if creates else 0)
        self._file = -1
        self._renamed = False

    def tick(self) -> bool:
        if self._hold is not None and self._hold.exists():
            held = self._hold.with_suffix(".held")
            held.touch()
            while self._hold.exists() and not self._stop.wait(0.002):
                pass
            held.unlink(missing_ok=True)
        if self._file >= 0 and not self._is_named():
            if self._late_s:
                self._write_on()
            os.close(self._file)
            self._file = -1
        if self._file < 0:
            try:
                self._file = os.open(self._path, self._mode, 0o644)
            except FileNotFoundError:
                return False
        if self._header_bytes and not os.fstat(self._file).st_size:
            self.write(header_of(self.log, self._header_bytes))
            self.headers += 1
        return True

    def _is_named(self) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._file))
        except FileNotFoundError:
            return False

    def _write_on(self) -> None:
        until = time.monotonic() + self._late_s
        while time.monotonic() < until and not self._stop.wait(self._pause_s):
            self.write(line_of(self.log, self.number + 1))
            self.number += 1

    def write(self, line: bytes) -> None:
        data = line + b"\n"
        assert os.write(self._file, data) == len(data)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)

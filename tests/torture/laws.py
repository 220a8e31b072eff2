"""What must hold of a state directory after a power cut, given what was acknowledged before it."""

from __future__ import annotations

import copy
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import trio
from structlog.testing import capture_logs

from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.buffer.rows import COLUMNS, Payloads, Row
from siemrelay.buffer.sink_cursor import SinkPolicy
from siemrelay.core.errors import SiemrelayError
from siemrelay.pipeline.sealing.archive import folder_of, read_seals
from siemrelay.proof.leaf import hash_of
from siemrelay.proof.merkle import Tree
from siemrelay.telemetry.stats import BufferStats
from tests.torture.workload import SINKS, is_wanted, message, sealed_stream, seen

# They add up to what a cursor has passed.
COUNTS = "delivered + duplicates + filtered + refused + dropped + lost"


class Past:
    """What was acknowledged, and what sinks were shown, before the cut: number → digest."""

    def __init__(self) -> None:
        self.stored: dict[int, int] = {}
        self.sent: dict[str, dict[int, int]] = {sink: {} for sink in SINKS}
        self.buried: dict[str, dict[int, int]] = {sink: {} for sink in SINKS}
        self.numbers: dict[int, str] = {}
        """Of the sealed stream: what was sent under each number, as a leaf."""
        self.stream = self.key = ""
        """The stream's name and its key."""

    def note(self, marks: bytes) -> None:
        """More of the workload's marks."""
        for line in marks.splitlines():
            match json.loads(line):
                case {"numbers": found}:
                    self.numbers |= {int(number): leaf for number, leaf in found.items()}
                    continue
                case {"stream": str(name)}:
                    assert self.stream in ("", name), "a stream began anew"
                    self.stream = name
                    continue
                case {"key": str(key)}:
                    assert self.key in ("", key), "another key signs"
                    self.key = key
                    continue
                case {"stored": found}:
                    known = self.stored
                case {"sink": sink, "sent": found}:
                    known = self.sent[sink]
                case {"sink": sink, "buried": found}:
                    known = self.buried[sink]
            known |= {int(number): digest for number, digest in found.items()}

    def copy(self) -> Past:
        """What was so far, to go on from twice."""
        return copy.deepcopy(self)

    @property
    def shown(self) -> dict[int, int]:
        """Every number that anybody has seen a record of."""
        return self.stored | self.sent["a"] | self.sent["b"]


def broken_laws(state: Path, past: Past) -> list[str]:
    """What is wrong with a relay that starts on this directory; empty if nothing is."""
    try:
        with capture_logs() as said:
            broken = trio.run(_broken, state, past)
        # Nothing is damaged or gone, so nothing may say so.
        return broken + [f"a false alarm: {line}" for line in said if line["log_level"] == "error"]
    except SiemrelayError as error:
        # A power cut is no damage: nothing about it may stop a start.
        return [f"the relay does not start: {error}"]
    except Exception as error:  # noqa: BLE001  (any traceback is a broken law, and is shown)
        return [f"a traceback: {error!r}"]


async def _broken(state: Path, past: Past) -> list[str]:
    with DiskBuffer(state, max_size_bytes=1 << 30, keep_s=1e9, stats=BufferStats()) as buffer:
        with closing(sqlite3.connect(state / "buffer.db")) as connection:
            file = _File(connection)
            broken = [*_of_the_file(file, past)]
            buffer.set_sinks({sink: SinkPolicy() for sink in SINKS})
            for sink in SINKS:
                broken += await _of_a_sink(buffer, file, sink, past)
            broken += await _of_the_stream(buffer, state, past)
        if past.shown and buffer.end <= max(past.shown):
            broken.append(f"number {buffer.end} is used again; {max(past.shown)} was seen")
    return broken


class _File:
    """The buffer's file, as an operator looks at it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def column(self, query: str, *values: Any) -> list[Any]:
        return [row[0] for row in self.rows(query, *values)]

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(query, values).fetchall()

    def letters(self, sink: str) -> set[int]:
        return set(self.column("SELECT sequence FROM dead_letters WHERE sink = ?", sink))

    def lines(self) -> list[int]:
        """The numbers of the lines of the source `file` that are kept, in order."""
        query = f"SELECT {COLUMNS} FROM batches WHERE source = 'file' ORDER BY first_sequence"
        payloads = Payloads()
        batches = [payloads.batch(Row(*row)) for row in self.rows(query)]
        return [int(record.split()[1]) for batch in batches for record in batch.records()]


async def _of_a_sink(buffer: DiskBuffer, file: _File, sink: str, past: Past) -> list[str]:
    broken, shown, letters = list[str](), past.shown, file.letters(sink)
    position, got = buffer.cursor(sink).next_sequence, dict[int, int]()
    while position < buffer.end:
        batches = await buffer.read(position)
        got |= {number: digest for number, digest in seen(batches).items() if number >= position}
        position = batches[-1].next_sequence
    if lost := past.stored.keys() - got.keys() - past.sent[sink].keys() - letters:
        broken.append(f"acknowledged records do not arrive at {sink}: {_some(lost)}")
    if gone := past.buried[sink].keys() - letters:
        broken.append(f"dead letters of {sink} are gone: {_some(gone)}")
    if other := {number for number in got.keys() & shown.keys() if got[number] != shown[number]}:
        broken.append(f"numbers of {sink} stand for other records: {_some(other)}")
    return broken


async def _of_the_stream(buffer: DiskBuffer, state: Path, past: Past) -> list[str]:
    """The relay goes on with its stream, and every number stands for what was sent under it."""
    if not past.stream:
        return []
    broken, cursor = list[str](), buffer.cursor("a")
    stream = cursor.stream
    if stream is None or stream.name != past.stream:
        return ["the sealed stream is forgotten"]
    if stream.next_sequence != cursor.next_sequence:
        broken.append(f"the stream is at {stream.next_sequence}, its cursor at "
                      f"{cursor.next_sequence}")  # fmt: skip
    size, pending = stream.tree.size, stream.pending
    sent = [bytes.fromhex(past.numbers.get(n, "")) for n in range(size)]
    if stream.tree != Tree().extended(sent):
        broken.append("the tree is not that of the messages")
    sealing, leaves = sealed_stream(buffer, state), dict[int, bytes]()
    if pending is not None:
        leaves[pending.number] = hash_of(sealing.maker.message(stream, pending) or b"")
    number, position = size, cursor.next_sequence
    while position < buffer.end:
        for sequence, digest in seen(batches := await buffer.read(position)).items():
            if sequence >= position and is_wanted(digest):
                number += number in leaves
                leaves[number] = hash_of(message(digest))
                number += 1
        position = batches[-1].next_sequence
    again = {n: leaf for n, leaf in past.numbers.items() if n >= size}
    if other := [n for n, leaf in again.items() if leaves.get(n, b"").hex() != leaf]:
        broken.append(f"numbers that were used stand for other messages: {_some(other)}")
    if str(sealing.keys.make()[-1].verifier) != past.key:
        broken.append("the signing key is another one")
    archive = folder_of(state, stream.name)
    if stream.witness is not None and not (archive / stream.witness.name).exists():
        broken.append("the state would be taken for a copy")
    sealed = [seal.size for seal in read_seals(archive)]
    if sealed and sealed[-1] > (stream.sealed.size if pending is None else pending.size):
        broken.append("the state would be taken for one that was set back")
    return broken


def _of_the_file(file: _File, past: Past) -> Iterator[str]:
    if (said := file.column("PRAGMA integrity_check")) != ["ok"]:
        yield f"integrity_check: {said[:3]}"
    (end,) = file.column("SELECT value FROM facts WHERE name = 'next_sequence'")
    newest = max(file.column("SELECT first_sequence + count FROM batches"), default=1)
    if newest > end:
        yield f"there are records up to {newest}, and the next would be numbered {end}"
    for sink, cursor in file.rows("SELECT sink, next_sequence FROM cursors"):
        settled = past.sent[sink].keys() | past.buried[sink].keys() | file.letters(sink)
        if cursor > max(settled, default=0) + 1:
            yield f"the cursor of {sink} is at {cursor}, ahead of what it was sent"
    for sink, passed in file.rows(f"SELECT sink, next_sequence - first_sequence - ({COUNTS}) "
                                  "FROM cursors"):  # fmt: skip
        if passed:
            yield f"the counts of {sink} are {passed} short of the records that it passed"
    counted = sum(file.column("SELECT value FROM facts WHERE name LIKE 'records:%'"))
    if counted != end - 1:
        yield f"{counted} records are counted as stored, the next is numbered {end}"
    lines = file.lines()
    position = 0
    for value in file.column("SELECT value FROM positions WHERE source = 'file'"):
        position = json.loads(value)["lines"]
    if lines and lines != [*range(lines[0], position + 1)]:
        yield f"the position is {position}, and the lines stored are {lines}"


def _some(numbers: Iterable[int]) -> str:
    found = sorted(numbers)
    return f"{found[:5]} ({len(found)} in all)"

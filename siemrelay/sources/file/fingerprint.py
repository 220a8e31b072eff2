"""Identifies a file's content: what it begins with, and what was read last.

An inode is given to the next file as soon as the last one is deleted, and truncation keeps it,
so the number alone would take a new file for the old one. Hence a file is the same only if it
still begins with the bytes it began with (up to 1 KiB) and still has, just before the place read
to, the bytes that were read there.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import Final, Protocol

import msgspec

from siemrelay.sources.contract import Position
from siemrelay.sources.file.checkpoints import FileCheckpoint, printable
from siemrelay.sources.file.disk import FileId
from siemrelay.sources.file.rotated_names import base_name
from siemrelay.wire.framing.contract import Ahead

# How much of a file's beginning, and of what was read last, tells it from others: two or three
# audit events with their time stamps and ids. A kilobyte costs two microseconds to compare.
PREFIX_BYTES: Final = 1024
TAIL_BYTES: Final = 1024
# How much of what was read last is kept while a file is open: what a log grows by while it is
# copied and before it is truncated, so that such a copy, which is shorter, is recognised.
RECENT_BYTES: Final = 16 << 10
# Of so many records it is stored where they end. A program that is late to open the new log, or a
# log that grows between its copy and its truncation, writes a few that the copy has not.
_MOST_MARKS: Final = 16
# How much of that is compared before each read, at no more cost than a kilobyte.
_COMPARED_BYTES: Final = 4 << 10


class ContentChanged(Exception):
    """The bytes read are no longer in the file: it was truncated or written anew."""


class Readable(Protocol):
    """Content of a file, decompressed, read at any offset."""

    def pread(self, length: int, offset: int) -> bytes:
        """`length` bytes from `offset`; fewer only where what can be read now ends."""

    def keep_from(self, offset: int) -> None:
        """Nothing before `offset` will be asked for soon."""


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def end_checksum(content: Readable, offset: int) -> int:
    """The checksum that `FileCheckpoint.marks` has for that offset, if the content is the same."""
    length = min(TAIL_BYTES, offset)
    content.keep_from(offset - length)
    return zlib.crc32(content.pread(length, offset - length))


def begins_as(begin: bytes, checkpoint: FileCheckpoint) -> bool:
    """Whether the stored prefix is a prefix of `begin` (a content's first bytes)."""
    prefix = begin[: checkpoint.prefix_length]
    return len(prefix) == checkpoint.prefix_length and digest(prefix) == checkpoint.prefix_sha256


def continues_at(content: Readable, offset: int, tail_sha256: str) -> bool:
    """Whether `content` has, just before the offset, what was read there; shorter ones have not.

    Compressed content is expanded up to the offset.
    """
    length = min(TAIL_BYTES, offset)
    content.keep_from(offset - length)
    return digest(content.pread(length, offset - length)) == tail_sha256


class Progress:
    """How far one content was read, and its fingerprint; grows with what is read."""

    __slots__ = (
        "_marks", "_prefix_sha256", "_stored_tail_sha256", "ahead", "begin", "compressed", "copied",
        "device", "end_sha256", "finished_size", "inode", "key", "line_feed", "log",
        "offset", "part", "path", "recent", "serial", "truncated",
    )  # fmt: skip

    def __init__(
        self, path: str, file_id: FileId, serial: int, *, compressed: bool = False
    ) -> None:
        self.path, self.serial, self.compressed = printable(path), serial, compressed
        self.log = base_name(path)
        self.device, self.inode = file_id
        self.key = f"{self.device}:{self.inode}:{serial}"
        """Names this content among all that this source ever read."""
        self.offset = 0
        self.begin = b""
        """The first bytes, read or only seen."""
        self.recent = b""
        """The bytes before the offset: the last `TAIL_BYTES` at least, if there are so many."""
        self.part = 0
        self.line_feed = b"\n"
        """The line feed in its encoding."""
        self.ahead: Ahead = ()
        """Stretches taken behind the offset, as `Chunk.ahead`."""
        self.finished_size: int | None = None
        self.end_sha256: str | None = None
        self.copied = self.truncated = False
        self._prefix_sha256: str | None = digest(b"")
        self._stored_tail_sha256: str | None = None
        self._marks: tuple[tuple[int, int], ...] = ()

    @classmethod
    def resume(
        cls, key: str, checkpoint: FileCheckpoint, path: str, file_id: FileId, begin: bytes
    ) -> Progress:
        """Go on from a checkpoint; `move_to` must follow before anything is read.

        `path` and `file_id` as they are now; `begin`: the content's first bytes.
        """
        progress = cls(path, file_id, checkpoint.serial, compressed=checkpoint.is_compressed)
        progress.key, progress.log = key, checkpoint.log_name
        progress.begin = begin
        progress.offset, progress.part = checkpoint.offset, checkpoint.part
        progress.ahead = checkpoint.ahead
        progress.finished_size, progress.copied = checkpoint.finished_size, checkpoint.copied
        progress.end_sha256 = checkpoint.end_sha256
        progress._prefix_sha256 = checkpoint.prefix_sha256
        progress._stored_tail_sha256 = checkpoint.tail_sha256
        progress._marks = checkpoint.marks
        return progress

    @property
    def head(self) -> bytes:
        """The first bytes, as far as they were read."""
        return self.begin[: min(self.offset, PREFIX_BYTES)]

    @property
    def tail(self) -> bytes:
        return self.recent[-TAIL_BYTES:]

    def see_begin(self, begin: bytes) -> None:
        """Take note of the content's first bytes, which need not have been read yet."""
        # What is allocated in advance is NUL until it is written.
        begin = begin[:PREFIX_BYTES].rstrip(b"\0")
        if len(begin) > len(self.begin):
            self.begin = begin

    def advance(self, consumed: bytes) -> None:
        """Move past bytes that were read at the offset."""
        if self.offset < PREFIX_BYTES:
            if self.offset + len(consumed) > len(self.begin):
                self.begin = (self.begin[: self.offset] + consumed[:PREFIX_BYTES])[:PREFIX_BYTES]
            self._prefix_sha256 = None
        self.offset, self.ahead = self.offset + len(consumed), ()
        self._stored_tail_sha256 = None
        if len(consumed) >= RECENT_BYTES:
            self.recent = consumed[-RECENT_BYTES:]
        else:
            self.recent += consumed
            if len(self.recent) > 2 * RECENT_BYTES:
                self.recent = self.recent[-RECENT_BYTES:]

    def advance_nuls(self, length: int) -> None:
        """As `advance` past so many NULs, of which there may be gigabytes."""
        if self.offset < PREFIX_BYTES:
            self.advance(bytes(min(length, PREFIX_BYTES)))
            length -= min(length, PREFIX_BYTES)
        self.offset += max(0, length - RECENT_BYTES)
        self.advance(bytes(min(length, RECENT_BYTES)))

    def move_to(self, content: Readable, offset: int) -> None:
        """Go to an offset without having read up to it: what lies there is taken as read.

        Raises ContentChanged if the content ends before it, or if this is the offset of a stored
        checkpoint and it is not what was read there.
        """
        content.keep_from(0)
        begin = content.pread(PREFIX_BYTES, 0)
        tail_length = min(TAIL_BYTES, offset)
        content.keep_from(offset - tail_length)
        recent = content.pread(tail_length, offset - tail_length)
        # It may have been truncated since it was compared: a fingerprint of less than lies before
        # the offset would take whatever is written next for what was read (test_fingerprint.py).
        if len(begin) < min(PREFIX_BYTES, offset) or len(recent) < tail_length:
            raise ContentChanged(self.path)
        stored = self._stored_tail_sha256 if offset == self.offset else None
        if stored is not None and digest(recent) != stored:
            raise ContentChanged(self.path)
        if offset != self.offset:
            self._marks = self.ahead = ()
        self.begin, self.recent, self.offset = begin[:offset], recent, offset
        self.see_begin(begin)
        self._prefix_sha256 = self._stored_tail_sha256 = None

    def forget_recent(self) -> None:
        """Keep of what was read last just what the fingerprint needs."""
        self.recent = self.tail

    def still_in(self, content: Readable) -> bool:
        """Whether what was read is still there: false after a truncation, also a regrown one."""
        if content.pread(len(self.begin), 0) != self.begin:
            return False
        if self.offset <= len(self.begin):
            return True
        tail = self.recent[-_COMPARED_BYTES:]
        return content.pread(len(tail), self.offset - len(tail)) == tail

    def _mark_ends(self) -> None:
        """Mark where records ended since this was asked last, the last one at the offset."""
        recent, start = self.recent, self.offset - len(self.recent)
        known = self._marks[-1][0] if self._marks else 0
        fresh: list[tuple[int, int]] = []
        end = len(recent)
        while (
            start + end > known and len(fresh) < _MOST_MARKS and (start == 0 or end >= TAIL_BYTES)
        ):
            # Twenty records a read are ordinary: SHA-256 of each took 1 % of what the relay does.
            fresh.append((start + end, zlib.crc32(recent[max(0, end - TAIL_BYTES) : end])))
            at = recent.rfind(self.line_feed, 0, end - 1)
            end = at + len(self.line_feed) if at >= 0 else 0
        self._marks = (*self._marks, *reversed(fresh))[-_MOST_MARKS:]

    def checkpoint(self, *, gone: float | None = None) -> FileCheckpoint:
        """The checkpoint to store now."""
        if self._prefix_sha256 is None:
            self._prefix_sha256 = digest(self.head)
        tail_sha256 = self._stored_tail_sha256 or digest(self.recent[-TAIL_BYTES:])
        if not self.compressed:
            self._mark_ends()
        return FileCheckpoint(
            path=self.path,
            device=self.device,
            inode=self.inode,
            serial=self.serial,
            offset=self.offset,
            prefix_length=min(self.offset, PREFIX_BYTES),
            prefix_sha256=self._prefix_sha256,
            tail_sha256=tail_sha256,
            part=self.part,
            ahead=self.ahead,
            finished_size=self.finished_size,
            compressed=self.compressed,
            end_sha256=self.end_sha256,
            copied=self.copied,
            truncated=self.truncated,
            log=self.log,
            marks=self._marks,
            gone=gone,
        )

    def position(self) -> Position:
        """The position that goes with the records read last."""
        return Position(self.key, msgspec.structs.asdict(self.checkpoint()))

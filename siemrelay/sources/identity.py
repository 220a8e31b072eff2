"""Which file it is: device and inode, and what it begins with, and what was read last.

An inode is given to the next file as soon as the last one is deleted, and truncation keeps it,
so the number alone would take a new file for the old one. Hence a file is the same only if it
still begins with the bytes it began with (up to 1 KiB, as far as it was read) and still has, just
before the place read to, the bytes that were read there.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from siemrelay.sources.content import Content
from siemrelay.sources.contract import Position

# How much of a file's beginning, and of what was read last, tells it from others: two or three
# audit events with their time stamps and ids. A kilobyte costs two microseconds to compare.
PREFIX_BYTES: Final = 1024
TAIL_BYTES: Final = 1024


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where one file was read to: what is stored. Offsets count the content, inflated if gzip."""

    path: str
    device: int
    inode: int
    serial: int
    """Rises with every file met; the older of two files has the lower one."""
    offset: int
    prefix_length: int
    prefix_sha256: str
    tail_sha256: str
    part: int = 0
    """How many parts of a split record lie before `offset`."""
    finished_size: int | None = None
    """Of a gzip file that was read to its end: its (compressed) size then."""
    copied: bool = False
    """A copy of this content was met and will not be taken for one again."""
    truncated: bool = False
    """The file that held this content holds another one."""
    gone: float | None = None
    """Since when (seconds since the epoch) the file is not to be found."""


def place_from(value: Mapping[str, Any]) -> Place:
    """A stored position's place. Raises msgspec.ValidationError if it is not one."""
    return msgspec.convert(dict(value), Place)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def begins_as(begin: bytes, place: Place) -> bool:
    """Whether the stored prefix is a prefix of `begin` (a content's first bytes)."""
    prefix = begin[: place.prefix_length]
    return len(prefix) == place.prefix_length and _digest(prefix) == place.prefix_sha256


def continues_at(content: Content, place: Place) -> bool:
    """Whether `content` has, just before the place, what was read there; shorter ones have not.

    A gzip file is inflated up to the place.
    """
    length = min(TAIL_BYTES, place.offset)
    content.keep_from(place.offset - length)
    return _digest(content.pread(length, place.offset - length)) == place.tail_sha256


def showable(path: str) -> str:
    """A path as text that can be stored and logged: names need not be UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


class Identity:
    """One content while it is read: grows with what is read, and yields the position to store."""

    __slots__ = (
        "_prefix_sha256", "_stored_tail_sha256", "_tail", "copied", "device", "finished_size",
        "head", "inode", "key", "offset", "part", "path", "serial", "truncated",
    )  # fmt: skip

    def __init__(self, path: str, device: int, inode: int, serial: int) -> None:
        self.path, self.device, self.inode, self.serial = showable(path), device, inode, serial
        self.key = f"{device}:{inode}:{serial}"
        """Names this content among all that this source ever read."""
        self.offset = 0
        self.head = self._tail = b""
        self.part = 0
        self.finished_size: int | None = None
        self.copied = self.truncated = False
        self._prefix_sha256 = _digest(b"")
        self._stored_tail_sha256: str | None = None

    @classmethod
    def resume(cls, key: str, place: Place, found: tuple[str, int, int], head: bytes) -> Identity:
        """Go on from `place`; `move_to` must follow before anything is read.

        `found`: path, device and inode as they are now; `head`: the content's first bytes.
        """
        identity = cls(*found, place.serial)
        identity.key = key
        identity.head = head[: place.prefix_length]
        identity.offset, identity.part = place.offset, place.part
        identity.finished_size, identity.copied = place.finished_size, place.copied
        identity._prefix_sha256 = place.prefix_sha256
        identity._stored_tail_sha256 = place.tail_sha256
        return identity

    def advance(self, consumed: bytes) -> None:
        """Move past bytes that were read at the offset."""
        self.offset += len(consumed)
        if len(self.head) < PREFIX_BYTES:
            self.head = (self.head + consumed[:PREFIX_BYTES])[:PREFIX_BYTES]
            self._prefix_sha256 = _digest(self.head)
        if len(consumed) >= TAIL_BYTES:
            self._tail = consumed[-TAIL_BYTES:]
        else:
            self._tail = (self._tail + consumed)[-TAIL_BYTES:]

    def move_to(self, content: Content, offset: int) -> None:
        """Go to an offset without having read up to it: what lies there is taken as read."""
        self.head = content.pread(min(PREFIX_BYTES, offset), 0)
        self._prefix_sha256 = _digest(self.head)
        tail_length = min(TAIL_BYTES, offset)
        content.keep_from(offset - tail_length)
        self._tail = content.pread(tail_length, offset - tail_length)
        self._stored_tail_sha256 = None
        self.offset = offset

    def still_in(self, content: Content) -> bool:
        """Whether what was read is still there: false after a truncation, also a regrown one."""
        if content.pread(len(self.head), 0) != self.head:
            return False
        if self.offset <= PREFIX_BYTES:
            return True  # the prefix was everything
        return content.pread(len(self._tail), self.offset - len(self._tail)) == self._tail

    def place(self, *, gone: float | None = None) -> Place:
        """What to store of it now."""
        return Place(
            path=self.path,
            device=self.device,
            inode=self.inode,
            serial=self.serial,
            offset=self.offset,
            prefix_length=len(self.head),
            prefix_sha256=self._prefix_sha256,
            tail_sha256=self._stored_tail_sha256 or _digest(self._tail),
            part=self.part,
            finished_size=self.finished_size,
            copied=self.copied,
            truncated=self.truncated,
            gone=gone,
        )

    def position(self) -> Position:
        """The position that goes with the records read last."""
        return position(self.key, self.place())


def position(key: str, place: Place) -> Position:
    """A place in the form in which it is stored."""
    return Position(key, msgspec.structs.asdict(place))

"""Proves that a file is one that was read before, or a copy of it, in whole or as far as it goes.

logrotate's `copytruncate` and `compress` make such copies, and their records must not be
delivered twice. The proof is the beginning of the content and the bytes before the place read to.
While the original is there, the two are compared themselves: the copy may be shorter than what
was read, for the log goes on between the copy and the truncation.
"""

# ruff: noqa: PTH120
# Paths are text here: a survey handles them by the thousand, and Path costs tenfold.
from __future__ import annotations

import os.path
from collections.abc import Iterable
from typing import Final

import msgspec

from siemrelay.sources.file.checkpoints import CheckpointStore, FileCheckpoint, printable
from siemrelay.sources.file.content import CompressedContent, Content, PlainContent
from siemrelay.sources.file.disk import Disk
from siemrelay.sources.file.fingerprint import (
    PREFIX_BYTES,
    ContentChanged,
    begins_as,
    continues_at,
    digest,
    end_checksum,
)
from siemrelay.sources.file.reader import FileMoved, FollowedFile
from siemrelay.sources.file.reconcile import SharedPrefix, Stage

# How much of the beginning, and of the end of the shorter one, is compared with an original that
# is there: a copy differs from the next generation well within this.
_BEGIN_BYTES: Final = 4 << 10
_END_BYTES: Final = 64 << 10
# A file shorter than what was read must share so much with what was read last.
_MIN_RECENT_BYTES: Final = 512
# Files in unrelated directories may have a common header; more than this is no chance.
_MIN_ELSEWHERE_BYTES: Final = 512
# Checkpoints of files that are gone, the latest first, that a new file is compared with.
_MAX_CHECKPOINTS: Final = 200


class OriginChanged(Exception):
    """An original was truncated since the survey looked at it: survey again, then compare."""

    def __init__(self, file: FollowedFile) -> None:
        super().__init__(file.path)
        self.file = file


class Origin(msgspec.Struct, frozen=True):
    """A content that was read or is being read; `file` holds it, if it is still there."""

    key: str
    checkpoint: FileCheckpoint
    directory: str
    recent: bytes
    """The bytes read of it last, as far as they are remembered."""
    file: FollowedFile | None = None


class Extent(msgspec.Struct, frozen=True):
    """How long a content is, as far as is known, and whether that is all there is at present."""

    length: int
    complete: bool


def may_be_a_copy(file: FollowedFile) -> bool:
    """By its name; the log itself never is."""
    return file.compressed or file.rotated_name


def origins_of(
    copy: FollowedFile, followed: Iterable[FollowedFile], store: CheckpointStore
) -> list[Origin]:
    """Contents that `copy` may be a copy of, by names: those of the same log.

    A plain copy comes from the log itself, a compressed one from any generation. Plain files do
    not wait for compressed ones, nor for files that wait themselves, so that none waits for
    another that waits for it.
    """
    others = [other for other in followed if other is not copy]
    # Every pod of Kubernetes has its `0.log`: none of them is a copy of another's.
    nearby = any(not other.rotated_name and _near(copy, other.directory) for other in others)
    found = [
        Origin(
            other.progress.key,
            other.progress.checkpoint(),
            other.directory,
            other.progress.recent,
            other,
        )
        for other in others
        if (not nearby or _near(copy, other.directory))
        and not other.compressed
        and other.size + other.progress.offset > 0
        and (copy.compressed or (other.stage is not Stage.WAITING and not other.rotated_name))
    ]
    gone = [
        (key, point)
        for key, point in store.of_log(copy.log)
        if point.offset > 0
        and (copy.compressed or point.truncated or not point.is_rotated)
        and (copy.compressed or not point.is_compressed)
        and (not nearby or _near(copy, os.path.dirname(point.path)))
    ]
    gone.sort(key=lambda item: -item[1].serial)
    return found + [
        Origin(key, point, os.path.dirname(point.path), store.recent(key))
        for key, point in gone[:_MAX_CHECKPOINTS]
    ]


def _near(copy: FollowedFile, directory: str) -> bool:
    """Whether it is in that directory, or in one below (logrotate's `olddir`)."""
    return copy.directory == directory or copy.path.startswith(directory + "/")


def compare(
    copy: FollowedFile, origins: list[Origin], disk: Disk
) -> tuple[Extent, tuple[SharedPrefix, ...]]:
    """How far `copy`, which is open, is the same as each of the origins; blocks on the disk.

    Left out are those from which it is proven to differ. Raises OriginChanged, OSError.
    """
    content = copy.content
    assert content is not None
    closed = [it.file for it in origins if it.file is not None and it.file.content is None]
    try:
        return _compare(copy, content, origins, disk)
    finally:
        for file in closed:
            file.close()


def _compare(
    copy: FollowedFile, content: Content, origins: list[Origin], disk: Disk
) -> tuple[Extent, tuple[SharedPrefix, ...]]:
    # Measured first: an original that is intact afterwards was never shorter.
    extent = _extent(content, max((_length(origin, disk) for origin in origins), default=0) + 1)
    prefixes: dict[int, str] = {}
    shared_prefixes: list[SharedPrefix] = []
    for origin in sorted(origins, key=lambda it: (it.file is None, it.checkpoint.offset)):
        same = _same_through(copy, content, extent, origin, prefixes)
        if same is None:
            copy.proven.pop(origin.key, None)
            continue
        point = origin.checkpoint
        if not _near(copy, origin.directory) and 0 < same < _MIN_ELSEWHERE_BYTES:
            continue
        shared_prefixes.append(
            SharedPrefix(
                key=origin.key, same=same, offset=point.offset, part=point.part, ahead=point.ahead
            )
        )
        if origin.file is not None and 0 < extent.length <= same:
            break  # it is all there
    content.keep_from(0)
    return extent, tuple(shared_prefixes)


def _length(origin: Origin, disk: Disk) -> int:
    """How far to look into a copy of it; opens the original if it can be."""
    file = origin.file
    if file is not None:
        if file.content is None and not file.compressed:
            try:
                file.reopen(disk)
            except (OSError, ContentChanged, FileMoved):
                return origin.checkpoint.offset
        file.look()
        return max(file.size, origin.checkpoint.offset)
    return origin.checkpoint.offset


def _extent(content: Content, limit: int) -> Extent:
    if isinstance(content, PlainContent):
        return Extent(content.file.status().size, complete=True)
    length = content.length(limit, keep=_END_BYTES)
    return Extent(length, complete=content.ended and length < limit)


def _same_through(
    copy: FollowedFile, content: Content, extent: Extent, origin: Origin, prefixes: dict[int, str]
) -> int | None:
    """The bytes that are proven to be the same; 0 if that is not known yet, None if they differ."""
    file = origin.file
    original = file.content if file is not None else None
    if file is not None and not file.changed and isinstance(original, PlainContent):
        same = _beside(content, extent, original)
        if not file.progress.still_in(original):
            raise OriginChanged(file)
        size = original.file.status().size
        if same is None or extent.length > max(size, file.size):
            return None  # no copy is longer than its original
        copy.proven[origin.key] = same
        return same
    known = copy.proven.get(origin.key, 0)
    same = _by_fingerprint(content, extent, origin, prefixes)
    if same == 0 and known >= min(origin.checkpoint.offset, extent.length):
        return known
    return same


def _beside(content: Content, extent: Extent, original: PlainContent) -> int | None:
    """Compare with the original itself, at the beginning and where the shorter one ends."""
    length = min(extent.length, original.file.status().size)
    for start, end in (
        (max(0, length - _END_BYTES), length), (0, min(length, _BEGIN_BYTES)),
    ):  # fmt: skip
        content.keep_from(start)
        if content.pread(end - start, start) != original.pread(end - start, start):
            return None
    return length


def _by_fingerprint(
    content: Content, extent: Extent, origin: Origin, prefixes: dict[int, str]
) -> int | None:
    point = origin.checkpoint
    if point.offset > extent.length and len(origin.recent) >= point.offset:
        # All that was read of it is remembered.
        ours = content.pread(extent.length, 0)
        return extent.length if origin.recent.startswith(ours) else None
    content_begin = _begin(content, extent)
    begin = origin.file.progress.begin if origin.file is not None else None
    if begin is not None:
        common = min(len(content_begin), len(begin))
        if content_begin[:common] != begin[:common]:
            return None
    elif len(content_begin) < point.prefix_length:
        return 0
    else:
        if point.prefix_length not in prefixes:
            prefixes[point.prefix_length] = digest(content_begin[: point.prefix_length])
        if prefixes[point.prefix_length] != point.prefix_sha256:
            return None
    if point.offset <= extent.length:
        return point.offset if continues_at(content, point.offset, point.tail_sha256) else None
    if extent.length == 0:
        return 0
    start = max(0, point.offset - len(origin.recent))
    if extent.length - start < min(_MIN_RECENT_BYTES, extent.length):
        mark = dict(point.marks).get(extent.length)
        if mark is None:
            return 0
        return extent.length if end_checksum(content, extent.length) == mark else None
    content.keep_from(start)
    ours = content.pread(extent.length - start, start)
    return extent.length if ours == origin.recent[: len(ours)] else None


def _begin(content: Content, extent: Extent) -> bytes:
    length = min(PREFIX_BYTES, extent.length)
    return content.pread(length, 0)


def checkpoint_of(file: FollowedFile, store: CheckpointStore) -> tuple[str, FileCheckpoint] | None:
    """The checkpoint that a new file, which is open, continues: of its inode, kind and content."""
    content = file.content
    assert content is not None
    for key, point in store.of_inode(file.progress.inode):
        # Device numbers may change when the machine starts; then the name must be the same.
        if point.device != file.progress.device and point.path != printable(file.path):
            continue
        if point.truncated or point.is_compressed != file.compressed:
            continue
        if not begins_as(content.pread(PREFIX_BYTES, 0), point):
            continue
        if isinstance(content, CompressedContent) and point.finished_size is not None:
            if _is_finished(content, file.size, point):
                return key, point
        elif point.offset and continues_at(content, point.offset, point.tail_sha256):
            return key, point
    return None


def _is_finished(content: CompressedContent, size: int, point: FileCheckpoint) -> bool:
    assert point.finished_size is not None
    if point.end_sha256 is None:  # stored by a release that compared the beginning alone
        return point.finished_size == size
    return size >= point.finished_size and (
        content.end_sha256(point.finished_size) == point.end_sha256
    )

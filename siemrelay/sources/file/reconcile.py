"""Decides what becomes of a source's files, given those known and those seen now. Pure.

Rotation is a race: between two surveys a log may be renamed, copied, truncated, compressed and
deleted, and its inode be given to the next one. A survey therefore first gathers facts (`Seen`),
all of them proven by content, and only then decides here, all at once, what has become of each
file. `followed_files` carries the actions out. Nothing here touches a disk, so that tests drive it
through any number of histories.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

import msgspec

from siemrelay.sources.file.disk import FileId
from siemrelay.wire.framing.contract import Ahead

# A file that may be the copy of another is looked at until it has been still for this long:
# cp and gzip write without pausing.
COPY_QUIET_S: Final = 2.0
# A deleted file that is read to its end may still be written to by a program that has it open;
# after this it is closed, so that its disk space is not held for ever.
DELETED_QUIET_S: Final = 60.0
# As above for a file renamed out of the reach of the globs, which costs but a descriptor.
RENAMED_QUIET_S: Final = 3600.0


class Stage(enum.Enum):
    """The state of a followed file."""

    READING = "reading"
    WAITING = "waiting"
    """It may be a copy of another: nothing is read until that is known."""
    COPY = "copy"
    """All of it was read from the file that it is a copy of."""


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is followed, as it was last seen."""

    key: str
    """Names its content."""
    path: str
    matched: bool
    stage: Stage
    offset: int
    unread: int = 0
    """Bytes known to wait."""
    idle_s: float = 0.0
    """For how long there was nothing to read and no change."""


class SharedPrefix(msgspec.Struct, frozen=True, kw_only=True):
    """How far a file is proven to begin with the content of one that was read before."""

    key: str
    same: int
    """The bytes from the beginning that are proven to be the same; 0: not known yet."""
    offset: int
    """How far that content was read."""
    part: int = 0
    ahead: Ahead = ()


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is there now: a name leads to it, or its open descriptor."""

    path: str
    key: str = ""
    """Names its content."""
    matched: bool = True
    deleted: bool = False
    changed: bool = False
    """Bytes that were read of it, or only seen, are no longer in it."""
    grown: bool = False
    """Its size or time has changed."""
    checkpoint: str | None = None
    """The stored checkpoint that it continues, by inode and content (of a file not read yet)."""
    checkpoint_offset: int = 0
    log: str = ""
    begin: bytes = b""
    """The first bytes of the content, as far as they were seen."""
    copy_by_name: bool = False
    """Whether its name is that of a generation of the log, not of the log itself."""
    length: int = 0
    """How long its content is, decompressed, as far as is known."""
    complete: bool = True
    """Whether `length` is all there is at present."""
    quiet_s: float = 0.0
    """For how long it has not changed."""
    shared_prefixes: tuple[SharedPrefix, ...] = ()
    """Contents that it may be a copy of; those that it proved to differ from are left out."""
    postponed: bool = False
    """Something changed while it was compared: it is to be decided by the next survey."""
    differs: bool = False
    """It was taken for a copy, and has proved to be none."""


class Orphan(msgspec.Struct, frozen=True):
    """A content of which bytes were known to be unread when its file left."""

    unread: int
    log: str
    offset: int
    begin: bytes = b""
    """Its first bytes, as far as they were seen."""


class Begin(msgspec.Struct, frozen=True):
    """Read a new file from its beginning."""

    file: FileId


class Resume(msgspec.Struct, frozen=True):
    """Read on in a file that was read before, from its stored checkpoint."""

    file: FileId
    key: str


class Wait(msgspec.Struct, frozen=True):
    """Read nothing of it yet: it may be a copy; of `origin`, which is read itself, if given."""

    file: FileId
    origin: str | None


class Copied(msgspec.Struct, frozen=True):
    """It is a copy of what was read as `origin`: go on behind the first `through` bytes."""

    file: FileId
    origin: str
    through: int
    part: int
    whole: bool
    """Whether nothing more is expected of it."""
    ahead: Ahead = ()


class FollowOn(msgspec.Struct, frozen=True):
    """It has grown: read on."""

    file: FileId


class Renamed(msgspec.Struct, frozen=True):
    file: FileId
    path: str
    matched: bool


class Truncated(msgspec.Struct, frozen=True):
    """The bytes read are gone: the file, or another with its inode, begins anew."""

    file: FileId


class Retired(msgspec.Struct, frozen=True):
    """Follow it no longer."""

    file: FileId
    why: str


class Lost(msgspec.Struct, frozen=True):
    """So many bytes of a content were known to be unread when the last file with it left."""

    key: str
    unread: int


class Recovered(msgspec.Struct, frozen=True):
    """The rest of a content whose file left is read from another file."""

    key: str


Action = (
    Begin | Resume | Wait | Copied | FollowOn | Renamed | Truncated | Retired | Recovered | Lost
)  # fmt: skip


def reconcile(
    known: Mapping[FileId, Known],
    seen: Mapping[FileId, Seen],
    orphans: Mapping[str, Orphan],
    *,
    final: bool = False,
) -> list[Action]:
    """Decide what has become of each file, in the order in which to carry it out.

    `orphans`: contents whose file left before this survey, and of which a copy may still turn up.
    `final`: there is no time to wait and see.

    | the file                                             | action                             |
    |------------------------------------------------------|------------------------------------|
    | known, has a new name                                | Renamed                            |
    | known, its content changed under what was read       | Truncated                          |
    | known, neither a name nor a descriptor leads to it   | Retired                            |
    | known, deleted or out of reach, all read, long quiet | Retired                            |
    | new, has a checkpoint                                | Resume                             |
    | new, like nothing read before                        | Begin                              |
    | like a content read elsewhere, as far as can be told | Wait, after a while Begin          |
    | proven a copy of a file that is still followed       | Wait, or Copied where it is whole  |
    | proven a copy of a content whose file is gone        | Copied                             |
    | an orphan that no file resembles                     | Lost                               |
    """
    actions: list[Action] = []
    over: set[FileId] = set()
    live = {now.key for file_id, now in seen.items() if file_id not in known}
    for file_id, was in known.items():
        now = seen.get(file_id)
        if now is None:
            actions.append(Retired(file_id, "gone"))
        elif now.changed:
            actions.append(Truncated(file_id))
        else:
            if (now.path, now.matched) != (was.path, was.matched):
                actions.append(Renamed(file_id, now.path, now.matched))
            if (why := _over(was, now)) is not None:
                actions.append(Retired(file_id, why))
                over.add(file_id)
            else:
                live.add(was.key)
    # Contents that files have since they were truncated; the next survey, which follows at once,
    # meets them. A compressed file may be the copy of one.
    unmet = {now.log for now in seen.values() if now.changed}
    awaited: set[str] = set()
    found: set[str] = set()
    for file_id, now in seen.items():
        before = known.get(file_id)
        if before is not None and (now.changed or file_id in over):
            continue
        if before is not None and not _undecided(before, now):
            if now.grown:
                actions.append(FollowOn(file_id))
            continue
        action = _decide(file_id, now, live, final=final)
        if action == Begin(file_id) and now.copy_by_name and now.log in unmet:
            action = Wait(file_id, None)
        elif action == Begin(file_id) and before is not None and before.offset and not now.differs:
            action = FollowOn(file_id)
        actions.append(action)
        if isinstance(action, Wait):
            awaited.update(shared.key for shared in now.shared_prefixes)
        elif isinstance(action, Begin):
            found.update(shared.key for shared in now.shared_prefixes)
            if now.copy_by_name:  # no byte of the content was read that identifies it
                found.update(key for key, orphan in orphans.items()
                             if orphan.offset == 0 and orphan.log == now.log)  # fmt: skip
        elif isinstance(action, Copied) and not action.whole:
            found.add(action.origin)
        elif isinstance(action, Resume):
            found.add(action.key)
    # What was truncated just now, and goes on in the copy that was made before.
    left = {was.key for file_id, was in known.items()
            if (now := seen.get(file_id)) is None or now.changed}  # fmt: skip
    actions.extend(Recovered(key) for key in sorted(left & found - orphans.keys()))
    # Only what left before this survey: a copy may have been made after the directory was listed.
    for key, orphan in orphans.items():
        if key in found or _begun_elsewhere(orphan, seen):
            actions.append(Recovered(key))
        elif key not in awaited and not _may_begin(orphan, known, seen):
            actions.append(Lost(key, orphan.unread))
    return actions


def _begun_elsewhere(orphan: Orphan, seen: Mapping[FileId, Seen]) -> bool:
    """Whether a content of which nothing was read is in a file that is followed."""
    return (
        orphan.offset == 0
        and orphan.begin != b""
        and any(now.log == orphan.log and now.begin.startswith(orphan.begin)
                for now in seen.values())
    )  # fmt: skip


def _may_begin(orphan: Orphan, known: Mapping[FileId, Known], seen: Mapping[FileId, Seen]) -> bool:
    """Whether a content of which nothing was read may be in a compressed file not read yet."""
    return orphan.offset == 0 and any(
        now.log == orphan.log
        and now.copy_by_name
        and not now.begin
        and (file_id not in known or not known[file_id].idle_s)
        for file_id, now in seen.items()
    )


def _over(was: Known, now: Seen) -> str | None:
    """Why a file need not be followed any longer."""
    if was.stage is Stage.COPY and now.deleted:
        return "finished"
    if now.grown or was.stage is Stage.WAITING or was.unread:
        return None
    if now.deleted and was.idle_s >= DELETED_QUIET_S:
        return "finished"
    if not now.matched and not now.deleted and was.idle_s >= RENAMED_QUIET_S:
        return "not written to any more"
    return None


def _undecided(was: Known, now: Seen) -> bool:
    return was.stage is Stage.WAITING or (was.stage is Stage.COPY and now.grown)


def _decide(
    file_id: FileId, now: Seen, live: set[str], *, final: bool
) -> Begin | Resume | Wait | Copied | FollowOn:
    """Whether a file is read, and from where: see the table at `reconcile`."""
    if now.postponed:
        return Wait(file_id, None)
    longest = max((shared.same for shared in now.shared_prefixes), default=0)
    # The inode may be that of a deleted file with the same header: the longer proof decides.
    if now.checkpoint is not None and longest <= now.checkpoint_offset:
        return Resume(file_id, now.checkpoint)
    if not now.shared_prefixes:
        return Begin(file_id)
    # The longest proof wins: generations may have a common header. While there is a file with the
    # content itself, that one is read.
    best = max(now.shared_prefixes, key=lambda it: (it.same, it.key in live, it.offset))
    patient = not final and now.quiet_s < COPY_QUIET_S
    unknown = any(shared.same == 0 for shared in now.shared_prefixes)
    proven = 0 < min(best.offset, now.length) <= best.same
    if best.key in live:
        if 0 < now.length <= best.same:
            read_already = now.length <= best.offset and now.complete
            if read_already and not patient:
                return Copied(file_id, best.key, now.length, 0, whole=True)
            return Wait(file_id, best.key)
        if proven and patient:
            return Wait(file_id, best.key)
    elif proven and (now.length >= best.offset or now.complete) and not (patient and unknown):
        through = min(best.offset, now.length)
        part, ahead = (best.part, best.ahead) if through == best.offset else (0, ())
        whole = now.length < best.offset
        return Copied(file_id, best.key, through, part, whole=whole, ahead=ahead)
    return Wait(file_id, None) if patient else Begin(file_id)

"""What a source is, and what it may ask of the relay around it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from siemrelay.core.extras import Extra
from siemrelay.core.lines import payloads
from siemrelay.core.options import Options
from siemrelay.net.listening import ListeningSockets


class Position(msgspec.Struct, frozen=True, gc=False):
    """Where a source has read to: stored in the same transaction as the records before it.

    `key` names the thing read (a file's identity), `value` is JSON-able and the source's own;
    None forgets the key.
    """

    key: str
    value: Mapping[str, Any] | None


class Records(msgspec.Struct, frozen=True, gc=False):
    """Records on their way into the buffer: `count` of them in `payload`, each ended by LF.

    `count` may be 0 with an empty payload, to store positions alone. `payload` and `part` are as in
    `Batch`; `joined` makes them of records with any bytes.
    """

    payload: bytes
    count: int
    positions: tuple[Position, ...] = ()
    part: int | None = None
    last_record_at: float | None = None


def joined(records: Sequence[bytes]) -> list[Records]:
    """Records of any bytes, in order, as few `Records` as can hold them: usually one."""
    return [Records(payload, len(some)) for payload, some in payloads(records)]


class Intake(Protocol):
    """The way into the buffer for one source. Several tasks may call it at once."""

    async def turn(self, at_most_s: float = math.inf) -> None:
        """Before `offer` of few records: wait for those of others, and for more of one's own.

        Returns at once after a pause, else within the relay's `batch_window` of the last turn, or
        within `at_most_s` of it. Not for sources whose peer waits for an answer.
        """

    async def offer(self, records: Records) -> None:
        """Hand over records, waiting only for room; they are stored in the order offered.

        For sources whose position travels with the records, so that nobody waits for the fsync.
        If cancelled, the records count as not offered.
        """

    async def store(self, *records: Records) -> int:
        """Hand over records and wait until they are on disk, fsynced; they go into one commit.

        For sources that acknowledge to a peer. Returns what `delivered` takes. If cancelled, the
        records may or may not be stored.
        """

    async def delivered(self, stored: int) -> None:
        """Wait until every enabled sink is past the records that `store` returned this for.

        A sink is past what its filter leaves out, what its peer confirmed and its dead letters.
        """

    @property
    def full(self) -> bool:
        """Whether the buffer has no room now: what is handed over waits for it."""

    async def settled(self) -> None:
        """Wait until everything offered so far is on disk."""

    @property
    def sockets(self) -> ListeningSockets:
        """Where a source that listens takes its sockets from."""

    def positions(self) -> Mapping[str, Mapping[str, Any]]:
        """The stored positions of this source by key, as of the last start."""

    def lag(self, lag_bytes: int) -> None:
        """Tell how many bytes are known to be waiting unread (for the metric)."""

    def progress(self) -> None:
        """Say that the part is alive though it has nothing to offer."""

    def oversize(self, size_bytes: int) -> None:
        """Count one record over `max_record_size` (it is kept)."""

    def lost(self, records: int) -> None:
        """Count records that the kernel or a peer reports as dropped before they arrived."""

    def refused(self, reason: str, records: int = 1) -> None:
        """Count what was rejected; `reason` is one of a few fixed words."""

    def following(self, files: int) -> None:
        """Report how many files are followed now."""

    def unreadable(self, files: int, why: str) -> None:
        """Report how many files cannot be read now and why; 0 and `""` when all can be again."""

    def lost_bytes(self, unread: int) -> None:
        """Count bytes that left the disk before they were read."""

    def connected(self, change: int) -> None:
        """Note that so many connections more (or fewer, below 0) are open."""


class Source(Protocol):
    """One way in. Built from validated options; owns nothing until `run`."""

    async def run(self, intake: Intake, *, drain: bool) -> None:
        """Read for ever; with `drain`, return once everything there is has been offered.

        Any exception but the buffer's restarts this source alone, from the stored positions,
        after a back-off. If cancelled, everything it opened is closed; what was offered stays.
        """


class SourceKind(msgspec.Struct, frozen=True):
    """A way in. `build` takes the source's name and options; `decoder` is the default one.

    `alone`: a relay can have one source of this kind. `extra`: the package that it needs.
    """

    options: type[Options]
    build: Callable[[str, Any], Source]
    decoder: str
    summary: str
    alone: bool = False
    extra: Extra | None = None

"""The contract of sources: a source hands records to its intake, and reports its state to it.

Checked for every type of the registry by tests/contracts/test_sources.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from siemrelay.core.extras import Extra
from siemrelay.core.lines import payloads
from siemrelay.core.options import Options

if TYPE_CHECKING:
    from siemrelay.net.listening_sockets import ListeningSockets


class Position(msgspec.Struct, frozen=True, gc=False):
    """The place up to which a source has read, stored in one transaction with its records.

    `key` names what is read (a file's identity). `value` can be written as JSON and has a meaning
    for the source only; None deletes the key.
    """

    key: str
    value: Mapping[str, Any] | None


class Records(msgspec.Struct, frozen=True, gc=False):
    """Records for the buffer: `count` of them as lines in `payload` (see `core.lines`).

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


class SourceReports(Protocol):
    """How a source says how it fares: for metrics, status and probes. Nothing here waits."""

    def lag(self, lag_bytes: int) -> None:
        """Set the metric of bytes that are known to wait unread."""

    def progress(self) -> None:
        """Report that the source is alive; call it at least every few minutes."""

    def oversize(self, size_bytes: int) -> None:
        """Count one record over `max_record_size` (it is kept)."""

    def lost(self, records: int) -> None:
        """Count records that the kernel or a peer reports as dropped before they arrived."""

    def refused(self, reason: str, records: int = 1) -> None:
        """Count rejected records; `reason` is a label of the metric, one of a fixed few."""

    def following(self, files: int) -> None:
        """Report how many files are followed now."""

    def unreadable(self, files: int, why: str) -> None:
        """Report how many files cannot be read now and why; 0 and `""` when all can be again."""

    def blocked(self, why: str) -> None:
        """Report that only a person can make it get its records again, and why; `""`: it does."""

    def lost_bytes(self, unread: int) -> None:
        """Count bytes that left the disk before they were read."""

    def skipped_nuls(self, count: int) -> None:
        """Count NULs that were skipped: holes in a file, which hold no record."""

    def connected(self, change: int) -> None:
        """Add to the metric of open connections; below 0 takes off."""


class Intake(SourceReports, Protocol):
    """The buffer as one source sees it, and where it reports. Several tasks may call it at once."""

    async def turn(self, at_most_s: float = math.inf) -> bool:
        """Before `offer` of few records: wait for those of others, and for more of one's own.

        Returns at once after a pause, else within the relay's `batch_window` of the last turn, or
        within `at_most_s` of it: True if it has waited. Not for sources whose peer waits for an
        answer.
        """

    async def offer(self, *records: Records) -> None:
        """Hand over records to be stored in the order offered, those of one call in one commit;
        waits only while there is no room.

        For sources whose position is stored with the records: nobody waits for the fsync. If
        cancelled, the records count as not offered.
        """

    async def store(self, *records: Records) -> int:
        """Hand over records, in one commit, and wait until they are on disk and fsynced.

        For sources that acknowledge to a peer. Returns a number for `delivered`. If cancelled, the
        records may or may not be stored.
        """

    async def delivered(self, stored: int) -> None:
        """Wait until every enabled sink has settled the records that `store` gave this number for.

        Settled are those that its filter left out, its peer confirmed or refused.
        """

    @property
    def full(self) -> bool:
        """Whether the buffer has no room now; what is handed over then waits."""

    async def settled(self) -> None:
        """Wait until everything offered so far is on disk."""

    @property
    def sockets(self) -> ListeningSockets:
        """The listening sockets of the relay, from which a source takes its own."""

    def positions(self) -> Mapping[str, Mapping[str, Any]]:
        """The stored positions of this source by key, as of the last start."""


class Source(Protocol):
    """One input. Built from validated options; opens nothing until `run`."""

    async def run(self, intake: Intake, *, drain: bool) -> None:
        """Read for ever; with `drain`, return once everything that exists has been offered.

        After any exception but the buffer's, the relay runs this source again from the stored
        positions, after a backoff; the other parts go on. If cancelled, everything that it opened
        is closed; what was offered is stored.
        """


class SourceKind(msgspec.Struct, frozen=True):
    """A row of the registry: one type of source.

    `build` takes the source's name and options, and if it is `framed`, which reads text whose
    options are `FramingOptions`, how records are found in it. `decoder` is the default. `alone`: a
    relay can have only one source of this type. `extra`: the package that it needs.
    `reads_tls_once`: its TLS files are read when it starts, and not for each connection.
    `splits_items`: it takes bodies apart that hold many records (`items`); for others the intake
    does.
    """

    options: type[Options]
    build: Callable[..., Source]
    decoder: str
    summary: str
    alone: bool = False
    framed: bool = False
    extra: Extra | None = None
    reads_tls_once: bool = False
    splits_items: bool = False

"""The counters and gauges of a running relay: plain numbers, so that counting costs nothing.

`telemetry.metrics` renders them for Prometheus; `telemetry.health` derives liveness from them.
"""

from __future__ import annotations

from base64 import b64encode
from bisect import bisect_left
from collections.abc import Mapping
from typing import Final

import msgspec

# From a millisecond on an idle relay to an hour behind a dead sink.
DELIVERY_BUCKETS_S: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600,
)  # fmt: skip

# Around the time of an fsync: a fast disk, a slow one, one that is failing.
COMMIT_BUCKETS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)

STATES: Final = ("connecting", "up", "waiting", "holding", "failed", "paused", "disabled")


class Histogram:
    """Observations per bucket and their sum, in seconds."""

    __slots__ = ("bounds_s", "counts", "sum_s")

    def __init__(self, bounds_s: tuple[float, ...]) -> None:
        self.bounds_s, self.counts, self.sum_s = bounds_s, [0] * (len(bounds_s) + 1), 0.0

    def observe(self, value_s: float, times: int = 1) -> None:
        """Count `times` observations of one value."""
        self.counts[bisect_left(self.bounds_s, value_s)] += times
        self.sum_s += value_s * times


class SourceCounts(msgspec.Struct):
    """The records and bytes of one source since it first ran; `filtered` did not pass its `events`.

    Kept in the buffer, stored in one transaction with the records.
    """

    records: int = 0
    bytes: int = 0
    filtered: int = 0


class SourceStats(msgspec.Struct):
    """One source. `progress_at` and `failed_at` are on the clock of the loop.

    `files` is None where none are followed by their kind.
    """

    name: str
    records: int = 0
    bytes: int = 0
    oversize: int = 0
    filtered: int = 0
    redacted: int = 0
    limited: dict[str, int] = msgspec.field(default_factory=dict)
    restarts: int = 0
    lag_bytes: int = 0
    upstream_dropped: int = 0
    lost_bytes: int = 0
    skipped_nuls: int = 0
    files: int | None = None
    unreadable_files: int = 0
    connections: int = 0
    refused: dict[str, int] = msgspec.field(default_factory=dict)
    last_record_at: float = 0.0
    progress_at: float = 0.0
    failed_at: float = 0.0
    last_error: str = ""
    unreadable_why: str = ""
    blocked_why: str = ""
    unparsed_share: float = 0.0
    """Of the records looked at lately, from 0 to 1."""
    unparsed_why: str = ""
    """Why the first of them cannot be parsed, while they are too many."""
    credentials_fault: str = ""
    has_task: bool = True
    """False for the relay's own events: they are stored where they happen, and no task of theirs
    could be stuck."""
    _failure: str = ""

    @property
    def failed(self) -> bool:
        """Whether it gets no records: its last run ended with an error and no later one has made
        progress, or it runs and is `blocked`.
        """
        return bool(self.blocked_why) or 0 < self.failed_at >= self.progress_at

    def blocked(self, why: str) -> None:
        """Note that only a person can make it get its records again, and why; `""`: it does."""
        if why or self.last_error == self.blocked_why:
            self.last_error = why
        self.blocked_why = why

    def unreadable(self, files: int, why: str) -> None:
        """Note how many files cannot be read and why; that is the last error while it lasts.

        With 0 and `""` it is over, and the last failure is the last error again.
        """
        if self.last_error != self.unreadable_why:
            self._failure = self.last_error
        self.last_error = why or self._failure
        self.unreadable_files, self.unreadable_why = files, why


# Types are the sender's: beyond so many they are counted together.
_MOST_TYPES: Final = 100
OTHER_TYPES: Final = "other types"


def count_types(counts: dict[str, int], more: Mapping[str, int]) -> None:
    """Add to counts by event type, of which there are a bounded number."""
    for name, count in more.items():
        known = name if name in counts or len(counts) < _MOST_TYPES else OTHER_TYPES
        counts[known] = counts.get(known, 0) + count


class SinkCounts(msgspec.Struct):
    """Counts of the records that were stored for one sink, by how they were settled.

    The buffer stores these with the sink's cursor in one transaction, so they survive a restart and
    add up: stored = delivered + duplicates + filtered + refused + dropped +
    lost + waiting.
    """

    delivered: int = 0
    duplicates: int = 0
    filtered: int = 0
    refused: int = 0
    dropped: int = 0
    lost: int = 0
    last_success_at: float = 0.0
    # Counted by commands beside the relay: dead letters that a retry delivered, records that a
    # replay delivered again.
    retried: int = 0
    replayed: int = 0

    def settled(self) -> int:
        """The records that no longer wait."""
        return (
            self.delivered + self.duplicates + self.filtered + self.refused + self.dropped
            + self.lost
        )  # fmt: skip


# A seal may be late by a pause of the receiver; then two intervals and this have passed.
_LATE_SEAL_S: Final = 60.0


class SealStatus(msgspec.Struct, frozen=True):
    """A sink's sealed stream: its origin, its messages, how many are under seal, until when.

    A seal is sent every `every_s` seconds. `root` (hexadecimal) is that of the last confirmed one,
    `key` the key that signs, as NAME+ID.
    """

    stream: str
    messages: int
    sealed_messages: int
    sealed_at: float | None
    every_s: float
    root: str = ""
    key: str = ""

    @property
    def checkpoint(self) -> str:
        """The last confirmed checkpoint, its root as in the note; empty without one."""
        if not self.root:
            return ""
        root = b64encode(bytes.fromhex(self.root)).decode()
        return f"size {self.sealed_messages}, root {root}"

    def is_stale(self, now: float) -> bool:
        """Whether `siemrelay verify` no longer finds the last seal fresh."""
        return self.sealed_at is not None and now - self.sealed_at > 2 * self.every_s + _LATE_SEAL_S


class TimestampStatus(msgspec.Struct, frozen=True):
    """When an authority last stamped a seal of a sink, and why it does not now, if it fails."""

    at: float | None = None
    fault: str = ""


class SinkStats(msgspec.Struct):
    """One sink. `state` is one of STATES; `reason` says why it is not `up`.

    Times are seconds since the epoch, but `progress_at` is on the clock of the loop.

    `counts` is the buffer's own, live; `stored` counts the records since the sink was added.
    """

    name: str
    state: str = "connecting"
    reason: str = ""
    since: float = 0.0
    counts: SinkCounts = msgspec.field(default_factory=SinkCounts)
    stored: int = 0
    retries: int = 0
    truncated_messages: int = 0
    sampled: dict[str, int] = msgspec.field(default_factory=dict)
    redacted: int = 0
    unparsed: int = 0
    invalid_utf8: int = 0
    sent_bytes: int = 0
    backlog: int = 0
    holds_buffer: bool = False
    oldest_undelivered_at: float | None = None
    progress_at: float = 0.0
    last_type: str = ""
    last_error: str = ""
    last_error_at: float | None = None
    certificate_expires_at: float | None = None
    credentials_fault: str = ""
    seal: SealStatus | None = None
    timestamps: TimestampStatus | None = None
    delivery_s: Histogram = msgspec.field(default_factory=lambda: Histogram(DELIVERY_BUCKETS_S))

    @property
    def delivered(self) -> int:
        """Records that the receiver confirmed, also by a retry of dead letters."""
        return self.counts.delivered + self.counts.retried


class RemovedSink(msgspec.Struct, frozen=True):
    """A sink that is no longer configured: how many records wait for it, and until when."""

    backlog: int
    kept_until: float


class BufferStats(msgspec.Struct):
    """The disk buffer; `discarded` were records of removed sinks.

    While it is `full`, `disk_full` says that it is for the file system and not for `max_size`.
    """

    size_bytes: int = 0
    max_size_bytes: int = 0
    oldest_received_at: float | None = None
    commits: int = 0
    full: bool = False
    full_since: float = 0.0
    disk_full: bool = False
    held_by: list[str] = msgspec.field(default_factory=list)
    dead_letters: dict[str, int] = msgspec.field(default_factory=dict)
    discarded: int = 0
    keep_removed_s: float = 0.0
    removed: dict[str, RemovedSink] = msgspec.field(default_factory=dict)
    commit_s: Histogram = msgspec.field(default_factory=lambda: Histogram(COMMIT_BUCKETS_S))

    def committed(self, took_s: float, used_bytes: int) -> None:
        """Note one commit of records."""
        self.commits += 1
        self.size_bytes += used_bytes
        self.commit_s.observe(took_s)


class WorkerStats(msgspec.Struct):
    """The processes that format, now (by their ids); what they formatted, and how many failed."""

    pids: set[int] = msgspec.field(default_factory=set)
    batches: int = 0
    failures: int = 0


class ReloadStats(msgspec.Struct):
    """The configuration's last reload; a start counts as a successful one."""

    successful: bool = True
    succeeded_at: float = 0.0
    error: str = ""


class Stats(msgspec.Struct):
    """The whole relay."""

    started_at: float = 0.0
    loop_at: float = 0.0
    stopping: bool = False
    ready: bool = False
    sources: dict[str, SourceStats] = msgspec.field(default_factory=dict)
    sinks: dict[str, SinkStats] = msgspec.field(default_factory=dict)
    buffer: BufferStats = msgspec.field(default_factory=BufferStats)
    reload: ReloadStats = msgspec.field(default_factory=ReloadStats)
    workers: WorkerStats = msgspec.field(default_factory=WorkerStats)

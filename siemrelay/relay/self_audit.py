"""The relay audits itself: what people do to it, and what it loses, are events like any other.

They are of the source `siemrelay` and go to every sink that takes their types (PCI DSS 4.0,
10.2.1.6: the starting, stopping and pausing of audit logs is itself logged). Nobody who
notes one waits: a task stores the queued notes. Commands that work on the buffer beside the relay
leave theirs in a folder of `state_dir`, where the relay collects them, also later.
"""

from __future__ import annotations

import math
import os
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import structlog
import trio

from siemrelay.buffer.threads import in_thread
from siemrelay.core.event_types import (
    EVENTS_LIMITED,
    EVENTS_SAMPLED,
    RECORDS_DROPPED,
    RECORDS_MISSING,
    RELAY_STARTED,
    RELAY_STOPPED,
)
from siemrelay.core.times import rfc3339
from siemrelay.durable_files import replace_file
from siemrelay.net.clock import Alarm
from siemrelay.net.tasks import second_after
from siemrelay.relay.own_events import host_target, own_event
from siemrelay.telemetry.stats import Stats

_log = structlog.get_logger()

_FOLDER: Final = "self-audit"

# Notes that wait to be stored: people act seldom, and a full buffer may last for days.
_MOST_WAITING: Final = 1000
_MOST_BYTES: Final = 256 * 1024

# Of losses, and of what limits leave out, there is an event this often while they go on.
_LOSSES_EVERY_S: Final = 60.0

# Of what samples leave out there is an event this often.
_SAMPLED_EVERY_S: Final = 300.0

# A folder that changed so recently may change again without a new time of its change.
_CLOCK_STEP_NS: Final = 2_000_000_000


class SelfAudit:
    """Notes what happens and stores it, as long as `enabled` says so."""

    def __init__(
        self, store: Callable[[bytes], Awaitable[None]], stats: Stats, state_dir: Path,
        person: str, enabled: Callable[[], bool],
    ) -> None:  # fmt: skip
        """`store` puts a record into the buffer; `person` is the user that the relay runs as."""
        self._put, self._stats, self._enabled, self._person = store, stats, enabled, person
        self._folder = state_dir / _FOLDER
        self._waiting: deque[bytes] = deque()
        self._due, self._storing = Alarm(), trio.Lock()
        self._losses: dict[tuple[str, str], int] = {}
        self._losses_at = -_LOSSES_EVERY_S
        self._sampled, self._limited = _LeftOut(), _LeftOut()
        self._sampled_at, self._limited_at = 0.0, -_LOSSES_EVERY_S
        self._looked_at_ns = 0

    def note(
        self, event_type: str, message: str, *, person: str = "", sink: str = "",
        source: str = "", outcome: str = "success", always: bool = False, **attributes: Any,
    ) -> None:  # fmt: skip
        """Note something that `person` did (without one: the relay itself), to a part or the relay.

        Attributes without a value are left out. `always`: also when the audit is off.
        """
        if not (always or self.enabled):
            return
        if len(self._waiting) >= _MOST_WAITING:
            _log.error("self-audit event not stored: too many wait", type=event_type,
                       message=message)  # fmt: skip
            return
        target = ("source", source) if source else ("sink", sink) if sink else host_target()
        _, record = own_event(event_type, person or self._person, target, message,
                              outcome=outcome, **attributes)  # fmt: skip
        self._waiting.append(record)
        self._due.set(-math.inf)

    @property
    def enabled(self) -> bool:
        """Whether events are noted now; a reload may change it."""
        return self._enabled()

    def started(self, **attributes: Any) -> None:
        """Note the start."""
        self._losses = self._lost()
        self.note(RELAY_STARTED, "The relay started", **attributes)

    async def stopped(self) -> None:
        """Note the stop and store everything that is noted; while the intake still runs."""
        self._note_losses()
        self._note_limited()
        self._note_sampled()
        self.note(RELAY_STOPPED, "The relay stopped in order")
        await self._store()

    async def run(self) -> None:
        """Store what is noted, until cancelled."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        while True:
            self._due.set(second_after(trio.current_time()))
            if trio.current_time() - self._losses_at >= _LOSSES_EVERY_S:
                self._note_losses()
            if trio.current_time() - self._limited_at >= _LOSSES_EVERY_S:
                self._note_limited()
            if trio.current_time() - self._sampled_at >= _SAMPLED_EVERY_S:
                self._note_sampled()
            if self._waiting:
                await self._store()
            if self._spool_changed():
                await self.take_spooled()
            await self._due.wait()

    async def _store(self) -> None:
        async with self._storing:
            while self._waiting:
                await self._put(self._waiting[0])
                self._waiting.popleft()

    def _lost(self) -> dict[tuple[str, str], int]:
        return {
            (name, event_type): count
            for name, sink in self._stats.sinks.items()
            for event_type, count in (
                (RECORDS_DROPPED, sink.counts.dropped), (RECORDS_MISSING, sink.counts.lost),
            )
        }  # fmt: skip

    def _note_losses(self) -> None:
        before, self._losses = self._losses, self._lost()
        for (name, event_type), count in self._losses.items():
            more = count - before.get((name, event_type), count)
            if more <= 0:
                continue
            self._losses_at = trio.current_time()
            why = (
                "dropped because the buffer was full" if event_type == RECORDS_DROPPED
                else "stored and gone from the disk"
            )  # fmt: skip
            self.note(event_type, f"{more:,} records for sink {name} were {why}", sink=name,
                      outcome="failure", records=more)  # fmt: skip

    def _note_sampled(self) -> None:
        """Note what the samples of the sinks left out since the last time; also in the log."""
        self._sampled_at = trio.current_time()
        for name, more in self._newly_sampled():
            count = sum(more.left_out.values())
            self.note(EVENTS_SAMPLED, f"{count:,} events for sink {name} were left out by its "
                      "`sample`", sink=name, records=count, **more.attributes)  # fmt: skip

    def _note_limited(self) -> None:
        """Note what the limits of the sources left out since the last time; also in the log."""
        counts = {name: source.limited for name, source in self._stats.sources.items()}
        for name, more in self._limited.since_last_time(counts):
            self._limited_at = trio.current_time()
            _log.warning("events left out by the limit", source=name, left_out=more.left_out,
                         advice="they are not stored; raise `limit`, or stop what sends so "
                         "many")  # fmt: skip
            count = sum(more.left_out.values())
            self.note(EVENTS_LIMITED, f"{count:,} events of source {name} were left out by its "
                      "`limit`", source=name, records=count, **more.attributes)  # fmt: skip

    def ended(self) -> None:
        """Log what samples left out after the stop was noted, while the sinks went on."""
        for _ in self._newly_sampled():
            pass

    def _newly_sampled(self) -> Iterator[tuple[str, _More]]:
        counts = {name: sink.sampled for name, sink in self._stats.sinks.items()}
        for name, more in self._sampled.since_last_time(counts):
            _log.info("events left out by the sample", sink=name, left_out=more.left_out)
            yield name, more

    def _spool_changed(self) -> bool:
        """Whether the spool may have changed. Every second: one system call, and no thread."""
        try:
            changed_at_ns = self._folder.stat().st_mtime_ns
        except OSError:
            return False
        if changed_at_ns == self._looked_at_ns:
            return False
        if time.time_ns() - changed_at_ns > _CLOCK_STEP_NS:
            self._looked_at_ns = changed_at_ns
        return True

    async def take_spooled(self) -> None:
        """Store the events that commands spooled; each file is removed once that is on disk."""
        for path in await in_thread(self._spooled):
            try:
                record = await in_thread(path.read_bytes)
            except OSError as error:
                _log.error("self-audit event of a command cannot be read", file=str(path),
                           reason=str(error), advice="give it to the relay's user")  # fmt: skip
                record = b""
            if record and self.enabled and b"\n" not in record and len(record) <= _MOST_BYTES:
                await self._put(record)
            with suppress(OSError):
                await in_thread(path.unlink)

    def _spooled(self) -> list[Path]:
        with suppress(OSError):
            return sorted(self._folder.glob("*.json"))
        return []


class _More(NamedTuple):
    """How many more events of each type were left out, and within what time."""

    left_out: dict[str, int]
    begun_at: float
    ended_at: float

    @property
    def attributes(self) -> dict[str, Any]:
        """The same in an event."""
        return {
            "left_out": self.left_out, "from": rfc3339(self.begun_at), "to": rfc3339(self.ended_at),
        }  # fmt: skip


class _LeftOut:
    """Counts by part and event type, as they were the last time."""

    def __init__(self) -> None:
        # Beside the live counts, which are those of the same part also under another name.
        self._before: list[tuple[Mapping[str, int], dict[str, int]]] = []
        self._looked_at = time.time()

    def since_last_time(
        self, parts: Mapping[str, Mapping[str, int]]
    ) -> Iterator[tuple[str, _More]]:
        """The parts whose counts have grown, and by how much."""
        befores = {id(counts): before for counts, before in self._before}
        self._before = [(counts, dict(counts)) for counts in parts.values()]
        begun_at, self._looked_at = self._looked_at, time.time()
        for name, counts in parts.items():
            before = befores.get(id(counts), {})
            more = {kind: count - before.get(kind, 0) for kind, count in counts.items()}
            if more := {kind: count for kind, count in more.items() if count > 0}:
                yield name, _More(more, begun_at, self._looked_at)


def spool_event(
    state_dir: Path, event_type: str, person: str, sink: str, message: str, *, enabled: bool,
    **attributes: Any,
) -> None:  # fmt: skip
    """Spool an event of a command for the relay on that state directory.

    Does nothing without a directory that this user may write: then no relay of this user's is
    there to have anything done to it.
    """
    if not enabled or not state_dir.is_dir():
        return
    _, record = own_event(event_type, person, ("sink", sink), message, **attributes)
    folder = state_dir / _FOLDER
    with suppress(OSError):
        owner = state_dir.stat()
        if not folder.is_dir():
            folder.mkdir(mode=0o700)
            if os.geteuid() == 0:  # the relay's user reads and removes what is in it
                os.chown(folder, owner.st_uid, owner.st_gid, follow_symlinks=False)
        replace_file(folder / f"{uuid.uuid4()}.json", record)

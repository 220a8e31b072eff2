"""The sealed stream of one sink: numbers its messages, hashes what is settled, makes seals.

A seal is a message of the stream like any other, made and stored (fsynced) by the sender between
two stored batches, before it is sent. It covers what is settled by then; so at most `seal.every` of
the stream, and what is in flight, is not under seal.
"""

from __future__ import annotations

import secrets
import time
from base64 import b32encode
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import msgspec
import structlog
import trio

from siemrelay import __version__
from siemrelay.buffer.cursors import SinkCursor
from siemrelay.buffer.threads import in_thread
from siemrelay.core.errors import BufferFull, SinkWaits
from siemrelay.core.event import AuditEvent, Batch, DecodedBatch, Selection
from siemrelay.core.event_types import OWN_SOURCE, SEAL
from siemrelay.core.times import rfc3339
from siemrelay.net.tasks import Broadcast
from siemrelay.pipeline.batching import DeliveryBatch
from siemrelay.pipeline.formatting import SinkFormat
from siemrelay.pipeline.sealing.archive import SealArchive
from siemrelay.pipeline.sealing.keys import SealKeys
from siemrelay.proof.leaf import ENVELOPES, STREAM_CHARACTERS, sent_hashes
from siemrelay.proof.merkle import Tree
from siemrelay.proof.seal import Absent, Anchor, SealTally, made_text
from siemrelay.proof.stream import (
    MOST_ABSENT,
    Confirmed,
    Numbering,
    PendingSeal,
    StreamState,
)
from siemrelay.sinks.contract import Settlement
from siemrelay.telemetry.stats import SealStatus, SinkStats

_log = structlog.get_logger()

# A hop to a thread costs more than a few hashes.
_HASHED_AT_ONCE: Final = 16

# A refused message is accounted for with the receiver's reason, as far as it helps an auditor.
_REASON_CHARACTERS: Final = 80

# No more is sent while the stream lacks so many messages that no seal accounts for: what a state
# may hold is bounded. Reached only by a receiver that refuses nearly everything.
_BACKLOG: Final = 10 * MOST_ABSENT


class SealingBuffer(Protocol):
    """The part of a buffer that keeps a stream."""

    def cursor(self, sink: str) -> SinkCursor:
        """The sink's cursor, live, with its stream."""

    async def store_stream(self, sink: str, stream: StreamState) -> None:
        """Make this the sink's stream, on disk at return."""


class StreamSettings(msgspec.Struct, frozen=True):
    """What a stream is named by and made of; see `StreamState` and `SealTally` for the fields."""

    relay: str
    sink: str
    protocol: str
    format: str
    configuration: str
    every_s: float
    keep_s: float
    state_dir: Path


class SealedStream:
    """One sink's stream while a delivery runs."""

    def __init__(
        self, settings: StreamSettings, messages: SinkFormat, buffer: SealingBuffer, keys: SealKeys,
        others: Callable[[], Mapping[str, tuple[int, str]]], stats: SinkStats,
    ) -> None:  # fmt: skip
        """`others` has the latest seals of all streams of the relay, by origin."""
        self._stats = stats
        assert messages.number is not None, "messages of a sealed stream have a number"
        self._messages, self._placeholder = messages, messages.number.encode()
        self._settings, self._buffer, self._keys, self._others = settings, buffer, keys, others
        self._archive = SealArchive(settings.state_dir, "", settings.keep_s)
        self._unwrap = ENVELOPES.get(settings.protocol)
        self._next_number, self._next_at_s, self._not_before_s = 0, 0.0, 0.0
        self._stopping, self._ending, self._confirmed = False, False, Broadcast()
        self._reading: trio.CancelScope | None = None

    @property
    def _cursor(self) -> SinkCursor:
        return self._buffer.cursor(self._settings.sink)

    @property
    def state(self) -> StreamState:
        """The stream, once `begin` has returned."""
        state = self._cursor.stream
        assert state is not None, "begin comes first"
        return state

    async def begin(self) -> None:
        """Go on where the cursor is, with the old stream or, where it is not sure, with a new one.

        Raises SinkWaits when a new stream cannot be stored: nothing may be sent under it.
        """
        cursor, self._ending = self._cursor, False
        if cause := self._cause(cursor):
            await self._store(self._successor(cursor, cause))
        state, settings = self.state, self._settings
        if self._archive.stream != state.name:
            await in_thread(self._archive.write)
            self._archive = SealArchive(settings.state_dir, state.name, settings.keep_s)
        self._next_number = state.tree.size
        since_s = max(time.time() - state.sealed.at, 0.0)
        self._show()
        wait_s = max(settings.every_s - since_s, 0.0)
        self._next_at_s = trio.current_time() + wait_s

    def _cause(self, cursor: SinkCursor) -> str:
        """Why the stream cannot go on; empty if it can."""
        state, settings = cursor.stream, self._settings
        if state is None:
            return "start"
        if state.origin.rpartition("/")[0] != f"{settings.relay}/{settings.sink}":
            return "renamed"
        if state.configuration != settings.configuration:
            return "configuration"
        if state.next_sequence != cursor.next_sequence:
            return "records given up"
        return ""

    def _successor(self, cursor: SinkCursor, cause: str) -> StreamState:
        settings, before = self._settings, cursor.stream
        name = b32encode(secrets.token_bytes(10)).decode().lower()[:STREAM_CHARACTERS]
        origin = f"{settings.relay}/{settings.sink}/{name}"
        _log.info("sealed stream begins", sink=settings.sink, stream=name, cause=cause)
        return StreamState(
            origin, settings.configuration, cause, cursor.next_sequence, cursor.next_sequence,
            previous=None if before is None else Anchor.of(before.origin, before.tree),
            absent_before=() if before is None else before.absent[: 2 * MOST_ABSENT],
        )  # fmt: skip

    async def _store(self, state: StreamState) -> None:
        try:
            await self._buffer.store_stream(self._settings.sink, state)
        except BufferFull as error:
            raise SinkWaits(f"the sealed stream cannot be stored: {error}") from error

    # -- sending ----------------------------------------------------------

    def numbering_at(self, stored: Batch, position: int) -> Numbering:
        """The number of the next message, whichever it is."""
        return self._numbering

    @property
    def _numbering(self) -> Numbering:
        return Numbering(self.state.name, self._next_number, self._placeholder)

    def sent(self, batch: DeliveryBatch) -> None:
        """The messages of a batch have their numbers."""
        if batch.messages:
            self._next_number = batch.first_number + len(batch.messages)

    def comes_next(self) -> bool:
        """Whether a seal comes next, or nothing: a stored one that may have been sent before, a new
        one, the end."""
        return self._ending or self.turn() is not None or bool(self.due())

    @property
    def due_at_s(self) -> float:
        """When to look again whether a seal is due; trio's time."""
        if self.state.pending is None:
            return self._next_at_s
        return max(self._next_at_s, trio.current_time() + self._settings.every_s)

    def turn(self) -> PendingSeal | None:
        """The stored seal whose turn it is now."""
        pending = self.state.pending
        return pending if pending is not None and pending.number == self._next_number else None

    def due(self) -> str:
        """Why a seal is to be made now; empty if none is."""
        state = self.state
        if state.pending is not None or trio.current_time() < self._not_before_s:
            return ""
        if self._stopping and not self.is_sealed():
            return "stop"
        if len(state.absent) >= MOST_ABSENT:
            return "refusals"
        return "interval" if trio.current_time() >= self._next_at_s else ""

    async def _make(self, reason: str, position: int) -> PendingSeal:
        """Make and store a seal of what is settled. Raises SinkWaits when it cannot be stored."""
        await in_thread(self._archive.write)
        signers = await self._keys.signers()
        state, cursor, settings = self.state, self._cursor, self._settings
        now = time.time()
        absent = list(state.absent[: 2 * MOST_ABSENT])
        counts = msgspec.structs.asdict(cursor.counts)
        tally = SealTally(
            number=self._next_number, at=rfc3339(now), reason=reason, every_s=settings.every_s,
            next_sequence=cursor.next_sequence,
            counts={name: count for name, count in counts.items() if isinstance(count, int)},
            format=settings.format, version=__version__, configuration=settings.configuration,
            cause=state.cause, absent=absent, previous=state.previous,
            absent_before=list(state.absent_before),
            others={
                origin: seal for origin, seal in self._others().items() if origin != state.origin
            },
        )  # fmt: skip
        text = made_text(state.origin, state.tree, tally, signers)
        pending = PendingSeal(
            self._next_number, position, state.tree.size, state.tree.root.hex(), len(absent), now,
            text,
        )  # fmt: skip
        self._next_at_s = trio.current_time() + settings.every_s
        await self._store(msgspec.structs.replace(state, pending=pending))
        return pending

    async def next_seal(self, position: int) -> DeliveryBatch | None:
        """The seal to send before the record at `position`: a stored one, or one made now.

        None, logged, if its message is over the limit: a part of a seal says nothing. Raises
        SinkWaits when a new one cannot be stored. Never returns once `settle` was called.
        """
        if self._ending:
            await trio.sleep_forever()
        pending = self.turn() or await self._make(self.due(), position)
        selection = Selection(self._event(pending, position), number=self._messages.number)
        (message,) = self._numbering.numbered(self._messages.format.encode(selection))
        limit = self._messages.max_message_bytes
        if limit is not None and len(message) > limit:
            _log.error("a seal is longer than a message may be: the stream stays unsealed",
                       sink=self._settings.sink, bytes=len(message), limit=limit,
                       advice="set a larger `max_message_size` on the sink")  # fmt: skip
            await self._give_up(pending)
            return None
        batch = DeliveryBatch(position, [message], first_number=pending.number, seal=True)
        self.sent(batch)
        return batch

    def _event(self, pending: PendingSeal, position: int) -> DecodedBatch:
        """The seal as an event, always the same."""
        state = self.state
        message = f"sealed {pending.size} messages of {state.origin}: {pending.text}"
        event = AuditEvent(
            id=f"{state.name}-{pending.number}", time=rfc3339(pending.at), type=SEAL,
            category="relay", severity=1, outcome="success", message=message,
        )  # fmt: skip
        record = msgspec.json.encode({"id": event.id, "type": SEAL, "message": message}) + b"\n"
        return DecodedBatch(Batch(position, 1, OWN_SOURCE, pending.at, record), [event])

    async def _give_up(self, pending: PendingSeal) -> None:
        """Forget a seal that no message can carry; the next one is tried later."""
        state, self._not_before_s = self.state, self._next_at_s
        if state.pending == pending:
            await self._store(msgspec.structs.replace(state, pending=None))

    async def wait_for_room(self) -> None:
        """Wait while a pending seal holds up too many numbers without a message."""
        while self.state.pending is not None and len(self.state.absent) >= _BACKLOG:
            await self._confirmed.wait()

    def reading(self, deadline_s: float) -> trio.CancelScope:
        """A scope for the wait for records, which ends when a seal may be due."""
        self._reading = trio.CancelScope(deadline=min(deadline_s, self.due_at_s))
        return self._reading

    # -- settling ---------------------------------------------------------

    async def confirmed(self, batch: DeliveryBatch, lacking: Settlement) -> Confirmed:
        """The stream with a settled batch; `lacking` are those that the receiver does not have."""
        state = self.state
        assert batch.first_number == state.tree.size, (batch.first_number, state.tree.size)
        settled = partial(self._settled, state.tree, batch)
        leaves, tree = (
            settled() if len(batch.messages) < _HASHED_AT_ONCE else await in_thread(settled)
        )
        absent = [
            Absent(
                batch.first_number + refusal.index, leaves[refusal.index].hex(),
                f"{'duplicate' if refusal.duplicate else 'refused'} {refusal.code} "
                f"{refusal.reason}"[:_REASON_CHARACTERS],
            )
            for refusal in lacking
        ]  # fmt: skip
        if batch.seal and (seal := state.pending) is not None and not absent:
            await in_thread(self._archive.add_seal, state.origin, seal)
        if batch.seal and absent:
            _log.error("the receiver refused a seal", sink=self._settings.sink,
                       reason=absent[0].reason)  # fmt: skip
        return Confirmed(tree, absent)

    def noted(self) -> None:
        """What `confirmed` returned is in the stream."""
        self._confirmed.wake_all()
        self._show()
        if self._stopping:
            self._look()

    def _settled(self, tree: Tree, batch: DeliveryBatch) -> tuple[list[bytes], Tree]:
        """The leaves of a batch, and the tree with them."""
        leaves = sent_hashes(batch.messages, self._unwrap)
        self._archive.add(batch.first_number, leaves)
        return leaves, tree.extended(leaves)

    def _show(self) -> None:
        state = self.state
        self._stats.seal = SealStatus(
            state.origin, state.tree.size, state.sealed.size, state.sealed.at or None,
            self._settings.every_s,
        )  # fmt: skip

    def latest(self) -> tuple[str, tuple[int, str]] | None:
        """Origin, size and root of the last confirmed seal; None without one."""
        state = self._cursor.stream
        if state is None or not state.sealed.root:
            return None
        return state.origin, (state.sealed.size, state.sealed.root)

    # -- the end ----------------------------------------------------------

    def is_sealed(self) -> bool:
        """Whether a confirmed seal covers everything but itself."""
        state = self._cursor.stream
        return state is None or state.tree.size <= state.sealed.size + 1

    async def settle(self, within_s: float) -> None:
        """Send nothing more, and wait until what was sent is settled, for at most so long.

        Before a change that begins a new stream: nothing of the old one is left unproven.
        """
        self._ending = True
        self._look()
        with trio.move_on_after(within_s):
            while self._cursor.stream is not None and self.state.tree.size < self._next_number:
                await self._confirmed.wait()

    def seal_at_end(self) -> None:
        """From now on make a seal whenever something is not under one: the relay stops."""
        self._stopping = True
        self._look()

    def _look(self) -> None:
        """Wake the sender, if it waits for records."""
        if self._reading is not None:
            self._reading.cancel()

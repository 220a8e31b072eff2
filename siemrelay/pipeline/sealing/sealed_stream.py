"""The sealed stream of one sink: numbers its messages, hashes what is settled, makes seals.

A seal is a message of the stream like any other, made and stored (fsynced) by the sender between
two stored batches, before it is sent. It covers what is settled by then; so at most `seal.every` of
the stream, and what is in flight, is not under seal.
"""

from __future__ import annotations

import secrets
import time
from base64 import b32encode
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import msgspec
import structlog
import trio

from siemrelay.buffer.sink_cursor import SinkCursor
from siemrelay.buffer.threads import in_thread
from siemrelay.core.errors import BufferFull, SinkWaits
from siemrelay.core.event import Batch
from siemrelay.net.tasks import Broadcast
from siemrelay.pipeline.batching import DeliveryBatch
from siemrelay.pipeline.sealing.archive import SealArchive
from siemrelay.pipeline.sealing.keys import SealKeys
from siemrelay.pipeline.sealing.maker import SealMaker
from siemrelay.pipeline.sealing.schedule import SealSchedule
from siemrelay.pipeline.sealing.sent_bound import SentBound
from siemrelay.pipeline.sealing.settings import StreamSettings
from siemrelay.pipeline.sealing.witness import Doubt, StateWitness
from siemrelay.proof.envelopes import is_plain, sent_hashes
from siemrelay.proof.merkle import Tree
from siemrelay.proof.seal import Absent, Anchor
from siemrelay.proof.stream import (
    DOUBTS,
    MOST_ABSENT,
    STREAM_CHARACTERS,
    Confirmed,
    Numbering,
    PendingSeal,
    StreamChange,
    StreamState,
    Witness,
)
from siemrelay.sinks.contract import Settlement
from siemrelay.telemetry.stats import SealStatus, SinkStats

if TYPE_CHECKING:
    from siemrelay.pipeline.sealing.timestamps import Timestamper

_log = structlog.get_logger()

# So much is hashed on the loop, where it is no longer than formatting as much: messages that are
# hashed as they are, and JSON that is parsed for it.
_PLAIN_AT_ONCE: Final = 1024
_PARSED_AT_ONCE: Final = 256
_BYTES_AT_ONCE: Final = 512 * 1024

# A refused message is accounted for with the receiver's reason, as far as it helps an auditor.
_REASON_CHARACTERS: Final = 80


class SealingBuffer(Protocol):
    """The part of a buffer that keeps a stream."""

    @property
    def end(self) -> int:
        """The sequence number of the next record."""

    def cursor(self, sink: str) -> SinkCursor:
        """The sink's cursor, live, with its stream."""

    async def change_stream(self, sink: str, change: StreamChange) -> None:
        """Change the sink's stream, on disk at return; what is settled meanwhile stays settled."""


def _as_it_is(state: StreamState | None) -> StreamState:
    assert state is not None, "begin comes first"
    return state


def _with_seal(
    seal: PendingSeal | None, witness: Witness | None, state: StreamState | None
) -> StreamState:
    assert state is not None, "only a stream that has begun has seals"
    return msgspec.structs.replace(state, pending=seal, witness=witness)


class SealedStream:
    """One sink's stream while a delivery runs."""

    def __init__(
        self, settings: StreamSettings, maker: SealMaker, buffer: SealingBuffer, keys: SealKeys,
        stats: SinkStats, timestamper: Timestamper | None = None,
        on_doubt: Callable[[str, str, str], None] = lambda sink, stream, cause: None,
    ) -> None:  # fmt: skip
        """`on_doubt` is called with sink, stream and cause, one of `DOUBTS`, of a new stream."""
        self._on_doubt, self._witness = on_doubt, StateWitness(settings.state_dir)
        self._settings, self._maker, self._buffer, self._keys = settings, maker, buffer, keys
        self._stats, self.timestamper = stats, timestamper
        self._archive = SealArchive(settings.state_dir, "", settings.keep_s)
        self._leaves = partial(sent_hashes, protocol=settings.protocol, canonical=maker.canonical)
        self._schedule = SealSchedule(settings.every_s)
        self._next_number, self._ending, self._confirmed = 0, False, Broadcast()
        self._is_stored = False
        # A message may have been sent before, under the number that a new seal would take now: by
        # an attempt of this process, up to this number; by an earlier process, up to this record.
        self._sent_end, self._stored_end, self._is_barred = 0, 0, False
        self._bound = SentBound()
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
        doubt, before = Doubt(), cursor.stream
        if not self._archive.stream and before is not None:  # the first attempt
            doubt = await in_thread(self._witness.doubt, before)
            end = self._buffer.end
            self._stored_end = end if before.sent_end is None else min(before.sent_end, end)
        if cause := doubt.cause or self._cause(cursor):
            await self._begin_anew(cursor, cause, doubt.end)
            self._sent_end = self._stored_end = 0
        elif not self._is_stored:
            await self._change(self._bounded(cursor.next_sequence))
        state, settings = self.state, self._settings
        if self._archive.stream != state.name:
            await in_thread(self._archive.write)
            self._archive = SealArchive(settings.state_dir, state.name, settings.keep_s)
            if self.timestamper is not None:
                await self.timestamper.begin(self._archive)
        self._next_number = state.tree.size
        self._schedule.begin(max(time.time() - state.sealed.at, 0.0))
        self._show()

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

    async def _begin_anew(self, cursor: SinkCursor, cause: str, end: Anchor | None) -> None:
        """Begin a new stream, whose seals name the end of the one before (`end`, if it is known).

        Raises SinkWaits when it cannot be stored.
        """
        settings = self._settings
        name = b32encode(secrets.token_bytes(10)).decode().lower()[:STREAM_CHARACTERS]
        origin = f"{settings.relay}/{settings.sink}/{name}"
        witness = await in_thread(self._witness.renewed, name)
        sent_end = self._bound.ahead_of(cursor.next_sequence)

        def successor(before: StreamState | None) -> StreamState:
            previous = None if before is None else end or Anchor.of(before.origin, before.tree)
            return StreamState(
                origin, settings.configuration, cause, cursor.next_sequence, cursor.next_sequence,
                previous=previous, witness=witness,
                absent_before=() if before is None else before.absent[: 2 * MOST_ABSENT],
                sent_end=sent_end,
            )  # fmt: skip

        await self._change(successor)
        if cause in DOUBTS:
            _log.warning("a sealed stream begins anew", sink=settings.sink, stream=name,
                         reason=DOUBTS[cause], advice="`siemrelay verify` joins the two; find out "
                         "who copied or restored the state, and that no second relay runs on a "
                         "copy")  # fmt: skip
            self._on_doubt(settings.sink, name, cause)
        else:
            _log.info("sealed stream begins", sink=settings.sink, stream=name, cause=cause)

    async def _change(self, change: StreamChange) -> None:
        # Until this returns the stream may be in memory alone, and nothing is sent in it
        # (test_a_seal_that_is_not_on_disk_is_stored_before_the_next_attempt_sends_it).
        self._is_stored = False
        try:
            await self._buffer.change_stream(self._settings.sink, change)
        except BufferFull as error:
            raise SinkWaits(f"the sealed stream cannot be stored: {error}") from error
        self._is_stored = True

    def _bounded(self, position: int, change: StreamChange = _as_it_is) -> StreamChange:
        """The change, with a bound of what is sent from `position` on."""
        ahead = self._bound.ahead_of(position)

        def bounded(before: StreamState | None) -> StreamState:
            state = change(before)
            end = self._buffer.end if state.sent_end is None else state.sent_end
            return msgspec.structs.replace(state, sent_end=max(end, ahead))

        return bounded

    # -- sending ----------------------------------------------------------

    async def extend(self, end: int) -> None:
        """Before records to before `end` are sent: store that, so that a process after a kill
        knows. Raises SinkWaits when it cannot be stored."""
        if self.state.sent_end is None or self.state.sent_end < end:
            await self._change(self._bounded(end))

    def numbering_at(self, stored: Batch, position: int) -> Numbering:
        """The number of the next message, whichever it is."""
        return Numbering(self.state.name, self._next_number, self._maker.placeholder)

    def sent(self, batch: DeliveryBatch) -> None:
        """The messages of a batch have their numbers."""
        if batch.messages:
            self._next_number = batch.first_number + len(batch.messages)
            self._sent_end = max(self._sent_end, self._next_number)

    def comes_next(self, position: int) -> bool:
        """Whether a seal comes next before the record at `position`, or nothing: a stored one that
        may have been sent before, a new one, the end.

        No new one takes a number that a message may have had in an earlier attempt: a receiver may
        have that message without our knowing (test_a_seal_takes_no_number_that_was_sent_before).
        """
        is_new = self._next_number >= self._sent_end and position >= self._stored_end
        self._is_barred = not (is_new or self._schedule.overflows(self.state))
        if self._ending or self.turn() is not None:
            return True
        return not self._is_barred and bool(self._schedule.due(self.state))

    def turn(self) -> PendingSeal | None:
        """The stored seal whose turn it is now."""
        pending = self.state.pending
        return pending if pending is not None and pending.number == self._next_number else None

    async def next_seal(self, position: int) -> DeliveryBatch | None:
        """The seal to send before the record at `position`: a stored one, or one made now.

        None, logged, if no message can carry it: it is forgotten, and the next one tried later.
        Raises SinkWaits when a new one cannot be stored. Never returns once `settle` was called.
        """
        if self._ending:
            await trio.sleep_forever()
        pending = self.turn() or await self._make(position)
        message = self._maker.message(self.state, pending)
        if message is None:
            self._schedule.gave_up()
            await self._change(partial(_with_seal, None, self.state.witness))
            return None
        batch = DeliveryBatch(position, [message], first_number=pending.number, seal=True)
        self.sent(batch)
        return batch

    async def _make(self, position: int) -> PendingSeal:
        """Make and store a seal of what is settled. Raises SinkWaits when it cannot be stored."""
        reason, stamper = self._schedule.due(self.state), self.timestamper
        await in_thread(self._archive.write)
        signers = await self._keys.signers()
        state = self.state
        timestamp = None if stamper is None else stamper.to_carry(state.name)
        pending = self._maker.make(
            self._cursor, state, self._next_number, position, reason, signers, timestamp
        )
        self._schedule.made()
        witness = await in_thread(self._witness.renewed, state.name) or state.witness
        await self._change(self._bounded(position, partial(_with_seal, pending, witness)))
        if witness is not None:
            await in_thread(self._witness.keep_only, state.name, witness)
        return pending

    async def wait_for_room(self) -> None:
        """Wait while a pending seal holds up too many numbers without a message."""
        while self._schedule.holds_up(self.state):
            await self._confirmed.wait()

    def reading(self, deadline_s: float) -> trio.CancelScope:
        """A scope for the wait for records, which ends when a seal may be due."""
        look_at_s = float("inf") if self._is_barred else self._schedule.look_at_s(self.state)
        self._reading = trio.CancelScope(deadline=min(deadline_s, look_at_s))
        return self._reading

    # -- settling ---------------------------------------------------------

    async def confirmed(self, batch: DeliveryBatch, lacking: Settlement) -> Confirmed:
        """The stream with a settled batch; `lacking` are those that the receiver does not have."""
        state = self.state
        assert batch.first_number == state.tree.size, (batch.first_number, state.tree.size)
        settled = partial(self._settled, state.tree, batch.messages)
        leaves, tree = settled() if self._is_quick(batch) else await in_thread(settled)
        if self._archive.add(batch.first_number, leaves):
            await in_thread(self._archive.write)
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
            if self.timestamper is not None:
                self.timestamper.confirmed(seal.number, seal.text)
        if batch.seal and absent:
            _log.error("the receiver refused a seal", sink=self._settings.sink,
                       reason=absent[0].reason)  # fmt: skip
        return Confirmed(tree, absent)

    def noted(self) -> None:
        """What `confirmed` returned is in the stream."""
        self._confirmed.wake_all()
        self._show()
        if self._schedule.stopping:
            self._look()

    def _is_quick(self, batch: DeliveryBatch) -> bool:
        """Whether its leaves are hashed within a millisecond or so: as long as a hop to a thread,
        which, for messages of 2 KiB and less, would keep the interpreter from the loop as well."""
        messages = batch.messages
        # All messages of a sink are of one format.
        plain = self._maker.canonical or is_plain(messages[0], self._settings.protocol)
        most = _PLAIN_AT_ONCE if plain else _PARSED_AT_ONCE
        return len(messages) <= most and batch.size_bytes <= _BYTES_AT_ONCE

    def _settled(self, tree: Tree, messages: Sequence[bytes]) -> tuple[list[bytes], Tree]:
        """The leaves of messages, and the tree with them."""
        leaves = self._leaves(messages)
        return leaves, tree.extended(leaves)

    def _show(self) -> None:
        state = self.state
        self._stats.seal = SealStatus(
            state.origin, state.tree.size, state.sealed.size, state.sealed.at or None,
            self._settings.every_s, state.sealed.root, self._keys.signing,
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
        return state is None or state.is_sealed() or self._is_barred

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
        self._schedule.stop()
        self._look()

    def _look(self) -> None:
        """Wake the sender, if it waits for records."""
        if self._reading is not None:
            self._reading.cancel()

"""The window of the queue sources: batches are stored in order, then acknowledged in order.

hand_over ─▶ [read] ─▶ [storing] ─▶ fsync ─▶ [stored] ─▶ (delivered) ─▶ [acknowledging] ─▶ queue

Records belong to the queue until they are acknowledged. A batch in between may be lost at any
moment, and the queue delivers it again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

import trio
from pydantic import Field

from siemrelay.core.errors import BufferBroken, SiemrelayError, leaves
from siemrelay.core.options import Options, Size
from siemrelay.net.tasks import Broadcast
from siemrelay.sources.contract import Intake, Records, joined
from siemrelay.wire.framing.contract import MAX_WHOLE_BYTES

Token = TypeVar("Token")

# After a stop, batches are stored and acknowledged for so long: a stop takes less than a second.
GRACE_S: Final = 0.7


# This much is a batch by itself; less waits for the relay's `batch_window`.
_BATCH_BYTES: Final = 64 * 1024


class QueueFailed(SiemrelayError):
    """The queue cannot be read now: the source is restarted after a pause.

    `advice` says what to change; it is empty where the fault may pass by itself.
    """

    def __init__(self, reason: str, *, advice: str = "") -> None:
        super().__init__(f"{reason}; {advice}" if advice else reason)
        self.reason, self.advice = reason, advice


class AcknowledgingOptions(Options):
    """Options of every queue source."""

    acknowledge: Literal["buffered", "delivered"] = Field(
        "buffered",
        description="when records are acknowledged to the queue: once they are on disk here, "
        "fsynced, or once every enabled sink is past them (for machines without a lasting disk)",
    )


class WindowOptions(AcknowledgingOptions):
    """Options of the queue sources that ask for records."""

    batch: Annotated[int, Field(ge=1, le=10_000)] = Field(
        2000, description="the most records to ask for at once"
    )
    in_flight: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        20_000,
        description="the most records that are read and not yet acknowledged, which a kill may "
        "repeat; one batch may exceed it",
    )
    in_flight_size: Annotated[Size, Field(ge=1 << 20)] = Field(
        16 << 20, description="the most bytes that are read and not yet stored: they are in memory"
    )


class ReadBatch(Generic[Token]):
    """One batch of records; `token` identifies it to the queue."""

    __slots__ = ("at", "count", "records", "size_bytes", "stored", "token")

    def __init__(self, records: list[Records], count: int, token: Token) -> None:
        self.records, self.count, self.token = records, count, token
        self.size_bytes = sum(len(some.payload) for some in records)
        self.at = trio.current_time()
        self.stored = 0


class Backlog(Generic[Token]):
    """The batches that were read and are not acknowledged, each in one of four stages, in order.

    `records` counts all of them; `size_bytes` those that are not stored, which are in memory.
    Invariant: a batch moves one stage further at a time, and none overtakes another.
    """

    def __init__(self) -> None:
        self._read = deque[ReadBatch[Token]]()
        self._storing: list[ReadBatch[Token]] = []
        self._stored = deque[ReadBatch[Token]]()
        self._acknowledging: list[ReadBatch[Token]] = []
        self.records = self.size_bytes = 0
        self.changed = Broadcast()

    def __iter__(self) -> Iterator[ReadBatch[Token]]:
        """All of them, the oldest first."""
        return chain(self._acknowledging, self._stored, self._storing, self._read)

    def add(self, batch: ReadBatch[Token]) -> None:
        """Add a batch that was read."""
        self.records += batch.count
        self.size_bytes += batch.size_bytes
        self._read.append(batch)
        self.changed.wake_all()

    def take_read(self) -> list[ReadBatch[Token]]:
        """Move on all batches that were read; they are to be stored in one commit."""
        self._storing, self._read = list(self._read), deque()
        return self._storing

    def note_stored(self, stored: int) -> None:
        """Note that the batches of `take_read` are on disk; `stored` is the intake's number."""
        for batch in self._storing:
            batch.stored, batch.records = stored, []
            self.size_bytes -= batch.size_bytes
        self._stored.extend(self._storing)
        self._storing = []
        self.changed.wake_all()

    @property
    def oldest_stored(self) -> int | None:
        """The intake's number of the oldest stored batch; None if there is none."""
        return self._stored[0].stored if self._stored else None

    def take_stored(self, up_to: int | None = None) -> list[Token]:
        """The tokens of stored batches (those up to that number), to acknowledge in one call."""
        while self._stored and (up_to is None or self._stored[0].stored <= up_to):
            self._acknowledging.append(self._stored.popleft())
        return [batch.token for batch in self._acknowledging]

    def note_acknowledged(self) -> None:
        """Note that the queue has the acknowledgement of the batches of `take_stored`."""
        self.records -= sum(batch.count for batch in self._acknowledging)
        self._acknowledging = []
        self.changed.wake_all()


class Window(Generic[Token]):
    """Stores what a source reads and acknowledges it to the queue. Use it for one `run`.

    `acknowledge` gets the tokens of one or more batches, the oldest first, each once; a batch that
    is not acknowledged when `run` ends is never acknowledged, so the queue delivers it again.
    """

    def __init__(
        self, intake: Intake, acknowledge: Callable[[list[Token]], Awaitable[None]], *,
        delivered: bool, max_records: int, max_bytes: int,
    ) -> None:  # fmt: skip
        """`delivered`: acknowledge once every enabled sink is past a batch, not once it is stored.

        The window is full from `max_records` not acknowledged or `max_bytes` not stored on.
        """
        self._intake, self._acknowledge, self._delivered = intake, acknowledge, delivered
        self._max_records, self._max_bytes = max_records, max_bytes
        self._backlog = Backlog[Token]()
        self._ended = False
        # Both go on after a stop, until `_wind_down` ends them.
        self._storing = trio.CancelScope(shield=True)
        self._acknowledging = trio.CancelScope(shield=True)

    @property
    def full(self) -> bool:
        """Whether no more should be read now."""
        backlog = self._backlog
        return backlog.records >= self._max_records or backlog.size_bytes >= self._max_bytes

    @property
    def size_bytes(self) -> int:
        """Bytes in memory because they are not stored yet."""
        return self._backlog.size_bytes

    def tokens(self) -> Iterator[Token]:
        """The tokens that are not acknowledged, the oldest first."""
        return (batch.token for batch in self._backlog)

    async def room(self) -> None:
        """Wait until the window is not full."""
        while self.full:
            await self._backlog.changed.wait()

    def hand_over(self, records: Sequence[bytes], token: Token) -> None:
        """Take a batch, in the order in which it is read; look at `full` or wait for `room` first.

        A record over MAX_WHOLE_BYTES is counted as oversize and stored in parts.
        """
        whole = as_records(records, self._intake.oversize)
        self._backlog.add(ReadBatch(whole, len(records), token))

    async def run(self, read: Callable[[], Awaitable[None]], close: Callable[[], None]) -> None:
        """Run `read`, which hands over; return when it has, and all of that is acknowledged.

        At last `close` is called in a thread, whatever happens.

        If cancelled, or if reading fails, what was handed over has GRACE_S to be stored and
        acknowledged. Of several errors a broken buffer's is raised before the first of the others.
        """
        try:
            await self._run(read)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(close)

    async def _run(self, read: Callable[[], Awaitable[None]]) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._wind_down)
                nursery.start_soon(self._store)
                nursery.start_soon(self._acknowledge_stored)
                try:
                    await read()
                    await self._settled()
                finally:
                    self._end()
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            failed, rest = group.split(Exception)
            if failed is None or rest is not None:
                raise  # a stop: it goes on
            errors = leaves(failed)
            broken = [error for error in errors if isinstance(error, BufferBroken)]
            raise (broken or errors)[0] from group

    async def in_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """A blocking call to the queue's client, waited for when cancelled.

        What it raises during a stop is dropped: the stop goes on.
        """
        try:
            return await trio.to_thread.run_sync(call, *arguments)
        except Exception:
            await trio.lowlevel.checkpoint_if_cancelled()
            raise

    # -- tasks ------------------------------------------------------------

    def _end(self) -> None:
        """Nothing more is handed over."""
        self._ended = True
        self._backlog.changed.wake_all()

    async def _settled(self) -> None:
        while self._backlog.records:
            await self._backlog.changed.wait()

    async def _wind_down(self) -> None:
        """At a stop: let the other tasks finish for a while, then end them."""
        try:
            await trio.sleep_forever()
        finally:
            self._end()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + GRACE_S):
                await self._settled()
            self._storing.cancel()
            self._acknowledging.cancel()

    async def _store(self) -> None:
        with self._storing:
            while True:
                # Batches that were read while the last commit ran go into the next one together.
                if 0 < self._backlog.size_bytes < _BATCH_BYTES and not self._ended:
                    await self._intake.turn()
                if batches := self._backlog.take_read():
                    records = [some for batch in batches for some in batch.records]
                    self._backlog.note_stored(await self._intake.store(*records))
                elif self._ended:
                    return
                else:
                    await self._backlog.changed.wait()

    async def _acknowledge_stored(self) -> None:
        with self._acknowledging:
            while self._backlog.records or not self._ended:
                oldest = self._backlog.oldest_stored
                if oldest is None:
                    await self._backlog.changed.wait()
                    continue
                if self._delivered:
                    await self._intake.delivered(oldest)
                tokens = self._backlog.take_stored(oldest if self._delivered else None)
                await self._acknowledge(tokens)
                self._backlog.note_acknowledged()


def as_records(records: Sequence[bytes], oversize: Callable[[int], None]) -> list[Records]:
    """Records of any bytes and length; those over MAX_WHOLE_BYTES in parts, and counted."""
    if not records or max(map(len, records)) <= MAX_WHOLE_BYTES:
        return joined(records)
    found: list[Records] = []
    for record in records:
        if len(record) <= MAX_WHOLE_BYTES:
            found += joined([record])
        else:
            oversize(len(record))
            found += _parts(record)
    return found


def _parts(record: bytes) -> Iterable[Records]:
    for number, at in enumerate(range(0, len(record), MAX_WHOLE_BYTES), 1):
        yield Records(record[at : at + MAX_WHOLE_BYTES] + b"\n", 1, part=number)

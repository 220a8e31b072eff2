"""What the queues share: batches are handed over in order and acknowledged in order, later.

read ─▶ hand_over ─▶ [to store] ─▶ fsynced ─▶ [stored] ─▶ (delivered) ─▶ acknowledge

A queue's records stay the queue's until they are acknowledged, so what is between its ends may be
lost at any moment and is then read again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

import trio
from pydantic import Field

from siemrelay.core.errors import BufferBroken, SiemrelayError, leaves
from siemrelay.core.options import Options, Size
from siemrelay.sources.chunks import MAX_WHOLE_BYTES
from siemrelay.sources.contract import Intake, Records, joined

Token = TypeVar("Token")

# After a stop: what was handed over is stored and acknowledged for so long, then calls to the
# queue are broken off. A stop is thus over within a second.
GRACE_S: Final = 0.7


class QueueFailed(SiemrelayError):
    """The queue cannot be read now: the source starts again after a while.

    `advice` says what a person could change, empty when it may pass by itself.
    """

    def __init__(self, reason: str, *, advice: str = "") -> None:
        super().__init__(f"{reason}; {advice}" if advice else reason)
        self.reason, self.advice = reason, advice


class AcknowledgingOptions(Options):
    """What every queue may set."""

    acknowledge: Literal["buffered", "delivered"] = Field(
        "buffered",
        description="when the queue is told that it may forget: once a record is on disk here, "
        "fsynced, or once every enabled sink is past it (for machines without a lasting disk)",
    )


class WindowOptions(AcknowledgingOptions):
    """What queues may set that are asked for more."""

    batch: Annotated[int, Field(ge=1, le=10_000)] = Field(
        2000, description="how many records are asked for at once, at most"
    )
    in_flight: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        20_000,
        description="records that may be read and not yet acknowledged: what a kill may repeat. "
        "No more is read above it; one batch may come on top",
    )
    in_flight_size: Annotated[Size, Field(ge=1 << 20)] = Field(
        16 << 20, description="the same for what is read and not yet stored: it is in memory"
    )


class Handed(Generic[Token]):
    """One batch on its way: `token` is the queue's own word for it."""

    __slots__ = ("at", "count", "records", "size_bytes", "stored", "token")

    def __init__(self, records: list[Records], count: int, token: Token) -> None:
        self.records, self.count, self.token = records, count, token
        self.size_bytes = sum(len(some.payload) for some in records)
        self.at = trio.current_time()
        self.stored = 0


class Window(Generic[Token]):
    """The batches between reading and acknowledging, bounded. Use it for one `run`.

    `acknowledge` gets the tokens of one or more batches, oldest first, each once; a batch that is
    not acknowledged when `run` ends is not acknowledged at all.
    """

    def __init__(
        self, intake: Intake, acknowledge: Callable[[list[Token]], Awaitable[None]], *,
        delivered: bool, max_records: int, max_bytes: int,
    ) -> None:  # fmt: skip
        self._intake, self._tell, self._delivered = intake, acknowledge, delivered
        self._max_records, self._max_bytes = max_records, max_bytes
        self._to_store: deque[Handed[Token]] = deque()
        self._stored: deque[Handed[Token]] = deque()
        self._busy: list[Handed[Token]] = []  # being stored
        self._telling: list[Handed[Token]] = []  # being acknowledged
        self.records = self.size_bytes = 0
        self.closed = False
        self._changed = trio.Event()
        self._scopes = trio.CancelScope(shield=True), trio.CancelScope(shield=True)

    @property
    def full(self) -> bool:
        """Whether no more should be read now."""
        return self.records >= self._max_records or self.size_bytes >= self._max_bytes

    def tokens(self, older_than_s: float = 0.0) -> Iterator[Token]:
        """What was handed over at least so long ago and is not acknowledged, oldest first."""
        before = trio.current_time() - older_than_s
        for handed in (*self._telling, *self._stored, *self._busy, *self._to_store):
            if handed.at <= before:
                yield handed.token

    async def room(self) -> None:
        """Wait until it is not full."""
        while self.full:
            await self._changed.wait()

    def hand_over(self, records: Sequence[bytes], token: Token) -> None:
        """Take a batch, in the order that it shall have; ask `full` or wait for `room` before."""
        handed = Handed(as_records(records, self._intake.oversize), len(records), token)
        self.records += handed.count
        self.size_bytes += handed.size_bytes
        self._to_store.append(handed)
        self._change()

    async def run(self, read: Callable[[], Awaitable[None]], interrupt: Callable[[], None]) -> None:
        """Run `read`, which hands over; return when it has and all of that is acknowledged.

        If cancelled, or if reading fails, what was handed over has GRACE_S to be acknowledged;
        `interrupt` then breaks off whatever call to the queue a thread is blocked in. Raises the
        first error of `read` or of an acknowledgement by itself.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._guard, interrupt)
                nursery.start_soon(self._store)
                nursery.start_soon(self._acknowledge)
                try:
                    await read()
                    while self.records:
                        await self._changed.wait()
                finally:
                    self.closed = True
                    self._change()
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            failed, rest = group.split(Exception)
            if failed is None or rest is not None:
                raise  # a stop: it goes on
            errors = leaves(failed)
            broken = [error for error in errors if isinstance(error, BufferBroken)]
            raise (broken or errors)[0] from group

    async def in_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """A blocking call to the queue's client, not abandoned; its errors disturb no stop."""
        try:
            return await trio.to_thread.run_sync(call, *arguments)
        except Exception:
            await trio.lowlevel.checkpoint_if_cancelled()
            raise

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _guard(self, interrupt: Callable[[], None]) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.closed = True
            self._change()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + GRACE_S):
                while self.records:
                    await self._changed.wait()
            for scope in self._scopes:
                scope.cancel()
            interrupt()

    async def _store(self) -> None:
        with self._scopes[0]:
            while self._to_store or not self.closed:
                if not self._to_store:
                    await self._changed.wait()
                    continue
                # What has come while the last commit ran goes into the next together.
                self._busy, self._to_store = list(self._to_store), deque()
                stored = await self._intake.store(*(r for h in self._busy for r in h.records))
                for handed in self._busy:
                    handed.stored, handed.records = stored, []
                    self.size_bytes -= handed.size_bytes
                self._stored.extend(self._busy)
                self._busy = []
                self._change()

    async def _acknowledge(self) -> None:
        with self._scopes[1]:
            while self.records or not self.closed:
                if not self._stored:
                    await self._changed.wait()
                    continue
                if self._delivered:
                    await self._intake.delivered(self._stored[0].stored)
                    end = self._stored[0].stored
                    while self._stored and self._stored[0].stored <= end:
                        self._telling.append(self._stored.popleft())
                else:
                    self._telling, self._stored = list(self._stored), deque()
                await self._tell([handed.token for handed in self._telling])
                self.records -= sum(handed.count for handed in self._telling)
                self._telling = []
                self._change()


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

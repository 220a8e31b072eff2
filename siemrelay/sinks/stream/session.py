"""A session on a byte stream: a batch is confirmed when the peer's kernel has acknowledged it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import trio

from siemrelay.core.errors import DeliveryError, SinkHolds, SinkWaits
from siemrelay.formats.writing.text import visible
from siemrelay.net.tasks import Broadcast
from siemrelay.sinks.contract import BatchLimits, ConfirmsEarly, Report, Settlement
from siemrelay.sinks.stream.connection import TLS_ALERT, Connection
from siemrelay.sinks.stream.failover import ServerSession
from siemrelay.wire.stream_framing import LONG_FRAME_BYTES, Framer, newline, octet_counting

# The kernel is asked at once. While enough is on the way to hold up the sender it is asked again
# after a loopback's round trip first, and at a WAN's in the end. Otherwise nothing waits for the
# answer but the cursor, and a peer delays its acknowledgement of few bytes by some 40 ms anyway.
_HOLDS_UP_BYTES: Final = 64 * 1024
_FIRST_ASK_S: Final = 0.0005
_SLOWEST_ASK_S: Final = 0.05
# The cursor waits twice as long, so that a sender asks before that.
_PATIENCE_S: Final = 2 * _SLOWEST_ASK_S

# In a rush the sender would soon wait for the probation. Of what nobody reads a kernel acknowledges
# what its receive buffer holds: 128 KiB, or what the program has set (tcp_rmem in tcp(7)). If the
# program has read more, and has not closed, it takes the connection: the probation is over.
# Less than may be in flight; asked so often once the sender waits.
_IS_READ_BYTES: Final = 3 << 20
_PROBATION_ASK_S: Final = 0.004

STREAM_LIMITS: Final = BatchLimits(in_flight_batches=64)
"""Enough to send on during the probation and over a long distance; `in_flight` bounds the bytes."""

# What a peer sent before the connection broke is on this machine within this time.
_LAST_DATA_S: Final = 0.1

# A syslog receiver sends nothing. The beginning of what a peer does send shows what it is.
_SHOWN_BYTES: Final = 200
_LEFT_EARLY: Final = "the peer closed the connection before it had taken anything"
_WHY_EARLY: Final = {
    False: "does it expect TLS or another protocol on this port, or not allow this machine?",
    True: "it may not accept this side's certificate or address: its log says why",
}

# A peer that refuses a long frame, or the protocol, closes the connection about so soon after it.
_REFUSES_WITHIN_S: Final = 5.0


class StreamSession(ServerSession, ConfirmsEarly):
    """See `sinks.contract.Session`. A ticket is an offset in the stream.

    The first batch is confirmed only if the connection is still intact `probation_s` after its
    acknowledgement. Acknowledged bytes alone do not prove that the peer wants them: receive buffers
    and proxies take any, up to a few MiB.
    """

    def __init__(
        self, connection: Connection, frame: Framer, report: Report, *, probation_s: float = 0.0,
        answer: str = "the peer's kernel acknowledged every byte (TCP says no more)",
    ) -> None:  # fmt: skip
        self.connection = connection
        self._frame, self._report, self._answer = frame, report, answer
        self._probation_s, self._believed_at = probation_s, -math.inf
        self._sent = self._confirmed = connection.counted.written_bytes
        self._acknowledged_bytes = 0
        """When the kernel was last asked: what it has acknowledged by then needs no question."""
        self._has_ended = False
        self._ask_again = Broadcast()  # the peer has closed, or the sender waits
        self._why: DeliveryError = SinkWaits("the peer closed the connection")
        self._received = b""
        self._long_bytes, self._long_at = 0, 0.0
        """The longest frame of the last batch with one over LONG_FRAME_BYTES, and when it went."""

    async def send(self, messages: Sequence[bytes]) -> int:
        """See `sinks.contract.Session`."""
        if self.leaving:
            await trio.sleep_forever()  # `fail_back` is about to end the session
        if self._has_ended:
            raise self._why
        data = self._frame(messages)
        if len(data) > LONG_FRAME_BYTES and self._frame is octet_counting:
            longest = max(map(len, messages))
            if longest > LONG_FRAME_BYTES:
                self._long_bytes, self._long_at = longest, trio.current_time()
        self._report("send", f"{len(data)} bytes")
        # Until the write returns, more is in flight than is confirmed.
        self._sent += 1
        try:
            self._sent = await self.connection.write(data)
        except SinkWaits as error:
            raise await self._reason_of_end(error) from error
        return self._sent

    @property
    def patience_s(self) -> float:
        """See `sinks.contract.ConfirmsEarly`."""
        few = self._sent - self._confirmed < _HOLDS_UP_BYTES
        return _PATIENCE_S if few and not self._probation_s else 0.0

    def is_confirmed(self, ticket: int) -> bool:
        """See `sinks.contract.ConfirmsEarly`."""
        if self._acknowledged_bytes < ticket:
            try:
                self._acknowledged_bytes = self.connection.counted.acknowledged_bytes()
            except SinkWaits:
                return False  # `confirm` says why
        if self._probation_s or self._acknowledged_bytes < ticket:
            return False
        self._note_confirmed(ticket)
        return True

    def hurry(self) -> None:
        """See `sinks.contract.ConfirmsEarly`."""
        self._ask_again.wake_all()

    async def confirm(self, ticket: int) -> Settlement:
        """See `sinks.contract.Session`."""
        try:
            await self._until_acknowledged(ticket)
            if self._probation_s:
                await self._outlive_probation()
        except SinkWaits as error:
            raise await self._reason_of_end(error) from error
        self._note_confirmed(ticket)
        return ()

    def _note_confirmed(self, ticket: int) -> None:
        self._confirmed = ticket
        received = self._received_text() if self._received else ""
        self._report("answer", f"the peer sent: {received}" if received else self._answer)

    def _received_text(self) -> str:
        return " ".join(visible(self._received.decode("utf-8", "replace"), keep="\r\n\t").split())

    async def _until_acknowledged(self, ticket: int) -> None:
        counted, timeout_s = self.connection.counted, self.connection.timeout_s
        pause, progress_at, last, is_awaited = _FIRST_ASK_S, trio.current_time(), -1, False
        while (acknowledged := counted.acknowledged_bytes()) < ticket:
            if acknowledged != last:
                last, progress_at = acknowledged, trio.current_time()
            elif trio.current_time() - progress_at > timeout_s:
                raise self.connection.stalled()
            few = self._sent - acknowledged < _HOLDS_UP_BYTES and not is_awaited
            with trio.move_on_after(_SLOWEST_ASK_S if few else pause) as asleep:
                await self._ask_again.wait()
            if asleep.cancelled_caught:
                pause = min(pause * 2, _SLOWEST_ASK_S)
            else:
                is_awaited, pause = True, _FIRST_ASK_S

    async def _reason_of_end(self, error: SinkWaits) -> DeliveryError:
        # The peer may have sent its reason before it closed; `watch` reads that.
        return self._why if await self._ends_within(_LAST_DATA_S) else error

    async def _ends_within(self, seconds: float) -> bool:
        with trio.move_on_after(seconds):
            while not self._has_ended:
                await self._ask_again.wait()
        return self._has_ended

    async def _outlive_probation(self) -> None:
        counted = self.connection.counted
        with trio.move_on_after(self._probation_s):
            if not self._has_ended:
                await self._ask_again.wait()
            while not self._has_ended and counted.acknowledged_bytes() < _IS_READ_BYTES:
                with trio.move_on_after(_PROBATION_ASK_S):
                    await self._ask_again.wait()
        if self._has_ended:
            raise self._why
        counted.acknowledged_bytes()  # raises if the connection is not whole
        self._probation_s, self._believed_at = 0.0, trio.current_time()

    async def watch(self) -> None:
        """Read and drop what the peer sends; raises SinkWaits or SinkHolds when it closes.

        After a close in order, batches that were sent before may still be confirmed.
        """
        try:
            while data := await self.connection.read():
                self._received = self._received or data[:_SHOWN_BYTES]
            in_order = True
        except DeliveryError as error:
            self._why = error
            in_order = False
        if not isinstance(self._why, SinkHolds):
            if self._probation_s:
                facts = [] if in_order else [str(self._why)]
                facts += [f"it sent: {self._received_text()}"] if self._received else []
                shown = f" ({'; '.join(facts)})" if facts else ""
                hint = self._too_long() or self._why_early()
                self._why = SinkWaits(f"{_LEFT_EARLY}{shown}; {hint}")
                in_order = False
            elif hint := self._too_long() or self._why_late():
                self._why = SinkWaits(f"{self._why}; {hint}")
        if self._received.startswith(TLS_ALERT):
            self._why = SinkHolds(
                "the peer speaks TLS on this port",
                advice="choose `protocol: tls`, or a port without TLS",
            )
        self._has_ended = True
        self._ask_again.wake_all()
        if in_order:
            with trio.move_on_after(self.connection.timeout_s):
                await self.everything_confirmed()
        raise self._why

    def _too_long(self) -> str:
        """Advice if a long frame may have made the peer close; empty if none was sent."""
        if not self._long_bytes or trio.current_time() - self._long_at > _REFUSES_WITHIN_S:
            return ""
        return (
            f"it was sent a message of {self._long_bytes} bytes: if it takes none of that size "
            "(syslog-ng's `log-msg-size`), let it, or set `max_message_size`"
        )

    def _why_early(self) -> str:
        """Why a peer may have closed at the first message."""
        hint = _WHY_EARLY[self.connection.tls is not None]
        octets = "; if it counts octets, set `framing: octet-counting`"
        return hint + octets if self._frame is newline else hint

    def _why_late(self) -> str:
        """The same of one that may be slower to refuse than a probation is long; may be empty."""
        said = f"it sent: {self._received_text()}; " if self._received else ""
        if trio.current_time() - self._believed_at <= _REFUSES_WITHIN_S:
            return said + self._why_early()
        return said and f"{said}does it expect another protocol?"

    async def everything_confirmed(self) -> None:
        """See `ServerSession`. Raises SinkWaits if the connection breaks."""
        while self._confirmed < self._sent:
            self.connection.counted.acknowledged_bytes()  # raises if the connection is not whole
            await trio.sleep(_SLOWEST_ASK_S)

    async def aclose(self) -> None:
        """Close in order; takes a second at most."""
        await self.connection.close_politely()

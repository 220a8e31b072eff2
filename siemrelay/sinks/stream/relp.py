"""The RELP sink, plain or in TLS: the receiver's `rsp 200` confirms each message.

After a broken connection messages without an answer are sent again, so at most one window is
repeated. A batch is a part of the window, because the cursor moves by whole batches.
Source: the RELP specification (rsyslog/librelp, doc/relp.html), commands open, syslog, close.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import trio
from pydantic import Field

from siemrelay.core.errors import DeliveryError, FrameRefused, SinkHolds, SinkWaits
from siemrelay.core.options import Port, show_seconds
from siemrelay.net.tls_client import TlsOptions
from siemrelay.sinks.contract import BatchLimits, ProtocolKind, Refusal, Report, Settlement
from siemrelay.sinks.stream.connection import TLS_ALERT, Connection
from siemrelay.sinks.stream.failover import ServerSession, ServerSink, StreamOptions
from siemrelay.wire.relp import TAKEN, RelpAnswer, RelpClient, ServerClose

# Batches in a window: the receiver works on the next ones while one is settled.
_BATCHES_IN_WINDOW: Final = 4

# The size of one batch whatever the window: a few writes.
_BATCH_BYTES: Final = 1024 * 1024


class RelpOptions(StreamOptions):
    """Options of `protocol: relp`."""

    port: Port = Field(2514, description="its TCP port")
    window: int = Field(
        128, ge=1, le=10_000, description="messages in flight: sent and not yet answered"
    )
    tls: TlsOptions | None = Field(
        None, description="verification, certificates; `{}` is TLS with the defaults, none is plain"
    )

    def limits(self) -> BatchLimits:
        """The limits of a batch."""
        return BatchLimits(max(1, self.window // _BATCHES_IN_WINDOW), _BATCH_BYTES)


class RelpSink(ServerSink["RelpSession"]):
    """Messages as RELP `syslog` commands over one TCP connection."""

    def __init__(self, options: RelpOptions) -> None:
        super().__init__(options, options.port, options.tls)
        self._window = options.window

    async def start(self, connection: Connection, report: Report) -> RelpSession:
        """See `ServerSink`; exchanges the RELP `open`."""
        session = RelpSession(connection, self._window, report)
        await session.open()
        return session


_NO_RELP: Final = "the peer does not speak RELP on this port"

# After a failed write, whatever the peer sent before is on this machine already.
_LAST_DATA_S: Final = 0.25


@dataclass(slots=True, eq=False)
class _Part:
    """Messages of one batch that entered the window together."""

    messages: int
    unanswered: int
    refusals: list[Refusal] = field(default_factory=list)
    settled: trio.Event = field(default_factory=trio.Event)


class RelpSession(ServerSession):
    """See `sinks.contract.Session`; a ticket is the list of a batch's parts."""

    def __init__(self, connection: Connection, window: int, report: Report) -> None:
        self._connection, self._window, self._report = connection, window, report
        self._relp = RelpClient()
        self._unanswered: dict[int, tuple[_Part, int]] = {}
        self._in_window = 0  # messages of parts with answers missing
        self._room = trio.lowlevel.ParkingLot()
        self._answers = 0
        self._unconfirmed = 0  # parts sent and not yet confirmed
        self._idle = trio.lowlevel.ParkingLot()
        self._why: DeliveryError | None = None

    async def open(self) -> None:
        """Send `open` and read the answer. Raises SinkWaits or SinkHolds without a good one."""
        connection = self._connection
        number, frame = self._relp.open()
        try:
            await connection.write(frame)
            with trio.fail_after(connection.timeout_s):
                answer = await self._first_answer()
        except trio.TooSlowError as error:
            raise SinkWaits(
                f"no answer to the RELP `open` within {show_seconds(connection.timeout_s)}; "
                "does it speak RELP on this port?"
            ) from error
        except SinkWaits as error:
            raise self._no_session(f"{error} before a RELP session was open") from error
        if answer.txnr != number or answer.code != TAKEN:
            raise SinkHolds(
                f"the peer refused the RELP session: {answer.code} {answer.reason}",
                advice="its log says why",
            )
        commands = [line for line in answer.details.split("\n") if line.startswith("commands=")]
        if commands and "syslog" not in commands[0].removeprefix("commands=").split(","):
            raise SinkHolds(
                f"the peer's RELP takes no syslog messages ({commands[0]})",
                advice="let the receiver offer the command `syslog`",
            )
        details = ", ".join(line for line in answer.details.split("\n") if line)
        self._report("open", f"RELP: {answer.code} {answer.reason} {details}".rstrip())

    async def _first_answer(self) -> RelpAnswer:
        while data := await self._connection.read():
            if data.startswith(TLS_ALERT):
                raise SinkHolds(
                    "the peer speaks TLS on this port",
                    advice="set `tls: {}` for RELP within TLS, or choose a port without TLS",
                )
            for frame in self._understood(data):
                if isinstance(frame, RelpAnswer):
                    return frame
        raise SinkWaits("the peer closed the connection")

    def _no_session(self, reason: str) -> SinkWaits:
        if self._connection.tls is None:
            return SinkWaits(
                f"{reason}; does it speak RELP on this port, or expect TLS (`tls: {{}}`)?"
            )
        return SinkWaits(
            f"{reason}; does it speak RELP on this port, and does it want or refuse a certificate "
            "of this side (`tls: {certificate: FILE, key: FILE}`)?"
        )

    def _understood(self, data: bytes) -> list[RelpAnswer | ServerClose]:
        try:
            return self._relp.receive(data)
        except FrameRefused as error:
            raise SinkHolds(
                f"{_NO_RELP}: {error}", advice="check the port and whether `protocol` is right"
            ) from error

    # -- sending and confirming -------------------------------------------

    async def send(self, messages: Sequence[bytes]) -> list[_Part]:
        """See `sinks.contract.Session`; waits while the window is full."""
        if self.leaving:
            await trio.sleep_forever()  # `fail_back` ends the session
        parts = []
        for start in range(0, len(messages), self._window):
            piece = messages[start : start + self._window]
            while self._in_window and self._in_window + len(piece) > self._window:
                await self._room.park()
            if self._why is not None:
                raise self._why
            part = _Part(len(piece), len(piece))
            numbers, frames = self._relp.syslog(piece)
            for index, number in enumerate(numbers, start):
                self._unanswered[number] = (part, index)
            self._in_window += len(piece)
            self._unconfirmed += 1
            parts.append(part)
            await self._write(frames)
            self._report("send", f"{len(frames)} bytes, messages: {len(piece)}")
        return parts

    async def _write(self, frames: bytes) -> None:
        try:
            await self._connection.write(frames)
        except SinkWaits as error:
            # The peer may have sent its reason before it closed; `watch` reads that.
            with trio.move_on_after(_LAST_DATA_S):
                while self._why is None:
                    await self._room.park()
            raise self._why or error from error

    async def confirm(self, ticket: list[_Part]) -> Settlement:
        """See `sinks.contract.Session`."""
        timeout_s = self._connection.timeout_s
        refusals: list[Refusal] = []
        for part in ticket:
            while not part.settled.is_set():
                before = self._answers
                with trio.move_on_after(timeout_s):
                    await part.settled.wait()
                if not part.settled.is_set() and self._answers == before:
                    raise SinkWaits(
                        f"the peer has answered nothing for {show_seconds(timeout_s)}; "
                        "is it overloaded?"
                    )
            if part.unanswered:
                assert self._why is not None
                raise self._why
            refusals += part.refusals
            self._unconfirmed -= 1
            if not self._unconfirmed:
                self._idle.unpark_all()
        return refusals

    async def watch(self) -> None:
        """Read the peer's answers until it ends the session; raises the reason.

        Messages that were answered by then may still be confirmed.
        """
        try:
            while data := await self._connection.read():
                for frame in self._understood(data):
                    if not isinstance(frame, RelpAnswer):
                        raise SinkWaits("the peer closed the RELP session (`serverclose`)")
                    self._settle(frame)
            raise SinkWaits("the peer closed the connection")
        except DeliveryError as error:
            self._why = error
            for part, _ in self._unanswered.values():
                part.settled.set()
            self._room.unpark_all()
            await self.everything_confirmed()
            raise

    async def everything_confirmed(self) -> None:
        """See `ServerSession`."""
        # `confirm` raises for a part that has no answer and will get none.
        while self._unconfirmed:
            await self._idle.park()

    async def aclose(self) -> None:
        """Close, with the command `close` if the session is intact; takes a second at most."""
        if self._why is None:
            await self._connection.close_politely(self._relp.close()[1])
        else:
            await self._connection.aclose()

    def _settle(self, answer: RelpAnswer) -> None:
        known = self._unanswered.pop(answer.txnr, None)
        if known is None:
            raise SinkHolds(
                f"{_NO_RELP} as it should: it answered message {answer.txnr}, which has no answer "
                "due",
                advice="look in the receiver's log",
            )
        part, index = known
        self._answers += 1
        part.unanswered -= 1
        if answer.code != TAKEN:
            part.refusals.append(Refusal(index, str(answer.code), answer.reason))
        if not part.unanswered:
            part.settled.set()
            self._in_window -= part.messages
            self._room.unpark_all()
            self._report("answer", f"{answer.code} {answer.reason}")


RELP: Final = ProtocolKind(
    RelpOptions, RelpSink, "syslog", "RELP, confirmed by the receiver's answer", port=2514,
    limits=lambda options: options.limits(),
)  # fmt: skip

"""Syslog over TCP, TLS and Unix streams.

    accept ─▶ (TLS) ─▶ wait for the moment of all ─▶ read ─▶ split into messages ─▶ intake

A stream has no acknowledgement: the kernel has confirmed to the sender what it has received. So a
stop reads and hands over what has arrived, within a second.
"""

from __future__ import annotations

import math
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeVar

import trio

from siemrelay.decoders.syslog.host import payload_with_host
from siemrelay.net.listener import AcceptedConnection
from siemrelay.net.tls_server import HandshakeFailed, TlsServer, TlsStream
from siemrelay.sources.contract import Intake, Records
from siemrelay.sources.pacing import StreamPace
from siemrelay.sources.syslog.address import SyslogAddress
from siemrelay.sources.syslog.listener import CROWDED_BYTES, SourceActivity, SyslogListener
from siemrelay.sources.syslog.options import SyslogOptions
from siemrelay.wire.framing.contract import MAX_WHOLE_BYTES
from siemrelay.wire.stream_framing import Messages, StreamSplitter

# One read takes at most this much: enough that the work per read is lost in it.
_READ_BYTES: Final = 512 * 1024
# From a connection that has sent little it takes this: most of thousands are quiet.
_SMALL_READ_BYTES: Final = 16 * 1024
# And about this many messages, however short they are: some 20 ms of work from here to the sinks.
# Checked by test_a_flood_of_the_shortest_lines_keeps_nobody_waiting.
_READ_MESSAGES: Final = 2048
_LEAST_READ_BYTES: Final = 4 * 1024
# A handshake is a few round trips; a longer one takes a slot from others.
_HANDSHAKE_S: Final = 30.0
# The rest of a TLS record, of which something came before a deadline, is waited for so long.
_REST_S: Final = 1.0
# On a stop, what has arrived already is read for this long and handed over for this long: the
# kernel has acknowledged it to its sender. A connection on which nothing waits is left at once.
_LAST_READS_S: Final = 0.8
_LAST_OFFERS_S: Final = 1.0
_NOTHING_LEFT_S: Final = 0.01


_T = TypeVar("_T")

PeerStream = trio.SocketStream | TlsStream


class ReadSize:
    """The size of the next read: large for a busy connection, small for short messages."""

    def __init__(self) -> None:
        self.bytes = _SMALL_READ_BYTES

    def adapt(self, received: int, messages: int, *, crowded: bool) -> bool:
        """Note how much the last read brought; returns whether it was a large one."""
        large = received >= _SMALL_READ_BYTES
        if messages > _READ_MESSAGES:
            self.bytes = max(received * _READ_MESSAGES // messages, _LEAST_READ_BYTES)
            return True
        if crowded:
            self.bytes = _SMALL_READ_BYTES
        elif received >= self.bytes:
            self.bytes = min(self.bytes * 4, _READ_BYTES)
        else:
            self.bytes = max(_SMALL_READ_BYTES, self.bytes // 2)
        return large


class StreamListener(SyslogListener):
    """Serves the peers that connect to the sockets of one address."""

    def __init__(
        self, address: SyslogAddress, options: SyslogOptions, intake: Intake, log: Any,
        activity: SourceActivity,
    ) -> None:  # fmt: skip
        super().__init__(address, options, intake, log, activity)
        self._connections = options.limiter(self._rejections)
        tls = options.tls if address.scheme.endswith("tls") else None
        self._tls = TlsServer(tls) if tls is not None else None

    async def prepare(self) -> None:
        """Read the TLS files, if there are any. Raises TlsFilesUnusable when they are no good."""
        if self._tls is not None:
            await self._tls.prepare()

    async def run(
        self, sockets: list[trio.socket.SocketType],
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:  # fmt: skip
        """Serve until cancelled; closes the sockets and every connection."""
        task_status.started()
        await self._connections.serve(sockets, self._accepted)

    async def _accepted(self, connection: AcceptedConnection) -> None:
        self._intake.connected(1)
        self._activity.open += 1
        stream: PeerStream = connection.stream
        try:
            if self._tls is not None:
                stream = await self._tls.secure(connection.stream, _HANDSHAKE_S)
                connection.proven = stream.certificate is not None
            await self.serve_peer(stream, connection)
        except HandshakeFailed as failure:
            self._rejections.reject("tls", connection.peer, str(failure))
        finally:
            self._activity.open -= 1
            self._activity.arrived_at = trio.current_time()
            self._intake.connected(-1)

    async def serve_peer(self, stream: PeerStream, connection: AcceptedConnection) -> None:
        """Read one peer's messages until its end, and hand them over.

        If cancelled, what the kernel has received is still read and handed over, within a second.
        """
        splitter = StreamSplitter(self._options.max_record_size, MAX_WHOLE_BYTES)
        pending, held, size = deque[Messages](), 0, ReadSize()
        activity, peer, pace = self._activity, connection.peer, StreamPace(self._intake)
        try:
            while data := await self._received(stream, size.bytes, connection, pace):
                pace.note_read(len(data))
                splitter.part_bytes = CROWDED_BYTES if activity.crowded else MAX_WHOLE_BYTES
                pending.extend(splitter.feed(data))
                in_hand = splitter.held + len(data)
                activity.hold(in_hand - held)
                held = in_hand
                count = await self._hand_over(pending, connection)
                activity.hold(-len(data))
                held -= len(data)
                if splitter.refusal is not None:
                    self._rejections.reject("framing", peer, splitter.refusal)
                    return
                if size.adapt(len(data), count, crowded=activity.crowded):
                    await activity.yield_after_large_read()
                await self._wait_for_rate(peer, count)
            if splitter.unseparated:
                self._rejections.warn(
                    "unseparated", "messages without an end are stored as one", peer=peer,
                    advice="have the sender end each with a line feed (winston-syslog: `eol`, "
                    "pino-syslog: `newline`), or count octets",
                )  # fmt: skip
            pending.extend(splitter.end())
            await self._hand_over(pending, connection)
        except trio.Cancelled:
            await self._take_the_rest(stream, connection, splitter, pending)
            raise
        finally:
            activity.hold(-held)

    async def _take_the_rest(
        self, stream: PeerStream, connection: AcceptedConnection, splitter: StreamSplitter,
        pending: deque[Messages],
    ) -> None:  # fmt: skip
        """Hand over everything that had arrived on a connection that is being closed."""
        now = trio.current_time()
        with trio.CancelScope(shield=True, deadline=now + _LAST_OFFERS_S):
            await self._hand_over(pending, connection)
            data = b"."
            while data and trio.current_time() < now + _LAST_READS_S:
                data = b""
                with trio.move_on_after(_NOTHING_LEFT_S):
                    data = await self._received(stream, _READ_BYTES, connection)
                pending.extend(splitter.feed(data))
                await self._hand_over(pending, connection)
            pending.extend(splitter.end())
            await self._hand_over(pending, connection)

    async def _received(
        self, stream: PeerStream, size: int, connection: AcceptedConnection,
        pace: StreamPace | None = None,
    ) -> bytes:  # fmt: skip
        """The bytes that came; none when the connection is at its end, for whatever reason.

        With a `pace`, what trickles in is left in the kernel until it is its turn.
        """
        options, peer = self._options, connection.peer
        deadline = math.inf
        if not connection.has_sent:
            deadline = connection.accepted_at + options.first_message_timeout
        elif options.idle_timeout is not None:
            deadline = trio.current_time() + options.idle_timeout
        try:
            data = bytes(await _read(stream, size, deadline, pace))
        except trio.TooSlowError:
            option = "idle_timeout" if connection.has_sent else "first_message_timeout"
            why = f"it ended no message for `{option}`"
            self._rejections.reject("idle", peer, why, records=0)
            return b""
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            if isinstance(error.__cause__, ssl.SSLError):
                self._rejections.reject("tls", peer, f"TLS broke: {error.__cause__}")
            return b""
        self._activity.arrived_at = connection.active_at = trio.current_time()
        return data

    async def _hand_over(self, pending: deque[Messages], connection: AcceptedConnection) -> int:
        """Empty `pending` into the intake; returns how many messages those were."""
        count = 0
        if pending:
            connection.has_sent = True
        while pending:
            messages = pending[0]
            await self._intake.offer(self._records(messages, connection.peer))
            pending.popleft()
            count += messages.count
            for size_bytes in messages.oversize:
                self._intake.oversize(size_bytes)
        return count

    def _records(self, messages: Messages, peer: str) -> Records:
        payload, count = messages.payload, messages.count
        if self._options.add_host and messages.part is None:
            payload = payload_with_host(payload, count, self._host_of(peer), datetime.now(UTC))
        return Records(payload, count, part=messages.part)

    async def _wait_for_rate(self, peer: str, count: int) -> None:
        """Read a peer that sends more than `rate` no faster than that."""
        if self._rate is not None and count:
            await trio.sleep(self._rate.charge(peer, count, trio.current_time()))


async def _read(
    stream: PeerStream, size: int, deadline: float, pace: StreamPace | None
) -> bytes | bytearray:
    """Read what comes before the deadline; raises TooSlowError if nothing does."""
    if pace is not None and not pace.flows:
        if isinstance(stream, TlsStream):
            await _before(deadline, stream.wait_readable)
        else:
            await _before(deadline, partial(trio.lowlevel.wait_readable, stream.socket))
        await pace.turn()
        # Something has come in time. In TLS its rest may be on the way.
        deadline = max(deadline, trio.current_time() + _REST_S)
    return await _before(deadline, partial(stream.receive_some, size))


async def _before(deadline: float, wait: Callable[[], Awaitable[_T]]) -> _T:
    if deadline == math.inf:
        return await wait()
    with trio.fail_at(deadline):
        return await wait()

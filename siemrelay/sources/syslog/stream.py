"""Syslog over TCP, TLS and Unix streams: accepts, reads in batches, hands over, lets go."""

from __future__ import annotations

import socket
import ssl
from collections import deque
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any, Final, Protocol

import trio

from siemrelay.decoders.syslog.host import payload_with_host
from siemrelay.net.listener import Door, plain_address
from siemrelay.net.refusals import Refusals
from siemrelay.net.tls_server import ServerContexts, ServerTlsOptions
from siemrelay.net.tls_stream import TlsStream
from siemrelay.sources.contract import Intake, Records
from siemrelay.sources.cutting import MAX_WHOLE_BYTES
from siemrelay.sources.syslog.address import Address
from siemrelay.sources.syslog.rate_limit import PeerRate
from siemrelay.wire.syslog_framing import Messages, StreamSplitter

# What one read takes at most: enough that the work per read is lost in it.
_READ_BYTES: Final = 256 * 1024
# What it takes from a connection that has shown little: most of thousands are quiet.
_SMALL_READ_BYTES: Final = 16 * 1024
# What all connections read in so long a time is handed over together, after a quiet time at once.
# A batch costs some 0.7 ms from disk to sink however small it is: with one for each message, a
# thousand a second from as many devices kept a core busy.
_GATHER_S: Final = 0.005
# So much is a batch by itself: who sends fast is not made to wait.
_BATCH_BYTES: Final = 64 * 1024
# Incomplete messages of all connections together are whole up to here; beyond, long ones come in
# parts of CROWDED_BYTES, so that thousands of peers cannot fill the memory.
_HELD_BYTES: Final = 64 << 20
CROWDED_BYTES: Final = 64 * 1024
"""What one connection may hold while all of them together hold too much."""
# A handshake is a few round trips; who takes longer takes a place from others.
_HANDSHAKE_S: Final = 30.0
# On a stop, what has arrived already is read for so long and handed over for so long: the kernel
# has confirmed it to its sender. A connection on which nothing waits is left at once.
_LAST_READS_S: Final = 0.8
_LAST_OFFERS_S: Final = 1.0
_NOTHING_LEFT_S: Final = 0.01


class StreamLimits(Protocol):
    """What a stream listener asks of the source's options."""

    @property
    def tls(self) -> ServerTlsOptions | None: ...
    @property
    def max_connections(self) -> int: ...
    @property
    def idle_timeout(self) -> float | None: ...
    @property
    def max_record_size(self) -> int: ...
    @property
    def allow(self) -> list[str]: ...
    @property
    def rate(self) -> float | None: ...
    @property
    def add_host(self) -> bool: ...


class Activity:
    """What all connections of a source have in common, over all its listeners."""

    def __init__(self) -> None:
        self.arrived_at = trio.current_time()
        self.open = 0
        self.held_bytes = 0
        self._next_turn_at = self.arrived_at
        self._turn: trio.Event | None = None

    async def turn(self) -> None:
        """Wait for the moment at which all who have something hand it over."""
        if trio.current_time() >= self._next_turn_at:
            self._next_turn_at = trio.current_time() + _GATHER_S
        elif self._turn is not None:
            await self._turn.wait()
        else:
            turn = self._turn = trio.Event()
            try:
                await trio.sleep_until(self._next_turn_at)
            finally:
                self._next_turn_at = trio.current_time() + _GATHER_S
                self._turn = None
                turn.set()

    @property
    def crowded(self) -> bool:
        """Whether all connections together hold as much in memory as they may."""
        return self.held_bytes > _HELD_BYTES


Stream = trio.SocketStream | TlsStream


class StreamListener:
    """Serves everybody who connects to the sockets of one address."""

    def __init__(
        self, address: Address, options: StreamLimits, intake: Intake, log: Any, activity: Activity
    ) -> None:
        self._options, self._intake, self._activity = options, intake, activity
        self._is_local = bool(address.path)
        self._refusals = Refusals(log, str(address), intake.refused)
        networks = [ip_network(text) for text in options.allow]
        self._door = Door(networks, options.max_connections, self._refusals)
        self._rate = PeerRate(options.rate) if options.rate is not None else None
        tls = options.tls if address.scheme.endswith("tls") else None
        self._contexts = ServerContexts(tls) if tls is not None else None
        self._reading_tls = trio.Lock()

    async def prepare(self) -> None:
        """Read the TLS files, if there are any. Raises TlsFilesUnusable when they are no good."""
        if self._contexts is not None:
            await trio.to_thread.run_sync(self._contexts.current)

    async def run(
        self, sockets: list[trio.socket.SocketType],
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:  # fmt: skip
        """Serve until cancelled; closes the sockets and every connection."""
        task_status.started()
        await self._door.serve(sockets, self._connection)

    async def _connection(self, plain: trio.SocketStream, peer: str) -> None:
        self._intake.connected(1)
        self._activity.open += 1
        try:
            stream = await self._secured(plain, peer)
            if stream is not None:
                await self._serve(stream, peer)
        finally:
            self._activity.open -= 1
            self._activity.arrived_at = trio.current_time()
            self._intake.connected(-1)

    async def _secured(self, plain: trio.SocketStream, peer: str) -> Stream | None:
        """The stream to read from; None if TLS did not come about."""
        if self._contexts is None:
            return plain
        async with self._reading_tls:
            context = await trio.to_thread.run_sync(self._contexts.current)
        stream = TlsStream(plain, context)
        try:
            with trio.fail_after(_HANDSHAKE_S):
                await stream.do_handshake()
        except (trio.BrokenResourceError, trio.TooSlowError) as error:
            why = error.__cause__ or error or "it took too long"
            self._refusals.refuse("tls", peer, f"no TLS: {why}")
            return None
        if not self._contexts.admits(stream.certificate()):
            self._refusals.refuse("tls", peer, "its certificate is not one of "
                                  "`client_fingerprints`")  # fmt: skip
            return None
        return stream

    async def _serve(self, stream: Stream, peer: str) -> None:
        splitter = StreamSplitter(self._options.max_record_size, MAX_WHOLE_BYTES)
        pending, held, size = deque[Messages](), 0, _SMALL_READ_BYTES
        activity = self._activity
        try:
            while data := await self._received(stream, size, peer):
                activity.arrived_at = trio.current_time()
                size = _READ_BYTES if len(data) == size else max(_SMALL_READ_BYTES, size // 2)
                splitter.part_bytes = MAX_WHOLE_BYTES
                if activity.crowded:
                    size, splitter.part_bytes = _SMALL_READ_BYTES, CROWDED_BYTES
                pending.extend(splitter.feed(data))
                in_hand = splitter.held + len(data)
                activity.held_bytes, held = activity.held_bytes + in_hand - held, in_hand
                if pending and len(data) < _BATCH_BYTES:
                    await activity.turn()
                count = await self._hand_over(pending, peer)
                activity.held_bytes, held = activity.held_bytes - len(data), held - len(data)
                if splitter.refusal is not None:
                    self._refusals.refuse("framing", peer, splitter.refusal)
                    return
                await self._wait_for_rate(peer, count)
            pending.extend(splitter.end())
            await self._hand_over(pending, peer)
        except trio.Cancelled:
            await self._take_the_rest(stream, peer, splitter, pending)
            raise
        finally:
            activity.held_bytes -= held

    async def _take_the_rest(
        self, stream: Stream, peer: str, splitter: StreamSplitter, pending: deque[Messages]
    ) -> None:
        """Of a connection that a stop cuts off: what was read, and what has arrived by now."""
        now = trio.current_time()
        with trio.CancelScope(shield=True, deadline=now + _LAST_OFFERS_S):
            await self._hand_over(pending, peer)
            data = b"."
            while data and trio.current_time() < now + _LAST_READS_S:
                data = b""
                with trio.move_on_after(_NOTHING_LEFT_S):
                    data = await self._received(stream, _READ_BYTES, peer)
                pending.extend(splitter.feed(data))
                await self._hand_over(pending, peer)
            pending.extend(splitter.end())
            await self._hand_over(pending, peer)

    async def _received(self, stream: Stream, size: int, peer: str) -> bytes:
        """What came; nothing when the connection is at its end, for whatever reason."""
        try:
            if self._options.idle_timeout is None:
                return bytes(await stream.receive_some(size))
            with trio.fail_after(self._options.idle_timeout):
                return bytes(await stream.receive_some(size))
        except trio.TooSlowError:
            self._refusals.refuse("idle", peer, "nothing came for `idle_timeout`", records=0)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            if isinstance(error.__cause__, ssl.SSLError):
                self._refusals.refuse("tls", peer, f"TLS broke: {error.__cause__}")
        return b""

    async def _hand_over(self, pending: deque[Messages], peer: str) -> int:
        """Empty `pending` into the intake; how many messages that were."""
        count = 0
        while pending:
            messages = pending[0]
            await self._intake.offer(self._records(messages, peer))
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

    def _host_of(self, peer: str) -> str:
        """What stands for a peer in the messages that name no host."""
        return socket.gethostname() if self._is_local else plain_address(peer)

    async def _wait_for_rate(self, peer: str, count: int) -> None:
        """Read a peer that sends more than `rate` no faster than that."""
        if self._rate is not None and count:
            await trio.sleep(self._rate.charge(peer, count, trio.current_time()))

"""Syslog over TCP, TLS and Unix streams: accepts, reads in batches, hands over, lets go."""

from __future__ import annotations

import socket
import ssl
from ipaddress import ip_network
from typing import Any, Final, Protocol

import trio

from siemrelay.sources.contract import Intake, Records
from siemrelay.sources.cutting import MAX_WHOLE_BYTES
from siemrelay.sources.listening import Address, is_within
from siemrelay.sources.server_tls import ServerContexts, ServerTlsOptions
from siemrelay.wire.syslog_stream import Messages, StreamSplitter

# What one read takes at most: enough that the work per read is lost in it.
_READ_BYTES: Final = 256 * 1024
# What it takes from a connection that has shown little: most of thousands are quiet.
_SMALL_READ_BYTES: Final = 16 * 1024
# Reads in quick succession go together, which costs a batch for all instead of one each.
_GATHER_S: Final = 0.002
# Incomplete messages of all connections together are whole up to here; beyond, long ones come in
# parts of _CROWDED_PART_BYTES, so that thousands of peers cannot fill the memory.
_HELD_BYTES: Final = 64 << 20
_CROWDED_PART_BYTES: Final = 64 * 1024
# A handshake is a few round trips; who takes longer takes a place from others.
_HANDSHAKE_S: Final = 30.0
# On a stop, what was read already gets so long to be handed over.
_LAST_OFFER_S: Final = 1.0
# One line in the log per reason and so many seconds; the rest is counted in the next one.
_TELL_EVERY_S: Final = 10.0
# Dead peers are found out by the kernel: after a minute's silence, three questions.
_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 20), (socket.TCP_KEEPCNT, 3))


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


class Activity:
    """When something arrived last and how many connections are open, over all listeners."""

    def __init__(self) -> None:
        self.arrived_at = trio.current_time()
        self.open = 0
        self.held_bytes = 0


Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class StreamListener:
    """Serves everybody who connects to the sockets of one address."""

    def __init__(
        self, address: Address, options: StreamLimits, intake: Intake, log: Any, activity: Activity
    ) -> None:
        self._address, self._options, self._intake = address, options, intake
        self._log, self._activity = log, activity
        self._networks = [ip_network(text) for text in options.allow]
        self._free = trio.Semaphore(options.max_connections)
        self._contexts: ServerContexts | None = None
        self._reading_tls = trio.Lock()
        self._told: dict[str, tuple[float, int]] = {}
        self._paid: dict[str, float] = {}
        """Peer → until when what it sent is paid for by its `rate`."""

    async def run(self, sockets: list[trio.socket.SocketType]) -> None:
        """Serve until cancelled; closes the sockets and every connection.

        Raises TlsFilesUnusable, before anybody is served, when there can be no TLS.
        """
        if self._address.scheme.endswith("tls"):
            assert self._options.tls is not None, "checked with the options"
            self._contexts = ServerContexts(self._options.tls)
            await trio.to_thread.run_sync(self._contexts.current)
        listeners = [_Bounded(trio.SocketListener(sock), self._free) for sock in sockets]
        await trio.serve_listeners(self._connection, listeners)

    async def _connection(self, stream: trio.SocketStream) -> None:
        activity, peer = self._activity, ""
        self._intake.connected(1)
        activity.open += 1
        try:
            peer = self._peer(stream)
            if self._networks and peer and not is_within(peer, self._networks):
                self._refuse("address", peer, "it is in none of the networks of `allow`")
                return
            served = await self._secured(stream, peer)
            if served is not None:
                await self._serve(served, peer)
        except OSError:
            return  # gone before it could be asked who it is
        finally:
            activity.open -= 1
            activity.arrived_at = trio.current_time()
            self._intake.connected(-1)
            self._free.release()
            await trio.aclose_forcefully(stream)

    def _peer(self, stream: trio.SocketStream) -> str:
        if self._address.path:
            return ""
        for option, value in _KEEPALIVE:
            stream.setsockopt(socket.IPPROTO_TCP, option, value)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return str(stream.socket.getpeername()[0])

    async def _secured(self, plain: trio.SocketStream, peer: str) -> Stream | None:
        """The stream to read from; None if TLS did not come about."""
        if self._contexts is None:
            return plain
        async with self._reading_tls:
            context = await trio.to_thread.run_sync(self._contexts.current)
        stream = trio.SSLStream(plain, context, server_side=True, https_compatible=True)
        try:
            with trio.fail_after(_HANDSHAKE_S):
                await stream.do_handshake()
        except (trio.BrokenResourceError, trio.TooSlowError, ssl.SSLError) as error:
            self._refuse("tls", peer, f"no TLS: {error.__cause__ or error or 'it took too long'}")
            return None
        if not self._contexts.admits(stream.getpeercert(binary_form=True)):
            self._refuse("tls", peer, "its certificate is not one of `client_fingerprints`")
            return None
        return stream

    async def _serve(self, stream: Stream, peer: str) -> None:
        splitter = StreamSplitter(self._options.max_record_size, MAX_WHOLE_BYTES)
        activity, held = self._activity, 0
        try:
            size = _SMALL_READ_BYTES
            while data := await self._received(stream, size, peer):
                now = activity.arrived_at = trio.current_time()
                size = _READ_BYTES if len(data) == size else max(_SMALL_READ_BYTES, size // 2)
                crowded = activity.held_bytes > _HELD_BYTES
                splitter.part_bytes = _CROWDED_PART_BYTES if crowded else MAX_WHOLE_BYTES
                taken = splitter.feed(data)
                activity.held_bytes += splitter.held - held
                held = splitter.held
                await self._hand_over(taken, peer)
                if splitter.refusal is not None:
                    self._refuse("framing", peer, splitter.refusal)
                    return
                if len(data) < _READ_BYTES and taken and trio.current_time() - now < _GATHER_S:
                    await trio.sleep(_GATHER_S)
            await self._hand_over(splitter.end(), peer)
        finally:
            activity.held_bytes -= held
            # Of a connection that a stop cuts off.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _LAST_OFFER_S):
                for messages in splitter.end():
                    await self._offer(messages)

    async def _received(self, stream: Stream, size: int, peer: str) -> bytes:
        """What came; nothing when the connection is at its end, for whatever reason."""
        try:
            if self._options.idle_timeout is None:
                return bytes(await stream.receive_some(size))
            with trio.fail_after(self._options.idle_timeout):
                return bytes(await stream.receive_some(size))
        except trio.TooSlowError:
            self._refuse("idle", peer, "nothing came for `idle_timeout`", records=0)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            if isinstance(error.__cause__, ssl.SSLError):
                self._refuse("tls", peer, f"TLS broke: {error.__cause__}")
        return b""

    async def _hand_over(self, taken: list[Messages], peer: str) -> None:
        count = 0
        for i, messages in enumerate(taken):
            try:
                await self._offer(messages)
            except trio.Cancelled:
                # TCP has confirmed these to the peer: they are stored if that goes quickly.
                with trio.CancelScope(shield=True, deadline=trio.current_time() + _LAST_OFFER_S):
                    for left in taken[i:]:
                        await self._offer(left)
                raise
            count += messages.count
        if self._options.rate is not None and count:
            await self._wait_for_rate(peer, count, self._options.rate)

    async def _offer(self, messages: Messages) -> None:
        for size_bytes in messages.oversize:
            self._intake.oversize(size_bytes)
        await self._intake.offer(Records(messages.payload, messages.count, part=messages.part))

    async def _wait_for_rate(self, peer: str, count: int, rate: float) -> None:
        """Read a peer that sends more than `rate` no faster than that; a second's worth is free."""
        now = trio.current_time()
        if len(self._paid) > self._options.max_connections:
            self._paid = {who: until for who, until in self._paid.items() if until > now}
        until = max(self._paid.get(peer, 0.0), now) + count / rate
        self._paid[peer] = until
        await trio.sleep(max(until - 1.0 - now, 0.0))

    def _refuse(self, reason: str, peer: str, why: str, *, records: int = 1) -> None:
        """Count it, and say it unless the same was said just now."""
        if records:
            self._intake.refused(reason, records)
        now = trio.current_time()
        told_at, more = self._told.get(reason, (-_TELL_EVERY_S, 0))
        if now - told_at < _TELL_EVERY_S:
            self._told[reason] = told_at, more + 1
            return
        self._told[reason] = now, 0
        self._log.warning("connection closed", listen=str(self._address), peer=peer or "local",
                          reason=why, more=more)  # fmt: skip


class _Bounded(trio.abc.Listener[trio.SocketStream]):
    """Accepts a connection only when one of so many is free; the rest wait in the kernel."""

    def __init__(self, listener: trio.SocketListener, free: trio.Semaphore) -> None:
        self._listener, self._free = listener, free

    async def accept(self) -> trio.SocketStream:
        await self._free.acquire()
        try:
            return await self._listener.accept()
        except BaseException:
            self._free.release()
            raise

    async def aclose(self) -> None:
        await self._listener.aclose()

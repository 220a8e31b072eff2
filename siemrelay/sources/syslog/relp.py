"""RELP, plain and in TLS: each message is answered once it is on disk."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import trio

from siemrelay.core.errors import FrameRefused
from siemrelay.decoders.syslog.host import with_host
from siemrelay.net.body_memory import HeldBody, OutOfMemory
from siemrelay.net.listener import AcceptedConnection
from siemrelay.sources.contract import joined
from siemrelay.sources.syslog.listener import CROWDED_BYTES
from siemrelay.sources.syslog.stream import PeerStream, ReadSize, StreamListener
from siemrelay.wire.framing.contract import MAX_WHOLE_BYTES
from siemrelay.wire.relp import Frame, RelpServer, answers

# A client that does not read its answers holds its own messages up, and no others.
_ANSWER_S: Final = 60.0

_TOO_LONG: Final = (
    "too many long messages come at a time, and this one held most memory for longest; the client "
    "sends it again"
)


class RelpListener(StreamListener):
    """Serves RELP clients at one address. What was not answered, the client sends again."""

    async def serve_peer(self, stream: PeerStream, connection: AcceptedConnection) -> None:
        """Answer one client until its end. If cancelled, what is not answered may be stored."""
        server, memory, size = RelpServer(MAX_WHOLE_BYTES), self._activity.relp_memory, ReadSize()
        with HeldBody(memory, trusted=connection.proven or not memory.authenticates) as held:
            try:
                while data := await self._received(stream, size.bytes, connection):
                    frames = server.receive(data)
                    held.hold(server.held + sum(len(f.data) for f in frames) - held.held_bytes)
                    long = server.held > CROWDED_BYTES
                    memory.arriving(held, connection.scope if long else None)
                    if not await self._take(stream, frames, connection):
                        return
                    count = sum(frame.command == b"syslog" for frame in frames)
                    if size.adapt(len(data), count, crowded=False):
                        await self._activity.yield_after_large_read()
                    await self._wait_for_rate(connection.peer, count)
            except FrameRefused as error:
                self._rejections.reject("framing", connection.peer, str(error))
            except OutOfMemory:
                self._rejections.reject("memory", connection.peer, _TOO_LONG)
            except trio.Cancelled:
                if held.displaced:
                    self._rejections.reject("memory", connection.peer, _TOO_LONG)
                raise
            finally:
                memory.arriving(held, None)

    async def _take(
        self, stream: PeerStream, frames: list[Frame], connection: AcceptedConnection
    ) -> bool:
        """Store and answer some frames; False when the session is at its end."""
        connection.has_sent |= any(frame.command == b"syslog" for frame in frames)
        await self._store(frames, connection.peer)
        if frames and not await self._answered(stream, answers(frames)):
            return False
        return not any(frame.command == b"close" for frame in frames)

    async def _store(self, frames: list[Frame], peer: str) -> None:
        messages = [frame.data for frame in frames if frame.command == b"syslog"]
        for message in messages:
            if len(message) > self._options.max_record_size:
                self._intake.oversize(len(message))
        # An empty message is answered, and no record.
        messages = [each for m in messages if (each := m.rstrip(b"\r\n\0"))]
        if self._options.add_host:
            host, now = self._host_of(peer), datetime.now(UTC)
            messages = [with_host(message, host, now) for message in messages]
        records = joined(messages)
        if records:
            await self._intake.store(*records)

    async def _answered(self, stream: PeerStream, data: bytes) -> bool:
        try:
            with trio.fail_after(_ANSWER_S):
                await stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            return False  # the client sends them again
        return True

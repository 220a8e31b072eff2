"""RELP, with and without TLS: each message is answered when it is on disk."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import trio

from siemrelay.core.errors import FrameRefused
from siemrelay.decoders.syslog.host import with_host
from siemrelay.net.listener import AcceptedConnection
from siemrelay.sources.chunks import MAX_WHOLE_BYTES
from siemrelay.sources.contract import joined
from siemrelay.sources.syslog.stream import CROWDED_BYTES, PeerStream, ReadSize, StreamListener
from siemrelay.wire.relp import Frame, RelpServer, answers

# A client that does not read its answers holds its own messages up, and no others.
_ANSWER_S: Final = 60.0


class RelpListener(StreamListener):
    """Serves RELP clients at one address. What was not answered, the client sends again."""

    async def serve_peer(self, stream: PeerStream, connection: AcceptedConnection) -> None:
        """Answer one client until its end. If cancelled, what is not answered may be stored."""
        server, activity, held = RelpServer(MAX_WHOLE_BYTES), self._activity, 0
        peer, size = connection.peer, ReadSize()
        try:
            while data := await self._received(stream, size.bytes, connection):
                try:
                    frames = server.receive(data)
                except FrameRefused as error:
                    self._rejections.reject("framing", peer, str(error))
                    return
                in_hand = server.held + sum(len(frame.data) for frame in frames)
                activity.held_bytes, held = activity.held_bytes + in_hand - held, in_hand
                if activity.crowded and server.held > CROWDED_BYTES:
                    why = "too many long messages come at a time; it will send this one again"
                    self._rejections.reject("memory", peer, why)
                    return
                connection.has_sent |= any(frame.command == b"syslog" for frame in frames)
                await self._store(frames, peer)
                if frames and not await self._answered(stream, answers(frames)):
                    return
                if any(frame.command == b"close" for frame in frames):
                    return
                count = sum(frame.command == b"syslog" for frame in frames)
                if size.adapt(len(data), count, crowded=activity.crowded):
                    await activity.yield_after_large_read()
                await self._wait_for_rate(peer, count)
        finally:
            activity.held_bytes -= held

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

"""RELP, with and without TLS: each message is answered when it is on disk."""

from __future__ import annotations

from typing import Final

import trio

from siemrelay.errors import FrameRefused
from siemrelay.sources.contract import joined
from siemrelay.sources.cutting import MAX_WHOLE_BYTES
from siemrelay.sources.stream_listener import Stream, StreamListener
from siemrelay.wire.relp_server import Frame, RelpServer, answers

_READ_BYTES: Final = 256 * 1024

# A client that does not read its answers holds its own messages up, and no others.
_ANSWER_S: Final = 60.0


class RelpListener(StreamListener):
    """Serves RELP clients at one address. What was not answered, the client sends again."""

    async def _serve(self, stream: Stream, peer: str) -> None:
        server = RelpServer(MAX_WHOLE_BYTES)
        while data := await self._received(stream, _READ_BYTES, peer):
            self._activity.arrived_at = trio.current_time()
            try:
                frames = server.receive(data)
            except FrameRefused as error:
                self._refuse("framing", peer, str(error))
                return
            await self._store(frames)
            if frames and not await self._answered(stream, answers(frames)):
                return
            if any(frame.command == b"close" for frame in frames):
                return
            count = sum(frame.command == b"syslog" for frame in frames)
            if self._options.rate is not None and count:
                await self._wait_for_rate(peer, count, self._options.rate)

    async def _store(self, frames: list[Frame]) -> None:
        messages = [frame.data for frame in frames if frame.command == b"syslog"]
        for message in messages:
            if len(message) > self._options.max_record_size:
                self._intake.oversize(len(message))
        # An empty message is answered, and no record.
        records = joined([each for m in messages if (each := m.rstrip(b"\r\n\0"))])
        if records:
            await self._intake.store(*records)

    async def _answered(self, stream: Stream, data: bytes) -> bool:
        try:
            with trio.fail_after(_ANSWER_S):
                await stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            return False  # the client sends them again
        return True

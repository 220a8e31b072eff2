"""A RELP receiver that a test decides for: what it answers, and when it goes away."""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import trio

_HEAD = re.compile(rb"([0-9]+) ([a-z]+) ([0-9]+)([ \n])")


@dataclass
class RelpReceiver:
    """`answers` maps a message to what is said about it (200 OK if not in it; None: nothing).

    `leaves_after`: so many messages are taken, then the connection is closed (`says_so` first).
    `offer_within`: TLS, if not None.
    """

    offer: bytes = b"200 OK\nrelp_version=0\nrelp_software=test\ncommands=syslog"
    answers: dict[bytes, bytes | None] = field(default_factory=dict)
    leaves_after: int | None = None
    says_so: bool = False
    messages: list[bytes] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    held: list[bytes] = field(default_factory=list)
    holding: bool = False
    most_unanswered: int = 0
    stream: trio.abc.Stream | None = None
    offer_within: ssl.SSLContext | None = None

    async def handle(self, connection: trio.SocketStream) -> None:
        stream: trio.abc.Stream = connection
        if self.offer_within is not None:
            stream = trio.SSLStream(connection, self.offer_within, server_side=True)
        self.stream = stream
        with suppress(trio.BrokenResourceError):
            await self.serve(stream)
        await trio.aclose_forcefully(stream)

    async def serve(self, stream: trio.abc.Stream) -> None:
        async with stream:
            buffer, closing = b"", False
            while data := await stream.receive_some(1 << 16):
                buffer += data
                reply = b""
                while (head := _HEAD.match(buffer)) is not None:
                    size = int(head[3])
                    end = head.end() + (size + 1 if head[4] == b" " else 0)
                    if len(buffer) < end:
                        break
                    body, buffer = buffer[head.end() : head.end() + size], buffer[end:]
                    closing = head[2] == b"close"
                    reply += self.answered(int(head[1]), head[2].decode(), body)
                    if self.leaves_after is not None and len(self.messages) >= self.leaves_after:
                        self.leaves_after = None
                        await stream.send_all(reply + b"0 serverclose 0\n" * self.says_so)
                        return
                if reply:
                    await stream.send_all(reply)
                if closing:
                    return

    def answered(self, number: int, command: str, body: bytes) -> bytes:
        self.commands.append(command)
        said: bytes | None = self.offer if command == "open" else b"200 OK"
        if command == "syslog":
            self.messages.append(body)
            said = self.answers.get(body, b"200 OK")
        if said is None:
            return b""
        reply = b"%d rsp %d %b\n" % (number, len(said), said)
        if command == "syslog" and self.holding:
            self.held.append(reply)
            self.most_unanswered = max(self.most_unanswered, len(self.held))
            return b""
        return reply

    async def release(self) -> None:
        """Say what was held back; the last message's answer first."""
        assert self.stream is not None
        replies, self.held = self.held, []
        await self.stream.send_all(b"".join(reversed(replies)))

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """Take connections; the port."""
        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, self.handle, [listener])
            yield listener.socket.getsockname()[1]
            nursery.cancel_scope.cancel()

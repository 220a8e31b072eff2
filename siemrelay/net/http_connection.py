"""One HTTP/1.1 connection of a sender: requests in, answers out, around h11.

One request at a time is read; what is sent ahead of its answer waits. A request is judged by its
head before its body is read, so whoever has no business here sends no megabytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final

import h11
import structlog
import trio

from siemrelay.core.errors import BufferBroken
from siemrelay.net.http_exchange import RETRY_AFTER_S, Answer, Application, Head, Limits
from siemrelay.net.listener import ConnectionObserver

_READ_BYTES: Final = 128 * 1024

# A head is a line and some fields; those of proxies and long tokens reach a few KiB.
_HEAD_BYTES: Final = 32 * 1024

# Bodies held at a time by all connections together: a few of the largest, or very many usual ones.
_HELD_BODIES: Final = 4
_HELD_BYTES: Final = 64 << 20

# One read may bring 20,000 chunks of a body: others have their turn after so many.
_CHUNKS: Final = 500

# After a refusal the sender may still be sending: its bytes are thrown away for so long, since a
# connection that is closed on unread bytes takes the answer with it.
_LINGER_S: Final = 2.0

# A target may be a whole address (RFC 9112, 3.2.2); who sends it here means this server.
_ORIGIN: Final = re.compile(r"^https?://[^/?]*", re.IGNORECASE)

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


@dataclass(slots=True)
class Traffic:
    """What the connections of one source have in common; times are of trio's clock."""

    application: Application
    observer: ConnectionObserver
    limits: Limits
    source: str
    arrived_at: float
    under_way: int = 0
    held_bytes: int = 0

    @property
    def most_held_bytes(self) -> int:
        """So much of bodies is held at a time."""
        return max(_HELD_BYTES, _HELD_BODIES * self.limits.body_bytes)


class _Refused(Exception):
    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class Connection:
    """Serves one sender. `run` it once; errors of the network come out of it."""

    def __init__(self, traffic: Traffic, stream: Stream) -> None:
        self._traffic, self._stream = traffic, stream
        self._application, self._limits = traffic.application, traffic.limits
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BYTES)
        self._held = 0

    async def run(self) -> None:
        """Request after request until one side ends it."""
        traffic = self._traffic
        while True:
            method = b""
            try:
                request = await self._next_request()
                if request is None:
                    return
                method = request.method
                traffic.under_way += 1
                try:
                    answer = await self._answered(request)
                finally:
                    traffic.under_way -= 1
                    traffic.arrived_at = trio.current_time()
            except h11.RemoteProtocolError as error:
                if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
                    return
                answer = self._fault(error.error_status_hint, f"this is no HTTP request: {error}")
            if answer.refused:
                traffic.observer.refused(answer.refused)
            await self._send(answer, head=method == b"HEAD")
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                await self._linger()
                return
            self._http.start_next_cycle()

    async def _next_request(self) -> h11.Request | None:
        """The next request's head; None when the sender is gone, idle or too slow."""
        with trio.move_on_after(self._limits.idle_s) as scope:
            while True:
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    data = await self._stream.receive_some(_READ_BYTES)
                    # From its first byte on, a head has only so long.
                    latest = trio.current_time() + self._limits.request_s
                    scope.deadline = min(scope.deadline, latest)
                    self._http.receive_data(bytes(data))
                elif isinstance(event, h11.Request):
                    return event
                elif isinstance(event, h11.ConnectionClosed):
                    return None
        return None

    async def _answered(self, request: h11.Request) -> Answer:
        try:
            head = _head(request)
            self._refuse_two_lengths(head)
            self._refuse_too_large(head)
            if (refusal := self._application.admit(head)) is not None:
                return refusal
            with trio.move_on_after(self._limits.request_s) as scope:
                body = await self._body()
            if scope.cancelled_caught:
                return self._fault(408, "the request did not arrive in time")
            return await self._application.answer(head, body)
        except _Refused as refused:
            return refused.answer
        except (BufferBroken, h11.RemoteProtocolError, OSError, trio.BrokenResourceError):
            raise
        except Exception as error:  # noqa: BLE001  (one request must not stop the others)
            structlog.get_logger().exception(
                "request failed", source=self._traffic.source, error=type(error).__name__
            )
            return self._fault(500, "internal error, see the log of the relay")
        finally:
            self._traffic.held_bytes -= self._held
            self._held = 0

    def _refuse_two_lengths(self, head: Head) -> None:
        # A proxy before us may have gone by the other one, and take what follows for a request of
        # somebody else's (RFC 9112, 6.1 and 11.2).
        if "transfer-encoding" in head.fields and "content-length" in head.fields:
            raise _Refused(self._fault(400, "Content-Length beside Transfer-Encoding"))

    def _refuse_too_large(self, head: Head) -> None:
        length = head.fields.get("content-length", "")
        if length and int(length) > self._limits.body_bytes:
            raise _Refused(self._too_large())

    async def _body(self) -> bytes:
        body = bytearray()  # a chunk may be a byte: a list of them would be fifty times as large
        http, traffic = self._http, self._traffic
        chunks = 0
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                if http.they_are_waiting_for_100_continue:
                    go_on = http.send(h11.InformationalResponse(status_code=100, headers=[]))
                    await self._stream.send_all(go_on or b"")
                http.receive_data(bytes(await self._stream.receive_some(_READ_BYTES)))
                traffic.arrived_at = trio.current_time()
            elif isinstance(event, h11.Data):
                body += event.data
                self._held += len(event.data)
                traffic.held_bytes += len(event.data)
                if self._held > self._limits.body_bytes:
                    raise _Refused(self._too_large())
                if traffic.held_bytes > traffic.most_held_bytes:
                    raise _Refused(self._fault(503, "too many large requests at a time"))
                chunks += 1
                if chunks % _CHUNKS == 0:
                    await trio.lowlevel.checkpoint()
            elif isinstance(event, h11.EndOfMessage):
                return bytes(body)
            else:
                raise trio.BrokenResourceError("the sender went away within a request")

    def _too_large(self) -> Answer:
        return self._fault(413, f"the body is larger than {self._limits.body_bytes} bytes")

    def _fault(self, status: int, reason: str) -> Answer:
        return self._application.fault(status, reason)

    async def _send(self, answer: Answer, *, head: bool) -> None:
        fields = [
            ("Date", formatdate(usegmt=True)),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(answer.body))),
            *answer.fields,
        ]
        if self._http.their_state is not h11.DONE:
            fields.append(("Connection", "close"))  # what follows of theirs is not read
        if answer.status == 503:
            fields.append(("Retry-After", str(RETRY_AFTER_S)))
        data = self._http.send(h11.Response(status_code=answer.status, headers=fields)) or b""
        if not head:
            data += self._http.send(h11.Data(data=answer.body)) or b""
        data += self._http.send(h11.EndOfMessage()) or b""
        with trio.move_on_after(self._limits.request_s) as scope:
            await self._stream.send_all(data)
        if scope.cancelled_caught:
            raise trio.BrokenResourceError("the sender does not read its answer")

    async def _linger(self) -> None:
        with trio.move_on_after(_LINGER_S):
            if isinstance(self._stream, trio.SocketStream):
                await self._stream.send_eof()
            while await self._stream.receive_some(_READ_BYTES):
                pass


def _head(request: h11.Request) -> Head:
    fields: dict[str, str] = {}
    for name_, value_ in request.headers:
        name, value = name_.decode("ascii"), value_.decode("latin-1")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    target = _ORIGIN.sub("", request.target.decode("ascii", "replace"))
    path, _, query = target.partition("?")
    return Head(request.method.decode("ascii", "replace"), path, query, fields)

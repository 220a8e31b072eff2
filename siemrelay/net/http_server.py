"""An HTTP/1.1 server (RFC 9112) around h11, for webhooks, HEC and the endpoint.

The application admits each request by its head before the body is read, so a refused sender sends
no megabytes. Of one connection, one request at a time is read; requests sent ahead wait.
"""

from __future__ import annotations

import re
from email.utils import formatdate
from typing import TYPE_CHECKING, Final, cast

import trio

from siemrelay.core.errors import BufferBroken
from siemrelay.net.body_memory import BodyMemory, HeldBody, OutOfMemory
from siemrelay.net.http_application import Application, Head, HttpAnswer, HttpLimits
from siemrelay.net.listener import AcceptedConnection, ConnectionLimiter
from siemrelay.net.rejection_log import ConnectionObserver, RejectionLog
from siemrelay.net.tasks import Activity, report_alive
from siemrelay.net.tls_server import HandshakeFailed, TlsServer, TlsStream

if TYPE_CHECKING:
    from h11 import Request

RETRY_AFTER_S: Final = 5
"""Seconds in the `Retry-After` of each 503."""

_READ_BYTES: Final = 128 * 1024

# A head is a line and some fields; those of proxies and long tokens reach a few KiB.
_HEAD_BYTES: Final = 32 * 1024
_HEAD_LINES: Final = 200
# Before a head. More is no request: who sends nothing else would keep a connection for nothing.
_EMPTY_LINES: Final = 16

# A body may have 20,000 chunks in one read: other tasks run after each 64, which is a millisecond.
_CHUNKS: Final = 64

# A chunk costs as much as a kilobyte of body. Those of senders that stream hold an event or more;
# a body of more than 1,000 chunks that hold less than this on average is refused.
_FREE_CHUNKS: Final = 1000
_CHUNK_BYTES: Final = 16

# After a refusal the sender may still be sending. Its bytes are discarded for this long: to close a
# connection with unread bytes resets it, and the sender would lose the answer (RFC 9112, 9.6).
_LINGER_S: Final = 2.0

# A target may be a whole address (RFC 9112, 3.2.2); its authority is taken for this server's.
_ORIGIN: Final = re.compile(r"^https?://[^/?]*", re.IGNORECASE)

# Lines end with CRLF, and none is continued by the next (RFC 9112, 2.2 and 5.2). h11 forgives both;
# a proxy before this server may see another request in the same bytes.
_LAX_END: Final = re.compile(rb"\n\r?\n")
_FOLDED: Final = re.compile(rb"\n[ \t]")

# Two lengths, of which h11 takes two equal ones for one (RFC 9112, 6.3).
_LENGTHS: Final = re.compile(rb"(?i)\ncontent-length:(?:[^\r]*,|(?s:.*)\ncontent-length:)")
_REASON_CHARACTERS: Final = 200

# Heads begin with a method. TLS, say, to a plain port does not, and may send no end of a head.
_NO_METHOD: Final = re.compile(rb"[^!#-'*+.0-9A-Z^-z|~-]")

_BODY_FIELDS: Final = {"content-length", "transfer-encoding"}
_TINY_CHUNKS: Final = (
    f"the body comes in chunks of less than {_CHUNK_BYTES} bytes: send more in each, or no chunks"
)


class HttpServer:
    """Serves one application at the sockets of one address, within the connection limits."""

    def __init__(
        self, application: Application, observer: ConnectionObserver, limits: HttpLimits,
        tls: TlsServer | None, connections: ConnectionLimiter, rejections: RejectionLog,
    ) -> None:  # fmt: skip
        self.application, self.observer, self.limits = application, observer, limits
        self.memory = BodyMemory(limits.body_bytes, authenticates=limits.authenticates)
        self.log = rejections.log
        self.requests = Activity()
        self._tls, self._connections, self._rejections = tls, connections, rejections

    async def run(self, listeners: list[trio.SocketListener], *, drain: bool) -> None:
        """Answer until cancelled; with `drain`, until nothing has been sent for a second.

        Closes the listeners and every connection.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(report_alive, self.observer.progress)
            sockets = [listener.socket for listener in listeners]
            nursery.start_soon(self._connections.serve, sockets, self._serve)
            if drain:
                await self.requests.until_quiet()
                nursery.cancel_scope.cancel()

    def note_refusal(self, answer: HttpAnswer, peer: str) -> None:
        """Count a refused request, and log it as `RejectionLog` does, if its sender is to blame."""
        self.observer.refused(answer.refused)
        if answer.status < 500:  # a full buffer is logged already
            reason = answer.body.decode("utf-8", "replace")[:_REASON_CHARACTERS]
            self._rejections.warn(
                f"request {answer.refused}", "request refused",
                peer=peer, status=answer.status, reason=reason,
            )  # fmt: skip

    async def _serve(self, connection: AcceptedConnection) -> None:
        self.observer.connected(1)
        self.requests.arrived_at = trio.current_time()
        stream: trio.SocketStream | TlsStream = connection.stream
        try:
            if self._tls is not None:
                stream = await self._tls.secure(connection.stream, self.limits.request_s)
            await _HttpConnection(self, connection, stream).run()
        except HandshakeFailed as failure:
            self._rejections.reject("tls", connection.peer, str(failure))
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the sender went away
        finally:
            self.observer.connected(-1)


class _Refused(Exception):
    def __init__(self, answer: HttpAnswer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class _HttpConnection:
    """Serves one sender. `run` it once; errors of the network come out of it."""

    def __init__(
        self, server: HttpServer, connection: AcceptedConnection,
        stream: trio.SocketStream | TlsStream,
    ) -> None:  # fmt: skip
        import h11  # by the first connection: a start does not wait for it

        self._h11, self._server, self._connection, self._stream = h11, server, connection, stream
        self._application, self._limits = server.application, server.limits
        self._certificate = stream.certificate if isinstance(stream, TlsStream) else None
        self._http = h11.Connection(h11.SERVER)
        self._ahead = bytearray()  # not given to h11 yet; begins with the next head
        self._silent_s = self._limits.first_s

    async def run(self) -> None:
        """Answer request after request until one side ends the connection."""
        server, h11 = self._server, self._h11
        while True:
            method = b""
            try:
                request = await self._next_request()
                if request is None:
                    return
                method = request.method
                server.requests.open += 1
                try:
                    answer = await self._answered(request)
                finally:
                    server.requests.open -= 1
                    server.requests.arrived_at = trio.current_time()
            except h11.RemoteProtocolError as error:
                if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
                    return
                reason = f"not an HTTP request: {error}"[:_REASON_CHARACTERS]
                answer = self._fault(error.error_status_hint, reason)
            if answer.refused:
                server.note_refusal(answer, self._connection.peer)
            await self._send(answer, head=method == b"HEAD")
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                await self._linger()
                return
            self._ahead[:0] = self._http.trailing_data[0]
            self._http = h11.Connection(h11.SERVER)
            self._silent_s = self._limits.idle_s

    async def _receive(self) -> bytes:
        data = bytes(await self._stream.receive_some(_READ_BYTES))
        self._connection.active_at = trio.current_time()
        return data

    async def _next_request(self) -> Request | None:
        """The next request's head; None when the sender is gone, idle or too slow."""
        ahead, searched, empty_lines = self._ahead, 0, 0
        with trio.move_on_after(self._silent_s) as scope:
            while True:
                while ahead.startswith(b"\r\n"):  # some clients end a body so (RFC 9112, 2.2)
                    del ahead[:2]
                    empty_lines += 1
                if empty_lines > _EMPTY_LINES:
                    raise self._h11.RemoteProtocolError("it begins with many empty lines")
                end = ahead.find(b"\r\n\r\n", searched) + 4
                if end < 4 and (lax := _LAX_END.search(ahead, searched)):
                    end = lax.end()
                if end >= 4 or len(ahead) > _HEAD_BYTES or _NO_METHOD.match(ahead):
                    return self._request(end if end >= 4 else len(ahead))
                searched = max(len(ahead) - 3, 0)
                if ahead:  # from its first byte on, a head has only this long
                    latest = trio.current_time() + self._limits.request_s
                    scope.deadline = min(scope.deadline, latest)
                data = await self._receive()
                if not data:
                    return None
                ahead += data
        return None

    def _request(self, size: int) -> Request:
        """The request whose head the next bytes are. Raises RemoteProtocolError if it is none."""
        head, h11 = bytes(self._ahead[:size]), self._h11
        del self._ahead[:size]
        if size > _HEAD_BYTES or head.count(b"\n") > _HEAD_LINES:
            raise h11.RemoteProtocolError("its head is too large", error_status_hint=431)
        # Each line ends with CRLF, none has another CR or LF, and none begins with a space.
        ends = head.count(b"\r\n")
        if head.count(b"\n") != ends or head.count(b"\r") != ends or _FOLDED.search(head):
            raise h11.RemoteProtocolError("a line ends without CRLF, or goes on in the next")
        if _LENGTHS.search(head):
            raise h11.RemoteProtocolError("it has two values of Content-Length")
        self._http.receive_data(head)
        request = self._http.next_event()
        if not isinstance(request, h11.Request):
            raise h11.RemoteProtocolError("its head has no end")
        if request.http_version not in (b"1.1", b"1.0"):
            raise h11.RemoteProtocolError("its version is not HTTP/1.1", error_status_hint=505)
        return cast("Request", request)

    async def _answered(self, request: Request) -> HttpAnswer:
        try:
            head = self._head(request)
            self._refuse_two_lengths(head)
            if not head.fields.keys() & _BODY_FIELDS:
                self._http.next_event()  # nothing follows this head: the connection can go on
            admitted = self._application.admit(head)
            if isinstance(admitted, HttpAnswer):
                return admitted
            connection = self._connection
            with HeldBody(self._server.memory, trusted=admitted) as body:
                connection.proven |= body.authenticated
                await self._read(body, head)
                connection.busy = True
                answer = await self._application.answer(head, body)
                connection.has_sent |= not answer.refused
                return answer
        except _Refused as refused:
            return refused.answer
        except OutOfMemory:
            return self._fault(503, "too many large requests at a time")
        except (BufferBroken, self._h11.RemoteProtocolError, OSError, trio.BrokenResourceError):
            raise
        except Exception as error:
            self._server.log.exception("request failed", error=type(error).__name__)
            return self._fault(500, "internal error, see the log of the relay")
        finally:
            self._connection.busy = False

    def _head(self, request: Request) -> Head:
        fields: dict[str, str] = {}
        for name_, value_ in request.headers:
            name, value = name_.decode("ascii"), value_.decode("latin-1")
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
        target = _ORIGIN.sub("", request.target.decode("ascii", "replace"))
        path, _, query = target.partition("?")
        peer, method = self._connection.peer, request.method.decode("ascii", "replace")
        return Head(method, path, query, fields, peer, self._certificate)

    def _refuse_two_lengths(self, head: Head) -> None:
        # A proxy before this server may have used the other one, and take the rest of the body for
        # another sender's request (RFC 9112, 6.1 and 11.2).
        if head.fields.keys() >= _BODY_FIELDS:
            raise _Refused(self._fault(400, "Content-Length beside Transfer-Encoding"))

    async def _read(self, body: HeldBody, head: Head) -> None:
        """Read the body to its end. Raises _Refused when it is too slow or too large."""
        length = head.fields.get("content-length", "")
        if length and int(length) > self._limits.body_bytes:
            raise _Refused(self._too_large())
        if self._http.their_state is not self._h11.SEND_BODY:
            return
        if length and int(length) <= len(self._ahead):  # it is here already, as most are
            body.data = await self._received_body(body)
            return
        with trio.CancelScope() as scope, trio.move_on_after(self._limits.request_s) as in_time:
            self._server.memory.arriving(body, scope)
            try:
                body.data = await self._received_body(body)
            finally:
                self._server.memory.arriving(body, None)
        if in_time.cancelled_caught:
            raise _Refused(self._fault(408, "the request did not arrive in time"))
        if scope.cancelled_caught:
            raise OutOfMemory

    async def _received_body(self, body: HeldBody) -> bytes:
        # A chunk may be a byte: a list of them would be fifty times as large.
        http, h11, received, chunks = self._http, self._h11, bytearray(), 0
        if self._ahead:  # h11 takes no bytes for the end of the stream
            http.receive_data(bytes(self._ahead))
            self._ahead.clear()
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                if http.they_are_waiting_for_100_continue:
                    go_on = http.send(h11.InformationalResponse(status_code=100, headers=[]))
                    await self._stream.send_all(go_on or b"")
                http.receive_data(await self._receive())
                self._server.requests.arrived_at = trio.current_time()
            elif isinstance(event, h11.Data):
                received += event.data
                body.hold(len(event.data))
                if len(received) > self._limits.body_bytes:
                    raise _Refused(self._too_large())
                chunks += event.chunk_end
                if event.chunk_end and chunks % _CHUNKS == 0:
                    if chunks > _FREE_CHUNKS and len(received) < chunks * _CHUNK_BYTES:
                        raise _Refused(self._fault(400, _TINY_CHUNKS))
                    await trio.lowlevel.checkpoint()
            elif isinstance(event, h11.EndOfMessage):
                return bytes(received)
            else:
                raise trio.BrokenResourceError("the sender went away within a request")

    def _too_large(self) -> HttpAnswer:
        return self._fault(413, f"the body is larger than {self._limits.body_bytes} bytes")

    def _fault(self, status: int, reason: str) -> HttpAnswer:
        return self._application.fault(status, reason)

    async def _send(self, answer: HttpAnswer, *, head: bool) -> None:
        h11 = self._h11
        fields = [
            ("Date", formatdate(usegmt=True)),
            ("Content-Type", answer.content_type),
            ("Content-Length", str(len(answer.body))),
            *answer.fields,
        ]
        if self._http.their_state is not h11.DONE:
            fields.append(("Connection", "close"))  # the rest of the request is not read
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

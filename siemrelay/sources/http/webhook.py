"""The HTTP source: webhooks POST an event, an array of events or lines; 200 follows the fsync."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Generator
from typing import Final

import msgspec
import trio

from siemrelay.core.errors import SiemrelayError
from siemrelay.net.body_memory import HeldBody
from siemrelay.net.http_application import Head, HttpAnswer
from siemrelay.net.http_server import RETRY_AFTER_S
from siemrelay.net.peers import is_loopback
from siemrelay.sources.contract import Intake, Records, SourceKind
from siemrelay.sources.http.auth import Authorization, Signature, basic, challenge
from siemrelay.sources.http.bodies import BodyReader, content_coding
from siemrelay.sources.http.idempotency import IdempotencyKeys, KeyedRequest, fingerprint, scoped
from siemrelay.sources.http.options import STORE_S, WebhookOptions, serve
from siemrelay.wire.forms import form_value
from siemrelay.wire.handshakes import HANDSHAKES, HandshakeReply, HandshakeSecrets
from siemrelay.wire.http_bodies import (
    CODINGS,
    BodyRefused,
    BodyTooLarge,
    Payload,
    TooManyRecords,
    body_kind,
    read_records,
)
from siemrelay.wire.items import ItemSplitter

# Requests with a key are stored even after their sender has gone: at most this much at a time.
_STORING_BYTES: Final = 64 << 20

# Addresses remembered as those of senders with a right signature.
_PROVEN: Final = 1024

# An Origin field: a scheme, an IPv6 address in brackets or another host, a port (RFC 6454, 6.2).
_ORIGIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?:\[([^\]]*)\]|([^:/\[\]]*))(?::[0-9]*)?")


class HttpSource:
    """Receives the events that are POSTed to its address."""

    def __init__(self, name: str, options: WebhookOptions) -> None:
        self.name, self._options = name, options
        # Kept from one run to the next: the intake's positions also hold keys of requests that were
        # handed over and not stored, and a key is answered only when it is stored.
        self._keys: IdempotencyKeys | None = None

    async def run(self, intake: Intake, *, drain: bool) -> None:
        """Serve for ever; with `drain`, return when nothing was sent for a second.

        If cancelled, connections are closed; requests without an answer may or may not be stored.
        """
        options = self._options
        open_to_all = options.is_open
        if self._keys is None:
            self._keys = IdempotencyKeys(intake.positions())
        async with trio.open_nursery() as stores:
            hooks = _Hooks(options, intake, stores, self._keys)
            await serve(self.name, options, hooks, intake, open_to_all=open_to_all, drain=drain)


class _Hooks:
    """See `http_application.Application`."""

    def __init__(
        self, options: WebhookOptions, intake: Intake, stores: trio.Nursery, keys: IdempotencyKeys
    ) -> None:
        allowed = [basic(options.authorization)] if options.authorization else []
        self._authorization = Authorization(allowed)
        self._challenge = challenge(options.authorization)
        self._field = options.authorization_header.lower()
        self._signature = Signature(options.signature) if options.signature else None
        self._handshake = HANDSHAKES[options.handshake] if options.handshake else None
        self._shared = HandshakeSecrets(
            options.signature.secret if options.signature else "", options.verify_token or ""
        )
        # `items` is an option of every source, with which this model is joined.
        items = getattr(options, "items", None)
        self._items = ItemSplitter(items) if items else None
        self._delivery_header, self._form_field = options.delivery_header, options.form_field
        self._delivery_field = (
            None if options.delivery_field is None else _reader_of(options.delivery_field)
        )
        kept = (options.event_type_header, options.delivery_header)
        self._kept_headers = [name for name in kept if name is not None]
        self._path = _trimmed(options.address.path)
        self._is_local = options.address.is_loopback
        self._bodies, self._most_records = BodyReader(options.max_body), options.max_records
        self._intake, self._stores = intake, stores
        self._keys = keys
        self._storing_bytes = 0
        self._proven: dict[str, None] = {}

    def admit(self, head: Head) -> HttpAnswer | bool:
        if _trimmed(head.path) != self._path:
            return self.fault(404, "unknown path: POST events to the path in `listen`")
        if (reply := self._handshake_by_head(head)) is not None:
            return reply
        if head.method in _ASKING:
            return _HERE
        if head.method != "POST":
            refusal = self.fault(405, "this address takes audit events: POST them here")
            return _with(refusal, _ALLOWED)
        if self._is_local and not _is_of_this_machine(head.fields.get("origin")):
            return self.fault(403, "a web page of another site posts nothing here")
        if not self._authorized(head):
            return self._unauthorized()
        if body_kind(head.fields.get("content-type", "")) is None:
            return self.fault(
                415, "Content-Type can be application/json, application/x-ndjson or text/plain "
                "(lines), in UTF-8"
            )  # fmt: skip
        if content_coding(head) not in CODINGS:
            refusal = self.fault(415, "Content-Encoding can be gzip, deflate or identity")
            return _with(refusal, ("Accept-Encoding", "gzip, deflate"))
        if self._intake.full and "idempotency-key" not in head.fields:
            return self._busy()
        if self._signature is None:
            return True
        if (fault := self._signature.fault(head.fields, time.time())) is not None:
            return self.fault(401, fault)
        proven = bool(self._authorization) or head.certificate is not None
        return proven or head.peer in self._proven

    def _authorized(self, head: Head) -> bool:
        shown = head.fields.get(self._field, "")
        return not self._authorization or self._authorization.find(shown) is not None

    def _unauthorized(self) -> HttpAnswer:
        refusal = self.fault(401, f"the header {self._field} is missing or wrong")
        return _with(refusal, ("WWW-Authenticate", f'{self._challenge} realm="siemrelay"'))

    def _handshake_by_head(self, head: Head) -> HttpAnswer | None:
        if self._handshake is None:
            return None
        reply = self._handshake.to_head(head.method, head.query, head.fields, self._shared)
        if reply is not None and self._handshake.authorized and not self._authorized(head):
            return self._unauthorized()
        return None if reply is None else _handshake_answer(reply)

    async def answer(self, head: Head, body: HeldBody) -> HttpAnswer:
        keys = list[str]()
        if self._signature is not None:
            if (fault := self._signature.fault(head.fields, time.time())) is not None:
                return self.fault(401, fault)
            mac = self._signature.verified(head.fields, body.data)
            if mac is None:
                return self.fault(401, "the signature of the body is wrong")
            self._prove(head.peer)
            if self._signature.has_time:
                keys.append(scoped(mac.hex(), ["signature"]))
        if self._handshake is not None:
            reply = self._handshake.to_body(head.fields, body.data, self._shared)
            if reply is not None:
                return _handshake_answer(reply)
        try:
            data, found = await self._bodies.read(
                head, body, lambda data: self._records(head, data)
            )
        except (BodyTooLarge, TooManyRecords) as error:
            return self.fault(413, str(error))
        except BodyRefused as refused:
            return _malformed(refused)
        except _NoFormField:
            return self.fault(
                415, "a form is not an event: send JSON, with Content-Type: application/json; for "
                "senders of forms, `form_field` of the source names the field with the JSON"
            )  # fmt: skip
        if (key := head.fields.get("idempotency-key")) is not None:
            keys.append(scoped(key, self._sender(head)))
        if (delivery := self._delivery_of(head, data)) is not None:
            # Sent again it has the same body. Another body under its id is stored, and no conflict.
            sender = [] if self._signature is not None else self._sender(head)
            keys.append(scoped(delivery, ["delivery", fingerprint(data), *sender]))
        if keys:
            return await self._once(keys, data, found)
        if self._intake.full:
            return self._busy()
        with trio.move_on_after(STORE_S) as scope_s:
            await self._intake.store(*_rows(found))
        return self._busy() if scope_s.cancelled_caught else _stored(found.count)

    def _records(self, head: Head, data: bytes) -> Generator[None, None, Payload]:
        kind = body_kind(head.fields.get("content-type", ""))
        assert kind is not None, "it was admitted"
        if kind == "form":
            # GitLab's audit event streams call their JSON a form, by default; so does `curl -d`.
            if not data.lstrip().startswith((b"{", b"[")):
                if self._form_field is None:
                    raise _NoFormField
                data = yield from form_value(data, self._form_field)
            kind = "json"
        kept = {name: head.fields.get(name.lower(), "") for name in self._kept_headers}
        members = msgspec.json.encode({name: value for name, value in kept.items() if value})[1:-1]
        return (yield from read_records(data, kind, self._most_records, self._items, members))

    def _delivery_of(self, head: Head, data: bytes) -> str | None:
        """The id of the delivery, if its sender gives it one."""
        name = self._delivery_header
        if name is not None and (found := head.fields.get(name.lower())):
            return found
        return None if self._delivery_field is None else self._delivery_field(data)

    def _sender(self, head: Head) -> list[str]:
        """The owner of an Idempotency-Key: certificate, authorization, else the address.

        All who share a secret for signatures have the same, so their addresses tell them apart.
        """
        certificate = hashlib.sha256(head.certificate).hexdigest() if head.certificate else ""
        proven = bool(certificate or self._authorization)
        return [certificate, head.fields.get(self._field, ""), "" if proven else head.peer]

    def _prove(self, peer: str) -> None:
        if len(self._proven) >= _PROVEN and peer not in self._proven:
            del self._proven[next(iter(self._proven))]
        self._proven[peer] = None

    async def _once(self, keys: list[str], body: bytes, found: Payload) -> HttpAnswer:
        """Store unless a request with one of the keys was stored before, or is being stored."""
        outcome = self._keys.find(keys, time.time())
        if outcome is None:
            if self._intake.full or self._storing_bytes >= _STORING_BYTES:
                return self._busy()
            outcome = self._keys.begin(keys, body, found.count, time.time())
            if outcome is None:
                return self._busy()
            # In a task of its own: it goes on when this request has been answered with 503, and the
            # repeated request finds its outcome.
            self._stores.start_soon(self._store_once, outcome, found)
        elif outcome.body != fingerprint(body):
            return self.fault(
                409, "this Idempotency-Key was used before, with another body: send a new key with "
                "each new request, and the same one only to repeat a request"
            )  # fmt: skip
        with trio.move_on_after(STORE_S):
            await outcome.done.wait()
        return _stored(outcome.count) if outcome.stored else self._busy()

    async def _store_once(self, outcome: KeyedRequest, found: Payload) -> None:
        stored, size_bytes = False, len(found.payload)
        self._storing_bytes += size_bytes
        try:
            await self._intake.store(
                *_rows(found), Records(b"", 0, positions=(outcome.position(),))
            )
            stored = True
        finally:
            self._storing_bytes -= size_bytes
            self._keys.end(outcome, stored=stored)

    def fault(self, status: int, reason: str) -> HttpAnswer:
        """A refusal with its reason, as JSON."""
        return HttpAnswer(
            status, msgspec.json.encode({"error": reason}), refused=_COUNTED.get(status, "request")
        )

    def _busy(self) -> HttpAnswer:
        return self.fault(503, f"the relay has no room now; try again in {RETRY_AFTER_S} s")


def _reader_of(field: str) -> Callable[[bytes], str | None]:
    """Reads a text at the top of a JSON object; None where there is none."""
    kind = msgspec.defstruct("Delivery", [("id", str, "")], rename={"id": field})
    decode = msgspec.json.Decoder(kind).decode

    def read(data: bytes) -> str | None:
        try:
            return decode(data).id or None  # type: ignore[attr-defined]  # made two lines above
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    return read


class _NoFormField(SiemrelayError):
    """A form came, and the source names no field of it."""


# Many senders first check whether the address is a webhook, without credentials. CloudEvents'
# webhooks expect the answer to OPTIONS to name the origins that may send (section 4.2).
_ASKING: Final = ("GET", "HEAD", "OPTIONS")
_ALLOWED: Final = ("Allow", "POST, GET, HEAD, OPTIONS")
_HERE: Final = HttpAnswer(
    200, b'{"status":"audit events are POSTed here"}', (_ALLOWED, ("WebHook-Allowed-Origin", "*"))
)

_COUNTED: Final = {
    400: "malformed", 401: "authorization", 403: "origin", 408: "timeout", 409: "idempotency",
    413: "too_large", 415: "media_type", 500: "error", 503: "no_room",
}  # fmt: skip
"""Status → the reason under which refusals are counted."""


def _malformed(fault: BodyRefused) -> HttpAnswer:
    where = {"line": fault.line, "column": fault.column, "byte": fault.byte}
    fields = {"error": str(fault), **({} if fault.byte is None else where)}
    return HttpAnswer(400, msgspec.json.encode(fields), refused=_COUNTED[400])


def _handshake_answer(reply: HandshakeReply) -> HttpAnswer:
    refused = "" if reply.status == 200 else _COUNTED[401]
    return HttpAnswer(reply.status, reply.body, reply.fields, refused, reply.content_type)


def _stored(count: int) -> HttpAnswer:
    return HttpAnswer(200, b'{"stored":%d}' % count)


def _rows(found: Payload) -> list[Records]:
    return [Records(row.payload, row.count) for row in found.rows()]


def _with(answer: HttpAnswer, field: tuple[str, str]) -> HttpAnswer:
    return HttpAnswer(answer.status, answer.body, (*answer.fields, field), answer.refused)


def _is_of_this_machine(origin: str | None) -> bool:
    """Whether no web page sends a request, or one of this machine.

    A page of any site may have a browser post text to 127.0.0.1, which no firewall is in front of.
    """
    if origin is None:
        return True
    found = _ORIGIN.fullmatch(origin.strip())
    return found is not None and is_loopback(found[1] or found[2])


def _trimmed(path: str) -> str:
    return path.rstrip("/") or "/"


HTTP: Final = SourceKind(
    WebhookOptions, HttpSource, "json", "webhooks: events POSTed over HTTP(S)", splits_items=True
)

"""A peer for every row of the sinks: what the conformance suite asks of the other side.

A new protocol is covered by the whole suite through its row in the registry and a class here.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import trio
import trustme

from siemrelay.core.event import Actor, AuditEvent, Batch, DecodedBatch, Selection
from siemrelay.registry import PROTOCOLS
from siemrelay.sinks.contract import Sink
from siemrelay.sinks.stdout import StdoutOptions, StdoutSink
from tests.support.events.formats import made
from tests.support.programs.kafka_cluster import KafkaCluster
from tests.support.programs.kafka_tls import KafkaOverTls
from tests.support.receivers.elasticsearch import Elasticsearch
from tests.support.receivers.http import TAKEN, Answer, HttpReceiver, Request
from tests.support.receivers.otlp import OtlpReceiver
from tests.support.receivers.otlp import plain as attributes_of
from tests.support.receivers.relp import RelpReceiver
from tests.support.receivers.sentinel import (
    CLIENT,
    RULE,
    SECRET,
    STREAM,
    TENANT,
    Entra,
    LogsIngestion,
)
from tests.support.receivers.sockets import Receiver, TcpReceiver, UdpReceiver
from tests.support.receivers.splunk import TOKEN, SplunkReceiver
from tests.support.servers import free_port

BAD = 9_999_999
"""The number of the event that a peer refuses when it is told to."""

_ID = re.compile(rb"n\d{7}")
_TOPIC_AUTHORIZATION_FAILED, _MESSAGE_TOO_LARGE = 29, 10


class Certificates:
    """An authority and a server's certificate, as files that may be replaced by others."""

    def __init__(self, directory: Path) -> None:
        self.ca = directory / "ca.pem"
        self._files = directory / "server.pem", directory / "server.key"
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority = trustme.CA()
        self.replace_server_certificate()
        self.trust()

    def replace_server_certificate(self) -> None:
        """The server shows a certificate of a new authority from now on."""
        self._authority = trustme.CA()
        issued = self._authority.issue_cert("127.0.0.1")
        certificate, key = self._files
        issued.cert_chain_pems[0].write_to_path(certificate)
        issued.private_key_pem.write_to_path(key)
        self.context.load_cert_chain(certificate, key)

    def trust(self) -> None:
        """The file of authorities has the server's one."""
        self._authority.cert_pem.write_to_path(self.ca)


class SinkPeer:
    """The other side of one sink; use it by `open`.

    The lists say what the protocol has words for. A row that lacks one says why in its docstring.
    """

    waits: ClassVar[bool] = True
    """It can fail in a way that passes."""
    holds: ClassVar[bool] = True
    """It can fail in a way that a person must fix."""
    refuses: ClassVar[bool] = True
    """It can refuse one message."""
    confirms: ClassVar[bool] = True
    """What is confirmed has reached its program, machine or disk."""
    secured: ClassVar[bool] = False
    """It can be reached within TLS."""

    def __init__(self, row: str, directory: Path, certificates: Certificates | None = None) -> None:
        self.row, self.directory, self.certificates = row, directory, certificates

    # -- to be given by each ----------------------------------------------

    settings: dict[str, Any]
    """The sink's options, as in a configuration file; there once it is open."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Be there."""
        yield

    @property
    def raw(self) -> list[bytes]:
        """What it holds, in the order it came."""
        raise NotImplementedError

    def make_wait(self) -> None:
        """From now on: a fault that passes."""
        raise NotImplementedError

    def make_hold(self) -> None:
        """For the next sink: settings that do not fit, or a receiver set up wrong."""
        raise NotImplementedError

    def make_refuse(self) -> None:
        """From now on: the message of event BAD is refused."""
        raise NotImplementedError

    def vanish(self) -> None:
        """Break off every connection now, and take no new one."""
        self.make_wait()

    # -- the same for all -------------------------------------------------

    @property
    def context(self) -> ssl.SSLContext | None:
        return self.certificates.context if self.certificates else None

    @property
    def tls(self) -> dict[str, Any]:
        """The option `tls`, if it is asked for."""
        return {"tls": {"ca": str(self.certificates.ca)}} if self.certificates else {}

    def sink(self) -> Sink:
        kind = PROTOCOLS[self.row]
        made: Sink = kind.build(kind.options.model_validate(self.settings))
        return made

    def messages(self, *numbers: int) -> list[bytes]:
        """The messages of events with these numbers, in the row's own format and envelope."""
        kind = PROTOCOLS[self.row]
        options = kind.options.model_validate(self.settings)
        form = kind.wrap(made(kind.format), options)
        events = [
            AuditEvent(
                id=f"n{number:07}", time="2026-03-04T05:06:07.089Z", type="Account Provisioned",
                category="account", severity=3, outcome="success", actor=Actor("ada"),
                message="an account",
            )
            for number in numbers
        ]  # fmt: skip
        records = b"".join(b'{"id":"%b"}\n' % (event.id or "").encode() for event in events)
        batch = Batch(1, len(events), "audit", 1.7e9, records)
        return list(form.encode(Selection(DecodedBatch(batch, events))))

    def bad(self) -> bytes:
        """The message that is refused after `make_refuse`."""
        return self.messages(BAD)[0]

    @property
    def held(self) -> list[int]:
        """The numbers of the events that it holds, in order; a repeat in a row counts once."""
        found: list[int] = []
        for data in self.raw:
            for match in _ID.findall(data):
                number = int(match[1:])
                if not found or found[-1] != number:
                    found.append(number)
        return found


class _OfReceiver(SinkPeer):
    """A peer that is a receiver with threads of its own."""

    receiver: Receiver

    def made(self) -> Receiver:
        raise NotImplementedError

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        self.receiver = self.made()
        try:
            yield
        finally:
            await trio.to_thread.run_sync(self.receiver.close)

    @property
    def raw(self) -> list[bytes]:
        return self.receiver.arrived.messages


class Udp(_OfReceiver):
    """No settings of UDP can be told to be wrong, and nothing is confirmed."""

    holds = confirms = False

    def made(self) -> Receiver:
        receiver = UdpReceiver()
        self.settings = {"server": "127.0.0.1", "port": receiver.port}
        return receiver

    def make_wait(self) -> None:
        # A bound port that nobody reads answers nothing: so one that is not bound.
        self.settings["port"] = free_port(socket.SOCK_DGRAM)

    def make_refuse(self) -> None:
        """A message over the largest datagram is refused by the kernel."""

    def bad(self) -> bytes:
        return super().bad() + b"x" * 70_000


class Tcp(_OfReceiver):
    """TCP has no word by which a receiver refuses a message."""

    refuses = False

    def made(self) -> Receiver:
        receiver = TcpReceiver(tls=self.context)
        self.settings = {
            "server": "127.0.0.1", "port": receiver.port, "framing": "newline", "timeout": "20s",
            **self.tls,
        }  # fmt: skip
        return receiver

    @property
    def tcp(self) -> TcpReceiver:
        assert isinstance(self.receiver, TcpReceiver)
        return self.receiver

    def make_wait(self) -> None:
        self.tcp.down()

    def make_hold(self) -> None:
        self.receiver.close()
        self.receiver = _SpeaksTls()
        self.settings["port"] = self.receiver.port


class _SpeaksTls(Receiver):
    """Answers plain bytes as a TLS server does: with an alert."""

    def __init__(self) -> None:
        super().__init__()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._spawn(self._answer)

    def _answer(self) -> None:
        with suppress(OSError):
            connection, _ = self._listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b"\x15\x03\x01\x00\x02\x02\x46")

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._join()
        self._listener.close()


class Tls(Tcp):
    """As TCP, within TLS; its certificate may be one of an authority that is not trusted."""

    secured = True

    def __init__(self, row: str, directory: Path, certificates: Certificates | None = None) -> None:
        super().__init__(row, directory, certificates or Certificates(directory))

    def make_hold(self) -> None:
        assert self.certificates is not None
        self.certificates.replace_server_certificate()


class Unix(_OfReceiver):
    """A Unix socket has no word by which a receiver refuses a message."""

    refuses = False

    def made(self) -> Receiver:
        path = self.directory / "log"
        self.settings = {"path": str(path), "timeout": "20s"}
        return _UnixReceiver(path, socket.SOCK_STREAM)

    def make_wait(self) -> None:
        self.receiver.close()

    def make_hold(self) -> None:
        other = self.directory / "other"
        self._other = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._other.bind(str(other))
        self._other.close()
        self.settings["path"] = str(other)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as still:
            other.unlink()
            still.bind(str(other))
            self._still = still.dup()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        async with super().open():
            yield
        if hasattr(self, "_still"):
            self._still.close()


class Unixgram(Unix):
    """Nothing is confirmed; a datagram over the send buffer is refused by the kernel."""

    refuses = True
    confirms = False

    def made(self) -> Receiver:
        path = self.directory / "log"
        self.settings = {"path": str(path), "timeout": "20s"}
        return _UnixReceiver(path, socket.SOCK_DGRAM)

    def make_hold(self) -> None:
        other = self.directory / "other"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            stream.bind(str(other))
            stream.listen()
            self._still = stream.dup()
        self.settings["path"] = str(other)

    def make_refuse(self) -> None:
        """A message over the send buffer is refused by the kernel."""

    def bad(self) -> bytes:
        return super().bad() + b"x" * (32 << 20)


class _UnixReceiver(Receiver):
    def __init__(self, path: Path, kind: socket.SocketKind) -> None:
        super().__init__()
        self._path, self._kind, self._open = path, kind, True
        self._socket = socket.socket(socket.AF_UNIX, kind)
        self._socket.bind(str(path))
        self._connections: list[socket.socket] = []
        if kind == socket.SOCK_STREAM:
            self._socket.listen()
            self._spawn(self._accept)
        else:
            self._spawn(self._datagrams)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self._connections.append(connection)
                self._spawn(self._lines, connection)

    def _lines(self, connection: socket.socket) -> None:
        rest = b""
        with suppress(OSError), connection:
            while data := connection.recv(1 << 16):
                *lines, rest = (rest + data).split(b"\n")
                self.arrived.add(lines)

    def _datagrams(self) -> None:
        with suppress(OSError):
            while data := self._socket.recv(1 << 20):
                self.arrived.add([data])

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        for each in (self._socket, *self._connections):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._join()
        self._socket.close()
        self._path.unlink()


class Relp(SinkPeer):
    """A RELP receiver in the test's own loop."""

    secured = True

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        self.receiver = RelpReceiver(offer_within=self.context)
        async with self.receiver.listening() as port:
            self.settings = {
                "server": "127.0.0.1", "port": port, "timeout": "20s", "window": 8, **self.tls
            }  # fmt: skip
            yield

    @property
    def raw(self) -> list[bytes]:
        answers = self.receiver.answers
        return [message for message in self.receiver.messages if message not in answers]

    def make_wait(self) -> None:
        self.receiver.leaves_after = len(self.receiver.messages)

    def make_hold(self) -> None:
        self.receiver.offer = b"500 no session for you"

    def make_refuse(self) -> None:
        self.receiver.answers[self.bad()] = b"500 not this one"


class _Http(_OfReceiver):
    """A peer over HTTP, which can answer anything instead of what it would."""

    secured = True

    @property
    def http(self) -> HttpReceiver:
        assert isinstance(self.receiver, HttpReceiver)
        return self.receiver

    @property
    def bodies(self) -> list[bytes]:
        """The body of each request, decompressed."""
        return [request.content for request in self.http.requests]

    def make_wait(self) -> None:
        self.http.answer = lambda request: Answer(503, "busy")

    def make_hold(self) -> None:
        self.settings["authorization"] = "Bearer wrong"

    def vanish(self) -> None:
        def breaks(request: Request) -> Answer:
            raise ConnectionError("the test ends the connection")

        self.http.answer = breaks


class Http(_Http):
    """Any receiver: 2xx takes, 4xx refuses."""

    def made(self) -> Receiver:
        receiver = HttpReceiver(self._judge, tls=self.context)
        self.refused = b"none"
        self.settings = {
            "url": receiver.url, "timeout": "20s", "authorization": "Bearer right", **self.tls
        }  # fmt: skip
        return receiver

    def _judge(self, request: Request) -> Answer:
        if request.headers.get("authorization") != "Bearer right":
            return Answer(401, "who is this?")
        return Answer(422, "not this one") if self.refused in request.content else TAKEN

    def make_refuse(self) -> None:
        self.refused = b"n%07d" % BAD


class SplunkHec(_Http):
    """Confirmed by its answer; the indexers' acknowledgement has tests of its own."""

    def made(self) -> Receiver:
        receiver = SplunkReceiver(tls=self.context)
        self.settings = {
            "url": receiver.url, "timeout": "20s", "authorization": f"Splunk {TOKEN}", **self.tls
        }  # fmt: skip
        return receiver

    def make_refuse(self) -> None:
        assert isinstance(self.receiver, SplunkReceiver)
        self.receiver.refuse = lambda event: 6 if f"n{BAD:07}" in str(event) else None


class ElasticsearchPeer(_Http):
    """Each document has its own verdict."""

    def made(self) -> Receiver:
        receiver = Elasticsearch(authorization="ApiKey right", tls=self.context)
        self.settings = {
            "url": receiver.url, "timeout": "20s", "authorization": "ApiKey right", **self.tls
        }  # fmt: skip
        return receiver

    @property
    def raw(self) -> list[bytes]:
        assert isinstance(self.receiver, Elasticsearch)
        return [name.encode() for name in self.receiver.events]

    def bad(self) -> bytes:
        action = super().bad().partition(b"\n")[0]
        return action + b'\n{"event":{"id":"n%07d"}}' % BAD  # a data stream needs @timestamp

    def make_refuse(self) -> None:
        """A document without a time is refused."""


class Sentinel(_Http):
    """The API refuses a call as a whole."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        self.entra = Entra(tls=self.context)
        try:
            async with super().open():
                yield
        finally:
            await trio.to_thread.run_sync(self.entra.close)

    def made(self) -> Receiver:
        receiver = LogsIngestion(self.entra, tls=self.context)
        self.settings = {
            "endpoint": receiver.url, "authority": self.entra.url, "rule": RULE, "stream": STREAM,
            "tenant": TENANT, "client_id": CLIENT, "client_secret": SECRET, "timeout": "20s",
            **self.tls,
        }  # fmt: skip
        return receiver

    @property
    def raw(self) -> list[bytes]:
        assert isinstance(self.receiver, LogsIngestion)
        return [str(row).encode() for row in self.receiver.rows]

    def make_hold(self) -> None:
        self.settings["client_secret"] = "another"

    def make_refuse(self) -> None:
        answer = self.http.answer

        def judge(request: Request) -> Answer:
            bad = b"n%07d" % BAD in request.content
            return Answer(400, '{"error":{"code":"InvalidRequest"}}') if bad else answer(request)

        self.http.answer = judge


class Otlp(_Http):
    """A collector rejects records without saying which."""

    def made(self) -> Receiver:
        receiver = OtlpReceiver(authorization="Bearer right", tls=self.context)
        self.settings = {
            "url": receiver.url, "timeout": "20s", "authorization": "Bearer right", **self.tls
        }  # fmt: skip
        return receiver

    @property
    def raw(self) -> list[bytes]:
        assert isinstance(self.receiver, OtlpReceiver)
        return [name.encode() for name in self.receiver.names]

    def make_refuse(self) -> None:
        assert isinstance(self.receiver, OtlpReceiver)
        bad = f"n{BAD:07}"
        self.receiver.rejects = lambda record: (
            "not this one" if attributes_of(record.attributes)["audit.id"] == bad else ""
        )


class Kafka(SinkPeer):
    """librdkafka's own mock cluster, in TLS behind a proxy."""

    secured = True

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        with KafkaCluster() as self.cluster:
            self.cluster.create("audit", 1)
            self.settings = {
                "brokers": self.cluster.bootstrap, "topic": "audit", "timeout": "2s",
                "linger": "1ms",
            }  # fmt: skip
            if self.context is None:
                yield
            else:
                with KafkaOverTls(self.cluster.bootstrap, self.context) as proxy:
                    self.settings |= {"brokers": proxy.bootstrap, "security_protocol": "ssl"}
                    self.settings |= self.tls
                    yield

    @property
    def raw(self) -> list[bytes]:
        return [message.value() for message in self.cluster.read_all("audit", 1)]

    def make_wait(self) -> None:
        self.cluster.set_down()

    def make_hold(self) -> None:
        self.cluster.fail_topic("audit", _TOPIC_AUTHORIZATION_FAILED)

    def make_refuse(self) -> None:
        """A message over `message.max.bytes` is refused by the client."""
        self.settings["client"] = {"message.max.bytes": 10_000}

    def bad(self) -> bytes:
        return super().bad() + b" " * 20_000


class File(SinkPeer):
    """A file system refuses no line; a fault that passes (the file was moved) ends a session."""

    refuses = waits = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        self.path = self.directory / "archive.json"
        self.settings = {"path": str(self.path)}
        yield

    @property
    def raw(self) -> list[bytes]:
        return self.path.read_bytes().splitlines() if self.path.exists() else []

    def vanish(self) -> None:
        self.path = self.path.rename(self.directory / "moved.json")

    def make_hold(self) -> None:
        self.settings["path"] = str(self.directory / "no-such-directory" / "archive.json")


class Stdout(SinkPeer):
    """A pipe refuses no line, and only says that the kernel took it."""

    refuses = confirms = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        self.settings = {"timeout": "200ms"}
        self._reader, self._writer = os.pipe()
        self._taken = b""
        os.set_blocking(self._reader, False)
        try:
            yield
        finally:
            os.close(self._writer)
            if self._reader >= 0:
                os.close(self._reader)

    def sink(self) -> Sink:
        return StdoutSink(StdoutOptions.model_validate(self.settings), self._writer)

    @property
    def raw(self) -> list[bytes]:
        with suppress(BlockingIOError):
            while data := os.read(self._reader, 1 << 16):
                self._taken += data
        return self._taken.splitlines()

    def make_wait(self) -> None:
        os.set_blocking(self._writer, False)
        with suppress(BlockingIOError):
            while True:
                os.write(self._writer, b"\n" * 4096)
        os.set_blocking(self._writer, True)

    def make_hold(self) -> None:
        os.close(self._reader)
        self._reader = -1  # closed twice it could be somebody else's, of another thread


PEERS: dict[str, type[SinkPeer]] = {
    "udp": Udp, "tcp": Tcp, "tls": Tls, "unix": Unix, "unixgram": Unixgram, "relp": Relp,
    "http": Http, "splunk-hec": SplunkHec, "elasticsearch": ElasticsearchPeer,
    "sentinel": Sentinel, "otlp": Otlp, "kafka": Kafka, "file": File, "stdout": Stdout,
}  # fmt: skip
"""A row of the registry → its peer; a row without one fails the suite."""


def rows_where(what: str) -> Sequence[str]:
    """The rows whose peer can do that."""
    return [row for row, peer in PEERS.items() if getattr(peer, what)]

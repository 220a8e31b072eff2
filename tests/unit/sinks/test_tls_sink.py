"""The TLS sink against rsyslog and other real peers: what is verified, what proves something."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from siemrelay.core.errors import SinkHolds, SinkWaits
from siemrelay.net.tls_client import TlsContexts, TlsOptions
from siemrelay.sinks.stream import connection
from siemrelay.sinks.stream import tcp as stream
from siemrelay.sinks.stream.tcp import TcpOptions, TcpSink, TlsStreamOptions
from tests.conftest import MakeDaemon
from tests.support.daemon import QUICK_RETRY, append, event, ids, until
from tests.support.programs.rsyslogd import Rsyslogd
from tests.support.servers import free_port, program
from tests.support.sessions import deliver, fault

DRIVERS = ["ossl", "gtls"]


class Files:
    """An authority with a server's and a client's certificate, as files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = trustme.CA()
        self.ca = self.written("ca.pem", self.authority.cert_pem)
        self.server, self.server_key = self.issued("server")
        self.client, self.client_key = self.issued("client")

    def written(self, name: str, *blobs: trustme.Blob) -> Path:
        path = self.directory / name
        path.write_bytes(b"".join(blob.bytes() for blob in blobs))
        return path

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server, self.server_key)
        return context

    def issued(
        self,
        name: str,
        names: tuple[str, ...] = (),
        not_before: datetime | None = None,
        not_after: datetime | None = None,
    ) -> tuple[Path, Path]:
        names = names or ("127.0.0.1", f"{name}.example.com")
        made = self.authority.issue_cert(
            *names, common_name=name, not_before=not_before, not_after=not_after
        )
        return (
            self.written(f"{name}.pem", *made.cert_chain_pems),
            self.written(f"{name}.key", made.private_key_pem),
        )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


def rsyslog(directory: Path, files: Files, driver: str, authentication: str = "anon") -> Rsyslogd:
    return Rsyslogd(
        directory,
        f'module(load="imtcp" streamDriver.name="{driver}" streamDriver.mode="1" '
        f'streamDriver.authMode="{authentication}")',
        'type="imtcp" address="127.0.0.1"',
        settings=f'defaultNetstreamDriver="{driver}" defaultNetstreamDriverCAFile="{files.ca}" '
        f'defaultNetstreamDriverCertFile="{files.server}" '
        f'defaultNetstreamDriverKeyFile="{files.server_key}"',
    )


def sink_to(port: int, files: Files, timeout: str = "5s", **tls: Any) -> TcpSink:
    tls = {"ca": str(files.ca), **tls}
    return TcpSink(
        TlsStreamOptions.model_validate(
            {"server": "127.0.0.1", "port": port, "timeout": timeout, "tls": tls}
        )
    )


@asynccontextmanager
async def serving(
    handle: Callable[[trio.SocketStream], Awaitable[None]],
) -> AsyncIterator[int]:
    """A TCP server of the test's own; its port."""

    async def safely(connection: trio.SocketStream) -> None:
        async with connection:
            await handle(connection)

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, safely, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def over_tls(
    files: Files, certificate: tuple[Path, Path] | None = None, **settings: Any
) -> Callable[[trio.SocketStream], Awaitable[None]]:
    """A TLS server that reads everything, with Python's ssl."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*(certificate or (files.server, files.server_key)))
    for name, value in settings.items():
        setattr(context, name, value)

    def read(descriptor: int) -> None:
        with closing(socket.socket(fileno=os.dup(descriptor))) as plain:
            plain.settimeout(5)
            with suppress(OSError), context.wrap_socket(plain, server_side=True) as tls:
                while tls.recv(1 << 16):
                    pass

    async def handle(connection: trio.SocketStream) -> None:
        # In a thread: trio's own TLS does not send the alert that says why it refuses.
        await trio.to_thread.run_sync(read, connection.socket.fileno())

    return handle


@pytest.mark.parametrize("driver", DRIVERS)
async def test_rsyslog_gets_every_message_whole(tmp_path: Path, files: Files, driver: str) -> None:
    messages = [b"<13>1 - - - - - - number %d \xc3\xa9 %s" % (n, b"x" * (n * 37 % 9000))
                for n in range(500)]  # fmt: skip
    with rsyslog(tmp_path, files, driver) as server:
        steps = await deliver(sink_to(server.port, files), *messages)
        until(lambda: len(server.messages) >= len(messages))
    assert server.messages == messages
    assert list(steps) == ["resolve", "connect", "tls", "send", "answer"]
    assert steps["tls"].startswith("TLSv1.")
    assert "peer server, certificate valid until" in steps["tls"]


@pytest.mark.parametrize("driver", DRIVERS)
async def test_rsyslog_that_wants_a_client_certificate_takes_one_and_confirms_nothing_without(
    tmp_path: Path, files: Files, driver: str
) -> None:
    with rsyslog(tmp_path, files, driver, "x509/certvalid") as server:
        found = await fault(sink_to(server.port, files))
        if driver == "ossl":
            assert isinstance(found, SinkHolds)
            assert "client certificate" in found.advice or "certificate" in found.reason
        mine = {"certificate": str(files.client), "key": str(files.client_key)}
        await deliver(sink_to(server.port, files, **mine), b"<13>1 - - - - - - taken")
        until(lambda: server.messages)
    assert server.messages == [b"<13>1 - - - - - - taken"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_peer_that_wants_a_client_certificate_is_said_to(
    files: Files, version: ssl.TLSVersion
) -> None:
    handle = over_tls(files, minimum_version=version, maximum_version=version,
                      verify_mode=ssl.CERT_REQUIRED)  # fmt: skip
    async with serving(handle) as port:
        found = await fault(sink_to(port, files))
    assert isinstance(found, SinkHolds)
    assert "client certificate" in str(found)


async def test_an_untrusted_peer_holds_and_says_how_to_trust_it(
    tmp_path: Path, files: Files
) -> None:
    stranger = Files(tmp_path)
    async with serving(over_tls(stranger)) as port:
        found = await fault(sink_to(port, files))
        assert isinstance(found, SinkHolds)
        assert "`tls: {ca: FILE}`" in found.advice
        await deliver(sink_to(port, files, verify=False), b"not verified, as was asked for")


async def test_an_expired_certificate_holds_and_says_so(tmp_path: Path, files: Files) -> None:
    now = datetime.now(UTC)
    old = files.issued("old", not_before=now - timedelta(9), not_after=now - timedelta(1))
    async with serving(over_tls(files, old)) as port:
        found = await fault(sink_to(port, files))
    assert isinstance(found, SinkHolds)
    assert "expired" in found.reason
    assert "renew the receiver's certificate" in found.advice


async def test_a_certificate_of_another_name_holds_unless_that_name_is_expected(
    files: Files,
) -> None:
    other = files.issued("other", names=("siem.example.org",))
    async with serving(over_tls(files, other)) as port:
        found = await fault(sink_to(port, files))
        assert isinstance(found, SinkHolds)
        assert "server_name" in found.advice
        steps = await deliver(sink_to(port, files, server_name="siem.example.org"), b"hello")
    assert "peer other" in steps["tls"]


@pytest.mark.parametrize("banner", [b"220 mail.example.com ESMTP\r\n" * 10, b"HTTP/1.1 400 No\r\n"])
async def test_a_peer_without_tls_is_said_to_have_none(files: Files, banner: bytes) -> None:
    async def handle(connection: trio.SocketStream) -> None:
        await connection.send_all(banner)
        while await connection.receive_some():
            pass

    async with serving(handle) as port:
        found = await fault(sink_to(port, files))
    assert isinstance(found, SinkHolds)
    assert "does not speak TLS on this port" in found.reason


@pytest.mark.parametrize(("timeout", "most_s"), [("200ms", 10.0), ("5m", 0.2)])
async def test_a_peer_that_does_not_answer_in_tls_is_given_up_after_the_timeout_but_soon(
    timeout: str, most_s: float, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECT_S", most_s)

    async def handle(connection: trio.SocketStream) -> None:
        while await connection.receive_some():
            pass

    async with serving(handle) as port:
        found = await fault(sink_to(port, files, timeout=timeout))
    assert isinstance(found, SinkWaits)
    assert "does it speak TLS on this port?" in found.reason


async def test_a_peer_that_hangs_up_in_the_handshake_is_waited_for(files: Files) -> None:
    async def handle(connection: trio.SocketStream) -> None:
        await connection.receive_some()

    async with serving(handle) as port:
        found = await fault(sink_to(port, files))
    assert isinstance(found, SinkWaits)
    assert "ended the connection in the TLS handshake" in found.reason


async def test_a_peer_that_leaves_after_the_handshake_has_confirmed_nothing(files: Files) -> None:
    """As rsyslog does when it does not like the client's name: the kernel has acknowledged all."""
    context = files.server_context()

    async def handle(connection: trio.SocketStream) -> None:
        tls = trio.SSLStream(connection, context, server_side=True)
        await tls.receive_some()
        await tls.aclose()

    async with serving(handle) as port:
        found = await fault(sink_to(port, files))
    assert isinstance(found, SinkWaits)
    assert found.reason.startswith("the peer closed the connection before it had taken anything; ")
    assert found.reason.count("closed the connection") == 1


async def refusal_of_plain_tcp(port: int) -> None:
    """Sends as a daemon does; the port must be said to expect TLS, and nothing confirmed."""
    sink = TcpSink(TcpOptions(server="127.0.0.1", port=port))
    for size in (50, 100_000):
        found = await fault(sink, b"<13>1 - - - - - - " + b"x" * size)
        assert isinstance(found, SinkWaits)
        assert "does it expect TLS or another protocol on this port" in found.reason


async def test_a_tls_port_confirms_nothing_to_plain_tcp(files: Files) -> None:
    async with serving(over_tls(files)) as port:
        await refusal_of_plain_tcp(port)


@pytest.mark.parametrize("driver", DRIVERS)
async def test_rsyslogs_tls_port_confirms_nothing_to_plain_tcp(
    tmp_path: Path, files: Files, driver: str
) -> None:
    with rsyslog(tmp_path, files, driver) as server:
        await refusal_of_plain_tcp(server.port)


@pytest.fixture
def openssl(files: Files) -> Iterator[int]:
    """The port of a TLS server of OpenSSL's own."""
    port = free_port()
    command = [
        program("openssl", "openssl"), "s_server", "-accept", f"127.0.0.1:{port}", "-quiet",
        "-cert", str(files.server), "-key", str(files.server_key),
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            until(lambda: listening(port), what="openssl listening")
            yield port
        finally:
            server.terminate()


async def test_openssls_tls_port_confirms_nothing_to_plain_tcp(openssl: int) -> None:
    await refusal_of_plain_tcp(openssl)


def listening(port: int) -> bool:
    with closing(socket.socket()) as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


async def test_confirming_waits_until_the_peer_has_room_for_every_record(files: Files) -> None:
    go_on = trio.Event()
    context = files.server_context()
    message = b"x" * 150_000

    async def handle(connection: trio.SocketStream) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        tls = trio.SSLStream(connection, context, server_side=True)
        await tls.do_handshake()
        await go_on.wait()
        while await tls.receive_some():
            pass

    async with serving(handle) as port, sink_to(port, files).session() as session:
        # Room on this side for all of it, on that side for a part.
        mine = session.connection.counted.socket_stream
        mine.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        ticket = await session.send([message])
        assert ticket > len(message)  # its records have heads and tails
        with trio.move_on_after(0.1):
            await session.confirm(ticket)
            raise AssertionError("the peer has read nothing")
        go_on.set()
        with trio.fail_after(5):
            assert await session.confirm(ticket) == ()


async def test_a_new_connection_is_believed_only_after_its_probation(files: Files) -> None:
    async with serving(over_tls(files)) as port, sink_to(port, files).session() as session:
        started = trio.current_time()
        await session.confirm(await session.send([b"one"]))
        assert trio.current_time() - started >= stream._PROBATION_S
        # From now on what the peer's kernel has is confirmed: this asks it, and waits for nothing.
        ticket = await session.send([b"two"])
        with trio.fail_after(20):
            while not session.is_confirmed(ticket):
                await trio.lowlevel.checkpoint()


@pytest.fixture
def own(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_the_daemon_delivers_through_tls_and_tells_when_the_certificate_ends(
    make_daemon: MakeDaemon, own: Files, files: Files
) -> None:
    with rsyslog(own.directory, own, "ossl") as server:
        daemon = make_daemon({"siem": {
            "protocol": "tls", "server": "127.0.0.1", "port": server.port, "format": "json",
            "retry": QUICK_RETRY, "timeout": "3s", "tls": {"ca": str(own.ca)},
        }})  # fmt: skip
        append(daemon.audit, map(event, range(1, 2001)))
        daemon.start()
        until(lambda: len(server.messages) >= 2000)
        expiry = daemon.metric("sink_certificate_expiry_timestamp_seconds", sink="siem")
        der = ssl.PEM_cert_to_DER_cert(own.server.read_text())
        assert expiry == x509.load_der_x509_certificate(der).not_valid_after_utc.timestamp()
        tested = daemon.command("test", "siem")
        assert tested.returncode == 0, tested.stdout + tested.stderr
        assert "TLSv1.3, peer server, certificate valid until" in tested.stdout
        daemon.config["sinks"]["siem"]["tls"] = {"ca": str(files.ca)}
        tested = daemon.command("test", "siem")
        assert tested.returncode == 1
        assert "`tls: {ca: FILE}`" in tested.stderr
    assert [m.partition(b'"id":"')[2][:8].decode() for m in server.messages[:2000]] == ids(
        range(1, 2001)
    )


# -- files that change ----------------------------------------------------


@pytest.fixture
def contexts(own: Files) -> TlsContexts:
    return TlsContexts(
        TlsOptions(ca=own.ca, certificate=own.client, key=own.client_key, server_name="x")
    )


def test_files_are_read_again_only_when_they_have_changed(
    contexts: TlsContexts, own: Files
) -> None:
    first = contexts.current()
    assert contexts.current() is first
    own.issued("client")
    second = contexts.current()
    assert second is not first
    assert contexts.current() is second


def test_the_last_good_pair_is_kept_while_the_new_one_is_not_whole(
    contexts: TlsContexts, own: Files
) -> None:
    good = contexts.current()
    kept = own.client.read_bytes(), own.client_key.read_bytes()
    own.issued("client")
    new_key = own.client_key.read_bytes()
    own.client_key.write_bytes(kept[1])  # the key is not there yet
    assert contexts.current() is good
    assert contexts.current() is good
    own.client_key.write_bytes(new_key)
    assert contexts.current() is not good
    own.client.unlink()
    contexts.current()
    contexts.current()


def test_files_that_never_could_be_used_hold_with_their_names(own: Files) -> None:
    for options, why in (
        (TlsOptions(ca=own.directory / "none.pem"), "`ca`: there is no file .*none.pem"),
        (
            TlsOptions(certificate=own.client, key=own.server_key),
            "`key`: the key in .*server.key does not belong to .*client.pem",
        ),
        (
            TlsOptions(ca=own.client_key),
            "`ca`: .*client.key holds no `-----BEGIN CERTIFICATE-----`",
        ),
    ):
        with pytest.raises(SinkHolds, match=why):
            TlsContexts(options).current()


def test_a_key_with_a_password_holds_instead_of_asking_the_terminal(own: Files) -> None:
    key = serialization.load_pem_private_key(own.client_key.read_bytes(), None)
    own.client_key.write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    ))  # fmt: skip
    with pytest.raises(SinkHolds, match="has a password, which a service cannot type"):
        TlsContexts(TlsOptions(certificate=own.client, key=own.client_key)).current()


async def test_a_renewed_client_certificate_is_shown_at_the_next_connection(own: Files) -> None:
    shown: list[Any] = []
    context = own.server_context()
    context.load_verify_locations(own.ca)
    context.verify_mode = ssl.CERT_REQUIRED

    async def handle(connection: trio.SocketStream) -> None:
        tls: Any = trio.SSLStream(connection, context, server_side=True)
        await tls.do_handshake()
        shown.append(tls.getpeercert()["serialNumber"])
        while await tls.receive_some():
            pass

    async with serving(handle) as port:
        sink = sink_to(port, own, certificate=str(own.client), key=str(own.client_key))
        await deliver(sink, b"one")
        own.issued("client")
        await deliver(sink, b"two")
    assert len(set(shown)) == 2

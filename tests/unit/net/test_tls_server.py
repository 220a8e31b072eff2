"""What a TLS listener agrees to."""

from __future__ import annotations

import socket
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trustme

from siemrelay.net.tls_server import HandshakeFailed, ServerTlsOptions, TlsServer
from tests.conftest import MakeDaemon
from tests.support.http_sender import port_of, relay
from tests.support.servers import program


def test_a_client_cannot_have_the_handshake_again(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """`R` has OpenSSL's client ask for it, in TLS 1.2, where it could."""
    openssl, file = program("openssl", "openssl"), tmp_path / "server.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(file))
    daemon = relay(
        make_daemon, listen="https://127.0.0.1:0/events", tls={"certificate": str(file)}
    ).start()
    client = subprocess.Popen(
        [openssl, "s_client", "-tls1_2", "-connect", f"127.0.0.1:{port_of(daemon)}"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    with client, suppress(BrokenPipeError):
        assert client.stdin is not None
        assert client.stdout is not None
        said = b""
        while b"Verify return code" not in said:
            said += client.stdout.readline()
        client.stdin.write(b"R\n")
        client.stdin.flush()
        rest, _ = client.communicate(timeout=20)
        assert b"RENEGOTIATING" in rest
        assert b"no renegotiation" in rest.lower() or b"handshake failure" in rest.lower()
    assert daemon.terminate() == 0


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_that_never_reads_loses_nothing_by_closing(
    version: ssl.TLSVersion, tmp_path: Path
) -> None:
    """As Python's syslog handlers do. All is sent, and closed, before the server reads."""
    ca, file, said = trustme.CA(), tmp_path / "server.pem", b"<13>said before closing\n" * 100
    ca.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(file))
    server = TlsServer(ServerTlsOptions(certificate=file))
    trusting = ssl.create_default_context()
    trusting.maximum_version = version
    ca.configure_trust(trusting)

    def client(port: int) -> None:
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            trusting.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            secured.sendall(said)

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, trio.open_nursery() as nursery:
        closed = trio.Event()

        async def in_thread() -> None:
            await trio.to_thread.run_sync(client, listener.socket.getsockname()[1])
            closed.set()

        nursery.start_soon(in_thread)
        async with await listener.accept() as accepted:
            stream, received = await server.secure(accepted, 20), b""
            await closed.wait()
            while data := await stream.receive_some(65536):
                received += data
    assert received == said


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ("plain text", "the client does not speak TLS: let it use TLS, or listen without"),
        ("plain http", "the client does not speak TLS: let it use TLS, or listen without"),
        ("no certificate", "the client shows no certificate, which `client_ca` asks for"),
        ("another authority's certificate", "the client's certificate is not accepted: "),
        ("a distrusting client", "the client does not accept this listener's certificate: "),
        ("an old version", "the client's TLS is too old: it has to speak `min_version` or later"),
    ],
)
async def test_a_failed_handshake_says_what_to_change(
    wrong: str, fault: str, tmp_path: Path
) -> None:
    ca, other, file = trustme.CA(), trustme.CA(), tmp_path / "server.pem"
    ca.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(file))
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    asks = "certificate" in wrong
    options = ServerTlsOptions(
        certificate=file,
        client_ca=tmp_path / "ca.pem" if asks else None,
        min_version="1.3" if wrong == "an old version" else "1.2",
    )
    context = ssl.create_default_context()
    if wrong != "a distrusting client":
        ca.configure_trust(context)
    if wrong.startswith("another"):
        other.issue_cert("client").configure_cert(context)
    if wrong == "an old version":
        context.maximum_version = ssl.TLSVersion.TLSv1_2

    def client(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as plain, suppress(OSError):
            if wrong.startswith("plain"):
                plain.sendall(
                    b"GET / HTTP/1.1\r\n\r\n" if wrong == "plain http" else b"<13>hello\n"
                )
                plain.recv(100)
            else:
                with context.wrap_socket(plain, server_hostname="localhost") as secured:
                    secured.recv(100)

    server = TlsServer(options)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, trio.open_nursery() as nursery:
        port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.to_thread.run_sync, client, port)
        async with await listener.accept() as accepted:
            with pytest.raises(HandshakeFailed, match="no TLS") as failed:
                await server.secure(accepted, 20)
    assert str(failed.value).startswith(f"no TLS: {fault}")

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

from siemrelay.net.tls_server import ServerTlsOptions, TlsServer
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

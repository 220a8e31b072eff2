"""What a TLS listener agrees to."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

import trustme

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

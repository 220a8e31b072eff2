"""Sources that connect to a server: it is verified, and gets the certificate that it wants."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import trio
import trustme

from siemrelay.config.load import load_text
from siemrelay.core.errors import ConfigurationRefused
from siemrelay.registry import build_source
from siemrelay.sources.http_poll.client import PollFailed
from siemrelay.sources.queues.window import QueueFailed
from tests.support.certificates import server_context
from tests.support.rotation.file_source_rig import CollectingIntake

OPTIONS: dict[str, dict[str, Any]] = {
    "redis": {"url": "rediss://localhost:PORT/0", "stream": "audit"},
    "amqp": {"url": "amqps://u:p@127.0.0.1:PORT", "queue": "audit"},
    "http_poll": {"url": "https://127.0.0.1:PORT/", "cursor": {"parameter": "c", "from": "next"}},
}
BY_NAME = {"amqp", "http_poll"}
"""Those of which the name to verify may be chosen."""


class TlsServer:
    """Notes the name in each client's certificate, and closes."""

    def __init__(self, authority: trustme.CA) -> None:
        self.clients: list[str] = []
        self._context = server_context(authority.issue_cert("localhost"), clients_of=authority)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with suppress(OSError), self._context.wrap_socket(connection, server_side=True) as tls:
                if tls.recv(1):  # in TLS 1.3 its certificate is known only with its first byte
                    shown: dict[str, Any] = tls.getpeercert() or {}
                    self.clients += [name for _, name in shown.get("subjectAltName", ())]

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def server(authority: trustme.CA) -> Iterator[TlsServer]:
    with closing(TlsServer(authority)) as made:
        yield made


def configuration(kind: str, options: dict[str, Any]) -> str:
    return json.dumps({
        "sources": {"it": {"type": kind, **options}}, "sinks": {"out": {"protocol": "stdout"}}
    })  # fmt: skip


async def connected(kind: str, port: int, tls: dict[str, str], server: TlsServer) -> None:
    """Until the server has seen a client, or the source has failed."""
    options = {k: str(v).replace("PORT", str(port)) if k == "url" else v
               for k, v in OPTIONS[kind].items()}  # fmt: skip
    text = configuration(kind, {**options, "tls": tls})
    source = build_source("it", load_text(text, "f", {}).config.sources["it"])
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:

            async def run() -> None:
                try:
                    await source.run(CollectingIntake(), drain=True)
                except* (QueueFailed, PollFailed):
                    pass  # the server closes every connection
                nursery.cancel_scope.cancel()

            nursery.start_soon(run)
            while not server.clients:  # noqa: ASYNC110  (a thread adds to it)
                await trio.sleep(0.005)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kind", OPTIONS)
async def test_a_source_shows_its_certificate_to_the_server_that_it_has_verified(
    kind: str, authority: trustme.CA, server: TlsServer, tmp_path: Path
) -> None:
    issued = authority.issue_cert("relay.example.com")
    files = {name: str(tmp_path / f"{name}.pem") for name in ("ca", "certificate", "key")}
    authority.cert_pem.write_to_path(files["ca"])
    issued.cert_chain_pems[0].write_to_path(files["certificate"])
    issued.private_key_pem.write_to_path(files["key"])
    name = {"server_name": "localhost"} if kind in BY_NAME else {}
    await connected(kind, server.port, files | name, server)
    assert server.clients[0] == "relay.example.com"


@pytest.mark.parametrize("kind", ["redis", "amqp"])
def test_tls_for_an_address_without_it_is_a_fault(kind: str) -> None:
    options = OPTIONS[kind] | {"url": f"{kind}://localhost", "tls": {"verify": False}}
    with pytest.raises(ConfigurationRefused, match=f"begins with {kind}s://"):
        load_text(configuration(kind, options), "f", {})

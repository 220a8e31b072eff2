"""Senders with certificates of their own that reach for what is another's."""

from __future__ import annotations

import json
import ssl
from typing import Any

import pytest
import trustme

from tests.conftest import MakeDaemon
from tests.support.daemon import Daemon, until
from tests.support.http_sender import Sender, port_of, relay, said
from tests.support.listening import forwarded

TOKEN = "5fb7a3c2-0000-4000-8000-00000000beef"
CHANNEL = "0aeb3d9c-1111-4222-8333-44444444cafe"


class Clients:
    """A relay that lets in clients of one authority, and the contexts of two of them."""

    def __init__(self, daemon: Daemon) -> None:
        authority, folder = trustme.CA(), daemon.directory
        server = authority.issue_cert("localhost")
        server.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        daemon.config["sources"]["hooks"]["tls"] = {
            "certificate": str(folder / "server.pem"), "client_ca": str(folder / "ca.pem"),
        }  # fmt: skip
        self.daemon, self._contexts = daemon.start(), list[ssl.SSLContext]()
        for name in ("a@example.com", "b@example.com"):
            context = ssl.create_default_context()
            authority.configure_trust(context)
            authority.issue_cert(name).configure_cert(context)
            self._contexts.append(context)

    def post(self, client: int, body: bytes, path: str, **fields: str) -> tuple[int, Any]:
        """A request of one of the two, over a connection of its own."""
        with Sender(port_of(self.daemon), tls=self._contexts[client]) as sender:
            status, _, found = sender.post(body, path, **fields)
            return status, said(found)


@pytest.mark.parametrize("authorization", [None, "Bearer of-them-all"])
def test_a_client_cannot_claim_the_idempotency_key_of_another_certificate(
    make_daemon: MakeDaemon, authorization: str | None
) -> None:
    """The first of them stores; the other's record of the same key is stored all the same."""
    settings = {"listen": "https://127.0.0.1:0/events"}
    fields = {"Idempotency_Key": "payroll-2026-01"}
    if authorization:
        settings["authorization"] = fields["Authorization"] = authorization
    clients = Clients(relay(make_daemon, **settings))
    assert clients.post(0, b'{"n":1}', "/events", **fields) == (200, {"stored": 1})
    assert clients.post(1, b'{"n":2}', "/events", **fields) == (200, {"stored": 1})
    # Repeated by its owner it is stored once, and with another body it is a mistake.
    assert clients.post(0, b'{"n":1}', "/events", **fields)[0] == 200
    assert clients.post(0, b'{"n":3}', "/events", **fields)[0] == 409
    assert clients.post(1, b'{"n":1}', "/events", **fields)[0] == 409
    until(lambda: forwarded(clients.daemon) == [b'{"n":1}', b'{"n":2}'])
    assert clients.daemon.terminate() == 0


def test_a_client_cannot_take_the_acknowledgement_of_another_certificate(
    make_daemon: MakeDaemon,
) -> None:
    """All of them have the same token and know the channel."""
    daemon = relay(make_daemon, type="splunk-hec", listen="https://127.0.0.1:0", tokens=[TOKEN])
    clients, fields = Clients(daemon), {"Authorization": f"Splunk {TOKEN}"}
    path = f"/services/collector?channel={CHANNEL}"
    number = clients.post(0, b'{"event":1}', path, **fields)[1]["ackId"]
    ask = json.dumps({"acks": [number]}).encode()
    path = f"/services/collector/ack?channel={CHANNEL}"
    assert clients.post(1, ask, path, **fields) == (200, {"acks": {str(number): False}})
    assert clients.post(0, ask, path, **fields) == (200, {"acks": {str(number): True}})
    assert daemon.terminate() == 0

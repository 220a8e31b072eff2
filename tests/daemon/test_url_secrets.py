"""The URL of a webhook is a credential: it shows in nothing that the relay prints or serves."""

from __future__ import annotations

import json
import socket

from tests.conftest import MakeDaemon
from tests.support.daemon import QUICK_RETRY, append, event, until

SECRETS = {
    "slack": ("/services/T000/B000/", "XXXabcdefgh12345678ijkl"),
    "signed": ("/in?sv=2022&sig=", "abc%2Fdef%3Dghijk"),
    "uuid": ("/webhookb2/", "11111111-2222-3333-4444-555555555555"),
}


def test_the_secret_in_a_url_is_nowhere(make_daemon: MakeDaemon) -> None:
    """Nobody listens there, so that every sink has an error to tell."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    daemon = make_daemon({
        name: {"url": f"http://127.0.0.1:{port}{path}{secret}", "retry": QUICK_RETRY}
        for name, (path, secret) in SECRETS.items()
    })  # fmt: skip
    daemon.start()
    append(daemon.audit, [event(1)])
    until(lambda: all(daemon.state_of(name) == "waiting" for name in SECRETS))
    at = f"127.0.0.1:{daemon.said('endpoint')[0]['port']}"
    printed = [
        daemon.log_text, daemon.get("/metrics"), daemon.get("/status"), daemon.get("/"),
        *(
            result.stdout + result.stderr
            for result in (
                daemon.command("check"), daemon.command("check", "--json"),
                daemon.command("status", "--at", at), daemon.command("buffer", "show"),
                daemon.command("test", "slack"), daemon.command("test", "signed"),
            )
        ),
    ]  # fmt: skip
    for text in map(str, printed):
        assert text
        for _, secret in SECRETS.values():
            assert secret not in text, text
            assert json.dumps(secret)[1:-1] not in text
    assert daemon.terminate() == 0

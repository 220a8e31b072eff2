"""Tokens, and URLs that are credentials, show in nothing that the relay prints or serves."""

from __future__ import annotations

import json
import os

import pytest

from tests.conftest import MakeDaemon
from tests.support.daemon import QUICK_RETRY, append, event, http, until
from tests.support.receivers.http import Answer, HttpReceiver, Request
from tests.support.servers import free_port

TOKEN = "s3cr3t-T0ken-0815"
SECRETS = {
    "slack": ("/services/T000/B000/", "XXXabcdefgh12345678ijkl"),
    "signed": ("/in?sv=2022&sig=", "abc%2Fdef%3Dghijk"),
    "uuid": ("/webhookb2/", "11111111-2222-3333-4444-555555555555"),
}


def test_the_secret_in_a_url_is_nowhere(make_daemon: MakeDaemon) -> None:
    """Nobody listens there, so that every sink has an error to tell."""
    port = free_port()
    daemon = make_daemon({
        name: {"url": f"http://127.0.0.1:{port}{path}{secret}", "retry": QUICK_RETRY}
        for name, (path, secret) in SECRETS.items()
    })  # fmt: skip
    daemon.start()
    append(daemon.audit, [event(1)])
    until(lambda: all(daemon.state_of(name) == "waiting" for name in SECRETS))
    at = f"127.0.0.1:{daemon.said('endpoint listening')[0]['port']}"
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


@pytest.mark.parametrize("form", ["inline", "credential", "environment"])
def test_a_secret_is_in_no_log_no_error_no_metric_and_no_output(
    make_daemon: MakeDaemon, form: str
) -> None:
    def answer(request: Request) -> Answer:
        # The most careless receiver: it repeats what it was given.
        return Answer(401, f"not valid: {request.headers.get('authorization')}, {TOKEN}")

    written = {
        "inline": f"Bearer {TOKEN}",
        "credential": "Bearer ${credential:token}",
        "environment": "Bearer ${RELAY_TOKEN}",
    }
    with HttpReceiver(answer) as web:
        daemon = make_daemon(
            {"web": http(web.url, authorization=written[form])}, log={"level": "debug"}
        )
        (daemon.directory / "token").write_text(TOKEN + "\n")
        daemon.environment |= {
            "CREDENTIALS_DIRECTORY": str(daemon.directory), "RELAY_TOKEN": TOKEN,
        }  # fmt: skip
        daemon.start()
        append(daemon.audit, [event(1)])
        until(lambda: daemon.said("sink holding"))
        assert web.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
        outputs = [daemon.get(path)[1] for path in ("/metrics", "/healthz", "/readyz", "/")]
        commands = [["test", "web"], ["check"]]
        if form == "inline":
            commands += [["test", "web", "--json"], ["check", "--json"]]
            commands += [["preview", str(daemon.audit)]]
        for command in commands:
            found = daemon.command(*command)
            outputs += [found.stdout, found.stderr]
        daemon.config["sinks"]["web"]["surprise"] = 1
        found = daemon.command("check")
        assert found.returncode == os.EX_CONFIG
        outputs += [found.stdout, found.stderr]
        assert daemon.terminate() == 0
        outputs.append(daemon.log_text)
        assert not [text for text in outputs if TOKEN in text]
        assert daemon.rows("SELECT count(*) FROM dead_letters") == [(0,)]

"""The relay's own events: who did what to it, at the sinks that take them."""

from __future__ import annotations

import json
import os
import pwd
from typing import Any

from tests.conftest import MakeDaemon
from tests.support import launcher
from tests.support.daemon import append, event, http, tcp, until
from tests.support.receivers.http import Answer, HttpReceiver
from tests.support.receivers.sockets import TcpReceiver

ME = pwd.getpwuid(os.geteuid()).pw_name


def received(receiver: TcpReceiver) -> list[dict[str, Any]]:
    return list(map(json.loads, receiver.arrived.messages))


def test_what_people_do_to_the_relay_arrives_at_the_sinks_with_their_name(
    make_daemon: MakeDaemon,
) -> None:
    def refuse(request: object) -> Answer:
        return Answer(400, "no such index")

    token = "hunter2-hunter2"
    with TcpReceiver() as siem, TcpReceiver() as picky, HttpReceiver(refuse) as web:
        daemon = make_daemon(
            {"siem": tcp(siem.port), "picky": tcp(picky.port, events=["Account Provisioned"]),
             "web": http(web.url, events=["Account Provisioned"])},
            self_audit=True,
        ).start()  # fmt: skip
        siem.until(1)
        append(daemon.audit, [event(1)])
        siem.until(2)
        picky.until(1)
        until(lambda: daemon.metric("sink_dead_lettered_total", sink="web") == 1)

        def do(*arguments: str, code: int = 0) -> dict[str, Any]:
            before = len(siem.arrived)
            daemon.write_config()
            found = launcher.run(*arguments, "-c", str(daemon.file))
            assert found.returncode == code, found.stderr
            siem.until(before + 1)
            return received(siem)[before]

        paused = do("pause", "picky")
        assert (paused["type"], paused["category"]) == ("Sink Paused", "relay")
        assert paused["actor"] == {"name": ME, "id": str(os.geteuid())}
        assert paused["target"] == {"type": "sink", "name": "picky"}
        assert do("resume", "picky")["type"] == "Sink Resumed"
        daemon.config["sinks"]["web"]["authorization"] = f"Bearer {token}"
        reloaded = do("reload")
        assert reloaded["type"] == "Configuration Reloaded"
        assert "restart sink web (authorization" in str(reloaded["attributes"]["changes"])
        daemon.config["sinks"]["web"]["nonsense"] = 1
        refused = do("reload", code=78)
        assert (refused["type"], refused["outcome"]) == ("Configuration Reload Refused", "failure")
        assert "nonsense" in str(refused["attributes"]["faults"])
        del daemon.config["sinks"]["web"]["nonsense"]
        dropped = do("buffer", "dead-letters", "web", "--drop", "--yes")
        assert dropped["type"] == "Dead Letters Dropped"
        assert dropped["attributes"]["records"] == 1
        assert do("buffer", "replay", "picky", "--from", "1")["type"] == "Records Replayed"
        # The test event itself comes on a connection of its own.
        assert daemon.command("test", "siem").returncode == 0
        until(lambda: "Test Event Sent" in [each["type"] for each in received(siem)])
        daemon.terminate()
        types = [each["type"] for each in received(siem)]
        assert (types[0], types[-1]) == ("Relay Started", "Relay Stopped")
        assert token not in str(siem.arrived.messages)
        # Delivered once by the relay and once by the replay, and nothing of the relay's own.
        assert {each["type"] for each in received(picky)} == {"Account Provisioned"}
        assert not list((daemon.state / "self-audit").iterdir())


def test_an_event_of_a_command_without_a_relay_is_stored_at_the_next_start_and_none_when_it_is_off(
    make_daemon: MakeDaemon,
) -> None:
    with TcpReceiver() as siem:
        daemon = make_daemon({"siem": tcp(siem.port)}, self_audit=True).start()
        siem.until(1)
        daemon.terminate()
        siem.until(2)
        assert daemon.command("test", "siem").returncode == 0
        daemon.start()
        siem.until(5)
        assert sorted(each["type"] for each in received(siem)) == [
            "Relay Started", "Relay Started", "Relay Stopped", "SIEM Integration Test",
            "Test Event Sent",
        ]  # fmt: skip
        daemon.config["self_audit"] = False
        assert daemon.command("reload").returncode == 0
        siem.until(6)
        until(lambda: daemon.metric("sink_backlog_records", sink="siem") == 0)
        assert daemon.command("pause", "siem").returncode == 0
        assert daemon.command("resume", "siem").returncode == 0
        assert daemon.command("test", "siem").returncode == 0
        siem.until(7)
        daemon.terminate()
        # The reload that switched it off is the last of the relay's own.
        assert [each["type"] for each in received(siem)[5:]] == [
            "Configuration Reloaded", "SIEM Integration Test",
        ]  # fmt: skip

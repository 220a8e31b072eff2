"""Commands to a running relay: pause and resume, who may give them, and where the socket lies."""

from __future__ import annotations

import json
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import MakeDaemon
from tests.support.daemon import Daemon, append, event, http, ids, tcp, until
from tests.support.receivers.http import Answer, HttpReceiver
from tests.support.receivers.sockets import TcpReceiver


def test_a_paused_sink_keeps_its_records_over_a_restart_and_the_others_go_on(
    make_daemon: MakeDaemon,
) -> None:
    with TcpReceiver() as paused, TcpReceiver() as other:
        sinks = {"siem": tcp(paused.port), "other": tcp(other.port)}
        daemon = make_daemon(sinks).start()
        append(daemon.audit, [event(1)])
        until(lambda: daemon.metric("sink_delivered_total", sink="siem") == 1)
        found = daemon.command("pause", "siem")
        assert found.returncode == 0, found.stderr
        assert f"until `siemrelay resume siem -c {daemon.file}`" in found.stdout
        (line,) = daemon.said("sink paused")
        assert line["sink"] == "siem"
        assert "(uid " in line["by"]
        assert "paused already" in daemon.command("pause", "siem").stdout
        append(daemon.audit, [event(2)])
        other.until(2)
        daemon.kill()
        daemon.start()
        append(daemon.audit, [event(3)])
        other.until(3)
        assert daemon.state_of("siem") == "paused"
        assert daemon.metric("sink_backlog_records", sink="siem") == 2
        shown = daemon.command("status", "--at", daemon.endpoint).stdout
        hint = f"`siemrelay resume siem -c {daemon.file}`"
        assert f"{hint} resumes it" in shown
        assert f"{hint} resumes it" in json.loads(daemon.get("/status")[1])["sinks"][0]["reason"]
        # A reload that changes the paused sink leaves it paused.
        daemon.config["sinks"]["siem"]["timeout"] = "9s"
        assert daemon.command("reload").returncode == 0
        assert daemon.state_of("siem") == "paused"
        assert paused.arrived.ids == ids([1])
        found = daemon.command("resume", "siem")
        assert "waiting records: 2" in found.stdout
        paused.until(3)
        assert paused.arrived.ids == ids([1, 2, 3])
        until(lambda: daemon.state_of("siem") == "up")
        assert "not paused" in daemon.command("resume", "siem").stdout
        assert json.loads((daemon.state / "paused.json").read_text()) == {}


def test_a_drain_does_not_wait_for_a_paused_sink_and_a_damaged_list_of_pauses_is_reported(
    make_daemon: MakeDaemon,
) -> None:
    with TcpReceiver() as paused, TcpReceiver() as other:
        daemon = make_daemon({"siem": tcp(paused.port), "other": tcp(other.port)}).start()
        assert daemon.command("pause", "siem").returncode == 0
        daemon.terminate()
        append(daemon.audit, [event(1)])
        daemon.start("--drain", ready=False)
        assert daemon.wait() == 0
        assert other.arrived.ids == ids([1])
        (daemon.state / "paused.json").write_text("{")
        daemon.start()
        assert daemon.said("cannot read which sinks are paused; none is now")
        paused.until(1)


def test_a_command_that_cannot_be_obeyed_says_why(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    with TcpReceiver() as receiver:
        sinks = {"siem": tcp(receiver.port), "off": tcp(receiver.port, enabled=False)}
        daemon = make_daemon(sinks).start()
        found = daemon.command("pause", "nosuch")
        assert found.returncode == 64
        assert "unknown sink `nosuch`; the sinks are siem, off" in found.stderr
        found = daemon.command("pause", "off")
        assert found.returncode == 64
        assert "enabled: no" in found.stderr
        daemon.config["state_dir"] = str(tmp_path / "elsewhere")
        found = daemon.command("pause", "siem")
        assert found.returncode == 69
        assert "no relay runs on" in found.stderr


def test_the_socket_lies_in_the_runtime_directory_of_the_relay_that_was_there_first(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir()
    with TcpReceiver() as receiver:
        first = make_daemon({"siem": tcp(receiver.port)})
        second = make_daemon({"siem": tcp(receiver.port)})
        first.environment["RUNTIME_DIRECTORY"] = str(runtime)
        second.environment = first.environment
        first.start()
        until((runtime / "control.sock").exists)
        second.start()
        until((second.state / "control.sock").exists)
        for daemon in (first, second):
            assert daemon.command("pause", "siem").returncode == 0
            assert daemon.said("sink paused")
        for place in (runtime, second.state):
            assert stat.S_IMODE((place / "control.sock").stat().st_mode) == 0o660
        first.terminate()
        assert not (runtime / "control.sock").exists()


def test_a_test_through_the_relay_says_for_each_sink_what_became_of_the_event(
    make_daemon: MakeDaemon,
) -> None:
    def refuse(request: object) -> Answer:
        return Answer(400, "no such index")

    with TcpReceiver() as good, TcpReceiver(up=False) as dead, HttpReceiver(refuse) as web:
        daemon = make_daemon({
            "good": tcp(good.port), "dead": tcp(dead.port), "web": http(web.url),
            "picky": tcp(good.port, events=["Account Provisioned"]),
            "off": tcp(good.port, enabled=False), "later": tcp(good.port),
        }).start()  # fmt: skip
        assert daemon.command("pause", "later").returncode == 0
        found = daemon.command("test", "--through", "--timeout", "5", "--json")
        assert found.returncode == 1, found.stderr
        sinks = {line["sink"]: line for line in json.loads(found.stdout)["sinks"]}
        assert {name: line["outcome"] for name, line in sinks.items()} == {
            "good": "delivered", "dead": "no confirmation", "web": "refused", "picky": "filtered",
            "off": "disabled", "later": "paused",
        }  # fmt: skip
        assert "waiting: " in sinks["dead"]["detail"]
        assert "no such index" in sinks["web"]["detail"]
        (received,) = map(json.loads, good.arrived.messages)
        assert received["type"] == "SIEM Integration Test"
        assert (received["category"], received["severity"]) == ("relay", 1)
        assert received["siemrelay"]["source"] == "siemrelay"
        found = daemon.command("test", "good", "--through")
        assert found.returncode == 0, found.stderr
        assert re.search(r"good +delivered +confirmed after \d", found.stdout)
        assert daemon.command("test", "nosuch", "--through").returncode == 64


def test_a_tap_shows_events_as_decoded_and_as_sent_without_secrets(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    token = "hunter2-hunter2"
    with TcpReceiver() as receiver, HttpReceiver() as web:
        daemon = make_daemon({
            "siem": tcp(receiver.port), "other": tcp(receiver.port),
            "web": http(web.url, authorization=f"Bearer {token}"),
        }).start()  # fmt: skip
        assert daemon.command("tap", "--sink", "nosuch").returncode == 64
        # Who watches is an event itself, of a type that this tap does not show.
        daemon.config["self_audit"] = True
        assert daemon.command("reload").returncode == 0
        with tapping(daemon, "--sink", "siem", "--type", "User *") as lines:
            append(daemon.audit, [
                event(1), event(2, type="User Created", message=f"with {token}", extra="kept"),
            ])  # fmt: skip
            decoded, sent = next(lines), next(lines)
            assert (decoded["what"], sent["what"]) == ("decoded", "sent")
            assert json.loads(decoded["text"])["id"] == "n0000002"
            assert json.loads(decoded["text"])["attributes"] == {"extra": "kept"}
            assert json.loads(sent["text"])["message"] == "with ***"
            assert (sent["source"], sent["sink"], sent["type"]) == ("audit", "siem", "User Created")
        until(lambda: any(b"Tap Opened" in message for message in receiver.arrived.messages))
        daemon.config["self_audit"] = False
        assert daemon.command("reload").returncode == 0
        with tapping(daemon, "--source", "audit") as lines:
            append(daemon.audit, [event(3)])
            shown = [next(lines) for _ in range(4)]
            assert sorted(line["sink"] for line in shown) == ["", "other", "siem", "web"]
            assert {line["type"] for line in shown} == {"Account Provisioned"}


@contextmanager
def tapping(daemon: Daemon, *options: str) -> Iterator[Iterator[dict[str, Any]]]:
    """The lines of a tap, which watches already."""
    arguments = ("tap", "-c", str(daemon.file), "--json", *options)
    with subprocess.Popen(
        [sys.executable, "-m", "siemrelay", *arguments], stdout=subprocess.PIPE,
        env=daemon.environment,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        until(
            lambda: (
                daemon.said("tap opened") and daemon.said("tap opened")[-1]["pid"] == process.pid
            )
        )
        try:
            yield map(json.loads, process.stdout)
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait() == 0

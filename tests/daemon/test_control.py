"""Commands to a running relay: pause and resume, who may give them, and where the socket lies."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from tests.conftest import MakeDaemon
from tests.support.daemon import append, event, ids, tcp, until
from tests.support.receivers import TcpReceiver


def test_a_paused_sink_keeps_its_records_over_a_restart_and_the_others_go_on(
    make_daemon: MakeDaemon,
) -> None:
    with TcpReceiver() as paused, TcpReceiver() as other:
        sinks = {"siem": tcp(paused.port), "other": tcp(other.port)}
        daemon = make_daemon(sinks).start()
        append(daemon.audit, [event(1)])
        paused.until(1)
        found = daemon.command("pause", "siem")
        assert found.returncode == 0, found.stderr
        (line,) = daemon.said("sink paused")
        assert line["sink"] == "siem"
        assert "(uid " in line["by"]
        assert "paused already" in daemon.command("pause", "siem").stdout
        append(daemon.audit, [event(2)])
        other.until(2)
        assert daemon.terminate() == 0
        daemon.start()
        append(daemon.audit, [event(3)])
        other.until(3)
        assert daemon.state_of("siem") == "paused"
        assert daemon.metric("sink_backlog_records", sink="siem") == 2
        shown = daemon.command("status", "--at", daemon.endpoint).stdout
        assert "`siemrelay resume siem` resumes it" in shown
        # A reload that changes the paused sink leaves it paused.
        daemon.config["sinks"]["siem"]["timeout"] = "9s"
        assert daemon.command("reload").returncode == 0
        assert daemon.state_of("siem") == "paused"
        assert paused.arrived.ids == ids([1])
        found = daemon.command("resume", "siem")
        assert "2 records wait for it" in found.stdout
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
        assert daemon.said("which sinks are paused cannot be read; none is")
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


@pytest.mark.parametrize("systemd", [False, True])
def test_the_socket_lies_in_the_runtime_directory_or_else_in_state_dir(
    make_daemon: MakeDaemon, tmp_path: Path, *, systemd: bool
) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir()
    with TcpReceiver() as receiver:
        daemon = make_daemon({"siem": tcp(receiver.port)})
        if systemd:
            daemon.environment["RUNTIME_DIRECTORY"] = str(runtime)
        daemon.start()
        place = (runtime if systemd else daemon.state) / "control.sock"
        assert stat.S_IMODE(place.stat().st_mode) == 0o660
        assert daemon.command("resume", "siem").returncode == 0
        # A second relay with the same runtime directory does not take the first one's socket.
        second = make_daemon({"siem": tcp(receiver.port)})
        second.environment = daemon.environment
        second.start()
        assert second.command("resume", "siem").returncode == 0
        assert (second.state / "control.sock").exists()
        assert daemon.command("resume", "siem").returncode == 0
        daemon.terminate()
        assert not place.exists()

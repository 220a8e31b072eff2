"""A changed file while the relay runs: all of it is taken, or nothing changes."""

from __future__ import annotations

import json
import signal
import socket
import time
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from siemrelay.cli.live.control_client import send
from siemrelay.relay.control import ControlAnswer, ReloadRequest
from tests.conftest import MakeDaemon
from tests.support import launcher
from tests.support.daemon import Daemon, append, event, http, ids, tcp, until
from tests.support.receivers.http import Answer, HttpReceiver
from tests.support.receivers.sockets import TcpReceiver
from tests.support.servers import free_port


def can_connect(port: int) -> bool:
    """Whether somebody listens on that port of the loopback address."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_reload_adds_removes_and_restarts_just_the_parts_that_changed(
    make_daemon: MakeDaemon,
) -> None:
    with TcpReceiver() as kept, TcpReceiver() as old, TcpReceiver() as new:
        daemon = make_daemon({"kept": tcp(kept.port), "old": tcp(old.port)}).start()
        append(daemon.audit, [event(1)])
        for receiver in (kept, old):
            receiver.until(1)
        until(lambda: daemon.metric("sink_backlog_records", sink="old") == 0)
        del daemon.config["sinks"]["old"]
        daemon.config["sinks"]["new"] = tcp(new.port)
        found = daemon.command("reload", "--dry-run")
        assert found.returncode == 0, found.stderr
        assert found.stdout.splitlines() == [
            "would remove sink old", "would add sink new", "would keep 2 parts unchanged",
        ]  # fmt: skip
        found = daemon.command("reload")
        assert found.returncode == 0, found.stderr
        assert "add sink new" in found.stdout
        append(daemon.audit, [event(2)])
        kept.until(2)
        new.until(1)
        assert new.arrived.ids == ids([2])
        assert old.arrived.ids == ids([1])
        assert kept.connections_made == 1


@pytest.mark.parametrize(
    "reloads", [20, pytest.param(1000, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_reloads_under_load_leave_untouched_parts_alone_and_leak_nothing(
    make_daemon: MakeDaemon, reloads: int
) -> None:
    """A changing sink and a changing file source beside a sink and a listener that stay."""
    with TcpReceiver() as kept, TcpReceiver() as changed:
        daemon = make_daemon({"kept": tcp(kept.port), "changed": tcp(changed.port)})
        port = free_port()
        daemon.config["sources"]["devices"] = {
            "type": "syslog", "listen": f"tcp://127.0.0.1:{port}", "decoder": "json",
        }  # fmt: skip
        daemon.start()
        until(lambda: daemon.said("listening"))
        count = 0

        def send_some(sender: socket.socket) -> None:
            nonlocal count
            append(daemon.audit, [event(count + i) for i in range(10)])
            lines = [json.dumps(event(count + i)) + "\n" for i in range(10, 20)]
            sender.sendall("".join(lines).encode())
            count += 20

        with socket.create_connection(("127.0.0.1", port)) as sender:
            for number in range(reloads):
                send_some(sender)
                daemon.config["sinks"]["changed"]["timeout"] = f"{number + 3000}ms"
                daemon.config["sources"]["audit"]["max_record_size"] = f"{1024 + number}KiB"
                daemon.write_config()
                answer = send(daemon.state, ReloadRequest())
                assert answer.done, answer.lines
                if number == reloads // 10:
                    until(lambda: daemon.metric("sink_backlog_records", sink="changed") == 0)
                    before = held(daemon)
            asked_at = time.time()
            assert send(daemon.state, ReloadRequest()).done
            send_some(sender)
            until(lambda: daemon.metric("sink_delivered_total", sink="kept") == count)
            until(lambda: daemon.metric("sink_delivered_total", sink="changed") == count)
            # A scrape's connection may linger, and trio keeps idle threads for ten seconds.
            until(lambda: holds_no_more(daemon, before))
            assert held(daemon).memory_mb <= before.memory_mb + 12
        assert sorted(kept.arrived.ids) == ids(range(count))
        assert kept.connections_made == 1
        assert set(changed.arrived.ids) == set(ids(range(count)))
        assert daemon.metric("config_last_reload_successful") == 1
        assert daemon.metric("config_last_reload_success_timestamp_seconds") >= asked_at


class Held(NamedTuple):
    """What a process holds."""

    descriptors: int
    threads: int
    memory_mb: float


def held(daemon: Daemon) -> Held:
    assert daemon.process is not None
    process = Path(f"/proc/{daemon.process.pid}")
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
    memory_mb = int(status["VmRSS"].split()[0]) / 1024
    return Held(len([*(process / "fd").iterdir()]), int(status["Threads"]), memory_mb)


def holds_no_more(daemon: Daemon, before: Held) -> bool:
    now = held(daemon)
    return now.descriptors <= before.descriptors + 2 and now.threads <= before.threads + 2


@pytest.mark.parametrize("by", ["command", "signal"])
def test_a_file_with_a_fault_changes_nothing_and_is_answered_with_its_place(
    make_daemon: MakeDaemon, by: str
) -> None:
    with TcpReceiver() as receiver:
        daemon = make_daemon({"siem": tcp(receiver.port)}).start()
        daemon.config["sinks"]["siem"]["prot"] = "udp"
        if by == "command":
            found = daemon.command("reload")
            assert found.returncode == 78
            assert "sinks.siem.prot: unknown key `prot`" in found.stderr
        else:
            daemon.write_config()
            daemon.send(signal.SIGHUP)
        (line,) = until(lambda: daemon.said("reload refused"))
        assert "unknown key `prot`" in line["faults"][0]
        assert ":" in line["faults"][0].partition(str(daemon.file))[2][:4]
        assert daemon.metric("config_last_reload_successful") == 0
        append(daemon.audit, [event(1)])
        receiver.until(1)
        del daemon.config["sinks"]["siem"]["prot"]
        assert daemon.command("reload").returncode == 0
        assert daemon.metric("config_last_reload_successful") == 1


def test_a_reload_reads_the_included_files_again(make_daemon: MakeDaemon) -> None:
    with TcpReceiver() as kept, TcpReceiver() as added:
        daemon = make_daemon({"kept": tcp(kept.port)})
        daemon.config["include"] = "conf.d/*.yaml"
        daemon.start()
        (daemon.file.parent / "conf.d").mkdir()
        part = daemon.file.parent / "conf.d/added.yaml"
        part.write_text(json.dumps({"sinks": {"added": tcp(added.port)}}))
        found = daemon.command("reload")
        assert "add sink added" in found.stdout, found.stderr
        part.write_text("sinks:\n  added: {prot: tcp}\n")
        found = daemon.command("reload")
        assert found.returncode == 78
        assert f"{part}:2:11: sinks.added.prot: unknown key" in found.stderr
        append(daemon.audit, [event(1)])
        added.until(1)
        kept.until(1)


def test_a_sink_with_a_backlog_is_removed_only_when_its_loss_is_confirmed(
    make_daemon: MakeDaemon,
) -> None:
    with TcpReceiver() as kept, TcpReceiver(up=False) as dead:
        daemon = make_daemon({"kept": tcp(kept.port), "dead": tcp(dead.port)}).start()
        append(daemon.audit, [event(number) for number in range(7)])
        kept.until(7)
        settings = daemon.config["sinks"].pop("dead")
        found = daemon.command("check", "--against-running")
        assert found.returncode == 78
        assert "would remove sink dead\nwould keep 2 parts unchanged" in found.stdout
        assert "7 records wait for it" in found.stderr
        assert "a reload would be refused" in found.stderr
        found = daemon.command("reload")
        assert found.returncode == 78
        assert "sink dead would be removed, and 7 records wait for it" in found.stderr
        assert daemon.metric("sink_backlog_records", sink="dead") == 7
        found = daemon.command("reload", "--discard-backlog", "dead")
        assert found.returncode == 0, found.stderr
        # The same name again is a new sink, which starts at the next record.
        daemon.config["sinks"]["dead"] = settings
        assert daemon.command("reload").returncode == 0
        assert daemon.metric("sink_backlog_records", sink="dead") == 0


def test_a_corrected_token_is_taken_by_a_reload(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("wrong-token\n")

    def answer(request: object) -> Answer:
        right = getattr(request, "headers", {}).get("authorization") == "Bearer right-token"
        return Answer(200 if right else 401)

    with HttpReceiver(answer) as receiver:
        sink = http(receiver.url, authorization=f"Bearer ${{file:{token}}}")
        daemon = make_daemon({"web": sink}).start()
        append(daemon.audit, [event(1)])
        until(lambda: daemon.metric("sink_state", sink="web", state="holding") == 1)
        token.write_text("right-token\n")
        found = daemon.command("reload")
        assert found.stdout.splitlines()[0] == "restart sink web (authorization changed)"
        until(lambda: daemon.metric("sink_delivered_total", sink="web") == 1)
        assert "right-token" not in daemon.log_text


def test_sources_are_added_and_removed_and_a_restarted_one_resumes_at_its_place(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    other = tmp_path / "other.json"
    with TcpReceiver() as receiver:
        daemon = make_daemon({"siem": tcp(receiver.port)}).start()
        append(daemon.audit, [event(number) for number in range(5)])
        receiver.until(5)
        daemon.config["sources"]["audit"]["max_record_size"] = "2MiB"
        daemon.config["sources"]["other"] = {"type": "file", "path": str(other), "poll": "100ms"}
        assert daemon.command("reload").returncode == 0
        append(daemon.audit, [event(number) for number in range(5, 10)])
        append(other, [event(100)])
        receiver.until(11)
        assert sorted(receiver.arrived.ids) == ids([*range(10), 100])
        del daemon.config["sources"]["other"]
        assert daemon.command("reload").returncode == 0
        append(other, [event(101)])
        append(daemon.audit, [event(10)])
        receiver.until(12)
        assert sorted(receiver.arrived.ids) == ids([*range(11), 100])


def test_what_only_a_restart_can_change_is_refused(make_daemon: MakeDaemon) -> None:
    with TcpReceiver() as receiver:
        daemon = make_daemon({"siem": tcp(receiver.port)}).start()
        answer = send(daemon.state, ReloadRequest())
        assert answer.done
        daemon.config["state_dir"] = str(daemon.state) + "2"
        daemon.write_config()
        answer = send(daemon.state, ReloadRequest())
        assert answer.lines == ["`state_dir` is read at the start only: restart the relay"]


def test_the_endpoint_moves_by_a_reload_and_stays_where_it_is_if_it_cannot(
    make_daemon: MakeDaemon,
) -> None:
    with TcpReceiver() as receiver, socket.create_server(("127.0.0.1", 0)) as taken:
        first, second = free_port(), free_port()
        daemon = make_daemon({"siem": tcp(receiver.port)})

        def move(listen: str, **options: Any) -> ControlAnswer:
            daemon.config["endpoint"] = {"listen": listen, **options}
            daemon.write_config()
            return send(daemon.state, ReloadRequest())

        daemon.config["endpoint"] = {"listen": f"127.0.0.1:{first}"}
        daemon.start()
        assert status(first, "relay.example") == 421
        # Other names at the same address; another port; a port that is taken; an address that
        # overlaps with the present one; off.
        assert move(f"127.0.0.1:{first}", hosts=["relay.example"]).done
        assert status(first, "relay.example") == 200
        assert move(f"127.0.0.1:{second}").done
        assert (status(second), can_connect(first)) == (200, False)
        refused = move(f"127.0.0.1:{taken.getsockname()[1]}")
        assert "for the endpoint: Address already in use" in refused.lines[0]
        assert status(second) == 200
        assert move(f"0.0.0.0:{second}").done
        assert status(second) == 200
        assert move("off").done
        assert not can_connect(second)
        assert move(f"127.0.0.1:{first}").done
        assert status(first) == 200


def status(port: int, host: str = "localhost") -> int:
    """The HTTP status of the endpoint's answer to a request for that host."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    with closing(connection):
        connection.request("GET", "/healthz", headers={"Host": host})
        return connection.getresponse().status


def test_a_reload_without_a_relay_says_so(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"siem": tcp(9)})
    daemon.state.mkdir()
    found = daemon.command("reload")
    assert found.returncode == 69
    assert f"no relay runs on {daemon.state}" in found.stderr


def test_check_shows_what_a_reload_would_change(make_daemon: MakeDaemon) -> None:
    with TcpReceiver() as receiver:
        daemon = make_daemon({"siem": tcp(receiver.port)}).start()
        daemon.config["sinks"]["siem"]["timeout"] = "4s"
        found = daemon.command("check", "--against-running")
        assert found.returncode == 0, found.stderr
        assert "would restart sink siem (timeout 3s → 4s)" in found.stdout
        assert not daemon.said("configuration reloaded")


def test_the_status_shows_a_refused_reload_until_one_succeeds(make_daemon: MakeDaemon) -> None:
    with TcpReceiver() as receiver:
        daemon = make_daemon({"siem": tcp(receiver.port)}).start()
        daemon.config["sinks"]["siem"]["prot"] = "udp"
        daemon.command("reload")
        assert "the last reload was refused" in daemon.get("/")[1]
        del daemon.config["sinks"]["siem"]["prot"]
        assert daemon.command("reload").returncode == 0
        assert "refused" not in daemon.get("/")[1]


def test_a_relay_that_drains_refuses_a_reload_and_ends_by_itself(make_daemon: MakeDaemon) -> None:
    with TcpReceiver(up=False) as receiver:
        daemon = make_daemon({"siem": tcp(receiver.port)})
        append(daemon.audit, [event(1)])
        daemon.start("--drain")
        found = daemon.command("reload")
        assert found.returncode == 78
        assert "ends by itself" in found.stderr
        receiver.up()
        assert daemon.wait() == 0


def test_a_listener_keeps_its_socket_over_reloads(make_daemon: MakeDaemon) -> None:
    """Senders connect one after another while the source is changed: none is refused."""
    with TcpReceiver() as receiver:
        daemon = make_daemon({"siem": tcp(receiver.port)})
        port = free_port()
        daemon.config["sources"]["devices"] = {
            "type": "syslog", "listen": [f"tcp://127.0.0.1:{port}", f"udp://127.0.0.1:{port}"],
        }  # fmt: skip
        daemon.start()
        until(lambda: len(daemon.said("listening")) == 2)
        sent = 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            for number in range(1, 6):
                daemon.config["sources"]["devices"]["idle_timeout"] = f"{number + 60}s"
                daemon.write_config()
                daemon.send(signal.SIGHUP)
                while len(daemon.said("configuration reloaded")) < number:
                    with socket.create_connection(("127.0.0.1", port)) as sender:
                        sender.sendall(b"<13>1 2026-03-04T05:06:07Z h a - - - over TCP\n")
                    datagrams.sendto(b"<13>over UDP", ("127.0.0.1", port))
                    sent += 2
        until(lambda: daemon.metric("source_records_total", source="devices") == sent)


def test_a_changed_address_is_opened_before_the_old_one_is_closed(
    make_daemon: MakeDaemon,
) -> None:
    with TcpReceiver() as receiver, socket.create_server(("127.0.0.1", 0)) as taken:
        daemon = make_daemon({"siem": tcp(receiver.port)})
        old, new = free_port(), free_port()
        devices = {"type": "syslog", "listen": f"tcp://127.0.0.1:{old}"}
        daemon.config["sources"]["devices"] = devices
        daemon.start()
        until(lambda: daemon.said("listening"))
        # One that another program has: nothing changes.
        devices["listen"] = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        for command in (("reload", "--dry-run"), ("reload",)):
            found = daemon.command(*command)
            assert found.returncode == 78
            assert "Address already in use" in found.stderr
        socket.create_connection(("127.0.0.1", old)).close()
        # The same port on every address overlaps with the old one, which is closed first.
        for listen in (f"tcp://127.0.0.1:{new}", f"tcp://0.0.0.0:{new}"):
            devices["listen"] = listen
            assert daemon.command("reload", "--dry-run").returncode == 0
            found = daemon.command("reload")
            assert found.returncode == 0, found.stderr
            until(lambda: can_connect(new))
        assert not can_connect(old)


def test_a_file_that_is_no_yaml_reaches_the_relay_and_is_refused_by_it(
    make_daemon: MakeDaemon,
) -> None:
    with TcpReceiver() as receiver:
        daemon = make_daemon({"siem": tcp(receiver.port)}).start()
        with daemon.file.open("a") as file:
            file.write("more: [\n")
        for command, exit_code in (["reload"], 78), (["pause", "siem"], 0):
            found = launcher.run(
                *command, "-c", str(daemon.file), environment=daemon.environment
            )  # fmt: skip
            assert found.returncode == exit_code, found.stderr
        (line,) = until(lambda: daemon.said("reload refused"))
        assert "expected" in line["faults"][0]
        assert daemon.metric("config_last_reload_successful") == 0

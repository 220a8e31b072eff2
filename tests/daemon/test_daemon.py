"""The real daemon from a file to real receivers: delivery, filters, starting and stopping."""

from __future__ import annotations

import json
import os
import signal

from tests.conftest import MakeDaemon
from tests.support.daemon import append, event, http, ids, tcp, udp, until
from tests.support.receivers.http import HttpReceiver
from tests.support.receivers.sockets import TcpReceiver, UdpReceiver


def test_a_line_in_the_file_reaches_tcp_udp_and_http(make_daemon: MakeDaemon) -> None:
    with TcpReceiver() as stream, TcpReceiver("octet-counting") as counted:
        with UdpReceiver() as datagrams, HttpReceiver() as web:
            daemon = make_daemon(
                {
                    "stream": tcp(stream.port),
                    "counted": tcp(counted.port, framing="octet-counting"),
                    "datagrams": udp(datagrams.port),
                    "web": http(web.url, batch={"encoding": "array"}, compression="gzip"),
                }
            ).start()
            append(daemon.audit, map(event, range(1, 4)))
            for receiver in (stream, counted, datagrams, web):
                receiver.until(3)
                assert receiver.arrived.ids == ids(range(1, 4))
            assert daemon.terminate() == 0
    first = json.loads(stream.arrived.messages[0])
    assert first["type"] == "Account Provisioned"
    assert first["actor"] == {"name": "ada", "address": "10.1.2.3"}
    assert first["siemrelay"]["sequence"] == 1
    assert first["siemrelay"]["source"] == "audit"


def test_each_sink_gets_only_the_events_it_chose(make_daemon: MakeDaemon) -> None:
    with TcpReceiver() as everything, TcpReceiver() as owners, TcpReceiver() as grave:
        daemon = make_daemon(
            {
                "everything": tcp(everything.port),
                "owners": tcp(owners.port, events=["account owner changed"]),
                "grave": tcp(
                    grave.port, events={"exclude": ["Account Owner *"], "min_severity": 7}
                ),
            }
        )
        append(
            daemon.audit,
            [event(1), event(2, type="Account Owner Changed", severity=9), event(3, severity=8)],
        )
        daemon.start("--drain", ready=False)
        assert daemon.wait() == 0
    assert everything.arrived.ids == ids([1, 2, 3])
    assert owners.arrived.ids == ids([2])
    assert grave.arrived.ids == ids([3])


def test_drain_ends_by_itself_when_every_sink_has_confirmed(make_daemon: MakeDaemon) -> None:
    with TcpReceiver() as receiver, HttpReceiver() as web:
        daemon = make_daemon({"stream": tcp(receiver.port), "web": http(web.url)})
        append(daemon.audit, map(event, range(1, 5001)))
        daemon.start("--drain", ready=False)
        assert daemon.wait() == 0
    assert receiver.arrived.ids == ids(range(1, 5001))
    # Several requests are under way at a time, so the receiver may finish them in any order.
    assert sorted(web.arrived.ids) == ids(range(1, 5001))


def test_sigterm_drains_and_the_next_start_repeats_nothing(make_daemon: MakeDaemon) -> None:
    with TcpReceiver() as receiver:
        daemon = make_daemon({"stream": tcp(receiver.port)}).start()
        append(daemon.audit, map(event, range(1, 2001)))
        until(lambda: len(receiver.arrived) > 0)
        assert daemon.terminate() == 0
        append(daemon.audit, map(event, range(2001, 2101)))
        daemon.start()
        receiver.until(2100)
        assert daemon.terminate() == 0
    assert receiver.arrived.ids == ids(range(1, 2101))


def test_sigint_stops_as_sigterm_does(make_daemon: MakeDaemon) -> None:
    with TcpReceiver() as receiver:
        daemon = make_daemon({"stream": tcp(receiver.port)}).start()
        append(daemon.audit, [event(1)])
        receiver.until(1)
        daemon.send(signal.SIGINT)
        assert daemon.wait() == 0
    assert daemon.said("stopped")


def test_an_orderly_stop_logs_no_error(make_daemon: MakeDaemon) -> None:
    with TcpReceiver() as stream, UdpReceiver() as datagrams, HttpReceiver() as web:
        daemon = make_daemon(
            {"stream": tcp(stream.port), "datagrams": udp(datagrams.port), "web": http(web.url)}
        ).start()
        append(daemon.audit, map(event, range(1, 1001)))
        for receiver in (stream, datagrams, web):
            receiver.until(1000)
        assert daemon.terminate() == 0
    assert {line["level"] for line in daemon.log} == {"info"}


def test_sigterm_does_not_wait_for_a_dead_sink_and_the_next_start_delivers(
    make_daemon: MakeDaemon,
) -> None:
    with TcpReceiver(up=False) as receiver:
        daemon = make_daemon({"dead": tcp(receiver.port)}, shutdown_timeout="60s").start()
        append(daemon.audit, map(event, range(1, 101)))
        until(lambda: daemon.metric("sink_backlog_records", sink="dead") == 100)
        assert daemon.terminate(within_s=10) == 0
        assert daemon.said("stopped")[0]["undelivered"] == {"dead": 100}
        receiver.up()
        daemon.start()
        receiver.until(100)
    assert receiver.arrived.ids == ids(range(1, 101))


def test_a_drain_that_is_stopped_before_its_end_exits_1(make_daemon: MakeDaemon) -> None:
    with TcpReceiver(up=False) as receiver:
        daemon = make_daemon({"dead": tcp(receiver.port)})
        append(daemon.audit, [event(1)])
        daemon.start("--drain")
        until(lambda: daemon.said("sink waiting"))
        assert daemon.terminate() == 1


def test_events_written_while_the_daemon_is_down_are_delivered_after(
    make_daemon: MakeDaemon,
) -> None:
    with TcpReceiver() as receiver:
        daemon = make_daemon({"stream": tcp(receiver.port)}).start()
        append(daemon.audit, [event(1)])
        receiver.until(1)
        daemon.terminate()
        append(daemon.audit, [event(2)])
        daemon.audit.rename(daemon.directory / "audit.json.1")
        append(daemon.audit, [event(3)])
        daemon.start()
        receiver.until(3)
    assert receiver.arrived.ids == ids([1, 2, 3])


def test_a_second_instance_on_the_same_state_dir_is_refused(make_daemon: MakeDaemon) -> None:
    with TcpReceiver() as receiver:
        first = make_daemon({"stream": tcp(receiver.port)}).start()
        assert first.process is not None
        second = make_daemon({"stream": tcp(receiver.port)}, state_dir=str(first.state))
        second.start(ready=False)
        assert second.wait() == os.EX_TEMPFAIL
        assert f"process {first.process.pid}" in second.log_text
        assert str(first.state) in second.log_text
        assert first.get("/readyz")[0] == 200


def test_an_endpoint_address_in_use_is_refused_with_the_way_out(make_daemon: MakeDaemon) -> None:
    with TcpReceiver() as receiver:
        daemon = make_daemon(
            {"stream": tcp(receiver.port)}, endpoint={"listen": f"127.0.0.1:{receiver.port}"}
        ).start(ready=False)
        assert daemon.wait() == os.EX_TEMPFAIL
    assert f"127.0.0.1:{receiver.port}" in daemon.log_text
    assert "endpoint: {listen:" in daemon.log_text


def test_a_wrong_configuration_exits_78_with_the_place_of_every_fault(
    make_daemon: MakeDaemon,
) -> None:
    daemon = make_daemon({"stream": {**tcp(514), "prot": "tcp", "port": 70000}}, bufer={})
    daemon.start(ready=False)
    assert daemon.wait() == os.EX_CONFIG
    lines = daemon.file.read_text().splitlines()
    for key in ("prot:", "port:", "bufer:"):
        (line,) = [n for n, text in enumerate(lines, 1) if text.strip().startswith(key)]
        assert f"{daemon.file}:{line}:" in daemon.log_text
    assert not daemon.state.exists()


def test_a_format_changed_between_runs_applies_to_what_is_still_to_be_sent(
    make_daemon: MakeDaemon,
) -> None:
    with TcpReceiver(up=False) as receiver:
        daemon = make_daemon({"stream": tcp(receiver.port)}).start()
        append(daemon.audit, [event(1)])
        until(lambda: daemon.metric("sink_backlog_records", sink="stream") == 1)
        daemon.terminate()
        daemon.config["sinks"]["stream"] |= {"format": "cef", "header": "none"}
        receiver.up()
        daemon.start()
        receiver.until(1)
    (message,) = receiver.arrived.messages
    assert message.startswith(b"CEF:0|siemrelay|audit|")
    assert b"externalId=n0000001" in message


def test_a_second_relay_reports_the_state_directory_before_the_port(
    make_daemon: MakeDaemon,
) -> None:
    with TcpReceiver() as receiver:
        daemon = make_daemon({"siem": tcp(receiver.port)}).start()
        found = daemon.command("run")
        assert found.returncode == 75
        assert "already runs on state_dir" in found.stderr

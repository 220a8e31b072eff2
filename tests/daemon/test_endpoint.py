"""What the real daemon tells Prometheus, probes and systemd."""

from __future__ import annotations

import re
import signal

from siemrelay.telemetry.metrics import document
from tests.conftest import MakeDaemon
from tests.support.daemon import Daemon, append, event, http, ids, tcp, until
from tests.support.receivers.http import Answer, HttpReceiver
from tests.support.receivers.sockets import NotifySocket, TcpReceiver

# https://prometheus.io/docs/practices/naming/: base units, `_total` on counters and only there.
_NAME = re.compile(r"(siemrelay|process)_[a-z][a-z0-9_]*")
_NOT_BASE = re.compile(r"_(milliseconds|ms|minutes|hours|kilobytes|mebibytes|mb|percent)(_|$)")


def balance(daemon: Daemon, sink: str) -> float:
    """Everything that is known of the records that were there for a sink."""
    totals = ("delivered", "filtered", "dead_lettered", "dropped")
    settled = sum(daemon.metric(f"sink_{total}_total", sink=sink) for total in totals)
    return settled + daemon.metric("sink_backlog_records", sink=sink)


def test_a_scrape_has_every_metric_under_a_name_that_obeys_the_rules(
    make_daemon: MakeDaemon,
) -> None:
    with TcpReceiver() as receiver:
        daemon = make_daemon({"stream": tcp(receiver.port)}).start()
        append(daemon.audit, [event(1)])
        until(lambda: daemon.metric("sink_delivered_total", sink="stream") == 1)
        text = daemon.get("/metrics")[1]
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert set(re.findall(r"(?m)^\| `(\w+)`", document())) == set(kinds)
    for name, kind in kinds.items():
        assert _NAME.fullmatch(name)
        assert not _NOT_BASE.search(name)
        assert name.endswith("_total") == (kind == "counter")
        assert re.search(rf"^# HELP {name} \S", text, re.MULTILINE)


def test_the_counters_balance_for_every_sink(make_daemon: MakeDaemon) -> None:
    def answer(request: object) -> Answer:
        body = getattr(request, "body", b"")
        return Answer(400, "no") if b"n0000007" in body else Answer(200)

    with TcpReceiver() as receiver, TcpReceiver(up=False) as dead, HttpReceiver(answer) as web:
        daemon = make_daemon(
            {
                "some": tcp(receiver.port, events={"exclude": ["User Logged In"]}),
                "dead": tcp(dead.port),
                "web": http(web.url),
            }
        ).start()
        append(daemon.audit, (event(n, type="User Logged In") for n in range(1, 41)))
        append(daemon.audit, (event(n) for n in range(41, 101)))
        until(lambda: daemon.metric("source_records_total", source="audit") == 100)
        until(lambda: daemon.metric("sink_backlog_records", sink="web") == 0)
        until(lambda: daemon.metric("sink_backlog_records", sink="some") == 0)
        assert daemon.metric("sink_filtered_total", sink="some") == 40
        assert daemon.metric("sink_dead_lettered_total", sink="web") == 1
        assert daemon.metric("sink_backlog_records", sink="dead") == 100
        for sink in ("some", "dead", "web"):
            assert balance(daemon, sink) == 100
        assert daemon.metric("sink_delivery_seconds_count", sink="web") == 99
        until(lambda: daemon.metric("sink_oldest_undelivered_age_seconds", sink="dead") > 0)
        assert daemon.metric("sink_oldest_undelivered_age_seconds", sink="some") == 0
        size = daemon.audit.stat().st_size
        assert daemon.metric("source_bytes_total", source="audit") == size


def test_probes_say_ready_while_it_runs_and_not_ready_while_it_stops(
    make_daemon: MakeDaemon,
) -> None:
    with TcpReceiver(reads=False) as slow:
        daemon = make_daemon(
            {"slow": tcp(slow.port, timeout="60s")}, shutdown_timeout="60s"
        ).start()
        assert daemon.get("/healthz") == (200, "ok\n")
        assert daemon.get("/readyz") == (200, "ok\n")
        assert daemon.get("/elsewhere")[0] == 404
        append(daemon.audit, (event(n, padding="x" * 400) for n in range(1, 20_001)))
        until(lambda: daemon.metric("source_records_total", source="audit") == 20_000)
        daemon.send(signal.SIGTERM)
        until(lambda: daemon.get("/readyz") == (503, "stopping\n"))
        assert daemon.get("/healthz") == (200, "ok\n")
        daemon.send(signal.SIGTERM)  # the second one does not wait for the slow sink
        assert daemon.wait(10) == 0
        assert daemon.said("stopping at once")


def test_systemd_hears_of_readiness_status_life_and_stopping(make_daemon: MakeDaemon) -> None:
    with TcpReceiver() as receiver, TcpReceiver(up=False) as dead:
        daemon = make_daemon({"stream": tcp(receiver.port), "dead": tcp(dead.port)})
        with NotifySocket(str(daemon.directory / "notify")) as systemd:
            # It is fed once a second: at least that long a busy machine may hold it up.
            daemon.environment |= {"NOTIFY_SOCKET": systemd.path, "WATCHDOG_USEC": "3000000"}
            daemon.environment.pop("WATCHDOG_PID", None)
            daemon.start()
            append(daemon.audit, map(event, (1, 2)))
            until(lambda: systemd.lines.count("WATCHDOG=1") >= 4)
            dead_words = f"STATUS=dead waiting: cannot connect to 127.0.0.1 port {dead.port}"
            until(lambda: any(
                line.startswith(dead_words) and line.endswith("; largest backlog 2 records")
                for line in systemd.lines
            ))  # fmt: skip
            assert systemd.lines.count("READY=1") == 1
            gaps = [b - a for a, b in zip(systemd.times, systemd.times[1:], strict=False)]
            assert max(gaps) < 3.0, "WATCHDOG=1 must come before WATCHDOG_USEC has passed"
            daemon.terminate()
            assert systemd.lines.count("STOPPING=1") == 1
            assert systemd.lines.index("READY=1") < systemd.lines.index("STOPPING=1")
    assert receiver.arrived.ids == ids([1, 2])

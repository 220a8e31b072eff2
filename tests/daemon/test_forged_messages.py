"""Forged structure inside syslog messages, through the whole relay: no field, filter or time."""

from __future__ import annotations

import json

from tests.conftest import MakeDaemon
from tests.support.daemon import Daemon, tcp
from tests.support.receivers.sockets import TcpReceiver
from tests.unit.decoders.test_text_is_not_structure import ATTACKS

HEADER = "<35>1 2026-03-04T05:06:07Z box sshd 1 - - "
PROMISED = {"time": "2026-03-04T05:06:07Z", "type": "sshd", "severity": 7, "outcome": "unknown"}


def relay(make_daemon: MakeDaemon, port: int) -> Daemon:
    daemon = make_daemon({
        "all": tcp(port),
        "filtered": tcp(port, events={
            "exclude": ["User Logged Out", "x*", "category:session"], "min_severity": 6
        }),
    })  # fmt: skip
    daemon.config["sources"]["audit"]["decoder"] = "syslog"
    daemon.audit.write_text("".join(f"{HEADER}{attack}\n" for attack in ATTACKS.values()))
    return daemon


def test_no_forged_line_changes_its_event_or_evades_a_filter(make_daemon: MakeDaemon) -> None:
    receiver = TcpReceiver()
    try:
        daemon = relay(make_daemon, receiver.port).start("--drain", ready=False)
        assert daemon.wait() == 0
    finally:
        receiver.close()
    events = [json.loads(message) for message in receiver.arrived.messages]
    assert sorted(event["message"] for event in events) == sorted([*ATTACKS.values()] * 2)
    for event in events:
        assert {field: event[field] for field in PROMISED} == PROMISED, event
        assert "actor" not in event
        assert event["id"] != "ev-1"


def test_preview_shows_the_same_events(make_daemon: MakeDaemon) -> None:
    daemon = relay(make_daemon, 9)
    shown = daemon.command("preview", "--json", str(daemon.audit))
    assert shown.returncode == 0, shown.stderr
    results = [json.loads(line) for line in shown.stdout.splitlines()]
    assert len(results) == len(ATTACKS)
    for result in results:
        assert {field: result["event"][field] for field in PROMISED} == PROMISED
        assert result["sinks"]["filtered"]["kept"] is True

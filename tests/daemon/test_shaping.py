"""The operator shapes a running stream: everything is accounted for, and no secret is anywhere."""

from __future__ import annotations

import json

from tests.conftest import MakeDaemon
from tests.support import launcher
from tests.support.daemon import append, event, tcp, until
from tests.support.receivers.sockets import TcpReceiver

CARD = "4111 1111 1111 1111"
COUNT = 60


def test_a_shaped_stream_adds_up_and_its_secrets_never_reach_the_disk(
    make_daemon: MakeDaemon,
) -> None:
    with TcpReceiver() as siem, TcpReceiver() as cef:
        daemon = make_daemon({
            "siem": tcp(siem.port, sample=[{"events": "User Logged In", "one_in": 3}],
                        where={"severity": {"min": 3}}, add={"attributes.env": "prod"},
                        redact=[{"field": "actor.name"}]),
            "cef": tcp(cef.port, format="cef", header="none"),
        })  # fmt: skip
        source = daemon.config["sources"]["audit"]
        source |= {"where": {"attributes.env": {"not": "test"}}, "redact": [{"kind": "card"}]}
        daemon.start()
        append(daemon.audit, [
            event(number, type="User Logged In" if number % 2 else "Account Provisioned",
                  env="test" if number % 5 == 0 else "own", severity=number % 4 + 1,
                  message=f"paid with {CARD}")
            for number in range(COUNT)
        ])  # fmt: skip
        stored = COUNT * 4 // 5
        until(lambda: daemon.metric("source_records_total", source="audit") == stored)
        until(lambda: all(daemon.metric("sink_backlog_records", sink=name) == 0
                          for name in ("siem", "cef")))  # fmt: skip
        assert daemon.metric("source_filtered_total", source="audit") == COUNT // 5
        assert daemon.metric("source_redacted_total", source="audit") == stored
        delivered, filtered, sampled, redacted = (
            daemon.metric(f"sink_{name}_total", sink="siem", **labels)
            for name, labels in (
                ("delivered", {}), ("filtered", {}), ("sampled", {"type": "User Logged In"}),
                ("redacted", {}),
            )
        )  # fmt: skip
        assert delivered + filtered == daemon.metric("sink_stored_total", sink="siem")
        assert 0 < sampled < filtered
        assert redacted == delivered > 0
        # What a source adds later is in the messages of a sink that the reload leaves alone.
        source |= {"add": {"attributes.site": "here"}, "limit": {"User Logged Out": "2/d"}}
        daemon.config["self_audit"] = True
        assert daemon.command("reload").returncode == 0
        append(daemon.audit, [event(COUNT, env="own")])
        until(lambda: any(b"attributes_site=here" in each for each in cef.arrived.messages))
        assert cef.connections_made == 1
        # What a limit leaves out at once is reported within a second, and to every sink.
        append(daemon.audit, [event(COUNT + 1 + n, type="User Logged Out") for n in range(7)])
        until(lambda: any(b"Events Limited" in each for each in cef.arrived.messages))
        report = next(each for each in cef.arrived.messages if b"Events Limited" in each)
        assert b"5 events of source audit were left out by its `limit`" in report
        limited = {"source": "audit", "type": "User Logged Out"}
        assert daemon.metric("source_limited_total", **limited) == 5
        assert daemon.metric("source_filtered_total", source="audit") == COUNT // 5 + 5
        assert sum(b"User Logged Out|" in each for each in cef.arrived.messages) == 2
        kept = launcher.run("buffer", "show", "-c", str(daemon.file), "--json")
        assert CARD not in kept.stdout
        assert "paid with ***" in kept.stdout, kept.stderr
        daemon.terminate()
        for message in (*siem.arrived.messages, *cef.arrived.messages):
            assert CARD.encode() not in message
        for message in siem.arrived.messages:
            found = json.loads(message)
            assert found["attributes"]["env"] == "prod"
            assert found.get("actor", {}).get("name") in ("***", None)

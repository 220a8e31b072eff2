"""The real daemon to a real syslog-ng within TLS: RFC 5425 frames, RFC 5424 field by field."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import MakeDaemon
from tests.support.daemon import QUICK_RETRY, append, event, tcp, until
from tests.support.events.formats import carried
from tests.support.events.hostile import forged_events
from tests.support.programs.syslog_ng import SyslogNg
from tests.unit.sinks.test_tls_sink import Files

HARD = [
    event(1),
    event(2, message='quotes " and \\"escaped\\", brackets ] and [x y="z"], a \\ at last\\'),
    event(3, message="Zoë, Ωmega, 漢字, emoji 😀", actor={"name": 'Zoë | ] " = \\', "id": "ü-1"}),
    event(4, message="a line\nbreak\r\n<13>1 2026-01-01T00:00:00Z forged app - - - two"),
    event(5, severity=8, outcome="failure", message="x" * 100_000),
    *forged_events(),
]  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def within_tls(files: Files) -> str:
    """syslog-ng's own settings; it wants a client certificate."""
    return (
        f'transport("tls") tls(key-file("{files.server_key}") cert-file("{files.server}") '
        f'ca-file("{files.ca}") peer-verify(required-trusted))'
    )


def test_syslog_ng_reads_every_field_as_it_was_sent(
    make_daemon: MakeDaemon, tmp_path: Path, files: Files
) -> None:
    with SyslogNg(tmp_path, within_tls(files), driver="syslog") as server:
        daemon = make_daemon({"siem": {
            "protocol": "tls", "server": "127.0.0.1", "port": server.port, "hostname": "here",
            "retry": QUICK_RETRY, "timeout": "3s",
            "tls": {"ca": str(files.ca), "certificate": str(files.client),
                    "key": str(files.client_key)},
        }})  # fmt: skip
        append(daemon.audit, [*HARD, *map(event, range(len(HARD) + 1, 1001))])
        daemon.start("--drain", ready=False)
        assert daemon.wait() == 0, daemon.log_text
        until(lambda: len(server.parsed) >= 1000)
    parsed = server.parsed
    assert len(parsed) == 1000
    for sent, record in zip(HARD, parsed, strict=False):
        assert (record["HOST"], record["PROGRAM"]) == ("here", "siemrelay")
        (event_data,) = record["_SDATA"].values()
        assert event_data["id"] == sent["id"]
        assert event_data["actor"]["name"] == carried(sent["actor"]["name"])
        assert record["MESSAGE"].removeprefix("\ufeff") == carried(sent["message"])


def test_syslog_ng_without_our_certificate_confirms_nothing_and_the_advice_names_it(
    make_daemon: MakeDaemon, tmp_path: Path, files: Files
) -> None:
    with SyslogNg(tmp_path, within_tls(files)) as server:
        daemon = make_daemon({"siem": {
            "protocol": "tls", "server": "127.0.0.1", "port": server.port, "timeout": "3s",
            "tls": {"ca": str(files.ca)},
        }})  # fmt: skip
        tested = daemon.command("test", "siem")
    assert tested.returncode == 1, tested.stdout
    assert "certificate" in tested.stderr
    assert server.parsed == []


def test_a_message_over_syslog_ngs_size_holds_the_sink_and_the_advice_names_both_settings(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    with SyslogNg(tmp_path, driver="syslog") as server:
        daemon = make_daemon(
            {"siem": tcp(server.port, framing="octet-counting", retry=QUICK_RETRY)}
        ).start()
        append(daemon.audit, [event(1, message="x" * 300_000)])
        until(lambda: "max_message_size" in daemon.log_text)
        assert "`log-msg-size`" in daemon.log_text
        assert daemon.metric("sink_backlog_records", sink="siem") >= 1


def test_lines_to_a_syslog_ng_that_counts_octets_are_not_confirmed_and_the_advice_names_the_framing(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    with SyslogNg(tmp_path, driver="syslog") as server:
        tested = make_daemon({"siem": tcp(server.port)}).command("test", "siem")
    assert tested.returncode == 1, tested.stdout
    assert "`framing: octet-counting`" in tested.stderr

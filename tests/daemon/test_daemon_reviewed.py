"""What a new user stumbled over once."""

from __future__ import annotations

import gzip
import json

from tests.conftest import MakeDaemon
from tests.support.daemon import append, event, tcp, until
from tests.support.receivers import TcpReceiver

LONE = b'{"type": "User Created", "message": "\\ud800lone"}\n'
STEERING = b'{"type": "User Created", "message": "\\u001b[31mred\\n  -> forged: kept"}\n'


def test_preview_shows_what_no_terminal_can_and_cannot_be_steered(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"siem": tcp(9, format="cef")})
    daemon.audit.write_bytes(LONE + STEERING)
    found = daemon.command("preview", str(daemon.audit))
    assert found.returncode == 0, found.stderr
    assert "\ufffdlone" in found.stdout
    assert "\x1b" not in found.stdout
    assert not [line for line in found.stdout.splitlines() if line.startswith("  -> forged")]
    found = daemon.command("preview", "--json", str(daemon.audit))
    assert [json.loads(line)["record"] for line in found.stdout.splitlines()] == [1, 2]


def test_preview_reads_a_gzip_file_as_the_relay_does_and_shows_what_is_left_of_a_damaged_one(
    make_daemon: MakeDaemon,
) -> None:
    daemon = make_daemon({"siem": tcp(9, format="json")})
    append(daemon.audit, [event(n) for n in range(3)])
    plain = daemon.command("preview", "--json", str(daemon.audit)).stdout
    lines = daemon.audit.read_bytes().splitlines(keepends=True)
    # Two members, as `cat a.gz b.gz` makes them.
    packed = gzip.compress(lines[0]) + gzip.compress(b"".join(lines[1:]))
    for content, said in (
        (packed, ""),
        (packed[:-5], "damaged gzip file: ends in the middle of its compressed data"),
    ):
        daemon.audit.write_bytes(content)
        found = daemon.command("preview", "--json", str(daemon.audit))
        assert found.returncode == 0
        assert said in found.stderr
        assert ids_of(found.stdout) == ids_of(plain)
    assert len(ids_of(plain)) == 3


def ids_of(shown: str) -> list[str]:
    return [json.loads(line)["event"]["id"] for line in shown.splitlines()]


def test_events_with_bytes_that_are_no_utf8_are_delivered_and_counted(
    make_daemon: MakeDaemon,
) -> None:
    with TcpReceiver() as receiver:
        daemon = make_daemon({"siem": tcp(receiver.port, format="json")}).start()
        with daemon.audit.open("ab") as log:
            log.write(b'{"type": "User Created", "message": "\xff"}\nno json \xfe\n{"type": "x"}\n')
        until(lambda: daemon.metric("sink_delivered_total", sink="siem") == 3)
        assert daemon.metric("sink_invalid_utf8_total", sink="siem") == 2


def test_a_second_relay_reports_the_state_directory_before_the_port(
    make_daemon: MakeDaemon,
) -> None:
    with TcpReceiver() as receiver:
        daemon = make_daemon({"siem": tcp(receiver.port)}).start()
        found = daemon.command("run")
        assert found.returncode == 75
        assert "already runs on state_dir" in found.stderr

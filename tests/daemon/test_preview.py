"""`siemrelay preview` shows records as the relay would send them, whatever is in them."""

from __future__ import annotations

import gzip
import json

import pytest

from tests.conftest import MakeDaemon
from tests.support.daemon import append, event, tcp, udp
from tests.support.receivers.sockets import UdpReceiver

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


@pytest.mark.parametrize("form", ["syslog", "rfc3164", "cef"])
def test_preview_shows_the_very_bytes_that_the_sink_then_receives(
    make_daemon: MakeDaemon, form: str
) -> None:
    hard = [event(1), event(2, message='a|b=c\\d "e" ]\n€'), event(3, type="User Logged In")]
    with UdpReceiver() as datagrams:
        daemon = make_daemon(
            {"datagrams": udp(datagrams.port, format=form, events={"exclude": ["User Logged In"]})}
        )
        append(daemon.audit, hard)
        found = daemon.command("preview", "--json", str(daemon.audit))
        assert found.returncode == 0, found.stderr
        assert not daemon.state.exists()
        shown = [json.loads(line)["sinks"]["datagrams"] for line in found.stdout.splitlines()]
        daemon.start("--drain", ready=False)
        assert daemon.wait() == 0
        datagrams.until(2)
    assert [each["kept"] for each in shown] == [True, True, False]
    assert [each["message"].encode() for each in shown[:2]] == datagrams.arrived.messages


def test_preview_names_every_attribute_as_a_condition_does(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"siem": tcp(9, format="json")})
    deep = json.loads('{"a":' * 12 + "1" + "}" * 12)
    hostile = {"x\n  -> forged\x1b[2J": 1, "geo": {"country": "NL", "at": [1, [2]]}, "deep": deep}
    append(daemon.audit, [event(1, **hostile)])
    found = daemon.command("preview", str(daemon.audit))
    assert found.returncode == 0, found.stderr
    lines = [line.split() for line in found.stdout.splitlines()]
    assert ["attributes.geo.country", "NL"] in lines
    assert ["attributes.geo.at", "[...]"] in lines
    assert any(line[-1] == "{...}" for line in lines if line)
    assert "\x1b" not in found.stdout
    assert not [line for line in found.stdout.splitlines() if line.startswith("  -> forged")]

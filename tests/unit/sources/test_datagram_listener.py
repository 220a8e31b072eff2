"""Syslog in datagrams, in a real daemon: nothing is lost that is not counted."""

from __future__ import annotations

import json
import socket
import threading
import zlib

import pytest

from siemrelay.wire.gelf import GelfDatagrams
from tests.conftest import MakeDaemon
from tests.support.daemon import Daemon, until
from tests.support.listening import forwarded, relay


def sender_to(daemon: Daemon, listen: str) -> socket.socket:
    (line,) = until(lambda: daemon.said("listening"))
    if listen.startswith("unixgram"):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.connect(listen.removeprefix("unixgram://"))
    else:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect(("127.0.0.1", line["port"]))
    return sock


@pytest.mark.parametrize("kind", ["udp", "unixgram"])
def test_datagrams_arrive_in_order_as_they_were(make_daemon: MakeDaemon, kind: str) -> None:
    daemon = relay(make_daemon, "")
    listen = "udp://127.0.0.1:0" if kind == "udp" else f"unixgram://{daemon.directory}/log"
    daemon.config["sources"]["logs"]["listen"] = listen
    daemon.start()
    with sender_to(daemon, listen) as sock:
        for number in range(500):
            sock.send(b"<13>message %d" % number)
        sock.send(b"")
        sock.send(b"<13>ends\0\n")
        sock.send(b"<13>" + b"x" * 60_000)
    expected = [b"<13>message %d" % number for number in range(500)]
    expected += [b"<13>ends", b"<13>" + b"x" * 60_000]
    until(lambda: len(forwarded(daemon)) == 502)
    assert forwarded(daemon) == expected
    assert daemon.terminate() == 0


def test_a_datagram_with_line_feeds_stays_one_record(make_daemon: MakeDaemon) -> None:
    listen = "udp://127.0.0.1:0"
    daemon = relay(make_daemon, listen)
    daemon.config["sinks"]["out"]["format"] = "json"
    daemon.start()
    with sender_to(daemon, listen) as sock:
        sock.send(b"<13>Oct 11 22:14:15 box app: one\ntwo")
        sock.send(b"<13>Oct 11 22:14:15 box app: three")
    until(lambda: len(forwarded(daemon)) == 2)
    events = list(map(json.loads, forwarded(daemon)))
    assert [event["message"] for event in events] == ["one\ntwo", "three"]
    assert events[0]["attributes"]["syslog"]["host"] == "box"
    assert daemon.terminate() == 0


def test_gelf_is_joined_and_decompressed_and_what_stays_incomplete_is_logged(
    make_daemon: MakeDaemon,
) -> None:
    listen = "udp://127.0.0.1:0"
    daemon = relay(make_daemon, listen).start()
    cut = GelfDatagrams(512, 7, compress=False)
    long, torn = (b'{"short_message":"%b"}' % (mark * 3000) for mark in (b"x", b"y"))
    with sender_to(daemon, listen) as sock:
        for datagram in [*reversed(cut.of(long)), zlib.compress(b'{"b":1}'), *cut.of(torn)[1:]]:
            sock.send(datagram)
    until(lambda: len(forwarded(daemon)) == 2)
    assert forwarded(daemon) == [long, b'{"b":1}']
    assert daemon.terminate() == 0
    assert daemon.said("GELF messages are incomplete: some of their chunks have not come")


def test_every_datagram_is_stored_or_counted_as_lost(make_daemon: MakeDaemon) -> None:
    listen, total = "udp://127.0.0.1:0", 40_000
    daemon = relay(make_daemon, listen, receive_buffer="64KiB").start()
    with sender_to(daemon, listen) as sock:

        def blast() -> None:
            for _ in range(total):
                sock.send(b"<13>" + b"x" * 300)

        thread = threading.Thread(target=blast)
        thread.start()
        thread.join()

    def accounted() -> bool:
        stored = daemon.metric("source_records_total", source="logs")
        return stored + daemon.metric("source_upstream_dropped_total", source="logs") == total

    until(accounted)
    assert daemon.terminate() == 0


def test_a_stranger_and_who_sends_too_much_are_refused_and_counted(
    make_daemon: MakeDaemon,
) -> None:
    listen = "udp://127.0.0.1:0"
    daemon = relay(make_daemon, listen, allow=["10.0.0.0/8"]).start()
    with sender_to(daemon, listen) as sock:
        sock.send(b"<13>from a stranger")
        until(lambda: daemon.refused("logs") == 1)
    assert daemon.terminate() == 0
    daemon.config["sources"]["logs"] |= {"allow": ["127.0.0.0/8"], "rate": 10}
    daemon.start()
    with sender_to(daemon, listen) as sock:
        for number in range(100):
            sock.send(b"<13>%d" % number)
        until(
            lambda: daemon.refused("logs")
            + daemon.metric("source_records_total", source="logs") == 100
        )  # fmt: skip
    assert 10 <= daemon.metric("source_records_total", source="logs") < 50
    assert daemon.terminate() == 0


def test_a_flood_of_long_messages_is_counted_and_logged_once(make_daemon: MakeDaemon) -> None:
    listen = "udp://127.0.0.1:0"
    daemon = relay(make_daemon, listen, max_record_size="64B").start()
    with sender_to(daemon, listen) as sock:
        for _ in range(200):
            sock.send(b"<13>" + b"x" * 100)
        until(lambda: len(forwarded(daemon)) == 200)
    assert daemon.metric("source_oversize_total", source="logs") == 200
    assert len(daemon.said("record over max_record_size kept whole")) == 1
    assert daemon.terminate() == 0

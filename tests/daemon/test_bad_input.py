"""Bad input is never dropped in silence: it goes all the way, and hurts nothing beside it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from siemrelay.core.event import Selection
from siemrelay.core.event_types import UNPARSED
from siemrelay.core.filters import EventFilter, EventsOptions
from siemrelay.decoders.json.decoder import JsonDecoder
from siemrelay.registry import FORMATS, build_format
from siemrelay.wire.stream_framing import FRAMERS
from tests.conftest import MakeDaemon
from tests.support.daemon import event, tcp, until
from tests.support.events.products import CATALOGUE, GENERIC
from tests.support.events.strategies import HOSTILE, batch_of
from tests.support.receivers.sockets import TcpReceiver

GOOD = b'{"type":"Account Provisioned","id":"good"}'
EVERY: list[tuple[str, Any]] = [
    (name, header)
    for name, kind in FORMATS.items()
    for header in (("none", "rfc3164", "rfc5424") if kind.headers else ("none",))
]


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_bytes_leave_as_one_message_between_two_good_ones(what: str) -> None:
    for name, header in EVERY:
        form = build_format(name, header, FORMATS[name].options(), "host")
        decoder = JsonDecoder(GENERIC, form.fields, CATALOGUE)
        for records in ([GOOD, HOSTILE[what], GOOD], [GOOD] * 20, [HOSTILE[what], GOOD]):
            messages = form.encode(Selection(decoder.decode(batch_of(records))))
            assert len(messages) == len(records)
            assert FRAMERS["newline"](messages).count(b"\n") == len(records)
            assert b"\0" not in b"".join(messages)
            for message in messages:
                message.decode()
            assert messages[-1].count(b"good") >= 1


def test_a_sink_can_choose_the_records_that_could_not_be_read() -> None:
    decoded = JsonDecoder(GENERIC, frozenset({"message"}), CATALOGUE).decode(
        batch_of([GOOD, b"garbage", GOOD])
    )
    kept = EventFilter(EventsOptions(include=[UNPARSED]), CATALOGUE).select(decoded.events)
    assert [one.message for one in Selection(decoded, kept).events] == ["garbage"]
    kept = EventFilter(EventsOptions(exclude=[UNPARSED]), CATALOGUE).select(decoded.events)
    assert list(Selection(decoded, kept).sequences) == [1, 3]


def test_the_daemon_delivers_hostile_lines_in_their_places(make_daemon: MakeDaemon) -> None:
    formats = ("json", "raw", "cef", "syslog", "rfc3164")
    lines = [line for line in HOSTILE.values() if line.strip()]
    receivers = {name: TcpReceiver() for name in formats}
    try:
        daemon = make_daemon({name: tcp(r.port, format=name) for name, r in receivers.items()})
        with daemon.audit.open("wb") as file:
            for number, line in enumerate(lines):
                file.write(line + b"\n" + json.dumps(event(number)).encode() + b"\n")
        daemon.start("--drain", ready=False)
        assert daemon.wait() == 0
    finally:
        for receiver in receivers.values():
            receiver.close()
    for receiver in receivers.values():
        messages = receiver.arrived.messages
        assert len(messages) == 2 * len(lines)
        for number, message in enumerate(messages[1::2]):
            assert f"n{number:07}".encode() in message
    raw = receivers["raw"].arrived.messages
    assert [raw[2 * i] for i, line in enumerate(lines) if line.isascii() and line.isalnum()] == [
        line for line in lines if line.isascii() and line.isalnum()
    ]
    read = [json.loads(message) for message in receivers["json"].arrived.messages]
    assert [one["siemrelay"]["sequence"] for one in read] == list(range(1, len(read) + 1))
    unparsed = {one["message"] for one in read if one["type"] == UNPARSED}
    assert HOSTILE["a half line"].decode() in unparsed
    assert HOSTILE["no UTF-8"].decode("utf-8", "replace") in unparsed


def test_events_with_bytes_that_are_no_utf8_are_delivered_and_counted(
    make_daemon: MakeDaemon,
) -> None:
    with TcpReceiver() as receiver:
        daemon = make_daemon({"siem": tcp(receiver.port, format="json")}).start()
        with daemon.audit.open("ab") as log:
            log.write(b'{"type": "User Created", "message": "\xff"}\nno json \xfe\n{"type": "x"}\n')
        until(lambda: daemon.metric("sink_delivered_total", sink="siem") == 3)
        assert daemon.metric("sink_invalid_utf8_total", sink="siem") == 2

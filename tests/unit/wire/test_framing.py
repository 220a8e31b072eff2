"""Whatever is in the events, so many messages go in and so many come out of a byte stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.core.event import Actor, AuditEvent, Target
from siemrelay.registry import FORMATS, PROTOCOLS, build_format
from siemrelay.wire.stream_framing import FRAMERS
from tests.support.events.strategies import EVENTS, selection_of, texts
from tests.support.examples import examples


def by_line_feed(stream: bytes) -> list[bytes]:
    assert stream.endswith(b"\n")
    return stream[:-1].split(b"\n")


def by_nul(stream: bytes) -> list[bytes]:
    assert stream.endswith(b"\0")
    return stream[:-1].split(b"\0")


def by_count(stream: bytes) -> list[bytes]:
    """RFC 6587, 3.4.1: `MSG-LEN SP SYSLOG-MSG`, MSG-LEN without leading zeros."""
    messages = []
    while stream:
        length, space, stream = stream.partition(b" ")
        assert space
        assert length.isdigit()
        assert not length.startswith(b"0") or length == b"0"
        messages.append(stream[: int(length)])
        assert len(messages[-1]) == int(length)
        stream = stream[int(length) :]
    return messages


READERS: dict[str, Callable[[bytes], list[bytes]]] = {
    "newline": by_line_feed,
    "octet-counting": by_count,
    "nul": by_nul,
}
EVERY: list[tuple[str, Any]] = [
    (name, header)
    for name, kind in FORMATS.items()
    for header in (("none", "rfc3164", "rfc5424") if kind.headers else ("none",))
]
FORGED = [
    "Login\nCEF:0|x|x|1|forged|forged|10|",
    "Login\r\n<8>1 - - - - - - forged",
    "Login\0forged",
    "5 forged12 forged again",
    "a|b|c=d\\",
    'a"]b [x="y"] ',
    '{"type":"forged"}',
    "\u0085\u2028\u2029",
]


def test_every_framing_has_a_strict_reader_here() -> None:
    assert set(READERS) == set(FRAMERS)
    fields = [kind.options.model_fields.get("framing") for kind in PROTOCOLS.values()]
    choices = {name for field in fields if field is not None for name in get_args(field.annotation)}
    assert choices - {"none", "gelf"} == set(FRAMERS)  # these two are of datagrams


@pytest.mark.parametrize("framing", READERS)
@pytest.mark.parametrize(("name", "header"), EVERY)
@examples(10)
@given(events=st.lists(EVENTS, min_size=1, max_size=4), data=st.data())
def test_a_stream_has_as_many_messages_as_went_in(
    name: str, header: Any, framing: str, events: list[AuditEvent], data: st.DataObject
) -> None:
    records = [data.draw(texts()).encode("utf-8", "replace").replace(b"\n", b"\0") for _ in events]
    form = build_format(name, header, FORMATS[name].options(), "host")
    messages = form.encode(selection_of(events, records))
    assert READERS[framing](FRAMERS[framing](messages)) == messages
    assert len(messages) == len(events)


@pytest.mark.parametrize("framing", READERS)
@pytest.mark.parametrize(("name", "header"), EVERY)
@pytest.mark.parametrize("forged", FORGED)
def test_no_text_of_an_event_forges_another_message(
    forged: str, name: str, header: Any, framing: str
) -> None:
    event = AuditEvent(
        id=forged, time="2024-03-01T08:00:00Z", type=forged, category=forged, severity=3,
        outcome="success", actor=Actor(forged, forged, forged),
        target=Target(forged, forged, forged), message=forged, attributes={forged: forged},
    )  # fmt: skip
    record = msgspec.json.encode({"type": forged})
    form = build_format(name, header, FORMATS[name].options(), "host")
    messages = form.encode(selection_of([event, event], [record, record]))
    assert READERS[framing](FRAMERS[framing](messages)) == messages
    assert len(messages) == 2
    beginning = form.encode(selection_of([event], [record]))[0][:4]
    assert all(message[:4] == beginning for message in messages)

"""Syslog messages decoded by the batch give what each of them gives by itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from siemrelay.core.event import FIELDS, Batch
from siemrelay.decoders.json.lookup import FieldLookup
from siemrelay.decoders.syslog.columns import HeaderReader
from siemrelay.decoders.syslog.decoder import SyslogDecoder
from siemrelay.decoders.syslog.header import SyslogHeader, header_of
from tests.support.events.products import CATALOGUE, GENERIC
from tests.support.events.strategies import SPELLINGS, alike, batch_of, written
from tests.support.examples import examples
from tests.support.memory import kept_bytes
from tests.unit.decoders.test_learned import EVERYTHING, shown

RECEIVED = datetime(2026, 1, 15, 12, 0, 0, 250_000, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")

_PRIS = st.sampled_from(["<13>", "<13>", "<34>", "<191>", "<192>", "<007>", "<٣>", " <1>", "", "<"])
_STAMPS = st.sampled_from([
    "Oct 11 22:14:15", "Oct 11 22:14:15", "Feb  5 17:32:18", "Feb 30 01:02:03", "Feb 29 00:00:00",
    "Oct 11 22:14:60", "Oct 11 25:14:15", "Foo 11 22:14:15", "Jul 17 00:00:00", "Mar 29 02:30:00",
    "2026-01-01T10:11:12Z", "2026-01-01T10:11:12.123456+02:00", "2026-01-01T10:11:12", "-",
    "2026-01-01t10:11:12z", "2026-13-01T10:11:12Z", "2026-01-01Tnonsense", "2026-01-01Tnon",
    "Oct 11 22:14:15.123", "Oct 11 22:14:15 CEST", "Oct 11 22:14:15 2025", "*Oct 11 22:14:15",
])  # fmt: skip
_NAMES = st.sampled_from([
    "host", "10.0.0.1", "fe80::1", "-", "é", "UTC", "EST:x", "+0100", "2025", "2026", "2027", "123",
    "Oct", ":Oct", "app", "app:", "app[12]:", "app[]:", "app[ 1]:", "%ASA-6-302013:", "123:", "12",
    "123[4]:", "٣:", ":", "", "CEF:", "@cee:", "LEEF:", "CEF:0|x", "{", "a\tb", "a\u2028b", "1",
    "x" * 128, "x" * 129, "x" * 256, "Mon:", "UTC:", "a/b.c:", "=", "|",
])  # fmt: skip
_DATA = st.sampled_from([
    "-", "-", '[a b="c"]', '[a b="c" d="e"]', '[a b="c"][e f="g"]', '[a b="c"] [e f="g"]', "[a]",
    "[]", '[event@1 type="T" id="1"]', '[event@1 type="T" message="m" severity="9" x.y="z"]',
    '[event@1 x="y"]', '[a b="c" b="d"]', '[a b="\\""]', '[a b="] x"]', '[a b="x]"]', "--", "-x",
    '[a  b="c" ]', '[a b="c"', "[a b=c]", '[a b="c"]x', '[host b="c"]', '[a b="1" c="] "]',
    '[e type="x"][event@1 type="y"]', '[a b=""]', '[a b="1"c="2"]', '[a b="[" c="]"]',
])  # fmt: skip
_BODIES = st.sampled_from([
    "text", "", " two", "\ufeffmarked", "hello a=1 b=2", "Oct 11 22:14:16 x", "{}", "{",
    "2026-01-01 10:11:12 y", "Oct 11 22:14:16 inner app: x", '{"a": 1}', '@cee: {"msg":"x"}',
    "@cee: no",
    '{"id":1}{"id":2}', '{"a":"\\ud800"}', "[1]", '{"severity":NaN,"type":0}',
    '{"actor":{},"id":"1"}',
    '{"time":null,"type":"","severity":"high","message":"m"}', '{"type":"t","actor":"","user":"u"}',
    '{"attributes":{"attributes":{"x":1}},"syslog":{"y":2}}', '{"type":"t","attributes":[1]}',
    "CEF:0|a|b|c|d|e|5|msg=x suser=u", "CEF:0|", "LEEF:2.0|a|b|c|d|^|usrName=x^sev=5",
])  # fmt: skip
_VERSIONS = st.sampled_from(["1", "1", "1", "12", "123", "x"])
_SPACE = st.sampled_from([" ", " ", " ", " ", " ", "  ", ""])
MESSAGES = st.one_of(
    st.builds("{}{}{}{}{}{}{}{}".format,
              _PRIS, _STAMPS, _SPACE, _NAMES, _SPACE, _NAMES, _SPACE, _BODIES),
    st.builds("{}{} {} {} {} {} {} {}{}{}".format,
              _PRIS, _VERSIONS, _STAMPS, _NAMES, _NAMES, _NAMES, _NAMES, _DATA, _SPACE, _BODIES),
    st.builds("<13>1 2026-01-01T10:11:12Z host app 7 - {} {}".format, _DATA, _BODIES),
    st.builds("<13>Oct 11 22:14:15 host app[7]: {}".format, _BODIES),
    _BODIES,
)  # fmt: skip
"""Headers as they are usual, nearly usual, and with anything in any place; and what follows."""


def said(header: SyslogHeader) -> tuple[Any, ...]:
    severity = None if header.pri is None else (10, 9, 8, 7, 5, 3, 2, 0)[header.pri % 8]
    about: dict[str, Any] = {}
    if header.pri is not None:
        about |= {"facility": header.pri // 8, "severity": header.pri % 8}
    named = {"host": header.host, "app": header.app, "pid": header.pid, "msgid": header.msgid}
    about |= {name: value for name, value in named.items() if value is not None}
    origin = (severity, header.msgid or header.app or "", about)
    return origin, header.time, header.data, header.text


@pytest.mark.parametrize("zone", [UTC, BERLIN], ids=str)
@examples(400)
@given(st.lists(MESSAGES, min_size=1, max_size=6))
@example(["<13>Oct 11 22:14:15 -app[]: Oct 11 22:14:16 x"])
@example(["<13>Oct 11 22:14:15 UTC app: x", "<13>Oct 11 22:14:15 2026 app: x"])
@example(["<13>Oct 11 22:14:15 host 123: Oct 11 22:14:16 x", "<13>Oct 11 22:14:15 host 123: x"])
@example(['<13>1 - - - - - [a b="c"][e f="g"] x'])
@example(['<13>1 - - - - - [a b="1"] x', '<13>1 - - - - - [a b="1""] x'])
@example(['<13>1 - - - - - [a b="1"] x', '<13>1 - - - - - [a b="\\]\\\\"] x'])
def test_headers_of_a_batch_are_those_of_each_message(zone: tzinfo, messages: list[str]) -> None:
    expected = [said(header_of(message, RECEIVED, zone)) for message in messages]
    reader = HeaderReader(zone)
    for _ in range(2):  # what it has remembered is no other
        assert list(zip(*reader.headers(messages, RECEIVED), strict=True)) == expected


@given(st.datetimes(datetime(2026, 7, 10), datetime(2026, 7, 25)), st.integers(-90, 90))
def test_the_year_changes_in_the_midst_of_a_minute(stamped: datetime, offset_s: int) -> None:
    received = stamped.replace(tzinfo=UTC) - timedelta(days=182, seconds=offset_s)
    seconds = [f"<13>{stamped:%b %e %H:%M}:{second:02} host app: x" for second in range(60)]
    expected = [said(header_of(message, received)) for message in seconds]
    assert list(zip(*HeaderReader().headers(seconds, received), strict=True)) == expected


def test_the_usual_headers_are_not_read_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = [
        f"<34>1 2026-01-01T10:11:12.{i:03}Z host{i % 3} app {i % 5} ID47 {data} text"
        for i, data in enumerate(['-', '[a@1 b="c" d="e"]'] * 100)
    ] + [
        f"<34>{stamp}{i % 60:02}{zone} host{i % 3} app[{i % 5}]: text"
        for i, (stamp, zone) in enumerate([("Oct 11 22:14:", ""), ("2026-01-01T10:11:", "Z")] * 100)
    ] + [f"<34>Oct 11 22:14:15 host{i % 3} CEF:0|a|b" for i in range(100)]  # fmt: skip
    read: list[str] = []

    def counted(text: str, *rest: Any) -> SyslogHeader:
        read.append(text)
        return header_of(text, *rest)

    monkeypatch.setattr("siemrelay.decoders.syslog.columns.header_of", counted)
    HeaderReader().headers(usual, RECEIVED)
    assert len(read) < 100
    assert not set(read) & set(usual)


def test_what_is_kept_of_senders_is_bounded() -> None:
    reader = HeaderReader()

    def flood() -> None:
        for start in range(0, 8_000, 1000):
            numbers = range(start, start + 1000)
            reader.headers(
                [f'<13>1 - h{i} a - - [e{i} n{i}="" m="{i}"] x' for i in numbers]
                + [f"<13>Oct 11 22:14:15 h{i} a: x" for i in numbers]
                + [f"<13>1 - {i}{'h' * 200} {'a' * 200} p {'m' * 200} - x" for i in numbers],
                RECEIVED,
            )  # fmt: skip

    # All of them would take 11 MiB and more.
    assert kept_bytes(flood) < 8 << 20


def alone(
    records: Sequence[bytes], wanted: frozenset[str], spellings: str = "generic"
) -> list[tuple[Any, ...]]:
    """The events of records in batches of their own, by a decoder that learns nothing."""
    decoder = SyslogDecoder(SPELLINGS[spellings], wanted, CATALOGUE, learns=False)
    return [
        shown(decoder.decode(Batch(i, 1, "test", 1_700_000_000.25, record + b"\n")).events[0])
        for i, record in enumerate(records, 1)
    ]


def together(
    batches: Sequence[Sequence[bytes]], wanted: frozenset[str], spellings: str = "generic"
) -> list[tuple[Any, ...]]:
    """The events of the last of these batches."""
    decoder = SyslogDecoder(SPELLINGS[spellings], wanted, CATALOGUE)
    for records in batches:
        decoded = decoder.decode(batch_of(list(records)))
    return list(map(shown, decoded.events))


WANTED = [EVERYTHING, frozenset(FIELDS)]


@pytest.mark.parametrize("wanted", WANTED, ids=lambda wanted: f"{len(wanted)} fields")
@examples(200)
@given(st.lists(MESSAGES, min_size=1, max_size=12), st.integers(1, 9))
def test_a_batch_gives_the_events_that_each_record_gives_alone(
    wanted: frozenset[str], messages: list[str], times: int
) -> None:
    records = [message.encode() for message in messages for _ in range(times)]
    assert together([records, records], wanted) == alone(records, wanted)


@pytest.mark.parametrize("wanted", WANTED, ids=lambda wanted: f"{len(wanted)} fields")
@pytest.mark.parametrize("spellings", SPELLINGS)
@examples(50)
@given(records=alike(), times=st.integers(1, 5))
def test_json_inside_gives_the_events_that_each_record_gives_alone(
    spellings: str, wanted: frozenset[str],
    records: tuple[list[dict[str, Any]], list[dict[str, Any]]], times: int,
) -> None:  # fmt: skip
    header = b"<13>Oct 11 22:14:15 host app[7]: "
    sample, others = ([header + written(record) for record in some] for some in records)
    for batch in (sample * times, others * times, [*sample, *others, header + b"text"]):
        expected = alone(batch, wanted, spellings)
        assert together([sample, batch], wanted, spellings) == expected


@pytest.mark.parametrize("spellings", SPELLINGS)
@examples(50)
@given(records=alike(), times=st.integers(1, 9))
def test_records_looked_up_together_give_what_each_gives_alone(
    spellings: str, records: tuple[list[dict[str, Any]], list[dict[str, Any]]], times: int
) -> None:
    finder = FieldLookup(SPELLINGS[spellings])
    lines = [written(record) for some in records for record in some] * times

    def fresh() -> list[dict[str, Any]]:
        return [msgspec.json.decode(line) for line in lines]

    for attributes in (True, False):
        expected = [finder.events([r], attributes=attributes)[0] for r in fresh()]
        found = finder.events(fresh(), attributes=attributes)
        assert list(map(shown, found)) == list(map(shown, expected))


def test_json_inside_is_decoded_straight_into_events() -> None:
    body = {"id": "1", "type": "x", "severity": 3, "actor": {"name": "a"}, "attributes": {"n": 1}}
    decoder = SyslogDecoder(GENERIC, EVERYTHING, CATALOGUE)
    decoded = decoder.decode(batch_of([b"<13>1 - host app - - - " + written(body)] * 20))
    assert {type(event).__name__ for event in decoded.events} == {"ShapedAuditEvent"}
    assert decoded.events[0].attributes == {
        "n": 1, "syslog": {"facility": 1, "severity": 5, "host": "host", "app": "app"},
    }  # fmt: skip

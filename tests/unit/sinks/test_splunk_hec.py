"""The Splunk sink: envelopes, each code's verdict, refused events, indexer acknowledgement."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from trio.testing import MockClock

from siemrelay.core.errors import BatchRefused, DeliveryError, SinkHolds, SinkWaits
from siemrelay.core.event import Actor, AuditEvent
from siemrelay.formats.envelopes.splunk_hec import HecEnvelope, hec_events
from siemrelay.registry import FORMATS, build_format
from siemrelay.sinks.contract import Refusal
from siemrelay.sinks.splunk_hec.acks import LOST_AFTER_S, IndexerAcknowledgements
from siemrelay.sinks.splunk_hec.options import (
    SplunkHecOptions,
    acknowledgement_url,
    event_url,
)
from siemrelay.sinks.splunk_hec.sink import SplunkHecSink
from siemrelay.wire import hec_client as hec
from tests.conftest import MakeDaemon
from tests.support.daemon import QUICK_RETRY, append, event, ids, until
from tests.support.events.strategies import selection_of, texts
from tests.support.receivers.http import Answer, HttpReceiver, Request
from tests.support.receivers.splunk import TOKEN, SplunkReceiver, check_event, read_event, said
from tests.support.sessions import fault

AUTHORIZATION = f"Splunk {TOKEN}"


@pytest.fixture
def fast_clock() -> MockClock:
    """Pauses are twenty times shorter; sockets and threads take their time."""
    return MockClock(rate=20.0)


@pytest.fixture
def splunk() -> Iterator[SplunkReceiver]:
    with SplunkReceiver() as made:
        yield made


@pytest.fixture
def indexers() -> Iterator[SplunkReceiver]:
    with SplunkReceiver(acknowledges=True) as made:
        yield made


def options(url: str, **more: object) -> SplunkHecOptions:
    return SplunkHecOptions.model_validate({"url": url, "authorization": AUTHORIZATION, **more})


class Scripted(HttpReceiver):
    """Says what it is told to, whatever is sent."""

    def taken(self, request: Request) -> list[bytes]:
        return []


def hec_event(n: int, **more: object) -> bytes:
    return json.dumps({"time": 1709280000.123, "event": {"n": n}, **more}).encode()


async def post(made: SplunkHecOptions, *messages: bytes) -> list[Refusal]:
    async with SplunkHecSink(made).session() as session:
        return list(await session.confirm(await session.send(messages or (hec_event(1),))))


async def fails(made: SplunkHecOptions, *messages: bytes) -> DeliveryError:
    return await fault(SplunkHecSink(made), *messages or (hec_event(1),))


def numbers(receiver: SplunkReceiver) -> list[int]:
    return [int(one["event"]["n"]) for one in receiver.events]


# -- envelopes ------------------------------------------------------------


def envelope(form: str = "json", **more: Any) -> HecEnvelope:
    inner = build_format(form, "none", FORMATS[form].options(), "relay")
    metadata = {"host": "relay", "source": None, "sourcetype": None, "index": None, **more}
    return HecEnvelope(inner, **metadata)


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("2024-03-01T08:00:00.123Z", b"1709280000.123"),
        ("2024-03-01T08:00:00Z", b"1709280000.000"),
        ("2024-03-01T09:00:00.007+01:00", b"1709280000.007"),
        ("1970-01-01T00:00:00.000Z", b"0.000"),
        ("1970-01-01T00:00:00.042Z", b"0.042"),
        ("1969-12-31T23:59:59.500Z", b"-0.500"),
        ("9999-12-31T23:59:59.999Z", b"253402300799.999"),
    ],
)
def test_the_time_is_the_events_own_in_seconds_as_a_plain_decimal(
    time: str, seconds: bytes
) -> None:
    (message,) = envelope().encode(selection_of([AuditEvent(type="x", time=time)]))
    assert message.startswith(b'{"time":' + seconds + b",")


def test_an_event_without_time_leaves_it_to_splunk() -> None:
    (message,) = envelope().encode(selection_of([AuditEvent(type="x")]))
    assert json.loads(message).keys() == {"host", "source", "event"}


def test_metadata_stands_beside_the_event_and_what_is_not_set_is_left_out() -> None:
    selection = selection_of([AuditEvent(type="x", time="2024-03-01T08:00:00Z")])
    (message,) = envelope().encode(selection)
    found = json.loads(message)
    assert found.keys() == {"time", "host", "source", "event"}
    assert (found["host"], found["source"]) == ("relay", selection.decoded.batch.source)
    (message,) = envelope(index="audit", source='a "b"', sourcetype="alm").encode(selection)
    found = json.loads(message)
    assert (found["index"], found["source"], found["sourcetype"]) == ("audit", 'a "b"', "alm")


@pytest.mark.parametrize(
    ("record", "event"),
    [
        (b'{"a":1}', {"a": 1}),
        (b"plain text", "plain text"),
        (b'{"a":1', '{"a":1'),
        (b'{"a":nan}', '{"a":nan}'),
        (b'{"a":1}{"b":2}', '{"a":1}{"b":2}'),
        (b"[1]", "[1]"),
        (b"", "-"),
        (b" ", "-"),
        # Deeper than any Python reads: how deep that is depends on its version.
        (b'{"a":' * 200_000 + b"1" + b"}" * 200_000, '{"a":' * 200_000 + "1" + "}" * 200_000),
    ],
    ids=range(9),
)
def test_an_object_is_the_event_as_it_is_and_anything_else_is_a_text(
    record: bytes, event: object
) -> None:
    (message,) = envelope("raw").encode(selection_of([AuditEvent(type="x")], [record]))
    assert json.loads(message)["event"] == event


def test_indexed_fields_are_flat_and_what_an_event_lacks_is_left_out() -> None:
    fields = {
        "user": "actor.name", "level": "severity", "nested": "attributes.a", "many": "attributes.b",
        "deep": "attributes.a.b", "yes": "attributes.c", "none": "target.id",
    }  # fmt: skip
    event = AuditEvent(
        type="x", actor=Actor(name="Ada"), severity=4,
        attributes={"a": {"b": 0.5}, "b": ["one", 2, {"c": None}, None], "c": True},
    )  # fmt: skip
    made = envelope(fields=fields)
    assert {"actor.name", "severity", "attributes", "target.id"} <= made.fields
    message, bare = made.encode(selection_of([event, AuditEvent(type="x")]))
    assert json.loads(message)["fields"] == {
        "user": "Ada", "level": 4, "nested": '{"b": 0.5}', "many": ["one", "2", '{"c": null}'],
        "deep": 0.5, "yes": "true",
    }  # fmt: skip
    assert "fields" not in json.loads(bare)


async def test_the_collector_takes_indexed_fields_and_refuses_nested_ones(
    splunk: SplunkReceiver,
) -> None:
    event = AuditEvent(type="x", attributes={"a": {"b": 1}, "n": [[1]]})
    made = envelope(fields={"type": "type", "a": "attributes.a", "n": "attributes.n"})
    (message,) = made.encode(selection_of([event]))
    assert await post(options(splunk.url), message) == []
    assert splunk.events[0]["fields"] == {"type": "x", "a": '{"b": 1}', "n": ["[1]"]}
    (refusal,) = await post(options(splunk.url), hec_event(1, fields={"a": {"b": 1}}))
    assert refusal.code == "15"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"fields": {"user": "actor.nam"}}, "is not an event field"),
        ({"fields": {"user": None}}, "name the event field that it takes"),
        ({"fields": {"index": "type"}}, "'index' is reserved by Splunk"),
        ({"fields": {"_time": "time"}}, "'_time' is reserved by Splunk"),
        ({"fields": {"user": "actor.name"}, "endpoint": "raw"}, "needs `endpoint: event`"),
    ],
)
def test_indexed_fields_that_splunk_would_not_take_are_a_fault(
    more: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ValidationError, match=expected):
        options("https://s", **more)


@pytest.mark.parametrize("form", FORMATS)
@given(said_text=texts())
def test_whatever_the_format_the_collector_takes_the_envelope(form: str, said_text: str) -> None:
    made = AuditEvent(
        id="1", time="2024-03-01T08:00:00.5Z", type=said_text or "x", severity=3,
        outcome="success", message=said_text, attributes={said_text: said_text},
    )  # fmt: skip
    record = said_text.encode("utf-8", "replace").replace(b"\n", b" ")
    messages = envelope(form, index="audit").encode(selection_of([made, made], [record, record]))
    for message in messages:
        assert not {0, 10, 13} & set(message)
        check_event(read_event(message), 0, {"audit"})


# -- options --------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "endpoint", "events_to", "acknowledgements_at"),
    [
        ("https://s:8088", "event", "/services/collector/event", "/services/collector/ack"),
        ("https://s:8088/", "raw", "/services/collector/raw", "/services/collector/ack"),
        (
            "https://s:8088/services/collector", "event",
            "/services/collector", "/services/collector/ack",
        ),
        (
            "https://s/services/collector/event/1.0", "event",
            "/services/collector/event/1.0", "/services/collector/ack",
        ),
        ("https://s/hec/raw", "raw", "/hec/raw", "/hec/ack"),
        ("https://s/in", "event", "/in", "/in/ack"),
    ],
)  # fmt: skip
def test_the_usual_path_is_added_where_there_is_none(
    url: str, endpoint: str, events_to: str, acknowledgements_at: str
) -> None:
    made = options(url, endpoint=endpoint)
    assert urlsplit(event_url(made)).path == events_to
    asked = urlsplit(acknowledgement_url(made, "GUID"))
    assert (asked.path, asked.query) == (acknowledgements_at, "channel=GUID")


def test_a_url_of_the_other_endpoint_is_a_fault() -> None:
    with pytest.raises(ValueError, match="`url` ends in /raw, but `endpoint` is event"):
        options("https://s:8088/services/collector/raw")


# -- verdicts -------------------------------------------------------------

VERDICTS = [
    *[(code, 200, None) for code in (0, 24, 25)],
    *[(code, 403, SinkHolds) for code in (1, 4)],
    (7, 400, SinkHolds),
    *[(code, status, SinkHolds) for code, status in ((2, 401), (3, 401), (16, 400))],
    *[(code, 400, hec.EventRefused) for code in (5, 6, 12, 13, 15)],
    *[(code, 400, SinkHolds) for code in (10, 11, 14)],
    *[(code, status, SinkWaits) for code, status in ((8, 500), (9, 503), (23, 503))],
    *[(code, 429, SinkWaits) for code in (26, 27)],
]


@pytest.mark.parametrize(("code", "status", "error"), VERDICTS)
def test_each_code_says_what_to_do_next(
    code: int, status: int, error: type[DeliveryError] | None
) -> None:
    answer = said(code)
    assert answer.status == status
    words = hec.read_answer(answer.words.encode())
    assert words is not None
    found = hec.error_for(words, status, 17.0)
    assert type(found) is (error or type(None))
    if isinstance(found, SinkHolds):
        assert found.advice
        assert found.reason == f"HTTP {status}: {words.text} (code {code})"
    if isinstance(found, SinkWaits):
        assert found.after_s == 17.0
    if isinstance(found, hec.EventRefused):
        assert (found.code, found.reason) == (str(code), words.text)


@pytest.mark.parametrize(("code", "status", "error"), VERDICTS)
async def test_each_code_has_its_effect_on_a_run_of_one(
    code: int, status: int, error: type[DeliveryError] | None
) -> None:
    with Scripted(lambda request: said(code)) as receiver:
        if error is None:
            assert await post(options(receiver.url)) == []
        elif error is hec.EventRefused:
            (refusal,) = await post(options(receiver.url))
            assert (refusal.index, refusal.code) == (0, str(code))
        else:
            found = await fails(options(receiver.url))
            assert type(found) is error


def test_every_row_of_the_table_is_tested() -> None:
    tested = {code for code, _, _ in VERDICTS}
    # The rest is only said by the health endpoint, which some receivers do not keep apart.
    assert set(hec.CODES) - tested == {18, 19, 20, 21, 22}


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_read_as_an_answer_or_as_none(body: bytes) -> None:
    hec.read_answer(body)
    hec.read_ack_results(body)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(200, "<html>Log in</html>"), SinkHolds),
        (Answer(200, ""), SinkHolds),
        (Answer(200, '{"ok":true}'), SinkHolds),
        (Answer(200, '{"text":"HEC is healthy","code":17}'), SinkHolds),
        (Answer(204), SinkHolds),
        (Answer(303, Location="https://elsewhere.example/login"), SinkHolds),
        (Answer(401, "<response>Unauthorized</response>"), SinkHolds),
        (Answer(400, "The plain HTTP request was sent to HTTPS port"), SinkHolds),
        (Answer(502, "<html>Bad Gateway</html>"), SinkWaits),
        (Answer(413, "Content-Length too large"), BatchRefused),
        (Answer(400, '{"text":"something new","code":99}'), BatchRefused),
    ],
    ids=lambda value: f"{value.status} {value.words[:20]}" if isinstance(value, Answer) else None,
)
async def test_an_answer_that_is_not_the_collectors_confirms_nothing(
    answer: Answer, error: type[DeliveryError]
) -> None:
    with Scripted(lambda request: answer) as receiver:
        found = await fails(options(receiver.url))
    assert type(found) is error
    if answer.status in (200, 204, 400, 401) and isinstance(found, SinkHolds):
        assert "8088" in found.advice


async def test_a_missing_page_is_waited_for_and_then_held(
    splunk: SplunkReceiver, mock_clock: MockClock
) -> None:
    mock_clock.rate = 1.0  # real sockets need real time between the leaps
    collect = splunk.answer
    splunk.answer = lambda request: Answer(404, "not here")
    sink = SplunkHecSink(options(splunk.url))

    async def outcome() -> type[DeliveryError] | None:
        async with sink.session() as session:
            try:
                await session.confirm(await session.send([hec_event(1)]))
            except (SinkWaits, SinkHolds) as error:
                faults.append(str(error))
                return type(error)
            return None

    faults: list[str] = []
    assert await outcome() is SinkWaits
    mock_clock.jump(280)
    assert await outcome() is SinkWaits
    mock_clock.jump(21)
    assert await outcome() is SinkHolds
    splunk.answer = collect
    assert await outcome() is None
    splunk.answer = lambda request: Answer(404, "not here")
    assert await outcome() is SinkWaits
    assert all("check `url`" in one for one in faults)


async def test_the_pause_that_splunk_asks_for_is_passed_on(splunk: SplunkReceiver) -> None:
    busy = Answer(503, said(9).words, Retry_After="42")
    splunk.answer = lambda request: busy
    found = await fails(options(splunk.url))
    assert isinstance(found, SinkWaits)
    assert found.after_s == 42


# -- requests -------------------------------------------------------------


async def test_events_are_taken_with_token_and_gzip(splunk: SplunkReceiver) -> None:
    assert await post(options(splunk.url), hec_event(1), hec_event(2)) == []
    assert numbers(splunk) == [1, 2]
    (request,) = splunk.requests
    assert request.target == "/services/collector/event"
    assert request.headers["authorization"] == AUTHORIZATION
    assert gzip.decompress(request.body)
    assert "x-splunk-request-channel" not in request.headers


async def test_raw_lines_go_with_their_metadata_in_the_address(splunk: SplunkReceiver) -> None:
    made = options(splunk.url, endpoint="raw", index="audit", sourcetype="cef & co")
    form = build_format("raw", "none", FORMATS["raw"].options(), "relay")
    assert hec_events(form, made) is form
    assert await post(made, b"one", b"two") == []
    assert splunk.arrived.messages == [b"one", b"two"]
    (request,) = splunk.requests
    query = parse_qs(urlsplit(request.target).query)
    assert query == {
        "index": ["audit"], "sourcetype": ["cef & co"], "host": [socket.gethostname()]
    }  # fmt: skip


async def test_raw_lines_for_an_unknown_index_hold_after_one_request(
    splunk: SplunkReceiver,
) -> None:
    found = await fails(options(splunk.url, endpoint="raw", index="nowhere"), b"one", b"two")
    assert isinstance(found, SinkHolds)
    assert "`index`" in found.advice
    assert len(splunk.requests) == 1


async def test_a_token_without_its_scheme_gets_advice_how_to_write_it(
    splunk: SplunkReceiver,
) -> None:
    for authorization in (TOKEN, f"Bearer {TOKEN}"):
        found = await fails(options(splunk.url, authorization=authorization))
        assert isinstance(found, SinkHolds)
        assert 'write `authorization: "Splunk TOKEN"`' in found.advice
        assert TOKEN not in str(found)


# -- refused events -------------------------------------------------------


@pytest.mark.parametrize("from_one", [False, True])
@pytest.mark.parametrize("keeps_earlier", [False, True])
@pytest.mark.parametrize("bad", [{0}, {3}, {9}, {0, 1}, {4, 5, 6}, {0, 9}, {1, 3, 5, 7}])
async def test_exactly_the_refused_events_are_isolated(
    splunk: SplunkReceiver, bad: set[int], keeps_earlier: bool, from_one: bool
) -> None:
    """Whether Splunk keeps what was before the event, and counts it from 0 or from 1."""
    splunk.refuse = lambda event: 13 if int(event["event"]["n"]) in bad else None
    splunk.keeps_earlier, splunk.counts_from_one = keeps_earlier, from_one
    settlement = await post(options(splunk.url), *map(hec_event, range(10)))
    assert {(r.index, r.code) for r in settlement} == {(n, "13") for n in bad}
    assert [r.index for r in settlement] == sorted(bad)
    good = [n for n in range(10) if n not in bad]
    assert sorted(set(numbers(splunk))) == good
    if not keeps_earlier:
        assert numbers(splunk) == good


async def test_a_refused_event_costs_a_few_requests(splunk: SplunkReceiver) -> None:
    splunk.refuse = lambda event: 13 if int(event["event"]["n"]) == 250 else None
    (refusal,) = await post(options(splunk.url), *map(hec_event, range(500)))
    assert refusal == Refusal(250, "13", "Event field cannot be blank")
    assert len(splunk.requests) == 4


@pytest.mark.parametrize("says", [{}, {"invalid-event-number": 77}, {"invalid-event-number": -3}])
async def test_a_number_that_is_missing_or_wrong_costs_requests_and_no_event(
    splunk: SplunkReceiver, says: dict[str, int]
) -> None:
    collect = splunk.answer

    def unhelpful(request: Request) -> Answer:
        answer = collect(request)
        return answer if answer.status == 200 else said(6, **says)

    splunk.answer = unhelpful
    splunk.refuse = lambda event: 6 if int(event["event"]["n"]) == 6 else None
    (refusal,) = await post(options(splunk.url), *map(hec_event, range(9)))
    assert refusal.index == 6
    assert numbers(splunk) == [0, 1, 2, 3, 4, 5, 7, 8]


@pytest.mark.parametrize("count", [1, 2, 9, 500])
async def test_an_index_that_no_event_may_be_written_to_holds(
    splunk: SplunkReceiver, count: int
) -> None:
    messages = [hec_event(n, index="nowhere") for n in range(count)]
    found = await fails(options(splunk.url), *messages)
    assert isinstance(found, SinkHolds)
    assert "set `index` to one that exists" in found.advice
    assert len(splunk.requests) == 1


async def test_a_run_refused_event_by_event_is_left_to_delivery_soon(
    splunk: SplunkReceiver,
) -> None:
    splunk.refuse = lambda event: 6
    assert isinstance(await fails(options(splunk.url), *map(hec_event, range(500))), BatchRefused)
    assert len(splunk.requests) < 50
    assert len(await post(options(splunk.url), *map(hec_event, range(10)))) == 10


@pytest.mark.parametrize("bad", [{250}, {499}, {17, 250, 251, 400}])
async def test_a_number_that_is_always_the_same_costs_no_request_for_each_event(
    splunk: SplunkReceiver, bad: set[int]
) -> None:
    collect = splunk.answer

    def lying(request: Request) -> Answer:
        answer = collect(request)
        return answer if answer.status == 200 else said(6, **{"invalid-event-number": 0})

    splunk.answer = lying
    splunk.refuse = lambda event: 6 if int(event["event"]["n"]) in bad else None
    settlement = await post(options(splunk.url), *map(hec_event, range(500)))
    assert [refusal.index for refusal in settlement] == sorted(bad)
    assert numbers(splunk) == [n for n in range(500) if n not in bad]
    assert len(splunk.requests) <= 5 + 19 * len(bad)


# -- indexer acknowledgement ----------------------------------------------


async def test_a_run_is_confirmed_only_when_the_indexers_have_it(
    indexers: SplunkReceiver, fast_clock: MockClock
) -> None:
    indexed: dict[int, bool] = {}
    indexers.indexed = lambda ack_id: indexed.get(ack_id, False)
    async with SplunkHecSink(
        options(indexers.url, indexer_acknowledgement=True)
    ).session() as session:
        first = await session.send([hec_event(1)])
        second = await session.send([hec_event(2)])
        await trio.to_thread.run_sync(until, lambda: [0, 1] in map(sorted, indexers.asked))
        assert not first.ended.is_set()
        indexed[0] = True
        assert await session.confirm(first) == []
        assert not second.ended.is_set()
        indexed[1] = True
        assert await session.confirm(second) == []
    assert indexers.asked[-1] == [1], "what was answered `true` is not asked for again"
    assert numbers(indexers) == [1, 2]
    (channel,) = {r.headers["x-splunk-request-channel"] for r in indexers.requests}
    asked_in = [parse_qs(urlsplit(r.target).query) for r in indexers.requests if "ack" in r.target]
    assert asked_in == [{"channel": [channel]}] * len(asked_in)


async def test_many_runs_may_wait_for_the_indexers_at_a_time(
    indexers: SplunkReceiver, fast_clock: MockClock
) -> None:
    made = options(indexers.url, indexer_acknowledgement=True)
    runs = made.limits().in_flight_batches or 0
    assert runs > 8
    indexers.indexed = lambda ack_id: len(indexers.arrived) == runs
    async with SplunkHecSink(made).session() as session:
        tickets = [await session.send([hec_event(n)]) for n in range(runs)]
        for ticket in tickets:
            assert await session.confirm(ticket) == []
    assert sorted(numbers(indexers)) == list(range(runs))


async def test_refused_events_are_isolated_and_the_rest_acknowledged(
    indexers: SplunkReceiver, fast_clock: MockClock
) -> None:
    indexers.refuse = lambda event: 13 if int(event["event"]["n"]) == 2 else None
    made = options(indexers.url, indexer_acknowledgement=True)
    (refusal,) = await post(made, *map(hec_event, range(5)))
    assert refusal.index == 2
    assert sorted(i for asked in indexers.asked for i in asked) == [0, 1]


async def test_a_token_and_a_sink_that_disagree_about_acknowledgement_hold(
    splunk: SplunkReceiver, indexers: SplunkReceiver
) -> None:
    found = await fails(options(splunk.url, indexer_acknowledgement=True))
    assert isinstance(found, SinkHolds)
    assert "turn on indexer acknowledgement" in found.advice
    found = await fails(options(indexers.url))
    assert isinstance(found, SinkHolds)
    assert "set `indexer_acknowledgement: yes`" in found.advice


@pytest.mark.parametrize(
    "answer",
    [
        said(14), said(4), said(10), said(6), Answer(200, "<html>"), Answer(200, "{}"),
        Answer(400, "no"), Answer(405, "no"),
    ],
)  # fmt: skip
async def test_when_acknowledgements_cannot_be_asked_for_the_sink_holds(
    indexers: SplunkReceiver, answer: Answer, fast_clock: MockClock
) -> None:
    collect = indexers.answer
    indexers.answer = lambda request: answer if "/ack" in request.target else collect(request)
    found = await fails(options(indexers.url, indexer_acknowledgement=True))
    assert isinstance(found, SinkHolds)
    assert found.advice


async def test_while_the_question_fails_it_is_asked_again_and_nothing_sent_again(
    indexers: SplunkReceiver, fast_clock: MockClock
) -> None:
    collect = indexers.answer
    answers = iter([said(9), Answer(404, "gone"), Answer(429, "slower", Retry_After="0")])

    def troubled(request: Request) -> Answer:
        answer = next(answers, None) if "/ack" in request.target else None
        return answer or collect(request)

    indexers.answer = troubled
    async with SplunkHecSink(
        options(indexers.url, indexer_acknowledgement=True)
    ).session() as session:
        assert await session.confirm(await session.send([hec_event(1)])) == []
    assert numbers(indexers) == [1]
    assert len(indexers.asked) == 4


class Indexers:
    """Answers questions without a network: `indexed` by ack id, `error` is what goes wrong."""

    def __init__(self) -> None:
        self.indexed: dict[int, bool] = {}
        self.error: DeliveryError | None = None
        self.asked: list[list[int]] = []

    async def ask(self, ack_ids: Sequence[int]) -> Mapping[int, bool]:
        await trio.lowlevel.checkpoint()
        self.asked.append(list(ack_ids))
        if self.error is not None:
            raise self.error
        return {ack_id: self.indexed.pop(ack_id, False) for ack_id in ack_ids}


async def waits(acknowledgements: IndexerAcknowledgements, *ack_ids: int) -> DeliveryError | None:
    try:
        await acknowledgements.wait(ack_ids)
    except DeliveryError as error:
        return error
    return None


async def test_what_is_not_acknowledged_in_five_minutes_is_sent_again(
    autojump_clock: MockClock,
) -> None:
    indexers, began = Indexers(), trio.current_time()
    async with trio.open_nursery() as nursery:
        acknowledgements = IndexerAcknowledgements(indexers.ask)
        nursery.start_soon(acknowledgements.poll)
        found = await waits(acknowledgements, 1)
        assert isinstance(found, SinkWaits)
        assert trio.current_time() - began == LOST_AFTER_S
        assert 20 < len(indexers.asked) < 100
        indexers.indexed = {2: True}
        assert await waits(acknowledgements, 2) is None
        assert indexers.asked[-1] == [2]
        nursery.cancel_scope.cancel()


async def test_the_last_trouble_with_asking_is_in_the_reason(autojump_clock: MockClock) -> None:
    indexers = Indexers()
    indexers.error = SinkWaits("HTTP 503: Server is busy (code 9)", after_s=30)
    async with trio.open_nursery() as nursery:
        acknowledgements = IndexerAcknowledgements(indexers.ask)
        nursery.start_soon(acknowledgements.poll)
        found = await waits(acknowledgements, 1)
        nursery.cancel_scope.cancel()
    assert "Server is busy" in str(found)
    assert len(indexers.asked) < 12, "the pause it asks for is kept"


async def test_all_waiting_batches_fail_with_what_a_person_must_fix(
    autojump_clock: MockClock,
) -> None:
    indexers, found = Indexers(), list[DeliveryError | None]()
    indexers.error = SinkHolds("ACK is disabled", advice="turn it on")
    async with trio.open_nursery() as nursery:
        acknowledgements = IndexerAcknowledgements(indexers.ask)
        nursery.start_soon(acknowledgements.poll)

        async def wait(ack_id: int) -> None:
            found.append(await waits(acknowledgements, ack_id))

        for ack_id in range(3):
            nursery.start_soon(wait, ack_id)
    assert found == [indexers.error] * 3
    assert await waits(acknowledgements, 7) is indexers.error, "nor does a later one wait"


async def test_neither_of_two_requests_with_one_acknowledgement_id_is_confirmed(
    autojump_clock: MockClock,
) -> None:
    indexers, found = Indexers(), list[DeliveryError | None]()
    async with trio.open_nursery() as nursery:
        acknowledgements = IndexerAcknowledgements(indexers.ask)
        nursery.start_soon(acknowledgements.poll)

        async def wait(*ack_ids: int) -> None:
            found.append(await waits(acknowledgements, *ack_ids))

        nursery.start_soon(wait, 5)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(wait, 5)
        await trio.testing.wait_all_tasks_blocked()
        indexers.indexed = {5: True}
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert [type(error) for error in found] == [SinkWaits, SinkWaits]
    assert isinstance(await waits(IndexerAcknowledgements(indexers.ask), 1, 1), SinkWaits)


async def test_cancelling_anywhere_leaves_nothing_behind(indexers: SplunkReceiver) -> None:
    indexers.indexed = lambda ack_id: False
    sink = SplunkHecSink(options(indexers.url, indexer_acknowledgement=True))
    for checkpoints in range(0, 40, 4):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def cancel(scope: trio.CancelScope, checkpoints: int) -> None:
                    for _ in range(checkpoints):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()

                nursery.start_soon(cancel, scope, checkpoints)
                async with sink.session() as session:
                    await session.confirm(await session.send([hec_event(1)]))
        assert scope.cancelled_caught


# -- the daemon -----------------------------------------------------------


def splunk_sink(url: str, **settings: Any) -> dict[str, Any]:
    return {
        "protocol": "splunk-hec", "url": url, "authorization": AUTHORIZATION, "index": "audit",
        "retry": QUICK_RETRY, "batch": {"max_wait": "10ms"}, **settings,
    }  # fmt: skip


@pytest.mark.parametrize("acknowledges", [False, True])
def test_the_daemon_delivers_to_splunk_and_keeps_what_it_refuses(
    make_daemon: MakeDaemon, acknowledges: bool
) -> None:
    with SplunkReceiver(acknowledges=acknowledges) as splunk:
        splunk.refuse = lambda event: 6 if event["event"]["id"] == "n0000070" else None
        sink = splunk_sink(splunk.url, indexer_acknowledgement=acknowledges)
        daemon = make_daemon({"splunk": sink})
        append(daemon.audit, map(event, range(1, 101)))
        daemon.start()
        splunk.until(99)
        until(lambda: daemon.metric("sink_delivered_total", sink="splunk") == 99)
        assert daemon.metric("sink_dead_lettered_total", sink="splunk") == 1
        assert [e["event"]["id"] for e in splunk.events] == [i for i in ids(range(1, 101))
                                                              if i != "n0000070"]  # fmt: skip
        first = splunk.events[0]
        assert (first["index"], first["source"]) == ("audit", "audit")
        assert first["host"] == socket.gethostname()
        assert first["time"] == "1772600767.089"


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"authorization": "Splunk wrong"}, "Splunk does not know this token"),
        ({"authorization": TOKEN}, 'write `authorization: "Splunk TOKEN"`'),
        ({"index": "nowhere"}, "set `index` to one that exists in Splunk"),
        ({"indexer_acknowledgement": True}, "turn on indexer acknowledgement for this token"),
    ],
)
def test_test_says_what_to_change(
    make_daemon: MakeDaemon, settings: dict[str, Any], advice: str
) -> None:
    with SplunkReceiver() as splunk:
        found = make_daemon({"splunk": splunk_sink(splunk.url, **settings)}).command(
            "test", "splunk"
        )
    assert found.returncode == 1
    assert advice in found.stderr
    assert "answer" in found.stdout
    assert TOKEN not in found.stdout + found.stderr


@pytest.mark.parametrize("acknowledges", [False, True])
def test_test_shows_each_step_of_a_collector_that_takes_the_event(
    make_daemon: MakeDaemon, acknowledges: bool
) -> None:
    with SplunkReceiver(acknowledges=acknowledges) as splunk:
        sink = splunk_sink(splunk.url, indexer_acknowledgement=acknowledges)
        found = make_daemon({"splunk": sink}).command("test", "splunk")
        assert found.returncode == 0, found.stderr
        (taken,) = splunk.events
    assert taken["event"]["type"] == "SIEM Integration Test"
    assert '"text": "Success"' in found.stdout
    assert ('{"acks": {"0": true}}' in found.stdout) is acknowledges

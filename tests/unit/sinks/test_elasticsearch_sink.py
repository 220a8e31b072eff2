"""The Elasticsearch sink: documents, verdicts item by item, and what `test` says about settings."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from siemrelay.core.errors import BatchRefused, DeliveryError, SinkHolds, SinkWaits, leaves
from siemrelay.core.event import AuditEvent, Batch, DecodedBatch, Selection
from siemrelay.formats.ecs.document import Ecs, EcsOptions
from siemrelay.formats.envelopes.bulk import bulk_documents
from siemrelay.formats.json import Json, JsonOptions
from siemrelay.formats.raw import Raw
from siemrelay.sinks import elasticsearch
from siemrelay.sinks.contract import Refusal
from siemrelay.sinks.elasticsearch import ElasticsearchOptions, ElasticsearchSink
from siemrelay.wire.elasticsearch import NotABulkResponse, failed_items, read_error
from tests.conftest import MakeDaemon
from tests.support.daemon import QUICK_RETRY, append, event, ids, until
from tests.support.receivers.elasticsearch import Elasticsearch
from tests.support.receivers.http import Answer
from tests.support.sessions import fault

KEY = "ApiKey dmVyeTpzZWNyZXQ="


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elasticsearch, "RETRY_DOCUMENTS_S", 0.001)


@pytest.fixture
def cluster() -> Iterator[Elasticsearch]:
    with Elasticsearch(authorization=KEY) as made:
        yield made


def documents(*names: str, **fields: Any) -> list[bytes]:
    """The messages of events with these ids."""
    events = [
        AuditEvent(id=name, time="2026-03-04T05:06:07.089Z", severity=3, outcome="success",
                   **{"type": "Account Provisioned", "message": f"event {name}"} | fields)
        for name in names
    ]  # fmt: skip
    return encoded(Ecs(EcsOptions()), events)


def id_of(message: bytes) -> str:
    """The `_id` in a message's action line."""
    return str(json.loads(message.split(b"\n")[0])["create"]["_id"])


def encoded(inner: Any, events: list[AuditEvent], payload: bytes = b"") -> list[bytes]:
    batch = Batch(1, len(events), "audit", 1.7e9, payload or b"{}\n" * len(events))
    options = ElasticsearchOptions(url="http://localhost:9200")
    return list(bulk_documents(inner, options).encode(Selection(DecodedBatch(batch, events))))


def made(cluster: Elasticsearch, **more: object) -> ElasticsearchSink:
    settings = {"url": cluster.url, "authorization": KEY, **more}
    return ElasticsearchSink(ElasticsearchOptions.model_validate(settings))


async def send(cluster: Elasticsearch, messages: list[bytes], **more: object) -> list[Refusal]:
    async with made(cluster, **more).session() as session:
        return list(await session.confirm(await session.send(messages)))


async def fails(cluster: Elasticsearch, messages: list[bytes], **more: object) -> DeliveryError:
    return await fault(made(cluster, **more), *messages)


# -- documents ------------------------------------------------------------


async def test_events_become_documents_with_their_time(cluster: Elasticsearch) -> None:
    assert await send(cluster, documents("a", "b"), compression="gzip") == []
    assert list(cluster.events) == ["a", "b"]
    assert cluster.events["a"]["@timestamp"] == "2026-03-04T05:06:07.089Z"
    assert cluster.requests[0].headers["content-type"] == "application/x-ndjson"
    assert cluster.requests[0].target.startswith("/logs-siemrelay-default/_bulk?filter_path=")


@pytest.mark.parametrize(
    ("record", "document"),
    [
        (b'{"a":1}', {"@timestamp": "T", "a": 1}),
        (b' { } ', {"@timestamp": "T"}),
        (b'{"@timestamp":"2020-01-01","a":1}', {"@timestamp": "2020-01-01", "a": 1}),
        (b'{"\\u0040timestamp":null,"a":1}', {"@timestamp": "T", "a": 1}),
        (b"[1]", {"@timestamp": "T", "message": "[1]"}),
        (b'{"a":', {"@timestamp": "T", "message": '{"a":'}),
        (b"CEF:0|a", {"@timestamp": "T", "message": "CEF:0|a"}),
    ],
)  # fmt: skip
def test_any_message_becomes_a_document_with_a_time(
    record: bytes, document: dict[str, Any]
) -> None:
    (message,) = encoded(Raw(), [AuditEvent(id="a", time="T")], record + b"\n")
    action, line = message.split(b"\n")
    assert re.fullmatch('{"create":{"_id":"[0-9a-f]{32}"}}', action.decode())
    assert json.loads(line) == document


def test_no_id_of_an_event_breaks_its_action_line() -> None:
    messages = documents("x" * 300, "\n" * 200, '"}', "\ufffd")
    assert len(set(map(id_of, messages))) == len(messages)
    assert all(len(message.split(b"\n")) == 2 for message in messages)


async def test_the_json_format_gets_its_time_in_front(cluster: Elasticsearch) -> None:
    event = AuditEvent(id="a", time="2026-03-04T05:06:07.089Z", type="T")
    assert await send(cluster, encoded(Json(JsonOptions()), [event])) == []
    assert list(cluster.events["a"])[:2] == ["@timestamp", "id"]


# -- verdicts -------------------------------------------------------------


async def test_what_is_sent_again_is_not_stored_twice_and_said_to_be_there(
    cluster: Elasticsearch,
) -> None:
    assert await send(cluster, documents("a", "b")) == []
    found = await send(cluster, documents("a", "b", "c"))
    assert [(each.index, each.code, each.duplicate) for each in found] == [
        (0, "409", True), (1, "409", True),
    ]  # fmt: skip
    assert list(cluster.events) == ["a", "b", "c"]


async def test_a_conflict_after_a_shard_was_away_is_the_document_itself(
    cluster: Elasticsearch,
) -> None:
    """A 503 of one item may come though its primary shard has stored it."""
    a, b = documents("a", "b")
    statuses = {"b": [503]}

    def busy(name: str) -> int:
        if not statuses.get(name):
            return 0
        cluster.documents[id_of(b)] = {"event": {"id": "b"}}
        return statuses[name].pop()

    cluster.busy = busy
    assert await send(cluster, [a, b]) == []
    assert sorted(cluster.events) == ["a", "b"]


async def test_only_what_was_turned_away_is_sent_again(cluster: Elasticsearch) -> None:
    turned_away = {"b": [429, 503], "d": [429]}
    cluster.busy = lambda name: (turned_away.get(name) or [0]).pop(0)
    assert await send(cluster, documents("a", "b", "c", "d")) == []
    assert sorted(cluster.events) == ["a", "b", "c", "d"]
    sizes = [len(request.content.splitlines()) // 2 for request in cluster.requests]
    assert sizes == [4, 2, 1]


async def test_a_cluster_that_takes_nothing_is_waited_for(cluster: Elasticsearch) -> None:
    cluster.busy = lambda name: 0 if name == "a" else 429
    found = await fails(cluster, documents("a", "b", "c"))
    assert isinstance(found, SinkWaits)
    assert "es_rejected_execution_exception" in str(found)
    assert len(cluster.requests) == 2


async def test_a_document_that_cannot_be_parsed_is_refused_alone(cluster: Elasticsearch) -> None:
    assert await send(cluster, documents("a", attributes={"n": {"m": 1}})) == []
    bad = b'{"create":{"_id":"bad"}}\n{"@timestamp":"2026-03-04T05:06:07Z","message":{"no":1}}'
    turned_away = {"c": [429]}
    cluster.busy = lambda name: (turned_away.get(name) or [0]).pop(0)
    b, c, d = documents("b", "c", "d")
    (refusal,) = await send(cluster, [b, c, bad, d])
    assert (refusal.index, refusal.code) == (2, "400")
    assert refusal.reason.startswith("document_parsing_exception: failed to parse field [message]")
    assert "For input" in refusal.reason
    assert sorted(cluster.events) == ["a", "b", "c", "d"]


async def test_a_document_in_the_failure_store_is_refused(cluster: Elasticsearch) -> None:
    """The 201 hides that no search of the data stream finds it."""
    cluster.failures = []
    bad = b'{"create":{"_id":"bad"}}\n{"@timestamp":"no time"}'
    a, b = documents("a", "b")
    (refusal,) = await send(cluster, [a, bad, b])
    assert (refusal.index, refusal.code) == (1, "failure_store")
    assert "search `logs-siemrelay-default::failures` for its error" in refusal.reason
    assert sorted(cluster.events) == ["a", "b"]
    assert [failure["document"]["id"] for failure in cluster.failures] == ["bad"]


async def test_a_stream_that_takes_nothing_does_not_fill_its_failure_store(
    cluster: Elasticsearch,
) -> None:
    """The delivery tries the same batch again and again; ten of its documents try first."""
    cluster.failures = []
    bad = [b'{"create":{"_id":"%d"}}\n{"@timestamp":"no time"}' % n for n in range(200)]
    settings = {"url": cluster.url, "authorization": KEY}
    sink = ElasticsearchSink(ElasticsearchOptions.model_validate(settings))

    async def attempt(messages: list[bytes]) -> int:
        async with sink.session() as session:
            return len(await session.confirm(await session.send(messages)))

    assert await attempt(bad) == 200
    for _ in range(5):
        with pytest.raises(BaseExceptionGroup) as caught:
            await attempt(bad)
        assert "failure_store: accept" in str(leaves(caught.value)[0])
    assert len(cluster.failures) == 200 + 5 * 10
    for _ in range(9):
        with pytest.raises(BaseExceptionGroup):
            await attempt(bad)
    assert await attempt(bad) == 200, "these ten may be bad by themselves"
    good = documents(*map(str, range(200, 220)))
    cluster.failures = []
    assert await attempt([*good, bad[0]]) == 1
    assert len(cluster.events) == 20
    assert await attempt(bad[:30]) == 30


async def test_a_document_in_the_failure_store_counts_as_stored_if_accepted(
    cluster: Elasticsearch,
) -> None:
    cluster.failures = []
    bad = b'{"create":{"_id":"bad"}}\n{"@timestamp":"no time"}'
    assert await send(cluster, [bad, *documents("a")], failure_store="accept") == []
    assert sorted(cluster.events) == ["a"]


async def test_the_index_stands_in_each_action_where_the_path_cannot_have_it(
    cluster: Elasticsearch,
) -> None:
    options = ElasticsearchOptions(url=cluster.url, index_in="action")
    decoded = DecodedBatch(
        Batch(1, 1, "audit", 1.7e9, b"{}\n"), [AuditEvent(id="a", time="2026-03-04")]
    )
    messages = bulk_documents(Json(JsonOptions()), options).encode(Selection(decoded))
    assert await send(cluster, list(messages), index_in="action") == []
    assert list(cluster.events) == ["a"]
    assert cluster.requests[0].target.startswith("/_bulk?")
    assert b'{"create":{"_index":"logs-siemrelay-default","_id":' in messages[0]


async def test_a_request_that_is_too_large_is_halved(cluster: Elasticsearch) -> None:
    cluster.most_bytes = 1000
    assert isinstance(await fails(cluster, documents("a", "b", "c", "d")), BatchRefused)
    assert await send(cluster, documents("a")) == []


async def test_a_line_that_is_no_action_is_halved_down_to(cluster: Elasticsearch) -> None:
    found = await fails(cluster, [*documents("a"), b"{}\n{}"])
    assert isinstance(found, BatchRefused)
    assert "Malformed action/metadata line" in str(found)


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"authorization": "ApiKey wrong"}, "ApiKey …"),
        ({"index": "logs-unknown"}, "create the data stream or index `logs-unknown`"),
        ({"pipeline": "unknown"}, "`pipeline`"),
    ],
)
async def test_settings_that_do_not_fit_hold_with_what_to_change(
    cluster: Elasticsearch, settings: dict[str, str], advice: str
) -> None:
    found = await fails(cluster, documents("a", "b"), **settings)
    assert isinstance(found, SinkHolds)
    assert advice in found.advice
    assert "exception" in found.reason or "pipeline" in found.reason


async def test_a_path_too_many_in_the_address_holds(cluster: Elasticsearch) -> None:
    found = await fails(cluster, documents("a"), url=cluster.url + "/_bulk")
    assert isinstance(found, SinkHolds)
    assert "without /_bulk" in found.advice


async def test_a_blocked_index_holds(cluster: Elasticsearch) -> None:
    cluster.blocked = True
    found = await fails(cluster, documents("a"))
    assert isinstance(found, SinkHolds)
    assert "lift the block" in found.advice


@pytest.mark.parametrize(
    ("status", "error"), [(429, SinkWaits), (503, SinkWaits), (403, SinkHolds), (413, BatchRefused)]
)
async def test_whole_requests_are_judged_by_their_status(
    cluster: Elasticsearch, status: int, error: type[DeliveryError]
) -> None:
    words = '{"error":{"type":"some_exception","reason":"so it is"},"status":0}'
    cluster.answer = lambda request: Answer(status, words, Retry_After="7")
    found = await fails(cluster, documents("a"))
    assert type(found) is error
    assert "some_exception: so it is" in str(found)


@pytest.mark.parametrize("words", ["<html>welcome</html>", "", '{"ok":true}', '{"items":[]}'])
async def test_an_answer_of_something_else_confirms_nothing(
    cluster: Elasticsearch, words: str
) -> None:
    cluster.answer = lambda request: Answer(200, words)
    found = await fails(cluster, documents("a"))
    assert isinstance(found, SinkHolds)
    assert "no bulk answer" in found.reason
    assert not isinstance(await fails(cluster, documents("a", "b")), SinkWaits)


# -- the codec ------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "verdict"),
    [
        (409, "version_conflict_engine_exception", "conflict"), (409, "other", "retry"),
        (429, "es_rejected_execution_exception", "retry"),
        (429, "cluster_block_exception", "retry"),
        (500, "", "retry"), (503, "unavailable_shards_exception", "retry"),
        (400, "document_parsing_exception", "refused"),
        (400, "mapper_parsing_exception", "refused"),
        (413, "", "refused"), (400, "index_closed_exception", "held"),
        (403, "cluster_block_exception", "held"), (403, "security_exception", "held"),
        (404, "index_not_found_exception", "held"), (401, "", "held"),
    ],
)  # fmt: skip
def test_each_item_has_its_verdict(status: int, kind: str, verdict: str) -> None:
    item = {"create": {"status": status, "error": {"type": kind, "reason": "r"}}}
    body = json.dumps({"items": [{"create": {"status": 201}}, item]}).encode()
    ((index, found),) = failed_items(body, 2)
    assert (index, found.status, found.verdict) == (1, status, verdict)


@pytest.mark.parametrize(
    ("result", "failed"),
    [
        ({"status": 201}, False), ({"status": 201, "failure_store": "used"}, True),
        ({"status": 201, "failure_store": None}, False),
        ({"status": 400, "failure_store": "not_enabled"}, True),
        ({"status": 400, "failure_store": "failed"}, True),
        ({"status": 201, "failure_store": ["of", "some", "day"]}, False),
    ],
)  # fmt: skip
def test_only_a_document_in_the_failure_store_has_a_failed_201(
    result: dict[str, Any], *, failed: bool
) -> None:
    body = json.dumps({"items": [{"create": result}]}).encode()
    assert bool(failed_items(body, 1)) is failed


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"items":[1]}', b'{"items":[]}', b"\xff"])
def test_garbage_is_no_answer(body: bytes) -> None:
    with pytest.raises(NotABulkResponse):
        failed_items(body, 1)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error":"no handler found for uri"}', "no handler found for uri"),
        (b'{"error":{"type":"t","reason":null}}', "t"),
        (b'{"error":{"type":"t","reason":"r","caused_by":{"reason":"c"}}}', "t: r: c"),
        (b"Unauthorized", ""), (b"", ""), (b'{"error":null}', ""), (b'{"error":[1]}', "[1]"),
    ],
)  # fmt: skip
def test_the_cause_of_a_failure_is_read_from_any_shape(body: bytes, words: str) -> None:
    assert str(read_error(body)) == words


@pytest.mark.parametrize(
    "name", ["Logs", "-logs", "_logs", "a b", "a*", "a/b", "a,b", "", "x" * 256]
)
def test_a_name_that_no_index_can_have_is_a_fault(name: str) -> None:
    with pytest.raises(ValueError, match="index"):
        ElasticsearchOptions.model_validate({"url": "http://a", "index": name})


# -- the whole relay ------------------------------------------------------


def sink(cluster: Elasticsearch, **settings: Any) -> dict[str, Any]:
    return {
        "protocol": "elasticsearch", "url": cluster.url, "authorization": KEY,
        "retry": QUICK_RETRY, "batch": {"max_wait": "10ms"}, **settings,
    }  # fmt: skip


def test_the_daemon_stores_each_event_once_and_keeps_the_refused(
    make_daemon: MakeDaemon, cluster: Elasticsearch
) -> None:
    times = dict.fromkeys(ids(range(1, 2001, 7)), 1)

    def busy(name: str) -> int:
        times[name] = times.get(name, 0) - 1
        return 429 if times[name] >= 0 else 0

    cluster.busy = busy
    daemon = make_daemon({"elastic": sink(cluster, format="json")}).start()
    append(daemon.audit, (event(n, round=n) for n in range(1, 1001)))
    until(lambda: len(cluster.documents) >= 500)
    daemon.kill()
    append(daemon.audit, (event(n, round=n) for n in range(1001, 1500)))
    append(daemon.audit, [event(1500, round="the last")])  # no number any more
    append(daemon.audit, (event(n, round=n) for n in range(1501, 2001)))
    daemon.start()
    until(lambda: len(cluster.documents) == 1999)
    until(lambda: daemon.metric("sink_backlog_records", sink="elastic") == 0)
    assert daemon.metric("sink_dead_lettered_total", sink="elastic") == 1
    assert sorted(cluster.events) == ids([*range(1, 1500), *range(1501, 2001)])
    (refused,) = until(lambda: daemon.said("events refused"))
    assert refused["code"] == "400"
    assert "failed to parse field [attributes.round]" in refused["reason"]


def test_a_forged_id_suppresses_no_event_of_another_source(
    make_daemon: MakeDaemon, cluster: Elasticsearch
) -> None:
    """The attack: whoever may send one datagram claims the id that an audit event will have."""
    daemon = make_daemon({"elastic": sink(cluster, format="json")})
    daemon.config["sources"]["hosts"] = {"type": "syslog", "listen": "udp://127.0.0.1:0"}
    daemon.start()
    listener = ("127.0.0.1", until(lambda: daemon.said("listening"))[0]["port"])
    genuine = event(1001)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
        forged = f'<134>Oct 11 22:14:15 h app: id={genuine["id"]} type="Nothing Happened"'
        attacker.sendto(forged.encode(), listener)
        attacker.sendto(b"<134>1 - h app - - - " + json.dumps(genuine).encode(), listener)
    until(lambda: len(cluster.documents) == 2)
    append(daemon.audit, [genuine])
    until(lambda: len(cluster.documents) == 3)
    assert genuine["type"] in [document.get("type") for document in cluster.documents.values()]
    until(lambda: daemon.metric("sink_delivered_total", sink="elastic") == 3)
    assert daemon.metric("sink_duplicates_total", sink="elastic") == 0


def test_the_same_record_twice_is_stored_once_counted_and_reported(
    make_daemon: MakeDaemon, cluster: Elasticsearch
) -> None:
    """A sender that repeats itself: the second conflict is not taken for a delivery."""
    daemon = make_daemon({"elastic": sink(cluster, format="json")}).start()
    append(daemon.audit, [event(1), event(2), event(1)])
    until(lambda: daemon.metric("sink_duplicates_total", sink="elastic") == 1)
    assert daemon.metric("sink_delivered_total", sink="elastic") == 2
    assert daemon.metric("sink_dead_lettered_total", sink="elastic") == 0
    assert sorted(cluster.events) == ids([1, 2])
    (said,) = until(lambda: daemon.said("duplicate records"))
    assert (said["sink"], said["records"], said["first_sequence"]) == ("elastic", 1, 3)
    assert "1 duplicates: the receiver already held them" in daemon.get("/")[1]


def test_test_says_what_to_change(make_daemon: MakeDaemon, cluster: Elasticsearch) -> None:
    daemon = make_daemon({
        "good": sink(cluster), "token": sink(cluster, authorization="ApiKey no"),
        "index": sink(cluster, index="other"),
    })  # fmt: skip
    found = daemon.command("test", "good")
    assert found.returncode == 0, found.stderr
    assert '"create"' in found.stdout
    (document,) = cluster.documents.values()
    assert document["event"]["action"] == "SIEM Integration Test"
    for name, advice in (("token", "set `authorization"), ("index", "check `index`")):
        found = daemon.command("test", name)
        assert found.returncode == 1
        (line,) = found.stderr.splitlines()
        assert advice in line

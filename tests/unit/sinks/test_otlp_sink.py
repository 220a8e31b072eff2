"""The OTLP sink, read by OpenTelemetry's own messages: records, partial successes, verdicts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from siemrelay.core.errors import BatchRefused, DeliveryError, SinkHolds, SinkWaits
from siemrelay.core.event import Actor, AuditEvent, Batch, DecodedBatch, Selection, Target
from siemrelay.formats.envelopes.otlp import any_value, log_records, unix_nano
from siemrelay.formats.json import Json, JsonOptions
from siemrelay.formats.raw import Raw
from siemrelay.sinks.contract import Settlement
from siemrelay.sinks.otlp import OtlpOptions, OtlpSink
from siemrelay.wire.otlp import NotAnExportResponse, read_partial_success
from tests.conftest import MakeDaemon
from tests.support.daemon import QUICK_RETRY, append, event, ids, until
from tests.support.receivers.http import Answer
from tests.support.receivers.otlp import OtlpReceiver, plain, said, value_of
from tests.support.sessions import fault

EVENT = AuditEvent(
    id="e1", time="2026-03-04T05:06:07.089123Z", type="Account Provisioned", category="account",
    severity=5, outcome="failure", actor=Actor("ada", "u7", "10.1.2.3"),
    target=Target("account", "x"), message="it failed",
    attributes={"deep": {"list": [1, 1.5, None, True, "é", 2**70]}},
)  # fmt: skip


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as made:
        yield made


def options(url: str, **more: object) -> OtlpOptions:
    return OtlpOptions.model_validate({"url": url, **more})


def messages(
    *events: AuditEvent, inner: Any = None, payload: bytes = b"", **more: object
) -> list[bytes]:
    batch = Batch(7, len(events), "audit", 1_700_000_000.25, payload or b"{}\n" * len(events))
    form = log_records(inner or Json(JsonOptions()), options("http://a", **more))
    return list(form.encode(Selection(DecodedBatch(batch, list(events)))))


def named(*names: str) -> list[bytes]:
    return messages(*(AuditEvent(id=name, time=EVENT.time, type="T") for name in names))


async def export(receiver: OtlpReceiver, run: list[bytes], **more: object) -> Settlement:
    async with OtlpSink(options(receiver.url, **more)).session() as session:
        return await session.confirm(await session.send(run))


async def fails(receiver: OtlpReceiver, run: list[bytes], **more: object) -> DeliveryError:
    return await fault(OtlpSink(options(**{"url": receiver.url, **more})), *run)  # type: ignore[arg-type]  # url is a text


# -- records --------------------------------------------------------------


async def test_an_event_arrives_as_a_whole_log_record(receiver: OtlpReceiver) -> None:
    resource = {"deployment.environment.name": "test", "host.name": "relay1"}
    assert await export(receiver, messages(EVENT), resource=resource, compression="gzip") == ()
    (record,) = receiver.records
    assert record.time_unix_nano == 1_772_600_767_089_123_000
    assert record.observed_time_unix_nano == 1_700_000_000_250_000_000
    assert (record.severity_number, record.severity_text) == (13, "medium")
    assert record.event_name == "Account Provisioned"
    assert json.loads(record.body.string_value)["message"] == "it failed"
    attributes = plain(record.attributes)
    assert re.fullmatch("[0-9a-f]{32}", attributes.pop("log.record.uid"))
    assert attributes == {
        "audit.id": "e1", "audit.category": "account", "audit.outcome": "failure",
        "audit.severity": 5, "user.name": "ada", "user.id": "u7", "source.address": "10.1.2.3",
        "audit.target.type": "account", "audit.target.name": "x", "siemrelay.source": "audit",
        "siemrelay.sequence": 7,
    }  # fmt: skip
    (found,) = receiver.resources
    assert plain(found.attributes) == {"service.name": "siemrelay", **resource}


async def test_a_structured_body_is_the_json_object_as_a_map(receiver: OtlpReceiver) -> None:
    assert await export(receiver, messages(EVENT, body="structured")) == ()
    body = value_of(receiver.records[0].body)
    assert body["actor"] == {"name": "ada", "id": "u7", "address": "10.1.2.3"}
    assert body["attributes"] == {"deep": {"list": [1, 1.5, None, True, "é", str(2**70)]}}


@pytest.mark.parametrize("record", [b"no json", b"[1]", b'{"a":', b"[" * 5000, b'{"a":' * 5000])
async def test_a_message_that_is_no_object_stays_text(
    receiver: OtlpReceiver, record: bytes
) -> None:
    run = messages(EVENT, inner=Raw(), payload=record + b"\n", body="structured")
    assert await export(receiver, run) == ()
    assert receiver.records[0].body.string_value == record.decode()


@pytest.mark.parametrize(
    ("severity", "number"),
    [(None, 9), (0, 9), (3, 9), (4, 13), (6, 13), (7, 17), (8, 17), (10, 18)],
)
async def test_severities_are_on_the_scale_of_opentelemetry(
    receiver: OtlpReceiver, severity: int | None, number: int
) -> None:
    run = messages(AuditEvent(id="a", time=EVENT.time, type="T", severity=severity))
    assert await export(receiver, run) == ()
    assert receiver.records[0].severity_number == number


@pytest.mark.parametrize(
    ("time", "nanoseconds"),
    [
        ("1970-01-01T00:00:00.001Z", "1000000"), ("1969-12-31T23:59:59Z", "0"),
        ("2026-03-04T06:06:07.089+01:00", "1772600767089000000"), (None, "0"),
    ],
)  # fmt: skip
def test_times_are_nanoseconds_as_text(time: str | None, nanoseconds: str) -> None:
    assert unix_nano(time) == nanoseconds


def test_whole_numbers_are_texts_and_those_beyond_64_bits_are_no_numbers() -> None:
    assert any_value(2**63 - 1) == {"intValue": "9223372036854775807"}
    assert any_value(-(2**63) - 1) == {"stringValue": "-9223372036854775809"}
    assert any_value(True) == {"boolValue": True}
    assert any_value({}) == {"kvlistValue": {"values": []}}


# -- partial successes ----------------------------------------------------


async def test_a_rejected_record_stands_alone_at_last(receiver: OtlpReceiver) -> None:
    receiver.rejects = lambda record: (
        "too old" if plain(record.attributes)["audit.id"] == "b" else ""
    )
    found = await fails(receiver, named("a", "b", "c"))
    assert isinstance(found, BatchRefused)
    assert "1 of 3 log records: too old" in str(found)
    (refusal,) = await export(receiver, named("b"))
    assert (refusal.index, refusal.code, refusal.reason) == (0, "rejected", "too old")


async def test_records_that_are_all_rejected_need_no_halving(receiver: OtlpReceiver) -> None:
    receiver.rejects = lambda record: "quota"
    assert [refusal.index for refusal in await export(receiver, named("a", "b"))] == [0, 1]
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    ("body", "partial"),
    [
        (b"", (0, "")), (b"{}", (0, "")), (b'{"x":{}}', (0, "")),
        (b'{"partialSuccess":null}', (0, "")), (b'{"partialSuccess":{}}', (0, "")),
        (b'{"partialSuccess":{"errorMessage":"a hint"}}', (0, "a hint")),
        (b'{"partialSuccess":{"rejectedLogRecords":2}}', (2, "")),
        (b'{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"w"}}', (2, "w")),
    ],
)  # fmt: skip
def test_a_partial_success_is_read_in_every_spelling(body: bytes, partial: tuple[int, str]) -> None:
    assert read_partial_success(body) == partial


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b"OK", b"\x0a\x02\x08\x01", b'{"partialSuccess":7}',
             b'{"partialSuccess":{"rejectedLogRecords":"two"}}', b"\xff"],
)  # fmt: skip
def test_garbage_is_no_answer(body: bytes) -> None:
    with pytest.raises(NotAnExportResponse):
        read_partial_success(body)


async def test_an_answer_of_something_else_confirms_nothing(receiver: OtlpReceiver) -> None:
    receiver.fault = Answer(200, "<html>log in first</html>")
    found = await fails(receiver, named("a"))
    assert isinstance(found, SinkHolds)
    assert "log in first" in found.reason
    assert "OTLP receiver" in found.advice


# -- verdicts -------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"),
    [(429, SinkWaits), (502, SinkWaits), (503, SinkWaits), (504, SinkWaits), (500, SinkWaits),
     (400, BatchRefused), (413, BatchRefused),
     (401, SinkHolds), (403, SinkHolds), (405, SinkHolds)],
)  # fmt: skip
async def test_each_other_answer_says_what_to_do_next(
    receiver: OtlpReceiver, status: int, error: type[DeliveryError]
) -> None:
    receiver.fault = said(status, "the peer's own words")
    found = await fails(receiver, named("a"))
    assert type(found) is error
    assert "the peer's own words" in str(found)


async def test_a_record_that_is_no_otlp_is_refused_by_its_reader(receiver: OtlpReceiver) -> None:
    found = await fails(receiver, [b'{"severityNumber":"INFO?"}'])
    assert isinstance(found, BatchRefused)
    assert found.code == "400"


async def test_a_path_in_the_address_is_used_as_it_is(receiver: OtlpReceiver) -> None:
    found = await fails(receiver, named("a"), url=receiver.url + "/otlp")
    assert isinstance(found, SinkHolds)
    assert "/v1/logs" in found.advice
    for path in ("", "/", "/v1/logs"):
        async with OtlpSink(options(receiver.url + path)).session() as session:
            assert await session.confirm(await session.send(named("a"))) == ()


# -- the whole relay ------------------------------------------------------


def sink(receiver: OtlpReceiver, **more: Any) -> dict[str, Any]:
    return {
        "protocol": "otlp", "url": receiver.url, "retry": QUICK_RETRY,
        "batch": {"max_wait": "10ms"}, **more,
    }  # fmt: skip


def test_the_daemon_isolates_what_is_rejected(
    make_daemon: MakeDaemon, receiver: OtlpReceiver
) -> None:
    def rejects(record: LogRecord) -> str:
        return "no" if plain(record.attributes)["audit.id"] in ("n0000100", "n0000777") else ""

    receiver.rejects = rejects
    daemon = make_daemon({"otel": sink(receiver)}).start()
    append(daemon.audit, map(event, range(1, 1001)))
    until(lambda: daemon.metric("sink_dead_lettered_total", sink="otel") == 2)
    until(lambda: daemon.metric("sink_backlog_records", sink="otel") == 0)
    assert sorted(set(receiver.names)) == ids(n for n in range(1, 1001) if n not in (100, 777))
    assert all(receiver.names.count(uid) <= 10 for uid in ids(range(95, 105)))


def test_test_says_what_to_change(make_daemon: MakeDaemon) -> None:
    with OtlpReceiver(authorization="Bearer right") as receiver:
        daemon = make_daemon({
            "good": sink(receiver, authorization="Bearer right"),
            "token": sink(receiver, authorization="Bearer wrong"),
            "path": sink(receiver, authorization="Bearer right", url=receiver.url + "/x"),
        })  # fmt: skip
        found = daemon.command("test", "good")
        assert found.returncode == 0, found.stderr
        assert receiver.records[0].event_name == "SIEM Integration Test"
        for name, advice in (("token", "set `authorization`"), ("path", "/v1/logs")):
            found = daemon.command("test", name)
            assert found.returncode == 1
            (line,) = found.stderr.splitlines()
            assert advice in line

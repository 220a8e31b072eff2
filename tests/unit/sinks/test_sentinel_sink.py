"""The Sentinel sink: tokens, calls, each refusal's meaning, and what `test` says about settings."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest

from siemrelay.config.load import load_text
from siemrelay.core.errors import (
    BatchRefused,
    ConfigurationRefused,
    DeliveryError,
    SinkHolds,
    SinkWaits,
)
from siemrelay.core.event import AuditEvent, Batch, DecodedBatch, Selection
from siemrelay.formats.cef import Cef, CefOptions
from siemrelay.formats.envelopes.timestamped import sentinel_records
from siemrelay.formats.json import Json, JsonOptions
from siemrelay.registry import PROTOCOLS
from siemrelay.sinks.sentinel import SentinelOptions, SentinelSink
from tests.conftest import MakeDaemon
from tests.support.daemon import QUICK_RETRY, append, event, ids, until
from tests.support.receivers.http import Answer
from tests.support.receivers.sentinel import (
    CLIENT,
    RULE,
    SECRET,
    STREAM,
    TENANT,
    Entra,
    LogsIngestion,
)
from tests.support.sessions import fault


@pytest.fixture
def azure() -> Iterator[LogsIngestion]:
    with Entra() as entra, LogsIngestion(entra) as made:
        yield made


def settings(azure: LogsIngestion, **more: object) -> dict[str, Any]:
    return {
        "endpoint": azure.url, "authority": azure.entra.url, "rule": RULE, "stream": STREAM,
        "tenant": TENANT, "client_id": CLIENT, "client_secret": SECRET, **more,
    }  # fmt: skip


def made(azure: LogsIngestion, **more: object) -> SentinelSink:
    return SentinelSink(SentinelOptions.model_validate(settings(azure, **more)))


def records(*names: str, inner: Any = None) -> list[bytes]:
    events = [AuditEvent(id=name, time="2026-03-04T05:06:07.089Z", type="T") for name in names]
    batch = Batch(1, len(events), "audit", 1.7e9, b"{}\n" * len(events))
    form = sentinel_records(inner or Json(JsonOptions()), None)
    return list(form.encode(Selection(DecodedBatch(batch, events))))


async def fails(azure: LogsIngestion, *messages: bytes, **more: object) -> DeliveryError:
    return await fault(made(azure, **more), *messages or records("a"))


async def test_runs_become_compressed_arrays_with_their_time(azure: LogsIngestion) -> None:
    async with made(azure).session() as session:
        tickets = [await session.send(records("a", "b")), await session.send(records("c"))]
        assert [await session.confirm(ticket) for ticket in tickets] == [(), ()]
    assert sorted(row["id"] for row in azure.rows) == ["a", "b", "c"]
    assert {row["TimeGenerated"] for row in azure.rows} == {"2026-03-04T05:06:07.089Z"}
    assert azure.entra.given == 1, "one token for both"
    assert all(gzip.decompress(request.body) for request in azure.requests)


async def test_a_message_that_is_no_json_object_is_the_raw_data_of_a_row(
    azure: LogsIngestion,
) -> None:
    async with made(azure, compression="none").session() as session:
        messages = records("a", inner=Cef(CefOptions()))
        await session.confirm(await session.send(messages))
    (row,) = azure.rows
    assert row.keys() == {"TimeGenerated", "RawData"}
    assert row["RawData"].startswith("CEF:0|")


async def test_the_largest_record_fits_into_a_call(azure: LogsIngestion) -> None:
    largest = PROTOCOLS["sentinel"].max_message_bytes(None)
    assert largest is not None
    head, tail = b'{"TimeGenerated":"2026-03-04T05:06:07.089Z","x":"', b'"}'
    message = head + b"x" * (largest - len(head) - len(tail)) + tail
    async with made(azure).session() as session:
        assert await session.confirm(await session.send([message])) == ()
    assert len(azure.requests[0].content) == 1_000_000


async def test_a_token_taken_back_is_asked_for_anew(azure: LogsIngestion) -> None:
    async with made(azure).session() as session:
        await session.confirm(await session.send(records("a")))
        azure.entra.tokens.clear()
        with pytest.raises(SinkHolds, match="authentication token is invalid"):
            await session.confirm(await session.send(records("b")))
    async with made(azure).session() as session:
        assert await session.confirm(await session.send(records("b"))) == ()


@pytest.mark.parametrize(
    ("wrong", "said", "advice"),
    [
        ({"tenant": "other"}, "AADSTS90002", "check `tenant`"),
        ({"client_id": "other"}, "AADSTS700016", "`client_id`"),
        ({"client_secret": "other-secret"}, "AADSTS7000215", "`client_secret`"),
        ({"scope": "https://monitor.azure.us/.default"}, "AADSTS1002012", "`scope`"),
        ({"rule": "dcr-0"}, "immutable Id 'dcr-0' not found", "check `rule`"),
        ({"stream": "Custom-Other"}, "was not configured", "check `stream`"),
    ],
)
async def test_wrong_settings_hold_with_the_one_to_change(
    azure: LogsIngestion, wrong: dict[str, str], said: str, advice: str
) -> None:
    found = await fails(azure, **wrong)
    assert isinstance(found, SinkHolds)
    assert said in found.reason
    assert advice in found.advice
    assert "secret-value" not in str(found)


async def test_a_missing_role_holds_and_is_named(azure: LogsIngestion) -> None:
    azure.granted = False
    found = await fails(azure)
    assert isinstance(found, SinkHolds)
    assert "Monitoring Metrics Publisher" in found.advice


async def test_a_call_that_is_too_large_is_halved(azure: LogsIngestion) -> None:
    found = await fails(azure, *[b'{"x":"%s"}' % (b"x" * 300_000)] * 4)
    assert isinstance(found, BatchRefused)
    assert "1048576 bytes" in str(found)


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_busy_service_is_waited_for_as_long_as_it_says(
    azure: LogsIngestion, status: int
) -> None:
    azure.fault = Answer(status, "later", Retry_After="30")
    found = await fails(azure)
    assert isinstance(found, SinkWaits)
    assert found.after_s == 30


@pytest.mark.parametrize("words", ["", "[]", '{"error":null}', '{"error":{}}', "\x00", "[" * 9999])
async def test_a_refusal_in_any_words_is_understood(azure: LogsIngestion, words: str) -> None:
    azure.fault = Answer(400, words)
    assert isinstance(await fails(azure), BatchRefused)


@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [("rule", "my-rule", "immutable id"), ("stream", "AuditEvents_CL", "Custom-")],
)
def test_ids_of_another_kind_are_faults_of_the_file(key: str, value: str, hint: str) -> None:
    sink = {
        "endpoint": "https://a.ingest.monitor.azure.com", "rule": RULE, "stream": STREAM,
        "tenant": TENANT, "client_id": CLIENT, "client_secret": SECRET, "protocol": "sentinel",
        key: value,
    }  # fmt: skip
    sources = {"a": {"type": "file", "path": "/var/log/a"}}
    with pytest.raises(ConfigurationRefused) as caught:
        load_text(json.dumps({"sources": sources, "sinks": {"s": sink}}), "x.yaml", {})
    (fault,) = caught.value.faults
    assert hint in fault.message


def test_the_daemon_uploads_everything(make_daemon: MakeDaemon, azure: LogsIngestion) -> None:
    sink = settings(azure, protocol="sentinel", retry=QUICK_RETRY, batch={"max_wait": "10ms"})
    renamed = {"EventId": "id", "id": None, "EventType": "type", "type": None}
    daemon = make_daemon({"sentinel": {**sink, "map": renamed}})
    found = daemon.command("test", "sentinel")
    assert found.returncode == 0, found.stderr
    assert SECRET not in found.stdout
    daemon.start()
    append(daemon.audit, map(event, range(1, 1001)))
    until(lambda: len(azure.rows) == 1001)
    assert sorted(row["EventId"] for row in azure.rows[1:]) == ids(range(1, 1001))
    assert not any("id" in row or "type" in row for row in azure.rows)


def test_test_says_which_secret_to_change(make_daemon: MakeDaemon, azure: LogsIngestion) -> None:
    sink = settings(azure, protocol="sentinel", client_secret="wrong-secret")
    found = make_daemon({"sentinel": sink}).command("test", "sentinel")
    assert found.returncode == 1
    (line,) = found.stderr.splitlines()
    assert "AADSTS7000215: Invalid client secret provided.; check `tenant`" in line
    assert "wrong-secret" not in found.stdout + found.stderr

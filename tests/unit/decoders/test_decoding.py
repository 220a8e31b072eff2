"""Every record becomes exactly one event, whatever its bytes, with the values that are promised."""

from __future__ import annotations

import json
from datetime import datetime
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.core.event import (
    FIELDS,
    AuditEvent,
    Batch,
    DecodedBatch,
    attributes_of,
    field_getter,
)
from siemrelay.core.event_types import UNPARSED, UNTYPED, Catalogue, EventType
from siemrelay.decoders.json.decoder import JsonDecoder
from siemrelay.decoders.normalise import Kinds, outcome_of, severity_of
from siemrelay.decoders.times import time_of
from tests.support.events import strategies
from tests.support.events.decoded import assert_promises
from tests.support.events.products import CATALOGUE
from tests.support.events.strategies import HOSTILE, SPELLINGS, texts, written
from tests.support.memory import kept_bytes

EVERYTHING = frozenset({*FIELDS, "attributes"})
RECEIVED_S = 1_709_300_000.25
RECEIVED = "2024-03-01T13:33:20.250Z"


def batch_of(records: list[bytes]) -> Batch:
    return strategies.batch_of(records, received_at=RECEIVED_S)


def decoder(
    product: str = "generic", wanted: frozenset[str] = EVERYTHING, catalogue: Catalogue = CATALOGUE
) -> JsonDecoder:
    return JsonDecoder(SPELLINGS[product], wanted, catalogue)


def decoded(*records: bytes, product: str = "generic") -> list[AuditEvent]:
    return decoder(product).decode(batch_of(list(records))).events


def event_of(record: dict[str, Any], product: str = "generic") -> AuditEvent:
    return decoded(written(record), product=product)[0]


def assert_promised(result: DecodedBatch) -> None:
    """One event for each record, each with all that is promised."""
    for event in result.events:
        assert_promises(event)
    assert len(result.events) == result.batch.count


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_record_becomes_one_event_and_leaves_the_others_alone(what: str) -> None:
    good = b'{"type":"Account Provisioned","id":"good"}'
    reader = decoder()
    for records in ([HOSTILE[what]], [good, HOSTILE[what], good], [HOSTILE[what]] * 3):
        result = reader.decode(batch_of(records))
        assert_promised(result)
        kept = [event.id for event in result.events if event.type == "Account Provisioned"]
        assert kept == ["good"] * records.count(good)


def test_a_line_of_ten_mebibytes_is_one_event() -> None:
    text = "x" * (10 << 20)
    assert event_of({"type": "a", "message": text}).message == text
    (event,) = decoded(b"y" * (10 << 20))
    assert (event.type, len(event.message or "")) == (UNPARSED, 10 << 20)


@given(records=st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"")), max_size=6))
def test_every_record_becomes_exactly_one_event(records: list[bytes]) -> None:
    assert_promised(decoder().decode(batch_of(records)))


@given(
    record=st.dictionaries(
        st.sampled_from(["id", "time", "type", "severity", "outcome", "actor", "user", "message",
                         "target", "attributes", "category", "actor.name"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | texts(),
            lambda inner: st.lists(inner, max_size=2)
            | st.dictionaries(st.sampled_from(["name", "id", "ip", "x"]), inner, max_size=3),
            max_leaves=4,
        ),
    ),
    data=st.data(),
)  # fmt: skip
def test_any_json_and_any_part_of_it_becomes_one_event(
    record: dict[str, Any], data: st.DataObject
) -> None:
    line = written(record)
    half = line[: data.draw(st.integers(0, len(line)))]
    reader = decoder()
    assert_promised(reader.decode(batch_of([line, half, line])))
    assert_promised(reader.decode(batch_of([half, line])))


def test_a_record_that_cannot_be_read_keeps_its_text() -> None:
    result = decoder().decode(batch_of([b"no json at all \xff", b'{"type":"a"}']))
    assert result.unparsed == 1
    unread = result.events[0]
    assert (unread.type, unread.category, unread.severity) == (UNPARSED, "unknown", 4)
    assert unread.message == "no json at all \ufffd"
    assert result.records[0] == b"no json at all \xff"


def test_a_piece_of_a_record_too_long_for_one_batch_is_one_unparsed_record() -> None:
    batch = Batch(5, 1, "test", RECEIVED_S, b'{"type":"Account Provisioned","me\n', part=3)
    result = decoder().decode(batch)
    (event,) = result.events
    assert result.unparsed == 1
    assert event.type == UNPARSED
    assert event.message == '{"type":"Account Provisioned","me'
    assert attributes_of(event) == {"part": 3}
    assert_promised(result)


# Ids


def test_an_id_of_the_records_own_is_left_as_it_is() -> None:
    records: list[dict[str, Any]] = [{"id": "e-1"}, {"eventId": " x "}, {"uuid": 7}]
    assert [event.id for event in decoded(*map(written, records))] == ["e-1", " x ", "7"]


def test_ids_are_the_same_at_every_replay_and_different_for_equal_lines() -> None:
    batch = batch_of([b'{"type":"a"}', b'{"type":"a"}', b"garbage", b"garbage"])
    reader = decoder()
    first = [event.id for event in reader.decode(batch).events]
    assert len(set(first)) == 4
    assert [event.id for event in reader.decode(batch).events] == first
    assert [event.id for event in decoder(wanted=frozenset({"type"})).decode(batch).events] == first


def test_an_id_depends_on_the_source_and_the_place_in_the_buffer() -> None:
    payload = b'{"type":"a"}\n'
    batches = [Batch(1, 1, "s", 0.0, payload), Batch(2, 1, "s", 0.0, payload),
               Batch(1, 1, "t", 0.0, payload), Batch(1, 1, "s", 9.0, payload)]  # fmt: skip
    ids = [decoder().decode(batch).events[0].id for batch in batches]
    assert len(set(ids)) == 3
    assert ids[0] == ids[3]


# Severity, outcome, kind


@pytest.mark.parametrize(
    ("said", "severity"),
    [
        (0, 0), (10, 10), (11, 10), (-3, 0), (7.9, 7), (1e300, 10), ("7", 7), (" 8 ", 8),
        ("99", 9), (100, 10), ("101", 10), (19, 10), (70, 7),
        ("Critical", 9), ("WARN", 5), ("info", 2), ("emergency", 10), (True, None),
        (None, None), ("", None), ("blue", None), ("1e3", None), ("-1", None), ("٣", 3),
        (float("inf"), 10), (float("-inf"), 0), (float("nan"), None), ("9" * 5000, None),
        # pino and bunyan: debug, info, warn, error, fatal
        (20, 0), (30, 2), (40, 5), (50, 7), (60, 10),
    ],
)  # fmt: skip
def test_a_severity_is_read_from_numbers_and_names(said: Any, severity: int | None) -> None:
    assert severity_of(said) == severity


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ("success", "success"), ("SUCCEEDED", "success"), (True, "success"), (1, "success"),
        ("Allowed", "success"), (" ok ", "success"), ("failure", "failure"),
        ("Denied", "failure"), (False, "failure"), (0, "failure"), ("error", "failure"),
        (200, "success"), ("201", "success"), (304, "success"), (401, "failure"),
        ("503", "failure"), (100, "unknown"), (600, "unknown"), (4000, "unknown"),
        ("40x", "unknown"), ("pending", "unknown"), ("", "unknown"), (17, "unknown"),
        (1.5, "unknown"),
    ],
)  # fmt: skip
def test_an_outcome_is_read_from_words_truth_values_and_statuses_of_http(
    said: Any, outcome: str
) -> None:
    assert outcome_of(said) == outcome


@pytest.mark.parametrize(
    ("record", "severity"),
    [
        ({"type": "Account Provisioned"}, 3),
        ({"type": "Account Provisioned", "outcome": "failed"}, 5),
        ({"type": "SIEM Integration Deleted", "outcome": "failed"}, 8),
        ({"type": "Account Provisioned", "outcome": "failed", "severity": 1}, 1),
        ({"type": "something else"}, 3),
        ({"type": "something else", "success": False}, 5),
        ({"type": "User Logged Out", "severity": "blue"}, 1),
        ({"severity": 9}, 9),
    ],
)
def test_a_failed_outcome_without_a_severity_is_at_least_five(
    record: dict[str, Any], severity: int
) -> None:
    assert event_of(record).severity == severity


def test_equal_values_of_different_types_are_distinguished() -> None:
    said = [{"type": "x", "severity": s, "outcome": o}
            for s in (1, True, 1.0, "1") for o in (True, 1, 1.0, "1")]  # fmt: skip
    got = [(e.severity, e.outcome) for e in decoded(*map(written, said))]
    alone = [(e.severity, e.outcome) for e in map(event_of, said)]
    assert got == alone
    assert {severity for severity, _ in got} == {1, 3}


@pytest.mark.parametrize(
    ("said", "name", "category"),
    [
        ("Account Provisioned", "Account Provisioned", "account"),
        ("account_provisioned", "Account Provisioned", "account"),
        ("ACCOUNT-PROVISIONED", "Account Provisioned", "account"),
        ("accountProvisioned", "Account Provisioned", "account"),
        ("Account Secret ID Changed", "Account Secret ID changed", "account"),
        ("door opened", "Door Opened", "building"),
        ("My own Type", "My own Type", "other"),
        (5, "5", "other"), (True, "true", "other"),
        ("", UNTYPED, "unknown"), (None, UNTYPED, "unknown"),
    ],
)  # fmt: skip
def test_a_type_is_recognised_however_it_is_spelled(said: Any, name: str, category: str) -> None:
    catalogue = Catalogue([*CATALOGUE.types, EventType("Door Opened", category="building")])
    (event,) = decoder(catalogue=catalogue).decode(batch_of([written({"type": said})])).events
    assert (event.type, event.category) == (name, category)


def test_a_category_of_the_records_own_is_kept() -> None:
    assert event_of({"type": "Account Provisioned", "category": "mine"}).category == "mine"


def test_what_is_kept_of_kinds_is_bounded() -> None:
    kinds = Kinds(CATALOGUE)

    def flood() -> None:
        for i in range(20_000):
            assert kinds.normal((f"type {i}", None, None, None))[0] == f"type {i}"
            kinds.all_canonical({f"type {i}"})
        for i in range(20):
            kinds.normal((f"{i}" * 1_000_000, None, None, None))
            kinds.all_canonical({f"{i}" * 1_000_000})

    assert kept_bytes(flood) < 4 << 20


def test_what_is_kept_of_keys_is_bounded() -> None:
    reader = decoder()
    names = sorted({path for paths in SPELLINGS["generic"].values() for path in paths})
    pairs = list(combinations(names, 2))[:4000]

    def flood() -> None:
        for at in range(0, len(pairs), 500):
            keys = pairs[at : at + 500]
            reader.decode(batch_of([written(dict.fromkeys(pair, 1)) for pair in keys]))
        reader.decode(batch_of([written({"k" * 1_000_000: 1})]))

    assert kept_bytes(flood) < 2 << 20


# Times


@pytest.mark.parametrize(
    ("said", "time"),
    [
        ("2024-03-01T08:00:00Z", "2024-03-01T08:00:00Z"),
        ("2024-03-01T08:00:00.123456+02:00", "2024-03-01T08:00:00.123456+02:00"),
        ("2024-03-01T08:00:00.123456789Z", "2024-03-01T08:00:00.123456Z"),
        ("2024-03-01 08:00:00,5", "2024-03-01T08:00:00.5Z"),
        ("2024-03-01t08:00:00z", "2024-03-01T08:00:00Z"),
        (" 2024-03-01T08:00:00+0530 ", "2024-03-01T08:00:00+05:30"),
        ("2024-03-01 08:00:00 UTC", "2024-03-01T08:00:00Z"),
        (1709280000, "2024-03-01T08:00:00.000Z"),
        (1709280000.25, "2024-03-01T08:00:00.250Z"),
        (1709280000123, "2024-03-01T08:00:00.123Z"),
        (1709280000123456, "2024-03-01T08:00:00.123Z"),
        (1709280000123456789, "2024-03-01T08:00:00.123Z"),
        ("1709280000123", "2024-03-01T08:00:00.123Z"),
        ("1709280000.250", "2024-03-01T08:00:00.250Z"),
        ("2024-02-30T08:00:00Z", None), ("2024-03-01T24:00:00Z", None), ("2024-03-01", None),
        ("2024-03-01T08:00:60Z", None), ("2024-W09-5T08:00:00Z", None),
        ("٢٠٢٤-03-01T08:00:00Z", None), ("2024-03-01T08:00:00+24:00", None),
        ("2024-03-01T08:00:00Z\n", "2024-03-01T08:00:00Z"), ("yesterday", None), ("", None),
        (0, None), (-5, None), (True, None), (None, None), (1e30, None), (float("inf"), None),
        (float("nan"), None),
    ],
)  # fmt: skip
def test_a_time_is_read_however_it_is_written(said: Any, time: str | None) -> None:
    assert time_of(said) == time
    if time is None and (isinstance(said, str) or said is None):
        assert event_of({"time": said}).time == RECEIVED


@given(st.datetimes(min_value=datetime(1973, 3, 4), max_value=datetime(5000, 1, 1)))
def test_epoch_seconds_and_milliseconds_are_distinguished(moment: datetime) -> None:
    seconds = (moment - datetime(1970, 1, 1)).total_seconds()
    assert (time_of(int(seconds)) or "")[:19] == (time_of(int(seconds) * 1000) or "")[:19]


def test_a_batch_of_plain_times_and_one_with_another_give_the_same_times() -> None:
    plain = [written({"time": f"2024-03-01T08:00:0{i}.5Z"}) for i in range(3)]
    times = [event.time for event in decoded(*plain, b'{"time":"2024-03-01 09:00:00"}')]
    assert times[:3] == [event.time for event in decoded(*plain)]
    assert times[3] == "2024-03-01T09:00:00Z"


# What becomes of everything else


def test_what_is_not_understood_is_kept_among_the_attributes() -> None:
    event = event_of({"status": "pending", "level": "blue", "date": "soon", "attributes": {"a": 1}})
    assert (event.outcome, event.severity, event.time) == ("unknown", 3, RECEIVED)
    assert attributes_of(event) == {
        "outcome": "pending", "severity": "blue", "time": "soon", "a": 1,
        "siemrelay.time_from": "arrival",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("record", "rest"),
    [
        ({"type": "a", "x": 1, "attributes": {"y": 2}}, {"x": 1, "y": 2}),
        ({"type": "a", "x": 1, "attributes": {"x": 2}}, {"x": 1, "attributes": {"x": 2}}),
        ({"type": "a", "attributes": [1]}, {"attributes": [1]}),
        ({"actor": {"name": "A", "mfa": True}, "target": {"name": "t"}}, {"actor": {"mfa": True}}),
        ({"actor": {"name": "A", "attributes": {"x": 1}}}, {"actor": {"attributes": {"x": 1}}}),
        ({"actor.name": "A", "actor": {"name": "B"}}, {"actor": {"name": "B"}}),
        ({"actor": {}, "message": None}, {"actor": {}, "message": None}),
        ({"name": "typed", "message": {"a": 1}}, {"message": {"a": 1}}),
        ({"type": "a", "action": "b"}, {"action": "b"}),
    ],
)
def test_attributes_are_everything_that_no_field_took(
    record: dict[str, Any], rest: dict[str, Any]
) -> None:
    assert attributes_of(event_of(record)) == rest


def test_attributes_nested_beyond_reason_stay_text() -> None:
    line = b'{"type":"x","a":' + b"[" * 300 + b"]" * 300 + b"}"
    (event,) = decoded(line)
    assert event.type == "x"
    assert attributes_of(event) == {"record": line.decode()}


def test_numbers_without_a_finite_value_stay_text() -> None:
    digits = "9" * 5000
    (event,) = decoded(b'{"a":' + digits.encode() + b',"b":1e999,"c":NaN,"d":1e3}')
    assert attributes_of(event) == {"a": digits, "b": "1e999", "c": "NaN", "d": 1000.0}


@pytest.mark.parametrize(
    ("product", "record", "expected"),
    [
        ("generic", {"event_type": "x", "user": {"email": "a@b", "id": 5}, "clientIp": "::1"},
         {"type": "x", "actor.name": "a@b", "actor.id": "5", "actor.address": "::1"}),
        ("generic", {"action": "x", "performedBy": "Ada", "resource": {"type": "vm", "name": "v"}},
         {"type": "x", "actor.name": "Ada", "target.type": "vm", "target.name": "v"}),
        ("alm", {"AuditType": "AccountProvisioned", "AuditDate": "2024-03-01T08:00:00",
                 "CreatedBy": "Ada", "AccountName": "svc", "AccountId": 12, "Notes": "n"},
         {"type": "Account Provisioned", "time": "2024-03-01T08:00:00Z", "actor.name": "Ada",
          "target.name": "svc", "target.id": "12", "message": "n"}),
        ("lightrun", {"eventType": "USER_LOGGED_IN", "timestamp": 1709280000123,
                      "userEmail": "a@b", "sourceIp": "10.0.0.1", "resourceName": "r"},
         {"type": "User Logged In", "time": "2024-03-01T08:00:00.123Z", "actor.name": "a@b",
          "actor.address": "10.0.0.1", "target.name": "r", "category": "session"}),
        ("fields", {"eventName": "x", "request": {"target": {"name": "deep"}}, "user": "u",
                    "attributes": {"note": "m", "k": 1}},
         {"type": "x", "target.name": "deep", "actor.name": "u", "message": "m"}),
    ],
)  # fmt: skip
def test_each_product_finds_its_own_spellings(
    product: str, record: dict[str, Any], expected: dict[str, Any]
) -> None:
    event = event_of(record, product)
    assert {field: field_getter(field)(event) for field in expected} == expected


def test_fields_that_nobody_wants_stay_empty() -> None:
    line = json.dumps({"type": "a", "message": "m", "actor": {"name": "x"}, "z": 1}).encode()
    for records in ([line], [line, b"{}"]):
        event = decoder(wanted=frozenset({"actor.name"})).decode(batch_of(records)).events[0]
        assert (event.actor.name, event.message, event.attributes) == ("x", None, None)

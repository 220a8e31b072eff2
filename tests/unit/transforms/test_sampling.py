"""`sample:` of a sink: a fixed part of what is alike is sent, and what is left out is counted."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from siemrelay.config.load import load_text
from siemrelay.core.errors import ConfigurationRefused
from siemrelay.core.event import Batch
from siemrelay.pipeline.batching import BatchMaker, DeliveryBatch
from siemrelay.pipeline.formatting.messages import (
    FormattedBatch,
    InternalError,
    SinkMessages,
    messages_of,
)
from siemrelay.pipeline.sink_status import SinkStatus
from siemrelay.relay.assembly import Assembly
from siemrelay.sinks.contract import BatchLimits
from siemrelay.telemetry.stats import OTHER_TYPES, SinkStats
from siemrelay.transforms.sampling import is_sampled

RULES = [
    {"events": {"include": ["User Logged In"], "outcome": "success"}, "one_in": 10},
    {"events": "User *", "where": {"actor.name": "svc-*"}, "one_in": 100},
]
FIRST = 5_000
COUNT = 1_000


def record(number: int) -> bytes:
    kind = ("User Logged In", "User Logged Out", "Account Provisioned")[number % 3]
    outcome = "failure" if number % 7 == 0 else "success"
    user = "svc-a" if number % 2 else "ada"
    return json.dumps({"type": kind, "outcome": outcome, "user": user, "id": str(number)}).encode()


PAYLOAD = b"".join(record(number) + b"\n" for number in range(COUNT))


def assembled(sample: Any = RULES, **sink: Any) -> Assembly:
    sinks = {"siem": {"server": "a", "format": "json", "sample": sample, **sink}}
    text = json.dumps({"sources": {"s": {"type": "stdin"}}, "sinks": sinks})
    return Assembly(load_text(text, "f.yaml", {}).config)


def messages(assembly: Assembly, source: str = "s") -> SinkMessages:
    formatter = assembly.formatter({"siem": assembly.sink_format("siem")})
    errors = list[InternalError]()
    decoded = formatter.decode(Batch(FIRST, COUNT, source, 1.7e9, PAYLOAD), errors)
    group, view = formatter.places["siem"]
    made = formatter.format(decoded, group, [view], errors)
    assert not errors
    return messages_of(made, view, 0, [])


def batch_from(position: int) -> DeliveryBatch:
    stored = Batch(FIRST, COUNT, "s", 1.7e9, PAYLOAD)
    (batch,) = BatchMaker(BatchLimits()).batches(stored, messages(assembled()), position)
    return batch


def test_one_in_so_many_is_sent_and_the_rest_is_counted_by_type() -> None:
    found = messages(assembled())
    sent = {int(json.loads(message)["id"]) for message in found.messages}
    for number in range(COUNT):
        event = json.loads(record(number))
        if event["type"] == "User Logged In" and event["outcome"] == "success":
            share = 10
        elif event["type"].startswith("User") and event["user"] == "svc-a":
            share = 100
        else:
            share = 1
        left_out = FIRST + number in found.sampled.get(event["type"], ())
        assert (number in sent) == is_sampled(FIRST + number, share) == (not left_out)
    assert found.sampled.keys() == {"User Logged In", "User Logged Out"}


@pytest.mark.parametrize("one_in", [2, 3, 10, 100])
@pytest.mark.parametrize("step", [1, 2, 3, 10, 64])
def test_no_rhythm_of_a_source_decides_what_is_sent(one_in: int, step: int) -> None:
    sent = sum(is_sampled(sequence, one_in) for sequence in range(0, 20_000 * step, step))
    assert 0.8 < sent / (20_000 / one_in) < 1.2


def test_a_second_attempt_sends_the_same() -> None:
    assert messages(assembled()) == messages(assembled())


@pytest.mark.parametrize("position", [FIRST, FIRST + 1, FIRST + 333, FIRST + COUNT])
def test_every_record_is_accounted_for_from_any_position(position: int) -> None:
    batch, whole = batch_from(position), messages(assembled())
    assert len(batch.messages) + batch.filtered == FIRST + COUNT - position
    assert sum(batch.sampled.values()) == batch.filtered, "nothing else is filtered here"
    before = whole.left_out(FIRST, position)
    for name, sequences in whole.sampled.items():
        assert before.get(name, 0) + batch.sampled.get(name, 0) == len(sequences)


def test_the_relays_own_events_are_all_sent() -> None:
    assert len(messages(assembled([{"one_in": 1000}]), "siemrelay").messages) == COUNT
    assert len(messages(assembled([{"one_in": 1000}])).messages) < COUNT // 100


def test_workers_hand_over_what_was_sampled_and_redacted() -> None:
    assembly = assembled(redact=[{"field": "actor.name"}])
    formatter = assembly.formatter({"siem": assembly.sink_format("siem")})
    made = formatter.formatted(Batch(FIRST, COUNT, "s", 1.7e9, PAYLOAD), {0: [0]})
    assert made.groups[0].redacted
    assert made.groups[0].views[0].sampled
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(made), type=FormattedBatch) == made


def test_sinks_that_differ_in_their_sample_alone_are_formatted_once() -> None:
    both = {"server": "a", "format": "json"}
    sinks = {"all": both, "some": {**both, "sample": RULES}}
    text = json.dumps({"sources": {"s": {"type": "stdin"}}, "sinks": sinks})
    assembly = Assembly(load_text(text, "f.yaml", {}).config)
    formatter = assembly.formatter({name: assembly.sink_format(name) for name in sinks})
    decoded = formatter.decode(Batch(FIRST, COUNT, "s", 1.7e9, PAYLOAD), [])
    groups = {name: formatter.places[name] for name in sinks}
    assert groups["all"][0] == groups["some"][0]
    made = formatter.format(decoded, groups["all"][0], [view for _, view in groups.values()], [])
    assert len(messages_of(made, groups["all"][1], 0, []).messages) == COUNT
    some = messages_of(made, groups["some"][1], 0, [])
    assert some == messages(assembled())


def test_counts_are_bounded_however_many_types_there_are() -> None:
    stats = SinkStats("siem")
    status = SinkStatus("siem", None, stats, lambda: 0)
    status.left_out({f"type {number}": 1 for number in range(500)})
    status.left_out({"type 0": 2, "type 499": 2})
    assert len(stats.sampled) == 101
    assert (stats.sampled["type 0"], sum(stats.sampled.values())) == (3, 504)
    assert stats.sampled[OTHER_TYPES] == 402


@pytest.mark.parametrize(
    ("short", "rules"),
    [
        (10, [{"one_in": 10}]),
        ({"events": "User *", "one_in": 3}, [{"events": "User *", "one_in": 3}]),
        ({"User Logged In": 10, "*": {"one_in": 2, "where": {"actor.name": "ada"}}},
         [{"events": "User Logged In", "one_in": 10},
          {"events": "*", "one_in": 2, "where": {"actor.name": "ada"}}]),
    ],
)  # fmt: skip
def test_a_sample_in_short_is_the_same_as_its_rules(short: Any, rules: Any) -> None:
    found, wanted = messages(assembled(short)), messages(assembled(rules))
    assert (found.sequences, found.sampled) == (wanted.sequences, wanted.sampled)
    assert found.sampled


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        ({"events": "User Loged In", "one_in": 10}, "the nearest known name is 'User Logged In'"),
        ({"events": "User *"}, "sample[0].one_in: is required"),
        ({"one_in": 1}, "must be at least 2"),
    ],
)
def test_a_faulty_rule_is_found_at_its_place(rule: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigurationRefused) as refused:
        assembled([rule])
    assert fault in str(refused.value)
    assert ".sample[0]." in str(refused.value)

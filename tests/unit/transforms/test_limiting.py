"""`limit:` of a source: of what comes too fast a part is stored, and the rest is counted."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.config.load import load_text
from siemrelay.core.errors import ConfigurationRefused
from siemrelay.core.times import rfc3339
from siemrelay.pipeline.intake.source_filter import SourceFilter
from siemrelay.relay.assembly import Assembly
from siemrelay.sources.contract import Position, Records
from siemrelay.transforms import limiting
from siemrelay.transforms.limiting import Limiter, LimitRule, events_and_period

START_S = 1_700_000_000  # the first second of a minute's third part


def configured(
    limit: Any, source: dict[str, Any] | None = None, sink: dict[str, Any] | None = None
) -> Assembly:
    text = json.dumps({
        "sources": {"s": {"type": "stdin", "limit": limit, **(source or {})}},
        "sinks": {"siem": {"server": "a", **(sink or {})}},
    })  # fmt: skip
    return Assembly(load_text(text, "f.yaml", {}).config)


def source_filter(limit: Any, **source: Any) -> SourceFilter:
    made = configured(limit, source).source_filter("s")
    assert made is not None
    return made


def line(kind: str = "User Logged In", at_s: float = START_S, user: str = "ada") -> bytes:
    return json.dumps({"type": kind, "time": rfc3339(at_s), "user": user}).encode() + b"\n"


def stored(made: SourceFilter, lines: list[bytes]) -> list[bytes]:
    """What is stored of the lines when they come one by one."""
    return [one for one in lines if made.apply(Records(one, 1)).records.count]


def limited(made: SourceFilter, lines: list[bytes]) -> dict[str, int]:
    return dict(made.apply(Records(b"".join(lines), len(lines))).limited)


@pytest.mark.parametrize(
    ("limit", "counts"),
    [
        ("5/s", {"User Logged In": 5, "User Logged Out": 0}),
        ({"rate": "5/s", "per": "type"}, {"User Logged In": 5, "User Logged Out": 5}),
        ({"user logged in": "3/s", "*": "4/s"}, {"User Logged In": 3, "User Logged Out": 4}),
        ({"User Logged Out": "1/s"}, {"User Logged In": 9, "User Logged Out": 1}),
        ([{"events": "User Logged Out", "rate": "1/s"}], {"User Logged Out": 1}),
        ([{"where": {"actor.name": "bob"}, "rate": "1/s"}], {"User Logged In": 9}),
        ({"User *": {"rate": "2/s", "per": "actor.name"}}, {"User Logged In": 2}),
    ],
)  # fmt: skip
def test_the_first_of_each_period_are_stored(limit: Any, counts: dict[str, int]) -> None:
    lines = [line(kind) for kind in ("User Logged In", "User Logged Out") for _ in range(9)]
    found = stored(source_filter(limit), lines)
    kinds = Counter(json.loads(one)["type"] for one in found)
    assert {kind: kinds[kind] for kind in counts} == counts
    left_out = Counter(json.loads(one)["type"] for one in lines) - kinds
    assert limited(source_filter(limit), lines) == dict(left_out)


@given(st.permutations(list(range(60))), st.integers(1, 60))
def test_of_a_backlog_no_more_is_left_out_than_of_the_same_events_live(
    order: list[int], portion: int
) -> None:
    """Two files of an hour ago are read in whatever order, within a moment."""
    lines = [line(at_s=START_S + number / 10, user=str(number)) for number in order]
    made, count = source_filter("4/s"), 0
    for at in range(0, len(lines), portion):
        some = lines[at : at + portion]
        count += made.apply(Records(b"".join(some), len(some))).records.count
    assert count == 6 * 4, "of ten events a second four"


def test_by_arrival_and_in_the_future_all_of_a_moment_are_one_period() -> None:
    far_apart = [line(at_s=START_S + 10 * number) for number in range(9)]
    assert len(stored(source_filter("5/h"), far_apart)) == 5
    assert len(stored(source_filter("5/s"), far_apart)) == 9
    assert len(stored(source_filter({"rate": "5/10000d", "clock": "arrival"}), far_apart)) == 5
    assert len(stored(source_filter("5/10000d"), [line(at_s=9e9 + 9e8 * n) for n in range(9)])) == 5


def test_values_are_counted_apart_and_those_without_one_together() -> None:
    users = ["ada", "bob", "", "ada", "", "bob", "ada"]
    made = source_filter({"rate": "1/m", "per": "actor.name"})
    assert len(stored(made, [line(user=user) for user in users])) == 3


def test_positions_are_stored_when_nothing_else_is() -> None:
    made, position = source_filter("1/m"), (Position("f", {"at": 1}),)
    assert made.apply(Records(line(), 1, position)).records.count == 1
    kept = made.apply(Records(line(), 1, position))
    assert (kept.records.payload, kept.records.count, kept.records.positions) == (b"", 0, position)


def test_what_cannot_be_parsed_is_limited_and_a_record_in_parts_is_not() -> None:
    made = source_filter({"rate": "1/m", "clock": "arrival"})
    assert limited(made, [b"no json\n"] * 4) == {"Unparsed Record": 3}
    assert made.apply(Records(b"no json\n", 1, part=2)).records.count == 1


def test_a_secret_in_a_type_is_not_in_the_counts() -> None:
    made = source_filter("1/m", redact=[{"kind": "email"}])
    assert limited(made, [line("Mail to ada@example.com")] * 3) == {"Mail to ***": 2}


def test_memory_is_bounded_and_what_is_forgotten_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiting, "_MOST_PERIODS", 10)
    rule = LimitRule.model_validate({"rate": "1/d", "per": "actor.name"})
    limiter = Limiter([rule], configured("1/s").catalogue)
    made = SourceFilter("s", configured("1/s").decoder("s", [], everything=True),
                        configured("1/s").sink("siem").events, keep_unparsed=True,
                        limiter=limiter)  # fmt: skip
    lines = [line(user=f"u{number}") for number in range(30)]
    assert len(stored(made, lines)) == 30
    assert len(stored(made, lines[-10:])) == 0
    assert len(stored(made, lines[:1])) == 1, "forgotten, so counted anew"


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("100/s", (100, 1)), ("6000/m", (6000, 60)), ("500/10s", (500, 10)), ("1 / 2h", (1, 7200)),
        ("20 per 500ms", (20, 0.5)), ("7/d", (7, 86400)),
    ],
)  # fmt: skip
def test_rates_are_read(written: str, found: tuple[int, float]) -> None:
    assert events_and_period(written) == found


@pytest.mark.parametrize(
    ("limit", "fault"),
    [
        (100, "a rate needs a time: write 100/s or 100/m"),
        ("100/min", "unknown unit 'min'; write 1m, in a rate like 100/s, 6000/m or 500/10s"),
        ("many", "write how many events in what time, like 100/s, 6000/m or 500/10s"),
        ("0/s", "`events: {exclude: …}` leaves events out"),
        ({"User Loged In": "5/s"}, "the nearest known name is 'User Logged In'"),
        ([{"events": "User Loged In", "rate": "5/s"}], "the nearest known name is"),
        ({"events": "User Loged In", "rate": "5/s"}, "the nearest known name is"),
        ([{"events": "User *"}], "limit[0].rate: is required"),
        ({"rate": "5/s", "per": "user"}, "unknown event field `user`"),
    ],
)
def test_a_faulty_limit_says_what_to_write(limit: Any, fault: str) -> None:
    with pytest.raises(ConfigurationRefused) as refused:
        configured(limit)
    assert fault in str(refused.value)
    assert "sources.s.limit" in str(refused.value)


@pytest.mark.parametrize("key", ["limit", "throttle", "rate_limit"])
def test_a_sink_has_no_limit_and_the_fault_names_what_there_is(key: str) -> None:
    with pytest.raises(ConfigurationRefused) as refused:
        configured("5/s", sink={key: "5/s"})
    assert f"a sink has no `{key}`" in str(refused.value)
    assert "`limit:` on the source" in str(refused.value)
    assert "`sample:` here" in str(refused.value)


def test_without_a_limit_there_is_no_step() -> None:
    assert configured([]).source_filter("s") is None

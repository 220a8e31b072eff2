"""What a decoder learns of a source makes it faster and changes nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from siemrelay.core.event import FIELDS, AuditEvent, Batch, attributes_of, field_getter
from siemrelay.decoders.json.decoder import JsonDecoder
from siemrelay.decoders.json.learned import REFUSALS, Learner, learn
from tests.support.events.products import CATALOGUE, GENERIC
from tests.support.events.strategies import SPELLINGS, alike, batch_of, written
from tests.support.examples import examples

EVERYTHING = frozenset({*FIELDS, "attributes"})
WANTED = [
    EVERYTHING,
    frozenset(FIELDS),
    frozenset({"type"}),
    frozenset({"time", "actor.name", "actor.address", "message"}),
    frozenset({"target.name", "target.type", "actor.id"}),
]
FULL = {
    "id": "e1", "time": "2024-03-01T08:00:00.000Z", "type": "Account Provisioned",
    "category": "account", "severity": 3, "outcome": "success",
    "actor": {"name": "Ada", "id": "u1", "ip": "10.0.0.1"},
    "target": {"type": "account", "name": "a-1", "id": "t1"},
    "message": "done", "attributes": {"region": "eu", "n": [1, 2]},
}  # fmt: skip


def shown(event: AuditEvent) -> tuple[Any, ...]:
    values = [field_getter(field)(event) for field in FIELDS]
    # 1 == True == 1.0: what is compared is what a JSON line would show.
    return (*map(repr, values), json.dumps(attributes_of(event)))


def learned(
    sample: list[dict[str, Any]], spellings: str = "generic", wanted: frozenset[str] = EVERYTHING
) -> JsonDecoder:
    decoder = JsonDecoder(SPELLINGS[spellings], wanted, CATALOGUE)
    decoder.decode(batch_of(list(map(written, sample))))
    return decoder


def looked_through(
    batch: Batch, spellings: str = "generic", wanted: frozenset[str] = EVERYTHING
) -> list[tuple[Any, ...]]:
    decoder = JsonDecoder(SPELLINGS[spellings], wanted, CATALOGUE, learns=False)
    return list(map(shown, decoder.decode(batch).events))


@pytest.mark.parametrize("wanted", WANTED, ids=lambda wanted: f"{len(wanted)} fields")
@pytest.mark.parametrize("spellings", SPELLINGS)
@examples(25)
@given(records=alike())
def test_the_learned_shape_agrees_with_looking_everywhere(
    spellings: str, wanted: frozenset[str],
    records: tuple[list[dict[str, Any]], list[dict[str, Any]]],
) -> None:  # fmt: skip
    sample, others = records
    decoder = learned(sample, spellings, wanted)
    for some in (others, [*sample, *others], sample, others[:1]):
        batch = batch_of(list(map(written, some)))
        expected = looked_through(batch, spellings, wanted)
        assert list(map(shown, decoder.decode(batch).events)) == expected


@examples(100)
@given(records=alike())
def test_what_a_shape_takes_by_itself_it_takes_in_a_payload(
    records: tuple[list[dict[str, Any]], list[dict[str, Any]]],
) -> None:
    sample, others = records
    shape = learn(sample, GENERIC, attributes=None)
    if shape is None:
        return
    lines = [written(record) for record in [*sample, *others]]
    rows = []
    for line in lines:
        try:
            rows.append(shape.row(line))
        except ValueError:
            return
    payload = b"".join(line + b"\n" for line in lines)
    together = shape.rows(payload, len(lines))
    assert together is not None
    assert list(map(shown, shape.events(together))) == list(map(shown, shape.events(rows)))


def test_a_source_that_writes_the_events_own_form_is_decoded_straight_into_events() -> None:
    shape = learn([FULL], GENERIC, attributes=Raw)
    assert shape is not None
    rows = shape.rows(written(FULL) + b"\n", 1)
    assert rows is not None
    assert shape.events(rows) is rows
    assert isinstance(rows[0], AuditEvent)


def test_flat_records_have_a_shape_when_attributes_are_not_asked_for() -> None:
    flat = {"eventType": "x", "userEmail": "a@b", "sourceIp": "10.0.0.1", "other": {"deep": [1]}}
    assert learn([flat], GENERIC, attributes=None) is not None
    assert learn([flat], GENERIC, attributes=Raw) is None


def test_a_field_that_some_of_the_sample_lack_may_be_lacking() -> None:
    less = {key: value for key, value in FULL.items() if key != "message"}
    for attributes in (Raw, None):
        shape = learn([FULL, less], GENERIC, attributes=attributes)
        assert shape is not None
        assert shape.row(written(less)).message is None
        shape = learn([FULL], GENERIC, attributes=attributes)
        assert shape is not None
        with pytest.raises(REFUSALS):
            shape.row(written(less))


@pytest.mark.parametrize(
    ("sample", "other"),
    [
        # Integers where floats were: they may not become floats.
        ([{"type": 1.5, "id": "a"}], {"type": 1, "id": "a"}),
        # What one field takes another would take, too, were its own not there.
        ([{"title": "t", "note": "n"}, {"id": "a"}], {"note": "n"}),
        ([{"title": "t", "note": "n"}], {"note": "n"}),
        # Attributes are passed on without being looked into.
        ([{"title": "t", "note": "n"}], {"title": "t", "note": "n", "attributes": {"who": "w"}}),
    ],
)
@pytest.mark.parametrize("wanted", WANTED, ids=lambda wanted: f"{len(wanted)} fields")
def test_what_types_alone_do_not_show_is_found(
    sample: list[dict[str, Any]], other: dict[str, Any], wanted: frozenset[str]
) -> None:
    spellings = {**GENERIC, "type": ("title", "note", "type"), "message": ("note",)}
    spellings["actor.name"] = ("attributes.who", "user")
    decoder, slow = (
        JsonDecoder(spellings, wanted, CATALOGUE, learns=learns) for learns in (True, False)
    )
    decoder.decode(batch_of(list(map(written, sample))))
    batch = batch_of([written(other)])
    expected = list(map(shown, slow.decode(batch).events))
    assert list(map(shown, decoder.decode(batch).events)) == expected


DIFFERENT = {
    "an optional field null": {**FULL, "message": None},
    "a field missing": {k: v for k, v in FULL.items() if k != "message"},
    "an empty text": {**FULL, "message": ""},
    "an object for a text": {**FULL, "message": {"a": 1}},
    "a number for a text": {**FULL, "id": 5},
    "another spelling": {**FULL, "eventId": "e2", "username": "Bob"},
    "another spelling, null": {**FULL, "username": None},
    "the actor a text": {**FULL, "actor": "Ada"},
    "the actor null": {**FULL, "actor": None},
    "the actor missing": {k: v for k, v in FULL.items() if k != "actor"},
    "more of the actor": {**FULL, "actor": {"name": "Ada", "id": "u1", "ip": "::1", "mfa": True}},
    "less of the actor": {**FULL, "actor": {"name": "Ada"}},
    "a dotted key": {**FULL, "actor.name": "Bob"},
    "a dotted key, null": {**FULL, "actor.name": None},
    "a severity in words": {**FULL, "severity": "high"},
    "a severity of no meaning": {**FULL, "severity": "blue"},
    "a fractional severity": {**FULL, "severity": 3.0},
    "a severity of true": {**FULL, "severity": True},
    "an outcome of no meaning": {**FULL, "outcome": "pending"},
    "a time of no meaning": {**FULL, "time": "yesterday"},
    "an epoch time": {**FULL, "time": 1709280000123},
    "attributes a list": {**FULL, "attributes": [1]},
    "attributes null": {**FULL, "attributes": None},
    "attributes empty": {**FULL, "attributes": {}},
    "attributes missing": {k: v for k, v in FULL.items() if k != "attributes"},
    "attributes deep": {**FULL, "attributes": {"a": json.loads("[" * 150 + "]" * 150)}},
    "attributes of long integers": {**FULL, "attributes": {"a": 10**4000}},
    "attributes in attributes": {**FULL, "attributes": {"attributes": {"a": 1}}},
    "an actor of nothing": {**FULL, "actor": {}},
    "attributes beside others": {**FULL, "region": "us"},
    "keys of the events own names": {**FULL, "(no message)": 1, "k6964": 2},
}


@pytest.mark.parametrize("wanted", WANTED, ids=lambda wanted: f"{len(wanted)} fields")
@pytest.mark.parametrize("what", DIFFERENT)
def test_a_record_that_differs_from_the_sample_gives_the_event_it_would_give_alone(
    what: str, wanted: frozenset[str]
) -> None:
    batch = batch_of([written(FULL), written(DIFFERENT[what]), written(FULL)])
    expected = looked_through(batch, wanted=wanted)
    assert list(map(shown, learned([FULL], wanted=wanted).decode(batch).events)) == expected
    for more in (DIFFERENT[what], {"type": "x"}):
        decoder = learned([FULL, more], wanted=wanted)
        assert list(map(shown, decoder.decode(batch).events)) == expected


LINES = {
    "two on a line, one on two": [b'{"id":"a"}{"id":"b"}', b'{"id":', b'"c"}'],
    "two on a line, one on two, closed": [b'{"id":"a"} {"id":"b"}', b'{"id":"c","x":{}', b'}'],
    "two on a line and an empty one": [b'{"id":"a"}{"id":"b"}', b""],
    "halves": [b'{"id":"a","type":"x"', b'"message":"y"}'],
    "two on the line after": [b'{"id":"a","x":', b'{}}{"id":"b"}'],
    "a comma between": [b'{"id":"a"},{"id":"b"}', b'{"id":"c"', b'"d":"e"}'],
    "a brace alone": [b'{"id":"a"}{"id":"b"}', b'{"x":{', b'}}'],
    "carriage returns": [b'{"id":"a"}\r', b'{"id":"b"}\r'],
    "a carriage return within": [b'{"id":"a",\r"attributes":{"x":\r1}}', b'{"id":"b"}'],
    "a tab within": [b'{"id":"a",\t"attributes":{"x":\t1}}', b'{"id":"b"}'],
    "space around": [b' {"id":"a"} ', b'\t{"id":"b"}'],
    "bad UTF-8 in attributes": [b'{"id":"a","attributes":{"x":"\xff"}}', b'{"id":"b"}'],
    "bad UTF-8 in a key": [b'{"id":"a","\xff":1}', b'{"id":"b"}'],
    "numbers without end": [b'{"id":"a","attributes":{"x":' + b"9" * 5000 + b"}}", b'{"id":"b"}'],
    "numbers without value": [b'{"id":"a","attributes":{"x":1e999,"y":-0}}', b'{"id":"b"}'],
    "the same key twice": [b'{"id":"a","id":"b","actor":{"name":"x"},"actor":{"id":"y"}}'],
    "a key in escapes": [b'{"\\u0069d":"a"}', b'{"id":"b"}'],
    "half a surrogate pair": [b'{"id":"a","attributes":{"x":"\\ud800"}}', b'{"id":"b"}'],
}  # fmt: skip


@pytest.mark.parametrize("sample", [{"id": "a"}, {"id": "a", "attributes": {}}], ids=str)
@pytest.mark.parametrize("what", LINES)
def test_lines_keep_their_places_whatever_is_on_them(what: str, sample: dict[str, Any]) -> None:
    batch = batch_of(LINES[what])
    for wanted in WANTED:
        expected = looked_through(batch, wanted=wanted)
        assert list(map(shown, learned([sample], wanted=wanted).decode(batch).events)) == expected


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        (b'{"x":1,"x":2}', {"x": 2}),
        (b'{"x":{"y":1,"y":2}}', {"x": {"y": 2}}),
        (b'{"x":[{"y":1},{"y":1,"y":2}]}', {"x": [{"y": 1}, {"y": 2}]}),
        (b'{"x":1,"x":"\\u003a"}', {"x": ":"}),
        (b'{"x":1,"\\u0078":2}', {"x": 2}),
        (b'{"x":"a:b","x":"c"}', {"x": "c"}),
        (b'{"x":"a:b","y":{"z":"::"}}', None),
    ],
)
def test_attributes_with_a_name_twice_are_not_passed_on_as_they_are(
    attributes: bytes, expected: dict[str, Any] | None
) -> None:
    batch = batch_of([b'{"id":"a","attributes":' + attributes + b"}"] * 2)
    for event in learned([{"id": "a", "attributes": {}}]).decode(batch).events:
        if expected is None:
            assert bytes(event.attributes) == attributes  # type: ignore[arg-type]  # Raw it is
        else:
            assert event.attributes == expected


@examples(100)
@given(st.lists(st.sampled_from([b'{"id":"a"}', b"{", b"}", b" ", b'"x":', b"1", b",", b"{}", b"\r",
                                 b"[", b"]", b"\n", b'"']), max_size=12))  # fmt: skip
def test_pieces_of_json_never_move_to_another_line(pieces: list[bytes]) -> None:
    batch = batch_of(b"".join(pieces).split(b"\n"))
    for wanted in (EVERYTHING, frozenset({"type"})):
        expected = looked_through(batch, wanted=wanted)
        decoder = learned([{"id": "a"}], wanted=wanted)
        assert list(map(shown, decoder.decode(batch).events)) == expected


def test_a_source_that_changes_its_form_is_learned_anew() -> None:
    learner = Learner(GENERIC, None)
    old, new = ([written(record)] * 50 for record in (FULL, {"eventType": "x", "user": "Ada"}))
    assert decoded_by(learner, old) is not None
    learned_from = learner.shape
    for _ in range(4):
        if decoded_by(learner, new) is None:
            learner.misfits(50, new)
    assert learner.shape is not learned_from
    assert decoded_by(learner, new) is not None


def test_a_source_without_one_form_is_asked_about_it_ever_more_seldom() -> None:
    learner = Learner(GENERIC, Raw)
    mixed = [written({"id": 1}), written({"eventId": "x", "user": "y"})]
    asked = 0

    def records() -> list[bytes]:
        nonlocal asked
        asked += 1
        return mixed

    for _ in range(3000):
        assert learner.together(b"\n".join([*mixed, b""]), 2, records) is None
    assert learner.shape is None
    assert 8 <= asked <= 13


def decoded_by(learner: Learner, records: list[bytes]) -> list[AuditEvent] | None:
    payload = b"".join(record + b"\n" for record in records)
    return learner.together(payload, len(records), lambda: records)

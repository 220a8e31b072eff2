"""Who may choose a value inside a message does not choose the event that the message becomes."""
# ruff: noqa: E501  (messages are as long as they are)

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from siemrelay import registry
from siemrelay.core.event import FIELDS, AuditEvent, Batch, attributes_of, field_getter
from siemrelay.decoders.key_value import whole_pairs
from tests.support.events.products import CATALOGUE, GENERIC
from tests.support.events.strategies import texts
from tests.support.examples import examples

RECEIVED = datetime(2026, 1, 15, 12, 0, 0, tzinfo=UTC)
RECEIVED_S = RECEIVED.timestamp()
EVERYTHING = frozenset({*FIELDS, "attributes"})
HEADER = "<38>Jan 15 11:59:00 box sshd[1]: "
OWN = {"time": "2026-01-15T11:59:00Z", "type": "sshd", "category": "other", "severity": 2,
       "outcome": "unknown"}  # fmt: skip
"""The fields that the header gives."""


def decoded(text: str, decoder: str = "syslog", **options: Any) -> AuditEvent:
    build = registry.DECODERS[decoder].build
    made = build(GENERIC, EVERYTHING, CATALOGUE, **options)
    payload = text.encode("utf-8", "replace") + b"\n"
    (event,) = made.decode(Batch(1, 1, "devices", RECEIVED_S, payload)).events
    return event


def fields(event: AuditEvent) -> dict[str, Any]:
    """All that is not None, but for the message and the id, which here depends on the bytes."""
    found = {field: field_getter(field)(event) for field in FIELDS}
    return {k: v for k, v in found.items() if v is not None and k not in ("id", "message")}


ATTACKS = {
    "an event of pairs after words":
        'Invalid user type="Account Owner Changed" actor=admin severity=10 time=2020-01-01T00:00:00Z from 10.0.0.9',
    "pairs that evade filters": 'user a=b type="User Logged Out" severity=0',
    "pairs before words": 'type="User Logged Out" severity=0 logged in',
    "this relay's own form": 'Invalid user x (type="User Logged Out" severity="0" id="ev-1")',
    "this relay's own form with a message": 'Invalid user: x (type="User Logged Out" id="ev-1")',
    "a JSON object after words": 'Invalid user {"type":"User Logged Out","severity":0,"id":"ev-1"}',
    "a JSON object before words": '{"type":"User Logged Out","severity":0,"id":"ev-1"} from 10.0.0.9',
    "two JSON objects": '{"type":"User Logged Out"} {"severity":0}',
    "a JSON object in pairs and words": 'user={"type":"x"} severity=0 from 10.0.0.9',
    "a cookie after words": 'Invalid user @cee: {"type":"User Logged Out","severity":0}',
    "CEF after words": "Invalid user CEF:0|a|b|c|d|User Logged Out|0|suser=admin from 10.0.0.9",
    "LEEF after words": "Invalid user LEEF:1.0|a|b|c|User Logged Out|sev=0\tusrName=admin",
    "a header after words": "Invalid user <0>1 2020-01-01T00:00:00Z other su - - - x",
    "structured data after words": 'Invalid user [event@32473 type="User Logged Out" id="ev-1"]',
    "a value with a space": "result=failed user=a b type=x severity=0",
    "a quote that does not end": 'result=failed user="a type=x severity=0',
    "a quote that ends within a value": 'result=failed user="a"b type=x severity=0',
    "an escaped quote at the end": r'result=failed path="C:\" type="x" severity=0',
    "an apostrophe that does not end": "result=failed user='a type=x severity=0",
    "a quote within a value": 'result=failed user=a"b type=x severity=0',
    "a lone quote at the end": 'result=failed type=x severity=0 "',
    "a key with no value and words": "type= x severity=0 y",
    "spaces around the sign": "type = x severity = 0",
    "a lone pair": "type=x",
    "a comma list": "user=a,type=x,severity=0",
    "a key that is no name": "type=x severity=0 1=2",
    "no-break spaces": "type=x\u00a0y severity=0\u00a0 \u2028 z",
    "controls": "user \x01 type=x severity=0 \x1b[2K",
}  # fmt: skip


@pytest.mark.parametrize("what", ATTACKS)
def test_text_is_not_structure(what: str) -> None:
    event = decoded(HEADER + ATTACKS[what])
    assert fields(event) == OWN
    assert event.message == ATTACKS[what]
    assert event.id not in (None, "ev-1")
    assert attributes_of(event).keys() <= {"syslog", "text"}


def test_pairs_among_words_are_attributes_under_a_prefix() -> None:
    event = decoded(
        HEADER + "Invalid user (type=\"a b\" actor=admin), severity=10; [x='y z'] a=1 a=2"
    )
    assert attributes_of(event)["text"] == {
        "type": "a b", "actor": "admin", "severity": "10", "x": "y z", "a": "1"
    }  # fmt: skip


def test_a_key_that_comes_twice_leaves_nothing_out_of_the_message() -> None:
    text = "msg='first' user=ada msg='op=login res=failed'"
    assert whole_pairs(text) == {"msg": "first", "user": "ada", "message": text}


@pytest.mark.parametrize(
    "text",
    [
        "CEF:0|v|p|1|Login|Login|3|suser=ada msg=first cs1=a msg=second",
        "LEEF:1.0|v|p|1|Login|usrName=ada\tmsg=first\tmsg=second",
        # A header with a `|` that is not escaped (npm's syslog-pro), a value with a delimiter
        "CEF:0|v|x|p|1|100|Login|8|src=10.1.1.1 suser=ada msg=first",
        "LEEF:1.0|v|p|1|Login|usrName=ada\tmsg=first\tand more",
    ],
)
def test_what_no_key_of_cef_or_leef_stands_for_is_left_in_the_message(text: str) -> None:
    event = decoded(HEADER + text)
    assert (event.message, event.actor.name) == (text, "ada")


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ('a=1, b="2 3"; c=\'4 5\' d=', {"a": "1", "b": "2 3", "c": "4 5", "d": ""}),
        (r'a="say \"b=2\"" c=3', {"a": 'say "b=2"', "c": "3"}),
        (r'a="x\\" c=3', {"a": "x\\", "c": "3"}),
        ('a="b=2 c=3" d=4', {"a": "b=2 c=3", "d": "4"}),
        ("a='b=\"2\"' d=4", {"a": 'b="2"', "d": "4"}),
        ("a=1 a=2 b=3", {"a": "1", "b": "3"}),
        ("a=x'y b=2", {"a": "x'y", "b": "2"}),
        ("a=b=c d=2", {"a": "b=c", "d": "2"}),
        ("a=1,b=2 c=3", {"a": "1,b=2", "c": "3"}),
        ('a="1",b="2";c="3"', {"a": "1", "b": "2", "c": "3"}),
        ("  a=1\tb=2  ", {"a": "1", "b": "2"}),
        ("a=1 b=2 x", None), ("x a=1 b=2", None), ('a=1 b="2', None), ('a="1"b="2"', None),
        ("a=1 =2", None), ("a=1 b =2", None), ("a=1 b", None), ("", None), ("a=1", None),
        ("a=1 a=2", None), ("=", None), ("==", None), ("a=1 'b=2'", None), (", a=1 b=2", None),
    ],
)  # fmt: skip
def test_pairs_are_whole_if_nothing_is_left_over(text: str, pairs: dict[str, str] | None) -> None:
    expected = None if pairs is None else {**pairs, "message": text}
    assert whole_pairs(text) == expected


_KEYS = st.from_regex(r"[A-Za-z_@][A-Za-z0-9_.@-]{0,8}", fullmatch=True)


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(
    st.dictionaries(_KEYS, texts(), min_size=2, max_size=5), st.sampled_from([" ", ", ", "; ", ","])
)
def test_a_value_that_its_sender_quotes_stays_a_value(said: dict[str, str], between: str) -> None:
    said = {key: value.replace("\\]", "") for key, value in said.items()}
    text = between.join(f"{key}={_quoted(value)}" for key, value in said.items())
    own = {} if "msg" in said else {"message": said.get("message", text)}
    assert whole_pairs(text) == {**said, **own}


FORGED = st.sampled_from([
    'type="User Logged Out"', "type=x", "severity=0", "time=2020-01-01T00:00:00Z", "id=ev-1",
    "outcome=success", "actor=admin", "category=session", '{"type":"x"}', '{"severity":0}',
    "CEF:0|a|b|c|d|x|0|suser=root", "LEEF:1.0|a|b|c|x|sev=0", "@cee:", "@cee: {}", '"', "'", "\\",
    "=", ",", ";", " ", "(", ")", "[", "]", "\t", "<0>", "<0>1 - - - - - -", "Oct 11 22:14:15 ",
    'x (type="y" id="ev-1")', '[event@1 type="x"]', "\ufeff",
])  # fmt: skip
"""Pieces of structure for names that an attacker chooses."""
CHOSEN = st.lists(FORGED | texts(12), max_size=8).map(" ".join) | st.lists(FORGED).map("".join)


@examples(400)
@given(CHOSEN)
@example('type="Account Owner Changed" actor=admin severity=10 time=2020-01-01T00:00:00Z')
@pytest.mark.parametrize("prose", [
    "Failed password for invalid user {} from 10.0.0.9 port 4242 ssh2", "Invalid user {}",
    "{} logged in from 10.0.0.9 today", "result=failed user={} from address 10.0.0.9",
    "login of {} (uid 0) failed", "- {} -",
])  # fmt: skip
def test_the_fields_of_prose_are_those_of_its_header_whatever_is_within(
    prose: str, chosen: str
) -> None:
    chosen = chosen.replace("\n", " ")
    text = prose.format(chosen).strip("\0\r\n \t")
    # A form that begins the message is the sender's own choice, and none of these senders' is.
    if text.removeprefix("\ufeff").startswith(("CEF:", "LEEF:")):
        return
    event = decoded(HEADER + text)
    assert fields(event) == OWN
    assert attributes_of(event).keys() <= {"syslog", "text"}
    assert attributes_of(event)["syslog"] == attributes_of(decoded(HEADER + "x"))["syslog"]


# Declared forms


@pytest.mark.parametrize(
    ("body", "text", "expected"),
    [
        ("key_value", 'login type=x words severity=9 user="a b"', {"type": "x", "severity": 9, "actor.name": "a b"}),
        ("key_value", "type=x", {"type": "x"}),
        ("key_value", "user=a,type=x,severity=0", {"actor.name": "a", "type": "x", "severity": 0}),
        ("key_value", 'Login: done (severity="9" id="ev-1")', {"type": "Login", "severity": 9}),
        ("key_value", 'type=x user="a severity=0', {"type": "x", "actor.name": '"a severity=0'}),
        ("key_value", '{"type":"x"}', {}),
        ("text", "type=x severity=9", {}), ("text", '{"type":"x"}', {}),
        ("text", "CEF:0|a|b|c|d|x|9|", {}),
        ("json", '{"type":"x"}', {"type": "x"}), ("json", "type=x severity=9", {}),
        ("json", "CEF:0|a|b|c|d|x|9|", {}),
        ("cef", "CEF:0|a|b|c|d|x|9|", {"type": "x", "severity": 9}), ("cef", '{"type":"x"}', {}),
        ("leef", "LEEF:1.0|a|b|c|x|sev=9", {"type": "x", "severity": 9}), ("leef", "type=x b=c", {}),
    ],
)  # fmt: skip
def test_a_source_may_declare_what_its_messages_are(
    body: str, text: str, expected: dict[str, Any]
) -> None:
    event = decoded(HEADER + text, body=body)
    assert fields(event) == {**OWN, **expected}
    if not expected:
        assert attributes_of(event).keys() == {"syslog"}
    if body in registry.DECODERS and body not in ("text", "json"):
        assert fields(decoded(HEADER + text, decoder=body)) == {**OWN, **expected}


# What comes twice


@pytest.mark.parametrize(
    "text",
    [
        "CEF:0|a|b|c|d|Login|9|suser=ada suser=root src=10.0.0.1 src=10.0.0.2",
        "LEEF:1.0|a|b|c|Login|sev=9\tusrName=ada\tusrName=root\tsrc=10.0.0.1\tsrc=10.0.0.2",
        "type=Login severity=9 user=ada user=root ip=10.0.0.1 ip=10.0.0.2 type=x severity=0",
    ],
)
def test_of_a_key_that_comes_twice_the_first_counts(text: str) -> None:
    event = decoded(HEADER + text)
    assert fields(event) == {
        **OWN, "type": "Login", "severity": 9, "actor.name": "ada", "actor.address": "10.0.0.1"
    }  # fmt: skip


@pytest.mark.parametrize(("form", "text"), [
    ("cef", "CEF:0|v|p|1|d|Login|9|suser=ada type=x severity=0 device=y actor.name=root"),
    ("leef", "LEEF:1.0|v|p|1|Login|sev=9\tusrName=ada\ttype=x\tseverity=0\tdevice=y\tactor.name=root"),
])  # fmt: skip
def test_a_key_with_the_name_of_a_field_does_not_take_its_place(form: str, text: str) -> None:
    event = decoded(HEADER + text)
    assert (event.type, event.severity, event.actor.name) == ("Login", 9, "ada")
    attributes = attributes_of(event)
    assert attributes["device"]["vendor"] == "v"
    assert attributes[form] == {"type": "x", "severity": "0", "device": "y", "actor.name": "root"}


# Times


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        ("2026-01-15T10:00:00Z", True), ("2016-01-20T00:00:00Z", True),
        ("2016-01-10T00:00:00Z", False), ("2026-01-16T11:00:00Z", True),
        ("2026-01-16T13:00:00Z", False), ("2026-01-16T13:00:00+02:00", True),
        ("1970-01-01T00:00:00Z", False), ("9999-12-31T23:59:59-14:00", False),
        ("0001-01-01T00:00:00+14:00", False), ("yesterday", False), ("12:17:48", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("body", ['type=x time="{}"', '{{"type":"x","time":"{}"}}'])
def test_a_time_in_a_body_is_taken_within_bounds_or_the_headers_is(
    body: str, said: str, taken: bool
) -> None:
    event = decoded(HEADER + body.format(said))
    assert event.time == (said if taken else OWN["time"])
    assert attributes_of(event).get("time") == (None if taken else said)


def test_a_time_in_a_json_record_is_taken_within_bounds_or_its_arrival_is() -> None:
    for said, taken in (("2026-01-15T10:00:00Z", True), ("2015-01-01T00:00:00Z", False)):
        event = decoded(f'{{"type":"x","time":"{said}"}}', "json")
        assert event.time == (said if taken else "2026-01-15T12:00:00.000Z")
        assert attributes_of(event) == (
            {} if taken else {"time": said, "siemrelay.time_from": "arrival"}
        )


@pytest.mark.parametrize("decoder", ["json", "syslog"])
def test_the_bounds_of_times_are_options(decoder: str) -> None:
    bounds = {"max_time_past": 3600.0, "max_time_ahead": 60.0}
    for said, taken in (("11:30", True), ("10:30", False), ("12:00", True), ("12:02", False)):
        time = f"2026-01-15T{said}:00Z"
        event = decoded(f'{{"type":"x","time":"{time}"}}', decoder, **bounds)
        assert (event.time == time) is taken


def test_a_headers_time_is_the_devices_clock_and_not_bounded() -> None:
    assert decoded("<13>1 1999-01-01T00:00:00Z h a - - - x").time == "1999-01-01T00:00:00Z"
    assert decoded("<13>1 1999-01-01T00:00:00Z h a - - - a=1 b=2").time == "1999-01-01T00:00:00Z"


def test_each_event_of_a_batch_gets_its_own_time() -> None:
    made = registry.DECODERS["syslog"].build(GENERIC, EVERYTHING, CATALOGUE, timezone="UTC")
    lines = [HEADER + "words", HEADER + '{"time":"2026-01-15T10:00:00Z"}',
             HEADER + '{"time":"1970-01-01T00:00:00Z"}', "no header", '{"time":"soon"}']  # fmt: skip
    payload = "".join(line + "\n" for line in lines).encode()
    for _ in range(2):
        events = made.decode(Batch(1, len(lines), "devices", RECEIVED_S, payload)).events
        assert [event.time for event in events] == [
            OWN["time"], "2026-01-15T10:00:00Z", OWN["time"], "2026-01-15T12:00:00.000Z",
            "2026-01-15T12:00:00.000Z",
        ]  # fmt: skip

"""Paths into lists, and texts that are made of several values under conditions."""

from __future__ import annotations

from typing import Any

import pytest

from siemrelay.decoders.fields import Template, is_plain
from siemrelay.decoders.json.learned import learn
from siemrelay.decoders.json.lookup import FieldLookup

RECORD: dict[str, Any] = {
    "a": {"b": "ab", "n": 5, "yes": True, "none": None},
    "a.b": "dotted",
    "claims": {"http://e.com/upn": "u@e.com", "of.list": ["first"], "plain": {"x.y": 1}},
    "list": [{"name": "x", "value": 1}, {"name": "y", "value": 2}, "z"],
    "deep": {"rows": [{"cells": ["c0", "c1"]}]},
    "code": 4624,
    "ports": {
        "four": "192.0.2.1:443",
        "six": "[2001:db8::1]:55000",
        "bare": "2001:db8::1",
        "brackets": "[2001:db8::1]",
        "name": "web.example.com:80",
        "none": "192.0.2.1",
        "samba": "ipv6:2001:db8::1:55000",
    },
    "user": "-",
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("list.0.name", "x"),
        ("list.1.value", 2),
        ("list.2", "z"),
        ("list.3", None),
        ("list.99999999999999999999", None),
        ("list.-1", None),
        ("list.name=y.value", 2),
        ("list.value=1.name", "x"),
        ("list.name=none.value", None),
        ("list.name", None),
        ("deep.rows.0.cells.1", "c1"),
        ("a.b.0", None),
        ("a.b", "dotted"),
        ('claims."http://e.com/upn"', "u@e.com"),
        ('claims."of.list".0', "first"),
        ('claims.plain."x.y"', 1),
        ('"claims".plain."x.y"', 1),
        ('claims."missing.one"', None),
        ('{a.n} {claims."http://e.com/upn"}', "5 u@e.com"),
        ("{a.n}-{a.yes}", "5-true"),
        ("{a.b}!", "dotted!"),
        ("{ports.four as address}", "192.0.2.1"),
        ("{ports.six as address}", "2001:db8::1"),
        ("{ports.bare as address}", "2001:db8::1"),
        ("{ports.brackets as address}/{a.n}", "2001:db8::1/5"),
        ("{ports.name as address if a.n=5}", "web.example.com"),
        ("{ports.none as address}", "192.0.2.1"),
        ("{ports.samba as address}", "2001:db8::1"),
        ("{code as address}", "4624"),
        ("{missing as address}", None),
        ("{a.n}/{a.none}", None),
        ("{a.n}/{list}", None),
        ("{list.name=x.value}:{code}", "1:4624"),
        ("{a.n if code=1,4624}", "5"),
        ("{a.n if code=1,2}", None),
        ("{a.n if missing=1}", None),
        ("{user if user!=-}", None),
        ("{code if user!=x}", "4624"),
        ("{code if missing!=x}", "4624"),
    ],
)
def test_a_path_leads_to_this_value_alone_and_in_a_column(path: str, value: Any) -> None:
    finder = FieldLookup({"message": (path,)})
    text = None if value is None else str(value)
    assert [found for _, _, found in finder.find(RECORD)] == ([] if value is None else [value])
    alike = finder.events([dict(RECORD) for _ in range(9)], attributes=False)
    assert {event.message for event in alike} == {text}


def test_what_a_text_is_made_of_and_what_is_kept_stays_among_the_attributes() -> None:
    finder = FieldLookup({"type": ("{a} {b}",), "outcome": ("b",), "message": ("c",)}, {"outcome"})
    records = [{"a": "x", "b": "y", "c": "z"} for _ in range(9)]
    (event, *_) = finder.events(records, attributes=True)
    assert (event.type, event.outcome, event.message) == ("x y", "y", "z")
    assert event.attributes == {"a": "x", "b": "y"}
    (alone,) = finder.events([{"a": "x", "b": "y", "c": "z"}], attributes=True)
    assert alone.attributes == event.attributes


def test_no_shape_is_learned_where_a_path_is_not_plain() -> None:
    assert is_plain("a.b")
    assert not any(map(is_plain, ("a.0", "a.b=c.d", "{a}", 'a."b.c"')))
    assert learn([{"a": "x"}], {"type": ("a",)}, attributes=None) is not None
    assert learn([{"a": "x"}], {"type": ("a", "b.0")}, attributes=None) is None


def test_a_template_knows_the_keys_that_it_may_need() -> None:
    assert Template("{a.b} {c if d.e!=1}").keys == {"a.b", "a", "c", "d.e", "d"}

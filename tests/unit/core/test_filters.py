"""A sink takes the events it chose, says why, and decides fast and in bounded memory."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from siemrelay.core.event import AuditEvent
from siemrelay.core.event_types import (
    ANY,
    RELAY_STARTED,
    UNPARSED,
    UNTYPED,
    EventType,
)
from siemrelay.core.filters import (
    EventFilter,
    EventsChoice,
    EventsOptions,
    entry_fault,
)
from siemrelay.core.memo import MOST_CHARACTERS, MOST_KEYS
from siemrelay.products.product import BUILT_IN
from tests.support.examples import examples
from tests.support.memory import kept_bytes

CATALOGUE = BUILT_IN.catalogue(
    ["generic"], [EventType("Door [main] Opened", category="building"), EventType("User")]
)
CHOICE: TypeAdapter[EventsOptions] = TypeAdapter(EventsChoice)


def event(type: str = "Account Provisioned", **fields: Any) -> AuditEvent:
    known = CATALOGUE.find(type)
    filled = {
        "category": known.category if known else "custom",
        "severity": 3,
        "outcome": "success",
    }
    return AuditEvent(type=type, **{**filled, **fields})


def chosen(choice: Any) -> EventFilter:
    return EventFilter(CHOICE.validate_python(choice), CATALOGUE)


def takes(choice: Any, one: AuditEvent) -> bool:
    kept = chosen(choice).select([one])
    return kept is None or kept == [True]


@pytest.mark.parametrize(
    ("written", "include"),
    [
        ({}, [ANY]),
        (ANY, [ANY]),
        ("User *", ["User *"]),
        (["User *", "category:session"], ["User *", "category:session"]),
        ({"include": "User *"}, ["User *"]),
        ({"exclude": "User *"}, [ANY]),
        (EventsOptions(include=["User *"]), ["User *"]),
    ],
)
def test_short_forms_mean_include(written: Any, include: list[str]) -> None:
    assert CHOICE.validate_python(written).include == include


def test_one_outcome_may_be_written_without_a_list() -> None:
    assert CHOICE.validate_python({"outcome": "failure"}).outcome == ["failure"]


@pytest.mark.parametrize(
    ("written", "place"),
    [
        ([], ("include",)),
        ([3], ("include", 0)),
        (7, ()),
        ({"min_severity": 11}, ("min_severity",)),
        ({"outcome": "maybe"}, ("outcome", 0)),
        ({"includes": "User *"}, ("includes",)),
    ],
)
def test_a_wrong_choice_is_a_fault_at_its_place(written: Any, place: tuple[Any, ...]) -> None:
    with pytest.raises(ValidationError) as caught:
        CHOICE.validate_python(written)
    assert [fault["loc"] for fault in caught.value.errors()] == [place]


def test_editors_learn_of_the_short_forms_from_the_schema() -> None:
    schema = CHOICE.json_schema()
    text, names, full = schema["anyOf"]
    assert text == {"type": "string"}
    assert names["items"] == text
    assert "$ref" in full
    include = schema["$defs"]["EventsOptions"]["properties"]["include"]
    assert [form["type"] for form in include["anyOf"]] == ["array", "string"]
    assert include["default"] == [ANY]


@pytest.mark.parametrize(
    "entry",
    [
        ANY,
        "any audit record",
        "account_provisioned",
        "User *",
        "*Failed",
        "Nobody's Type [0-9]?",
        "Door [main] Opened",
        "category:runtime-access",
        "Category: Runtime Access",
        "category:building",
        "category:run*",
        UNPARSED,
    ],
)
def test_a_good_entry_has_no_fault(entry: str) -> None:
    assert entry_fault(entry, CATALOGUE) is None


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("Acount Provisioned", ["event type 'Acount Provisioned'", "'Account Provisioned'"]),
        ("session", ["event type 'session'", "'category:session'"]),
        ("category:sesion", ["category 'sesion'", "'category:session'"]),
        ("category:any", ["category 'any'"]),
        ("qqqqqqqqqq", ["event type 'qqqqqqqqqq'", "no known name resembles it"]),
    ],
)
def test_an_unknown_entry_gets_the_nearest_name_and_how_to_declare_one(
    entry: str, said: list[str]
) -> None:
    fault = entry_fault(entry, CATALOGUE)
    assert fault is not None
    assert all(part in fault for part in [*said, "`event_types:`"]), fault


@pytest.mark.parametrize("entry", ["", "  "])
def test_an_empty_entry_is_a_fault(entry: str) -> None:
    assert "empty" in (entry_fault(entry, CATALOGUE) or "")


@pytest.mark.parametrize("choice", [ANY, "any_audit_record", "*", ["User *", ANY], {}])
def test_a_filter_for_everything_does_not_look(choice: Any) -> None:
    assert chosen(choice).select([event(), event("Anything At All")]) is None


def test_a_filter_asks_only_for_the_fields_that_matter() -> None:
    assert chosen(ANY).fields == frozenset()
    assert chosen("User *").fields == {"type"}
    assert chosen(["category:session", ANY]).fields == frozenset()
    full = chosen({"exclude": ["User *", "category:x"], "min_severity": 1, "outcome": "failure"})
    assert full.fields == {"type", "category", "severity", "outcome"}


def test_excluding_everything_takes_nothing() -> None:
    assert chosen({"exclude": ANY}).select([event(), event("Anything")]) == [False, False]


@pytest.mark.parametrize(
    ("entry", "type_", "taken"),
    [
        ("Account Provisioned", "Account Provisioned", True),
        ("account_provisioned", "Account Provisioned", True),
        ("Account Provisioned", "accountProvisioned", True),
        ("Account Provisioned", "Account Provisioned Twice", False),
        ("My Own Type", "my-own-type", True),
        ("User *", "User Logged In", True),
        ("user *", "USER_LOGGED_IN", True),
        ("User *", "userLoggedIn", True),
        ("User *", "user.login", True),
        ("User *", "Username Set", False),
        ("User *", "User", False),
        ("User*", "Username Set", True),
        ("userLogged*", "User Logged In", True),
        ("user logged*", "USERLOGGEDIN", True),
        ("* Failed", "User Login Failed", True),
        ("*Failed", "User Login Failed", True),
        ("*login*", "User Login Failed", True),
        ("*", "", True),
        ("User Logged I?", "User Logged In", True),
        ("User Logged [IO]*", "User Logged Out", True),
        ("User Logged [!I]*", "User Logged In", False),
        ("User Logged [!I]*", "User Logged Out", True),
        ("Level [3-5]", "Level 4", True),
        ("Level [3-5]", "Level 6", False),
        ("Door [main] Opened", "Door [main] Opened", True),
        ("Door [main] Opened", "Door m Opened", False),
        ("Door [mn] Opened", "Door M Opened", True),
        ("[abc", "[abc", True),
        ("Zugriff *", "ZUGRIFF geändert", True),
        ("a\nb*", "a b c", True),
        ("...*", "User Logged In", False),
        (UNPARSED, UNPARSED, True),
        ("Un*", UNPARSED, True),
        ("User *", UNPARSED, False),
    ],
)
def test_an_entry_takes_what_it_names_in_any_spelling(entry: str, type_: str, taken: bool) -> None:
    assert takes(entry, event(type_)) is taken


@pytest.mark.parametrize(
    ("entry", "category", "taken"),
    [
        ("category:runtime-access", "runtime-access", True),
        ("category: Runtime Access", "runtimeAccess", True),
        ("CATEGORY:session", "Session", True),
        ("category:session", "sessions", False),
        ("category:user*", "user-management", True),
        ("category:session", None, False),
    ],
)
def test_a_category_entry_looks_at_the_events_own_category(
    entry: str, category: str | None, taken: bool
) -> None:
    assert takes(entry, event("Coffee Served", category=category)) is taken


@pytest.mark.parametrize(
    ("choice", "one", "kept", "why"),
    [
        (ANY, event(), True, "every event is selected"),
        ("Account Provisioned", event(), True, "'Account Provisioned' is in include"),
        ("Account *", event(), True, "'Account *' is in include"),
        ("category:account", event(), True, "'category:account' is in include"),
        ("User *", event(), False, "'Account Provisioned' is not in include"),
        ({"exclude": "Acc*"}, event(), False, "excluded by 'Acc*'"),
        ({"min_severity": 4}, event(severity=2), False, "severity 2 is below min_severity 4"),
        ({"min_severity": 4}, event(severity=None), False, "severity 3 is below min_severity 4"),
        ({"outcome": "failure"}, event(), False, "outcome 'success' is not failure"),
        (
            {"outcome": ["failure", "unknown"]},
            event(),
            False,
            "outcome 'success' is not failure or unknown",
        ),
        ({"outcome": "unknown"}, event(outcome=None), True, "every event is selected"),
    ],
)
def test_explain_gives_the_verdict_and_its_reason(
    choice: Any, one: AuditEvent, kept: bool, why: str
) -> None:
    assert chosen(choice).explain(one) == (kept, why)


def test_a_reason_stays_one_short_line_for_a_hostile_name() -> None:
    _, why = chosen("User *").explain(event("x\n" * 100_000))
    assert len(why) < 200
    assert "\n" not in why


ENTRIES = st.sampled_from(
    [ANY, "*", "Account Provisioned", "User *", "*in", "user logged out", "Own Type", "Own ?ype",
     "category:account", "category:session", "category:s*", "Door [main] Opened", UNPARSED]
)  # fmt: skip
OPTIONS = st.builds(
    EventsOptions,
    include=st.lists(ENTRIES, min_size=1, max_size=4),
    exclude=st.lists(ENTRIES, max_size=3),
    min_severity=st.integers(0, 10),
    outcome=st.lists(st.sampled_from(["success", "failure", "unknown"]), max_size=2),
)
EVENTS = st.builds(
    AuditEvent,
    type=st.sampled_from([known.name for known in CATALOGUE.types] + ["own_type", "userLoggedIn"])
    | st.text(max_size=8)
    | st.just("User " + "x" * MOST_CHARACTERS),
    category=st.sampled_from([None, "account", "Session", "user"]) | st.text(max_size=4),
    severity=st.none() | st.integers(0, 10),
    outcome=st.sampled_from([None, "success", "failure", "unknown"]),
    message=st.none() | st.text(max_size=3),
)


@examples(60)
@given(OPTIONS, st.lists(EVENTS, max_size=12))
def test_select_agrees_with_explain_for_every_event(
    options: EventsOptions, events: list[AuditEvent]
) -> None:
    compiled = EventFilter(options, CATALOGUE)
    explained = [compiled.explain(one)[0] for one in events]
    for _ in range(2):  # the second time from memory
        selected = compiled.select(events)
        assert ([True] * len(events) if selected is None else selected) == explained


def test_a_flood_of_names_neither_grows_the_memory_nor_changes_a_decision() -> None:
    compiled = chosen(["User *", "category:session"])
    flood = [event(f"User {n}" if n % 3 else f"{n}") for n in range(2 * MOST_KEYS + 7)]
    flood += [event("User " + "x" * MOST_CHARACTERS + str(n)) for n in range(50)]
    assert compiled.select(flood) == [one.type.startswith("User ") for one in flood]
    assert kept_bytes(lambda: compiled.select(flood)) < 4 << 20


def test_a_pattern_costs_no_more_than_the_length_of_a_hostile_name() -> None:
    # With backtracking these eight stars would take years.
    assert not takes("*a*a*a*a*a*a*a*a*b", event("a" * 50_000))


def test_to_exclude_the_relays_own_events_leaves_every_record_of_a_product() -> None:
    choice = {"exclude": ["category:relay"]}
    assert not takes(choice, event(RELAY_STARTED))
    assert takes(choice, event(UNPARSED))
    assert takes(choice, event(UNTYPED))

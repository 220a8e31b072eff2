"""OCSF: valid by the published schema of its version and of the newest one, and nothing lost."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from ocsf_json_schema import (
    OcsfJsonSchemaEmbedded,
    get_ocsf_schema,
)

from siemrelay.core.event import (
    NOBODY,
    NOTHING,
    Actor,
    AuditEvent,
    Selection,
    Target,
    attributes_of,
)
from siemrelay.core.times import epoch_ms
from siemrelay.formats.ocsf.classes import VERSION
from siemrelay.formats.ocsf.event import Ocsf, OcsfOptions
from tests.support.events.products import CATALOGUE
from tests.support.events.strategies import EVENTS, selection_of
from tests.support.examples import examples

CATEGORIES = sorted({known.category for known in CATALOGUE.types})
VERSIONS = [VERSION, "1.8.0"]
PLAIN = AuditEvent(
    id="e1", time="2024-03-01T08:00:00.123Z", type="Account Provisioned", category="account",
    severity=5, outcome="success", actor=Actor("Ada Lovelace", "u1", "10.0.0.1"),
    target=Target("account", "svc", "t1"), message="done", attributes={"region": "eu"},
)  # fmt: skip


@cache
def schema(version: str) -> OcsfJsonSchemaEmbedded:
    return OcsfJsonSchemaEmbedded(get_ocsf_schema(version=version))


@cache
def validator(version: str, class_uid: int) -> Draft202012Validator:
    name = schema(version).lookup_class_name_from_uid(class_uid)
    return Draft202012Validator(schema(version).get_class_schema(name))


def read(event: AuditEvent, **options: Any) -> dict[str, Any]:
    (message,) = Ocsf(OcsfOptions(**options)).encode(selection_of([event]))
    found: dict[str, Any] = json.loads(message)
    for version in VERSIONS:
        validator(version, found["class_uid"]).validate(found)
    assert found["type_uid"] == found["class_uid"] * 100 + found["activity_id"]
    assert found["category_uid"] == found["class_uid"] // 1000
    # Where the number says "Other" the name must say what it was (OCSF, `activity_name`).
    assert ("activity_name" in found) == (found["activity_id"] == 99)
    return found


def shown(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {shown(name): shown(inner) for name, inner in value.items()}
    return [shown(inner) for inner in value] if isinstance(value, list) else value


def some(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value}


OF_ANY_CATEGORY = st.builds(
    lambda event, category, kind: msgspec.structs.replace(
        event, category=category or event.category, type=kind or event.type
    ),
    EVENTS, st.sampled_from(["", *CATEGORIES]),
    st.sampled_from(["", *(known.name for known in CATALOGUE.types)]),
)  # fmt: skip


@examples(300)
@given(event=OF_ANY_CATEGORY)
def test_any_event_is_valid_ocsf_and_comes_back_as_it_went_in(event: AuditEvent) -> None:
    found = read(event)
    rest = found.get("unmapped", {})
    assert found["time"] == epoch_ms(event.time or "")
    assert (found["metadata"]["uid"], found["metadata"]["event_code"]) == (
        shown(event.id), shown(event.type),
    )  # fmt: skip
    assert found.get("message") == shown(event.message)
    assert rest.get("category", "") == shown(event.category)
    assert rest.get("attributes", {}) == shown(attributes_of(event))
    actor, target = event.actor, event.target
    who = some(name=shown(actor.name), uid=shown(actor.id))
    user = found.get("actor", {}).get("user", {})
    endpoint = found.get("src_endpoint", {})
    if found["class_uid"] == 0:
        said = some(name=actor.name, id=actor.id, address=actor.address)
        assert rest.get("actor", {}) == shown(said)
    else:
        assert user == who
        at = endpoint.get("ip", endpoint.get("name", ""))
        assert at == shown(actor.address or "")
    to = some(name=shown(target.name), uid=shown(target.id), type=shown(target.type))
    places = [found.get("user"), found.get("entity"), *found.get("resources", [])]
    if target.name or target.id:
        assert to in places or rest["target"] == shown(
            some(type=target.type, name=target.name, id=target.id)
        )


@examples(100)
@given(events=st.lists(OF_ANY_CATEGORY, min_size=2, max_size=6))
def test_many_events_of_all_classes_become_what_each_becomes_alone(
    events: list[AuditEvent],
) -> None:
    form, many = Ocsf(OcsfOptions()), selection_of(events * 6)
    assert form.encode(many) == [
        form.encode(Selection(many.decoded, [i == j for j in range(len(many))]))[0]
        for i in range(len(many))
    ]


def test_many_events_that_have_everything_become_what_each_becomes_alone() -> None:
    events = [
        AuditEvent(
            id="e", time="2024-03-01T08:00:00.123Z", type=known.name, category=known.category,
            severity=5, outcome="success", actor=Actor("ada", "u1", "10.0.0.1"),
            target=Target("user", 'a "b"', "t1"), message="done",
        )
        for known in CATALOGUE.types
    ]  # fmt: skip
    form, many = Ocsf(OcsfOptions()), selection_of(events)
    assert form.encode(many) == [
        form.encode(Selection(many.decoded, [i == j for j in range(len(many))]))[0]
        for i in range(len(many))
    ]


@pytest.mark.parametrize("known", CATALOGUE.types, ids=lambda known: known.name)
def test_every_type_of_the_catalogue_has_its_class(known: Any) -> None:
    found = read(msgspec.structs.replace(PLAIN, type=known.name, category=known.category))
    assert (found["class_uid"] == 0) == (known.category in ("any", "relay", "unknown"))


@pytest.mark.parametrize(
    ("kind", "category", "type_uid"),
    [
        ("Account Provisioned", "account", 300101),
        ("User Disabled by AD User Sync", "user", 300105),
        ("User Password Changed", "user-management", 300103),
        ("User Password Reset Requested", "user-management", 300104),
        ("User Role Changed", "user-management", 300199),
        ("User Logged In", "session", 300201),
        ("User Login Failed", "session", 300201),
        ("User Logged Out", "session", 300202),
        ("Session Expired", "session", 300202),
        ("Group Deleted", "user-management", 300404),
        ("Configuration Changed", "configuration", 300403),
        ("Request State Changed", "request", 300403),
        ("Snapshot Created", "runtime-access", 600301),
        ("Remote Worker Integration Access Error", "integration", 600399),
        ("Unparsed Record", "relay", 99),
        ("user deleted", "audit", 300106),
        ("door opened", "building", 99),
    ],
)
def test_events_are_of_the_class_and_activity_that_they_tell_of(
    kind: str, category: str, type_uid: int
) -> None:
    event = msgspec.structs.replace(PLAIN, type=kind, category=category)
    assert read(event)["type_uid"] == type_uid


@pytest.mark.parametrize("category", CATEGORIES)
def test_an_event_without_what_its_class_requires_is_a_base_event(category: str) -> None:
    event = msgspec.structs.replace(PLAIN, category=category, actor=NOBODY, target=NOTHING)
    assert read(event)["class_uid"] == 0


def test_an_ocsf_event_is_spelled_as_the_schema_spells_it() -> None:
    assert read(PLAIN, vendor="V", product="P", version="2") == {
        "class_uid": 3001, "category_uid": 3, "activity_id": 1, "type_uid": 300101,
        "severity_id": 3, "status_id": 1, "time": 1709280000123,
        "metadata": {
            "version": "1.5.0", "product": {"name": "P", "vendor_name": "V", "version": "2"},
            "uid": "e1", "event_code": "Account Provisioned", "log_name": "test", "sequence": 7,
        },
        "message": "done", "actor": {"user": {"name": "Ada Lovelace", "uid": "u1"}},
        "user": {"name": "svc", "uid": "t1", "type": "account"},
        "src_endpoint": {"ip": "10.0.0.1"},
        "unmapped": {"category": "account", "attributes": {"region": "eu"}},
    }  # fmt: skip


def test_who_logs_in_is_the_user_and_what_into_stays() -> None:
    found = read(msgspec.structs.replace(PLAIN, type="User Logged In", category="session",
                                         target=Target("console", "web")), product="P")  # fmt: skip
    assert found["user"] == {"name": "Ada Lovelace", "uid": "u1"}
    assert found["service"] == {"name": "P"}
    assert found["unmapped"]["target"] == {"type": "console", "name": "web"}


@pytest.mark.parametrize(
    ("severity", "severity_id"),
    [(0, 1), (1, 2), (3, 2), (4, 3), (6, 3), (7, 4), (8, 4), (9, 5), (10, 5)],
)
def test_severities_are_on_the_scale_of_ocsf(severity: int, severity_id: int) -> None:
    event = msgspec.structs.replace(PLAIN, severity=severity)
    assert read(event)["severity_id"] == severity_id


@pytest.mark.parametrize(("outcome", "status_id"), [("success", 1), ("failure", 2), ("unknown", 0)])
def test_outcomes_are_statuses(outcome: str, status_id: int) -> None:
    assert read(msgspec.structs.replace(PLAIN, outcome=outcome))["status_id"] == status_id


def test_attributes_are_passed_on_as_they_were_received() -> None:
    text = b'{"b":1.0,"a":"\\u00e9", "n":12345678901234567890123}'
    event = msgspec.structs.replace(PLAIN, attributes=msgspec.Raw(text))
    (message,) = Ocsf(OcsfOptions()).encode(selection_of([event]))
    assert b'"attributes":' + text in message

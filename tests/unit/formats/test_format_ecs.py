"""ECS: only fields that ECS has, of its types and with its values, and nothing lost.

The list of fields is somebody else's: the one by which STIX-Shifter reads ECS events out of
Elasticsearch. It has no `message`, `labels` and `user.target`, which STIX has no use for; and the
values of the categorisation fields are from the ECS reference, 8.11, as no package carries them.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.core.event import Actor, AuditEvent, Selection, Target, attributes_of
from siemrelay.core.event_types import UNPARSED
from siemrelay.formats.ecs.document import Ecs, EcsOptions
from tests.support.events.products import CATALOGUE
from tests.support.events.strategies import EVENTS, selection_of
from tests.support.examples import examples

PLAIN = AuditEvent(
    id="e1", time="2024-03-01T08:00:00.123Z", type="Account Provisioned", category="account",
    severity=5, outcome="success", actor=Actor("Ada Lovelace", "u1", "10.0.0.1"),
    target=Target("account", "svc", "t1"), message="done", attributes={"region": "eu"},
)  # fmt: skip

KINDS = {"alert", "asset", "enrichment", "event", "metric", "state", "pipeline_error", "signal"}
OUTCOMES = {"failure", "success", "unknown"}
EXPECTED_TYPES = {
    "api": {"access", "admin", "allowed", "change", "creation", "deletion", "denied", "end", "info",
            "start", "user"},
    "authentication": {"start", "end", "info"},
    "configuration": {"access", "change", "creation", "deletion", "info"},
    "iam": {"admin", "change", "creation", "deletion", "group", "info", "user"},
    "session": {"start", "end", "info"},
}  # fmt: skip
"""Of the categories that are used here, the "expected event types for category"."""

NOT_IN_STIX = {"message", "user.target.name", "user.target.id"}
LONGS = {"event.severity", "event.sequence"}
DATES = {"@timestamp", "event.created"}
LISTS = {"event.category", "event.type"}


@cache
def known_fields() -> frozenset[str]:
    folder = resources.files("stix_shifter_modules.elastic_ecs")
    tree = json.loads((folder / "stix_translation/json/stix_2_1/to_stix_map.json").read_text())

    def leaves(node: Any, path: str) -> Iterator[str]:
        if isinstance(node, dict) and not isinstance(node.get("key"), str):
            for name, inner in node.items():
                yield from leaves(inner, f"{path}.{name}" if path else name)
        else:
            yield path

    return frozenset(leaves(tree, "")) | NOT_IN_STIX


def fields_of(document: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        assert "." not in name
        if isinstance(value, dict):
            yield from fields_of(value, f"{path}{name}.")
        else:
            yield path + name, value


def check(document: dict[str, Any]) -> None:
    """Raises AssertionError if a field is not ECS', or its value not of its type."""
    for field, value in fields_of(document):
        if field.startswith("labels."):
            assert isinstance(value, str)
            continue
        # `source.address` is where ECS wants an address of either kind, before `source.ip`.
        assert field in known_fields() or field == "source.address", field
        if field in LISTS:
            assert value
            assert all(isinstance(item, str) for item in value)
        else:
            assert isinstance(value, int if field in LONGS else str), field
        if field in DATES:
            datetime.fromisoformat(value)
        if field == "source.ip":
            assert ipaddress.ip_address(value)
            assert "%" not in value
    event = document["event"]
    assert document["ecs"]["version"].startswith("8.")
    assert (event["kind"] in KINDS, event["outcome"] in OUTCOMES) == (True, True)
    assert ("category" in event) == ("type" in event)
    for category in event.get("category", []):
        assert set(event["type"]) <= EXPECTED_TYPES[category]


def read(event: AuditEvent, record: bytes = b"{}", **options: Any) -> dict[str, Any]:
    (message,) = Ecs(EcsOptions(**options)).encode(selection_of([event], [record]))
    document: dict[str, Any] = json.loads(message)
    check(document)
    return document


def shown(text: str | None) -> str | None:
    return text and text.encode("utf-8", "replace").decode()


def some(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value}


@examples(300)
@given(event=EVENTS)
def test_any_event_is_ecs_and_comes_back_as_it_went_in(event: AuditEvent) -> None:
    document = read(event)
    found, actor, target = document["event"], event.actor, event.target
    assert document["@timestamp"] == event.time
    assert (found["id"], found["action"]) == (shown(event.id), shown(event.type))
    assert (found["severity"], found["outcome"], found["sequence"]) == (
        event.severity, event.outcome, 7,
    )  # fmt: skip
    assert document.get("message") == shown(event.message)
    user = document.get("user", {})
    assert some(name=user.get("name"), id=user.get("id")) == some(
        name=shown(actor.name), id=shown(actor.id)
    )
    assert document.get("source", {}).get("address") == (shown(actor.address) or None)
    labels = document.get("labels", {})
    for name, value in some(category=event.category, target_type=target.type).items():
        assert labels[name] == shown(value)
    placed = [user.get("target", {}), document.get("group", {}),
              {"name": labels.get("target_name"), "id": labels.get("target_id")}]  # fmt: skip
    if target.name or target.id:
        said = some(name=shown(target.name), id=shown(target.id))
        assert said in [some(**place) for place in placed]
    texts = [value for value in attributes_of(event).values() if isinstance(value, str)]
    assert {shown(text) for text in texts} <= set(labels.values())


@pytest.mark.parametrize("original", [False, True])
@examples(60)
@given(events=st.lists(st.builds(
    lambda event, kind, of, more: msgspec.structs.replace(
        event, type=kind, target=msgspec.structs.replace(event.target, type=of),
        attributes=more or event.attributes,
    ),
    EVENTS, st.sampled_from([known.name for known in CATALOGUE.types]),
    st.sampled_from([None, "", "user", "Account", "group", "host"]),
    st.sampled_from([{}, {"a.b": 1}, {"a": {"b": None, "c": "x"}}, {"category": "own"}]),
), min_size=1, max_size=4))  # fmt: skip
def test_many_events_become_what_each_becomes_alone(
    original: bool, events: list[AuditEvent]
) -> None:
    form, many = Ecs(EcsOptions(original=original)), selection_of(events * 16)
    assert form.encode(many) == [
        form.encode(Selection(many.decoded, [i == j for j in range(len(many))]))[0]
        for i in range(len(many))
    ]


@pytest.mark.parametrize("known", CATALOGUE.types, ids=lambda known: known.name)
def test_every_type_of_the_catalogue_has_its_place(known: Any) -> None:
    document = read(msgspec.structs.replace(PLAIN, type=known.name, category=known.category))
    assert ("category" in document["event"]) == (known.category not in ("any", "relay", "unknown"))


@pytest.mark.parametrize(
    ("kind", "category", "categories", "types"),
    [
        ("Account Provisioned", "account", ["iam"], ["user", "creation"]),
        ("User Deleted", "user-management", ["iam"], ["user", "deletion"]),
        ("Group Updated", "user-management", ["iam"], ["group", "change"]),
        ("Request State Changed", "request", ["iam"], ["admin", "change"]),
        ("User Logged In", "session", ["authentication"], ["start"]),
        ("User Login Failed", "session", ["authentication"], ["start"]),
        ("Session Expired", "session", ["authentication", "session"], ["end"]),
        ("Configuration Changed", "configuration", ["configuration"], ["change"]),
        ("Agent Access Granted", "runtime-access", ["api"], ["change"]),
        # Categories of the record's own: the type decides, by the catalogue or by its words.
        ("account provisioned", "audit", ["iam"], ["user", "creation"]),
        ("userLoggedIn", "whatever", ["authentication"], ["start"]),
        ("PASSWORD_RESET", "", ["iam"], ["user", "change"]),
        ("viewed settings", "x", ["configuration"], ["access"]),
        ("door opened", "building", None, None),
        ("Untyped Record", "relay", None, None),
    ],
)
def test_events_are_sorted_by_category_or_type(
    kind: str, category: str, categories: list[str] | None, types: list[str] | None
) -> None:
    event = read(msgspec.structs.replace(PLAIN, type=kind, category=category))["event"]
    assert (event.get("category"), event.get("type")) == (categories, types)


def test_a_record_that_could_not_be_read_is_a_pipeline_error() -> None:
    assert read(msgspec.structs.replace(PLAIN, type=UNPARSED))["event"]["kind"] == "pipeline_error"


def test_an_ecs_document_is_spelled_as_the_reference_spells_it() -> None:
    assert read(PLAIN) == {
        "@timestamp": "2024-03-01T08:00:00.123Z", "ecs": {"version": "8.11.0"},
        "event": {
            "id": "e1", "kind": "event", "action": "Account Provisioned", "outcome": "success",
            "severity": 5, "sequence": 7, "provider": "test",
            "created": "2023-11-14T22:13:20.250Z", "category": ["iam"],
            "type": ["user", "creation"],
        },
        "message": "done",
        "user": {"name": "Ada Lovelace", "id": "u1", "target": {"name": "svc", "id": "t1"}},
        "source": {"address": "10.0.0.1", "ip": "10.0.0.1"},
        "labels": {"category": "account", "target_type": "account", "region": "eu"},
    }  # fmt: skip


def test_the_record_goes_along_when_asked_for() -> None:
    record = '{"é":1}'.encode() + b"\xff"
    assert read(PLAIN, record, original=True)["event"]["original"] == '{"é":1}\ufffd'
    assert "original" not in read(PLAIN, record)["event"]


def test_labels_are_flat_texts_without_dots_and_none_pushes_out_another() -> None:
    attributes = {"a": {"b": 1}, "a.b": 2, "category": "own", "": None, "n": None, "x y": [True],
                  "ünï": "é"}  # fmt: skip
    labels = read(msgspec.structs.replace(PLAIN, attributes=attributes))["labels"]
    assert labels == {
        "category": "account", "target_type": "account", "a_b": "1", "a_b_2": "2",
        "category_2": "own", "x_y": "[true]", "ünï": "é",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "target", "where"),
    [
        ("Group Created", Target("team", "ops", "g1"), ("group", {"name": "ops", "id": "g1"})),
        ("Snapshot Created", Target("User", "bob"), ("user", {"target": {"name": "bob"}})),
        ("Snapshot Created", Target("agent", "a-7"), ("labels", {
            "target_type": "agent", "target_name": "a-7"})),
    ],
)  # fmt: skip
def test_a_target_stands_where_its_kind_belongs(
    kind: str, target: Target, where: tuple[str, dict[str, Any]]
) -> None:
    document = read(AuditEvent(id="1", time=PLAIN.time, type=kind, category="", severity=3,
                               outcome="unknown", target=target))  # fmt: skip
    assert document[where[0]] == where[1]

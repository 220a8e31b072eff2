"""`where:`: which events a condition takes, and that the fast way and the reason agree."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from siemrelay.core.event import Actor, AuditEvent, Target
from siemrelay.transforms.conditions import Conditions, Where
from tests.support.events.strategies import EVENTS

READ = TypeAdapter(Where).validate_python

ATTRIBUTES = {
    "env": "prod", "n": 7, "share": 0.5, "yes": True, "one": 1, "text": "1", "null": None,
    "ips": ["192.0.2.1", "10.1.2.3"],
    "k8s": {"ns": "kube-system", "empty": {}, "pod.ip": "10.0.0.3"},
    "a.b": "literal", "numbers": [1, "9"], "host.ip": "10.0.0.1",
    "users": [{"mail": "a@x"}, {"mail": ["c@x"]}, {"name": "b"}],
}  # fmt: skip
EVENT = AuditEvent(
    id="e1", time="2024-03-01T08:00:00Z", type="Account Provisioned", category="account",
    severity=5, outcome="success", actor=Actor("svc-backup", None, "10.20.30.40"),
    target=Target("host", "db1"), message="",
    attributes=msgspec.Raw(msgspec.json.encode(ATTRIBUTES)),
)  # fmt: skip


def holds(where: dict[str, Any], event: AuditEvent = EVENT) -> bool:
    conditions = Conditions(READ(where))
    as_dict = msgspec.structs.replace(event, attributes=dict(ATTRIBUTES))
    decided = conditions.select([event, event])
    assert decided == conditions.select([as_dict, as_dict]), "Raw and decoded attributes differ"
    assert decided == [conditions.explain(event)[0]] * 2
    return decided[0]


@pytest.mark.parametrize(
    ("field", "takes", "leaves"),
    [
        ("actor.name", ["svc-backup", "svc-*", "*-backup", "svc-?ackup", "[st]vc-backup",
                        ["root", "svc-backup"], {"not": "root"}, {"not": ["root", "adm*"]},
                        {"present": True}, {"any": "svc-*", "not": "svc-x"}],
         ["SVC-BACKUP", "svc", "svc-[!b]*", ["root", "x"], {"not": "svc-*"}, {"present": False},
          {"any": "svc-*", "not": "*backup"}, {"min": 1}]),
        ("actor.address", ["10.0.0.0/8", "10.20.30.40", ["192.0.2.0/24", "10.20.0.0/16"],
                           {"not": "192.0.2.0/24"}, "10.*"],
         ["10.0.0.0/24", "192.0.2.1", "2001:db8::/32", {"not": "10.0.0.0/8"}]),
        ("actor.id", [{"not": "root"}, {"present": False}],
         ["root", "*", {"present": True}, {"not": "root", "present": True}, {"min": 0}]),
        ("message", [{"present": False}, {"not": "x"}], ["*", {"present": True}]),
        ("severity", [5, "5", {"min": 5}, {"min": 1, "max": 5}, [1, 5], {"not": 4}],
         [4, {"min": 6}, {"max": 4.5}, {"not": [4, 5]}, {"not": 5}]),
        ("attributes.env", ["prod", ["prod", "dr"], "p*"], ["Prod", "dr", {"not": "prod"}]),
        ("attributes.n", [7, "7", {"min": 7, "max": 7}], [8, "7.0", {"min": 8}]),
        ("attributes.share", [0.5, {"max": 1}], [1]),
        ("attributes.yes", [True, "true"], [False, 1, "1", {"min": 0}]),
        ("attributes.one", [1, "1"], [True]),
        ("attributes.text", ["1", 1, {"min": 1}], [True]),
        ("attributes.null", [{"present": False}], ["null", {"present": True}]),
        ("attributes.none.deeper", [{"present": False}, {"not": 1}], ["*"]),
        ("attributes.env.deeper", [{"present": False}], ["*"]),
        ("attributes.ips", ["10.0.0.0/8", "192.0.2.1"], ["192.0.2.2", {"not": "10.0.0.0/8"}]),
        ("attributes.k8s.ns", ["kube-*"], ["default"]),
        ("attributes.k8s", [{"present": True}, "*kube*"], [{"present": False}]),
        ("attributes.numbers", [{"min": 4}, {"max": 1}, 9], [{"min": 10}, 5]),
        ("attributes.host.ip", ["10.0.0.1", {"not": "10.0.0.2"}], [{"present": False}, "10.0.0.2"]),
        ("attributes.users.mail", ["a@x", "c@x", {"not": "b@x"}], ["b@x", {"not": "*@x"}]),
        ("attributes.k8s.pod.ip", ["10.0.0.3"], ["10.0.0.4", {"present": False}]),
    ],
)  # fmt: skip
def test_a_condition_takes_what_it_says_and_leaves_the_rest(
    field: str, takes: list[Any], leaves: list[Any]
) -> None:
    assert [value for value in takes if not holds({field: value})] == []
    assert [value for value in leaves if holds({field: value})] == []


@pytest.mark.parametrize(
    ("address", "network", "inside"),
    [
        ("10.1.2.3:5555", "10.0.0.0/8", True), ("[2001:db8::1]:443", "2001:db8::/32", True),
        ("2001:DB8:0::1", "2001:db8::1", True), ("::ffff:10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.99/24", True), ("host-10.1.2.3", "10.0.0.0/8", False),
        ("10.1.2.3.4", "10.0.0.0/8", False), ("fe80::1%eth0", "fe80::/10", True),
        ("10.0.0.1", "::/0", False), ("x" * 600, "10.0.0.0/8", False),
    ],
)  # fmt: skip
def test_networks_are_compared_with_addresses(address: str, network: str, inside: bool) -> None:
    event = AuditEvent(actor=Actor(address=address))
    assert Conditions(READ({"actor.address": network})).select([event]) == [inside]


def test_an_object_goes_before_a_name_with_the_same_dots() -> None:
    event = AuditEvent(attributes=msgspec.Raw(b'{"tenant.id":"forged","tenant":{"id":"added"}}'))
    assert Conditions(READ({"attributes.tenant.id": "added"})).select([event]) == [True]
    assert Conditions(READ({"attributes.tenant.id": "forged"})).select([event]) == [False]


@pytest.mark.parametrize("name", [b"siemrelay.time_from", rb"siemrelay\u002etime_from"])
def test_a_name_with_dots_is_found_among_events_without_it(name: bytes) -> None:
    events = [
        AuditEvent(attributes=msgspec.Raw(b'{"x":1}')),
        AuditEvent(attributes=msgspec.Raw(b'{"' + name + b'":"arrival"}')),
    ]
    where = READ({"attributes.siemrelay.time_from": "arrival"})
    assert Conditions(where).select(events) == [False, True]


def test_all_conditions_must_hold() -> None:
    assert holds({"actor.name": "svc-*", "attributes.env": "prod", "severity": {"min": 3}})
    assert not holds({"actor.name": "svc-*", "attributes.env": "dr"})
    assert Conditions({}).select([EVENT]) == [True]


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ({"actor.name": "svc-*"}, "every condition in where holds"),
        ({"actor.name": "svc-*", "actor.address": ["192.0.2.0/24", "192.0.3.1"]},
         "where: actor.address '10.20.30.40' is not '192.0.2.0/24' or '192.0.3.1'"),
        ({"actor.name": {"not": "svc-*"}},
         "where: actor.name 'svc-backup' is 'svc-*', which `not` excludes"),
        ({"severity": {"min": 7}}, "where: severity '5' is below 7"),
        ({"severity": {"max": 3}}, "where: severity '5' is above 3"),
        ({"attributes.env": {"present": False}}, "where: there is a attributes.env"),
        ({"actor.id": "x"}, "where: there is no actor.id"),
    ],
)  # fmt: skip
def test_the_reason_names_the_condition_that_decided(where: dict[str, Any], reason: str) -> None:
    assert Conditions(READ(where)).explain(EVENT)[1] == reason


@pytest.mark.parametrize(
    ("where", "fault"),
    [
        ({"actor.nam": "x"}, "did you mean `actor.name`?"),
        ({"attributes.": "x"}, "unknown event field"),
        ({"actor.name": ""}, "write {present: no}"),
        ({"actor.name": {}}, "write a value, a list of them"),
        ({"actor.name": {"exclude": "x"}}, "Extra inputs"),
        ({"actor.address": "10.0.0.0/33"}, "10.0.0.0/33 is not a network"),
        ({"actor.address": "300.1.1.1"}, "300.1.1.1 is not a network"),
    ],
)
def test_a_condition_that_cannot_be_meant_is_a_fault(where: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError) as refused:
        READ(where)
    assert fault in str(refused.value)


FIELDS = ["actor.name", "actor.address", "severity", "attributes.a", "attributes.a.b", "message"]
ENTRIES = st.sampled_from(["a", "*", "10.0.0.0/8", "::/0", "[a-c]*", 1, 0.5, True, "-"])


@given(
    st.lists(EVENTS, min_size=1, max_size=5),
    st.dictionaries(
        st.sampled_from(FIELDS),
        st.one_of(ENTRIES, st.lists(ENTRIES, min_size=1, max_size=3),
                  st.builds(lambda entry: {"not": entry}, ENTRIES),
                  st.sampled_from([{"present": True}, {"present": False}, {"min": 3, "max": 8}])),
        max_size=3,
    ),
)  # fmt: skip
def test_select_agrees_with_explain_for_every_event(
    events: list[AuditEvent], where: dict[str, Any]
) -> None:
    conditions = Conditions(READ(where))
    assert conditions.select(events) == [conditions.explain(event)[0] for event in events]

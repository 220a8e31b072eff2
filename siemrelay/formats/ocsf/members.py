"""The members of OCSF events that differ by class: one table entry a class.

Rules: OCSF schema 1.5.0, the classes' own attributes. Actor and target stand where the class has a
place for them, else in `unmapped`, under the event's own names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

from siemrelay.core.event import Selection
from siemrelay.formats.ocsf.classes import (
    ACCOUNT_CHANGE,
    API_ACTIVITY,
    AUTHENTICATION,
    BASE_EVENT,
    ENTITY_MANAGEMENT,
    fits_ip_type,
)
from siemrelay.formats.writing.address import dotted_quads
from siemrelay.formats.writing.columns import Column, Lines, Pair, column_of, nonempty, put
from siemrelay.formats.writing.json_text import json_escape


class Parties(NamedTuple):
    """Actor, target and operation of several events, their texts escaped for JSON."""

    name: Column
    uid: Column
    address: Column
    kind: Column
    to_name: Column
    to_uid: Column
    operation: Column
    typed: Sequence[bool | None]
    product: str

    @classmethod
    def of(cls, selection: Selection, product: str) -> Parties:
        """Actors, targets and operations of a selection; `product` is the relay's name, escaped."""
        addresses = nonempty(selection.column("actor.address"))
        columns = (
            addresses if field == "actor.address" else nonempty(selection.column(field))
            for field in _FIELDS
        )
        return cls._of(
            [column.escaped(json_escape) for column in columns],
            addresses.map_present(_typed),
            product,
        )

    @classmethod
    def _of(cls, columns: Sequence[Column], typed: Sequence[bool | None], product: str) -> Parties:
        name, uid, address, kind, to_name, to_uid, operation = columns
        return cls(name, uid, address, kind, to_name, to_uid, operation, typed, product)

    def only(self, events: Sequence[int]) -> Parties:
        """The same for some of the events."""
        columns = [column for column in self if isinstance(column, Column)]
        return self._of(
            [column_of(_pick(column.texts, events)) for column in columns],
            _pick(self.typed, events), self.product,
        )  # fmt: skip

    @property
    def by(self) -> Column:
        """A text for each event that names an actor."""
        return self.name.or_else(self.uid)

    @property
    def to(self) -> Column:
        """A text for each event that names a target: a type alone is none."""
        return self.to_name.or_else(self.to_uid)

    @property
    def user(self) -> list[Pair]:
        """The actor as a user."""
        return _texts({"name": self.name, "uid": self.uid})

    @property
    def target(self) -> list[Pair]:
        """The target as a user, an entity or a resource."""
        kinds = self.kind
        if not self.to.complete:
            named = zip(kinds.texts, self.to.texts, strict=True)
            kinds = column_of([kind if text else None for kind, text in named])
        return _texts({"name": self.to_name, "uid": self.to_uid, "type": kinds})

    @property
    def endpoint(self) -> list[Pair]:
        """The actor's place; an address that OCSF's `ip_t` does not take is a name."""
        ips, names = self.address.where(self.typed, True), self.address.where(self.typed, False)
        return _texts({"ip": ips, "name": names})

    @property
    def relay(self) -> Column:
        """The relay itself, where a class requires somebody and the event names nobody."""
        return Column([self.product] * len(self.name.texts))

    @property
    def unmapped_target(self) -> Column:
        """The target under the event's own names."""
        return _joined(_texts({"type": self.kind, "name": self.to_name, "id": self.to_uid}))


_FIELDS: Final = (
    "actor.name", "actor.id", "actor.address", "target.type", "target.name", "target.id", "type",
)  # fmt: skip


def _typed(addresses: Sequence[str]) -> list[bool]:
    return (
        [True] * len(addresses) if dotted_quads(addresses) else list(map(fits_ip_type, addresses))
    )


def _pick(values: Sequence[Any], events: Sequence[int]) -> Sequence[Any]:
    return itemgetter(*events)(values) if len(events) > 1 else (values[events[0]],)


_Object = tuple[str, list[Pair], str]
"""An object: the text before its members, the members, and the text after them."""


class _Members(NamedTuple):
    """Objects in events of one class, and members of their `unmapped`."""

    objects: Sequence[_Object] = ()
    unmapped: Sequence[Pair] = ()


def _base_event(parties: Parties) -> _Members:
    actor = _texts({"name": parties.name, "id": parties.uid, "address": parties.address})
    return _Members(unmapped=[
        ('"actor":{', _joined(actor), "}"), ('"target":{', parties.unmapped_target, "}")
    ])  # fmt: skip


def _account_change(parties: Parties) -> _Members:
    user = _either(parties.target, parties.user)
    return _Members([_actor(parties), (',"user":{', user, "}"), _endpoint(parties)])


def _authentication(parties: Parties) -> _Members:
    user = _either(parties.user, parties.target)
    service: list[Pair] = [('"name":"', parties.relay, '"')]
    # Where no actor is named the target is the user.
    both = [bool(by and to) for by, to in zip(parties.by.texts, parties.to.texts, strict=True)]
    return _Members(
        [_actor(parties), (',"user":{', user, "}"), (',"service":{', service, "}"),
         _endpoint(parties)],
        [('"target":{', parties.unmapped_target.where(both, True), "}")],
    )  # fmt: skip


def _entity_management(parties: Parties) -> _Members:
    return _Members([_actor(parties), (',"entity":{', parties.target, "}"), _endpoint(parties)])


def _api_activity(parties: Parties) -> _Members:
    actor, endpoint = [('"user":{', _joined(parties.user), "}")], parties.endpoint
    return _Members([
        (',"actor":{', _either(actor, [('"app_name":"', parties.relay, '"')]), "}"),
        (',"src_endpoint":{', _either(endpoint, [('"svc_name":"', parties.relay, '"')]), "}"),
        (',"api":{"operation":"', [("", parties.operation, "")], '"}'),
        (',"resources":[{', parties.target, "}]"),
    ])  # fmt: skip


_MEMBERS: Final[Mapping[int, Callable[[Parties], _Members]]] = {
    BASE_EVENT.uid: _base_event, ACCOUNT_CHANGE: _account_change,
    AUTHENTICATION: _authentication, ENTITY_MANAGEMENT: _entity_management,
    API_ACTIVITY: _api_activity,
}  # fmt: skip
"""By `class_uid`, the members of events beside those that every class has."""


def _actor(parties: Parties) -> _Object:
    return ',"actor":{"user":{', parties.user, "}}"


def _endpoint(parties: Parties) -> _Object:
    return ',"src_endpoint":{', parties.endpoint, "}"


def members_by_class(uids: Sequence[int], parties: Parties) -> tuple[Column, Column]:
    """For each event, of the class `uids` has for it, the members that differ by class.

    The second column has members for `unmapped`. A text is None where there are none; that of the
    first begins with a comma.
    """
    events_of: dict[int, list[int]] = defaultdict(list)
    for event, uid in enumerate(uids):
        events_of[uid].append(event)
    members: list[str | None] = [None] * len(uids)
    unmapped = members.copy()
    for uid, events in events_of.items():
        own = _MEMBERS[uid](parties if len(events_of) == 1 else parties.only(events))
        lines = Lines(len(events))
        for one in own.objects:
            lines.group(*one)
        put(members, events, lines.column().texts)
        if own.unmapped:
            put(unmapped, events, _joined(own.unmapped).texts)
    return column_of(members), column_of(unmapped)


def _texts(columns: Mapping[str, Column]) -> list[Pair]:
    """Members whose texts are escaped already."""
    return [(f'"{name}":"', column, '"') for name, column in columns.items()]


def _joined(pairs: Sequence[Pair]) -> Column:
    lines = Lines(len(pairs[0][1].texts))
    lines.pairs(pairs, ",")
    return lines.column()


def _either(first: list[Pair], second: list[Pair]) -> list[Pair]:
    """The members of the first object, of the second one where the first has none."""
    if any(column.complete for _, column, _ in first):
        return first
    return [("", _joined(first).or_else(_joined(second)), "")]

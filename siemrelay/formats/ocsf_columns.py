"""OCSF events of many events, class by class and column by column."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Final, NamedTuple

import msgspec

from siemrelay.event import Selection
from siemrelay.formats.address import dotted_quads
from siemrelay.formats.columns import Column, Lines, Pair, told
from siemrelay.formats.epoch import EpochMs
from siemrelay.formats.objects import inside, member, message_of, strictly_inside
from siemrelay.formats.ocsf_classes import (
    ACCOUNT_CHANGE,
    API_ACTIVITY,
    AUTHENTICATION,
    BASE_EVENT,
    ENTITY_MANAGEMENT,
    OTHER,
    SEVERITIES,
    STATUSES,
    VERSION,
    Class,
    classified,
    typed,
)
from siemrelay.formats.remembered import Remembered
from siemrelay.formats.text import replaced


class _Placed(NamedTuple):
    """What the type and category of events decide: their class, and texts of the event."""

    uid: int
    start: str
    activity_name: str


def _placed(kind: str, chosen: Class) -> _Placed:
    start = (
        f'{{"class_uid":{chosen.uid},"category_uid":{chosen.category_uid},'
        f'"activity_id":{chosen.activity_id},"type_uid":{chosen.type_uid}'
    )
    name = f',"activity_name":"{strictly_inside(kind)}"' if chosen.activity_id == OTHER else ""
    return _Placed(chosen.uid, start, name)


_uid, _start, _activity_name = map(attrgetter, _Placed._fields)

_SEVERITIES: Final = {
    severity: f',"severity_id":{SEVERITIES[severity or 0]},"status_id":'
    for severity in (None, *range(11))
}


class OcsfColumns:
    """Events → the very events that `Ocsf` makes of each.

    Raises UnicodeEncodeError for texts with half surrogate pairs, which are left to it.
    """

    def __init__(self, product: str, metadata_product: str) -> None:
        self._product = f'"{inside(product)}"'
        self._metadata = f'"metadata":{{"version":"{VERSION}","product":{metadata_product}'
        self._epoch = EpochMs()
        self._placed = Remembered[tuple[str, str], _Placed](
            lambda pair: _placed(pair[0], classified(*pair))
        )
        self._base = Remembered(lambda kind: _placed(kind, BASE_EVENT))
        self._statuses = Remembered(lambda outcome: str(STATUSES.get(outcome, 0)))

    def encode(self, selection: Selection) -> list[bytes]:
        """The events, in order."""
        categories = selection.column("category")
        if None in categories:
            categories = [category or "" for category in categories]
        placed = list(map(
            self._placed.__getitem__, zip(selection.column("type"), categories, strict=True)
        ))  # fmt: skip
        kinds = _fitting(selection, list(map(_uid, placed)))
        met = set(kinds)
        if len(met) == 1:
            return self._of_class(selection, kinds[0], placed)
        made = {}
        for kind in met:
            wanted = list(map(kind.__eq__, kinds))
            its = [its for its, is_wanted in zip(placed, wanted, strict=True) if is_wanted]
            made[kind] = iter(self._of_class(selection.part(wanted), kind, its))
        return [next(made[kind]) for kind in kinds]

    def _of_class(self, selection: Selection, kind: int, placed: list[_Placed]) -> list[bytes]:
        column = selection.column
        if not kind:
            placed = list(map(self._base.__getitem__, column("type")))
        lines = Lines(len(selection))
        lines.each(map(_start, placed))
        lines.each(map(_SEVERITIES.__getitem__, column("severity")))
        lines.each(map(self._statuses.__getitem__, column("outcome")))
        lines.text(',"time":')
        lines.each(self._epoch.column(column("time")))
        lines.text(f",{self._metadata}")
        lines.pair(*_member("uid", Column(column("id")), ","))
        lines.pair(*_member("event_code", Column(column("type")), ","))
        source = inside(selection.decoded.batch.source)
        lines.text(f',"log_name":"{source}","sequence":')
        lines.each(map(str, selection.sequences))
        lines.text("}")
        lines.each(map(_activity_name, placed))
        lines.pair(*_member("message", Column(column("message")), ","))
        rest = self._of_people(lines, selection, kind)
        lines.group(',"unmapped":{', [
            _member("category", told(column("category"))),
            ('"attributes":', _attributes(selection), ""), *rest,
        ], "}")  # fmt: skip
        lines.text("}")
        return lines.encoded()

    def _of_people(self, lines: Lines, selection: Selection, kind: int) -> list[Pair]:
        """What differs by class; gives the members of `unmapped` for what has no place there."""
        name, uid, addresses = (
            told(selection.column(f"actor.{part}")) for part in ("name", "id", "address")
        )
        of, to_name, to_uid = (
            told(selection.column(f"target.{part}")) for part in ("type", "name", "id")
        )
        if not kind:
            who = [_member("name", name), _member("id", uid), _member("address", addresses)]
            what = [_member("type", of), _member("name", to_name), _member("id", to_uid)]
            return [('"actor":', lines.objects(who), ""), ('"target":', lines.objects(what), "")]
        by = lines.objects([_member("name", name), _member("uid", uid)])
        has_to = to_name.or_else(to_uid).there
        to = lines.objects([
            _member("name", to_name), _member("uid", to_uid),
            _member("type", of.where(has_to, True)),
        ])  # fmt: skip
        rest: list[Pair] = []
        if kind == API_ACTIVITY:
            actor = by.wrapped('{"user":', "}").or_else(
                lines.all(f'{{"app_name":{self._product}}}')
            )
            lines.pair(',"actor":', actor)
        else:
            lines.pair(',"actor":{"user":', by, "}")
        if kind == ACCOUNT_CHANGE:
            lines.pair(',"user":', to.or_else(by))
        elif kind == ENTITY_MANAGEMENT:
            lines.pair(',"entity":', to)
        elif kind == AUTHENTICATION:
            lines.pair(',"user":', by.or_else(to))
            lines.text(f',"service":{{"name":{self._product}}}')
            whom = lines.objects([
                _member("type", of), _member("name", to_name), _member("id", to_uid)
            ]).where(has_to, True).where(by.there, True)  # fmt: skip
            rest = [('"target":', whom, "")]
        is_ip = addresses.made(_typed)
        endpoint = lines.objects([
            _member("ip", addresses.where(is_ip, True)),
            _member("name", addresses.where(is_ip, False)),
        ])  # fmt: skip
        if kind == API_ACTIVITY:
            endpoint = endpoint.or_else(lines.all(f'{{"svc_name":{self._product}}}'))
        lines.pair(',"src_endpoint":', endpoint)
        if kind == API_ACTIVITY:
            lines.pair(*_member("operation", Column(selection.column("type")), ',"api":{'))
            lines.text("}")
            lines.pair(',"resources":[', to, "]")
        return rest


def _member(name: str, column: Column, before: str = "") -> Pair:
    return member(name, column, before, strictly_inside)


def _fitting(selection: Selection, uids: list[int]) -> list[int]:
    """The classes, 0 for a base event where an event lacks what its class requires."""
    by, to = (
        told(selection.column(f"{who}.name")).or_else(told(selection.column(f"{who}.id")))
        for who in ("actor", "target")
    )
    if by.complete and to.complete:
        return uids
    address = told(selection.column("actor.address"))
    required = {
        0: by.there, ACCOUNT_CHANGE: to.or_else(by).there, AUTHENTICATION: to.or_else(by).there,
        ENTITY_MANAGEMENT: to.there, API_ACTIVITY: by.or_else(address).there,
    }  # fmt: skip
    return [uid if required[uid][at] else 0 for at, uid in enumerate(uids)]


def _typed(addresses: Sequence[str]) -> list[bool]:
    return [True] * len(addresses) if dotted_quads(addresses) else list(map(typed, addresses))


def _attributes(selection: Selection) -> Column:
    own = selection.column("attributes")
    if all(own) and set(map(type, own)) == {msgspec.Raw}:
        # Raw attributes have no line feed. JSON lets DEL stand as it is; terminals do not.
        texts: list[str | None] = []
        texts += replaced(b"\n".join(own).decode(), "\x7f", "\\u007f").split("\n")
    else:
        texts = [message_of(attributes).decode() if attributes else None for attributes in own]
    return Column(texts)

"""OCSF events of many events, class by class and column by column."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Final, NamedTuple

import msgspec

from siemrelay.core.event import Selection
from siemrelay.core.memo import BoundedMemo
from siemrelay.formats.ocsf.classes import (
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
from siemrelay.formats.writing.address import dotted_quads
from siemrelay.formats.writing.columns import Column, Lines, Pair, told
from siemrelay.formats.writing.epoch import EpochMs
from siemrelay.formats.writing.json_text import inside, member, message_of, strictly_inside
from siemrelay.formats.writing.text import replaced


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
        self._placed = BoundedMemo[tuple[str, str], _Placed](
            lambda pair: _placed(pair[0], classified(*pair))
        )
        self._base = BoundedMemo[str, _Placed](lambda kind: _placed(kind, BASE_EVENT))
        self._statuses = BoundedMemo[str, str](lambda outcome: str(STATUSES.get(outcome, 0)))

    def encode(self, selection: Selection) -> list[bytes]:
        """The events, in order."""
        column, lines = selection.column, Lines(len(selection))
        categories, types = told(column("category")), Column(column("type"))
        name, uid, addresses, of, to_name, to_uid = (told(column(field)) for field in _PEOPLE)
        said = categories.or_else(Column([""] * len(selection)))
        pairs = zip(types.texts, said.texts, strict=True)
        placed = list(map(self._placed.__getitem__, pairs))
        by, to = name.or_else(uid), to_name.or_else(to_uid)
        if not (by.complete and to.complete):
            placed = [
                place if _fits(*at) else self._base[kind]
                for place, kind, *at in zip(
                    placed, types.texts, map(_uid, placed), by.texts, to.texts, addresses.texts,
                    strict=True,
                )
            ]  # fmt: skip
        kinds = list(map(_uid, placed))
        typed = addresses.made(_typed)
        types, name, uid, addresses, of, to_name, to_uid = (
            texts.escaped(strictly_inside)
            for texts in (types, name, uid, addresses, of, to_name, to_uid)
        )
        lines.each(map(_start, placed))
        lines.each(map(_SEVERITIES.__getitem__, column("severity")))
        lines.each(map(self._statuses.__getitem__, column("outcome")))
        lines.text(',"time":')
        for digits in self._epoch.halves(column("time")) or [self._epoch.column(column("time"))]:
            lines.each(digits)
        lines.text(f",{self._metadata}")
        lines.pair(*_member("uid", Column(column("id")), ","))
        lines.pair(',"event_code":"', types, '"')
        source = inside(selection.decoded.batch.source)
        lines.text(f',"log_name":"{source}","sequence":')
        lines.each(map(repr, selection.sequences))
        lines.text("}")
        lines.each(map(_activity_name, placed))
        lines.pair(*_member("message", Column(column("message")), ","))
        people = name, uid, addresses, of, to_name, to_uid, types
        whole = all(part.complete for part in people) and all(typed)
        make = self._of_whole if whole else self._of_class
        lines.each(map(make, kinds, typed, *(part.texts for part in people)))
        rest = [_member("category", categories),
                ('"attributes":', _attributes(selection), "")]  # fmt: skip
        rest += _kept_apart(kinds, by, to, people)
        lines.group(',"unmapped":{', rest, "}")
        lines.text("}")
        return lines.encoded()

    def _of_class(
        self, kind: int, typed: bool | None, name: str | None, uid: str | None,
        address: str | None, of: str | None, to_name: str | None, to_uid: str | None,
        operation: str,
    ) -> str:  # fmt: skip
        """The members that differ by class, of texts that are escaped already."""
        by = _object(name=name, uid=uid)
        to = _object(name=to_name, uid=to_uid, type=of) if to_name or to_uid else None
        actor = f',"actor":{{"user":{by}}}' if by else ""
        endpoint = ""
        if address:
            endpoint = f',"src_endpoint":{{"{"ip" if typed else "name"}":"{address}"}}'
        if kind == ENTITY_MANAGEMENT:
            return f'{actor},"entity":{to}{endpoint}'
        if kind == ACCOUNT_CHANGE:
            return f'{actor},"user":{to or by}{endpoint}'
        if kind == AUTHENTICATION:
            return f'{actor},"user":{by or to},"service":{{"name":{self._product}}}{endpoint}'
        if kind == API_ACTIVITY:
            actor = actor or f',"actor":{{"app_name":{self._product}}}'
            endpoint = endpoint or f',"src_endpoint":{{"svc_name":{self._product}}}'
            resources = f',"resources":[{to}]' if to else ""
            return f'{actor}{endpoint},"api":{{"operation":"{operation}"}}{resources}'
        return ""

    def _of_whole(
        self, kind: int, typed: bool, name: str, uid: str, address: str, of: str, to_name: str,
        to_uid: str, operation: str,
    ) -> str:  # fmt: skip
        """`_of_class` in half the time, of events that have all of it, as most have."""
        if kind in (ENTITY_MANAGEMENT, ACCOUNT_CHANGE):
            what = "entity" if kind == ENTITY_MANAGEMENT else "user"
            return (
                f',"actor":{{"user":{{"name":"{name}","uid":"{uid}"}}}},"{what}":{{"name":'
                f'"{to_name}","uid":"{to_uid}","type":"{of}"}},"src_endpoint":{{"ip":"{address}"}}'
            )
        if kind == API_ACTIVITY:
            return (
                f',"actor":{{"user":{{"name":"{name}","uid":"{uid}"}}}},"src_endpoint":{{"ip":'
                f'"{address}"}},"api":{{"operation":"{operation}"}},"resources":[{{"name":'
                f'"{to_name}","uid":"{to_uid}","type":"{of}"}}]'
            )
        return self._of_class(kind, typed, name, uid, address, of, to_name, to_uid, operation)


_PEOPLE: Final = (
    "actor.name", "actor.id", "actor.address", "target.type", "target.name", "target.id"
)  # fmt: skip


def _kept_apart(
    kinds: Sequence[int], by: Column, to: Column, people: Sequence[Column]
) -> list[Pair]:
    """The actors and the targets for which an event's class has no place."""
    apart = [at for at, kind in enumerate(kinds) if kind in _WITHOUT_PLACE]
    if not apart:
        return []
    actors: list[str | None] = [None] * len(kinds)
    targets = actors.copy()
    for at in apart:
        name, uid, address, of, to_name, to_uid, _ = (column.texts[at] for column in people)
        if kinds[at] == BASE_EVENT.uid:
            actors[at] = _object(name=name, id=uid, address=address)
        elif not (by.texts[at] and to.texts[at]):
            continue  # its only one is the user
        targets[at] = _object(type=of, name=to_name, id=to_uid)
    return [('"actor":', Column(actors), ""), ('"target":', Column(targets), "")]


_WITHOUT_PLACE: Final = {BASE_EVENT.uid, AUTHENTICATION}


def _fits(kind: int, by: str | None, to: str | None, address: str | None) -> bool:
    """Whether an event has what its class requires."""
    if kind == ENTITY_MANAGEMENT:
        return to is not None
    if kind == API_ACTIVITY:
        return by is not None or address is not None
    return by is not None or to is not None


def _object(**members: str | None) -> str | None:
    """A JSON object of the texts that are there, None if none is."""
    said = ",".join([f'"{name}":"{text}"' for name, text in members.items() if text])
    return f"{{{said}}}" if said else None


def _member(name: str, column: Column, before: str = "") -> Pair:
    return member(name, column, before, strictly_inside)


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

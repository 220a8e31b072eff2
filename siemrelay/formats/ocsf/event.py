"""Open Cybersecurity Schema Framework: one JSON object an event, of the class that fits it.

Rules: OCSF schema 1.5.0. An event is of class Account Change (3001), Authentication (3002), Entity
Management (3004) or API Activity (6003) if it has what that class requires, else a Base Event (0).
What its class has no attribute for stands in `unmapped`.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Final, NamedTuple

import msgspec
from pydantic import Field

from siemrelay.core.event import FIELDS, Selection
from siemrelay.core.memo import BoundedMemo
from siemrelay.formats.contract import FormatKind
from siemrelay.formats.ocsf.classes import (
    API_ACTIVITY,
    BASE_EVENT,
    ENTITY_MANAGEMENT,
    OTHER,
    SEVERITIES,
    STATUSES,
    VERSION,
    Class,
    class_of,
)
from siemrelay.formats.ocsf.members import Parties, members_by_class
from siemrelay.formats.syslog_header import HeaderOptions
from siemrelay.formats.writing.columns import Column, Lines, column_of, nonempty
from siemrelay.formats.writing.epoch import EpochMs
from siemrelay.formats.writing.json_text import json_escape, member, message_of
from siemrelay.formats.writing.text import replaced


class OcsfOptions(HeaderOptions):
    """The options of a sink with OCSF events."""

    vendor: str = Field("siemrelay", min_length=1, description="`metadata.product.vendor_name`")
    product: str = Field("audit", min_length=1, description="`metadata.product.name`")
    version: str | None = Field(None, min_length=1, description="`metadata.product.version`")


class Ocsf:
    """Events → OCSF events, the members that differ by class a class at a time."""

    fields = frozenset({*FIELDS, "attributes"})
    members = frozenset[str]()

    def __init__(self, options: OcsfOptions) -> None:
        product = {"name": options.product, "vendor_name": options.vendor}
        product |= {"version": options.version} if options.version else {}
        self._metadata = (
            f',"metadata":{{"version":"{VERSION}","product":{message_of(product).decode()}'
        )
        self._product = json_escape(options.product)
        self._epoch = EpochMs()
        self._placed = BoundedMemo[tuple[str, str], _Placed](
            lambda pair: _placed(pair[0], class_of(*pair))
        )
        self._base = BoundedMemo[str, _Placed](lambda kind: _placed(kind, BASE_EVENT))
        self._statuses = BoundedMemo[str, str](lambda outcome: str(STATUSES.get(outcome, 0)))

    def encode(self, selection: Selection) -> list[bytes]:
        """See `formats.contract.Format`."""
        column, lines = selection.column, Lines(len(selection))
        categories, parties = nonempty(column("category")), Parties.of(selection, self._product)
        placed = self._classified(column("type"), categories, parties)
        source = json_escape(selection.decoded.batch.source)
        lines.each(map(_start, placed))
        lines.each(map(_SEVERITIES.__getitem__, column("severity")))
        lines.each(map(self._statuses.__getitem__, column("outcome")))
        lines.text(',"time":')
        for digits in self._epoch.halves(column("time")) or [self._epoch.column(column("time"))]:
            lines.each(digits)
        lines.text(self._metadata)
        lines.pair(*member("uid", column_of(column("id")), ","))
        lines.pair(',"event_code":"', parties.operation, '"')
        lines.text(f',"log_name":"{source}","sequence":')
        lines.each(map(repr, selection.sequences))
        lines.text("}")
        lines.pair(*member("message", column_of(column("message")), ","))
        by_class, unmapped = members_by_class(list(map(_uid, placed)), parties)
        lines.pair("", by_class)
        lines.group(',"unmapped":{', [
            member("category", categories), ('"attributes":', _attributes(selection), ""),
            ("", unmapped, ""),
            ('"siemrelay_n":"', column_of([selection.number] * len(selection)), '"'),
        ], "}")  # fmt: skip
        lines.text("}")
        return lines.encoded()

    def _classified(
        self, types: Sequence[str], categories: Column, parties: Parties
    ) -> Sequence[_Placed]:
        pairs = zip(types, [text or "" for text in categories.texts], strict=True)
        placed = list(map(self._placed.__getitem__, pairs))
        by, to = parties.by, parties.to
        if by.complete and to.complete:
            return placed
        return [
            place if _fits(place.uid, *there) else self._base[kind]
            for place, kind, *there in zip(
                placed, types, by.texts, to.texts, parties.address.texts, strict=True
            )
        ]


class _Placed(NamedTuple):
    """Decided by an event's type and category: its class, and the members that say so."""

    uid: int
    start: str


def _placed(kind: str, chosen: Class) -> _Placed:
    start = (
        f'{{"class_uid":{chosen.uid},"category_uid":{chosen.category_uid},'
        f'"activity_id":{chosen.activity_id},"type_uid":{chosen.type_uid}'
    )
    name = f',"activity_name":"{json_escape(kind)}"' if chosen.activity_id == OTHER else ""
    return _Placed(chosen.uid, start + name)


_uid, _start = map(attrgetter, _Placed._fields)

_SEVERITIES: Final = {
    severity: f',"severity_id":{SEVERITIES[severity or 0]},"status_id":'
    for severity in (None, *range(11))
}


def _fits(uid: int, by: str | None, to: str | None, address: str | None) -> bool:
    """Whether an event has what its class requires."""
    if uid == ENTITY_MANAGEMENT:
        return to is not None
    if uid == API_ACTIVITY:
        return by is not None or address is not None
    return by is not None or to is not None


def _attributes(selection: Selection) -> Column:
    own = selection.column("attributes")
    if all(own) and set(map(type, own)) == {msgspec.Raw}:
        # Raw attributes have no line feed. JSON lets DEL stand as it is; terminals do not.
        texts: list[str | None] = []
        texts += replaced(b"\n".join(own).decode(), "\x7f", "\\u007f").split("\n")
    else:
        texts = [message_of(attributes).decode() if attributes else None for attributes in own]
    return column_of(texts)


OCSF: Final = FormatKind(
    OcsfOptions, lambda options, host: Ocsf(options),
    "Open Cybersecurity Schema Framework 1.5", headers=True, numbered=True,
)  # fmt: skip

"""ECS documents of many events made a column at a time; `formats.ecs` has the words for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from siemrelay.event import Selection
from siemrelay.formats.address import are_ip
from siemrelay.formats.attributes import Named, attribute_column, flattened
from siemrelay.formats.columns import Column, Lines, on_present, told
from siemrelay.formats.objects import inside, member, message_of
from siemrelay.formats.text import text_of
from siemrelay.times import rfc3339

USERS: Final = frozenset({"user", "User", "USER", "account", "Account", "ACCOUNT"})
"""Target types that are users wherever they are met."""

_ALWAYS: Final = ("id", "time", "type", "category", "outcome")
_OWN_LABELS: Final = frozenset({"category", "target_type", "target_name", "target_id"})


class OneByOneError(Exception):
    """These events have what columns cannot tell: encode each by itself."""


def documents(
    selection: Selection, label: Callable[[str], str], of: Sequence[str],
    heads: Sequence[str], tails: Sequence[str], version: str,
) -> list[bytes]:  # fmt: skip
    """The documents of many events; OneByOneError where they lack or repeat what is usual.

    `label` makes an attribute's label; for every event `of` says what its target is, and `heads`
    and `tails` are the members of its `event` from `kind` to `action`, and from `category` on.
    """
    column, batch = selection.column, selection.decoded.batch
    if not all(map(all, map(column, _ALWAYS))) or None in column("severity"):
        raise OneByOneError
    lines = Lines(len(selection))
    lines.pair(*member("@timestamp", column("time"), "{"))
    lines.pair(*member("id", column("id"), f',"ecs":{{"version":"{version}"}},"event":{{'))
    lines.column(heads)
    lines.pair(*member("outcome", column("outcome"), ","))
    lines.text(',"severity":')
    lines.column(map(str, column("severity")))
    lines.text(',"sequence":')
    lines.column(map(str, selection.sequences))
    lines.text(f',"provider":"{inside(batch.source)}","created":"{rfc3339(batch.received_at)}"')
    lines.column(tails)
    lines.pair(*member("message", column("message"), ","))
    _parties(lines, selection, of, label)
    lines.text("}")
    return lines.encoded()


def _parties(
    lines: Lines, selection: Selection, of: Sequence[str], label: Callable[[str], str]
) -> None:
    column = selection.column
    kinds, names, uids = map(told, map(column, ("target.type", "target.name", "target.id")))
    # Of every target: a user, a group, or what only labels have a place for.
    places = [
        "user" if kind in USERS else whose for kind, whose in zip(kinds, of, strict=True)
    ]  # fmt: skip
    target = Lines(len(selection))
    target.group('"target":{', _named(places, "user", names, uids), "}")
    lines.group(',"user":{', [
        member("name", told(column("actor.name"))),
        member("id", told(column("actor.id"))),
        ("", told(list(target.joined())), ""),
    ], "}")  # fmt: skip
    lines.group(',"group":{', _named(places, "group", names, uids), "}")
    addresses = told(column("actor.address"))
    typed = on_present(addresses, are_ip)
    ips = addresses if all(typed) else [
        address if is_typed else None for address, is_typed in zip(addresses, typed, strict=True)
    ]  # fmt: skip
    lines.group(',"source":{', [member("address", addresses), member("ip", ips)], "}")
    labels = _labels(selection, label)
    lines.group(',"labels":{', [
        member("category", column("category")), member("target_type", kinds),
        *_named(places, "", names, uids, "target_"), ("", labels, ""),
    ], "}")  # fmt: skip


def _named(
    places: Sequence[str], wanted: str, names: Column, uids: Column, prefix: str = ""
) -> list[tuple[str, Column, str]]:
    """The name and the id of the targets in that place."""
    if places.count(wanted) < len(places):
        there = [place == wanted for place in places]
        names, uids = (
            [text if is_there else None for text, is_there in zip(texts, there, strict=True)]
            for texts in (names, uids)
        )
    return [member(f"{prefix}name", names), member(f"{prefix}id", uids)]


def _labels(selection: Selection, label: Callable[[str], str]) -> Column:
    def alone(attributes: dict[str, Any]) -> str:
        pairs = [(label(n), text_of(v)) for n, v in flattened(attributes) if v is not None]
        members = dict(pairs)
        if len(members) < len(pairs) or not _OWN_LABELS.isdisjoint(members):
            raise OneByOneError
        return message_of(members)[1:-1].decode()

    def together(lines: Lines, named: Named) -> bool:
        names = [label(name) for name, _ in named]
        if len(set(names)) < len(names) or not _OWN_LABELS.isdisjoint(names):
            return False
        lines.pairs([
            member(name, values if set(map(type, values)) == {str} else [
                None if value is None else text_of(value) for value in values
            ])
            for name, (_, values) in zip(names, named, strict=True)
        ], ",")  # fmt: skip
        return True

    return told(attribute_column(selection, alone, together))

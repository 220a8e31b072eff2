"""Attributes as flat pairs: of one event, and of many whose attributes have the same names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import msgspec

from siemrelay.event import AuditEvent, Selection, attributes_of
from siemrelay.formats.columns import Column, Lines

# Attributes nest as their sender likes; deeper than this they stay JSON text.
_DEPTH: Final = 4

# Where events are fewer than this for each set of names, columns would be too short.
_EVENTS_FOR_NAMES: Final = 16

_decode_lines: Final = msgspec.json.Decoder(dict[str, Any]).decode_lines

Named = Sequence[tuple[str, Sequence[Any]]]
"""Attributes of the same names: each name with the values of every event, in order."""


def flattened(attributes: dict[str, Any], depth: int = _DEPTH) -> Collection[tuple[str, Any]]:
    """Nested objects as dotted names, in order; lists and what is deeper stay one value."""
    pairs: list[tuple[str, Any]] = []
    for name, value in attributes.items():
        if type(value) is dict and value and depth > 1:
            pairs += [(f"{name}.{inner}", v) for inner, v in flattened(value, depth - 1)]
        else:
            pairs.append((name, value))
    return pairs


def attribute_column(
    selection: Selection,
    alone: Callable[[dict[str, Any]], str],
    together: Callable[[Lines, Named], bool],
) -> Column:
    """What attributes become in each message, None where there are none.

    `alone` makes it of one event's attributes, `together` puts it in lines for events whose
    attributes are of the same names in the same order, or gives False. Both must give the same.
    """
    every = _attributes(selection.events)
    sets_of_names = set(map(tuple, every))
    if len(sets_of_names) == 1:
        return _made(every, alone, together) if () not in sets_of_names else [None] * len(every)
    places: dict[tuple[str, ...], list[int]] = {}
    for place, names in enumerate(map(tuple, every)):
        places.setdefault(names, []).append(place)
    column: list[str | None] = [None] * len(every)
    for names, there in places.items():
        if names:
            made = _made([every[place] for place in there], alone, together)
            for place, text in zip(there, made, strict=True):
                column[place] = text
    return column


def _made(
    alike: Sequence[dict[str, Any]],
    alone: Callable[[dict[str, Any]], str],
    together: Callable[[Lines, Named], bool],
) -> list[str]:
    named = _named(alike) if len(alike) >= _EVENTS_FOR_NAMES else None
    lines = Lines(len(alike))
    if named is None or not together(lines, named):
        return list(map(alone, alike))
    return list(lines.joined())


def _attributes(events: Sequence[AuditEvent]) -> list[dict[str, Any]]:
    raws = [event.attributes for event in events]
    if set(map(type, raws)) == {msgspec.Raw}:
        # Raw attributes have no line feed: one a line.
        try:
            return _decode_lines(b"\n".join(raws))  # type: ignore[arg-type]  # all are Raw
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
    return list(map(attributes_of, events))


def _named(alike: Sequence[dict[str, Any]], prefix: str = "", depth: int = _DEPTH) -> Named | None:
    """The columns of attributes of the same names; None if objects in them differ in theirs."""
    named: list[tuple[str, Sequence[Any]]] = []
    for name, column in zip(alike[0], zip(*map(dict.values, alike), strict=True), strict=True):
        kinds = set(map(type, column))
        if dict not in kinds or depth == 1 or not any(map(_nested, column)):
            named.append((prefix + name, column))
            continue
        if kinds != {dict} or len(set(map(tuple, column))) > 1:
            return None
        inner = _named(column, f"{prefix}{name}.", depth - 1)
        if inner is None:
            return None
        named += inner
    return named


def _nested(value: Any) -> bool:
    return type(value) is dict and bool(value)

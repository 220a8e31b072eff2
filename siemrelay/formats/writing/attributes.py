"""Attributes as flat pairs: of one event, and of many whose attributes have the same names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Final, NamedTuple

import msgspec

from siemrelay.core.event import Selection, attributes_of
from siemrelay.formats.writing.columns import Column, Lines, told
from siemrelay.formats.writing.text import text_of

# Attributes nest as their sender likes; deeper than this they stay JSON text.
_DEPTH: Final = 4

# Where events are fewer than this for each set of names, columns would be too short.
_EVENTS_FOR_NAMES: Final = 16

_decode_lines: Final = msgspec.json.Decoder(dict[str, Any]).decode_lines


class Named(NamedTuple):
    """One name, the values of every event, in order, and the types that these are of."""

    name: str
    values: Sequence[Any]
    types: set[type]

    def texts(self) -> Sequence[str]:
        """`text_of` each value."""
        return self.values if self.types == {str} else list(map(text_of, self.values))


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
    alone: Callable[[dict[str, Any]], str | None],
    together: Callable[[Lines, Sequence[Named]], bool],
    *,
    apart: bool = False,
) -> Column:
    """What attributes become in each message, None where there are none.

    `alone` makes it of one event's attributes, `together` puts it in lines for events whose
    attributes are of the same names in the same order, or gives False. Both must give the same.
    `apart`: what they make of several is what they make of each, one after the other.
    """
    every = _attributes(selection)
    sets = set(map(tuple, every))
    if len(sets) == 1:
        return _made(every, alone, together)
    different = set(chain.from_iterable(sets))
    # The same few names may come in ever other sets, too few events in each.
    if apart and len(different) < len(sets) and len(different) * _EVENTS_FOR_NAMES <= len(every):
        return _name_by_name(every, alone, together)
    places: dict[tuple[str, ...], list[int]] = {}
    for place, names in enumerate(map(tuple, every)):
        places.setdefault(names, []).append(place)
    column: list[str | None] = [None] * len(every)
    for there in places.values():
        made = _made([every[place] for place in there], alone, together)
        for place, text in zip(there, made.texts, strict=True):
            column[place] = text
    return Column(column)


def _name_by_name(
    every: Sequence[dict[str, Any]],
    alone: Callable[[dict[str, Any]], str | None],
    together: Callable[[Lines, Sequence[Named]], bool],
) -> Column:
    values: dict[str, list[dict[str, Any]]] = {}
    for own in every:
        for name, value in own.items():
            values.setdefault(name, []).append({name: value})
    made = {name: iter(_made(alike, alone, together).texts) for name, alike in values.items()}
    return told(["".join([next(made[name]) or "" for name in own]) for own in every])


def _made(
    alike: Sequence[dict[str, Any]],
    alone: Callable[[dict[str, Any]], str | None],
    together: Callable[[Lines, Sequence[Named]], bool],
) -> Column:
    if not alike[0]:
        return Column([None] * len(alike))
    if len(alike) >= _EVENTS_FOR_NAMES:
        named, lines = _named(alike), Lines(len(alike))
        if named is not None and together(lines, named):
            return lines.column()
    return told(list(map(alone, alike)))


def _attributes(selection: Selection) -> list[dict[str, Any]]:
    raws = selection.column("attributes")
    if set(map(type, raws)) == {msgspec.Raw}:
        # Raw attributes have no line feed: one a line.
        try:
            return _decode_lines(b"\n".join(raws))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
    return list(map(attributes_of, selection.events))


def _named(
    alike: Sequence[dict[str, Any]], prefix: str = "", depth: int = _DEPTH
) -> list[Named] | None:
    """Attributes of the same names; None if objects in them differ in theirs."""
    every: list[Named] = []
    for name in alike[0]:
        values = list(map(itemgetter(name), alike))
        types = set(map(type, values))
        if dict not in types or depth == 1 or not any(map(_nested, values)):
            every.append(Named(prefix + name, values, types))
            continue
        if types != {dict} or len(set(map(tuple, values))) > 1:
            return None
        inner = _named(values, f"{prefix}{name}.", depth - 1)
        if inner is None:
            return None
        every += inner
    return every


def _nested(value: Any) -> bool:
    return type(value) is dict and bool(value)

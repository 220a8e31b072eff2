"""Attributes in messages as flat pairs of a name and a value.

Their names are the sender's. A message has each of them once, and none can stand for a name of the
format's own (test_no_attribute_stands_for_a_field, for every format).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

import msgspec

from siemrelay.core.event import Selection, attributes_of
from siemrelay.core.memo import BoundedMemo
from siemrelay.formats.writing.columns import Column, Lines, nonempty, put
from siemrelay.formats.writing.text import text_of

# Attributes nest as their sender likes; deeper than this they stay JSON text.
_DEPTH: Final = 4

# Columns pay off from about so many events with the same names.
_EVENTS_FOR_COLUMNS: Final = 16

# `_` and a number of 7 digits: no record has more attributes.
_SUFFIX_CHARACTERS: Final = 8

_decode_lines: Final = msgspec.json.Decoder(dict[str, Any]).decode_lines

Written = tuple[str, Column, str]
"""The text after an attribute's name, its value in every event, and the text after that."""


class _Named(NamedTuple):
    """One name, its values in every event, in order, and the types of these."""

    name: str
    values: Sequence[Any]
    types: set[type]


class FlatAttributes:
    """Writes attributes as pairs of a name and a value.

    Objects become dotted names, up to 4 levels: of `{"a": {"b": 1}, "c": [2]}` the pairs are `a.b`
    with 1 and `c` with [2]. Events with the same names are written together, column by column.
    """

    def __init__(
        self, pair: str, name: Callable[[str], str],
        value: Callable[[Sequence[Any], set[type]], Written], *, between: str = "",
        taken: Iterable[str] = (), most_characters: int | None = None,
    ) -> None:  # fmt: skip
        """A pair is `pair` with its `{}` replaced by the name, and then the value.

        Args: name: makes a name of the format's of an attribute's. value: writes values, of these
        types. between: separates pairs. taken: names that are not for attributes.
        most_characters: how long a name may be.
        """
        self._before, self._after = pair.split("{}")
        self._name, self._value, self._between = BoundedMemo(name), value, between
        self._taken, self._most_characters = frozenset(taken), most_characters

    def column(self, selection: Selection) -> Column:
        """The pairs of each event; None for an event without attributes."""
        every = attribute_dicts(selection)
        events_by_names: dict[tuple[str, ...], list[int]] = defaultdict(list)
        if len(every) < _EVENTS_FOR_COLUMNS:
            return nonempty(self._one_by_one(every))
        if len(set(map(tuple, every))) == 1:
            column = self._together(every)
            return nonempty(self._one_by_one(every)) if column is None else column
        for event, names in enumerate(map(tuple, every)):
            events_by_names[names].append(event)
        texts: list[str | None] = [None] * len(every)
        rest: list[int] = []
        for events in events_by_names.values():
            alike = [every[event] for event in events]
            column = self._together(alike) if len(alike) >= _EVENTS_FOR_COLUMNS else None
            if column is None:
                rest += events
            else:
                put(texts, events, column.texts)
        put(texts, rest, self._one_by_one([every[event] for event in rest]))
        return nonempty(texts)

    def _together(self, alike: Sequence[dict[str, Any]]) -> Column | None:
        """The pairs of events whose attributes have the same names.

        None if objects among the attributes have different names.
        """
        if not alike[0]:
            return Column([None] * len(alike))
        named = _named(alike)
        if named is None:
            return None
        lines, heads = Lines(len(alike)), self._heads([one.name for one in named])
        pairs = []
        for head, one in zip(heads, named, strict=True):
            opening, column, closing = self._value(one.values, one.types)
            pairs.append((head + opening, column, closing))
        lines.pairs(pairs, self._between)
        return lines.column()

    def _one_by_one(self, every: Sequence[dict[str, Any]]) -> list[str]:
        """The pairs of any events; the values are still written for all of them in one call."""
        flat = [flattened(own) if dict in map(type, own.values()) else own.items() for own in every]
        values = [value for own in flat for _, value in own]
        opening, column, closing = self._value(values, set(map(type, values)))
        texts = iter(column.texts)
        return [
            self._between.join([
                f"{head}{opening}{text}{closing}"
                for head, text in zip(self._heads([name for name, _ in own]), texts)  # noqa: B905  # as many as there are names
                if text is not None
            ])
            for own in flat
        ]  # fmt: skip

    def _heads(self, names: Sequence[str]) -> list[str]:
        """Pairs up to the value, for the attributes of one event."""
        own = unique_names(
            list(map(self._name.__getitem__, names)), self._taken, self._most_characters
        )
        return [f"{self._before}{name}{self._after}" for name in own]


def unique_names(
    names: Sequence[str], taken: Collection[str] = (), most_characters: int | None = None
) -> Sequence[str]:
    """The names, each once and none of them `taken`.

    One that is there already ends with `_2`, `_3` and so on, shortened to make room for it.
    """
    used = set(names)
    if len(used) == len(names) and used.isdisjoint(taken):
        return names
    used = set(taken)
    stem_characters = None if most_characters is None else most_characters - _SUFFIX_CHARACTERS
    # Counted per stem, so that a thousand clashes do not take a million looks.
    numbers: dict[str, int] = {}
    free_names = []
    for name in names:
        free, stem = name, name[:stem_characters]
        while free in used:
            numbers[stem] = numbers.get(stem, 1) + 1
            free = f"{stem}_{numbers[stem]}"
        used.add(free)
        free_names.append(free)
    return free_names


def flattened(attributes: Mapping[str, Any], depth: int = _DEPTH) -> Collection[tuple[str, Any]]:
    """Nested objects as dotted names, in order; lists and what is deeper stay one value."""
    pairs: list[tuple[str, Any]] = []
    for name, value in attributes.items():
        if type(value) is dict and value and depth > 1:
            pairs += [(f"{name}.{inner}", v) for inner, v in flattened(value, depth - 1)]
        else:
            pairs.append((name, value))
    return pairs


def attribute_dicts(selection: Selection) -> list[dict[str, Any]]:
    """The attributes of each event; empty where there are none."""
    raws: list[Any] = [event.attributes for event in selection.events]
    try:
        # Raw attributes have no line feed: one a line.
        return _decode_lines(b"\n".join(raws))
    except (TypeError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return list(map(attributes_of, selection.events))


def _named(
    alike: Sequence[dict[str, Any]], prefix: str = "", depth: int = _DEPTH
) -> list[_Named] | None:
    """Attributes of the same names; None if objects in them differ in theirs."""
    every: list[_Named] = []
    for name in alike[0]:
        values = list(map(itemgetter(name), alike))
        types = set(map(type, values))
        if dict not in types or depth == 1 or not any(map(_nested, values)):
            every.append(_Named(prefix + name, values, types))
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


def texts_of(values: Sequence[Any], types: set[type]) -> Sequence[Any]:
    """`text_of` each value."""
    return values if types == {str} else list(map(text_of, values))

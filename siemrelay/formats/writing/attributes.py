"""Attributes in messages as flat pairs of a name and a value.

Their names are the sender's. A message has each of them once, and none can stand for a name of the
format's own (test_no_attribute_stands_for_a_field, for every format).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain, islice
from operator import itemgetter
from typing import Any, Final, NamedTuple

import msgspec

from siemrelay.core.event import AuditEvent, Selection, attributes_of
from siemrelay.core.memo import BoundedMemo
from siemrelay.formats.writing.columns import Column, Lines, column_of, nonempty, put
from siemrelay.formats.writing.text import text_of

# Attributes nest as their sender likes; deeper than this they stay JSON text.
_DEPTH: Final = 4

# Columns pay off from about so many events with the same names.
_EVENTS_FOR_COLUMNS: Final = 16

# Values of these types that are equal are written alike, unlike 1, 1.0 and True.
_EXACT: Final = {str, int}

# An event with more attributes has no template: those that are kept take some 8 MiB at most;
# checked by test_what_is_kept_of_sets_of_names_is_bounded.
_MOST_PARTS: Final = 64

# `_` and a number of 7 digits: no record has more attributes.
_SUFFIX_CHARACTERS: Final = 8

_decode_lines: Final = msgspec.json.Decoder(dict[str, Any]).decode_lines

Written = tuple[str, Column, str]
"""The text after an attribute's name, its value in every event, and the text after that."""


_Part = str | tuple[str, ...] | None
"""An attribute's name, or the dotted names of an object that is written as one text."""


class _Named(NamedTuple):
    """One name, its values in every event, in order, and the types of these."""

    name: str
    values: Sequence[Any]
    types: set[type]

    def is_constant(self) -> bool:
        """Whether all events certainly have the same value."""
        values = self.values
        return (
            self.types <= _EXACT
            and values[0] == values[-1]
            and values.count(values[0]) == len(values)
        )


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
        self._templates = BoundedMemo(self._template)

    def column(self, selection: Selection) -> Column:
        """The pairs of each event; None for an event without attributes."""
        every = attribute_dicts(selection)
        if len(every) < _EVENTS_FOR_COLUMNS:
            return nonempty(self._one_by_one(every))
        counts = Counter(map(tuple, every))
        if len(counts) == 1 and (named := _named(every)) is not None:
            return self._together(named, len(every))
        if max(counts.values()) < _EVENTS_FOR_COLUMNS:
            return self._mixed(every)
        events_by_names: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for event, names in enumerate(map(tuple, every)):
            events_by_names[names].append(event)
        texts: list[str | None] = [None] * len(every)
        rest: list[int] = []
        for events in events_by_names.values():
            alike = [every[event] for event in events]
            named = _named(alike) if len(alike) >= _EVENTS_FOR_COLUMNS else None
            if named is None:
                rest += events
            else:
                put(texts, events, self._together(named, len(alike)).texts)
        put(texts, rest, self._mixed([every[event] for event in rest]).texts)
        return nonempty(texts)

    def alone(self, event: AuditEvent) -> Iterator[tuple[str, Any]]:
        """The names and values of one event's attributes."""
        own = attributes_of(event)
        flat = flattened(own) if dict in map(type, own.values()) else own.items()
        names = self._names([name for name, _ in flat])
        return zip(names, [value for _, value in flat], strict=True)

    def _together(self, named: Sequence[_Named], count: int) -> Column:
        """The pairs of `count` events whose attributes have the same names."""
        lines, heads = Lines(count), self._heads([one.name for one in named])
        pairs = []
        for head, one in zip(heads, named, strict=True):
            constant = one.is_constant()
            values = one.values[:1] if constant else one.values
            opening, column, closing = self._value(values, one.types)
            if constant:
                column = column_of([column.texts[0]] * count)
            pairs.append((head + opening, column, closing))
        lines.pairs(pairs, self._between)
        return lines.column()

    def _mixed(self, every: Sequence[dict[str, Any]]) -> Column:
        """The pairs of events with different names, by a template for each set of names.

        Their attributes stand one after the other in `names` and `values`. Objects with the same
        names, such as all those of syslog headers, are written together and are one text.
        """
        names: list[_Part] = list(chain.from_iterable(every))
        values = list(chain.from_iterable(map(dict.values, every)))
        objects = self._object_texts(names, values) if dict in map(type, values) else {}
        opening, column, closing = self._value(values, set(map(type, values)))
        texts = list(column.texts)
        for at, text in objects.items():
            texts[at] = text
        written: list[str | None] = []
        complete, start = None not in texts, 0
        for end in accumulate(map(len, every)):
            template = None
            if end - start <= _MOST_PARTS:
                template = self._templates[(opening, closing, *names[start:end])]
            if template is not None and (complete or None not in texts[start:end]):
                written.append(template % tuple(texts[start:end]))
            else:
                written.append(None)
            start = end
        odd = [event for event, text in enumerate(written) if text is None]
        put(written, odd, self._one_by_one([every[event] for event in odd]))
        return nonempty(written)

    def _object_texts(self, names: list[_Part], values: list[Any]) -> dict[int, str | None]:
        """Place → text of the objects; their dotted names replace their names, "" their values.

        None as name and text stands for an object that is not like enough others.
        """
        places: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        for at in [at for at, value in enumerate(values) if type(value) is dict and value]:
            places[(names[at], *values[at])].append(at)
        texts: dict[int, str | None] = {}
        for (name, *_), alike in places.items():
            # Events of one sender may share an object.
            shared = {id(values[at]): values[at] for at in alike}
            named = None
            if len(alike) >= _EVENTS_FOR_COLUMNS:
                named = _named(list(shared.values()), f"{name}.", _DEPTH - 1)
            written = self._together(named, len(shared)).texts if named else [None] * len(shared)
            text_of_object = dict(zip(shared, written, strict=True))
            dotted = tuple([one.name for one in named]) if named else None
            for at in alike:
                texts[at] = text_of_object[id(values[at])]
                names[at], values[at] = dotted, ""
        return texts

    def _template(self, layout: tuple[Any, ...]) -> str | None:
        """The pairs with `%s` for each value or object; None if they cannot be written so.

        `layout` has the texts around each value, and then the parts.
        """
        opening, closing, *parts = layout
        if None in parts:
            return None
        dotted = [part if type(part) is tuple else (part,) for part in parts]
        heads = iter(self._heads([*chain.from_iterable(dotted)]))
        pairs = []
        for part, inner in zip(parts, dotted, strict=True):
            own = list(islice(heads, len(inner)))
            if part is not inner:
                pairs.append(f"{own[0]}{opening}".replace("%", "%%") + f"%s{closing}")
            elif own == self._heads(inner):
                pairs.append("%s")
            else:  # a name in the object is also one of another attribute
                return None
        return self._between.join(pairs)

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
        return [f"{self._before}{name}{self._after}" for name in self._names(names)]

    def _names(self, names: Sequence[str]) -> Sequence[str]:
        return unique_names(
            list(map(self._name.__getitem__, names)), self._taken, self._most_characters
        )


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
    if types == {str}:
        return values
    return [value if type(value) is str else text_of(value) for value in values]

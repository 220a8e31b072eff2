"""JSON objects of much the same members, read many at once.

Objects that come one a line mostly have the members that those before them had. What these are is
learned from the objects, and made a type: to read into it takes two thirds of the time of dicts, to
write the canonical form half, and one member of all objects is a single call.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from itertools import chain
from operator import attrgetter
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import astuple

from siemrelay.core.canonical_json import forms_of, objects_and_forms, objects_of

# An object of more members has names that are data.
_MOST_MEMBERS: Final = 500
_MOST_DEPTH: Final = 16

# To learn from objects takes some ten times as long as to read them.
_MOST_LESSONS: Final = 100

# msgspec gives no field these.
_NOT_IN_NAMES: Final = frozenset(('"', "\\", *map(chr, range(0x20))))


class _Object:
    """The members that objects at one place have had."""

    def __init__(self) -> None:
        self.members: dict[str, _Kind] = {}
        self.fields: dict[str, str] = {}
        """By a member's name that of its field in `type`: it stays when more are learned."""
        self.type: Any = None


class _List:
    """Lists of objects."""

    def __init__(self) -> None:
        self.element: _Kind = _Object()


_Kind = _Object | _List | None
"""The kind of value at one place; None for other values, and for several kinds."""


class LearnedSchema:
    """Reads objects that come one a line, and learns their members from those that it reads."""

    def __init__(self) -> None:
        self._kind: _Kind = _Object()
        self._type: Any = None
        self._lessons = 0

    def objects_of(self, lines: Sequence[bytes]) -> Objects | None:
        """`canonical_json.objects_of` of these lines; to be used before the next ones are read."""
        if self._type is not None and (values := objects_of(lines, self._type)) is not None:
            return Objects(values, self._kind)
        if not self._learn(lines):
            return None
        values = objects_of(lines, self._type)
        return None if values is None else Objects(values, self._kind)

    def objects_and_forms(self, lines: Sequence[bytes]) -> tuple[Objects, list[bytes]] | None:
        """The same with their canonical forms."""
        read = None if self._type is None else objects_and_forms(lines, self._type)
        if read is None and self._learn(lines):
            read = objects_and_forms(lines, self._type)
        return None if read is None else (Objects(read[0], self._kind), read[1])

    def _learn(self, lines: Sequence[bytes]) -> bool:
        """Whether something was learned from these lines."""
        if self._lessons >= _MOST_LESSONS or (values := objects_of(lines)) is None:
            return False
        self._lessons += 1
        for value in values:
            self._kind = _learned(self._kind, value, 0)
        self._type = _type_of(self._kind)
        return True


def _learned(kind: _Kind, value: Any, depth: int) -> _Kind:
    """The kind of a place where this value stands, too."""
    if isinstance(kind, _Object) and isinstance(value, dict) and depth < _MOST_DEPTH:
        for name, inner in value.items():
            if name in kind.members:
                kind.members[name] = _learned(kind.members[name], inner, depth + 1)
            elif len(kind.members) >= _MOST_MEMBERS or not _NOT_IN_NAMES.isdisjoint(name):
                return None
            else:
                kind.fields[name] = f"m{len(kind.fields)}"
                kind.members[name] = _learned(_first_kind(inner), inner, depth + 1)
        return kind
    if isinstance(kind, _List) and isinstance(value, list) and depth < _MOST_DEPTH:
        for each in value:
            kind.element = _learned(kind.element, each, depth + 1)
        return None if kind.element is None else kind
    return None


def _first_kind(value: Any) -> _Kind:
    return _Object() if isinstance(value, dict) else _List() if isinstance(value, list) else None


def _type_of(kind: _Kind) -> Any:
    if kind is None:
        return Any
    if isinstance(kind, _List):
        return list[_type_of(kind.element)]  # type: ignore[misc]  # a type that is made
    names = sorted(kind.members)  # without those beyond the Basic Multilingual Plane: RFC 8785's
    kind.type = msgspec.defstruct(
        "Members",
        [(kind.fields[x], _type_of(kind.members[x]) | UnsetType, UNSET) for x in names],
        rename={kind.fields[name]: name for name in names},
        forbid_unknown_fields=True,
        gc=False,
    )
    return kind.type


class Objects:
    """JSON objects by their members."""

    def __init__(self, values: Sequence[Any], kind: _Kind = None) -> None:
        """`values` are dicts, or anything that is no object, unless `kind` says their type."""
        self.values, self._kind = values, kind

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, some: slice) -> Objects:
        return Objects(self.values[some], self._kind)

    @property
    def names(self) -> Collection[str]:
        """Of all members that one of them may have."""
        if isinstance(self._kind, _Object):
            return self._kind.members.keys()
        return set().union(*(value for value in self.values if isinstance(value, dict)))

    def forms(self) -> list[bytes]:
        """Their canonical forms."""
        return forms_of(list(self.values))

    def column(self, *path: str) -> list[Any]:
        """The member of each, on this way into it; `UNSET` where one has none."""
        values, kind = self.values, self._kind
        for name in path:
            if isinstance(kind, _Object):
                field, members = kind.fields.get(name, ""), kind.members
                try:
                    values = list(map(attrgetter(field), values))
                except AttributeError:  # there are other values here, or none has the member
                    values = [getattr(value, field, UNSET) for value in values]
                kind = members.get(name)
            else:
                values = [
                    value.get(name, UNSET) if isinstance(value, dict) else UNSET for value in values
                ]
                kind = None
        return list(values)

    def columns(self) -> dict[str, list[Any]]:
        """The column of each member that one of them may have."""
        if not isinstance(self._kind, _Object) or not self.values:
            return {name: self.column(name) for name in self.names}
        columns = map(list, zip(*map(astuple, self.values), strict=True))
        return dict(zip(self._kind.type.__struct_encode_fields__, columns, strict=True))

    def rows(self, paths: Sequence[Sequence[str]]) -> list[tuple[Any, ...]] | None:
        """These members of each, on their ways into it, two or more; None if an object on a way may
        be missing."""
        fields, rows = list[str](), None
        for path in paths:
            kind, way = self._kind, list[str]()
            for name in path:
                if not isinstance(kind, _Object) or name not in kind.fields:
                    return None
                way.append(kind.fields[name])
                kind = kind.members[name]
            fields.append(".".join(way))
        with suppress(AttributeError):
            rows = list(map(attrgetter(*fields), self.values))
        return rows

    def has(self, name: str) -> bool:
        """Whether one of them has this member."""
        return name in self.names and set(map(type, self.column(name))) != {UnsetType}

    def all_have(self, name: str) -> bool:
        """Whether each of them has this member."""
        return name in self.names and UnsetType not in set(map(type, self.column(name)))

    def within(self, name: str) -> Objects | None:
        """The objects in this member of each; None if it is another value in one of them."""
        if name not in self.names:
            return None
        kind = self._kind.members[name] if isinstance(self._kind, _Object) else None
        return _objects(self.column(name), kind)

    def elements(self, name: str, lines: Sequence[int]) -> tuple[Objects, list[int]] | None:
        """The objects in lists, which are this member of each, and the line of each, given those of
        the objects. None if it is another value, or an empty list, in one of them.
        """
        kind = self._kind.members.get(name) if isinstance(self._kind, _Object) else None
        lists = self.column(name)
        if set(map(type, lists)) != {list} or not all(lists):
            return None
        kind = kind.element if isinstance(kind, _List) else None
        found = _objects(list(chain.from_iterable(lists)), kind)
        if found is None:
            return None
        return found, [line for each, line in zip(lists, lines, strict=True) for _ in each]


def _objects(values: Sequence[Any], kind: _Kind) -> Objects | None:
    kind = kind if isinstance(kind, _Object) else None
    return (
        Objects(values, kind) if set(map(type, values)) == {kind.type if kind else dict} else None
    )


def plain(value: Any) -> Any:
    """One value of `Objects` as dicts and lists."""
    if isinstance(value, msgspec.Struct):
        inner = zip(value.__struct_encode_fields__, astuple(value), strict=True)
        return {name: plain(each) for name, each in inner if each is not UNSET}
    return list(map(plain, value)) if isinstance(value, list) else value

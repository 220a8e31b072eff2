"""Typed structs for records: the type to read at each key, and the keys that must be absent.

`learned` opens with a worked example. Whatever would make a record's event differ from the one that
its struct gives is a type error, found in C at no cost per event.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final

import msgspec

from siemrelay.core.event import NOBODY, NOTHING, Actor, AuditEvent, Target
from siemrelay.decoders.fields import TEXT_FIELDS, Where

_NONEMPTY: Final = Annotated[str, msgspec.Meta(min_length=1)]
_NOTHING_AT_ALL: Final = Annotated[int, msgspec.Meta(ge=1, le=0)]
_EMPTY: Final = {"actor": NOBODY, "target": NOTHING, "type": ""}
_ANY_BUT_OBJECT: Final = (str, int, float, bool, list[Any], type(None))


class NoShape(Exception):
    """The sample has no common shape: look up each record by itself."""


class Slot:
    """One key of the records, and the keys in the object there."""

    def __init__(self) -> None:
        self.types: set[type] = set()
        """The types of the values read here; empty where none is."""
        self.exact: Any = None
        """The type to insist on, narrower than `types`; None where those do."""
        self.required = False
        """Every record of the sample had the value."""
        self.nullable = True
        """A null here equals an absent key; only attributes would show the difference."""
        self.probed = False
        """A value here would belong to another spelling: it may only be null."""
        self.children: dict[str, Slot] = {}

    def at(self, where: Where) -> Slot:
        """The slot that these keys lead to, created if absent. Raises NoShape."""
        slot = self
        for key in where:
            # msgspec does not accept such names; records with such a spelling are looked up.
            if not key.isprintable() or '"' in key or "\\" in key:
                raise NoShape
            slot = slot.children.setdefault(key, Slot())
        return slot

    def order_as(self, record: dict[str, Any]) -> None:
        """Put the keys in the record's order, those that it lacks last."""
        there = {key: self.children[key] for key in record if key in self.children}
        self.children = {**there, **self.children}
        for key, slot in there.items():
            inner = record[key]
            if isinstance(inner, dict):
                slot.order_as(inner)

    @property
    def read(self) -> bool:
        """Whether a value is read here or deeper."""
        return bool(self.types) or any(child.read for child in self.children.values())

    @property
    def needed(self) -> bool:
        """Whether the key is in every record."""
        return self.required or any(child.needed for child in self.children.values())


def attribute(key: str) -> str:
    """The name of a key's value in a struct; keys are any text, so it is spelled in hexadecimal."""
    return "k" + key.encode().hex()


def _type(slot: Slot) -> Any:
    if slot.types and any(child.read for child in slot.children.values()):
        raise NoShape
    if slot.exact is not None:
        return slot.exact
    if slot.types:
        kinds: list[Any] = [_NONEMPTY if kind is str else kind for kind in slot.types]
        # A field of floats alone would make floats of integers.
        kinds += [int] if float in slot.types and int not in slot.types else []
        return _union([*kinds, type(None)] if slot.nullable and not slot.required else kinds)
    if not slot.children:
        return type(None)
    node = plain_struct(slot)
    if slot.read:
        return node
    return _union([node, type(None)] if slot.probed else [node, *_ANY_BUT_OBJECT])


def _union(kinds: Iterable[Any]) -> Any:
    result: Any = None
    for kind in kinds:
        result = kind if result is None else result | kind
    return result


def _field(name: str, slot: Slot) -> tuple[Any, ...]:
    kind = _type(slot)
    if slot.needed:
        return (name, kind)
    return (name, kind, kind() if slot.read and not slot.types else None)


def _fields(slot: Slot, own: Mapping[str, str]) -> list[tuple[Any, ...]]:
    return [_field(own.get(key, attribute(key)), child) for key, child in slot.children.items()]


def plain_struct(slot: Slot) -> type[msgspec.Struct]:
    """A struct with an attribute (`attribute`) for every key of the slot. Raises NoShape."""
    names = {attribute(key): key for key in slot.children}
    return msgspec.defstruct(
        "Node", _fields(slot, {}), rename=names, kw_only=True, gc=False, frozen=True
    )


def nests_as_events_do(root: Slot, places: Mapping[str, Where]) -> bool:
    """Whether records can be decoded straight into events: `event_struct` needs it."""
    parents: dict[str, set[str]] = {"actor": set(), "target": set()}
    if len(set(places.values())) < len(places):
        return False
    alone: list[str] = []
    for field, where in places.items():
        group = field.partition(".")[0]
        if len(where) != (2 if group in parents else 1):
            return False
        if group in parents:
            parents[group].add(where[0])
        else:
            alone.append(where[0])
        if (field in TEXT_FIELDS or field == "time") and root.at(where).types != {str}:
            return False
    actor, target = parents["actor"], parents["target"]
    tops = [*alone, *actor, *target]
    return len(actor) <= 1 and len(target) <= 1 and len(set(tops)) == len(tops)


def event_struct(root: Slot, places: Mapping[str, Where], *, attributes: Any) -> type[AuditEvent]:
    """An `AuditEvent` with its fields where the records have them. Raises NoShape.

    With `attributes`, which is the type to read them as, every other key of a record is a type
    error, but for an `attributes` object.
    """
    own = {where[0]: field.partition(".")[0] for field, where in places.items()}
    closed = attributes is not None
    if closed and "attributes" in root.children:
        raise NoShape
    fields: list[tuple[Any, ...]] = []
    for key, slot in root.children.items():
        name = own.get(key, attribute(key))
        if name in ("actor", "target"):
            nobody: Any = NOBODY if name == "actor" else NOTHING
            inner = {where[1]: field.partition(".")[2]
                     for field, where in places.items()
                     if field.startswith(name + ".")}  # fmt: skip
            within = [
                _field(inner.get(k, attribute(k)), child) for k, child in slot.children.items()
            ]
            node = _struct(type(nobody), within, inner, slot, closed=closed)
            fields.append((name, node) if slot.needed else (name, node, nobody))
        else:
            fields.append(_field(name, slot))
    if closed:
        fields.append(("attributes", attributes, None))
    made: type[AuditEvent] = _struct(AuditEvent, fields, own, root, closed=closed)
    return made


def _struct(
    base: type[Any], fields: list[tuple[Any, ...]], own: Mapping[str, str], slot: Slot, *,
    closed: bool,
) -> Any:  # fmt: skip
    names = {own.get(key, attribute(key)): key for key in slot.children}
    empty: dict[str, Any] = _EMPTY if base is AuditEvent else {}
    for name in base.__struct_fields__:
        if name not in {field[0] for field in fields}:
            # The field is not in these records, and a key of its name means something else. It gets
            # a key that no record has, and a type without values, so that none can fill it.
            fields.append((name, _NOTHING_AT_ALL, empty.get(name)))
            names[name] = f"(no {name})"
    if len(set(names.values())) < len(names):
        raise NoShape
    frozen = base in (Actor, Target)
    return msgspec.defstruct(
        f"Shaped{base.__name__}", fields, bases=(base,), rename=names, kw_only=True, gc=False,
        frozen=frozen, forbid_unknown_fields=closed,
    )  # fmt: skip

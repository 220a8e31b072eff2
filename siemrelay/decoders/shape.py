"""How a source's records look, learned from some of them, as a decoder that runs in C.

A shape is exact, not a guess: wherever it accepts a record it gives the very event that looking
through all spellings would give (test_the_learned_shape_agrees_with_looking_everywhere). What would
break that is made a type error of the decoder, at no cost per event: a field that was always there
is required, and a spelling that would win over the learned one, or add a field that was absent, may
only be null. A record that the shape refuses is looked through by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Annotated, Any, Final, Literal, get_args

import msgspec

from siemrelay.decoders.mapping import Spellings, find
from siemrelay.event import FIELDS, NOBODY, NOTHING, Actor, AuditEvent, Target

_TEXT: Final = frozenset(FIELDS) - {"time", "type", "category", "severity", "outcome"}
_ANY_JSON: Final = (str, int, float, bool, list[Any], type(None))
_NONEMPTY: Final = Annotated[str, msgspec.Meta(min_length=1)]


class _Slot:
    """One key of the records: what is read there, or what must not be there."""

    def __init__(self) -> None:
        self.types: set[type] = set()
        self.exact: Any = None
        self.required = False
        self.probed = False
        self.children: dict[str, _Slot] = {}

    @property
    def read(self) -> bool:
        return bool(self.types) or any(child.read for child in self.children.values())

    @property
    def needed(self) -> bool:
        return self.required or any(child.needed for child in self.children.values())


def _at(root: _Slot, keys: Iterable[str]) -> _Slot:
    for key in keys:
        root = root.children.setdefault(key, _Slot())
    return root


class Shape:
    """A typed decoder for NDJSON payloads whose records look like the sample."""

    def __init__(
        self, root: _Slot, paths: Mapping[str, str], attributes: bool, *, tidy: bool
    ) -> None:
        """`tidy`: category, severity and outcome, as far as wanted, come out as events have them."""
        self._paths, self.tidy = paths, tidy
        self._native = _is_native(root, paths)
        if attributes and not self._native:
            raise NoShape
        kind = _native_class(root, paths, attributes) if self._native else _node(root, msgspec.Struct)
        self._decoder = msgspec.json.Decoder(kind)

    def decode_lines(self, payload: bytes) -> list[AuditEvent]:
        """All events of a payload. Raises msgspec.DecodeError, UnicodeDecodeError, RecursionError."""
        rows = self._decoder.decode_lines(payload)
        return rows if self._native else self._events(rows)

    def decode(self, record: bytes) -> AuditEvent:
        """One event; errors as in `decode_lines`."""
        row = self._decoder.decode(record)
        return row if self._native else self._events([row])[0]

    def _events(self, rows: list[Any]) -> list[AuditEvent]:
        columns = []
        for field in FIELDS:
            path = self._paths.get(field)
            if path is None:
                columns.append([None] * len(rows))
                continue
            column = list(map(attrgetter(".".join(map(_attribute, path.split(".")))), rows))
            if field in _TEXT and not set(map(type, column)) <= {str, type(None)}:
                column = [text_of(value) for value in column]
            columns.append(column)
        return [event_of(*values) for values in zip(*columns, strict=True)]


class NoShape(Exception):
    """The sample has no one shape: look through each record."""


def learn(
    sample: list[dict[str, Any]], spellings: Spellings, wanted: frozenset[str]
) -> Shape | None:
    """The shape of these records for the wanted fields, None where they have no common one."""
    root, paths = _Slot(), {}
    everywhere = "attributes" in wanted
    spellings = {field: tried for field, tried in spellings.items() if everywhere or field in wanted}
    seen: dict[str, list[tuple[str, Any]]] = {field: [] for field in spellings}
    for record in sample:
        for field, path, value in find(record, spellings):
            seen[field].append((path, value))
            if "." in path and path in record:
                return None
    for field, found in seen.items():
        where = {path for path, _ in found}
        if len(where) > 1:
            return None
        rivals = spellings[field]
        for path in where:
            slot = _at(root, path.split("."))
            slot.types |= {type(value) for _, value in found}
            paths[field] = path
            slot.required |= len(found) == len(sample)
            rivals = rivals[: rivals.index(path)] if slot.required else rivals
        for rival in rivals:
            if rival not in where:
                _at(root, rival.split(".")).probed = True
                _at(root, [rival]).probed = True
    tidy = all(
        _narrowed(field, _at(root, paths[field].split(".")), [v for _, v in seen[field]])
        if field in paths
        else False
        for field in ("category", "severity", "outcome")
        if field in spellings
    )
    try:
        return Shape(root, paths, everywhere, tidy=tidy)
    except NoShape:
        return None


_SEVERITY: Final = Annotated[int, msgspec.Meta(ge=0, le=10)]
_OUTCOME: Final = Literal["success", "failure", "unknown"]


def _narrowed(field: str, slot: _Slot, values: list[Any]) -> bool:
    """Let the decoder take only what needs no work afterwards, if the sample has only that."""
    if not slot.required:
        return False
    if field == "category":
        return slot.types == {str}
    if field == "severity" and slot.types == {int} and all(0 <= value <= 10 for value in values):
        slot.exact = _SEVERITY
    if field == "outcome" and set(values) <= set(get_args(_OUTCOME)):
        slot.exact = _OUTCOME
    return slot.exact is not None


def _attribute(key: str) -> str:
    # Keys are any text; attributes of the decoded rows are named so that none can collide.
    return "k" + key.encode().hex()


def _type(slot: _Slot) -> Any:
    if slot.types and any(child.read for child in slot.children.values()):
        raise NoShape
    if slot.exact is not None:
        return slot.exact
    if slot.types:
        kinds = [_NONEMPTY if kind is str else kind for kind in slot.types]
        return _union(kinds if slot.required else [*kinds, type(None)])
    if not slot.children:
        return type(None)
    node = _node(slot, msgspec.Struct)
    if slot.read:
        return node
    return _union([node, type(None)] if slot.probed else [node, *_ANY_JSON])


def _union(kinds: Iterable[Any]) -> Any:
    result: Any = None
    for kind in kinds:
        result = kind if result is None else result | kind
    return result


def _node(slot: _Slot, base: type) -> Any:
    rename = {_attribute(key): key for key in slot.children}
    fields = [_field(_attribute(key), child) for key, child in slot.children.items()]
    return msgspec.defstruct(
        "Node", fields, bases=(base,), rename=rename, kw_only=True, gc=False, frozen=True
    )


def _field(name: str, slot: _Slot) -> Any:
    kind = _type(slot)
    if slot.needed:
        return (name, kind)
    return (name, kind, kind() if slot.read and not slot.types else None)


def _is_native(root: _Slot, paths: Mapping[str, str]) -> bool:
    """Whether the records nest as events do, so that they can be decoded straight into events."""
    parents: dict[str, set[str]] = {"actor": set(), "target": set()}
    if len(set(paths.values())) < len(paths):
        return False
    for field, path in paths.items():
        keys, group = path.split("."), field.partition(".")[0]
        if group in parents:
            if len(keys) != 2:
                return False
            parents[group].add(keys[0])
        elif len(keys) != 1:
            return False
        types = _at(root, keys).types
        if (field in _TEXT or field == "time") and types != {str}:
            return False
    both = parents["actor"] | parents["target"]
    return all(len(keys) <= 1 for keys in parents.values()) and len(both) == sum(
        map(len, parents.values())
    )


def _native_class(root: _Slot, paths: Mapping[str, str], attributes: bool) -> type[AuditEvent]:
    own: dict[str, str] = {}
    for field, path in paths.items():
        own[path.split(".")[0]] = field.partition(".")[0]
    fields: list[Any] = []
    rename: dict[str, str] = {}
    for key, slot in root.children.items():
        name = own.get(key)
        if name in ("actor", "target"):
            base: type = Actor if name == "actor" else Target
            node = _native_node(slot, base, paths, name)
            default = () if slot.needed else (node(),)
            fields.append((name, node, *default))
        else:
            fields.append(_field(name or _attribute(key), slot))
        rename[name or _attribute(key)] = key
    if attributes and "attributes" not in root.children:
        fields.append(("attributes", msgspec.Raw, msgspec.Raw(b"")))
    present = {field[0] for field in fields}
    empty: dict[str, Any] = {"actor": NOBODY, "target": NOTHING, "type": ""}
    for name in AuditEvent.__struct_fields__:
        if name not in present:
            # A key of this name may only be null, as any other rival.
            fields.append((name, type(None), empty.get(name)))
            rename[name] = f"\x7f{name}"
    return msgspec.defstruct(  # type: ignore[return-value]  # its base is AuditEvent
        "ShapedEvent", fields, bases=(AuditEvent,), rename=rename, kw_only=True, gc=False,
        forbid_unknown_fields=attributes,
    )  # fmt: skip


def _native_node(slot: _Slot, base: type, paths: Mapping[str, str], group: str) -> Any:
    own = {path.split(".")[1]: field.partition(".")[2]
           for field, path in paths.items() if field.startswith(group + ".")}  # fmt: skip
    rename = {own.get(key, _attribute(key)): key for key in slot.children}
    fields = [_field(own.get(key, _attribute(key)), child) for key, child in slot.children.items()]
    present = {field[0] for field in fields}
    for name in base.__struct_fields__:  # type: ignore[attr-defined]  # Actor or Target
        if name not in present:
            fields.append((name, type(None), None))
            rename[name] = f"\x7f{name}"
    return msgspec.defstruct(
        "ShapedNode", fields, bases=(base,), rename=rename, kw_only=True, gc=False, frozen=True
    )


def text_of(value: Any) -> str | None:
    """A scalar as text, None as None; booleans as JSON writes them."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def event_of(
    id: Any, time: Any, type: Any, category: Any, severity: Any, outcome: Any,  # noqa: A002  (the field's names)
    actor_name: Any, actor_id: Any, actor_address: Any,
    target_type: Any, target_name: Any, target_id: Any, message: Any,
) -> AuditEvent:  # fmt: skip
    """An event from values in the order of `FIELDS`, texts made already, the rest as the record said."""
    return AuditEvent(
        id=id, time=time, type=type, category=category, severity=severity, outcome=outcome,
        actor=Actor(actor_name, actor_id, actor_address),
        target=Target(target_type, target_name, target_id), message=message,
    )  # fmt: skip


def event_from(record: dict[str, Any], spellings: Spellings) -> tuple[AuditEvent, set[str]]:
    """The event of one record by looking through every spelling, and the paths that it used."""
    values: dict[str, Any] = {}
    used: set[str] = set()
    for field, path, value in find(record, spellings):
        values[field] = text_of(value) if field in _TEXT else value
        used.add(path)
    return event_of(*(values.get(field) for field in FIELDS)), used



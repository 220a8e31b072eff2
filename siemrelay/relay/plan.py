"""The changes of a reload: a pure comparison of two configurations."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, Literal

import msgspec
from pydantic import BaseModel

from siemrelay.config.describe import field_names, written
from siemrelay.config.models import RelayConfig
from siemrelay.config.url_secrets import without_url_secrets
from siemrelay.formats.writing.text import visible
from siemrelay.transforms.redaction.options import key_id
from siemrelay.transforms.transform import TransformOptions

# The buffer is opened once.
_FIXED: Final = ("state_dir",)

Kind = Literal["add", "remove", "rename", "restart"]


class Change(msgspec.Struct, frozen=True):
    """One part that a reload changes; `details` (safe to show) say why.

    `before` is the name that a renamed one had.
    """

    section: Literal["source", "sink"]
    name: str
    kind: Kind
    details: tuple[str, ...] = ()
    before: str = ""

    def __str__(self) -> str:
        details = f" ({', '.join(self.details)})" if self.details else ""
        which = f"{self.before} to {self.name}" if self.before else self.name
        return f"{self.kind} {self.section} {which}{details}"


class Plan(msgspec.Struct, frozen=True):
    """The changes in the order in which they are made: sinks first, so that they miss nothing.

    `settings` are relay-wide changes that take effect at once; `fixed` are keys that only a restart
    can change. `alike` are removed sinks, each with an added one of the same options: a new name?
    """

    changes: tuple[Change, ...]
    unchanged: int
    settings: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    alike: dict[str, str] = {}

    def names(self, section: str, *kinds: Kind) -> list[str]:
        """The parts of a section with one of these kinds of change."""
        return [c.name for c in self.changes if c.section == section and c.kind in kinds]

    def renamed(self, section: str) -> dict[str, str]:
        """The new names of a section's renamed parts, by their old ones."""
        return {c.before: c.name for c in self.changes if c.section == section and c.before}

    def lines(self) -> list[str]:
        """The plan for a person, one change a line."""
        same = f"keep {self.unchanged} {'part' if self.unchanged == 1 else 'parts'} unchanged"
        return [*map(str, self.changes), *(f"set {text}" for text in self.settings), same]


def plan(old: RelayConfig, new: RelayConfig, kept: Collection[str] = ()) -> Plan:
    """Compare two valid configurations. `kept` are removed sinks whose place is kept.

    A part is restarted if any of its options differs, secrets included, or if the declared event
    types or the operator's products do: filters and decoders are built from them.
    """
    restart_all = (
        old.event_types != new.event_types
        or old.products != new.products
        or old.buffer.when_full != new.buffer.when_full
    )
    changes = [
        *_changes("sink", old.sinks, new.sinks, kept, restart_all=restart_all),
        *_changes("source", old.sources, new.sources, (), restart_all=restart_all),
    ]
    changed = {(change.section, change.name) for change in changes}
    kept_parts = [("sink", name) for name in new.sinks if name in old.sinks]
    kept_parts += [("source", name) for name in new.sources if name in old.sources]
    unchanged = len({*kept_parts} - changed)
    wide = [key for key in field_names(RelayConfig) if key not in ("sources", "sinks")]
    fixed = [key for key in wide if key in _FIXED and getattr(old, key) != getattr(new, key)]
    settings = [
        text
        for key in wide
        if key not in _FIXED
        for text in _differences(_plain(old, key), _plain(new, key), key)
    ]
    added = {name: sink for name, sink in new.sinks.items() if name not in old.sinks}
    alike = {
        name: heir
        for name, sink in old.sinks.items() if name not in new.sinks
        for heir, other in added.items() if _is_alike(sink, other)
    }  # fmt: skip
    return Plan(tuple(changes), unchanged, tuple(settings), tuple(fixed), alike)


def _changes(
    section: Literal["source", "sink"], old: Mapping[str, Any], new: Mapping[str, Any],
    kept: Collection[str], *, restart_all: bool,
) -> Iterator[Change]:  # fmt: skip
    renamed = {
        part.renamed_from: name
        for name, part in new.items()
        if name not in old and name not in kept and part.renamed_from in {*old, *kept}
    }
    for name in old:
        if name not in new and name not in renamed:
            yield Change(section, name, "remove")
    for before, name in renamed.items():
        details = _details(old[before], new[name]) if before in old else ()
        yield Change(section, name, "rename", tuple(details), before)
    for name, part in new.items():
        if name not in old and name not in renamed.values():
            yield Change(section, name, "add")
        elif name not in old:
            continue
        elif not _is_alike(old[name], part):
            yield Change(section, name, "restart", tuple(_details(old[name], part)))
        elif restart_all:
            yield Change(section, name, "restart", ("event types, products or when_full",))


def _is_alike(old: BaseModel, new: Any) -> bool:
    """Whether no difference needs a restart; that of their former names does not."""
    former = {"renamed_from": new.renamed_from}
    return type(old) is type(new) and old.model_copy(update=former) == new


def _details(old: BaseModel, new: BaseModel) -> Iterator[str]:
    """The differences of their options but for their former names."""
    before, after = dict(_settings(old)), dict(_settings(new))
    for key in dict.fromkeys((*before, *after)):
        if key == "renamed_from":
            continue
        differs = list(_differences(before.get(key), after.get(key), key))
        yield from differs
        if not differs and _value(old, key) != _value(new, key):
            yield f"{key} changed"  # a secret, which is shown as *** before and after
    if isinstance(old, TransformOptions) and isinstance(new, TransformOptions):
        first, second = old.redact.key, new.redact.key
        if first is not None and second is not None and first != second:
            yield f"pseudonyms differ from now on: key {key_id(first)} → {key_id(second)}"


def _settings(part: BaseModel) -> Iterator[tuple[str, Any]]:
    for key in field_names(type(part)):
        yield key, _plain(part, key)


def _value(part: BaseModel, key: str) -> Any:
    return next(
        (getattr(part, own) for own, info in type(part).model_fields.items()
         if (info.alias or own) == key), None,
    )  # fmt: skip


def _plain(part: BaseModel, key: str) -> Any:
    own, info = next(
        (own, info) for own, info in type(part).model_fields.items() if (info.alias or own) == key
    )
    return written(getattr(part, own), info.annotation, info.metadata)


def _differences(old: Any, new: Any, key: str) -> Iterator[str]:
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for inner in dict.fromkeys((*old, *new)):
            yield from _differences(old.get(inner), new.get(inner), f"{key}.{inner}")
    else:
        yield f"{key} {_text(old)} → {_text(new)}"


def _text(value: Any) -> str:
    if value is None or value in ([], {}):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_text(inner)}' for key, inner in value.items())}}}"
    return visible(without_url_secrets(str(value)))

"""Turns pydantic's errors into faults: where, what was expected, what was probably meant."""

from __future__ import annotations

import re
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from siemrelay.config.describe import (
    field_at,
    field_names,
    meant_key,
    model_at,
    nearest,
    type_text,
    written,
)
from siemrelay.config.yaml_document import Document, KeyPath
from siemrelay.core.errors import Fault

_BLOCK: Final = "`key: value` lines below it"
_FEW_KEYS: Final = 8

_EXPECTED: Final = {
    **dict.fromkeys(("string_type", "path_type"), "text"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "yes or no"),
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type"), "a list"),
    **dict.fromkeys(("dict_type", "model_type"), _BLOCK),
}  # fmt: skip
"""Error types that mean only: another type was expected."""

_BOUNDS: Final = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "string_too_long": "too long: at most {max_length}",
    "too_long": "must have at most {max_length} entries",
}

_QUOTED: Final = re.compile(r"'([^']*)'")


def explain(
    error: ValidationError, model: type[BaseModel], values: Any, at: KeyPath, document: Document
) -> list[Fault]:
    """Every fault of one validation, each with its own line and column.

    `values` is what `model` validated, as in the file; `at` is its path in the file.
    """
    texts: dict[KeyPath, list[str]] = {}
    expected: dict[KeyPath, list[str]] = {}
    inputs: dict[KeyPath, Any] = {}
    at_keys: set[KeyPath] = set()
    free: set[KeyPath] = set()
    for detail in error.errors(include_url=False):
        path, is_key = _path_in(values, detail["loc"], missing=detail["type"] == "missing")
        inputs[path] = detail["input"]
        if is_key or detail["type"] == "extra_forbidden":
            at_keys.add(path)
        if detail["type"] in _EXPECTED:
            expected.setdefault(path, []).append(_EXPECTED[detail["type"]])
            if detail["type"] == "dict_type":  # its keys are the user's
                free.add(path)
        else:
            texts.setdefault(path, []).append(_text(dict(detail), model, path))
    for path, kinds in expected.items():
        if path in texts:  # another form of the value was meant, and that one's fault says more
            continue
        wanted = " or ".join(dict.fromkeys(kinds))
        found = _found(inputs[path])
        quote = "; put it in quotes" if wanted == "text" and found in _SCALARS else ""
        bracket = "; put it in brackets: [...]" if (wanted, found) == ("a list", "text") else ""
        hint = quote or bracket or _by_name(path, inputs[path])
        hint = hint or ("" if path in free else _keys(model, path, wanted))
        texts.setdefault(path, []).append(f"expected {wanted}, found {found}{hint}")
    return [
        document.fault((*at, *path), "; ".join(dict.fromkeys(some)), at_key=path in at_keys)
        for path, some in texts.items()
    ]


def _by_name(path: KeyPath, value: Any) -> str:
    """A hint where sources or sinks are a list, as in other relays."""
    if path not in (("sources",), ("sinks",)) or not isinstance(value, list):
        return ""
    return "; a name of your own goes before each: `NAME:` and its keys below, without `-`"


def _keys(model: type[BaseModel], path: KeyPath, wanted: str) -> str:
    """The keys of the block that was expected, if they are few."""
    inside = model_at(model, path) if wanted == _BLOCK else None
    names = list(field_names(inside)) if inside else []
    return f"; the keys are {', '.join(names)}" if 0 < len(names) <= _FEW_KEYS else ""


def _path_in(values: Any, loc: tuple[int | str, ...], *, missing: bool) -> tuple[KeyPath, bool]:
    """Pydantic's location as a path in the file: without the names of union branches."""
    path: list[int | str] = []
    value = values
    is_key = loc[-1:] == ("[key]",)
    for i, part in enumerate(loc):
        below: dict[Any, Any] = {}
        if isinstance(value, (dict, list)):
            below = value if isinstance(value, dict) else dict(enumerate(value))
        if part in below:
            value = below[part]
        elif not (missing and i == len(loc) - 1):
            continue
        path.append(part)
    return tuple(path), is_key


def _text(detail: dict[str, Any], model: type[BaseModel], path: KeyPath) -> str:
    kind, context = detail["type"], detail.get("ctx") or {}
    if kind in _BOUNDS:
        info = field_at(model, path)
        shown = {
            # The models hold seconds and bytes; the file has units.
            name: written(limit, info.annotation, info.metadata) if info else limit
            for name, limit in context.items()
        }
        return _BOUNDS[kind].format(**shown)
    match kind:
        case "extra_forbidden":
            inside = model_at(model, path[:-1])
            if inside is None:  # a block where no block belongs
                return f"unknown key `{path[-1]}`"
            known = field_names(inside)
            meant = meant_key(str(path[-1]), known)
            hint = f"did you mean `{meant}`?" if meant else f"the keys are {', '.join(known)}"
            return f"unknown key `{path[-1]}`; {hint}"
        case "missing":
            info = field_at(model, path)
            kind_text = f": {type_text(info.annotation, info.metadata)}" if info else ""
            # What it is, in one sentence; the reference has the others.
            what = (info.description or "").partition(". ")[0].rstrip(".") if info else ""
            return f"is required{kind_text}" + (f" ({what})" if what else "")
        case "literal_error":
            return _choice(detail["input"], _QUOTED.findall(context.get("expected", "")))
        case "value_error" | "assertion_error":
            return str(context.get("error", detail["msg"]))
        case "string_pattern_mismatch":
            return f"must match the pattern {context['pattern']}"
        case "string_too_short":
            return "must not be empty"
        case "too_short":
            least = context.get("min_length", 1)
            return "must not be empty" if least == 1 else f"must have at least {least} entries"
    return str(detail["msg"])


def _choice(found: Any, names: list[str]) -> str:
    meant = nearest(found, names) if isinstance(found, str) else None
    hint = f"; did you mean `{meant}`?" if meant else ""
    many = "one of " if len(names) > 1 else ""
    return f"expected {many}{', '.join(f'`{name}`' for name in names)}{hint}"


_SCALARS: Final = ("a number", "a fraction", "yes or no")


def _found(value: Any) -> str:
    # Never the value itself: it may be a secret under the wrong key.
    match value:
        case None:
            return "nothing"
        case bool():
            return "yes or no"
        case int():
            return "a number"
        case float():
            return "a fraction"
        case str():
            return "text"
        case list():
            return "a list"
        case dict():
            return "`key: value` lines"
    return type(value).__name__

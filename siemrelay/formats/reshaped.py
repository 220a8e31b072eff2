"""`map:` of JSON messages: members under other names, added, or left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from pydantic import AfterValidator

from siemrelay.core.event import AuditEvent, field_getter
from siemrelay.formats.field_map import fields_of_events
from siemrelay.formats.writing.json_text import message_of

_Members = dict[str, Any]  # each msgspec.Raw, or another one of these

_members_of: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def _dotted_names(chosen: dict[str, str | None]) -> dict[str, str | None]:
    for name in chosen:
        if not all(name.split(".")):
            raise ValueError(f"{name!r} is no name: write names, with dots for objects in objects")
        if any(other != name and other.startswith(name + ".") and chosen[name] is not None
               for other in chosen):  # fmt: skip
            raise ValueError(f"{name!r} cannot be a value and an object with members of its own")
    return fields_of_events(chosen)


DottedNames = Annotated[dict[str, str | None], AfterValidator(_dotted_names)]
"""Members of an object, with dots for objects in objects; None leaves a member out."""


class Reshaped:
    """Changes JSON objects as a `map:` says; members that it does not name stay byte for byte."""

    def __init__(self, chosen: Mapping[str, str | None]) -> None:
        self._removed = [name.split(".") for name, field in chosen.items() if field is None]
        self._added = [
            (name.split("."), field_getter(field)) for name, field in chosen.items() if field
        ]

    def __call__(self, message: bytes, event: AuditEvent) -> bytes:
        """The object with what `map:` removes removed, and then with what it adds.

        A field that the event lacks adds nothing. An object without members left goes too.
        """
        members: _Members = dict(_members_of(message))
        for path in self._removed:
            _remove(members, path)
        for path, get in self._added:
            value = get(event)
            if value is not None:
                _put(members, path, msgspec.Raw(message_of(value)))
        return message_of(members)


def _opened(members: _Members, name: str) -> _Members | None:
    """The object of that name, opened in its place; None if there is no object."""
    inner = members.get(name)
    if isinstance(inner, msgspec.Raw):
        if not bytes(inner).lstrip().startswith(b"{"):
            return None
        inner = members[name] = dict(_members_of(inner))
    return inner


def _remove(members: _Members, path: list[str]) -> None:
    name, *rest = path
    if not rest:
        members.pop(name, None)
        return
    inner = _opened(members, name)
    if inner is not None:
        _remove(inner, rest)
        if not inner:
            del members[name]


def _put(members: _Members, path: list[str], value: msgspec.Raw) -> None:
    name, *rest = path
    if not rest:
        members[name] = value
        return
    inner = _opened(members, name)
    if inner is None:
        inner = members[name] = {}
    _put(inner, rest, value)

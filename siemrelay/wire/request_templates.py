"""Requests with `{since}`, `{until}`, `{start}`, `{each}` in parameters and JSON bodies. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import msgspec

_PLACEHOLDER: Final = re.compile(r"\{(since|until|start|each)\}")

Values = Mapping[str, str | None]
"""Placeholder → its value now; None while there is none yet."""


class Request(msgspec.Struct, frozen=True):
    """One request: by GET, or with a `body` by POST."""

    url: str
    body: bytes | None = None


def placeholders(template: Any) -> set[str]:
    """The placeholders in a text, or in the texts of an object or a list."""
    if isinstance(template, str):
        return set(_PLACEHOLDER.findall(template))
    inner = template.values() if isinstance(template, Mapping) else template
    if isinstance(inner, (str, bytes)) or not hasattr(inner, "__iter__"):
        return set()
    return {name for each in inner for name in placeholders(each)}


def filled_url(template: str, values: Values) -> str:
    """The URL with each `{each}` percent-encoded, so that no value adds a segment or a query."""
    return _PLACEHOLDER.sub(lambda found: quote(values.get(found[1]) or "", safe=""), template)


def filled_parameters(templates: Mapping[str, str], values: Values) -> dict[str, str]:
    """The query parameters; one that needs a value that there is not yet is left out."""
    filled = {name: _filled(template, values) for name, template in templates.items()}
    return {name: value for name, value in filled.items() if value is not None}


def filled_body(template: Any, values: Values) -> Any:
    """The JSON value; a member or an element that needs a value that there is not is left out."""
    if isinstance(template, str):
        return _filled(template, values)
    if isinstance(template, Mapping):
        members = {name: filled_body(each, values) for name, each in template.items()}
        return {n: value for n, value in members.items() if value is not None or not template[n]}
    if isinstance(template, list):
        return [value for each in template if (value := filled_body(each, values)) is not None]
    return template


def _filled(template: str, values: Values) -> str | None:
    if any(values.get(name) is None for name in _PLACEHOLDER.findall(template)):
        return None
    return _PLACEHOLDER.sub(lambda found: str(values[found[1]]), template)


def with_parameter(url: str, name: str, value: str) -> str:
    """`url` with this query parameter, which replaces those of the same name."""
    parts = urlsplit(url)
    query = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] != name]
    return urlunsplit(parts._replace(query=urlencode([*query, (name, value)], quote_via=quote)))


def with_member(body: Mapping[str, Any], path: str, value: str) -> dict[str, Any]:
    """The object with a text at that dotted path; objects on the way are made."""
    name, _, rest = path.partition(".")
    if not rest:
        return {**body, name: value}
    inner = body.get(name)
    return {**body, name: with_member(inner if isinstance(inner, Mapping) else {}, rest, value)}

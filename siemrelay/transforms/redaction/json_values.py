"""Redacts JSON values: by the names of their members, and by what is in their texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from siemrelay.core.event import places_of
from siemrelay.core.forgiving_json import forgiving_json
from siemrelay.transforms.event_paths import as_text
from siemrelay.transforms.redaction.rules import MASK, TextRule, Token, redacted_text

# `{"name": "password", "value": "x"}`, as CloudTrail, Google and Windows list parameters.
_NAMES_OF: Final = ("name", "Name", "key", "Key", "field")
_VALUES_OF: Final = frozenset({"value", "Value", "values", "multiValue"})

# Attributes nest as their sender likes; what is deeper is withheld whole.
DEPTH: Final = 64


def redacted_json(
    value: Any, rules: Sequence[TextRule], secrets: set[str], depth: int = DEPTH
) -> Any:
    """A copy of a JSON value with the secrets in its texts, names and numbers redacted."""
    if isinstance(value, dict):
        if depth == 0:
            return MASK
        result: dict[str, Any] = {}
        named = next((value[name] for name in _NAMES_OF if name in value), None)
        for name, inner in value.items():
            label = named if name in _VALUES_OF else value.get(f"{name}Label")  # CEF's cs1Label
            token = _token_of(name, rules) or _token_of(label, rules)
            result[redacted_text(name, rules, secrets)] = (
                redacted_json(inner, rules, secrets, depth - 1)
                if token is None
                else _all_of(inner, token, secrets, depth - 1)
            )
        return result
    if isinstance(value, list):
        if depth == 0:
            return MASK
        return _redacted_list(value, rules, secrets, depth - 1)
    if isinstance(value, str):
        return redacted_string(value, rules, secrets, depth)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        text = str(value)
        redacted = redacted_text(text, rules, secrets)
        return value if redacted == text else redacted
    return value


def redacted_string(
    text: str, rules: Sequence[TextRule], secrets: set[str], depth: int = DEPTH
) -> str:
    """A text without its secrets; one that is JSON as a whole is taken apart.

    The message of a syslog record may be a document, in which names and values stand apart.
    """
    if depth > 0 and text[:1] in ("{", "[") and any(r.names and r.hint(text) for r in rules):
        try:
            tree = forgiving_json(text.encode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return redacted_text(text, rules, secrets)
        after = redacted_json(tree, rules, secrets, depth - 1)
        if after != tree:
            return msgspec.json.encode(after).decode()
    return redacted_text(text, rules, secrets)


def _redacted_list(
    items: list[Any], rules: Sequence[TextRule], secrets: set[str], depth: int
) -> list[Any]:
    """A copy of a list; what follows an option like `--password` in it is that option's value."""
    result, token = list[Any](), None
    for item in items:
        if token is not None and isinstance(item, str) and not item.startswith("-"):
            result.append(_all_of(item, token, secrets, depth))
        else:
            result.append(redacted_json(item, rules, secrets, depth))
        option = isinstance(item, str) and item.startswith("-")
        token = _token_of(item.lstrip("-"), rules) if option else None
    return result


def _token_of(name: Any, rules: Sequence[TextRule]) -> Token | None:
    """The token for the value of that name; None if the name is not that of a secret."""
    if not isinstance(name, str):
        return None
    return next((rule.token for rule in rules if rule.names and rule.names(name)), None)


def _all_of(value: Any, token: Token, secrets: set[str], depth: int) -> Any:
    """A copy of a JSON value in which every text and number is redacted whole."""
    if isinstance(value, (dict, list)) and depth == 0:
        return MASK
    if isinstance(value, dict):
        return {name: _all_of(inner, token, secrets, depth - 1) for name, inner in value.items()}
    if isinstance(value, list):
        return [_all_of(inner, token, secrets, depth - 1) for inner in value]
    if value in (None, "") or isinstance(value, bool):
        return value
    return _whole(value, token, secrets)


def _whole(value: Any, token: Token, secrets: set[str]) -> str:
    text = as_text(value)
    secrets.add(text)
    return token(text)


def texts_within(value: Any, depth: int = DEPTH) -> Iterator[str]:
    """Each text and number in a JSON value, as text: of `[1, {"a": "b"}]` 1 and b."""
    if isinstance(value, (dict, list)):
        for inner in (value.values() if isinstance(value, dict) else value) if depth else ():
            yield from texts_within(inner, depth - 1)
    elif value not in (None, "") and not isinstance(value, bool):
        yield as_text(value)


def redact_at(value: Any, path: Sequence[str], token: Token, secrets: set[str]) -> None:
    """Redact the values at that path, whatever they are; an empty token removes them."""
    for place, name in list(places_of(value, path)):
        if place[name] not in (None, ""):
            made = _whole(place[name], token, secrets)
            if made:
                place[name] = made
            else:
                del place[name]


def redact_texts_at(
    value: Any, path: Sequence[str], rules: Sequence[TextRule], secrets: set[str]
) -> None:
    """Redact what the rules find in the values at that path."""
    for place, name in list(places_of(value, path)):
        place[name] = redacted_json(place[name], rules, secrets)

"""Redacts events: whole fields, and secrets in any text of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from siemrelay.core.event import AuditEvent, attributes_of, places_of
from siemrelay.core.forgiving_json import forgiving_json
from siemrelay.transforms.event_paths import ATTRIBUTES
from siemrelay.transforms.redaction.rules import (
    MASK,
    Rules,
    TextRule,
    Token,
    redacted_text,
    written_forms,
)

_PARTS: Final = ("actor", "target")
_PLAIN: Final = ("id", "type", "category", "message")
"""Fields whose text a sender chooses; the others are numbers, times and fixed choices."""
_ALWAYS: Final = ("id", "type", "category")
"""Those that every event has: of what is removed there, the mask is left."""

SHORTEST_AGAIN: Final = 4
"""Characters of a secret that is looked for again; a shorter one stands by chance in words."""

# `{"name": "password", "value": "x"}`, as CloudTrail, Google and Windows list parameters.
_NAMES_OF: Final = ("name", "Name", "key", "Key", "field")
_VALUES_OF: Final = frozenset({"value", "Value", "values", "multiValue"})

# Attributes nest as their sender likes; what is deeper is withheld whole.
DEPTH: Final = 64

_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class EventRedactor:
    """Redacts events by the rules. Pure; several threads may use it."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        # `"user"` or `"user.email"`: a dot descends, or is part of the name.
        self._attribute_names = [
            name
            for path in rules.paths if path.startswith(ATTRIBUTES)
            for quoted in [msgspec.json.encode(path.split(".")[1])]
            for name in ([quoted] if path.count(".") == 1 else [quoted, quoted[:-1] + b"."])
        ]  # fmt: skip
        self._concerns_attributes = bool(rules.texts or self._attribute_names)
        self._fields_alone = not (rules.texts or rules.texts_of)
        self._whole_members = {
            path.split(".", 1)[1]: token
            for path, token in rules.whole.items() if path.startswith(ATTRIBUTES)
        }  # fmt: skip
        self._members_alone = not any("." in name for name in self._whole_members)

    def apply(self, events: Sequence[AuditEvent]) -> tuple[list[AuditEvent], list[int]]:
        """The events, redacted; and the indexes of those in which something was."""
        if self._fields_alone:
            return self._without_fields(events)
        changed, indexes = list(events), list[int]()
        texts = list(map(text_of, events))
        active = self._active("\n".join(texts))
        if not active and not self._rules.paths:
            return changed, indexes
        for index, (event, text) in enumerate(zip(events, texts, strict=True)):
            if self._rules.paths or any(hint(text) for hint in active):
                redacted = self.redacted(event, set())
                if redacted is not event:
                    changed[index] = redacted
                    indexes.append(index)
        return changed, indexes

    def _active(self, text: str) -> list[Callable[[str], object]]:
        """What finds out whether an event may hold a secret, of those that do in many events."""
        hints: list[Callable[[str], object]] = [rule.hint for rule in self._rules.texts]
        hints.append(self._rules.hides)
        return [hint for hint in hints if hint(text)]

    def _without_fields(self, events: Sequence[AuditEvent]) -> tuple[list[AuditEvent], list[int]]:
        """As `apply`, where the rules are only for whole fields."""
        copies: list[AuditEvent] = list(map(AuditEvent.__copy__, events))  # type: ignore[attr-defined]  # msgspec's own
        indexes = set[int]()
        if self._whole_members:
            words = dict[str, Token]()
            for index, event in enumerate(copies):
                words.clear()
                attributes = self._without_members(event, words)
                if attributes is not None:
                    event.attributes = attributes
                    if event.message:
                        event.message = without_words(event.message, words)
                    indexes.add(index)
        for path, token in self._rules.whole.items():
            if path.startswith(ATTRIBUTES):
                continue
            part, _, inner = path.rpartition(".")
            values = list(map(attrgetter(path), events))
            for index, value in enumerate(values):
                if value:
                    made = token(value) or None
                    event = copies[index]
                    if part:
                        setattr(event, part, replace(getattr(event, part), **{inner: made}))
                    else:
                        setattr(event, inner, made)
                    text = event.message
                    if text and inner != "message" and (value in text or "\\" in text):
                        event.message = without_words(text, {value: token})
                    indexes.add(index)
        return copies, sorted(indexes)

    def _without_members(self, event: AuditEvent, values: dict[str, Token]) -> msgspec.Raw | None:
        """The attributes with the members redacted that are redacted whole; None if none is.

        What they were is added to `values`.
        """
        if not event.attributes or not self._may_change(event.attributes):
            return None
        if isinstance(event.attributes, msgspec.Raw) and self._members_alone:
            try:
                members = _members(event.attributes)
            except msgspec.DecodeError:
                members = {}
            for name, token in self._whole_members.items():
                value = msgspec.json.decode(members.get(name, b"null"))
                if not isinstance(value, str) or not value:
                    break  # by the slow way, which knows every kind of value
                made = token(value)
                if not made:
                    break
                members[name] = msgspec.Raw(msgspec.json.encode(made))
                values[value] = token
            else:
                return msgspec.Raw(msgspec.json.encode(members))
        before = attributes_of(event)
        values |= self.whole_attributes(before)
        after = self._attributes(before, set())
        return None if after == before else msgspec.Raw(msgspec.json.encode(after))

    def whole_attributes(self, attributes: Mapping[str, Any]) -> dict[str, Token]:
        """The values, as text, that are redacted whole among these attributes."""
        values: dict[str, Token] = {}
        for path, token in self._rules.whole.items():
            if path.startswith(ATTRIBUTES):
                for place, name in places_of(attributes, path.split(".")[1:]):
                    if place[name] not in (None, ""):
                        values[as_text(place[name])] = token
        return values

    def redacted(self, event: AuditEvent, secrets: set[str]) -> AuditEvent:
        """The event without its secrets, which are added to `secrets`; itself if it has none."""
        values = dict[str, Token]()
        changed: dict[str, Any] = {}
        named = set[str]()
        for name in _PLAIN:
            self._text(name, getattr(event, name), changed, secrets)
        for name in _PARTS:
            part = getattr(event, name)
            inside: dict[str, Any] = {}
            for inner in part.__struct_fields__:
                value = getattr(part, inner)
                if value:
                    self._text(f"{name}.{inner}", value, inside, secrets)
            if inside:
                changed[name] = replace(part, **{
                    path.partition(".")[2]: value for path, value in inside.items()
                })  # fmt: skip
        if event.attributes and self._concerns_attributes and self._may_change(event.attributes):
            before = attributes_of(event)
            values |= self.whole_attributes(before)
            after = self._attributes(before, named)
            if after != before:
                changed[ATTRIBUTES] = msgspec.Raw(msgspec.json.encode(after))
        if named:
            self._in_message(changed, event, named)
            secrets |= named
        if not changed:
            return event
        for path, token in self._rules.whole.items():
            value = None if path.startswith((ATTRIBUTES, "message")) else attrgetter(path)(event)
            if isinstance(value, str) and value:
                values[value] = token
        if values:
            changed["message"] = without_words(changed.get("message", event.message), values)
        for name in _ALWAYS:
            if name in changed and not changed[name]:
                changed[name] = MASK
        return replace(event, **changed)

    def _in_message(self, changed: dict[str, Any], event: AuditEvent, named: set[str]) -> None:
        """Redact in the message what is secret by the name of an attribute (CEF's `cs1Label`)."""
        text, token = changed.get("message", event.message), self._rules.token_of_names
        if not text or token is None:
            return
        for secret in named:
            if len(secret) >= SHORTEST_AGAIN and secret in text:
                text = text.replace(secret, token(secret))
        if text != event.message:
            changed["message"] = text or None

    def _text(
        self, path: str, value: str | None, changed: dict[str, Any], secrets: set[str]
    ) -> None:
        """Redact one field; a change goes to `changed`, None for a field that is removed."""
        if not value:
            return
        token = self._rules.whole.get(path)
        if token is not None:
            secrets.add(value)
            changed[path] = token(value) or None
            return
        rules = (*self._rules.texts_of.get(path, ()), *self._rules.texts)
        text = _redacted_string(value, rules, secrets, DEPTH)
        if text != value:
            changed[path] = text or None

    def _may_change(self, attributes: dict[str, Any] | msgspec.Raw) -> bool:
        """Whether attributes may hold a secret: plain ones without a hint do not."""
        if not isinstance(attributes, msgspec.Raw):
            return True
        raw = bytes(attributes)
        if any(name in raw for name in self._attribute_names):
            return True
        text = raw.decode("utf-8", "replace")
        return self._rules.hides(text) or any(rule.hint(text) for rule in self._rules.texts)

    def _attributes(self, own: Mapping[str, Any], secrets: set[str]) -> dict[str, Any]:
        result: Any = redacted_json(own, self._rules.texts, secrets)
        for path, token in self._rules.whole.items():
            if path.startswith(ATTRIBUTES):
                _at(result, path.split(".")[1:], token, secrets)
        for path, rules in self._rules.texts_of.items():
            if path.startswith(ATTRIBUTES):
                _texts_at(result, path.split(".")[1:], rules, secrets)
        return result if isinstance(result, dict) else {}


def text_of(event: AuditEvent) -> str:
    """All texts of an event, one a line."""
    actor, target, attributes = event.actor, event.target, event.attributes
    texts = [
        event.type, event.id, event.category, event.message, actor.name, actor.id, actor.address,
        target.type, target.name, target.id,
    ]  # fmt: skip
    if isinstance(attributes, msgspec.Raw):
        texts.append(bytes(attributes).decode("utf-8", "replace"))
    elif attributes:
        texts.append(msgspec.json.encode(attributes).decode())
    return "\n".join(filter(None, texts))


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
        return _redacted_string(value, rules, secrets, depth)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        text = str(value)
        redacted = redacted_text(text, rules, secrets)
        return value if redacted == text else redacted
    return value


def _redacted_string(text: str, rules: Sequence[TextRule], secrets: set[str], depth: int) -> str:
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
    """What redacts the value of that name whole; None if its name says nothing."""
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


def as_text(value: Any) -> str:
    """A JSON value that is redacted whole as the text that its token stands for."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def without_words(text: str | None, values: Mapping[str, Token]) -> str | None:
    """A message without the values of other fields, each a word of it or several.

    A message is often the record itself, of which the fields were read. A value of one character
    stays: it would be all over the text.
    """
    for value, token in values.items():
        if text and len(value) > 1 and (value in text or "\\" in text):
            for form in written_forms(value):
                text = _without_word(text, form, token(value))
    return text or None


def _without_word(text: str, form: str, token: str) -> str:
    parts, at, found = list[str](), 0, text.find(form)
    while found >= 0:
        end = found + len(form)
        left, right = text[found - 1 : found] if found else "", text[end : end + 1]
        if _goes_on(left, form[0]) or _goes_on(right, form[-1]):
            found = text.find(form, found + 1)
            continue
        parts += (text[at:found], token)
        at, found = end, text.find(form, end)
    return "".join([*parts, text[at:]])


def _goes_on(beside: str, edge: str) -> bool:
    """Whether a character makes a longer word of the one that begins or ends with `edge`."""
    return edge.isalnum() and (beside.isalnum() or beside == "_")


def _at(value: Any, path: Sequence[str], token: Token, secrets: set[str]) -> None:
    """Redact the values at that path, whatever they are; an empty token removes them."""
    for place, name in list(places_of(value, path)):
        if place[name] not in (None, ""):
            made = _whole(place[name], token, secrets)
            if made:
                place[name] = made
            else:
                del place[name]


def _texts_at(
    value: Any, path: Sequence[str], rules: Sequence[TextRule], secrets: set[str]
) -> None:
    for place, name in list(places_of(value, path)):
        place[name] = redacted_json(place[name], rules, secrets)

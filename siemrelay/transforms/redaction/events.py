"""Redacts events: whole fields, and secrets in any text of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from siemrelay.core.event import AuditEvent, attributes_of, places_of
from siemrelay.transforms.event_paths import ATTRIBUTES, as_text
from siemrelay.transforms.redaction.json_values import (
    redact_at,
    redact_texts_at,
    redacted_json,
    redacted_string,
    texts_within,
)
from siemrelay.transforms.redaction.rules import MASK, Rules, Token
from siemrelay.transforms.redaction.words import SHORTEST_AGAIN, without_words

_PARTS: Final = ("actor", "target")
_PLAIN: Final = ("id", "type", "category", "message")
"""Fields whose text a sender chooses; the others are numbers, times and fixed choices."""
_ALWAYS: Final = ("id", "type", "category")
"""Those that every event has: of what is removed there, the mask is left."""

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
        """The hints that find something in the text of many events."""
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
        """The values, as text, that are redacted whole among these attributes.

        Of lists and objects, what is in them too: the message repeats that, not their JSON.
        """
        values: dict[str, Token] = {}
        for path, token in self._rules.whole.items():
            if path.startswith(ATTRIBUTES):
                for place, name in places_of(attributes, path.split(".")[1:]):
                    if place[name] not in (None, ""):
                        values |= dict.fromkeys(texts_within(place[name]), token)
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
        text = redacted_string(value, rules, secrets)
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
                redact_at(result, path.split(".")[1:], token, secrets)
        for path, rules in self._rules.texts_of.items():
            if path.startswith(ATTRIBUTES):
                redact_texts_at(result, path.split(".")[1:], rules, secrets)
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

"""Redacts records as they were received: before they are stored, and where a sink forwards them.

A record that is JSON is taken apart and written anew, so that no escape hides a secret. In any
other record the values that its event had, and what the rules find in its text, are replaced. If a
secret of the event cannot be found in the record's text, the record is withheld: the redacted event
stands in its place, as JSON.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from siemrelay.core.event import FIELDS, AuditEvent, attributes_of, field_getter
from siemrelay.core.forgiving_json import forgiving_json
from siemrelay.transforms.event_paths import ATTRIBUTES
from siemrelay.transforms.redaction.events import EventRedactor, redacted_json
from siemrelay.transforms.redaction.rules import Rules, Token, redacted_text, written_forms


class RecordRedactor:
    """Redacts records, each with the event that it was decoded to. Pure."""

    def __init__(self, rules: Rules) -> None:
        self._rules, self._events = rules, EventRedactor(rules)
        self._getters = {path: field_getter(path) for path in rules.paths}

    def redacted(self, record: bytes, event: AuditEvent) -> bytes:
        """The record without its secrets; itself if it has none. `event`: before its redaction."""
        secrets: set[str] = set()
        clean = self._events.redacted(event, secrets)
        values = self._values(event)
        found: set[str] = set()
        tree = _object(record)
        if tree is not None:
            after = self._in_tree(tree, values, found)
            # Names that came twice, and escapes, may hide what the tree does not have.
            if found or self._rules.paths or b"\\" in record or self._in_text(
                record.decode("utf-8", "replace"), {}, set()
            )[1]:  # fmt: skip
                record = msgspec.json.encode(after)
        else:
            text = record.decode("utf-8", "replace")
            redacted, _ = self._in_text(text, values, found)
            record = record if redacted == text else redacted.encode("utf-8", "replace")
        return record if secrets <= found else _as_json(clean)

    def _values(self, event: AuditEvent) -> dict[str, Token]:
        """The values of the event that a rule redacts whole."""
        values: dict[str, Token] = {}
        for path, token in self._rules.whole.items():
            value = self._getters[path](event)
            if value not in (None, ""):
                text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
                values[text] = token
        return values

    def _in_tree(self, tree: Any, values: dict[str, Token], found: set[str]) -> Any:
        # Whole values first: what the other rules leave of one is not it any more.
        return redacted_json(_with_values(tree, values, found), self._everywhere, found)

    @property
    def _everywhere(self) -> list[Any]:
        """The rules for texts. Which part of a record a field came from is not known here, so that
        those for one field are applied to all of it."""
        own = [rule for rules in self._rules.texts_of.values() for rule in rules]
        return [*self._rules.texts, *own]

    def _in_text(self, text: str, values: dict[str, Token], found: set[str]) -> tuple[str, bool]:
        before = text
        for value, token in values.items():
            for form in written_forms(value):
                left = r"(?<!\w)" if form[0].isalnum() else ""
                right = r"(?!\w)" if form[-1].isalnum() else ""
                text, count = re.subn(
                    left + re.escape(form) + right, lambda _: token(value), text  # noqa: B023  (called at once)
                )  # fmt: skip
                if count:
                    found.add(value)
        text = redacted_text(text, self._everywhere, found)
        return text, text != before


def _object(record: bytes) -> Any:
    if record.lstrip()[:1] not in (b"{", b"["):
        return None
    try:
        return forgiving_json(record)
    except (ValueError, RecursionError):
        return None


def _with_values(value: Any, values: dict[str, Token], found: set[str]) -> Any:
    """A copy in which whole values are replaced, wherever they stand."""
    if isinstance(value, dict):
        return {name: _with_values(inner, values, found) for name, inner in value.items()}
    if isinstance(value, list):
        return [_with_values(inner, values, found) for inner in value]
    if value is None or isinstance(value, bool):
        return value
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    token = values.get(text)
    if token is None:
        return value
    found.add(text)
    return token(text)


def _as_json(event: AuditEvent) -> bytes:
    """An event as a record that the decoder of JSON reads back."""
    record: dict[str, Any] = {}
    for path in FIELDS:
        value = field_getter(path)(event)
        if value is not None:
            above, _, last = path.rpartition(".")
            (record.setdefault(above, {}) if above else record)[last] = value
    if event.attributes:
        record[ATTRIBUTES] = attributes_of(event)
    return msgspec.json.encode(record)

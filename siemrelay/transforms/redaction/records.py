"""Redacts records as they were received: before they are stored, and where a sink forwards them.

A record that is JSON is taken apart and written anew, so that no escape hides a secret. In any
other record the values that its event had, and what the rules find in its text, are replaced. If a
secret of the event cannot be found in the record's text, the record is withheld: the redacted event
stands in its place, as JSON.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from operator import attrgetter
from typing import Any, Final

import msgspec

from siemrelay.core.canonical_json import repeats_a_name
from siemrelay.core.event import FIELDS, AuditEvent, attributes_of, field_getter
from siemrelay.core.forgiving_json import forgiving_json
from siemrelay.transforms.event_paths import ATTRIBUTES, as_text
from siemrelay.transforms.redaction.events import EventRedactor, text_of
from siemrelay.transforms.redaction.json_values import DEPTH, redacted_json
from siemrelay.transforms.redaction.kinds import long_matches
from siemrelay.transforms.redaction.rules import MASK, Rules, Token, redacted_text
from siemrelay.transforms.redaction.words import SHORTEST_AGAIN, without_word, written_forms

_WITHHELD: Final = (
    b'{"type":"Unparsed Record","message":"*** (internal error: the record could not be redacted)"}'
)

_HEXADECIMAL: Final = re.compile(r"\b(?:[0-9A-F]{2}){4,}\b")


class RecordRedactor:
    """Redacts records, each with the event that it was decoded to. Pure."""

    def __init__(self, rules: Rules) -> None:
        self._rules, self._events = rules, EventRedactor(rules)
        self._of_attributes = any(path.startswith(ATTRIBUTES) for path in rules.whole)
        # Which part of a record a field came from is not known here: rules for the texts of one
        # field are applied to all of it.
        self._texts = [*rules.texts, *(rule for some in rules.texts_of.values() for rule in some)]

    def apply(
        self, records: Sequence[bytes], events: Sequence[AuditEvent]
    ) -> tuple[list[bytes], frozenset[int]]:
        """The records without their secrets. `events`: each record's, before its redaction.

        And the indexes of those that are withheld: in their place is what `instead` makes.
        """
        found = self._redacted(records, events)
        withheld = frozenset(i for i, record in enumerate(found) if record is None)
        return [
            self.instead(event) if record is None else record
            for record, event in zip(found, events, strict=True)
        ], withheld

    def instead(self, event: AuditEvent) -> bytes:
        """The redacted event as a record, as `event_of_part` reads it."""
        try:
            return _as_json(self._events.redacted(event, set()))
        except Exception:  # noqa: BLE001  (a bug may neither stop a source for ever nor let a secret out)
            return _WITHHELD

    def _redacted(
        self, records: Sequence[bytes], events: Sequence[AuditEvent]
    ) -> Sequence[bytes | None]:
        if self._rules.whole:
            return list(map(self._safely, records, events))
        texts = list(map(_searched, records, events))
        hints = [*(rule.hint for rule in self._texts), self._rules.hides]
        active = [hint for hint in hints if hint("\n".join(texts))]
        if not active:
            return records
        return [
            self._safely(record, event) if any(hint(text) for hint in active) else record
            for record, event, text in zip(records, events, texts, strict=True)
        ]

    def _safely(self, record: bytes, event: AuditEvent) -> bytes | None:
        try:
            return self._one(record, event)
        except Exception:  # noqa: BLE001  (as above)
            return None

    def _one(self, record: bytes, event: AuditEvent) -> bytes | None:
        """One record without its secrets; itself if it has none, None if it is withheld."""
        values = self._values(event)
        secrets, found = set(values), set[str]()
        if self._texts:
            self._events.redacted(event, secrets)
        tree = _object(record)
        if tree is None:
            text = record.decode("utf-8", "replace")
            after = self._in_text(text, values, found)
            after = self._in_hexadecimal(after, values, found)
            after = self._named_apart(after, secrets - found, found)
            record = record if after == text else after.encode("utf-8", "replace")
        elif not self._texts and not any(map(_may_be_written_otherwise, values)):
            written = replace_texts(msgspec.json.encode(tree), values, found)
            if found or self._may_hide(record):
                record = written
        else:
            tree = self._in_tree(tree, values, found)
            if found or self._may_hide(record):
                record = msgspec.json.encode(tree)
        kept = secrets <= found and (tree is not None or not _has_one_of(secrets, after))
        return record if kept else None

    def _in_hexadecimal(self, text: str, values: dict[str, Token], found: set[str]) -> str:
        """The text without secrets in hexadecimal, as auditd writes commands; so is what is left.

        What stands between NULs are arguments.
        """

        parts, at = list[str](), 0
        for run in long_matches(_HEXADECIMAL, text):
            plain = bytes.fromhex(run[0]).decode("utf-8", "replace").replace("\0", " ")
            after = self._in_text(plain, values, found)
            if after != plain:
                parts += (text[at : run.start()], after.encode().hex().upper())
                at = run.end()
        return text if not parts else "".join([*parts, text[at:]])

    def _named_apart(self, text: str, secrets: set[str], found: set[str]) -> str:
        """The text without secrets that are known by a name elsewhere, like that of a column."""
        token = self._rules.token_of_names
        if token is None:
            return text
        for secret in sorted(secrets, key=len, reverse=True):
            for form in written_forms(secret):
                text, count = without_word(text, form, token(secret))
                if count:
                    found.add(secret)
        return text

    def _may_hide(self, record: bytes) -> bool:
        """Whether JSON may hold a secret that is not in what it was read to.

        Of a name that comes twice only the last value is.
        """
        text = record.decode("utf-8", "replace")
        suspect = self._rules.whole or b"\\" in record or self._in_text(text, {}, set()) != text
        return bool(suspect) and _may_repeat_a_name(record)

    def _values(self, event: AuditEvent) -> dict[str, Token]:
        """The values of the event that a rule redacts whole."""
        values: dict[str, Token] = {}
        if self._of_attributes:
            values |= self._events.whole_attributes(attributes_of(event))
        for path, token in self._rules.whole.items():
            value = None if path.startswith(ATTRIBUTES) else attrgetter(path)(event)
            if value not in (None, ""):
                values[as_text(value)] = token
        return values

    def _in_tree(self, tree: Any, values: dict[str, Token], found: set[str]) -> Any:
        # Whole values first: what the other rules leave of one is not it any more.
        tree = replace_values(tree, values, found) if values else tree
        return redacted_json(tree, self._texts, found) if self._texts else tree

    def _in_text(self, text: str, values: dict[str, Token], found: set[str]) -> str:
        for value, token in values.items():
            for form in written_forms(value):
                text, count = without_word(text, form, token(value))
                if count:
                    found.add(value)
        return redacted_text(text, self._texts, found)


def _searched(record: bytes, event: AuditEvent) -> str:
    """The texts that may hold a secret of a record: its own, and its event's.

    JSON says all itself; of other records the event has what was encoded, and the names of columns.
    """
    text = record.decode("utf-8", "replace")
    return text if record[:1] == b"{" else f"{text}\n{text_of(event)}"


def _has_one_of(secrets: set[str], text: str) -> bool:
    """Whether a secret stands in the text a second time, where no rule finds it."""
    return any(
        without_word(text, secret, MASK)[1] > 0
        for secret in secrets
        if len(secret) >= SHORTEST_AGAIN and secret in text
    )


def _object(record: bytes) -> Any:
    if record.lstrip()[:1] not in (b"{", b"["):
        return None
    try:
        return forgiving_json(record)
    except (ValueError, RecursionError):
        return None


def _may_repeat_a_name(record: bytes) -> bool:
    """Whether a name comes twice in an object; also if that cannot be found out."""
    try:
        return repeats_a_name(record)
    except (ValueError, RecursionError):
        return True


def replace_values(
    value: Any, values: Mapping[str, Token], found: set[str], depth: int = DEPTH
) -> Any:
    """A copy in which whole values are replaced, wherever they stand; what is too deep, too."""
    if isinstance(value, (dict, list)) and depth == 0:
        return MASK
    if isinstance(value, dict):
        return {
            name: replace_values(inner, values, found, depth - 1) for name, inner in value.items()
        }
    if isinstance(value, list):
        return [replace_values(inner, values, found, depth - 1) for inner in value]
    if value is None or isinstance(value, bool):
        return value
    text = as_text(value)
    token = values.get(text)
    if token is None:
        return value
    found.add(text)
    return token(text)


# A number, or what JSON writes between two texts.
_NO_TEXT: Final = frozenset("-0123456789[]{},:")


def _may_be_written_otherwise(value: str) -> bool:
    """Whether a value may be in JSON as something else than a text, or between two texts."""
    return value[0] in _NO_TEXT


def replace_texts(written: bytes, values: Mapping[str, Token], found: set[str]) -> bytes:
    """`replace_values` for JSON as msgspec writes it, and values that are texts.

    No value begins with what stands between two texts: so behind a quote that no backslash escapes
    it is a whole text, and it is a name if a colon follows.
    """
    for value, token in values.items():
        form = msgspec.json.encode(value)
        pieces = written.split(form)
        if len(pieces) == 1:
            continue
        instead, parts = msgspec.json.encode(token(value)), pieces[:1]
        for before, after in pairwise(pieces):
            is_value = not before.endswith(b"\\") and not after.startswith(b":")
            parts += (instead if is_value else form, after)
            if is_value:
                found.add(value)
        written = b"".join(parts)
    return written


def _as_json(event: AuditEvent) -> bytes:
    """An event as a record, under its own names."""
    record: dict[str, Any] = {}
    for path in FIELDS:
        value = field_getter(path)(event)
        if value is not None:
            above, _, last = path.rpartition(".")
            (record.setdefault(above, {}) if above else record)[last] = value
    if event.attributes:
        record[ATTRIBUTES] = attributes_of(event)
    return msgspec.json.encode(record)

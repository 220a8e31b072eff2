"""The answers of Elasticsearch's bulk API, which OpenSearch gives alike: a verdict an item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

# An item's reason repeats what was sent; so much of it says why.
_REASON_CHARACTERS: Final = 300

ANSWER_FIELDS: Final = "error,items.*.status,items.*.error"
"""What of an answer is asked for (`filter_path`): all that is read here."""

ABOUT_THE_INDEX: Final = frozenset({
    "cluster_block_exception", "index_closed_exception", "index_not_found_exception",
    "invalid_index_name_exception", "security_exception",
})  # fmt: skip
"""Error types that are not about the document, though their status may say so."""

Verdict = Literal["taken", "conflict", "again", "refused", "held"]
"""An item's answer: stored; another document has this id; send it again later; never; not until a
person acts."""


class Cause(msgspec.Struct, frozen=True):
    """Why a request or an item failed; both parts may be empty."""

    type: str = ""
    reason: str = ""

    @property
    def words(self) -> str:
        """Both as one text."""
        return ": ".join(filter(None, (self.type, self.reason)))

    @classmethod
    def of(cls, error: Any) -> Cause:
        """Reads an `error` member: an object with what caused it, or just a text."""
        if not isinstance(error, dict):
            return cls("", _short(str(error)) if error else "")
        reason, inner = str(error.get("reason") or ""), error.get("caused_by")
        if isinstance(inner, dict) and inner.get("reason"):
            reason = f"{reason}: {inner['reason']}"
        return cls(str(error.get("type") or ""), _short(reason))


class Item(msgspec.Struct, frozen=True):
    """What was said of one document."""

    status: int
    cause: Cause

    @property
    def verdict(self) -> Verdict:
        """What to do about the document."""
        status, kind = self.status, self.cause.type
        if 200 <= status < 300:
            return "taken"
        if kind == "version_conflict_engine_exception":
            return "conflict"
        if status in (408, 409, 429) or status >= 500:
            return "again"
        if kind in ABOUT_THE_INDEX or self.cause.reason.startswith("pipeline with id ["):
            return "held"
        return "held" if status in (401, 403, 404) else "refused"


class NoBulkAnswer(Exception):
    """The bytes are no bulk answer about so many items."""


class _Entry(msgspec.Struct):
    status: int = 0
    error: Any = None


class _Answer(msgspec.Struct):
    items: list[dict[str, _Entry]]


class _Failure(msgspec.Struct):
    error: Any = None


_answer: Final = msgspec.json.Decoder(_Answer).decode
_failure: Final = msgspec.json.Decoder(_Failure).decode
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read_items(body: bytes, count: int) -> Sequence[tuple[int, Item]]:
    """The items that were not simply stored, each with its index.

    Raises NoBulkAnswer if the answer is not about exactly `count` items.
    """
    try:
        answer = _answer(body)
    except _UNREADABLE as error:
        raise NoBulkAnswer(str(error)) from error
    entries = [entry for item in answer.items for entry in item.values()]
    if len(entries) != count:
        raise NoBulkAnswer(f"{len(entries)} items in the answer to {count}")
    return [
        (index, Item(entry.status, Cause.of(entry.error)))
        for index, entry in enumerate(entries)
        if not 200 <= entry.status < 300
    ]


def read_cause(body: bytes) -> Cause:
    """Why a whole request failed; empty where the body does not say it in Elasticsearch's way."""
    try:
        return Cause.of(_failure(body).error)
    except _UNREADABLE:
        return Cause()


def _short(text: str) -> str:
    return " ".join(text.split())[:_REASON_CHARACTERS]

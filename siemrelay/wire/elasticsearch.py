"""Answers of the bulk API of Elasticsearch and OpenSearch: one result for each document.

Source: Elasticsearch, "Bulk API", response body.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

# An error's reason repeats the document that was sent. This much of it shows the cause.
_REASON_CHARACTERS: Final = 300

FILTER_PATH: Final = "error,items.*.status,items.*.error,items.*.failure_store"
"""The value of the query parameter `filter_path`: the members of an answer that are read here."""

INDEX_ERRORS: Final = frozenset({
    "cluster_block_exception", "index_closed_exception", "index_not_found_exception",
    "invalid_index_name_exception", "security_exception",
})  # fmt: skip
"""Error types about the index or the credentials. Their status may be one of a bad document."""

ItemVerdict = Literal["stored", "conflict", "retry", "refused", "held"]
"""The action for a document: none; none, as its id exists; send it again later; never send it
again; wait until a person has fixed the settings."""


class ErrorCause(msgspec.Struct, frozen=True):
    """An `error` member. Both parts may be empty; as text, `TYPE: REASON`."""

    type: str = ""
    reason: str = ""

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.type, self.reason)))

    @classmethod
    def of(cls, error: Any) -> ErrorCause:
        """The cause in a decoded `error` member, an object or a text; the inner cause is added."""
        if not isinstance(error, dict):
            return cls("", _short(str(error)) if error else "")
        reason, inner = str(error.get("reason") or ""), error.get("caused_by")
        if isinstance(inner, dict) and inner.get("reason"):
            reason = f"{reason}: {inner['reason']}"
        return cls(_short(str(error.get("type") or "")), _short(reason))


class ItemResult(msgspec.Struct, frozen=True):
    """The result of one document."""

    status: int
    error: ErrorCause
    in_failure_store: bool = False

    @property
    def verdict(self) -> ItemVerdict:
        """The action for the document, by status, by the error's type and by where it was put."""
        status, kind = self.status, self.error.type
        if self.in_failure_store:
            return "refused"
        if 200 <= status < 300:
            return "stored"
        if kind == "version_conflict_engine_exception":
            return "conflict"
        if status in (408, 409, 429) or status >= 500:
            return "retry"
        if kind in INDEX_ERRORS or self.error.reason.startswith("pipeline with id ["):
            return "held"
        return "held" if status in (401, 403, 404) else "refused"


class NotABulkResponse(Exception):
    """The bytes are not a bulk response about the documents that were sent."""


# `failure_store` of a document with a 201 that is not in the data stream (Elasticsearch 8.19, 9.1).
_IN_FAILURE_STORE: Final = "used"


class _Entry(msgspec.Struct):
    status: int = 0
    error: Any = None
    failure_store: Any = None

    @property
    def in_failure_store(self) -> bool:
        return bool(self.failure_store == _IN_FAILURE_STORE)


class _Answer(msgspec.Struct):
    items: list[dict[str, _Entry]]


class _Failure(msgspec.Struct):
    error: Any = None


_answer: Final = msgspec.json.Decoder(_Answer).decode
_failure: Final = msgspec.json.Decoder(_Failure).decode
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def failed_items(body: bytes, count: int) -> Sequence[tuple[int, ItemResult]]:
    """The results of documents that are not in the index, each with the index of its document.

    They have another status than 2xx, or were put into the failure store.

    Raises NotABulkResponse if the body does not have exactly `count` results.
    """
    try:
        answer = _answer(body)
    except _UNREADABLE as error:
        raise NotABulkResponse(str(error)) from error
    entries = [entry for item in answer.items for entry in item.values()]
    if len(entries) != count:
        raise NotABulkResponse(f"{len(entries)} items in the answer to {count}")
    return [
        (index, ItemResult(entry.status, ErrorCause.of(entry.error), entry.in_failure_store))
        for index, entry in enumerate(entries)
        if entry.in_failure_store or not 200 <= entry.status < 300
    ]


def read_error(body: bytes) -> ErrorCause:
    """The cause why a whole request failed; empty where the body has no readable `error`."""
    try:
        return ErrorCause.of(_failure(body).error)
    except _UNREADABLE:
        return ErrorCause()


def _short(text: str) -> str:
    return " ".join(text.split())[:_REASON_CHARACTERS]

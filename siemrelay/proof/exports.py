"""The messages in what SIEMs export: their lines in, one message after the other out.

Known are Splunk's CSV and JSON, Elasticsearch's hits (a search's answer, a scroll's pages, NDJSON),
CSV with the message in a column, OTLP's log records, Graylog's messages, and lines of CEF, LEEF,
syslog, GELF, OCSF and JSON as they were sent.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

import msgspec

from siemrelay.proof.canonical_json import RepeatedName, decoded, parsed
from siemrelay.proof.leaf import WHOLE_MESSAGE, Leaf, any_value_of, leaf_of, leaf_of_json

# Splunk's whole message; the fields that it has found stand beside it.
_RAW: Final = "_raw"

# A CSV field may hold a message of this size.
_FIELD_BYTES: Final = 64 << 20

# What stands beside the messages in a SIEM's answer. An object with another member is a message, so
# that no event hides as an answer without messages.
_BESIDE: Final[dict[str, frozenset[str]]] = {
    "hits": frozenset((
        "hits", "took", "timed_out", "total", "max_score", "aggregations", "suggest", "profile",
        "pit_id", "point_in_time_id", "num_reduce_phases", "terminated_early",
    )),
    "results": frozenset((
        "results", "preview", "init_offset", "post_process_count", "messages", "fields",
        "highlighted",
    )),
    "messages": frozenset((
        "messages", "query", "built_query", "used_indices", "fields", "time", "total_results",
        "from", "to", "decoration_stats", "is_decorated",
    )),
    "value": frozenset(("value", "@odata.context", "@odata.nextLink", "@odata.count", "nextLink")),
    "_source": frozenset((
        "sort", "fields", "highlight", "ignored_field_values", "matched_queries", "inner_hits",
    )),
    "result": frozenset(("result", "preview", "offset", "lastrow")),
    "message": frozenset(("message", "index", "highlight_ranges", "decoration_stats")),
}  # fmt: skip

Paths = Sequence[Sequence[str]]


class ExportRow(NamedTuple):
    """One message of an export: its leaf, a text in which its seal may stand, its line."""

    leaf: Leaf
    text: bytes
    line: int


def rows(lines: Iterable[bytes], added: Sequence[str] = ()) -> Iterator[ExportRow]:
    """The messages of one export, given as its lines.

    `added` are members (dots descend) that the SIEM has added to JSON messages: they are left out.
    Raises ValueError, with a sentence for a person, for what is no export that is known.
    """
    iterator = iter(lines)
    first = next(iterator, b"").removeprefix(b"\xef\xbb\xbf")
    every = chain([first], iterator)
    if first.lstrip()[:1] in (b"{", b"["):
        yield from _json_rows(every, [name.split(".") for name in added])
    elif (names := _csv_header(first)) is not None:
        yield from _csv_rows(every, names)
    else:
        yield from _text_rows(every)


def _text_rows(lines: Iterable[bytes]) -> Iterator[ExportRow]:
    for number, line in enumerate(lines, 1):
        text = line.rstrip(b"\r\n")
        if text:
            yield ExportRow(leaf_of(text), text, number)


def _csv_header(line: bytes) -> list[str] | None:
    """The names of the columns, if this is the first line of a CSV with a message in it."""
    try:
        names = next(csv.reader([line.decode()]), [])
    except (UnicodeDecodeError, csv.Error):
        return None
    return names if set(names) & set(WHOLE_MESSAGE) else None


def _csv_rows(lines: Iterable[bytes], names: list[str]) -> Iterator[ExportRow]:
    csv.field_size_limit(_FIELD_BYTES)
    column = names.index(next(name for name in WHOLE_MESSAGE if name in names))
    reader = csv.reader(line.decode("utf-8", "surrogateescape") for line in lines)
    next(reader)
    try:
        for row in reader:
            if any(row):
                text = (row[column] if len(row) > column else "").encode("utf-8", "surrogateescape")
                yield ExportRow(leaf_of(text), text, reader.line_num)
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: a damaged CSV: {error}") from error


def _json_rows(lines: Iterable[bytes], added: Paths) -> Iterator[ExportRow]:
    """One JSON value a line, or one value over all lines.

    A line among values that is none itself is a message that the relay has not sent.
    """
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    first = next(numbered, None)
    if first is None:
        return
    if _parses(first[1]):
        yield from _value_rows(chain([first], numbered), added)
        return
    held = [first, *numbered]
    whole = b"".join(line for _, line in held)
    try:
        value = decoded(whole)
    except ValueError as error:
        if not any(line.startswith(b"{") and _parses(line) for _, line in held):
            raise ValueError(f"neither one JSON value a line nor one in all: {error}") from error
        yield from _value_rows(held, added)
    else:
        yield from _messages(value, whole, 1, added)


def _parses(line: bytes) -> bool:
    try:
        parsed(line)
    except RepeatedName:
        return True
    except ValueError:
        return False
    return True


def _value_rows(lines: Iterable[tuple[int, bytes]], added: Paths) -> Iterator[ExportRow]:
    for number, line in lines:
        try:
            value, form = parsed(line)
        except ValueError:
            yield ExportRow(leaf_of(line), line, number)
            continue
        leaf = leaf_of_json(value, form)
        if leaf.number is not None and _RAW not in value and not added:
            yield ExportRow(leaf, line, number)
        else:
            yield from _messages(value, line, number, added)


def _messages(value: Any, text: bytes, line: int, added: Paths) -> Iterator[ExportRow]:
    """The messages in a JSON value: itself, or those that an answer of a SIEM wraps."""
    if isinstance(value, list):
        for each in value:
            yield from _messages(each, b"", line, added)
        return
    if not isinstance(value, dict):
        whole = value.encode() if isinstance(value, str) else msgspec.json.encode(value)
        yield ExportRow(leaf_of(whole), whole, line)
    elif isinstance(inner := next(_wrapped(value), None), list):
        yield from _messages(inner, b"", line, added)
    elif inner is not None:
        yield _row(inner, b"", line, added)
    elif isinstance(records := value.get("resourceLogs"), list) and len(value) == 1:
        yield from _otlp_rows(records, line)
    else:
        yield _row(value, text, line, added)


def _wrapped(value: dict[str, Any]) -> Iterator[Any]:
    """What stands around messages: a page of hits, a list of results, one hit, one result."""
    for name, beside in _BESIDE.items():
        inner = value.get(name)
        if inner is None or not all(key in beside or key[:1] == "_" for key in value):
            continue
        if name == "hits" and isinstance(inner, dict):
            inner = inner.get("hits")
        if isinstance(inner, dict if name in ("_source", "result", "message") else list):
            yield inner


def _row(value: dict[str, Any], text: bytes, line: int, added: Paths) -> ExportRow:
    if isinstance(raw := value.get(_RAW), str):
        return ExportRow(leaf_of(raw.encode()), raw.encode(), line)
    for path in added:
        value, text = _without(value, path), b""
    text = text or msgspec.json.encode(value)
    leaf = leaf_of(text)
    if leaf.number is None:
        for name in WHOLE_MESSAGE:
            whole = value.get(name)
            if isinstance(whole, str) and (found := leaf_of(whole.encode())).number is not None:
                return ExportRow(found, whole.encode(), line)
    return ExportRow(leaf, text, line)


def _without(value: dict[str, Any], path: Sequence[str]) -> dict[str, Any]:
    """The object without a member; an object that has no other member goes, too."""
    name, *rest = path
    found = dict(value)
    inner = found.pop(name, None)
    if rest and isinstance(inner, dict) and (left := _without(inner, rest)):
        found[name] = left
    elif rest and inner is not None and not isinstance(inner, dict):
        found[name] = inner
    return {key: found[key] for key in value if key in found}


def _otlp_rows(resources: list[Any], line: int) -> Iterator[ExportRow]:
    try:
        requests = msgspec.convert(resources, list[_Resource])
        for record in (
            r for each in requests for scope in each.scopeLogs for r in scope.logRecords
        ):
            body = any_value_of(record.body)
            text = body.encode() if isinstance(body, str) else msgspec.json.encode(body)
            yield ExportRow(leaf_of(text), text, line)
    except (msgspec.ValidationError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"line {line}: damaged OTLP: {error}") from error


class _Record(msgspec.Struct):
    body: dict[str, Any] = {}


class _Scope(msgspec.Struct):
    logRecords: list[_Record] = []


class _Resource(msgspec.Struct):
    scopeLogs: list[_Scope] = []

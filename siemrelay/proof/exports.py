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

from siemrelay.proof.canonical_json import parsed
from siemrelay.proof.leaf import NO_JSON, WHOLE_MESSAGE, Leaf, any_value_of, leaf_of, leaf_of_json

# Splunk's whole message; the fields that it has found stand beside it.
_RAW: Final = "_raw"

# A CSV field may hold a message of this size.
_FIELD_BYTES: Final = 64 << 20

_decode: Final = msgspec.json.Decoder().decode


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
            if len(row) > column and row[column]:
                text = row[column].encode("utf-8", "surrogateescape")
                yield ExportRow(leaf_of(text), text, reader.line_num)
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: a damaged CSV: {error}") from error


def _json_rows(lines: Iterable[bytes], added: Paths) -> Iterator[ExportRow]:
    """One JSON value a line, or one value over all lines."""
    held = list[bytes]()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if not held:
            try:
                value, form = parsed(line)
            except ValueError:
                if number > 1 and line.lstrip()[:1] not in (b"{", b"["):
                    yield ExportRow(leaf_of(line), line, number)
                    continue
            else:
                leaf = leaf_of_json(value, form)
                if leaf.number is not None and _RAW not in value and not added:
                    yield ExportRow(leaf, line, number)
                else:
                    yield from _messages(value, line, number, added)
                continue
        held.append(line)
    if held:
        whole = b"".join(held)
        try:
            value = _decode(whole)
        except NO_JSON as error:
            raise ValueError(f"neither one JSON value a line nor one in all: {error}") from error
        yield from _messages(value, whole, 1, added)


def _messages(value: Any, text: bytes, line: int, added: Paths) -> Iterator[ExportRow]:
    """The messages in a JSON value: itself, or those that an answer of a SIEM wraps."""
    if isinstance(value, list):
        for each in value:
            yield from _messages(each, b"", line, added)
        return
    if not isinstance(value, dict):
        return
    for inner in _wrapped(value):
        yield from _messages(inner, b"", line, added)
        return
    if isinstance(records := value.get("resourceLogs"), list):
        yield from _otlp_rows(records, line)
        return
    row = _row(value, text, line, added)
    if row is not None:
        yield row


def _wrapped(value: dict[str, Any]) -> Iterator[Any]:
    """What stands around messages: a page of hits, a list of results, one hit, one result."""
    hits = value.get("hits")
    if isinstance(hits, dict) and isinstance(hits.get("hits"), list):
        yield hits["hits"]
    if isinstance(hits, list):
        yield hits
    for name in ("results", "messages", "value"):
        if isinstance(value.get(name), list) and "siemrelay" not in value:
            yield value[name]
    if isinstance(value.get("_source"), dict):
        yield value["_source"]
    if isinstance(value.get("result"), dict) and ("preview" in value or "_raw" in value["result"]):
        yield value["result"]
    if isinstance(value.get("message"), dict):  # Graylog's answer to a search
        yield value["message"]


def _row(value: dict[str, Any], text: bytes, line: int, added: Paths) -> ExportRow | None:
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

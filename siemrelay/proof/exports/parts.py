"""The messages in what SIEMs export: pieces of a file in, parts with many messages each out.

Known are Splunk's CSV and JSON, Elasticsearch's hits (a search's answer, a scroll's pages, NDJSON),
CSV with the message in a column, OTLP's log records, Graylog's messages, and lines of CEF, LEEF,
syslog, GELF, OCSF and JSON as they were sent.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Final, NamedTuple

import msgspec

from siemrelay.core.canonical_json import (
    RepeatedName,
    decoded,
    forms_of,
    needs_care,
    parsed_lines,
)
from siemrelay.core.json_schema import LearnedSchema, Objects
from siemrelay.proof.envelopes import WHOLE_MESSAGE
from siemrelay.proof.exports.csv_columns import csv_columns, csv_header
from siemrelay.proof.exports.lines import (
    LONG_LINE_BYTES,
    MOST_DECODED_BYTES,
    MOST_DOCUMENT_BYTES,
    Block,
    LineFinder,
    TooLarge,
    blocks_of_lines,
    check_decoded_size,
    decoded_bytes,
)
from siemrelay.proof.exports.shown_fields import (
    SPLUNK_RAW,
    ShownFields,
    compared,
    compared_columns,
)
from siemrelay.proof.exports.wrapping import (
    Paths,
    Wrapped,
    documents_alike,
    may_wrap,
    pages_alike,
    raw_texts,
    texts_in_otlp,
    unwrapped,
)
from siemrelay.proof.leaf import Leaves, leaves_of, leaves_of_objects, number_in
from siemrelay.proof.seal import SEAL_MARK, SealText, seal_text

# Messages that are worked on at once: enough to spread the cost of a step, and few in memory.
_AT_ONCE: Final = 1_000

# What is in a row of a CSV behind the last column: a person sees it, and it has no name.
_BEYOND_HEADER: Final = "(a cell behind the last column)"

# By so much of its begin a message without a number is found in a document.
_MARK_CHARACTERS: Final = 60

_encode: Final = msgspec.json.Encoder().encode


class ExportPart(NamedTuple):
    """Messages of an export in its order: their leaves, and the line of each.

    `seals` is what looks like seals, `shown` what is to be said of fields beside a
    message, both by the message's place in the part.
    """

    leaves: Leaves
    lines: Sequence[int]
    seals: Mapping[int, SealText]
    shown: Mapping[int, ShownFields]


class Schemas(NamedTuple):
    """The learned types of the JSON in an export: of its lines, and of messages that are texts."""

    lines: LearnedSchema
    texts: LearnedSchema


def parts(pieces: Iterable[bytes], added: Sequence[str] = ()) -> Iterator[ExportPart]:
    """The messages of one export, given in pieces of any size.

    `added` are members (dots descend) that the SIEM has added to JSON messages, or shows beside
    them: they are left out. Raises ValueError, with a sentence for a person, for what is no export
    that is known, and TooLarge for what would take too much memory.
    """
    blocks = blocks_of_lines(pieces)
    first = next(blocks, None)
    if first is None:
        return
    blocks, schemas = chain([first], blocks), Schemas(LearnedSchema(), LearnedSchema())
    line = next(filter(None, (line.strip() for line in first[1])), b"")
    if line.startswith((b"{", b"[")):
        yield from _json_parts(blocks, [tuple(name.split(".")) for name in added], schemas)
    elif (names := csv_header(first[1][0])) is not None:
        yield from _csv_parts(blocks, names, frozenset(added), schemas)
    else:
        yield from _text_parts(blocks, schemas)


def _part(
    leaves: Leaves, lines: Sequence[int], texts: Sequence[bytes],
    shown: Mapping[int, ShownFields] | None = None,
) -> ExportPart:  # fmt: skip
    seals = {
        place: found for place, text in enumerate(texts if SEAL_MARK in b"".join(texts) else ())
        if SEAL_MARK in text and (found := seal_text(text, leaves.numbers[place])) is not None
    }  # fmt: skip
    return ExportPart(leaves, lines, seals, shown or {})


def _slices(block: Block) -> Iterator[Block]:
    number, lines = block
    for start in range(0, len(lines), _AT_ONCE):
        yield number + start, lines[start : start + _AT_ONCE]


def _text_parts(blocks: Iterable[Block], schemas: Schemas) -> Iterator[ExportPart]:
    for number, lines in chain.from_iterable(map(_slices, blocks)):
        texts = [line.rstrip(b"\r") for line in lines]
        numbers: Sequence[int] = range(number, number + len(texts))
        if not all(texts):
            numbers = [n for n, text in zip(numbers, texts, strict=True) if text]
            texts = [text for text in texts if text]
        if texts:
            yield _part(leaves_of(texts, schemas.texts), numbers, texts)


# -- CSV ------------------------------------------------------------------


def _csv_parts(
    blocks: Iterable[Block], names: list[str], added: frozenset[str], schemas: Schemas
) -> Iterator[ExportPart]:
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise ValueError(f"the CSV has a column twice: {twice[0]!r}; which of them counts cannot "
                         "be said")  # fmt: skip
    place = next(name for name in WHOLE_MESSAGE if name in names)
    at = names.index(place)
    is_header = True
    for columns, lines in csv_columns(blocks, len(names)):
        if is_header:
            columns, lines, is_header = [column[1:] for column in columns], lines[1:], False
        if not lines:
            continue
        texts = [cell.encode("utf-8", "surrogateescape") for cell in columns[at]]
        leaves = leaves_of(texts, schemas.texts)
        fields = {
            name: cells for name, cells in zip((*names, _BEYOND_HEADER), columns, strict=False)
            if name != place and name not in added
        }  # fmt: skip
        shown = compared_columns(fields, {str}, place, texts, leaves.objects)
        yield _part(leaves, lines, texts, shown)


# -- JSON -----------------------------------------------------------------

_Entry = tuple[Wrapped, int]
"""A message and its line."""


def _json_parts(blocks: Iterator[Block], added: Paths, schemas: Schemas) -> Iterator[ExportPart]:
    """One JSON value a line, or one value over all lines.

    A line among values that is none itself is a message that the relay has not sent.
    """
    held = list[Block]()
    for block in blocks:
        held.append(block)
        if line := next(filter(None, (line.strip() for line in block[1])), b""):
            if not _parses(line):
                yield from _document_parts(_held_together(chain(held, blocks)), added, schemas)
                return
            break
    for block in chain(held, blocks):
        yield from _line_parts(block, added, schemas)


def _held_together(blocks: Iterable[Block]) -> list[tuple[int, bytes]]:
    """Blocks, each in one piece. Raises TooLarge if all of them are too large for one value."""
    held, size, decoded_size = list[tuple[int, bytes]](), 0, 0
    for number, lines in blocks:
        together = b"\n".join(lines)
        held.append((number, together))
        size += len(together)
        decoded_size += decoded_bytes(together)
        if size > MOST_DOCUMENT_BYTES or decoded_size > MOST_DECODED_BYTES:
            raise TooLarge(f"one JSON value over many lines, of more than {size >> 20:,} MiB, "
                           "would take too much memory: export one event a line (NDJSON), or in "
                           "parts")  # fmt: skip
    return held


def _document_parts(
    held: list[tuple[int, bytes]], added: Paths, schemas: Schemas
) -> Iterator[ExportPart]:
    whole = b"\n".join(text for _, text in held)
    try:
        value = decoded(whole)
    except ValueError as error:
        lines = (line for _, text in held for line in text.split(b"\n"))
        if not any(line.startswith(b"{") and _parses(line) for line in lines):
            raise ValueError(f"neither one JSON value a line nor one in all: {error}") from error
        for number, text in held:
            yield from _line_parts((number, text.split(b"\n")), added, schemas)
    else:
        care = needs_care(whole)
        entries = ((_in_care(each) if care else each, 1) for each in unwrapped(value, added))
        lines_in = LineFinder(whole)
        while some := list(islice(entries, _AT_ONCE)):
            part = _entries_part(some, schemas)
            yield part._replace(lines=[
                lines_in.line_of(_mark_of(message, number))
                for (message, _), number in zip(some, part.leaves.numbers, strict=True)
            ])  # fmt: skip


def _mark_of(message: Wrapped, number: str | None) -> bytes:
    """A text by which a message is found in a document that has it: its number, else its begin."""
    if number is not None:
        return number.encode()
    content = message.content
    if isinstance(content, bytes):
        return _encode(content[:_MARK_CHARACTERS].decode("utf-8", "replace"))[1:-1]
    texts = (text for text in content.values() if isinstance(text, str) and text)
    return _encode(next(texts, next(iter(content), "")))[:-1]


def _parses(line: bytes) -> bool:
    check_decoded_size(line, 1)
    try:
        decoded(line)
    except RepeatedName:
        return True
    except ValueError:
        return False
    return True


def _line_parts(block: Block, added: Paths, schemas: Schemas) -> Iterator[ExportPart]:
    for number, some in _slices(block):
        lines = list(map(bytes.strip, some))
        numbers: Sequence[int] = range(number, number + len(lines))
        if not all(lines):
            numbers = [n for n, line in zip(numbers, lines, strict=True) if line]
            lines = [line for line in lines if line]
        if not lines:
            continue
        if max(map(len, lines)) > LONG_LINE_BYTES:
            for line, at in zip(lines, numbers, strict=True):
                if len(line) > LONG_LINE_BYTES:
                    check_decoded_size(line, at)
        if not added and (found := _alike_parts(lines, numbers, schemas)) is not None:
            yield from found
            continue
        values, _, alone = parsed_lines(lines)
        entries = _unwrapped_lines(zip(values, lines, numbers, strict=True), alone, added)
        while some_entries := list(islice(entries, _AT_ONCE)):
            yield _entries_part(some_entries, schemas)


def _alike_parts(
    lines: Sequence[bytes], numbers: Sequence[int], schemas: Schemas
) -> list[ExportPart] | None:
    """The messages of lines that are all of one kind; else None."""
    if not may_wrap(lines[0]):
        objects = schemas.lines.objects_and_forms(lines)
        part = None if objects is None else _alike_part(*objects, numbers)
        return None if part is None else [part]
    values = schemas.lines.objects_of(lines)
    if values is None:
        return None
    if (found := texts_in_otlp(values, numbers)) is not None:
        return list(_otlp_parts(*found, schemas))
    pages = pages_alike(values, numbers)
    read = list[ExportPart]()
    in_lists, numbers = pages or (values, numbers)
    for start in range(0, len(in_lists), _AT_ONCE):
        some, at = in_lists[start : start + _AT_ONCE], numbers[start : start + _AT_ONCE]
        part = _wrapped_part(some, at, schemas, in_page=pages is not None)
        if part is None:
            return None
        read.append(part)
    return read


def _otlp_parts(texts: list[bytes], lines: Sequence[int], schemas: Schemas) -> Iterator[ExportPart]:
    """The messages that are the texts of log records."""
    for start in range(0, len(texts), _AT_ONCE):
        some = texts[start : start + _AT_ONCE]
        yield _part(leaves_of(some, schemas.texts), lines[start : start + _AT_ONCE], some)


def _wrapped_part(
    values: Objects, lines: Sequence[int], schemas: Schemas, *, in_page: bool
) -> ExportPart | None:
    """The messages of values that are all hits or all rows of Splunk, or, in the list of an answer,
    all messages; else None."""
    documents = documents_alike(values, in_page=in_page)
    if documents is None:
        return None
    if SPLUNK_RAW in documents.names:
        columns = documents.columns()
        kinds = set(map(type, chain.from_iterable(columns.values())))
        if (texts := raw_texts(columns, kinds)) is not None:
            leaves = leaves_of(texts, schemas.texts)
            shown = compared_columns(columns, kinds, SPLUNK_RAW, texts, leaves.objects)
            return _part(leaves, lines, texts, shown)
    return _alike_part(documents, documents.forms(), lines)


def _alike_part(objects: Objects, forms: list[bytes], lines: Sequence[int]) -> ExportPart | None:
    """The messages of JSON objects that are all messages; else None."""
    if objects.has(SPLUNK_RAW):
        return None
    leaves = leaves_of_objects(objects, forms)
    return None if None in leaves.numbers else _part(leaves, lines, forms)


def _unwrapped_lines(
    values: Iterable[tuple[Any, bytes, int]], alone: Container[int], added: Paths
) -> Iterator[_Entry]:
    for place, (value, line, number) in enumerate(values):
        if value is None or (
            isinstance(value, dict) and not added and SPLUNK_RAW not in value
            and number_in(value) is not None
        ):  # fmt: skip
            yield Wrapped(line), number
            continue
        try:
            for each in unwrapped(value, added):
                yield _in_care(each) if place in alone else each, number
        except ValueError as error:
            raise ValueError(f"line {number:,}: {error}") from error


def _in_care(message: Wrapped) -> Wrapped:
    """As a text, of which the canonical form is made with care."""
    content = message.content
    return message._replace(content=content if isinstance(content, bytes) else _encode(content))


def _entries_part(entries: Sequence[_Entry], schemas: Schemas) -> ExportPart:
    contents = [message.content for message, _ in entries]
    objects = [each for each in contents if not isinstance(each, bytes)]
    if len(objects) == len(contents):
        texts = forms_of(objects)
        leaves = leaves_of_objects(Objects(objects), texts)
    else:
        texts = [each if isinstance(each, bytes) else _encode(each) for each in contents]
        leaves = leaves_of(texts, schemas.texts)
    shown = {
        place: found
        for place, (message, _) in enumerate(entries)
        if message.shown is not None
        and (found := compared(message.shown, message.place, texts[place])) is not None
    }
    return _part(leaves, [line for _, line in entries], texts, shown)

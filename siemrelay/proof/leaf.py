"""The sealed part of a message and its number: the same on both sides of a SIEM.

Framing, envelope (`envelopes.py`) and syslog header belong to the way and not to the message:
receivers take them off. JSON is compared in its canonical form, as receivers store it anew; every
other message byte by byte. The number stands at a fixed place, never in a text that a person can
type.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any, Final, NamedTuple

import msgspec

from siemrelay.core.canonical_json import RepeatedName, canonical, parsed, parsed_lines
from siemrelay.core.json_schema import LearnedSchema, Objects
from siemrelay.proof.merkle import leaf_hash
from siemrelay.proof.stream import STREAM_CHARACTERS

_NUMBER: Final = rb"([a-z2-7]{10}:(?:0|[1-9]\d{0,15}))"
_PART: Final = rb"\|[^|\\]*(?:\\.[^|\\]*)*"

# Headers as they are sent, and as rsyslog and syslog-ng write them to files
# (test_what_changes_no_event_is_complete_unchanged_and_fresh): RFC 5424 with the TAG as APP-NAME
# and maybe one more space, RFC 3164, and its fields with a time of RFC 3339.
_RFC5424: Final = re.compile(rb"(?:<\d{1,3}>)?1 \S+ \S+ (\S+) \S+ \S+ (?:- )? ?")
_RFC3164: Final = re.compile(
    rb"(?:<\d{1,3}>)?(?:[A-Z][a-z]{2} [ \d]\d |\d{4}-\d\d-\d\dT)"
    rb"\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)? \S+ "
)
_TAG: Final = re.compile(rb"[A-Za-z0-9_.-]{1,32}(?:\[\d+\])?(: |:? (?=CEF:|LEEF:|\{))")
# rsyslog writes a control character as its octal number.
_ESCAPED_TABS: Final = re.compile(rb"LEEF:[^\t]*?\|siemrelayN=%b#011" % _NUMBER)
TEXTS: Final = (b"CEF:", b"LEEF:", b"[event@")
"""How messages that are not JSON begin."""
_KINDS: Final = (*TEXTS, b"{")
_AT_START: Final = tuple(
    map(re.compile, (
        rb"CEF:\d+(?:%b){6}\|siemrelayN=%b(?= |$)" % (_PART, _NUMBER),
        rb"LEEF:(?:1\.0(?:\|[^|]*){4}|2\.0(?:\|[^|]*){5})\|siemrelayN=%b(?=[^0-9]|$)" % _NUMBER,
        rb'\[event@\d+ sequence="\d+" n="%b"' % _NUMBER,
    ))
)  # fmt: skip
_AT_END: Final = re.compile(rb' n="%b"\)$' % _NUMBER)
_JSON_NUMBER: Final = re.compile(_NUMBER.decode(), re.ASCII)

_JSON_PLACES: Final = (
    ("siemrelay", "n"), ("_siemrelay_n",), ("siemrelay_n",), ("unmapped", "siemrelay_n"),
    ("siemrelay.n",),
)  # fmt: skip
NUMBERED: Final = frozenset(path[0] for path in _JSON_PLACES)
"""An object without one of these members has no number of its own."""

NO_JSON: Final = (ValueError, RecursionError, msgspec.DecodeError)
"""The errors raised for a text that is not JSON, or has no canonical form."""


class Leaf(NamedTuple):
    """A message under seal. `stream` and `number` are None where it carries none."""

    hash: bytes
    stream: str | None
    number: int | None


def hash_of(message: bytes) -> bytes:
    """The hash of `leaf_of`, without a look for the number."""
    text = content_of(message.rstrip(b"\r\n"))
    if text.startswith(b"{"):
        try:
            return leaf_hash(canonical(text))
        except ValueError:  # a text that only looks like JSON
            pass
    return leaf_hash(text)


def leaf_of(message: bytes) -> Leaf:
    """The leaf of a message, with or without its syslog header; a line ending is left out."""
    text = content_of(message.rstrip(b"\r\n"))
    if text.startswith(b"{"):
        try:
            return leaf_of_json(*parsed(text))
        except RepeatedName as error:
            return Leaf(leaf_hash(text), *(number_in(error.value) or (None, None)))
        except ValueError:  # a text that only looks like it
            return Leaf(leaf_hash(text), None, None)
    found = next(filter(None, (place.match(text) for place in _AT_START)), None)
    if found is None and text.endswith(b'")'):
        found = _AT_END.search(text)
    if found is None:
        return Leaf(leaf_hash(text), None, None)
    return Leaf(leaf_hash(text), *_parts_of(found[1].decode()))


class Leaves(NamedTuple):
    """Messages under seal: their hashes, and their numbers as `STREAM:N`, None where one has none;
    two lists of one length. `objects` are the JSON values of all; None for messages that are
    none."""

    hashes: list[bytes]
    numbers: list[str | None]
    objects: Objects | None = None


def leaves_of(messages: Sequence[bytes], schema: LearnedSchema) -> Leaves:
    """`leaf_of` of many messages without line endings, at once. `schema` is that of messages of
    JSON, and learns from them."""
    texts = messages
    if {text[:1] for text in texts} != {b"{"}:
        texts = [
            text if text.startswith((b"CEF:", b"{")) else content_of(text) for text in messages
        ]
    if {text[:1] for text in texts} == {b"{"}:
        if (read := schema.objects_and_forms(texts)) is not None:
            return leaves_of_objects(*read)
        values, forms, alone = parsed_lines(texts)
        leaves = leaves_of_objects(Objects(values), forms)
    else:
        # Mostly they are of one kind.
        place = next((place for place in _AT_START if place.match(texts[0])), _AT_START[0])
        found = [place.match(text) for text in texts]
        alone = {i for i, each in enumerate(found) if each is None}
        leaves = Leaves(
            [sha256(b"\0" + text).digest() for text in texts],
            [None if each is None else each[1].decode() for each in found],
        )
    for i in alone:
        leaf = leaf_of(messages[i])
        leaves.hashes[i] = leaf.hash
        leaves.numbers[i] = None if leaf.stream is None else f"{leaf.stream}:{leaf.number}"
    return leaves


def leaves_of_objects(objects: Objects, forms: Iterable[bytes]) -> Leaves:
    """The leaves of JSON objects, given with their canonical forms."""
    hashes = [sha256(b"\0" + form).digest() for form in forms]
    return Leaves(hashes, _numbers_in(objects), objects)


def _numbers_in(objects: Objects) -> list[str | None]:
    """`number_in` of each: mostly they stand at one place."""
    numbers: list[str | None] = [None] * len(objects)
    for path in _JSON_PLACES:
        if path[0] not in objects.names:
            continue
        column = objects.column(*path)
        with suppress(TypeError):  # another value than a text
            if all(map(_JSON_NUMBER.fullmatch, column)) and not any(numbers):
                return column
        for i, each in enumerate(column):
            if numbers[i] is None and isinstance(each, str) and _JSON_NUMBER.fullmatch(each):
                numbers[i] = each
    return numbers


def leaf_of_json(value: Any, form: bytes) -> Leaf:
    """The leaf of a JSON value, given with its canonical form."""
    return Leaf(leaf_hash(form), *(number_in(value) or (None, None)))


def number_in(value: Any) -> tuple[str, int] | None:
    """Stream and number of a JSON value, at the first place that has one."""
    for path in _JSON_PLACES:
        inner = value
        for name in path:
            inner = inner.get(name) if isinstance(inner, dict) else None
        if isinstance(inner, str) and _JSON_NUMBER.fullmatch(inner):
            return _parts_of(inner)
    return None


def _parts_of(number: str) -> tuple[str, int]:
    """Stream and number of `STREAM:N`."""
    return number[:STREAM_CHARACTERS], int(number[STREAM_CHARACTERS + 1 :])


def content_of(message: bytes) -> bytes:
    """The message behind its syslog header."""
    if message.startswith(_KINDS):
        return _with_tabs(message)
    if header := _RFC5424.match(message):
        rest = message[header.end() :]
        if header[1] in (b"CEF", b"LEEF") and rest[:1].isdigit():  # it was taken for the TAG
            rest = header[1] + b":" + rest
    elif header := _RFC3164.match(message):
        rest = message[header.end() :]
        if rest.startswith((b"CEF: ", b"LEEF: ")):  # rsyslog writes a space behind what is no TAG
            rest = rest.replace(b" ", b"", 1)
        elif not rest.startswith(_KINDS) and (tag := _TAG.match(rest)):
            rest = rest[tag.end() :]
    else:
        return message
    return _with_tabs(rest)


def _with_tabs(text: bytes) -> bytes:
    return text.replace(b"#011", b"\t") if _ESCAPED_TABS.match(text) else text

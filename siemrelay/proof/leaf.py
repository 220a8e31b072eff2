"""The sealed part of a message and its number: the same on both sides of a SIEM.

Framing, envelope and syslog header belong to the way and not to the message: receivers take them
off. JSON is compared in its canonical form, as receivers store it anew; every other message byte by
byte. The number stands at a fixed place, never in a text that a person can type.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import chain
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
_TEXTS: Final = (b"CEF:", b"LEEF:", b"[event@")
_KINDS: Final = (*_TEXTS, b"{")
_LAST_CONTROL: Final = 0x1F
_MOST_PRI: Final = 5  # `<191>`
_TIME_CHARACTERS: Final = 1 + len("Mmm dd hh:mm:ss ")
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

_decode: Final = msgspec.json.Decoder().decode


# So many JSON messages are parsed at once under a seal: of more the values would outlive a round of
# the garbage collector, which takes longer than to parse them.
_PARSED_AT_ONCE: Final = 64

NO_JSON: Final = (ValueError, RecursionError, msgspec.DecodeError)
"""The errors raised for a text that is not JSON, or has no canonical form."""


class Leaf(NamedTuple):
    """A message under seal. `stream` and `number` are None where it carries none."""

    hash: bytes
    stream: str | None
    number: int | None


def hash_of(message: bytes) -> bytes:
    """The hash of `leaf_of`, without a look for the number."""
    text = _content(message.rstrip(b"\r\n"))
    if text.startswith(b"{"):
        try:
            return leaf_hash(canonical(text))
        except ValueError:  # a text that only looks like JSON
            pass
    return leaf_hash(text)


def sent_hashes(
    messages: Iterable[bytes], protocol: str = "", *, canonical: bool = False
) -> list[bytes]:
    """The leaves of messages as a protocol sends them, in an envelope of `ENVELOPES` or in none.

    `canonical`: as `formats.contract.Canonical` says; then no JSON is parsed.
    """
    if canonical and protocol in _TEXT_IN_ENVELOPE:
        text_in = _TEXT_IN_ENVELOPE[protocol]
        return [
            hash_of(_unwrapped(message, ENVELOPES[protocol]))
            if (text := text_in(message)) is None
            else sha256(b"\0" + text).digest()
            for message in messages
        ]
    if canonical and protocol not in ENVELOPES:
        return [sha256(b"\0" + message).digest() for message in messages]
    if protocol in ENVELOPES:
        messages = [_unwrapped(message, ENVELOPES[protocol]) for message in messages]
    texts = [
        message[start:]
        if message.startswith(_TEXTS, start := _text_at(message) if message.startswith(b"<") else 0)
        and message[-1] > _LAST_CONTROL
        else _content(message.rstrip(b"\r\n"))
        for message in messages
    ]
    objects = [text for text in texts if text.startswith(b"{")]
    if objects:
        some = (objects[i : i + _PARSED_AT_ONCE] for i in range(0, len(objects), _PARSED_AT_ONCE))
        forms = chain.from_iterable(parsed_lines(each)[1] for each in some)
        texts = [next(forms) if text.startswith(b"{") else text for text in texts]
    return [sha256(b"\0" + text).digest() for text in texts]


def is_plain(message: bytes, protocol: str) -> bool:
    """Whether it is hashed as it is, and not parsed: neither JSON nor in an envelope."""
    return protocol not in ENVELOPES and not _content(message).startswith(b"{")


def _text_at(message: bytes) -> int:
    """Where the text begins behind a header of RFC 3164 of the relay's own, found without a
    pattern. What does not begin there is looked at with care.
    """
    return message.find(b" ", message.find(b">", 0, _MOST_PRI) + _TIME_CHARACTERS) + 1


def _unwrapped(message: bytes, unwrap: Callable[[bytes], bytes]) -> bytes:
    try:
        return unwrap(message)
    except (*NO_JSON, LookupError, TypeError):  # no envelope after all
        return message


def leaf_of(message: bytes) -> Leaf:
    """The leaf of a message, with or without its syslog header; a line ending is left out."""
    text = _content(message.rstrip(b"\r\n"))
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
        texts = [text if text.startswith((b"CEF:", b"{")) else _content(text) for text in messages]
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


def _content(message: bytes) -> bytes:
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


# Messages of no format begin so: the metadata of Splunk's envelope.
_HEC: Final = re.compile(rb'\{"(?:time":[-0-9]|(?:host|sourcetype|index|source)":)')


def _hec(message: bytes) -> bytes:
    return _of_value(_decode(message)["event"]) if _HEC.match(message) else message


def _hec_event(message: bytes) -> bytes | None:
    """The object in an envelope of the relay's own, as it stands there; None if it may not."""
    at = message.find(b'"event":{')
    return message[at + len(b'"event":') : -1] if at >= 0 and message.endswith(b"}}") else None


def _bulk(message: bytes) -> bytes:
    return _timestamped(message.partition(b"\n")[2])


def _timestamped(document: bytes) -> bytes:
    """The text in an object that was made around it, which has no number of its own."""
    if b"siemrelay" in document and document.startswith(b"{"):
        value = _decode(document)
        if number_in(value) is None:
            return _whole_text(value) or document
    return document


def _otlp(message: bytes) -> bytes:
    return _of_value(any_value_of(_decode(message)["body"]))


def _element(message: bytes) -> bytes:
    """A message that was made a JSON text, to stand in an array, as it was before."""
    return _of_value(_decode(message)) if message.startswith(b'"') else message


def _of_value(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else msgspec.json.encode(value)


def _whole_text(value: Any) -> bytes | None:
    """The numbered message that an object holds as a text."""
    for name in WHOLE_MESSAGE:
        text = value.get(name) if isinstance(value, dict) else None
        if isinstance(text, str) and leaf_of(text.encode()).number is not None:
            return text.encode()
    return None


WHOLE_MESSAGE: Final = (
    "_raw", "event.original", "RawData", "raw", "SyslogMessage", "message", "Message",
)  # fmt: skip
"""Members and columns of exports that hold a whole message as it was sent, the surest first; a dot
may stand for an object in an object."""


def any_value_of(value: Mapping[str, Any]) -> Any:
    """The JSON value of an OTLP AnyValue."""
    if "kvlistValue" in value:
        members = value["kvlistValue"].get("values", ())
        return {member["key"]: any_value_of(member["value"]) for member in members}
    if "arrayValue" in value:
        return [any_value_of(inner) for inner in value["arrayValue"].get("values", ())]
    if "intValue" in value:
        return int(value["intValue"])
    return next(iter(value.values()), None)


ENVELOPES: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "splunk-hec": _hec, "elasticsearch": _bulk, "sentinel": _timestamped, "otlp": _otlp,
    "http": _element,
}  # fmt: skip
"""By protocol: from a message in its envelope to the message itself, as exports have it."""

_TEXT_IN_ENVELOPE: Final[Mapping[str, Callable[[bytes], bytes | None]]] = {
    "splunk-hec": _hec_event, "http": lambda message: message,
}  # fmt: skip
"""The same for messages in canonical form, without parsing; None for one to look at with care."""

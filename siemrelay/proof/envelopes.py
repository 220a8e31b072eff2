"""The leaves of messages as protocols send them: in the envelope of a protocol, or in none.

Receivers take an envelope off, so exports have the message itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from itertools import chain
from typing import Any, Final

import msgspec

from siemrelay.core.canonical_json import parsed_lines
from siemrelay.proof.leaf import NO_JSON, TEXTS, content_of, hash_of, leaf_of, number_in

_LAST_CONTROL: Final = 0x1F
_MOST_PRI: Final = 5  # `<191>`
_TIME_CHARACTERS: Final = 1 + len("Mmm dd hh:mm:ss ")

# So many JSON messages are parsed at once under a seal: of more the values would outlive a round of
# the garbage collector, which takes longer than to parse them.
_PARSED_AT_ONCE: Final = 64

_decode: Final = msgspec.json.Decoder().decode


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
        if message.startswith(TEXTS, start := _text_at(message) if message.startswith(b"<") else 0)
        and message[-1] > _LAST_CONTROL
        else content_of(message.rstrip(b"\r\n"))
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
    return protocol not in ENVELOPES and not content_of(message).startswith(b"{")


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

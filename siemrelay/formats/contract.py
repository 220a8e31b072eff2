"""The contract of formats: events in, messages out (checked by tests/contracts/test_formats.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from siemrelay.core.event import Selection
from siemrelay.core.options import Options

HeaderName = Literal["none", "rfc3164", "rfc5424"]


class Format(Protocol):
    """Turns a selection into messages. Pure, deterministic, thread-safe after construction."""

    fields: frozenset[str]
    """The fields of an event that it reads, by the names of `FIELDS`, and `attributes`."""

    @property
    def members(self) -> frozenset[str] | None:
        """Members that every message has with a value, if every message is one JSON object.

        None if messages may be something else. Envelopes go around JSON objects without reading
        them; checked by test_any_event_becomes_one_line_of_utf8.
        """

    def encode(self, selection: Selection) -> Sequence[bytes]:
        """One message per event, in order, unframed, in UTF-8, without a raw CR, LF or NUL.

        A message has the event's own fields only, each name once, whatever its sender calls its
        attributes. A character that the format cannot carry is replaced visibly. Never raises for
        an event of a decoder, whose texts are all valid. Time and memory grow with their size.
        If the selection has a `number`, each message of a format whose kind is `numbered` has it
        once, at the place that `proof.leaf` reads, where no text of a sender can stand.

        A format that is `Forwarding` sends some records as they came instead.
        """


@runtime_checkable
class Forwarding(Protocol):
    """A format that sends some records as they came, without a look at their events."""

    def forwards(self, record: bytes, *, is_syslog: bool) -> bool:
        """Whether that record leaves as it came. `is_syslog`: see `DecodedBatch`."""


@runtime_checkable
class Canonical(Protocol):
    """A format whose messages, if they have a number, may be in the canonical form of JSON."""

    canonical: bool
    """Whether they are: the messages themselves, not what an envelope puts around them.

    One without a canonical form stays as it is. Checked by
    test_a_number_is_read_from_where_no_sender_can_write.
    """


class FormatKind(msgspec.Struct, frozen=True):
    """One format of the registry. `build` takes the options and this machine's name.

    `header` is the default syslog header on protocols that carry syslog, and `headers` whether one
    may be chosen. `maps`: attributes are in it only as its option `map` says. `tag`: whether
    RFC 3164's TAG stands before the message. `numbered`: messages have a place for their number, so
    that `seal:` may be set. `as_received`: messages are the records' own bytes, whatever is done to
    their events. `implies` has, by protocol, options whose default differs with this format.
    """

    options: type[Options]
    build: Callable[[Any, str], Format]
    summary: str
    header: HeaderName = "none"
    headers: bool = False
    maps: bool = False
    tag: bool = True
    numbered: bool = False
    as_received: bool = False
    implies: Mapping[str, Mapping[str, Any]] = msgspec.field(default_factory=dict)

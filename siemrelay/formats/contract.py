"""What a format is: events in, messages out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import msgspec

from siemrelay.core.event import Selection
from siemrelay.core.options import Options

HeaderName = Literal["none", "rfc3164", "rfc5424"]


class Format(Protocol):
    """Turns a selection into messages. Pure, deterministic, thread-safe after construction."""

    fields: frozenset[str]
    """The fields of an event it reads; `attributes` stands for everything else."""

    def encode(self, selection: Selection) -> list[bytes]:
        """One message per event, in order, unframed, UTF-8, without a raw CR, LF or NUL.

        Never raises for any event: what a format cannot carry is replaced visibly.
        """


class FormatKind(msgspec.Struct, frozen=True):
    """What messages look like. `build` takes the options and this machine's name.

    `header` is the syslog header in front where the protocol carries syslog; `headers` whether one
    may be chosen; `tag` whether RFC 3164's TAG goes before the message. `implies` has, for a
    protocol, the keys of it whose default is another for this format.
    """

    options: type[Options]
    build: Callable[[Any, str], Format]
    summary: str
    header: HeaderName = "none"
    headers: bool = False
    tag: bool = True
    implies: Mapping[str, Mapping[str, Any]] = msgspec.field(default_factory=dict)

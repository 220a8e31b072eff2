"""What a format is: events in, messages out."""

from __future__ import annotations

from typing import Protocol

from siemrelay.event import Selection


class Format(Protocol):
    """Turns a selection into messages. Pure, deterministic, thread-safe after construction."""

    fields: frozenset[str]
    """The fields of an event it reads; `attributes` stands for everything else."""

    def encode(self, selection: Selection) -> list[bytes]:
        """One message per event, in order, unframed, UTF-8, without a raw CR, LF or NUL.

        Never raises for any event: what a format cannot carry is replaced visibly.
        """

"""The numbers of messages that are sent again beside the relay: those that they had."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from math import inf
from typing import Protocol

from siemrelay.core.event import Batch
from siemrelay.pipeline.batching import DeliveryBatch
from siemrelay.proof.stream import Numbering


class NumberSource(Protocol):
    """Says which numbers messages get."""

    def numbering_at(self, stored: Batch, position: int) -> Numbering:
        """Those of the messages of a stored batch, from the record at `position` on."""

    def sent(self, batch: DeliveryBatch) -> None:
        """The messages of a batch have got their numbers."""


class ReplayedNumbers:
    """The numbers of a stream from some record on, where its seals are known."""

    def __init__(
        self, stream: str, begin: int, first: int, seals: Sequence[tuple[int, int]],
        placeholder: bytes,
    ) -> None:  # fmt: skip
        """`first` is the number of the first message from the record `begin` on.

        `seals` are those behind it: the record before which each stands, and its number.
        """
        self._stream, self._seals, self._placeholder = stream, seals, placeholder
        self._next = first
        # The next number at each record up to which something was sent. After a broken connection
        # sending goes on at one of them, or behind it at the next record that the filter selects.
        self._known = [(begin, first)]

    def numbering_at(self, stored: Batch, position: int) -> Numbering:
        """See `NumberSource`. Seals stand between stored batches."""
        start = max(stored.first_sequence, position)
        del self._known[bisect_right(self._known, (start, inf)) :]
        at, self._next = self._known[-1]
        for before, number in self._seals:
            if at <= before <= start:
                self._next = number + 1
        return Numbering(self._stream, self._next, self._placeholder)

    def sent(self, batch: DeliveryBatch) -> None:
        """See `NumberSource`."""
        self._next += len(batch.messages)
        self._known.append((batch.next_sequence, self._next))


class RetriedNumbers:
    """The numbers that refused messages had, one by one."""

    def __init__(
        self, number_of: Callable[[int], tuple[str, int] | None], placeholder: bytes
    ) -> None:
        """`number_of` gives stream and number of the record's message; None if it had none."""
        self._number_of, self._placeholder = number_of, placeholder

    def numbering_at(self, stored: Batch, position: int) -> Numbering:
        """See `NumberSource`; a message that had none gets one that is none."""
        stream, number = self._number_of(stored.first_sequence) or ("none", 0)
        return Numbering(stream, number, self._placeholder)

    def sent(self, batch: DeliveryBatch) -> None:
        """See `NumberSource`."""

"""Finds the messages for which a peer refuses a batch, until each was refused alone. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

from msgspec.structs import replace

from siemrelay.core.errors import BatchRefused
from siemrelay.sinks.contract import Refusal, Settlement

ALL_REFUSED: Final = 10
"""When a peer refuses so many different events and takes none, the events are not the cause."""

# After so many wrong indexes in a row, indexes are ignored.
_MISLED: Final = 2


class _Part(NamedTuple):
    """A part of a batch: from `start` to before `end`. `refused`: it holds a refused message.

    `twin_of`: of a second half, the refusal of both halves together. If the first half is taken,
    that refusal was about the second.
    """

    start: int
    end: int
    refused: BatchRefused | None = None
    twin_of: BatchRefused | None = None


class RefusalSearch:
    """Splits a batch into parts until each message was taken, or refused alone.

    Send the part that `next` names, and report the answer by `take` or `refuse`; parts come in the
    order of the messages. An index of the peer (`BatchRefused.index`) leads to the refused message
    as long as they are right; else parts are halved: one culprit of n messages costs about
    1.5 log2(n) requests (checked in test_rejection.py).

    From a peer that is not `proven`, which has never taken anything, `ALL_REFUSED` refusals are
    enough: the rest is tried in large parts only (they are split afterwards if any is taken), so
    the answer "none" costs a wrong address or format some dozens of requests and not thousands.
    `refusals` may then be fewer than the messages.
    """

    def __init__(self, count: int, *, proven: bool = False) -> None:
        self.refusals: list[Refusal] = []
        """Those of the batch so far, in no order. Each message was sent alone, or the peer named it
        in an answer that took the others."""
        self.taken = 0
        """How many messages the peer has taken."""
        self._proven = proven
        self._sent = _Part(0, count)
        self._parts = [self._sent]  # a stack, the earliest on top
        self._later = list[_Part]()
        self._suspects, self._misled = set[int](), 0

    def next(self) -> tuple[int, int] | None:
        """The start and end (exclusive) of the next part to send; None after the last."""
        while self._parts or (self.taken and self._later):
            self._sent = part = self._parts.pop() if self._parts else self._later.pop(0)
            if part.refused is None:
                return part.start, part.end
            self._halve(part, part.refused)
        return None

    def take(self, refusals: Settlement = ()) -> None:
        """Note that the peer took the part, but for these messages of it."""
        part = self._sent
        self.refusals += [replace(r, index=part.start + r.index) for r in refusals]
        self.taken += part.end - part.start - len(refusals)
        if part.start in self._suspects:
            self._misled += 1
        self._judge_twin(whole=not refusals)

    def refuse(self, why: BatchRefused) -> None:
        """Note that the peer refused the part."""
        self._judge_twin(whole=False)
        start, end, *_ = self._sent
        if end - start == 1:
            self.refusals.append(Refusal(start, why.code, why.reason))
            if self._misled < _MISLED:
                self._misled = 0
        elif why.index is None or self._misled >= _MISLED or self._gives_up:
            self._halve(self._sent, why)
        else:
            # Alone it is either refused or taken, so an index that is off by one costs a request
            # and never an event.
            suspect = min(max(start + why.index, start), end - 1)
            self._suspects.add(suspect)
            parts = _Part(suspect + 1, end), _Part(suspect, suspect + 1), _Part(start, suspect)
            self._parts += [part for part in parts if part.start < part.end]

    @property
    def _gives_up(self) -> bool:
        return not (self.taken or self._proven) and len(self.refusals) >= ALL_REFUSED

    def _halve(self, part: _Part, why: BatchRefused) -> None:
        if self._gives_up:
            self._later.append(_Part(part.start, part.end, why))
            return
        middle = (part.start + part.end) // 2
        self._parts += [_Part(middle, part.end, twin_of=why), _Part(part.start, middle)]

    def _judge_twin(self, *, whole: bool) -> None:
        """Conclude from the answer about a first half about the second: if it was taken whole, the
        refusal of both was about the second; else that says nothing.
        """
        if not self._parts or self._parts[-1].start != self._sent.end:
            return
        twin = self._parts[-1]
        # A single message is asked about by itself all the same: nothing is buried by inference.
        known = twin.twin_of if whole and twin.end - twin.start > 1 else None
        self._parts[-1] = _Part(twin.start, twin.end, known)

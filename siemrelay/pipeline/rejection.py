"""Finds the messages that made a peer refuse a batch: by halving, until each is alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from msgspec.structs import replace

from siemrelay.core.errors import BatchRefused, SinkHolds
from siemrelay.sinks.contract import Refusal, Session, Settlement

# When a peer refuses so many different events and takes none, the events are not the cause.
ALL_REFUSED: Final = 10


class _Piece(NamedTuple):
    """A part of a batch: from `start` to before `end`. `refused`: it holds a refused message.

    `twin_of`: of a second half, the refusal of both halves together. If the first half is taken,
    that refusal was about the second.
    """

    start: int
    end: int
    refused: BatchRefused | None = None
    twin_of: BatchRefused | None = None


class RejectionBreaker:
    """Decides whether a peer refuses single events or everything, like a wrong format's."""

    def __init__(self) -> None:
        self.proven = False
        """The peer has taken a message since it last refused everything."""
        self._refused_in_a_row = 0

    def note(self, taken: int, refusals: Settlement) -> None:
        """A run was settled. Raises SinkHolds when the peer has refused many and taken none."""
        if taken or any(refusal.duplicate for refusal in refusals):
            self.proven, self._refused_in_a_row = True, 0
            return
        self._refused_in_a_row += len(refusals)
        if self._refused_in_a_row >= ALL_REFUSED:
            self.proven = False
            last = refusals[-1]
            raise SinkHolds(
                f"the peer refused each of {ALL_REFUSED} events: {last.code} {last.reason}",
                advice="check `format` and the address: it seems to expect something else",
            )


async def isolate(
    session: Session, messages: Sequence[bytes], why: BatchRefused, *, proven: bool,
    progress: Callable[[], object] | None = None,
) -> tuple[list[Refusal], int]:  # fmt: skip
    """The refusals in a run that was refused as a whole, by index, and how many others were taken.

    The peer settles every message that is not refused on the way, in order. `proven`: it has taken
    something before, so its refusals are about events. From one that has not, `ALL_REFUSED` of them
    are enough: the rest is tried in large pieces only (they are halved afterwards if any is taken),
    so the answer "none" costs a wrong address or format some dozens of requests and not thousands.
    Refusals may then be fewer than the messages. Each was sent alone before it counts as refused.
    `progress` is called before each request: thousands of them may take longer than a sink may be
    silent (see `telemetry.health`).
    One culprit of n messages costs about 1.5 log2(n) requests (checked in test_rejection.py).
    Raises SinkWaits and SinkHolds as the session does.
    """
    refusals: list[Refusal] = []
    taken, later = 0, list[_Piece]()
    pieces = [_Piece(0, len(messages), why)]  # a stack, the earliest on top
    while pieces or (taken and later):
        start, end, refused, _ = pieces.pop() if pieces else later.pop(0)
        if refused is None:
            if progress is not None:
                progress()
            try:
                found = await session.confirm(await session.send(messages[start:end]))
            except BatchRefused as again:
                refused = again
                _tell_the_twin(pieces, end, whole=False)
            else:
                refusals += [replace(r, index=start + r.index) for r in found]
                taken += end - start - len(found)
                _tell_the_twin(pieces, end, whole=not found)
                continue
        if end - start == 1:
            refusals.append(Refusal(start, refused.code, refused.reason))
        elif taken or proven or len(refusals) < ALL_REFUSED:
            middle = (start + end) // 2
            pieces += [_Piece(middle, end, twin_of=refused), _Piece(start, middle)]
        else:
            later.append(_Piece(start, end, refused))
    return sorted(refusals, key=lambda refusal: refusal.index), taken


def _tell_the_twin(pieces: list[_Piece], end: int, *, whole: bool) -> None:
    """What the fate of the piece up to `end` says about the second half beside it, if it was a
    first one: taken whole, the refusal of both was about the second; else it says nothing.
    """
    if not pieces or pieces[-1].start != end or pieces[-1].twin_of is None:
        return
    twin = pieces.pop()
    # A single message is asked about by itself all the same: nothing is buried by inference.
    known = twin.twin_of if whole and twin.end - twin.start > 1 else None
    pieces.append(_Piece(twin.start, twin.end, known))

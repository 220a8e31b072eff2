"""Which messages of a refused run the peer means: halving, until each culprit stands alone.

After each culprit the rest is asked in pieces about as long as the culprits lie apart, and what
must hold one by inference is halved without being asked (F. K. Hwang, "A Method for Detecting All
Defective Members in a Population by Group Testing", 1972).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from siemrelay.errors import RunRefused, SinkHolds
from siemrelay.sinks.contract import Refusal, Session, Settlement

# When the peer refuses so many different events and takes none, it is not the events.
ALL_REFUSED: Final = 10


class Trust:
    """Whether a peer's refusals are about events, or about everything it is sent."""

    def __init__(self) -> None:
        self.proven = False
        """The peer has taken something since it last refused everything."""
        self._refused_in_a_row = 0

    def note(self, taken: int, refusals: Settlement) -> None:
        """A run was settled. Raises SinkHolds when the peer has refused many and taken none."""
        if taken:
            self.proven, self._refused_in_a_row = True, 0
            return
        self._refused_in_a_row += len(refusals)
        if self._refused_in_a_row >= ALL_REFUSED:
            self.proven = False
            said = refusals[-1]
            raise SinkHolds(
                f"the peer refused each of {ALL_REFUSED} events: {said.code} {said.reason}",
                advice="check `format` and the address: it seems to expect something else",
            )


async def isolate(
    session: Session, messages: Sequence[bytes], why: RunRefused, *, proven: bool
) -> tuple[list[Refusal], int]:
    """The refusals in a run that was refused as a whole, by index, and how many others were taken.

    The peer settles every message that is not refused on the way, in order. k culprits in n
    messages cost about k log2(n/k) requests. `proven`: it has taken something before, so its
    refusals are about events. From one that has not, `ALL_REFUSED` of them are enough: the rest is
    tried in ever larger pieces only (they are halved afterwards if any is taken), so the answer
    "none" costs a wrong address or format some dozens of requests and not thousands. Refusals may
    then be fewer than the messages. Raises SinkWaits and SinkHolds as the session does.
    """
    if len(messages) == 1:
        return [Refusal(0, why.code, why.reason)], 0
    refusals: list[Refusal] = []
    taken = 0
    pieces = [(0, len(messages))]  # each refused as a whole; grows by those that are put off
    for start, end in pieces:
        if start and not taken:
            break
        at, step = start, 1
        guilty = end  # something between `at` and here is refused, unless they are the same
        while at < end:
            suspected = guilty > at
            to = at + max((guilty - at) // 2, 1) if suspected else min(at + step, end)
            try:
                found = await session.confirm(await session.send(messages[at:to]))
            except RunRefused as refused:
                if to - at > 1 and (taken or proven or len(refusals) < ALL_REFUSED):
                    guilty = to
                    continue
                if to - at > 1:
                    pieces.append((at, to))
                else:
                    refusals.append(Refusal(at, refused.code, refused.reason))
                if taken or proven or len(refusals) < ALL_REFUSED:
                    # Of pieces two thirds as long as culprits lie apart, half are refused.
                    step = max(2 * to // (3 * len(refusals)), 1)
                else:
                    step = 2 * (to - at)
            else:
                refusals += [Refusal(at + r.index, r.code, r.reason) for r in found]
                taken += to - at - len(found)
                step = to - at if suspected else 2 * step
                if at == start:
                    # Perhaps the whole was refused for its size: the rest is not convicted yet.
                    guilty = to
            at = to
    return sorted(refusals, key=lambda refusal: refusal.index), taken

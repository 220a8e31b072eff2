"""Finds the messages for which a peer refused a batch, and the peer that refuses everything."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from siemrelay.core.errors import BatchRefused, SinkHolds
from siemrelay.sinks.contract import Refusal, Session, Settlement
from siemrelay.sinks.refusal_search import ALL_REFUSED, RefusalSearch


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
                advice="it seems to expect something else: check `format`, the address and, over "
                "HTTP, `compression`",
            )


async def isolate(
    session: Session, messages: Sequence[bytes], why: BatchRefused, *, proven: bool,
    progress: Callable[[], object] | None = None,
) -> tuple[list[Refusal], int]:  # fmt: skip
    """The refusals in a run that was refused as a whole, by index, and how many others were taken.

    The peer settles every message that is not refused on the way, in order. `proven`: it has taken
    something before, so its refusals are about events (see `RefusalSearch`).
    `progress` is called before each request: thousands of them may take longer than a sink may be
    silent (see `telemetry.health`).
    Raises SinkWaits and SinkHolds as the session does.
    """
    search = RefusalSearch(len(messages), proven=proven)
    search.next()  # the run itself
    search.refuse(why)
    while (part := search.next()) is not None:
        if progress is not None:
            progress()
        try:
            found = await session.confirm(await session.send(messages[slice(*part)]))
        except BatchRefused as again:
            search.refuse(again)
        else:
            search.take(found)
    return sorted(search.refusals, key=lambda refusal: refusal.index), search.taken

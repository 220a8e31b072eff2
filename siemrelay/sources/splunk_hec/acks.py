"""Acknowledgement ids for senders of HEC: issued, kept for a while, confirmed once.

Source: Splunk, "About HTTP Event Collector Indexer Acknowledgment".
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Iterable
from itertools import count
from typing import Final

import trio

from siemrelay.sources.contract import Intake

# Ids that no sender has asked about yet; they ask every few seconds. An id costs some 200 bytes.
_IDS: Final = 100_000


class SenderAcknowledgements:
    """The ids of one source's requests.

    A request is acknowledged when it is stored; with `delivered`, when every sink has settled its
    records: then `run` must run beside the server.
    """

    def __init__(self, intake: Intake, *, delivered: bool) -> None:
        self._intake, self._delivered = intake, delivered
        # Invariant: no number is given out twice, not even after a restart. Otherwise a sender that
        # still asks for an earlier one would take a later acknowledgement for its own. They begin
        # at the microseconds since the epoch, which senders that count in doubles can hold.
        # Checked by test_an_id_of_before_a_restart_is_never_taken_for_a_later_one.
        self._numbers = count(time.time_ns() // 1000)
        self._ids: OrderedDict[tuple[str, int], bool] = OrderedDict()
        self._pending: deque[tuple[int, tuple[str, int]]] = deque()
        self._more = trio.Event()

    @property
    def full(self) -> bool:
        """Whether too many requests wait for their delivery: take no more."""
        return len(self._pending) >= _IDS

    def issue(self, scope: str, stored: int) -> int:
        """A new id for one token on one channel, for records that `store` returned `stored` for."""
        number = next(self._numbers)
        key = (scope, number)
        self._ids[key] = not self._delivered
        if len(self._ids) > _IDS:
            self._ids.popitem(last=False)
        if self._delivered:
            self._pending.append((stored, key))
            self._more.set()
        return number

    def take(self, scope: str, ids: Iterable[int]) -> dict[str, bool]:
        """Which of the ids are acknowledged; those that are, are forgotten."""
        answer = {}
        for number in ids:
            acknowledged = self._ids.get((scope, number), False)
            if acknowledged:
                del self._ids[scope, number]
            answer[str(number)] = acknowledged
        return answer

    async def run(self) -> None:
        """Follow the delivery until cancelled. Ids wait in the order in which they were stored."""
        while True:
            await self._more.wait()
            while self._pending:
                stored, key = self._pending[0]
                await self._intake.delivered(stored)
                self._pending.popleft()
                if key in self._ids:
                    self._ids[key] = True
            self._more = trio.Event()

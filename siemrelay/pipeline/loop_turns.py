"""Divides the turns of the loop between sinks that format and everybody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from siemrelay.net.tasks import Mutex

TURNS: Final = 4
"""To accept a connection, read its request and answer it takes so many turns of the loop; to take a
worker's answer and give it the next batch, fewer.
"""

# In one turn of the loop all sinks together have so much formatted, which takes up to 20 ms: a
# hundred sinks of ten formats would keep a probe of `/healthz` waiting for seconds.
_TURN_BYTES: Final = 512 * 1024


class LoopTurns:
    """Lets a sink format when it is its turn."""

    def __init__(self) -> None:
        self._usual, self._long = Mutex(), trio.Lock()
        self._bytes = 0

    async def wait(self, size_bytes: int) -> None:
        """Let everybody else have a turn once `_TURN_BYTES` have been formatted in this one.

        Sinks that come meanwhile wait for the next turn, too; checked by
        test_many_sinks_format_little_in_one_turn_of_the_loop.
        """
        async with self._usual:
            self._bytes += size_bytes
            if self._bytes > _TURN_BYTES:
                self._bytes = size_bytes
                await trio.lowlevel.checkpoint()

    @asynccontextmanager
    async def for_long(self) -> AsyncIterator[None]:
        """For a batch of one long record: one at a time, and everybody else has turns before each.

        Checked by test_long_records_leave_turns_to_others.
        """
        async with self._long:
            for _ in range(TURNS):
                await trio.lowlevel.checkpoint()
            yield

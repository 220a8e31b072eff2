"""Reads the bodies of requests: decompresses and parses them while other tasks run.

A few KiB of gzip can inflate to millions of values. So bytes and records of a body are bounded, it
is parsed in slices between which other tasks run, and only one request of a source at a time works
on a slice; checked by test_no_body_keeps_the_others_waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Final, TypeVar

import trio

from siemrelay.net.body_memory import HeldBody
from siemrelay.net.http_application import Head
from siemrelay.wire.http_bodies import BodyTooLarge, decompressed, finish

T = TypeVar("T")

# Bodies up to here are read in one go, in well under a millisecond.
_SMALL_BYTES: Final = 4 * 1024

# Larger ones, after inflation, are read by two requests at a time: they hold up to `max_body` each,
# and as much again for their records.
_LARGE_BYTES: Final = 256 * 1024
_LARGE_AT_A_TIME: Final = 2

# Work on one body before other tasks have their turn.
_SLICE_S: Final = 0.005


class BodyReader:
    """Reads the bodies that come to one source; `most_bytes` is the limit of each, decompressed."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._turn = trio.Lock()
        self._large = trio.CapacityLimiter(_LARGE_AT_A_TIME)

    async def read(
        self, head: Head, body: HeldBody, parse: Callable[[bytes], Generator[None, None, T]]
    ) -> tuple[bytes, T]:
        """The decompressed body, and the result of `parse`, a computation in steps.

        Raises BodyTooLarge, OutOfMemory, BodyRefused for damaged compression, and what `parse`
        raises. If cancelled, nothing is left behind.
        """
        data, coding = body.data, content_coding(head)
        try:
            data = decompressed(data, coding, min(_LARGE_BYTES, self._most_bytes))
        except BodyTooLarge:
            if self._most_bytes <= _LARGE_BYTES:
                raise
        else:
            if len(data) <= _LARGE_BYTES:
                body.hold(2 * len(data) - len(body.data))
                return data, await self._in_turns(parse(data), len(data))
        async with self._large:
            if coding != "identity":
                body.hold(self._most_bytes)
                data = await trio.to_thread.run_sync(decompressed, data, coding, self._most_bytes)
                body.hold(len(data) - self._most_bytes)
            body.hold(len(data))
            return data, await self._in_turns(parse(data), len(data))

    async def _in_turns(self, steps: Generator[None, None, T], size: int) -> T:
        if size <= _SMALL_BYTES:
            return finish(steps)
        while True:
            async with self._turn:
                until = trio.current_time() + _SLICE_S
                found: list[T] = []
                while not found and trio.current_time() < until:
                    try:
                        next(steps)
                    except StopIteration as end:
                        found.append(end.value)
                # Held over a turn of the loop: of all requests one works between two turns.
                await trio.lowlevel.checkpoint()
                if found:
                    return found[0]


def content_coding(head: Head) -> str:
    """The value of Content-Encoding, in lower case, no spaces; `identity` without one."""
    value = head.fields.get("content-encoding", "identity")
    return value.replace(" ", "").casefold() or "identity"

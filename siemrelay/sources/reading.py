"""Reads what the tracked files have, in turns, and hands it to the intake."""

from __future__ import annotations

import time
from typing import Any, Final

import trio

from siemrelay.sources.content import GzipContent
from siemrelay.sources.contract import Intake, Records
from siemrelay.sources.following import ContentChanged, Followed, Run
from siemrelay.sources.recognition import Recognition
from siemrelay.sources.tracking import Tracking

# An incomplete last line of a rotated file is taken after being still for this long: a writer
# that has moved on does not come back to it, one that has not writes lines in one go.
_FRAGMENT_QUIET_S: Final = 1.0
# For how long an incomplete line may keep back the newer generation: order is worth a pause,
# not a standstill.
_FRAGMENT_HOLD_S: Final = 5.0
# A gzip file that ends too early is being written; one that is still for this long stays so.
_GZIP_QUIET_S: Final = 10.0


class Reading:
    """The files of one source on their way into the buffer."""

    def __init__(
        self, tracking: Tracking, recognition: Recognition, intake: Intake, log: Any, *, drain: bool
    ) -> None:
        self._tracking, self._recognition, self._intake = tracking, recognition, intake
        self._log, self._drain = log, drain
        self.waiting: set[str] = set()
        """Families in which something is due after a while, though nothing may be written."""

    async def store_positions(self) -> None:
        """Store the positions that changed though nothing was read."""
        if positions := tuple(self._recognition.to_store):
            await self._intake.offer(Records(b"", 0, positions))
            del self._recognition.to_store[: len(positions)]

    async def round(self) -> bool:
        """One turn for every family that may have something; whether anything was read.

        A turn is one read (1 MiB, or one long record) of the oldest generation that has
        something, so that a backlog in one log does not hold up the others.
        """
        moved = False
        for family in list(self._tracking.stirred):
            moved = await self._turn(family) or moved
        return moved

    async def _turn(self, family: str) -> bool:
        """The oldest generation first; the next one only when this one has nothing (more)."""
        self.waiting.discard(family)
        moved = False
        for followed in list(self._tracking.families.of(family)):
            # What is in a file that was not read yet may have been written after a copy of it
            # was made and it was emptied: then the copy comes first.
            if followed.identity.offset == 0 and self._tracking.has_news():
                return moved
            try:
                run = await self._read(followed)
            except ContentChanged:
                self._tracking.truncated(followed)
                return True
            except OSError as error:
                self._tracking.troubles.met(followed.path, error)
                followed.try_later()
                continue
            if run is not None:
                moved = True
                await self._hand_over(followed, run)
            if followed.ready:
                return moved
            self._tracking.settle(followed)
            if self._holds_back(followed):
                break
        self._tracking.stirred.pop(family, None)
        return moved

    async def _read(self, followed: Followed) -> Run | None:
        if followed.content is not None:
            # Also where nobody said that there is something new: the last lines of a rotated
            # file were written before the first ones of the next.
            followed.look()
        if followed.undecided and not await self._decided(followed):
            return None
        finish = self._may_finish(followed)
        if finish and followed.unread:
            followed.ready = True
        if not followed.ready:
            return None
        try:
            # What was written lately is in memory still: to take it is done sooner than a hop to a
            # thread, which on a busy machine waits for its turn there and back.
            run = followed.read_in_memory(finish=finish)
        except BlockingIOError:
            run = await trio.to_thread.run_sync(lambda: followed.read(finish=finish))
        self._tracking.troubles.over(followed.path)
        return run

    async def _decided(self, followed: Followed) -> bool:
        relatives = self._tracking.families.relatives(followed)
        return await trio.to_thread.run_sync(
            lambda: self._recognition.decide(followed, relatives, final=self._drain)
        )

    def _may_finish(self, followed: Followed) -> bool:
        """Whether to take an incomplete end as it is."""
        quiet_s = time.monotonic() - followed.changed_at
        if followed.compressed:
            return self._drain or quiet_s >= _GZIP_QUIET_S
        return self._drain or (followed.rotated_at is not None and quiet_s >= _FRAGMENT_QUIET_S)

    def _holds_back(self, followed: Followed) -> bool:
        """Whether newer generations must wait; notes when there is something to wait for."""
        if followed.undecided:
            self.waiting.add(followed.family)
            return followed.size > 0
        if not followed.unread:
            return False
        if followed.compressed:
            self.waiting.add(followed.family)
            return False
        if followed.rotated_at is None:
            return False
        self.waiting.add(followed.family)
        return time.monotonic() - followed.rotated_at < _FRAGMENT_HOLD_S

    async def _hand_over(self, followed: Followed, run: Run) -> None:
        identity = followed.identity
        for size in run.oversize:
            self._intake.oversize(size)
        # What is to be stored already goes first: it may hold an earlier position of this file.
        earlier = tuple(self._recognition.to_store)
        positions = (*earlier, identity.position())
        await self._intake.offer(
            Records(run.payload, run.count, positions, run.part, followed.mtime_s)
        )
        del self._recognition.to_store[: len(earlier)]
        if identity.finished_size is not None:
            damage = followed.content.damage if isinstance(followed.content, GzipContent) else None
            if damage is not None:
                self._log.error(
                    "damaged gzip file, took what could be read", path=identity.path, damage=damage
                )
            else:
                self._log.info("finished", path=identity.path)
            followed.close()

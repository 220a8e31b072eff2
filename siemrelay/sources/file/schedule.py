"""Orders the reads: the generations of each log one after the other; bounds open descriptors."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from siemrelay.sources.file.reader import FollowedFile
from siemrelay.sources.file.reconcile import Stage

# Descriptors held for files that were read to their end. With the usual limit of 1024 a process
# this leaves three quarters to connections; files beyond it are opened again when they grow.
MAX_OPEN_FILES: Final = 256
# An incomplete last line of a rotated file is taken after being still for this long: a writer
# that has moved on does not come back to it, one that has not writes lines in one go.
_FRAGMENT_QUIET_S: Final = 1.0
# For how long an incomplete line may keep back the newer generation: order is worth a pause,
# not a standstill.
_FRAGMENT_HOLD_S: Final = 5.0
# A compressed file that ends too early is being written; one that is still for this long stays so.
_COMPRESSED_QUIET_S: Final = 10.0
# A look at every file is followed by a pause this many times as long as it took: with thousands
# of files it takes no more than 1 % of a core, while inotify reports what happens.
_PAUSE_PER_FULL_SURVEY: Final = 100
# And on a machine where it takes no time there are no more looks a second than this: a core that
# idles may sleep.
_FILES_PER_S: Final = 1000
# And it is so many times less often while events have reported everything.
_RARER: Final = 5


def pause_after_full_survey(
    files: int, took_s: float, poll_s: float, *, events_suffice: bool = False
) -> float:
    """Seconds until the next look at every file."""
    least_s = poll_s * (_RARER if events_suffice else 1)
    return max(least_s, _PAUSE_PER_FULL_SURVEY * took_s, files / _FILES_PER_S)


def max_held_files() -> int:
    """Descriptors for files that still have something to read: half of what a process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(MAX_OPEN_FILES, soft // 2)


class Schedule:
    """Followed files by family, oldest first. One task at a time uses it, on any thread.

    A file that has unread bytes stays open, so that its deletion takes nothing away, as long as
    there are no more than `max_held_files` of them.
    """

    def __init__(
        self, log: Any, *, drain: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log, self._drain, self._clock = log, drain, clock
        self._families: dict[str, list[FollowedFile]] = {}
        self._ready: dict[str, None] = {}
        self.later: set[str] = set()
        """Families with something that will be due after a while, though nothing may be written."""
        self._idle_open: dict[FollowedFile, None] = {}
        """Open files with nothing to read, the one read last at the end."""
        self._max_held = max_held_files()
        self._bound_noted = False

    @property
    def ready(self) -> Sequence[str]:
        """The families that may have something to read."""
        return list(self._ready)

    def family(self, name: str) -> Sequence[FollowedFile]:
        """The generations of one log, oldest first."""
        return self._families.get(name, ())

    def add(self, file: FollowedFile) -> None:
        """Put a file behind the others of its family, once."""
        members = self._families.setdefault(file.family, [])
        if file not in members:
            members.append(file)
        self.wake(file)

    def take_unread(self, family: str) -> list[FollowedFile]:
        """Take out those of which nothing was read yet, to be put back in order by `add`."""
        members = self._families.get(family, [])
        unread = [file for file in members if file.progress.offset == 0]
        members[:] = [file for file in members if file not in unread]
        return unread

    def remove(self, file: FollowedFile) -> None:
        members = self._families[file.family]
        members.remove(file)
        self._idle_open.pop(file, None)
        if not members:
            del self._families[file.family]
            self._ready.pop(file.family, None)
            self.later.discard(file.family)

    def wake(self, file: FollowedFile) -> None:
        """The file may have something to read."""
        self._ready[file.family] = None

    def wake_later(self) -> None:
        """Ask again for what is due without anything being written."""
        self._ready.update(dict.fromkeys(self.later))

    def is_rotated(self, file: FollowedFile) -> bool:
        """Whether a newer generation has taken its place, or it has left."""
        newer = any(
            other.age > file.age and not other.compressed
            for other in reversed(self.family(file.family))  # the newest answers at once
        )
        return newer or file.deleted or not file.matched

    def next_read(self, family: str, *, survey_due: bool) -> tuple[FollowedFile, bool] | None:
        """The file to read now, and whether to take an incomplete end as it is; None if none.

        It is the oldest generation that has something. What is in a file of which nothing was
        read may have been written after a copy of it was made and it was emptied: with
        `survey_due` it is left for after the survey, which finds that copy.
        """
        self.later.discard(family)
        for file in list(self._families.get(family, ())):
            if file.stage is Stage.COPY or file.failed:
                continue
            if file.progress.offset == 0 and survey_due:
                return None
            if file.stage is Stage.WAITING:
                if file.origin is None and file.size > 0:
                    self.later.add(family)
                    break
                continue
            # Also where no event says so: the last lines of a rotated file were written before
            # the first ones of the next.
            file.look()
            finish = self._may_finish(file)
            if (finish and file.unread) or file.is_settling:
                file.ready = True
            if file.ready or file.changed:
                return file, finish
            self._settle(file)
            if file.waits:
                self.later.add(family)
            if self._holds_back(file):
                break
        self._ready.pop(family, None)
        return None

    def is_over(self, file: FollowedFile) -> bool:
        """Whether it is all that its family has, and was read to its end as last seen; then the
        family has no turn until an event wakes it. Another look would cost a tenth of a lone line.
        """
        # A compressed file, and one that ends in NULs, gets another look instead.
        is_read = file.progress.offset >= file.size and file.compression is None
        if not is_read or len(self._families[file.family]) > 1:
            return False
        self._settle(file)
        self._ready.pop(file.family, None)
        return True

    def _may_finish(self, file: FollowedFile) -> bool:
        if self._drain:
            return True
        if file.compression is not None:
            return self._clock() - file.changed_at >= _COMPRESSED_QUIET_S
        if file.rotated_at is None:
            return False
        return self._clock() - file.changed_at >= _FRAGMENT_QUIET_S

    def _holds_back(self, file: FollowedFile) -> bool:
        """Whether newer generations must wait; notes when there is something to wait for."""
        if not file.unread:
            return False
        if file.compressed:
            self.later.add(file.family)
            return False
        if file.rotated_at is None:
            return False
        self.later.add(file.family)
        return self._clock() - file.rotated_at < _FRAGMENT_HOLD_S

    def _settle(self, file: FollowedFile) -> None:
        """It has nothing more for now; the one that is unused for longest may be closed."""
        self._idle_open.pop(file, None)
        if file.content is not None:
            self._idle_open[file] = None
        if len(self._idle_open) > MAX_OPEN_FILES:
            for oldest in list(self._idle_open):
                # Only their descriptors lead to files that were deleted or moved away.
                if not oldest.deleted and oldest.matched and not oldest.unread:
                    del self._idle_open[oldest]
                    oldest.close()
                    break
            else:
                self._note_bound()

    def expendable(self) -> Iterator[FollowedFile]:
        """Deleted files, read to their end, beyond what may be open; the oldest first."""
        for file in list(self._idle_open)[:-MAX_OPEN_FILES]:
            if file.deleted and not file.unread:
                yield file

    def may_hold(self, open_files: int) -> bool:
        """Whether one more file that has something to read may be open."""
        if open_files < self._max_held:
            return True
        self._note_bound()
        return False

    def _note_bound(self) -> None:
        if not self._bound_noted:
            self._bound_noted = True
            self._log.warning(
                "too many files are open; further ones are opened in their turn, and what is "
                "deleted before that is lost",
                open_files=self._max_held,
                advice="raise LimitNOFILE",
            )

"""Which sinks are paused, by whom and since when: kept in `state_dir`, so a restart keeps it.

A pause is a person's decision: neither a crash nor the watchdog may undo it, and a receiver that
must get nothing now gets nothing after a reboot either.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import msgspec
import structlog

from siemrelay.buffer.threads import in_thread
from siemrelay.core.times import rfc3339
from siemrelay.durable_files import replace_file
from siemrelay.net.tasks import next_second

_log = structlog.get_logger()

_NAME: Final = "paused.json"

# How often a pause that could not be stored is tried again.
_STORE_AGAIN_S: Final = 2


class Pause(msgspec.Struct, frozen=True):
    """The person who paused a sink, and the time in seconds since the epoch."""

    by: str
    at: float


class Pauses:
    """The paused sinks by name."""

    def __init__(self, state_dir: Path) -> None:
        """Read what an earlier process kept. A file that cannot be read is logged and ignored."""
        self._path = state_dir / _NAME
        self._pauses: dict[str, Pause] = {}
        self._storing = threading.Lock()
        self._unstored: str | None = None
        try:
            self._pauses = msgspec.json.decode(self._path.read_bytes(), type=dict[str, Pause])
        except FileNotFoundError:
            pass
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            _log.error("cannot read which sinks are paused; none is now", file=str(self._path),
                       reason=str(error), advice="pause them again")  # fmt: skip

    def __contains__(self, sink: str) -> bool:
        return sink in self._pauses

    def reason(self, sink: str) -> str:
        """The text that says by whom and when the sink was paused, and how to resume it."""
        pause = self._pauses[sink]
        return f"paused by {pause.by} at {rfc3339(pause.at)}; `siemrelay resume {sink}` resumes it"

    def since(self, sink: str) -> float:
        """When the sink was paused, in seconds since the epoch."""
        return self._pauses[sink].at

    async def add(self, sink: str, by: str) -> str | None:
        """Note a pause. Returns why it is not on disk yet; None if it is.

        It holds for this process in any case, and `run` stores it once that is possible: a full
        disk must not keep anybody from stopping a delivery.
        """
        self._pauses = {**self._pauses, sink: Pause(by, time.time())}
        return await in_thread(self._store)

    async def remove(self, sink: str) -> str | None:
        """Forget a pause, as `add`."""
        self._pauses = {name: pause for name, pause in self._pauses.items() if name != sink}
        return await in_thread(self._store)

    async def keep_only(self, sinks: Collection[str]) -> None:
        """Forget the pauses of sinks that are gone, as `add`."""
        if self._pauses.keys() - set(sinks):
            self._pauses = {name: p for name, p in self._pauses.items() if name in sinks}
            await in_thread(self._store)

    def take_over(self, renamed: Mapping[str, str]) -> None:
        """Pause sinks by their new names that were paused by their old ones, as `add`.

        Writes to the disk.
        """
        if self._pauses.keys() & renamed.keys():
            self._pauses = {renamed.get(name, name): pause for name, pause in self._pauses.items()}
            self._store()

    async def run(self) -> None:
        """Store what could not be stored, as soon as that is possible, until cancelled."""
        while True:
            await next_second(_STORE_AGAIN_S)
            await self.store_pending()

    async def store_pending(self) -> None:
        """Store what could not be stored, if anything could not, and now can be."""
        if self._unstored:
            await in_thread(self._store)

    def _store(self) -> str | None:
        with self._storing:  # the latest state wins, whichever thread comes last
            try:
                replace_file(self._path, msgspec.json.encode(self._pauses))
            except OSError as error:
                reason = error.strerror or str(error)
                if self._unstored != reason:
                    _log.error(
                        "cannot store which sinks are paused", file=str(self._path),
                        reason=reason, advice="a restart before it is stored undoes the last pause "
                        "or resume; it is tried again until it succeeds",
                    )  # fmt: skip
                self._unstored = reason
            else:
                if self._unstored:
                    _log.info("stored which sinks are paused", file=str(self._path))
                self._unstored = None
            return self._unstored

"""Which sinks are paused, by whom and since when: kept in `state_dir`, so a restart keeps it.

A pause is a person's decision: neither a crash nor the watchdog may undo it, and a receiver that
must get nothing now gets nothing after a reboot either.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import structlog

from siemrelay.buffer.threads import in_thread
from siemrelay.core.times import rfc3339

_log = structlog.get_logger()

_NAME: Final = "paused.json"


class Pause(msgspec.Struct, frozen=True):
    """Who paused a sink, and when, in seconds since the epoch."""

    by: str
    at: float


class Pauses:
    """The paused sinks by name."""

    def __init__(self, state_dir: Path) -> None:
        """Read what an earlier process kept. A file that cannot be read is logged and ignored."""
        self._path = state_dir / _NAME
        self._pauses: dict[str, Pause] = {}
        try:
            self._pauses = msgspec.json.decode(self._path.read_bytes(), type=dict[str, Pause])
        except FileNotFoundError:
            pass
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            _log.error("which sinks are paused cannot be read; none is", file=str(self._path),
                       reason=str(error), advice="pause them again")  # fmt: skip

    def __contains__(self, sink: str) -> bool:
        return sink in self._pauses

    def reason(self, sink: str) -> str:
        """Who paused the sink, when, and how to resume it."""
        pause = self._pauses[sink]
        return f"paused by {pause.by} at {rfc3339(pause.at)}; `siemrelay resume {sink}` resumes it"

    def since(self, sink: str) -> float:
        """When the sink was paused, in seconds since the epoch."""
        return self._pauses[sink].at

    async def add(self, sink: str, by: str) -> None:
        """Note a pause; on disk when it returns. Raises OSError, then nothing is noted."""
        await self._replace({**self._pauses, sink: Pause(by, time.time())})

    async def remove(self, sink: str) -> None:
        """Forget a pause, as `add`."""
        await self._replace({name: p for name, p in self._pauses.items() if name != sink})

    async def keep_only(self, sinks: Collection[str]) -> None:
        """Forget the pauses of sinks that are gone, as `add`."""
        if self._pauses.keys() - set(sinks):
            await self._replace({name: p for name, p in self._pauses.items() if name in sinks})

    def take_over(self, renamed: Mapping[str, str]) -> None:
        """Pause sinks by their new names that were paused by their old ones. Writes to the disk.

        Where that is impossible the pause holds for this process, and the error is logged.
        """
        if not self._pauses.keys() & renamed.keys():
            return
        self._pauses = {renamed.get(name, name): pause for name, pause in self._pauses.items()}
        try:
            self._write(msgspec.json.encode(self._pauses))
        except OSError as error:
            _log.error("a pause cannot be stored under the new name of its sink", reason=str(error),
                       advice="pause the sink again after a restart")  # fmt: skip

    async def _replace(self, pauses: dict[str, Pause]) -> None:
        await in_thread(self._write, msgspec.json.encode(pauses))
        self._pauses = pauses

    def _write(self, data: bytes) -> None:
        new = self._path.with_suffix(".new")
        try:
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError:
            with suppress(OSError):
                new.unlink()
            raise
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

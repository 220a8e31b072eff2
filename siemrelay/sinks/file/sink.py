"""Files out: an archive with one message per line, confirmed when it is on disk."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Literal

import structlog
import trio
from pydantic import AfterValidator, Field

from siemrelay.core.options import Options, Size, absolute
from siemrelay.net.tasks import beside
from siemrelay.sinks.contract import ProtocolKind, Report, Settlement, no_report
from siemrelay.sinks.file.rotation import Interval, period, rotate, tidy
from siemrelay.sinks.file.writer import ArchiveFile, fault
from siemrelay.wire.stream_framing import newline

_log = structlog.get_logger()

# Smaller files would be thousands.
_LEAST_ROTATE_BYTES: Final = 64 * 1024


def _path(value: Path) -> Path:
    if absolute(value).suffix == ".gz":
        raise ValueError("the current file is not compressed; it gets .gz when it is rotated")
    return value


def _size(value: int) -> int:
    if 0 < value < _LEAST_ROTATE_BYTES:
        raise ValueError("must be at least 64KiB, or 0 for no limit")
    return value


class ArchiveOptions(Options):
    """Options of `protocol: file`."""

    path: Annotated[Path, AfterValidator(_path)] = Field(
        description="the current file; earlier ones are beside it, named for the time (UTC) when "
        "they ended"
    )
    rotate_size: Annotated[Size, AfterValidator(_size)] = Field(
        100 << 20,
        description="start a new file before this one is larger; 0: never because of its size",
    )
    rotate_interval: Interval = Field(
        "none", description="start a new file every hour or day (UTC) that has events"
    )
    keep_files: int | None = Field(
        None, ge=1, description="how many rotated files are kept; all of them by default"
    )
    compression: Literal["none", "gzip"] = Field("none", description="of rotated files")


class ArchiveSink:
    """Messages as lines in a rotating file."""

    def __init__(self, options: ArchiveOptions) -> None:
        self._options = options

    @asynccontextmanager
    async def session(self, report: Report = no_report) -> AsyncIterator[ArchiveSession]:
        """See `sinks.contract.Sink`."""
        file = await trio.to_thread.run_sync(ArchiveFile, self._options.path)
        report("connect", str(file.path))
        session = ArchiveSession(file, self._options, report)
        try:
            async with beside(session.keep_tidy):
                yield session
        finally:
            session.file.close()


class ArchiveSession:
    """See `sinks.contract.Session`. A ticket is the number of bytes written, so one fsync confirms
    every batch that was written before it.
    """

    def __init__(self, file: ArchiveFile, options: ArchiveOptions, report: Report) -> None:
        self.file = file
        self._options, self._report = options, report
        self._written = self._synced = 0
        # Held while the file is synced or replaced, but not while it is appended to.
        self._whole = trio.Lock()
        self._rotated = trio.Event()

    async def send(self, messages: Sequence[bytes]) -> int:
        data, now = newline(messages), time.time()
        if self._due(len(data), now):
            async with self._whole:
                await trio.to_thread.run_sync(self._rotate, data)
                self._synced = self._written
            self._rotated.set()
        await trio.to_thread.run_sync(self.file.append, data, now)
        self._written += len(data)
        self._report("send", f"{len(data)} bytes")
        return self._written

    async def confirm(self, ticket: int) -> Settlement:
        async with self._whole:
            if self._synced < ticket:
                before = self._written
                await trio.to_thread.run_sync(self.file.sync)
                self._synced = before
        self._report("answer", "the file is on disk (fsync)")
        return ()

    async def keep_tidy(self) -> None:
        """Compress and delete rotated files, now and after each rotation. Never returns."""
        options = self._options
        compress = options.compression == "gzip"
        work = partial(tidy, options.path, compress=compress, keep_files=options.keep_files)
        while True:
            if self.file.alone and (compress or options.keep_files):
                try:
                    await trio.to_thread.run_sync(work)
                except OSError as error:
                    _log.warning("rotated files are left as they are until the next rotation",
                                 path=str(options.path), reason=str(error))  # fmt: skip
            await self._rotated.wait()
            self._rotated = trio.Event()

    def _due(self, more_bytes: int, now: float) -> bool:
        file, options = self.file, self._options
        size = file.size_bytes
        if not size or not file.alone:
            return False
        if options.rotate_size and size + more_bytes > options.rotate_size:
            return True
        interval = options.rotate_interval
        return period(interval, now) != period(interval, file.written_at)

    def _rotate(self, following_data: bytes) -> None:
        self.file.settle_end(following_data)
        # Its last lines are not confirmed yet, and nothing syncs it after the rename.
        self.file.sync()
        try:
            rotate(self.file.path, self.file.written_at)
        except OSError as error:
            raise fault(self.file.path, error) from error
        following = ArchiveFile(self.file.path)
        self.file.close()
        self.file = following


FILE: Final = ProtocolKind(
    ArchiveOptions, ArchiveSink, "json", "lines in a rotating file, confirmed by fsync"
)

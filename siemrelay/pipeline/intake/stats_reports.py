"""What a source reports of itself goes into its statistics, which metrics and status show."""

from __future__ import annotations

from typing import Final

import structlog
import trio

from siemrelay.telemetry.stats import SourceStats

_log = structlog.get_logger()

# Every long record is counted; one in so many seconds is logged.
_LOG_EVERY_S: Final = 10.0


class StatsReports:
    """Implements `sources.contract.SourceReports` for one source."""

    def __init__(self, stats: SourceStats) -> None:
        self._stats = stats
        self._logged_oversize_at = -_LOG_EVERY_S

    def lag(self, lag_bytes: int) -> None:
        self._stats.lag_bytes = lag_bytes
        self._stats.progress_at = trio.current_time()

    def progress(self) -> None:
        self._stats.progress_at = trio.current_time()

    def oversize(self, size_bytes: int) -> None:
        self._stats.oversize += 1
        if trio.current_time() - self._logged_oversize_at < _LOG_EVERY_S:
            return
        self._logged_oversize_at = trio.current_time()
        _log.warning("record over max_record_size kept whole", source=self._stats.name,
                     bytes=size_bytes, so_far=self._stats.oversize)  # fmt: skip

    def lost(self, records: int) -> None:
        self._stats.upstream_dropped += records

    def refused(self, reason: str, records: int = 1) -> None:
        self._stats.refused[reason] = self._stats.refused.get(reason, 0) + records

    def following(self, files: int) -> None:
        self._stats.files = files

    def unreadable(self, files: int, why: str) -> None:
        self._stats.unreadable(files, why)

    def blocked(self, why: str) -> None:
        self._stats.blocked(why)

    def lost_bytes(self, unread: int) -> None:
        self._stats.lost_bytes += unread

    def skipped_nuls(self, count: int) -> None:
        self._stats.skipped_nuls += count

    def connected(self, change: int) -> None:
        self._stats.connections += change

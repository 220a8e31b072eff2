"""Asks an authority for time stamps (RFC 3161) of one sink's seals, apart from their way.

A seal waits for no stamp: it is sent, and stamped when its receiver has confirmed it. The stamp is
kept in the archive, and the next seal of the stream carries it to the receiver.
"""

from __future__ import annotations

import random
import time
from math import inf
from typing import Final

import msgspec
import structlog
import trio

from siemrelay.buffer.threads import in_thread
from siemrelay.core.backoff import delay_s
from siemrelay.core.errors import DeliveryError
from siemrelay.pipeline.sealing.archive import SealArchive
from siemrelay.pipeline.sealing.options import TimestampOptions
from siemrelay.proof.seal import Timestamp, note_of
from siemrelay.proof.timestamps import TimestampRequest
from siemrelay.sinks.contract import no_report
from siemrelay.sinks.http.client import RequestSink
from siemrelay.sinks.http.options import RequestOptions
from siemrelay.telemetry.stats import SinkStats, TimestampStatus

_log = structlog.get_logger()

_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 600.0


class _Wanted(msgspec.Struct, frozen=True):
    number: int
    text: str


class Timestamper:
    """Has the latest confirmed seal stamped, every so often. `run` it beside the delivery."""

    def __init__(self, sink: str, options: TimestampOptions, stats: SinkStats) -> None:
        self._sink, self._options, self._stats = sink, options, stats
        chosen = {name: getattr(options, name) for name in ("authorization", "timeout", "tls")}
        self._requests = RequestSink(RequestOptions().model_copy(update=chosen))
        self._archive: SealArchive | None = None
        self._waiting: _Wanted | None = None
        self._made: tuple[str, Timestamp] | None = None
        self._next_at_s, self._more = 0.0, trio.Event()
        stats.timestamps = TimestampStatus()

    async def begin(self, archive: SealArchive) -> None:
        """A stream begins, or goes on after a restart: its last seal may want a stamp."""
        self._archive, self._waiting = archive, None
        last_at, seal = await in_thread(archive.unstamped)
        self._stats.timestamps = TimestampStatus(last_at)
        wait_s = 0.0 if last_at is None else last_at + self._options.every - time.time()
        self._next_at_s = trio.current_time() + min(max(wait_s, 0.0), self._options.every)
        if seal is not None:
            self.confirmed(seal.number, seal.text)

    def confirmed(self, number: int, text: str) -> None:
        """The receiver has this seal: it takes the place of an earlier one that still waits."""
        self._waiting = _Wanted(number, text)
        self._more.set()

    def to_carry(self, stream: str) -> Timestamp | None:
        """The stamp that the next seal of that stream carries, once."""
        made, self._made = self._made, None
        return made[1] if made is not None and made[0] == stream else None

    async def run(self) -> None:
        """Ask for stamps as they are wanted, until cancelled; retries with back-off, for ever."""
        failures = 0
        while True:
            seal, archive, self._more = self._waiting, self._archive, trio.Event()
            if seal is None or archive is None or trio.current_time() < self._next_at_s:
                with trio.move_on_at(inf if seal is None else self._next_at_s):
                    await self._more.wait()
                continue
            try:
                await self._stamp(seal, archive)
            except (DeliveryError, ValueError) as error:
                failures += 1
                pause_s = delay_s(failures, _FIRST_PAUSE_S, _LONGEST_PAUSE_S, random=random.random)
                self._next_at_s = trio.current_time() + pause_s
                self._failed(str(error))
                continue
            failures = 0
            self._next_at_s = trio.current_time() + self._options.every
            if self._waiting is seal:
                self._waiting = None

    async def _stamp(self, seal: _Wanted, archive: SealArchive) -> None:
        """Raises DeliveryError without an answer, ValueError for one that is no stamp."""
        # In a thread: the package that reads stamps is slow to import.
        request = await in_thread(TimestampRequest.of, note_of(seal.text))
        async with self._requests.client(no_report) as client:
            answer = await client.post(
                self._options.url, request.body, "application/timestamp-query", compress=False
            )
        if answer.status != 200:
            raise ValueError(str(answer))
        at = request.accept(answer.body).timestamp()
        stamp = Timestamp(seal.number, answer.body)
        await in_thread(archive.add_timestamp, stamp, at)
        self._made = archive.stream, stamp
        if self._status.fault:
            _log.info("seals get time stamps again", sink=self._sink)
        self._stats.timestamps = TimestampStatus(at)

    @property
    def _status(self) -> TimestampStatus:
        return self._stats.timestamps or TimestampStatus()

    def _failed(self, reason: str) -> None:
        if not self._status.fault:
            _log.warning("a seal gets no time stamp yet; seals and events go on without",
                         sink=self._sink, url=self._options.url, reason=reason,
                         advice="it is asked for again; is `timestamp` the address of an RFC 3161 "
                         "authority, and may this machine reach it?")  # fmt: skip
        self._stats.timestamps = TimestampStatus(self._status.at, reason)

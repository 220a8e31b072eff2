"""The newest stored events, for the status page: read on request, not as they arrive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.core.event import AuditEvent, Batch
from siemrelay.decoders.contract import Decoder
from siemrelay.formats.writing.text import sanitize_for_display
from siemrelay.telemetry.log import Redactor
from siemrelay.telemetry.page import RecentEvent, RecentReport

_EVENTS: Final = 20

# However many requests there are.
_EVERY_S: Final = 1.0

_CHARACTERS: Final = 300


class RecentEvents:
    """Reads and decodes the newest events, at most once a second."""

    def __init__(
        self, buffer: DiskBuffer, decoder: Callable[[str], Decoder], redactor: Redactor, *,
        contents: bool,
    ) -> None:  # fmt: skip
        """`contents`: with actor, target and message, not just source and type."""
        self._buffer, self._decoder, self._redactor = buffer, decoder, redactor
        self._report = RecentReport(contents, [])
        self._reading, self._end, self._read_at = trio.Lock(), -1, float("-inf")

    async def report(self) -> RecentReport:
        """The newest events, the latest first."""
        async with self._reading:
            now, end = trio.current_time(), self._buffer.end
            if end != self._end and now - self._read_at >= _EVERY_S:
                wanted = set(range(max(end - _EVENTS, self._buffer.oldest), end))
                found = await self._buffer.records(wanted)
                contents = self._report.contents
                events = [self._event(batch, contents) for _, batch in sorted(found.items())]
                self._report = RecentReport(contents, events[::-1])
                self._end, self._read_at = end, now
        return self._report

    def _event(self, batch: Batch, contents: bool) -> RecentEvent:
        (event,) = self._decoder(batch.source).decode(batch).events
        shown = self._contents(event) if contents else ("", "", "")
        return RecentEvent(
            batch.received_at, batch.source, batch.first_sequence, self._clean(event.type),
            event.outcome or "", *shown,
        )  # fmt: skip

    def _contents(self, event: AuditEvent) -> tuple[str, str, str]:
        actor = event.actor.name or event.actor.id or event.actor.address
        target = event.target.name or event.target.id
        return self._clean(actor), self._clean(target), self._clean(event.message)

    def _clean(self, text: str | None) -> str:
        return sanitize_for_display(self._redactor.text(text or ""), _CHARACTERS)

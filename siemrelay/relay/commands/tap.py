"""One `siemrelay tap`: live events as decoded and as sent, for a person at a terminal.

Watching must not change what is watched: the calls from the pipeline only note references, within
bounds; the tap's own task decodes and writes. What is over the bounds, because events come faster
than a person can read or because the client does not read, is left out and counted.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from typing import Final, NamedTuple

import trio

from siemrelay.core.event import Batch, DecodedBatch, Selection
from siemrelay.core.filters import EventFilter
from siemrelay.decoders.contract import Decoder
from siemrelay.formats.contract import Format
from siemrelay.pipeline.batching import DeliveryBatch
from siemrelay.relay.control import Emit, TapLine
from siemrelay.sinks.contract import Settlement
from siemrelay.telemetry.log import Redactor

# Far more than a person reads, and so few that decoding them once more costs some hundredths of a
# processor. A second's worth may come at once.
_RECORDS_PER_S: Final = 1000

# Records and messages that wait to be shown.
_WAITING_BYTES: Final = 4 << 20

# What was left out is said this often.
_REPORT_EVERY_S: Final = 1.0

# One long message must not fill the socket: enough to see what it is.
_SHOWN_CHARACTERS: Final = 16 * 1024


class _Sent(NamedTuple):
    sink: str
    messages: dict[int, bytes]


class Tap:
    """Implements `pipeline.observer.Observer`. `run` shows what it notes."""

    def __init__(
        self, sinks: Set[str], sources: Set[str], events: EventFilter,
        decoder: Callable[[str], Decoder], form: Format, redactor: Redactor,
        records: Callable[[Set[int]], Awaitable[Mapping[int, Batch]]],
    ) -> None:  # fmt: skip
        """Empty sets mean all. With `sinks` only what they are sent is shown.

        `decoder` reads a source's records with every field, `form` writes an event as JSON,
        `records` reads stored records.
        """
        self._sinks, self._sources, self._events = sinks, sources, events
        self._decoder, self._form, self._redactor, self._records = decoder, form, redactor, records
        self._noted: deque[tuple[Batch | _Sent, int]] = deque()
        self._waiting_bytes = self._lost = 0
        self._allowance, self._allowed_at = float(_RECORDS_PER_S), trio.current_time()
        self._more = trio.Event()

    # -- called by the pipeline -------------------------------------------

    def stored(self, batches: Sequence[Batch]) -> None:
        if self._sinks:
            return
        for batch in batches:
            if not self._sources or batch.source in self._sources:
                if self._takes(batch.count, len(batch.payload)) == batch.count:
                    self._note(batch, len(batch.payload))
                else:
                    self._lose(batch.count)

    def sent(self, sink: str, batch: DeliveryBatch) -> None:
        if self._sinks and sink not in self._sinks:
            return
        size_bytes = batch.size_bytes
        taken = self._takes(len(batch.messages), size_bytes)
        self._lose(len(batch.messages) - taken)
        if taken:
            messages = zip(batch.sequences[:taken], batch.messages, strict=False)
            self._note(_Sent(sink, dict(messages)), size_bytes)

    def settled(self, sink: str, batch: DeliveryBatch, refusals: Settlement) -> None:
        pass

    def _takes(self, records: int, size_bytes: int) -> int:
        """How many of so many records may be noted now."""
        now = trio.current_time()
        more = (now - self._allowed_at) * _RECORDS_PER_S
        self._allowance, self._allowed_at = min(self._allowance + more, _RECORDS_PER_S), now
        if self._waiting_bytes + size_bytes > _WAITING_BYTES and self._noted:
            return 0
        taken = min(records, int(self._allowance))
        self._allowance -= taken
        return taken

    def _lose(self, records: int) -> None:
        self._lost += records
        self._more.set()

    def _note(self, what: Batch | _Sent, size_bytes: int) -> None:
        self._noted.append((what, size_bytes))
        self._waiting_bytes += size_bytes
        self._more.set()

    # -- the tap's own task -----------------------------------------------

    async def run(self, emit: Emit) -> None:
        """Show what is noted until cancelled; `emit` may take as long as it likes."""
        report_at = -math.inf
        while True:
            if self._lost and trio.current_time() >= report_at:
                lost, self._lost = self._lost, 0
                report_at = trio.current_time() + _REPORT_EVERY_S
                await emit(TapLine("left out", time.time(), lost=lost))
            if not self._noted:
                with trio.move_on_at(report_at if self._lost else math.inf):
                    await self._more.wait()
                self._more = trio.Event()
                continue
            what, size_bytes = self._noted[0]
            for line in self._stored(what) if isinstance(what, Batch) else await self._sent(what):
                await emit(line)
            self._noted.popleft()
            self._waiting_bytes -= size_bytes

    def _stored(self, batch: Batch) -> list[TapLine]:
        decoded = self._decoder(batch.source).decode(batch)
        keep = self._events.select(decoded.events)
        selection = Selection(decoded, keep)
        return [
            self._line("decoded", batch.source, "", sequence, event.type, text)
            for sequence, event, text in zip(
                selection.sequences, selection.events, self._form.encode(selection), strict=True
            )
        ]

    async def _sent(self, sent: _Sent) -> list[TapLine]:
        lines = []
        records = await self._records(sent.messages.keys())
        for sequence, message in sent.messages.items():
            if (record := records.get(sequence)) is None:
                continue  # delivered and deleted meanwhile
            if self._sources and record.source not in self._sources:
                continue
            decoded: DecodedBatch = self._decoder(record.source).decode(record)
            if self._events.select(decoded.events) in (None, [True]):
                event = decoded.events[0]
                if self._sinks:
                    (text,) = self._form.encode(Selection(decoded))
                    lines.append(
                        self._line("decoded", record.source, "", sequence, event.type, text)
                    )
                lines.append(
                    self._line("sent", record.source, sent.sink, sequence, event.type, message)
                )
        return lines

    def _line(
        self, what: str, source: str, sink: str, sequence: int, event_type: str, text: bytes
    ) -> TapLine:
        shown = self._redactor.text(text.decode("utf-8", "replace"))
        if len(shown) > _SHOWN_CHARACTERS:
            shown = f"{shown[:_SHOWN_CHARACTERS]} ... ({len(text):,} bytes)"
        return TapLine(what, time.time(), source, sink, sequence, event_type, shown)

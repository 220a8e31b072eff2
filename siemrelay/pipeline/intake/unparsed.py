"""How many of a source's records its decoder can read, looked at as they come in.

A decoder that does not fit makes every record an `Unparsed Record`, which is stored and sent all
the same: without a word nobody would know for weeks. A few records a second are looked at, so the
share costs nothing and does not depend on what the sinks take.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

import structlog
import trio

from siemrelay.core.event import Batch
from siemrelay.core.event_types import OWN_SOURCE, UNPARSED
from siemrelay.core.lines import separated
from siemrelay.decoders.contract import Decoder
from siemrelay.formats.writing.text import sanitize_for_display
from siemrelay.net.tasks import next_second
from siemrelay.telemetry.stats import SourceStats, Stats

_log = structlog.get_logger()

# So many records of one batch a second and source, or the first one alone if it has this many
# bytes. A record beyond the second limit is not looked at: to decode it, and to say why it cannot
# be, would hold the other tasks up; checked by test_no_body_keeps_the_others_waiting.
_LOOKED_AT: Final = 20
_MOST_BYTES: Final = 64 << 10
_TOO_LONG_BYTES: Final = 1 << 20
# The share is that of so many looks.
_LOOKS: Final = 30
# A decoder that fits has hardly any; what a program writes when it starts is a line or two. Below
# the lower one it is over: the next time is logged again.
_WARN_SHARE: Final = 0.1
_OVER_SHARE: Final = 0.05
# Of the first such record so much is logged.
_SHOWN: Final = 200


class ParseCheck:
    """An observer of the intake, and the task that looks at what it has noted."""

    def __init__(
        self, stats: Stats, decoder: Callable[[str], Decoder], why: Callable[[str, bytes], str]
    ) -> None:
        """`decoder` is that of a source; `why` says why it cannot read a record."""
        self._stats, self._decoder, self._why = stats, decoder, why
        self._noted: dict[str, Batch] = {}
        self._wanted = trio.Event()
        self._looks: dict[str, deque[tuple[int, int]]] = {}

    def stored(self, batches: Sequence[Batch]) -> None:
        """Note one batch of each source for the next look."""
        for batch in batches:
            if batch.part is None and batch.source not in self._noted:
                self._noted[batch.source] = batch
                self._wanted.set()

    async def run(self) -> None:
        """Look at what was noted, at most once a second, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            noted, self._noted = self._noted, {}
            for batch in noted.values():
                source = self._stats.sources.get(batch.source)
                if source is not None and batch.source != OWN_SOURCE:
                    self.look(source, batch)
                await trio.lowlevel.checkpoint()
            await next_second()

    def look(self, source: SourceStats, batch: Batch) -> None:
        """Decode the first records of a batch, and log it once if too many cannot be.

        A batch that begins with a record of over 1 MiB is not looked at.
        """
        records: list[bytes] = []
        size = 0
        for record in islice(batch.records(), _LOOKED_AT):
            size += len(record)
            if size > (_MOST_BYTES if records else _TOO_LONG_BYTES):
                break
            records.append(record)
        if not records:
            return
        some = Batch(batch.first_sequence, len(records), batch.source, batch.received_at,
                     separated(records))  # fmt: skip
        events = self._decoder(batch.source).decode(some).events
        failed = [i for i, event in enumerate(events) if event.type == UNPARSED]
        looks = self._looks.setdefault(source.name, deque(maxlen=_LOOKS))
        looks.append((len(records), len(failed)))
        looked_at, unparsed = map(sum, zip(*looks, strict=True))
        source.unparsed_share = unparsed / looked_at
        if failed and source.unparsed_share >= _WARN_SHARE:
            record = records[failed[0]]
            why = self._why(source.name, record)
            if not source.unparsed_why:
                _log.warning(
                    "records cannot be parsed and are sent as Unparsed Record", source=source.name,
                    percent=round(100 * source.unparsed_share), why=why,
                    first_sequence=batch.first_sequence + failed[0],
                    record=sanitize_for_display(record.decode("utf-8", "replace"), _SHOWN),
                    advice=f"`siemrelay preview --source {source.name} FILE` shows what is found "
                    "in a file and proposes the decoder that fits",
                )  # fmt: skip
            source.unparsed_why = why
        elif source.unparsed_why and source.unparsed_share < _OVER_SHARE:
            _log.info("records can be parsed again", source=source.name)
            source.unparsed_why = ""

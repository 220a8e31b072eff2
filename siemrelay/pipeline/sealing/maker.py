"""Makes the seals of one stream, and the messages that carry them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

import msgspec
import structlog

from siemrelay import __version__
from siemrelay.buffer.sink_cursor import SinkCursor
from siemrelay.core.event import AuditEvent, Batch, DecodedBatch, Selection
from siemrelay.core.event_types import OWN_SOURCE, SEAL
from siemrelay.core.times import rfc3339
from siemrelay.formats.contract import Canonical
from siemrelay.pipeline.formatting.sink_format import SinkFormat
from siemrelay.pipeline.sealing.settings import StreamSettings
from siemrelay.proof.note import Signer
from siemrelay.proof.seal import SealTally, Timestamp, made_text
from siemrelay.proof.stream import MOST_ABSENT, Numbering, PendingSeal, StreamState

_log = structlog.get_logger()


class SealMaker:
    """Makes them of what is settled; keeps nothing between two."""

    def __init__(
        self, settings: StreamSettings, messages: SinkFormat,
        others: Callable[[], Mapping[str, tuple[int, str]]],
    ) -> None:  # fmt: skip
        """`others` has the latest seals of all streams of the relay, by origin."""
        assert messages.number is not None, "messages of a sealed stream have a number"
        self.placeholder = messages.number.encode()
        self._settings, self._messages, self._others = settings, messages, others
        form = messages.format
        self.canonical = isinstance(form, Canonical) and form.canonical

    def make(
        self, cursor: SinkCursor, state: StreamState, number: int, position: int, reason: str,
        signers: Iterable[Signer], timestamp: Timestamp | None,
    ) -> PendingSeal:  # fmt: skip
        """A seal that shall be message `number`, before the record at `position`.

        `timestamp` goes with it if the message has room for it.
        """
        now = time.time()
        tally = self._tally(cursor, state, number, reason, now)
        text = made_text(state.origin, state.tree, tally, signers, timestamp)
        pending = PendingSeal(
            number, position, state.tree.size, state.tree.root.hex(), len(tally.absent), now, text
        )
        if timestamp is not None and self._is_too_long(self._encoded(state, pending)):
            text = made_text(state.origin, state.tree, tally, signers)
            pending = msgspec.structs.replace(pending, text=text)
        return pending

    def _tally(
        self, cursor: SinkCursor, state: StreamState, number: int, reason: str, now: float
    ) -> SealTally:
        settings = self._settings
        counts = msgspec.structs.asdict(cursor.counts)
        return SealTally(
            number=number, at=rfc3339(now), reason=reason, every_s=settings.every_s,
            next_sequence=cursor.next_sequence,
            counts={name: count for name, count in counts.items() if isinstance(count, int)},
            format=settings.format, version=__version__, configuration=settings.configuration,
            cause=state.cause, absent=list(state.absent[: 2 * MOST_ABSENT]),
            previous=state.previous, absent_before=list(state.absent_before),
            others={
                origin: seal for origin, seal in self._others().items() if origin != state.origin
            },
        )  # fmt: skip

    def message(self, state: StreamState, pending: PendingSeal) -> bytes | None:
        """The message with a seal, always the same one.

        None, logged, if it is over the limit: a part of a seal says nothing.
        """
        message = self._encoded(state, pending)
        if self._is_too_long(message):
            _log.error("a seal is longer than a message may be: the stream stays unsealed",
                       sink=self._settings.sink, bytes=len(message),
                       limit=self._messages.max_message_bytes,
                       advice="set a larger `max_message_size` on the sink")  # fmt: skip
            return None
        return message

    def _is_too_long(self, message: bytes) -> bool:
        limit = self._messages.max_message_bytes
        return limit is not None and len(message) > limit

    def _encoded(self, state: StreamState, pending: PendingSeal) -> bytes:
        text = f"sealed {pending.size} messages of {state.origin}: {pending.text}"
        event = AuditEvent(
            id=f"{state.name}-{pending.number}", time=rfc3339(pending.at), type=SEAL,
            category="relay", severity=1, outcome="success", message=text,
        )  # fmt: skip
        record = msgspec.json.encode({"id": event.id, "type": SEAL, "message": text}) + b"\n"
        stored = Batch(pending.position, 1, OWN_SOURCE, pending.at, record)
        selection = Selection(DecodedBatch(stored, [event]), number=self._messages.number)
        numbering = Numbering(state.name, pending.number, self.placeholder)
        (message,) = numbering.numbered(self._messages.format.encode(selection))
        return message

"""What Splunk's HTTP Event Collector answers, and what each answer means for the events sent.

Sources: Splunk, "Troubleshoot HTTP Event Collector" (the codes) and "About HTTP Event Collector
Indexer Acknowledgment". The code decides, not the HTTP status: one status has codes of all kinds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import Final

import msgspec

from siemrelay.core.errors import BatchRefused, DeliveryError, SinkHolds, SinkWaits

ENABLE_ACKNOWLEDGEMENT: Final = (
    "turn on indexer acknowledgement for this token in Splunk, or set `indexer_acknowledgement: no`"
)
WRITE_TOKEN: Final = 'write `authorization: "Splunk TOKEN"`, with the word Splunk before the token'
_OWN_FAULT: Final = "Splunk has a fault of its own: its splunkd.log says which"
_FULL: Final = (
    "Splunk's queues are full; if this goes on, see its Monitoring Console: are the indexers up, "
    "and have they room?"
)
_STOPPING: Final = "Splunk is shutting down: is it started again?"


class Meaning(Enum):
    """What a code asks for."""

    TAKEN = auto()
    WAIT = auto()
    HOLD = auto()
    EVENT = auto()
    """One event is refused: the one at `invalid-event-number`, if that is said."""
    INDEX = auto()
    """As EVENT, because of its index: if that is so for all of them, the setting is wrong."""


CODES: Final[Mapping[int, tuple[Meaning, str]]] = {
    0: (Meaning.TAKEN, ""),
    1: (Meaning.HOLD, "the token is disabled: enable it in Splunk (Settings, Data inputs)"),
    2: (Meaning.HOLD, f"no token was sent: {WRITE_TOKEN}"),
    3: (Meaning.HOLD, WRITE_TOKEN),
    4: (Meaning.HOLD, "Splunk does not know this token: check `authorization` and `url`"),
    # A run is never empty, but what is in it may be blank to Splunk.
    5: (Meaning.EVENT, "Splunk saw no data in the event"),
    6: (Meaning.EVENT, "check `format` and `endpoint`"),
    7: (
        Meaning.INDEX,
        "set `index` to one that exists in Splunk and is among the token's allowed indexes",
    ),
    8: (Meaning.WAIT, _OWN_FAULT),
    9: (Meaning.WAIT, _FULL),
    10: (
        Meaning.HOLD,
        "the token has indexer acknowledgement on: set `indexer_acknowledgement: yes`; what stands "
        "in between must pass the header X-Splunk-Request-Channel",
    ),
    11: (
        Meaning.HOLD,
        "the channel did not arrive as it was sent: what stands in between must pass the header "
        "X-Splunk-Request-Channel",
    ),
    12: (Meaning.EVENT, "check `format` and `endpoint`"),
    13: (Meaning.EVENT, "check `format` and `endpoint`"),
    14: (Meaning.HOLD, ENABLE_ACKNOWLEDGEMENT),
    15: (Meaning.EVENT, "check `format` and `endpoint`"),
    16: (Meaning.HOLD, f"no token in the address: {WRITE_TOKEN}"),
    18: (Meaning.WAIT, _FULL),
    19: (Meaning.WAIT, _FULL),
    20: (Meaning.WAIT, _FULL),
    21: (Meaning.HOLD, "Splunk does not know this token: check `authorization` and `url`"),
    22: (Meaning.HOLD, "the token is disabled: enable it in Splunk (Settings, Data inputs)"),
    23: (Meaning.WAIT, _STOPPING),
    24: (Meaning.TAKEN, ""),
    25: (Meaning.TAKEN, ""),
    26: (Meaning.WAIT, _FULL),
    27: (Meaning.WAIT, _FULL),
}
"""Every code about events, with what to change. 24 and 25: taken, though a queue is almost full."""


TAKEN: Final = frozenset(code for code, (meaning, _) in CODES.items() if meaning is Meaning.TAKEN)
"""The codes that confirm."""


class HecAnswer(msgspec.Struct, frozen=True, gc=False):
    """The words of an answer. `number` is `invalid-event-number`, `ack_id` is `ackId`."""

    text: str = ""
    code: int | None = None
    number: int | None = msgspec.field(name="invalid-event-number", default=None)
    ack_id: int | None = msgspec.field(name="ackId", default=None)


class _Acknowledged(msgspec.Struct, frozen=True, gc=False):
    acks: dict[int, bool]


# Not strict: some receivers that speak this protocol write numbers as texts.
_read_answer: Final = msgspec.json.Decoder(HecAnswer, strict=False).decode
_read_acknowledged: Final = msgspec.json.Decoder(_Acknowledged).decode
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class EventRefused(BatchRefused):
    """One event of the request is refused: send the others without it.

    `number` is about where it stands: Splunk counts from 0 for some codes and from 1 for others,
    and leaves it out for some. `about_index`: refused because of its index.
    """

    def __init__(self, answer: HecAnswer, *, about_index: bool, advice: str) -> None:
        super().__init__(code=str(answer.code), reason=answer.text or "no reason given")
        self.number, self.about_index, self.advice = answer.number, about_index, advice


def read_answer(body: bytes) -> HecAnswer | None:
    """What the collector says; None if these are not its words."""
    try:
        return _read_answer(body)
    except _UNREADABLE:
        return None


def read_acknowledged(body: bytes) -> Mapping[int, bool] | None:
    """Which acknowledgement ids have been indexed; None if this is no answer to that question."""
    try:
        return _read_acknowledged(body).acks
    except _UNREADABLE:
        return None


def ask_body(ack_ids: Sequence[int]) -> bytes:
    """The question which of these have been indexed."""
    return msgspec.json.encode({"acks": ack_ids})


def failure(answer: HecAnswer, status: int, *, after_s: float | None) -> DeliveryError | None:
    """What the answer's code asks for; None if it is no failure, or unknown and left to the status.

    `after_s`: the pause that the answer's headers ask for.
    """
    meaning, advice = CODES.get(answer.code if answer.code is not None else -1, (None, ""))
    said = f"HTTP {status}: {answer.text or 'no reason given'} (code {answer.code})"
    if meaning is Meaning.WAIT:
        return SinkWaits(f"{said}; {advice}", after_s=after_s)
    if meaning is Meaning.HOLD:
        return SinkHolds(said, advice=advice)
    if meaning in (Meaning.EVENT, Meaning.INDEX):
        return EventRefused(answer, about_index=meaning is Meaning.INDEX, advice=advice)
    return None


# A number that was wrong so often in a row is not about the event.
_MISLED: Final = 2


class Pieces:
    """What to send of a run in which Splunk refuses events, until each was taken or refused alone.

    Pieces come in order. Numbers lead to the refused events as long as they are right: after two
    wrong ones in a row the rest of the run is halved.
    """

    def __init__(self, count: int) -> None:
        self._left = [(0, count)]  # a stack, the earliest on top
        self._suspects = set[int]()
        self._misled = 0

    def next(self) -> tuple[int, int] | None:
        """Where the next piece starts and ends (exclusive); None after the last."""
        return self._left.pop() if self._left else None

    def taken(self, start: int) -> None:
        """Splunk took the piece that starts there."""
        if start in self._suspects:
            self._misled += 1

    def refused(self, start: int, end: int, number: int | None) -> bool:
        """Splunk refused that piece, for the event of that number; whether it is one event alone.

        More of them come again in smaller pieces.
        """
        if end - start == 1:
            if self._misled < _MISLED:
                self._misled = 0
            return True
        if number is not None and self._misled < _MISLED:
            number = min(max(number, 0), end - start - 1)
            self._suspects.add(start + number)
        else:
            number = None
        self._left += reversed(around(start, end, number))
        return False


def around(start: int, end: int, number: int | None) -> list[tuple[int, int]]:
    """The pieces to send next of the events from `start` to `end` (exclusive, 2 or more of them),
    one of which was refused: those before the suspect at `number` (from 0), the suspect alone,
    those after it; without a number the two halves.

    Alone it is either refused or cleared, so a number that is off by one costs a request, never an
    event.
    """
    if number is None:
        middle = (start + end) // 2
        return [(start, middle), (middle, end)]
    suspect = start + number
    pieces = [(start, suspect), (suspect, suspect + 1), (suspect + 1, end)]
    return [(first, last) for first, last in pieces if first < last]

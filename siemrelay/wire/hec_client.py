"""Answers of Splunk's HTTP Event Collector, and what each means for the events that were sent.

The code in the body decides, not the HTTP status: one status comes with codes of all kinds.
Sources: Splunk, "Troubleshoot HTTP Event Collector" (the codes) and "About HTTP Event Collector
Indexer Acknowledgment".
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


class CodeKind(Enum):
    """The action of the sender after an answer with a code."""

    CONFIRMED = auto()
    """Nothing: Splunk has the events."""
    WAIT = auto()
    """Send them again later; the fault passes by itself."""
    HOLD = auto()
    """Wait for a person: no request will be taken with these settings."""
    EVENT = auto()
    """Leave one event out: the one at `invalid-event-number`, where the answer has that."""


CODES: Final[Mapping[int, tuple[CodeKind, str]]] = {
    0: (CodeKind.CONFIRMED, ""),
    1: (CodeKind.HOLD, "the token is disabled: enable it in Splunk (Settings, Data inputs)"),
    2: (CodeKind.HOLD, f"no token was sent: {WRITE_TOKEN}"),
    3: (CodeKind.HOLD, WRITE_TOKEN),
    4: (CodeKind.HOLD, "Splunk does not know this token: check `authorization` and `url`"),
    # A batch is never empty, but an event in it may be blank to Splunk.
    5: (CodeKind.EVENT, ""),
    6: (CodeKind.EVENT, ""),
    # About one event, too; but all events of a sink have one index.
    7: (
        CodeKind.HOLD,
        "set `index` to one that exists in Splunk and is among the token's allowed indexes",
    ),
    8: (CodeKind.WAIT, _OWN_FAULT),
    9: (CodeKind.WAIT, _FULL),
    10: (
        CodeKind.HOLD,
        "the token has indexer acknowledgement on: set `indexer_acknowledgement: yes`; what stands "
        "in between must pass the header X-Splunk-Request-Channel",
    ),
    11: (
        CodeKind.HOLD,
        "the channel did not arrive as it was sent: what stands in between must pass the header "
        "X-Splunk-Request-Channel",
    ),
    12: (CodeKind.EVENT, ""),
    13: (CodeKind.EVENT, ""),
    14: (CodeKind.HOLD, ENABLE_ACKNOWLEDGEMENT),
    15: (CodeKind.EVENT, ""),
    16: (CodeKind.HOLD, f"no token in the address: {WRITE_TOKEN}"),
    18: (CodeKind.WAIT, _FULL),
    19: (CodeKind.WAIT, _FULL),
    20: (CodeKind.WAIT, _FULL),
    21: (CodeKind.HOLD, "Splunk does not know this token: check `authorization` and `url`"),
    22: (CodeKind.HOLD, "the token is disabled: enable it in Splunk (Settings, Data inputs)"),
    23: (CodeKind.WAIT, _STOPPING),
    24: (CodeKind.CONFIRMED, ""),
    25: (CodeKind.CONFIRMED, ""),
    26: (CodeKind.WAIT, _FULL),
    27: (CodeKind.WAIT, _FULL),
}
"""Code → its kind, and the advice to a person. 24 and 25 warn that a queue is almost full."""

CONFIRMING: Final = frozenset(
    code for code, (kind, _) in CODES.items() if kind is CodeKind.CONFIRMED
)
"""The codes of answers that confirm the events of a request."""


class HecAnswer(msgspec.Struct, frozen=True, gc=False):
    """The body of an answer. `number` is `invalid-event-number`, `ack_id` is `ackId`."""

    text: str = ""
    code: int | None = None
    number: int | None = msgspec.field(name="invalid-event-number", default=None)
    ack_id: int | None = msgspec.field(name="ackId", default=None)


class _Acknowledged(msgspec.Struct, frozen=True, gc=False):
    acks: dict[int, bool]


# Not strict: some receivers of this protocol write numbers as texts.
_read_answer: Final = msgspec.json.Decoder(HecAnswer, strict=False).decode
_read_ack_results: Final = msgspec.json.Decoder(_Acknowledged).decode
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class EventRefused(BatchRefused):
    """The collector refuses one event of the request: send the others without it.

    `index` is approximate: Splunk counts from 0 for some codes and from 1 for others, and gives no
    number for some.
    """


def read_answer(body: bytes) -> HecAnswer | None:
    """The answer in a body; None if it is not an answer of a collector."""
    try:
        return _read_answer(body)
    except _UNREADABLE:
        return None


def read_ack_results(body: bytes) -> Mapping[int, bool] | None:
    """Acknowledgement id → whether it was indexed; None if the body is no such answer."""
    try:
        return _read_ack_results(body).acks
    except _UNREADABLE:
        return None


def ack_query(ack_ids: Sequence[int]) -> bytes:
    """The body of a request that asks which of these ids have been indexed."""
    return msgspec.json.encode({"acks": ack_ids})


def error_for(answer: HecAnswer, status: int, after_s: float | None) -> DeliveryError | None:
    """The error for the answer's code; None if it confirms, or if the HTTP status must decide.

    `after_s`: the pause in seconds that the answer's headers ask for.
    """
    kind, advice = CODES.get(answer.code if answer.code is not None else -1, (None, ""))
    reason = f"HTTP {status}: {answer.text or 'no reason given'} (code {answer.code})"
    if kind is CodeKind.WAIT:
        return SinkWaits(f"{reason}; {advice}", after_s=after_s, throttled=status == 429)
    if kind is CodeKind.HOLD:
        return SinkHolds(reason, advice=advice)
    if kind is CodeKind.EVENT:
        return EventRefused(
            code=str(answer.code), reason=answer.text or "no reason given", index=answer.number
        )
    return None

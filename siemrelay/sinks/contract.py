"""What a sink is: sessions that take batches of messages and confirm them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, runtime_checkable

import msgspec

from siemrelay.core.extras import Extra
from siemrelay.core.options import Options
from siemrelay.formats.contract import Format


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """The peer read one message and will never take it; `index` counts within the batch.

    `duplicate`: it holds a message with the same record id already (see `record_ids`). Where the
    message may have been sent before, that is itself and counts as delivered: the delivery judges.
    """

    index: int
    code: str
    reason: str
    duplicate: bool = False


Settlement = Sequence[Refusal]
"""What the peer refused of a run; everything else in it was confirmed. Usually empty."""


class BatchLimits(msgspec.Struct, frozen=True):
    """How large a run may be, and how long it waits to become so. Byte streams need no limits.

    `in_flight_batches`: how many may be sent and not settled, for peers that confirm later than by
    their answer; None is enough for a round trip.
    """

    max_events: int | None = None
    max_bytes: int | None = None
    max_wait_s: float = 0.0
    in_flight_batches: int | None = None


Report = Callable[[str, str], None]
"""Takes a step's name (resolve, connect, tls, send, answer) and what happened in it."""


def no_report(step: str, detail: str) -> None:
    """For deliveries that nobody watches step by step."""


class Session(Protocol):
    """One connection's life. `send` and `confirm` are each called by one task at a time.

    Tickets are confirmed in the order of their runs, but for a refused run: its pieces are sent and
    confirmed at once, before the tickets of later runs. `send` must not wait for a `confirm`.
    """

    async def send(self, messages: Sequence[bytes]) -> Any:
        """Hand one run to the peer; returns a ticket for `confirm`, maybe before the peer has it.

        Args: messages: 1 or more, unframed, in rising sequence order (gaps allowed).
        Raises: SinkWaits, SinkHolds, BatchRefused (of this run; the session stays usable after it).
        If cancelled, the run counts as unsent.
        """

    async def confirm(self, ticket: Any) -> Settlement:
        """Wait until the peer has settled that run, by the strongest proof the protocol has.

        Raises and cancellation: as `send`.
        """


class Sink(Protocol):
    """One way out. Built from validated options; opens nothing until `session`."""

    def session(self, report: Report = no_report) -> AbstractAsyncContextManager[Session]:
        """Connect. Raises SinkWaits or SinkHolds; leaving the context closes the connection."""


@runtime_checkable
class Certified(Protocol):
    """A sink that knows its peer's certificate, once it has connected."""

    @property
    def certificate_expires_at(self) -> float | None:
        """When the certificate met last ends, in seconds since the epoch; None without one."""


class ProtocolKind(msgspec.Struct, frozen=True):
    """A protocol. `format` is the default format, `port` the default port.

    `limits` bounds a delivery batch, `max_message_bytes` one message (None: no bound). `wrap` makes
    the format that puts the protocol's envelope around each message of the sink's own format.
    `extra` is the package that the protocol needs.
    """

    options: type[Options]
    build: Callable[[Any], Sink]
    format: str
    summary: str
    port: int | None = None
    max_message_bytes: Callable[[Any], int | None] = lambda options: None
    limits: Callable[[Any], BatchLimits] = lambda options: BatchLimits()
    wrap: Callable[[Format, Any], Format] = lambda form, options: form
    extra: Extra | None = None

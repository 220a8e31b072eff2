"""The contract of sinks: a sink opens sessions, a session sends batches and confirms them.

Checked for every protocol of the registry by tests/contracts/test_sinks.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from siemrelay.core.extras import Extra
from siemrelay.core.options import Options
from siemrelay.formats.contract import Format


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """The peer read one message and will never take it; `index` counts within the batch.

    `duplicate`: the peer already holds a message with the same record id (see `record_ids`). If the
    message may have been sent before, the held one is itself, and it counts as delivered: the
    delivery decides that.
    """

    index: int
    code: str
    reason: str
    duplicate: bool = False


Settlement = Sequence[Refusal]
"""The refused messages of a batch; the peer confirmed all others. Usually empty."""


class BatchLimits(msgspec.Struct, frozen=True):
    """The largest batch, and how long it waits for more events. None is no limit.

    `in_flight_batches`: how many batches may be sent and not yet settled. None is enough for a
    round trip; peers that confirm later than by their answer need more.
    """

    max_events: int | None = None
    max_bytes: int | None = None
    max_wait_s: float = 0.0
    in_flight_batches: int | None = None


Report = Callable[[str, str], None]
"""Takes the name of a step (resolve, connect, tls, send, answer) and a line about it."""


def no_report(step: str, detail: str) -> None:
    """The report of the daemon's sinks; `siemrelay test` prints the steps instead."""


class Session(Protocol):
    """One connection, from connecting to closing.

    One task at a time calls `send`, and one task `confirm`. Tickets are confirmed in the order of
    their batches. Only the parts of a refused batch are sent and confirmed before the tickets of
    later ones. `send` must not wait for a `confirm`.
    """

    async def send(self, messages: Sequence[bytes]) -> Any:
        """Send one batch; returns a ticket for `confirm`, maybe before the peer has the batch.

        Args: messages: 1 or more, unframed, in rising sequence order (gaps allowed).
        Raises: SinkWaits or SinkHolds (the session is over); BatchRefused (of this batch; the
        session stays usable). If cancelled, the batch counts as unsent.
        """

    async def confirm(self, ticket: Any) -> Settlement:
        """Wait until the peer has settled that batch, by the strongest proof of the protocol.

        Returns the messages that it refused. Raises, and is cancelled, as `send`.
        """


class ConfirmsEarly(ABC):
    """A session whose peer may have settled a batch by the time it or the next one is sent.

    To ask costs little, and a task that waits for the answer costs a small batch as much again as
    all the rest of its way out.
    """

    @property
    @abstractmethod
    def patience_s(self) -> float:
        """How much later `confirm` may be called for what is in flight now: only the cursor waits.

        0 if the answer would hold `send` up, or shows whether the peer takes anything.
        """

    @abstractmethod
    def is_confirmed(self, ticket: Any) -> bool:
        """Whether the peer has taken all of that batch; then `confirm` is not called for it.

        Never waits nor raises. Asked of the earliest batch in flight, after a `send`, while no
        `confirm` runs.
        """

    @abstractmethod
    def hurry(self) -> None:
        """The sender waits until what is in flight is confirmed: a `confirm` that runs asks now."""


class Sink(Protocol):
    """One receiver. Built from validated options; opens nothing until `session`."""

    def session(self, report: Report = no_report) -> AbstractAsyncContextManager[Session]:
        """Connect, and close the connection when the context is left.

        Raises SinkWaits or SinkHolds. If cancelled, nothing stays open.
        """


@runtime_checkable
class Certified(Protocol):
    """A sink that has seen its peer's certificate once it has connected."""

    @property
    def certificate_expires_at(self) -> float | None:
        """When the last certificate seen expires, in seconds since the epoch; None without one."""


@runtime_checkable
class ConnectsLazily(Protocol):
    """A sink whose sessions open nothing: only an answer shows that the receiver is there."""

    connects_lazily: Literal[True]


Remark = tuple[str, str]
"""The key of an option, and what is allowed about it but probably not meant."""


def unwrapped(form: Format, options: Any) -> Format:
    """The `wrap` of protocols that put no envelope around messages."""
    return form


class ProtocolKind(msgspec.Struct, frozen=True):
    """A row of the registry: one protocol.

    `build` makes a sink of the options. `format` and `port` are defaults. `limits` bounds a
    delivery batch, `max_message_bytes` one message (None: no bound). `wrap` returns a format that
    puts the protocol's envelope around each message of the sink's own format; a worker imports its
    module, so it stands in `formats.envelopes`. `extra` is the package that the protocol needs.
    `reads_tls_once`: the TLS files are read for a session, and not for each of its connections.
    `credential` is advice for a sink without a credential, where receivers ask for one. `remarks`
    are warnings of `siemrelay check` about one sink.
    """

    options: type[Options]
    build: Callable[[Any], Sink]
    format: str
    summary: str
    port: int | None = None
    max_message_bytes: Callable[[Any], int | None] = lambda options: None
    limits: Callable[[Any], BatchLimits] = lambda options: BatchLimits()
    wrap: Callable[[Format, Any], Format] = unwrapped
    extra: Extra | None = None
    reads_tls_once: bool = False
    credential: str = ""
    remarks: Callable[[Any], Iterable[Remark]] = lambda options: ()

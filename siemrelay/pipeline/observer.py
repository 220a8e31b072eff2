"""Observers of the intake and the deliveries: `tap` and `test --through`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from siemrelay.core.event import Batch
from siemrelay.pipeline.batching import DeliveryBatch
from siemrelay.sinks.contract import Settlement


class IntakeObserver(Protocol):
    """Called within the intake: each call must return at once and never raise."""

    def stored(self, batches: Sequence[Batch]) -> None:
        """These are on disk now."""


class DeliveryObserver(Protocol):
    """Called within the deliveries: each call must return at once and never raise."""

    def sent(self, sink: str, batch: DeliveryBatch) -> None:
        """The messages were handed to the sink's session."""

    def settled(self, sink: str, batch: DeliveryBatch, refusals: Settlement) -> None:
        """The batch is settled: all messages but the refused ones are confirmed."""


class Observer(IntakeObserver, DeliveryObserver, Protocol):
    """Observes the intake and the deliveries."""


class Observers(msgspec.Struct):
    """The present observers, shared by all callers. Usually there are none: a batch then costs one
    look at an empty list.
    """

    intake: list[IntakeObserver] = msgspec.field(default_factory=list)
    deliveries: list[DeliveryObserver] = msgspec.field(default_factory=list)

    def add(self, observer: Observer) -> None:
        """Let it watch from now on."""
        self.intake.append(observer)
        self.deliveries.append(observer)

    def remove(self, observer: Observer) -> None:
        """Let it watch no longer."""
        self.intake.remove(observer)
        self.deliveries.remove(observer)

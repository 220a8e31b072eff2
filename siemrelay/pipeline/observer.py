"""What others may see of the way of the records, while it happens: `tap` and `test --through`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from siemrelay.core.event import Batch
from siemrelay.pipeline.batching import DeliveryBatch
from siemrelay.sinks.contract import Settlement


class Observer(Protocol):
    """Called within the intake and the deliveries: each call must return at once and never raise.

    Usually there is no observer; then a batch costs one look at an empty list.
    """

    def stored(self, batches: Sequence[Batch]) -> None:
        """These are on disk now."""

    def sent(self, sink: str, batch: DeliveryBatch) -> None:
        """The messages were handed to the sink's session."""

    def settled(self, sink: str, batch: DeliveryBatch, refusals: Settlement) -> None:
        """The batch is settled: all messages but the refused ones are confirmed."""


Observers = list[Observer]
"""Those who watch now; shared by everything that calls them."""

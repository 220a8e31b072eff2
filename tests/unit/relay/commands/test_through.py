"""What a followed test event became for a sink, as the deliveries tell an observer."""

from __future__ import annotations

import pytest

from siemrelay.core.event import Batch
from siemrelay.core.event_types import OWN_SOURCE
from siemrelay.pipeline.batching import DeliveryBatch
from siemrelay.relay.commands.through import Followed
from siemrelay.sinks.contract import Refusal


def followed() -> Followed:
    found = Followed("the-id")
    payload = b'{"id":"other"}\n{"id":"the-id"}\n'
    found.stored([Batch(1, 2, "alm", 1.0, payload), Batch(3, 2, OWN_SOURCE, 1.0, payload)])
    assert found.sequence == 4
    return found


@pytest.mark.parametrize(
    ("batch", "refusals", "outcome"),
    [
        (DeliveryBatch(5, [b"a", b"b"], [3, 4]), [], ""),
        (DeliveryBatch(5, [b"a", b"b"], [3, 4]), [Refusal(0, "400", "no")], ""),
        (DeliveryBatch(5, [b"a", b"b"], [3, 4]), [Refusal(1, "400", "no")], "400 no"),
        (DeliveryBatch(5, [b"b"], [4]), [Refusal(0, "409", "held", duplicate=True)], ""),
        (DeliveryBatch(5, failed=[(4, "KeyError: x")]), [], "internal error: KeyError: x"),
        (DeliveryBatch(4, [b"a"], [3]), [], None),
        (DeliveryBatch(5, filtered=2), [], None),
    ],
)  # fmt: skip
def test_the_outcome_is_that_of_the_event_itself(
    batch: DeliveryBatch, refusals: list[Refusal], outcome: str | None
) -> None:
    found = followed()
    found.settled("siem", batch, refusals)
    assert found.outcomes.get("siem") == outcome

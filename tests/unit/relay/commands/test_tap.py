"""A tap that reads slowly, and events that come too fast: what is left out is counted."""

from __future__ import annotations

from collections.abc import Mapping, Set

import pytest
import trio
from trio.testing import MockClock

from siemrelay.core.event import Batch
from siemrelay.core.filters import EventFilter, EventsOptions
from siemrelay.formats.json import Json, JsonOptions
from siemrelay.pipeline.batching import DeliveryBatch
from siemrelay.registry import DECODERS
from siemrelay.relay.commands.tap import Tap
from siemrelay.relay.control import ControlLine, TapLine
from siemrelay.telemetry.log import Redactor
from tests.support.events.products import CATALOGUE, GENERIC


async def records(wanted: Set[int]) -> Mapping[int, Batch]:
    return {n: Batch(n, 1, "audit", 1.0, b'{"type":"T"}\n') for n in wanted}


def tap_of(*sinks: str) -> Tap:
    catalogue = CATALOGUE
    decoder = DECODERS["json"].build(GENERIC, frozenset({"type"}), catalogue)
    return Tap(
        frozenset(sinks), frozenset(), EventFilter(EventsOptions(), catalogue),
        lambda source: decoder, Json(JsonOptions()), Redactor([]), records,
    )  # fmt: skip


def batch(first: int, count: int, size: int = 1) -> DeliveryBatch:
    numbers = list(range(first, first + count))
    return DeliveryBatch(first + count, [b"x" * size for _ in numbers], numbers)


class Client:
    """Reads lines when `open`."""

    def __init__(self) -> None:
        self.lines: list[TapLine] = []
        self.open = trio.Event()

    async def emit(self, line: ControlLine) -> None:
        await self.open.wait()
        assert isinstance(line, TapLine)
        self.lines.append(line)


@pytest.mark.parametrize(("messages", "size"), [(1, 1), (50, 1), (7, 1 << 20)])
async def test_what_a_client_that_does_not_read_misses_is_counted_to_the_last_event(
    messages: int, size: int, autojump_clock: MockClock
) -> None:
    tap, client = tap_of("siem"), Client()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tap.run, client.emit)
        for number in range(200):
            tap.sent("siem", batch(1 + number * messages, messages, size))
            tap.sent("other", batch(1, 1))
            await trio.sleep(0.001)
        client.open.set()
        await trio.sleep(1)
        tap.sent("siem", batch(100_000, 1))
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    sent = [line for line in client.lines if line.what == "sent"]
    assert len(sent) + sum(line.lost for line in client.lines) == 200 * messages + 1
    assert sum(len(line.text) for line in sent) < 6 << 20


async def test_a_flood_is_shown_a_thousand_a_second(autojump_clock: MockClock) -> None:
    tap, client = tap_of(), Client()
    client.open.set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tap.run, client.emit)
        for number in range(30):
            tap.stored([Batch(1 + number * 100, 100, "audit", 1.0, b'{"type":"T"}\n' * 100)])
            await trio.sleep(0.1)
        for number in range(100):
            tap.stored([Batch(4000 + number * 100, 100, "audit", 1.0, b'{"type":"T"}\n' * 100)])
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    shown = sum(line.what == "decoded" for line in client.lines)
    assert 3000 <= shown <= 4100
    assert shown + sum(line.lost for line in client.lines) == 13_000

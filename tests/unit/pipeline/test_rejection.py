"""Which messages of a refused run the peer means: exactly those, for few requests."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import trio
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.core.errors import BatchRefused
from siemrelay.pipeline.rejection import isolate
from siemrelay.sinks.contract import Refusal, Settlement

WHY = BatchRefused(code="400", reason="bad")


class Choosy:
    """Refuses whatever has one of its culprits in it; `names`: says which, where it can."""

    def __init__(self, culprits: set[bytes], *, names: bool = False) -> None:
        self.culprits, self.names = culprits, names
        self.taken: list[bytes] = []
        self.refused_alone: set[bytes] = set()
        self.requests = 0

    async def send(self, messages: Sequence[bytes]) -> Sequence[bytes]:
        return messages

    async def confirm(self, ticket: Sequence[bytes]) -> Settlement:
        self.requests += 1
        bad = [index for index, message in enumerate(ticket) if message in self.culprits]
        if bad and not (self.names and len(ticket) < 8):
            self.refused_alone |= set(ticket) if len(ticket) == 1 else set()
            raise BatchRefused(code="400", reason="bad")
        self.taken += [message for message in ticket if message not in self.culprits]
        return [Refusal(index, "400", "bad") for index in bad]


def numbered(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def isolated(peer: Choosy, messages: list[bytes]) -> tuple[list[Refusal], int]:
    async def run() -> tuple[list[Refusal], int]:
        return await isolate(peer, messages, WHY, proven=True)

    return trio.run(run)


@given(count=st.integers(2, 200), data=st.data(), names=st.booleans())
def test_any_culprits_are_found_and_everything_else_is_taken_once_and_in_order(
    count: int, data: st.DataObject, names: bool
) -> None:
    messages = numbered(count)
    culprits = data.draw(st.sets(st.integers(0, count - 1), min_size=1))
    peer = Choosy({messages[index] for index in culprits}, names=names)
    refusals, taken = isolated(peer, messages)
    assert {refusal.index for refusal in refusals} == culprits
    assert peer.taken == [message for message in messages if message not in peer.culprits]
    assert taken == len(peer.taken)
    # Nothing is buried by inference.
    assert names or peer.refused_alone == peer.culprits


def test_one_culprit_costs_about_one_and_a_half_requests_for_each_halving() -> None:
    messages = numbered(512)
    requests = []
    for culprit in messages:
        peer = Choosy({culprit})
        isolated(peer, messages)
        requests.append(peer.requests)
    assert statistics.mean(requests) <= 1.5 * math.log2(len(messages)) + 1
    assert max(requests) <= 2 * math.log2(len(messages))


def test_every_hundredth_event_of_a_run_costs_a_request_for_nine_events() -> None:
    messages = numbered(500)
    peer = Choosy(set(messages[::100]))
    isolated(peer, messages)
    assert peer.requests <= 60

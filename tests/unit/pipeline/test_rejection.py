"""Which messages of a refused run the peer means: exactly those, for few requests."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import cycle

import trio
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.core.errors import BatchRefused
from siemrelay.pipeline.rejection import isolate
from siemrelay.sinks.contract import Refusal, Settlement
from siemrelay.sinks.refusal_search import RefusalSearch

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


@given(
    bad=st.lists(st.booleans(), min_size=1, max_size=60),
    indexes=st.lists(st.none() | st.integers(-5, 70), min_size=1),
)
def test_every_message_is_taken_or_refused_alone_in_order_whatever_indexes_the_peer_gives(
    bad: list[bool], indexes: list[int | None]
) -> None:
    search, said = RefusalSearch(len(bad), proven=True), cycle(indexes)
    settled = list[int]()
    while (part := search.next()) is not None:
        if not any(bad[slice(*part)]):
            search.take()
        else:
            search.refuse(BatchRefused(code="6", reason="bad", index=next(said)))
            if part[1] - part[0] > 1:
                continue
        settled += range(*part)
    assert settled == list(range(len(bad)))
    assert [refusal.index for refusal in search.refusals] == [n for n, one in enumerate(bad) if one]
    assert search.taken == bad.count(False)


def test_right_indexes_lead_to_a_culprit_and_wrong_ones_cost_five_requests() -> None:
    for index, most in ((250, 4), (0, 5 + 15)):
        search, culprit, requests = RefusalSearch(500, proven=True), 250, 0
        while (part := search.next()) is not None:
            requests += 1
            if culprit in range(*part):
                search.refuse(BatchRefused(code="6", reason="bad", index=max(index - part[0], 0)))
            else:
                search.take()
        assert [refusal.index for refusal in search.refusals] == [culprit]
        assert requests <= most


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

"""The memory of incomplete messages: whose goes when it runs out."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import trio

from siemrelay.net.body_memory import BodyMemory, HeldBody, OutOfMemory

MIB = 1 << 20


class Bodies:
    """Bodies that arrive, and stay until the end."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def arrive(self, memory: BodyMemory, mib: int, *, trusted: bool = True) -> HeldBody:
        body = self._stack.enter_context(HeldBody(memory, trusted=trusted))
        memory.arriving(body, trio.CancelScope())
        self._stack.callback(memory.arriving, body, None)
        body.hold(mib * MIB)
        return body


async def test_a_source_that_hoards_loses_its_own_bodies(autojump_clock: object) -> None:
    """Three sources hold all there is; a fourth still gets its part of it."""
    sources = [BodyMemory(MIB, authenticates=True) for _ in range(4)]
    with ExitStack() as stack:
        bodies = Bodies(stack)
        for source, share in zip(sources, (64, 64, 63), strict=False):
            for _ in range(share):
                bodies.arrive(source, 1)
        await trio.sleep(1)
        for _ in range(40):
            bodies.arrive(sources[3], 1)
        held = [source.held_bytes // MIB for source in sources]
        assert held[3] == 40
        assert sum(held) == 192
        assert max(held) - min(held[:3]) <= 1
        # A source with the most makes no room for itself at the cost of a smaller one.
        for _ in range(40):
            bodies.arrive(sources[0], 1)
        assert sources[3].held_bytes // MIB >= 39


async def test_half_of_all_memory_is_kept_for_authenticated_senders(
    autojump_clock: object,
) -> None:
    open_hooks = [BodyMemory(MIB) for _ in range(4)]
    certified = BodyMemory(MIB, authenticates=True)
    with ExitStack() as stack:
        bodies = Bodies(stack)
        for hook in open_hooks:
            for _ in range(40):
                bodies.arrive(hook, 1)
            await trio.sleep(1)
        assert sum(hook.held_bytes for hook in open_hooks) == 96 * MIB
        # What can no longer be displaced, because it is whole, keeps nothing from them either.
        held = [bodies.arrive(certified, 1) for _ in range(64)]
        assert not any(body.displaced for body in held)
        assert sum(hook.held_bytes for hook in open_hooks) == 96 * MIB


async def test_a_body_larger_than_its_own_share_tries_again() -> None:
    memory = BodyMemory(MIB)
    with ExitStack() as stack:
        bodies = Bodies(stack)
        whole = bodies.arrive(memory, 60)
        memory.arriving(whole, None)
        with pytest.raises(OutOfMemory):
            bodies.arrive(memory, 5)
    assert memory.held_bytes == 0


@pytest.mark.parametrize("trusted", [True, False])
async def test_everything_that_was_counted_is_given_back(trusted: bool) -> None:
    memories = [BodyMemory(MIB, authenticates=flag) for flag in (True, False)]
    for _ in range(300):
        with ExitStack() as stack:
            bodies = Bodies(stack)
            for memory in memories:
                bodies.arrive(memory, 20, trusted=trusted)
    assert [memory.held_bytes for memory in memories] == [0, 0]
    with ExitStack() as stack:
        Bodies(stack).arrive(memories[0], 60)

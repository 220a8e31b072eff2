"""The lock that costs nothing while it is free."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from siemrelay.net.tasks import Mutex


async def test_a_mutex_is_handed_over_in_order_past_one_who_no_longer_waits() -> None:
    mutex, order = Mutex(), list[str]()
    leaves = trio.CancelScope()

    async def take(name: str, scope: trio.CancelScope) -> None:
        with scope:
            async with mutex:
                order.append(name)
                await trio.lowlevel.checkpoint()
                assert order[-1] == name, "another one came in"

    async with trio.open_nursery() as nursery:
        async with mutex:
            for name in ("first", "leaves", "second"):
                scope = leaves if name == "leaves" else trio.CancelScope()
                nursery.start_soon(take, name, scope)
                await wait_all_tasks_blocked()
            leaves.cancel()
            await wait_all_tasks_blocked()
            assert order == []
        # It belongs to the first of them already: who comes now waits behind the others.
        async with mutex:
            order.append("last")
    assert order == ["first", "second", "last"]

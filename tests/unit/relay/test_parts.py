"""Parts that run side by side, each stopped alone."""

from __future__ import annotations

import trio
import trio.testing

from siemrelay.relay.supervise import RunningParts


async def test_stopping_one_part_ends_it_and_leaves_the_others_running() -> None:
    running: set[str] = set()

    def part(name: str) -> RunningPart:
        return RunningPart(name, running)

    async with trio.open_nursery() as nursery:
        parts = RunningParts("sink", nursery)
        for name in ("a", "b"):
            parts.start(name, part(name).run, lambda error: None)
        await trio.testing.wait_all_tasks_blocked()
        assert running == {"a", "b"}
        await parts.stop("a")
        assert running == {"b"}
        await parts.stop("a")
        parts.start("a", part("a").run, lambda error: None)
        await trio.testing.wait_all_tasks_blocked()
        assert running == {"a", "b"}
        nursery.cancel_scope.cancel()
    assert not running


class RunningPart:
    """Is in `running` from its start until it was cancelled and has cleaned up."""

    def __init__(self, name: str, running: set[str]) -> None:
        self._name, self._running = name, running

    async def run(self) -> None:
        self._running.add(self._name)
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
            self._running.discard(self._name)

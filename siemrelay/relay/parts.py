"""Runs parts by name, each in a scope of its own: one can stop or restart without the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
import trio

from siemrelay.relay.supervise import supervise


class _Running(msgspec.Struct, frozen=True):
    scope: trio.CancelScope
    ended: trio.Event


class RunningParts:
    """The running sinks, or the running sources. The nursery owns their tasks."""

    def __init__(self, kind: str, nursery: trio.Nursery) -> None:
        """`kind` is `sink` or `source`: with the part's name it stands in log lines."""
        self._kind, self._nursery = kind, nursery
        self._running: dict[str, _Running] = {}

    def start(
        self, name: str, run: Callable[[], Awaitable[None]], failed: Callable[[BaseException], None]
    ) -> None:
        """Start a part under supervision; a part of that name must not be running."""
        assert name not in self._running, name
        running = self._running[name] = _Running(trio.CancelScope(), trio.Event())
        self._nursery.start_soon(self._run, name, running, run, failed)

    def __contains__(self, name: str) -> bool:
        return name in self._running

    async def stop(self, name: str) -> None:
        """Cancel a part and wait until it has ended; nothing happens if it is not running."""
        if (running := self._running.get(name)) is not None:
            running.scope.cancel()
            await running.ended.wait()

    async def _run(
        self, name: str, running: _Running, run: Callable[[], Awaitable[None]],
        failed: Callable[[BaseException], None],
    ) -> None:  # fmt: skip
        try:
            with running.scope:
                await supervise(f"{self._kind} {name}", run, failed)
        finally:
            del self._running[name]
            running.ended.set()

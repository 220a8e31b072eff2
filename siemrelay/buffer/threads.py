"""Runs the buffer's blocking work in worker threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


async def in_thread(work: Callable[[*_Ts], _T], *args: *_Ts) -> _T:
    """Run `work` in a thread. A cancelled caller waits for its end: it uses a shared connection."""
    return await trio.to_thread.run_sync(work, *args)

"""How the buffer's blocking work leaves the trio thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


async def in_thread(work: Callable[[*_Ts], _T], *args: *_Ts) -> _T:
    """Run it in a thread and wait for its end, also when cancelled: it holds a connection."""
    return await trio.to_thread.run_sync(work, *args)

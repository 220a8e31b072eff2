"""One session of a sink: what it reports when all is well, and how it fails."""

from __future__ import annotations

import pytest

from siemrelay.core.errors import DeliveryError
from siemrelay.sinks.contract import Sink

_MESSAGE = b"<13>1 - - - - - - never confirmed"


async def deliver(sink: Sink, *messages: bytes) -> dict[str, str]:
    """Send, have it confirmed; what was reported by step."""
    steps: dict[str, str] = {}
    async with sink.session(steps.__setitem__) as session:
        assert not await session.confirm(await session.send(messages))
    return steps


async def fault(sink: Sink, *messages: bytes) -> DeliveryError:
    """The error of a delivery that is never confirmed; leaving the session adds nothing to it."""
    try:
        async with sink.session() as session:
            try:
                await session.confirm(await session.send(messages or (_MESSAGE,)))
            except DeliveryError as error:
                return error
    except DeliveryError as error:
        return error
    pytest.fail("it was confirmed")

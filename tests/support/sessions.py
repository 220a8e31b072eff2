"""One session of a sink: what it reports when all is well, and how it fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from siemrelay.core.errors import DeliveryError
from siemrelay.sinks.contract import Sink
from siemrelay.sinks.stream import tcp
from tests.support.daemon import PATIENCE_S

_MESSAGE = b"<13>1 - - - - - - never confirmed"


@contextmanager
def long_probation() -> Iterator[None]:
    """For peers that refuse: on a busy machine not always within the quarter of a second after
    which a stream's session believes that it was taken.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tcp, "_PROBATION_S", PATIENCE_S)
        yield


async def deliver(sink: Sink, *messages: bytes) -> dict[str, str]:
    """Send, have it confirmed; what was reported by step."""
    steps: dict[str, str] = {}
    async with sink.session(steps.__setitem__) as session:
        assert not await session.confirm(await session.send(messages))
    return steps


async def fault(sink: Sink, *messages: bytes) -> DeliveryError:
    """The error of a delivery that is never confirmed; leaving the session adds nothing to it."""
    with long_probation():
        try:
            async with sink.session() as session:
                try:
                    await session.confirm(await session.send(messages or (_MESSAGE,)))
                except DeliveryError as error:
                    return error
        except DeliveryError as error:
            return error
    pytest.fail("it was confirmed")

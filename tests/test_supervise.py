"""One part fails and is run again; the house stands, unless the disk is broken."""

from __future__ import annotations

import pytest
import trio
from structlog.testing import capture_logs

from siemrelay.errors import BufferBroken
from siemrelay.supervise import supervise


class Part:
    """Fails with each error in turn, after having run for so long; then returns."""

    def __init__(self, *errors: BaseException, lives_s: float = 0.0) -> None:
        self._errors, self._lives_s = list(errors), lives_s
        self.started: list[float] = []
        self.noted: list[BaseException] = []

    async def run(self) -> None:
        self.started.append(trio.current_time())
        await trio.sleep(self._lives_s)
        if self._errors:
            raise self._errors.pop(0)

    def failed(self, error: BaseException) -> None:
        self.noted.append(error)

    @property
    def pauses(self) -> list[float]:
        pairs = zip(self.started, self.started[1:], strict=False)
        return [after - before - self._lives_s for before, after in pairs]


async def test_a_part_that_returns_is_done(autojump_clock: trio.testing.MockClock) -> None:
    part = Part()
    await supervise("part", part.run, part.failed)
    assert len(part.started) == 1


async def test_a_part_that_fails_is_run_again_and_told_once_each_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    errors = ValueError("one"), ExceptionGroup("two", [KeyError("x")])
    part = Part(*errors)
    with capture_logs() as logs:
        await supervise("source x", part.run, part.failed)
    assert part.noted == list(errors)
    assert [(line["part"], line["log_level"]) for line in logs] == [("source x", "error")] * 2
    assert logs[0]["exc_info"] is errors[0]


async def test_pauses_grow_to_half_a_minute(autojump_clock: trio.testing.MockClock) -> None:
    part = Part(*[ValueError("again")] * 12)
    with capture_logs():
        await supervise("part", part.run, part.failed)
    assert part.pauses[0] <= 0.5
    assert 15 <= part.pauses[-1] <= 30


async def test_a_part_that_ran_for_long_starts_its_pauses_anew(
    autojump_clock: trio.testing.MockClock,
) -> None:
    part = Part(*[ValueError("again")] * 12, lives_s=100)
    with capture_logs():
        await supervise("part", part.run, part.failed)
    assert all(pause <= 0.51 for pause in part.pauses)


@pytest.mark.parametrize(
    "error",
    [
        BufferBroken("the disk"),
        ExceptionGroup("tasks", [BufferBroken("the disk")]),
        ExceptionGroup("tasks", [ExceptionGroup("inner", [BufferBroken("x"), ValueError("y")])]),
    ],
)
async def test_a_broken_buffer_ends_the_house(error: Exception) -> None:
    part = Part(error)
    with pytest.raises((BufferBroken, ExceptionGroup)) as caught:
        await supervise("part", part.run, part.failed)
    assert caught.value is error
    assert part.noted == []


async def test_a_stop_beside_a_failure_is_a_stop(autojump_clock: trio.testing.MockClock) -> None:
    stop = trio.CancelScope()

    async def run() -> None:
        async def fail() -> None:
            stop.cancel()
            raise ValueError("in the same moment")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            await trio.sleep_forever()

    with capture_logs() as logs, stop:
        await supervise("part", run, lambda error: None)
    assert stop.cancelled_caught
    assert [line["part"] for line in logs] == ["part"]


async def test_cancelling_ends_a_part_and_a_pause(autojump_clock: trio.testing.MockClock) -> None:
    part = Part(ValueError("x"))
    with capture_logs(), trio.move_on_after(0.01) as scope:
        await supervise("part", part.run, part.failed)
    assert scope.cancelled_caught

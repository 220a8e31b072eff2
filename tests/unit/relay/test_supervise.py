"""A part that fails is run again and the relay goes on, unless the disk is broken."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import trio
from structlog.testing import capture_logs

from siemrelay.config.load import load_text
from siemrelay.core.errors import BufferBroken, SiemrelayError
from siemrelay.relay.assembly import Assembly
from siemrelay.relay.relay import Relay
from siemrelay.relay.source_group import SourceGroup
from siemrelay.relay.supervise import RunningParts, summarize, supervise
from siemrelay.sources.contract import Intake
from siemrelay.telemetry.stats import SourceStats
from tests.support.daemon import until


async def eventually(condition: Callable[[], bool]) -> None:
    await trio.to_thread.run_sync(until, condition)


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


async def test_a_part_that_fails_is_run_again_and_each_new_error_is_logged(
    autojump_clock: trio.testing.MockClock,
) -> None:
    errors = ValueError("one"), ExceptionGroup("two", [KeyError("x")])
    part = Part(*errors)
    with capture_logs() as logs:
        await supervise("source x", part.run, part.failed)
    assert part.noted == list(errors)
    assert [(line["part"], line["log_level"]) for line in logs] == [("source x", "error")] * 2
    assert logs[0]["exc_info"] is errors[0]


async def test_an_error_that_repeats_is_logged_once_an_hour(
    autojump_clock: trio.testing.MockClock,
) -> None:
    part = Part(*[OSError("port in use")] * 300)  # half a minute apart at the most
    with capture_logs() as logs:
        await supervise("part", part.run, part.failed)
    hours = (part.started[-1] - part.started[0]) / 3600
    assert len(part.noted) == 300
    assert len(logs) == 1 + int(hours)


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
async def test_a_broken_buffer_ends_the_relay(error: Exception) -> None:
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


async def test_a_part_that_a_reload_starts_after_the_relay_has_stopped_does_not_run() -> None:
    async with trio.open_nursery() as nursery:
        parts = RunningParts("source", nursery)
    part = Part()
    parts.start("a", part.run, part.failed)
    assert "a" not in parts
    await parts.stop("a")
    assert part.started == []


def test_words_are_those_of_what_failed_inside_of_groups_each_once() -> None:
    inner = ExceptionGroup("Exceptions from Trio nursery", [ValueError("port taken"), KeyError()])
    error = ExceptionGroup("Exceptions from Trio nursery", [ValueError("port taken"), inner])
    assert summarize(error) == "port taken; KeyError"
    assert summarize(ValueError("alone")) == "alone"


async def test_a_failed_sources_last_error_is_what_failed_not_the_nursery_around_it(
    tmp_path: Path,
) -> None:
    started_again = trio.Event()

    class Failing:
        async def run(self, intake: Intake, *, drain: bool) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._fail)

        async def _fail(self) -> None:
            if relay.stats.sources["a"].restarts:
                started_again.set()
                await trio.sleep_forever()
            raise SiemrelayError("the port is taken")

    text = (
        f"state_dir: {tmp_path}\nendpoint: {{listen: off}}\n"
        "sources: {a: {type: stdin}}\nsinks: {s: {protocol: stdout}}\n"
    )
    relay = Relay(load_text(text, "f.yaml", {}))
    with patch.object(Assembly, "source", lambda self, name: Failing()), capture_logs():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(relay.run, signals=False))
            with trio.fail_after(20):
                await started_again.wait()
            assert relay.stats.sources["a"].last_error == "the port is taken"
            relay.stop()


async def test_a_failed_source_is_started_again_though_the_person_who_asked_has_gone(
    tmp_path: Path,
) -> None:
    starts, groups = list[bool](), list[SourceGroup]()

    class Failing:
        async def run(self, intake: Intake, *, drain: bool) -> None:
            starts.append(drain)
            raise SiemrelayError("the port is taken")

    async def run_noted(group: SourceGroup, **how: Any) -> None:
        groups.append(group)
        await run(group, **how)

    run = SourceGroup.run
    text = (
        f"state_dir: {tmp_path}\nendpoint: {{listen: off}}\n"
        "sources: {a: {type: stdin}}\nsinks: {s: {protocol: stdout}}\n"
    )
    relay = Relay(load_text(text, "f.yaml", {}))
    with (
        patch.object(Assembly, "source", lambda self, name: Failing()),
        patch.object(SourceGroup, "run", run_noted),
        patch("siemrelay.relay.supervise.delay_s", lambda *_, **__: inf),
        capture_logs(),
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(relay.run, signals=False))
            await eventually(lambda: "a" in relay.stats.sources and relay.stats.sources["a"].failed)
            with trio.CancelScope() as gone:
                gone.cancel()
                await groups[0].try_again()
            await eventually(lambda: len(starts) == 2)
            relay.stop()


def test_files_that_cannot_be_read_are_the_last_error_while_that_lasts() -> None:
    source = SourceStats("a")
    source.unreadable(1, "cannot read x")
    source.unreadable(1, "cannot read y")
    assert source.last_error == "cannot read y"
    source.unreadable(0, "")
    assert source.last_error == ""
    source.unreadable(1, "cannot read x")
    source.last_error = "failed"
    source.unreadable(1, "cannot read z")
    assert source.last_error == "cannot read z"
    source.unreadable(0, "")
    assert source.last_error == "failed"

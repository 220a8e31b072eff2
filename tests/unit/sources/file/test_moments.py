"""A rotation at every moment of a start and of a survey: one history for each call to the disk.

What `test_model` finds by luck is here tried in full: whole rotations that happen between two calls
of the source, in one piece or cut in two.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from itertools import count, islice, takewhile

import pytest

from tests.support.rotation.simulated_rotation import LOG, Relay, Step, World, check

WRITE = Step("write", count=2)
# Longer than any of the source's waits for a copy or a compressed file.
REST_S = 12
ROTATIONS = {
    "rename": [Step("rotate"), WRITE],
    "rename twice": [Step("rotate"), WRITE, Step("rotate"), WRITE],
    "rename and compress": [Step("rotate", compress=True), WRITE],
    "compress the last one": [Step("compress"), WRITE],
    "rename twice, compress": [Step("rotate"), WRITE, Step("rotate", compress=True), WRITE],
    "rename and compress twice": [*([Step("rotate", compress=True), WRITE] * 2)],
    "copytruncate": [Step("copytruncate"), WRITE],
    "copytruncate and compress": [Step("copytruncate", compress=True), WRITE],
    "copytruncate twice": [*([Step("copytruncate"), WRITE] * 2)],
}


class Moment:
    """Plays a script at the n-th call to the disk, up to its last step or for so many steps."""

    def __init__(self, world: World, script: Iterator[object], at: int, steps: int | None) -> None:
        self._world, self._script, self._at, self._steps = world, script, at, steps
        self._calls = 0
        self.reached = False
        world.disk.before_call = self._before_call

    def _before_call(self) -> None:
        self._calls += 1
        if self._calls == self._at:
            self.reached = True
            self._world.disk.before_call = lambda: None
            for _ in islice(self._script, self._steps):
                pass


def lives(
    rotation: list[Step], *, restarts: bool, reads: bool, at: int, watches: bool = True,
    cut_after: int | None = None,
) -> bool:  # fmt: skip
    """One history; whether the relay made that many calls to the disk before it came to rest.

    The log has been rotated before and has lines that were read; with `reads` that is all that it
    has. The relay is then restarted, or goes on. With `cut_after` so many steps of the rotation
    happen at the moment, and the others after the relay has read what there is then.
    """
    world = World(header=0, keep=30)
    relay = Relay(world, LOG + "*", watches)
    for _ in world.run([WRITE, Step("rotate"), WRITE]):
        pass
    while relay.step():
        pass
    if restarts:
        relay.watcher.close()
        world.relay_ended()
    if not reads:
        for _ in world.run([WRITE]):
            pass
    script = world.run(rotation)
    moment = Moment(world, script, at, cut_after)
    world.now += 3
    if restarts:
        relay.start()
    for _ in range(3):
        relay.step()
    for _ in script:
        pass
    world.disk.before_call = lambda: None
    for _ in range(REST_S):
        world.now += 1
        relay.step()
    check(world, relay, [])
    assert relay.lost == []
    return moment.reached


def every_moment(history: Callable[[int], bool]) -> int:
    """Play a history for each call that the relay makes; how many there were."""
    return sum(1 for _ in takewhile(history, count(1)))


@pytest.mark.parametrize("rotation", ROTATIONS.values(), ids=ROTATIONS)
@pytest.mark.parametrize(
    ("reads", "watches"),
    [(False, True), (True, True), (False, False)],
    ids=["something unread", "all read", "something unread and no inotify"],
)
@pytest.mark.parametrize("restarts", [False, True], ids=["running", "restarted"])
def test_a_rotation_at_any_moment_loses_and_repeats_nothing_and_keeps_the_order(
    rotation: list[Step], reads: bool, restarts: bool, watches: bool
) -> None:
    moments = every_moment(
        lambda at: lives(rotation, restarts=restarts, reads=reads, at=at, watches=watches)
    )
    assert moments > 10


@pytest.mark.parametrize(
    ("name", "cuts"),
    [
        # Names are shifted, copied in half, copied; then the same again.
        ("copytruncate twice", [1, 3, 5, 11, 12, 13]),
        # The log is renamed, made anew; its compressed copy is begun, half done, whole.
        ("rename and compress", [1, 3, 4, 5, 6]),
    ],
)
@pytest.mark.parametrize("restarts", [False, True], ids=["running", "restarted"])
def test_a_rotation_that_pauses_half_way_at_any_moment_loses_and_repeats_nothing(
    name: str, cuts: list[int], restarts: bool
) -> None:
    for cut in cuts:
        every_moment(
            lambda at, cut=cut: lives(  # type: ignore[misc]  # mypy gives the default no type
                ROTATIONS[name], restarts=restarts, reads=False, at=at, cut_after=cut
            )
        )


@pytest.mark.parametrize("lacks", [1, 2, 15])
@pytest.mark.parametrize("header", [0, 1500])
@pytest.mark.parametrize("way", ["compress", "copytruncate", "copytruncate and compress"])
def test_a_copy_that_lacks_the_lines_written_last_is_known_after_a_restart(
    lacks: int, header: int, way: str
) -> None:
    # The log grew after gzip or cp had read it; the relay read all of it from the log itself.
    world = World(header, keep=30)
    relay = Relay(world, LOG + "*", watches=True)
    for _ in range(40):
        for _ in world.run([Step("write", width=20)]):
            pass
        relay.step()
    log = world.disk.names[LOG]
    copied = bytes(log.data)
    for _ in world.run([Step("write", count=lacks)]):
        pass
    while relay.step():
        pass
    relay.watcher.close()
    world.relay_ended()
    if way == "compress":
        world.disk.unlink(LOG)
        world.disk.release(log)
        world.writer = world.new_log()
    else:
        world.disk.truncate(log)
        world.disk.append(log, world.header)
    packed = way.endswith("compress")
    copy = world.disk.create(f"{LOG}.1{'.gz' if packed else ''}")
    world.disk.append(copy, gzip.compress(copied) if packed else copied)
    for _ in world.run([WRITE]):
        pass
    relay.start()
    for _ in range(REST_S):
        world.now += 1
        relay.step()
    check(world, relay, [])

"""The file source against a model of rotation: every line is delivered once, in order.

A script of writes and rotations runs step by step between any two calls that the source makes to
the (simulated) disk. Hypothesis looks for the script and the interleaving that lose or repeat a
line, and shrinks what it finds to the shortest such history.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siemrelay.sources.file.schedule import pause_after_full_survey
from tests.support.rotation.simulated_disk import DIRECTORY
from tests.support.rotation.simulated_rotation import LOG, Relay, Step, World, check, play

# The same histories each time; so many other ones for each law with `SIEMRELAY_EXAMPLES=10000`.
EXAMPLES = os.environ.get("SIEMRELAY_EXAMPLES")
LAW = settings(
    max_examples=int(EXAMPLES or 150), deadline=None, derandomize=EXAMPLES is None,
)  # fmt: skip

steps = st.one_of(
    st.builds(
        Step, st.just("write"), count=st.integers(1, 4), width=st.sampled_from([1, 10, 100, 400])
    ),
    st.builds(Step, st.just("rotate"), compress=st.booleans(), late=st.booleans()),
    st.builds(Step, st.just("copytruncate"), compress=st.booleans(), late=st.booleans()),
    st.builds(Step, st.just("compress"), late=st.booleans()),
    st.builds(Step, st.just("reopen")),
)
stops = st.builds(Step, st.sampled_from(["stop", "kill"]), count=st.integers(0, 12))
gaps = st.lists(st.integers(0, 40), min_size=1, max_size=12)
headers = st.sampled_from([0, 1500, 5000])


@LAW
@given(st.lists(steps, min_size=1, max_size=14), gaps, headers, st.booleans())
def test_every_line_is_delivered_once_at_every_interleaving_of_rotation_and_reading(
    steps: list[Step], gaps: list[int], header: int, watches: bool
) -> None:
    world, relay = play(steps, gaps, header=header, watches=watches)
    check(world, relay, steps)
    # What copytruncate cut away is reported where it was seen; nothing else is.
    assert world.cut or relay.lost == []


@LAW
@given(st.lists(st.one_of(steps, stops), min_size=1, max_size=14), gaps, headers, st.booleans())
def test_every_line_is_delivered_across_restarts(
    steps: list[Step], gaps: list[int], header: int, watches: bool
) -> None:
    world, relay = play(steps, gaps, header=header, watches=watches)
    check(world, relay, steps)


@pytest.mark.parametrize("stop", [[], [Step("kill", count=0)]], ids=["", "killed"])
def test_a_log_that_looks_like_a_deleted_one_is_read_after_its_generations(
    stop: list[Step],
) -> None:
    # The third log has the inode of the first, and the header that is all that was read of it.
    steps = [
        Step("rotate"), Step("compress"), Step("stop", count=0), Step("write", width=1),
        Step("write", width=1), Step("rotate"), Step("write", width=1), Step("compress"), *stop,
    ]  # fmt: skip
    world, relay = play(steps, [0], header=1500, watches=False)
    check(world, relay, steps)


@pytest.mark.parametrize("reads_before", [False, True])
def test_bytes_that_were_seen_and_left_before_they_were_read_are_reported_once(
    reads_before: bool,
) -> None:
    world = World(header=0, keep=30)
    relay = Relay(world, LOG + "*", watches=True)
    if reads_before:
        world.disk.append(world.writer, b"read\n")
        relay.step()
    world.disk.append(world.writer, b"unread\n")
    relay.tracker.survey(full=True)
    world.disk.truncate(world.writer)
    world.disk.append(world.writer, b"new\n")
    for _ in range(10):
        relay.step()
    assert relay.lost == [(LOG, len(b"unread\n"))]
    assert relay.order == [*([b"read"] if reads_before else []), b"new"]


def test_a_deleted_file_stays_open_until_it_is_read_and_still_for_a_minute() -> None:
    world = World(header=0, keep=30)
    relay = Relay(world, LOG, watches=True)
    relay.step()
    old = world.writer
    world.disk.unlink(LOG)
    world.writer = world.new_log()
    for n in range(3):
        world.disk.append(old, b"late %d\n" % n)
        world.now += 50
        relay.step()
    assert relay.order == [b"late 0", b"late 1", b"late 2"]
    assert world.disk.is_open(old)
    for _ in range(3):
        world.now += 50
        relay.step()
    assert not world.disk.is_open(old)
    assert relay.lost == []

    files = 10_000
    world = World(header=0, keep=30)
    for number in range(files - 1):
        inode = world.disk.create(f"{DIRECTORY}/audit{number}.log")
        world.disk.append(inode, b"line\n")
    relay = Relay(world, f"{DIRECTORY}/*", watches=True)
    while relay.step():
        pass
    world.now += 60  # what was written lately is compared with what was read, once more
    relay.step()
    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1

    world.disk.before_call = count
    world.now += 60
    assert not relay.step()
    # Each name is looked up once; open files, 256 at most, are asked in place of their names, too.
    assert files <= calls < files + 600
    pause_s = pause_after_full_survey(files, took_s=0, poll_s=1)
    assert calls / pause_s < 1060
    # Between two such looks nothing is asked but the watcher.
    calls = 0
    for _ in range(10):
        relay.step()
    assert calls <= 10

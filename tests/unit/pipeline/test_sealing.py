"""A sealed stream goes on, or a new one begins: a number stands for one message for ever."""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from siemrelay.buffer.sink_cursor import Outcome, SinkCursor, SinkPolicy
from siemrelay.core.errors import DiskFull, SinkWaits
from siemrelay.core.filters import EventFilter, EventsOptions
from siemrelay.pipeline.batching import DeliveryBatch
from siemrelay.pipeline.formatting.sink_format import SinkFormat
from siemrelay.pipeline.sealing import witness
from siemrelay.pipeline.sealing.archive import SealArchive, folder_of, read_leaves, read_seals
from siemrelay.pipeline.sealing.keys import SealKeys
from siemrelay.pipeline.sealing.maker import SealMaker
from siemrelay.pipeline.sealing.sealed_stream import SealedStream
from siemrelay.pipeline.sealing.settings import StreamSettings
from siemrelay.proof.leaf import hash_of, leaf_of
from siemrelay.proof.seal import Anchor, find_seal, read_seal
from siemrelay.proof.stream import (
    ANOTHER_MACHINE,
    COPIED,
    MOST_ABSENT,
    SET_BACK,
    PendingSeal,
    StreamChange,
    StreamState,
    Witness,
)
from siemrelay.sinks.contract import Refusal
from siemrelay.telemetry.stats import SinkCounts, SinkStats
from tests.support.events.formats import made
from tests.support.events.products import CATALOGUE


class Rig:
    """A sink's cursor, and the stream of a relay that may be started again on it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.stored, self.full, self.end = folder, 0, False, 1
        self.begun = list[tuple[str, str, str]]()
        self.live = SinkCursor("out", 1, 1, SinkPolicy(), SinkCounts())
        self.before_change: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        self.keys = SealKeys(folder, "relay")
        self.keys.make()

    def cursor(self, sink: str) -> SinkCursor:
        return self.live

    async def change_stream(self, sink: str, change: StreamChange) -> None:
        await self.before_change()
        self.live.stream = change(self.live.stream)
        if self.full:
            raise DiskFull("no room")
        self.stored += 1

    async def start(
        self, *, configuration: str = "c0ffee", limit: int | None = None, **more: Any
    ) -> SealedStream:
        settings = StreamSettings(
            "relay", "out", "tcp", "json", configuration, 60.0, 1e9, self.folder
        )
        settings = msgspec.structs.replace(settings, **more)
        messages = SinkFormat(
            EventFilter(EventsOptions(), CATALOGUE), made("json"), max_message_bytes=limit,
            number="x" * 27,
        )  # fmt: skip
        stream = SealedStream(
            settings, SealMaker(settings, messages, dict), self, self.keys, SinkStats("out"),
            on_doubt=lambda *values: self.begun.append(values),
        )  # fmt: skip
        await stream.begin()
        return stream

    async def deliver(self, stream: SealedStream, messages: int, *refusals: Refusal) -> None:
        """Messages of as many records are sent and settled."""
        first, end = self.live.stream, self.live.next_sequence + messages
        assert first is not None
        texts = [b"message %d" % n for n in range(messages)]
        batch = DeliveryBatch(end, texts, first_number=first.tree.size)
        stream.sent(batch)
        confirmed = await stream.confirmed(batch, refusals)
        delivered = messages - len(refusals)
        outcome = Outcome(delivered=delivered, refused=len(refusals), confirmed=confirmed)
        self.live.pass_records(end, outcome)

    async def seal(self, stream: SealedStream) -> DeliveryBatch:
        """The next seal, sent and settled."""
        batch = await stream.next_seal(self.live.next_sequence)
        assert batch is not None
        confirmed = await stream.confirmed(batch, ())
        self.live.pass_records(batch.next_sequence, Outcome(confirmed=confirmed))
        return batch

    @property
    def state(self) -> StreamState:
        assert self.live.stream is not None
        return self.live.stream


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


async def test_a_stream_goes_on_after_a_restart(rig: Rig) -> None:
    await rig.deliver(await rig.start(), 5)
    name = rig.state.name
    rig.live.stream = StreamState.read(rig.state.written())
    await rig.deliver(await rig.start(), 20)
    assert (rig.state.name, rig.state.tree.size) == (name, 25)
    assert rig.state.next_sequence == rig.live.next_sequence == 26


async def test_filtered_records_leave_stream_and_cursor_together(rig: Rig) -> None:
    await rig.deliver(await rig.start(), 5)
    rig.live.pass_records(10, Outcome(filtered=4))
    name = rig.state.name
    await rig.start()
    assert rig.state.name == name


@pytest.mark.parametrize(("change", "cause"), [
    ({"configuration": "decaf"}, "configuration"),
    ({"sink": "other"}, "renamed"),
    ({"relay": "other"}, "renamed"),
])  # fmt: skip
async def test_a_change_begins_a_new_stream_that_names_the_end_of_the_old_one(
    rig: Rig, change: dict[str, Any], cause: str
) -> None:
    await rig.deliver(await rig.start(), 5)
    before = rig.state
    await rig.start(**change)
    after = rig.state
    assert (after.cause, after.tree.size, after.name == before.name) == (cause, 0, False)
    assert after.previous is not None
    assert (after.previous.origin, after.previous.tree) == (before.origin, before.tree)


async def test_records_that_are_given_up_begin_a_new_stream(rig: Rig) -> None:
    await rig.deliver(await rig.start(), 5)
    rig.live.next_sequence += 10  # a full buffer drops them, maybe after some were sent
    await rig.start()
    assert rig.state.cause == "records given up"


async def test_records_that_were_delivered_without_a_seal_begin_a_new_stream(rig: Rig) -> None:
    await rig.deliver(await rig.start(), 5)
    rig.live.pass_records(9, Outcome(delivered=3))
    await rig.start()
    assert rig.state.cause == "records given up"


async def test_nothing_is_sent_in_a_new_stream_that_is_not_on_disk(rig: Rig) -> None:
    rig.full = True
    for _ in range(2):  # at the second attempt it is in memory already
        with pytest.raises(SinkWaits, match="cannot be stored"):
            await rig.start()
    rig.full = False
    await rig.start()
    assert rig.stored == 1


async def test_a_seal_that_is_not_on_disk_is_stored_before_the_next_attempt_sends_it(
    rig: Rig,
) -> None:
    stream = await rig.start()
    await rig.deliver(stream, 3)
    rig.full = True
    with pytest.raises(SinkWaits, match="cannot be stored"):
        await stream.next_seal(4)
    with pytest.raises(SinkWaits, match="cannot be stored"):
        await stream.begin()
    rig.full, stored = False, rig.stored
    await stream.begin()
    assert (rig.stored, stream.turn() is not None) == (stored + 1, True)


async def test_a_stored_seal_is_the_same_message_at_every_attempt(rig: Rig) -> None:
    stream = await rig.start()
    await rig.deliver(stream, 3)
    first = await stream.next_seal(4)
    assert first is not None
    rig.live.stream = StreamState.read(rig.state.written())
    again = await rig.start()
    stored = rig.stored
    assert again.comes_next(rig.live.next_sequence)
    second = await again.next_seal(4)
    assert second is not None
    assert (second.messages, second.first_number, rig.stored) == (first.messages, 3, stored)
    assert not again.comes_next(rig.live.next_sequence)


async def test_a_seal_covers_what_is_settled_and_accounts_for_the_refused(rig: Rig) -> None:
    stream = await rig.start()
    await rig.deliver(stream, 5, Refusal(2, "400", "no"))
    batch = await rig.seal(stream)
    word = find_seal(batch.messages[0])
    assert word is not None
    seal = read_seal(word, [signer.verifier for signer in rig.keys.make()])
    assert (seal.tree.size, seal.tally.number, seal.tally.reason) == (5, 5, "interval")
    (absent,) = seal.tally.absent
    assert (absent.number, absent.leaf) == (2, hash_of(b"message 2").hex())
    assert leaf_of(batch.messages[0]).number == 5
    assert (rig.state.absent, rig.state.pending, rig.state.sealed.size) == ((), None, 5)
    assert stream.is_sealed()


async def test_a_seal_takes_no_number_that_was_sent_before(rig: Rig) -> None:
    stream = await rig.start()
    await rig.deliver(stream, 3)
    assert stream.comes_next(4)
    # Sent, and the connection breaks before the receiver's answer.
    stream.sent(DeliveryBatch(6, [b"a", b"b"], first_number=3))
    await stream.begin()
    assert not stream.comes_next(4)
    stream.sent(DeliveryBatch(6, [b"a", b"b"], first_number=3))
    assert stream.comes_next(6)
    # A new process does not know what was sent of the records that are stored.
    rig.end = 9
    again = await rig.start()
    assert not again.comes_next(4)
    again.sent(DeliveryBatch(6, [b"a", b"b"], first_number=3))
    assert not again.comes_next(6)
    assert again.is_sealed()  # a stop does not wait for what cannot be
    assert again.comes_next(9)
    assert not again.is_sealed()


async def test_after_a_start_a_seal_waits_for_what_may_have_been_sent_and_not_for_a_backlog(
    rig: Rig, autojump_clock: trio.abc.Clock
) -> None:
    rig.end = 10_000_000
    stream = await rig.start()
    bound = rig.state.sent_end
    assert bound is not None
    assert 1 < bound < 100_000
    stored = rig.stored
    await stream.extend(bound)
    assert rig.stored == stored
    # A fast stream stores the next bound some seconds ahead, before anything behind this one goes.
    await trio.sleep(1)
    await stream.extend(bound + 1)
    assert rig.stored == stored + 1
    far = rig.state.sent_end
    assert far is not None
    assert bound + 10_000 < far < bound + 1_000_000
    # Killed there. The next process bars seals up to that record, even if it is killed at once.
    for _ in range(2):
        again = await rig.start()
        assert rig.state.sent_end == far
        assert not again.comes_next(far - 1)
        assert again.comes_next(far)
    # What an earlier version has sent is not known: all that is stored may have been.
    rig.live.stream = msgspec.structs.replace(rig.state, sent_end=None)
    again = await rig.start()
    assert rig.state.sent_end == rig.end
    assert not again.comes_next(rig.end - 1)


async def test_nothing_is_sent_behind_a_bound_that_cannot_be_stored(rig: Rig) -> None:
    stream = await rig.start()
    rig.full, bound = True, rig.state.sent_end or 0
    with pytest.raises(SinkWaits):
        await stream.extend(bound + 1)
    rig.full, stored = False, rig.stored
    await stream.begin()  # stores what is in memory alone
    assert rig.stored == stored + 1


async def test_a_slow_stream_stores_its_bound_with_its_seals(rig: Rig) -> None:
    stream = await rig.start()
    for _ in range(20):
        await rig.deliver(stream, 900)
        stored = rig.stored
        await stream.extend(rig.live.next_sequence + 900)
        assert rig.stored == stored
        await rig.seal(stream)


async def test_a_batch_that_is_settled_while_a_seal_is_stored_stays_settled(rig: Rig) -> None:
    stream = await rig.start()
    await rig.deliver(stream, 3)
    stream.sent(DeliveryBatch(9, [b"in flight"] * 5, first_number=3))
    rig.before_change = partial(rig.deliver, stream, 5)
    batch = await stream.next_seal(9)
    assert batch is not None
    assert (rig.state.tree.size, rig.state.next_sequence) == (8, 9)
    assert rig.state.pending is not None
    assert (rig.state.pending.size, rig.state.pending.number) == (3, 8)


async def test_many_refusals_make_a_seal_due_and_each_is_accounted_for_once(rig: Rig) -> None:
    stream = await rig.start()
    await rig.seal(stream)
    assert not stream.comes_next(rig.live.next_sequence)
    count = 3 * MOST_ABSENT
    await rig.deliver(stream, count, *(Refusal(n, "400", "no") for n in range(count)))
    numbers = list[int]()
    while stream.comes_next(rig.live.next_sequence):
        word = find_seal((await rig.seal(stream)).messages[0])
        assert word is not None
        numbers += [absent.number for absent in read_seal(word, []).tally.absent]
    left = [absent.number for absent in rig.state.absent]
    assert numbers + left == [*range(1, count + 1)]
    assert len(left) < MOST_ABSENT


async def test_a_seal_over_the_limit_of_a_message_is_given_up_for_a_while(
    rig: Rig, autojump_clock: trio.testing.MockClock
) -> None:
    stream = await rig.start(limit=100)
    await rig.deliver(stream, 3)
    assert await stream.next_seal(4) is None
    assert rig.state.pending is None
    assert not stream.comes_next(rig.live.next_sequence)


async def test_the_archive_has_every_leaf_and_seal(rig: Rig) -> None:
    stream = await rig.start()
    await rig.deliver(stream, 3)
    await rig.deliver(stream, 20)
    await rig.seal(stream)
    await rig.seal(stream)
    folder = folder_of(rig.folder, rig.state.name)
    assert [(seal.number, seal.size, seal.position) for seal in read_seals(folder)] == [
        (23, 23, 24), (24, 24, 24),
    ]  # fmt: skip
    ((first, leaves),) = read_leaves(folder)
    whole = [leaves[i : i + 32] for i in range(0, len(leaves), 32)]
    assert (first, whole[:3]) == (0, [hash_of(b"message %d" % n) for n in range(3)])
    assert rig.state.tree.size == len(whole) + 1


@pytest.mark.parametrize(
    ("torn_bytes", "kept"), [(1, [0, 1, 2, 3]), (2, [0, 2, 3]), (60, [0, 2, 3])]
)
def test_a_torn_line_of_the_archive_costs_no_other(
    tmp_path: Path, torn_bytes: int, kept: list[int]
) -> None:
    archive = SealArchive(tmp_path, "stream", 3600)
    for number in range(4):
        if number == 2:
            file = folder_of(tmp_path, "stream") / "seals"
            os.truncate(file, file.stat().st_size - torn_bytes)
        archive.add_seal("relay/sink/stream", PendingSeal(number, number, number, "", 0, 1.0, "x"))
    assert [seal.number for seal in read_seals(folder_of(tmp_path, "stream"))] == kept
    last = archive.last_seal()
    assert last is not None
    assert last.number == 3


async def sealed_stream(rig: Rig, messages: int = 5) -> SealedStream:
    """A stream of so many messages, and a seal of them."""
    stream = await rig.start()
    await rig.deliver(stream, messages)
    await rig.seal(stream)
    return stream


def copied(state: StreamState) -> StreamState:
    """As it comes from the disk."""
    found = StreamState.read(state.written())
    assert found is not None
    return found


async def test_a_copy_of_the_state_begins_a_new_stream_that_names_the_end_of_the_old_one(
    rig: Rig, tmp_path_factory: pytest.TempPathFactory
) -> None:
    await sealed_stream(rig)
    clone = Rig(tmp_path_factory.mktemp("clone"))
    shutil.copytree(rig.folder, clone.folder, dirs_exist_ok=True)
    clone.live.stream, clone.live.next_sequence = copied(rig.state), rig.live.next_sequence
    before = rig.state
    await clone.start()
    assert (clone.state.cause, clone.begun) == (COPIED, [("out", clone.state.name, COPIED)])
    assert clone.state.previous == Anchor.of(before.origin, before.tree)
    # The one that was copied goes on, and so does the copy from now on.
    for each, name in ((rig, before.name), (clone, clone.state.name)):
        each.live.stream = copied(each.state)
        await each.start()
        assert each.state.name == name


@pytest.mark.parametrize(("restored", "cause"), [("seals", COPIED), ("", SET_BACK)])
async def test_an_older_state_begins_a_new_stream_after_the_last_seal_that_is_known(
    rig: Rig, tmp_path_factory: pytest.TempPathFactory, restored: str, cause: str
) -> None:
    backup = tmp_path_factory.mktemp("backup")
    stream = await sealed_stream(rig)
    shutil.copytree(rig.folder, backup, dirs_exist_ok=True)
    old, position = copied(rig.state), rig.live.next_sequence
    await rig.deliver(stream, 5)
    await rig.seal(stream)
    # Over the files that are there, as `cp -a` does it: their inodes stay, and so do times.
    if restored:
        shutil.copytree(backup / restored, rig.folder / restored, dirs_exist_ok=True)
    sealed = rig.state.sealed
    rig.live.stream, rig.live.next_sequence = old, position
    await rig.start()
    assert rig.state.cause == cause
    assert rig.state.previous is not None
    end = (old.tree.size, old.tree.root.hex()) if restored else (sealed.size, sealed.root)
    assert (rig.state.previous.size, rig.state.previous.tree.root.hex()) == end


async def test_another_machine_begins_a_new_stream(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (first := tmp_path / "first").write_text("1" * 32)
    (second := tmp_path / "second").write_text("2" * 32)
    monkeypatch.setattr(witness, "_MACHINE_IDS", (tmp_path / "missing", first))
    await sealed_stream(rig)
    assert "1" * 32 not in rig.state.written()
    monkeypatch.setattr(witness, "_MACHINE_IDS", (second,))
    await rig.start()
    assert rig.state.cause == ANOTHER_MACHINE


async def test_a_relay_that_was_killed_while_it_made_a_seal_goes_on_with_its_stream(
    rig: Rig,
) -> None:
    stream = await sealed_stream(rig)
    name, stored = rig.state.name, copied(rig.state)
    # Before the state with the new witness is on disk, and after.
    rig.full = True
    with pytest.raises(SinkWaits):
        await stream.next_seal(rig.live.next_sequence)
    rig.full, rig.live.stream = False, stored
    assert (await rig.start()).state.name == name
    await stream.next_seal(rig.live.next_sequence)
    rig.live.stream = copied(rig.state)
    assert (await rig.start()).state.name == name


async def test_a_snapshot_of_the_whole_disk_cannot_be_seen(rig: Rig) -> None:
    """Only `siemrelay verify` finds it: test_two_histories_of_one_stream_are_found."""
    await sealed_stream(rig)
    snapshot, position = copied(rig.state), rig.live.next_sequence
    name = rig.state.name
    await rig.deliver(await rig.start(), 5)
    rig.live.stream, rig.live.next_sequence = snapshot, position
    assert (await rig.start()).state.name == name


async def test_a_stream_of_a_relay_without_witnesses_goes_on(rig: Rig) -> None:
    await sealed_stream(rig)
    rig.live.stream = msgspec.structs.replace(rig.state, witness=None)
    name = rig.state.name
    assert (await rig.start()).state.name == name


@pytest.mark.parametrize(("changed_ns", "same"), [
    (5_123_456_789, True), (5_123_000_000, True), (5_000_000_000, True),
    (5_123_456_790, False), (4_000_000_000, False), (6_000_000_000, False),
])  # fmt: skip
def test_a_disk_may_keep_fewer_digits_of_a_time_than_memory(changed_ns: int, same: bool) -> None:
    known = Witness("witness-7", 7, 5_123_456_789, "")
    assert witness.is_the_file(known, 7, changed_ns) is same
    assert not witness.is_the_file(known, 8, changed_ns)

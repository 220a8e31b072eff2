"""One suite over every row of the sinks: what a delivery may rely on, whatever the protocol."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from siemrelay.core.errors import BatchRefused, DeliveryError, SinkHolds, SinkWaits, leaves
from siemrelay.pipeline.rejection import isolate
from siemrelay.registry import PROTOCOLS
from siemrelay.sinks.contract import Certified, Session, Settlement, Sink
from tests.contracts.cancelling import PATIENCE_S, NothingLeft, cancelled_at, eventually
from tests.contracts.sink_peers import BAD, PEERS, Certificates, SinkPeer, rows_where
from tests.support.sessions import long_probation


@asynccontextmanager
async def peer_of(row: str, directory: Path, **more: Any) -> AsyncIterator[SinkPeer]:
    peer = PEERS[row](row, directory, **more)
    async with peer.open():
        yield peer


async def delivered(session: Session, messages: Sequence[bytes]) -> Settlement:
    return await session.confirm(await session.send(messages))


async def failure(sink: Sink, messages: Sequence[bytes], times: int = 3) -> DeliveryError:
    """What a session says in the end; datagrams may need more than one to be missed."""
    try:
        with long_probation():
            async with sink.session() as session:
                for _ in range(times):
                    await delivered(session, messages)
                    await trio.sleep(0.01)
    except DeliveryError as error:
        return error
    except BaseExceptionGroup as group:
        (found,) = leaves(group)
        assert isinstance(found, DeliveryError)
        return found
    raise AssertionError("it took everything")


def test_every_row_has_a_peer() -> None:
    assert PEERS.keys() == set(PROTOCOLS), "a new row needs its peer in sink_peers.py"


@pytest.mark.parametrize("row", PEERS)
async def test_batches_arrive_whole_and_in_order_and_each_is_confirmed(
    row: str, tmp_path: Path
) -> None:
    async with peer_of(row, tmp_path) as peer:
        with trio.fail_after(PATIENCE_S):
            async with peer.sink().session() as session:
                for first in range(0, 30, 10):
                    tickets = [
                        await session.send(peer.messages(*range(start, start + 5)))
                        for start in (first, first + 5)
                    ]
                    for ticket in tickets:
                        assert not await session.confirm(ticket)
        await eventually(lambda: len(peer.held) >= 30, "everything arrived")
        assert peer.held == list(range(30))


@pytest.mark.parametrize("row", rows_where("waits"))
async def test_a_fault_that_passes_is_waited_for(row: str, tmp_path: Path) -> None:
    async with peer_of(row, tmp_path) as peer:
        await trio.to_thread.run_sync(peer.make_wait)
        with trio.fail_after(PATIENCE_S):
            assert type(await failure(peer.sink(), peer.messages(1))) is SinkWaits


@pytest.mark.parametrize("row", rows_where("holds"))
async def test_a_fault_that_a_person_must_fix_holds_and_says_what_to_change(
    row: str, tmp_path: Path
) -> None:
    async with peer_of(row, tmp_path) as peer:
        peer.make_hold()
        with trio.fail_after(PATIENCE_S):
            found = await failure(peer.sink(), peer.messages(1))
        assert isinstance(found, SinkHolds), found
        assert found.advice


@pytest.mark.parametrize("row", rows_where("refuses"))
async def test_one_refused_message_is_found_and_the_others_are_taken(
    row: str, tmp_path: Path
) -> None:
    async with peer_of(row, tmp_path) as peer:
        peer.make_refuse()
        messages = [*peer.messages(1, 2, 3), peer.bad(), *peer.messages(4, 5)]
        with trio.fail_after(PATIENCE_S):
            async with peer.sink().session() as session:
                try:
                    refusals = await delivered(session, messages)
                except BatchRefused as refused:
                    refusals, _ = await isolate(session, messages, refused, proven=True)
                assert [refusal.index for refusal in refusals] == [3]
                assert refusals[0].code
                assert refusals[0].reason
                assert not await delivered(session, peer.messages(6)), "the session goes on"
        await eventually(lambda: 6 in peer.held, "the last one arrived")
        assert sorted(set(peer.held)) == [1, 2, 3, 4, 5, 6]
        assert BAD not in peer.held


@pytest.mark.parametrize("row", rows_where("confirms"))
async def test_nothing_is_confirmed_that_a_peer_which_goes_away_does_not_hold(
    row: str, tmp_path: Path
) -> None:
    confirmed: list[int] = []
    async with peer_of(row, tmp_path) as peer:
        with trio.fail_after(PATIENCE_S):
            try:
                async with peer.sink().session() as session:
                    for number in range(100):
                        ticket = await session.send(peer.messages(number))
                        if number == 7:
                            await trio.to_thread.run_sync(peer.vanish)
                        await session.confirm(ticket)
                        confirmed.append(number)
            except (DeliveryError, BaseExceptionGroup) as error:
                found = leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
                assert all(isinstance(each, SinkWaits) for each in found), found
        assert confirmed[:7] == list(range(7))
        assert len(confirmed) < 100
        if row == "kafka":
            peer.cluster.set_up()  # type: ignore[attr-defined]  # to look into it
        assert set(confirmed) <= set(peer.held)


@pytest.mark.parametrize(
    ("row", "secured"),
    [*((row, False) for row in PEERS), *((row, True) for row in rows_where("secured"))],
)
async def test_cancelled_at_any_await_a_session_leaves_nothing_open_and_confirms_nothing_false(
    row: str, secured: bool, tmp_path: Path
) -> None:
    confirmed: list[int] = []
    certificates = Certificates(tmp_path) if secured else None
    async with peer_of(row, tmp_path, certificates=certificates) as peer:
        sink = peer.sink()
        number = 0

        async def work() -> None:
            async with sink.session() as session:
                ticket = await session.send(peer.messages(number))
                await session.confirm(ticket)
                confirmed.append(number)

        await work()  # what is imported and made once, is now
        nothing_left = NothingLeft()
        for step in itertools.count(1):
            number = step
            with trio.fail_after(PATIENCE_S):
                over = await cancelled_at(step, work)
            await nothing_left.check(f"cancelled at step {step}")
            if over:
                break
        await work()
        if PEERS[row].confirms:
            assert set(confirmed) <= set(peer.held)


@pytest.mark.parametrize("row", rows_where("secured"))
async def test_a_changed_certificate_holds_until_its_authority_is_trusted(
    row: str, tmp_path: Path
) -> None:
    """The sink is the same all the time: nobody restarts a relay for a certificate."""
    certificates = Certificates(tmp_path)
    async with peer_of(row, tmp_path, certificates=certificates) as peer:
        sink = peer.sink()
        with trio.fail_after(PATIENCE_S):
            async with sink.session() as session:
                assert not await delivered(session, peer.messages(1))
            certificates.replace_server_certificate()
            found = await failure(sink, peer.messages(2))
            assert isinstance(found, SinkHolds), found
            assert "ca:" in found.advice
            certificates.trust()
            async with sink.session() as session:
                assert not await delivered(session, peer.messages(3))
        assert peer.held == [1, 3]
        if row != "kafka":  # librdkafka keeps the certificate to itself
            assert isinstance(sink, Certified)
            assert sink.certificate_expires_at is not None

"""An authority that is dead, slow, wrong or mad is asked again, and harms nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from siemrelay.pipeline.sealing import timestamps
from siemrelay.pipeline.sealing.archive import SealArchive, folder_of, read_timestamps
from siemrelay.pipeline.sealing.options import TimestampOptions
from siemrelay.pipeline.sealing.timestamps import Timestamper
from siemrelay.proof.seal import find_seal, note_of
from siemrelay.proof.stream import PendingSeal
from siemrelay.proof.timestamps import TimestampRequest, check, read_authorities
from siemrelay.telemetry.stats import SinkStats
from tests.support.programs.timestamp_authority import TimestampAuthority
from tests.support.receivers.http import Answer, HttpReceiver, Request, binary
from tests.support.seals.stream import SealedStream

STREAM = "abcdefgh22"


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timestamps, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(timestamps, "_LONGEST_PAUSE_S", 0.001)


@pytest.fixture(scope="module")
def tsa(tmp_path_factory: pytest.TempPathFactory) -> TimestampAuthority:
    return TimestampAuthority(tmp_path_factory.mktemp("tsa") / "tsa")


class Rig:
    """A stamper whose authority gives `answers`, one after the other, then true ones."""

    def __init__(
        self, folder: Path, tsa: TimestampAuthority, answers: Iterator[Answer], every: str = "1h"
    ) -> None:
        self.tsa, self.answers, self.asked = tsa, answers, 0
        self.server = HttpReceiver(self._answer)
        self.stats, self.archive = SinkStats("out"), SealArchive(folder, STREAM, 1e9)
        options = TimestampOptions.model_validate(
            {"url": self.server.url, "every": every, "timeout": "5s"}
        )
        self.stamper = Timestamper("out", options, self.stats)
        self.faults = list[str]()

    def _answer(self, request: Request) -> Answer:
        assert request.headers["content-type"] == "application/timestamp-query"
        if self.stats.timestamps is not None:
            self.faults.append(self.stats.timestamps.fault)
        self.asked += 1
        return next(self.answers, None) or binary(self.tsa.answer(request.body))

    async def until_stamped(self) -> None:
        while self.stats.timestamps is None or self.stats.timestamps.at is None:  # noqa: ASYNC110  (the relay has no event for this)
            await trio.sleep(0.005)


def pending(number: int = 11) -> PendingSeal:
    stream = SealedStream(STREAM)
    stream.send(number)
    word = find_seal(stream.seal())
    assert word is not None
    text = "siemrelay-seal:" + word.decode()
    return PendingSeal(number, 1, number, "", 0, time.time(), text)


async def test_every_kind_of_bad_answer_is_a_fault_and_the_true_one_ends_it(
    tmp_path: Path, tsa: TimestampAuthority
) -> None:
    seal = pending()
    old = tsa.answer(TimestampRequest.of(note_of(seal.text)).body)
    other = tsa.answer(TimestampRequest.of(b"something else").body)
    bad = [
        (Answer(503, "overloaded"), "503"),
        (Answer(200, "<html>"), "not a time stamp"),
        (binary(b""), "not a time stamp"),
        (binary(b"0" * 5_000_000), "longer than 16 KiB"),
        (binary(old), "another nonce"),
        (binary(other), "another nonce"),
        (Answer(302, Location="http://elsewhere.example"), "302"),
        (Answer(401, "who are you"), "401"),
    ]  # fmt: skip
    rig = Rig(tmp_path, tsa, iter([answer for answer, _ in bad]))
    with rig.server:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.stamper.run)
            await rig.stamper.begin(rig.archive)
            rig.stamper.confirmed(seal.number, seal.text)
            await rig.until_stamped()
            nursery.cancel_scope.cancel()
    assert rig.faults[0] == ""
    for (_, fault), found in zip(bad, rig.faults[1:], strict=True):
        assert fault in found
    assert rig.stats.timestamps is not None
    assert rig.stats.timestamps.fault == ""
    (kept,) = read_timestamps(folder_of(tmp_path, STREAM))
    assert kept.number == 11
    assert kept.at == check(
        kept.response, note_of(seal.text), read_authorities(tsa.ca.read_bytes())
    ).timestamp()  # fmt: skip
    carried = rig.stamper.to_carry(STREAM)
    assert carried is not None
    assert (carried.number, carried.response) == (11, kept.response)
    assert rig.stamper.to_carry(STREAM) is None


async def test_the_latest_seal_is_stamped_and_no_other_before_its_time(
    tmp_path: Path, tsa: TimestampAuthority
) -> None:
    rig = Rig(tmp_path, tsa, iter([]))
    with rig.server:
        async with trio.open_nursery() as nursery:
            await rig.stamper.begin(rig.archive)
            for number in (5, 11):
                rig.stamper.confirmed(number, pending(number).text)
            nursery.start_soon(rig.stamper.run)
            await rig.until_stamped()
            rig.stamper.confirmed(12, pending(12).text)
            await trio.testing.wait_all_tasks_blocked(0.02)
            nursery.cancel_scope.cancel()
    assert [stamp.number for stamp in read_timestamps(folder_of(tmp_path, STREAM))] == [11]
    assert rig.asked == 1


async def test_after_a_restart_the_last_seal_is_stamped_if_it_is_not_yet(
    tmp_path: Path, tsa: TimestampAuthority
) -> None:
    rig = Rig(tmp_path, tsa, iter([]), every="1s")
    seal = pending()
    rig.archive.add_seal("relay/out/" + STREAM, seal)
    with rig.server:
        for stamped in (True, False):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(rig.stamper.run)
                await rig.stamper.begin(rig.archive)
                if stamped:
                    await rig.until_stamped()
                nursery.cancel_scope.cancel()
    assert rig.asked == 1

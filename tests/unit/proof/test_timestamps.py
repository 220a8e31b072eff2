"""A time stamp is checked against `openssl ts` as the authority, and as a second verifier."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509 import Certificate
from cryptography.x509.oid import ExtendedKeyUsageOID as Usage

from siemrelay.proof.report import Report
from siemrelay.proof.seal import Timestamp, find_seal, read_seal
from siemrelay.proof.timestamps import (
    TimestampCheck,
    TimestampRequest,
    check,
    read_authorities,
)
from siemrelay.proof.verification import Verification
from tests.support.programs.timestamp_authority import TimestampAuthority
from tests.support.seals.stream import SIGNER, START, SealedStream, read_into

NOTE = b"relay.example/splunk/abcdefgh22\n11\nroot\n"


@pytest.fixture(scope="module")
def tsa(tmp_path_factory: pytest.TempPathFactory) -> TimestampAuthority:
    return TimestampAuthority(tmp_path_factory.mktemp("tsa") / "tsa")


def stamp(tsa: TimestampAuthority, note: bytes = NOTE) -> bytes:
    request = TimestampRequest.of(note)
    response = tsa.answer(request.body)
    request.accept(response)
    return response


def trusted(tsa: TimestampAuthority) -> list[Certificate]:
    return read_authorities(tsa.ca.read_bytes())


def test_an_answer_gives_the_time_and_openssl_agrees(
    tsa: TimestampAuthority, tmp_path: Path
) -> None:
    response, note = tmp_path / "response.tsr", tmp_path / "note"
    before = datetime.now(UTC)
    response.write_bytes(stamp(tsa))
    note.write_bytes(NOTE)
    at = check(response.read_bytes(), NOTE, trusted(tsa))
    assert before - timedelta(seconds=1) <= at <= datetime.now(UTC)
    assert tsa.accepts(response, note)
    note.write_bytes(NOTE + b"x")
    assert not tsa.accepts(response, note)
    with pytest.raises(ValueError, match="something else"):
        check(response.read_bytes(), NOTE + b"x", trusted(tsa))


def test_certificates_may_come_in_any_order(tmp_path: Path) -> None:
    for n in range(4):  # each has keys of its own, so the order is by chance
        tsa = TimestampAuthority(tmp_path / f"tsa{n}")
        check(stamp(tsa), NOTE, trusted(tsa))


@pytest.mark.parametrize(("answer", "why"), [
    (lambda tsa: tsa.answer(TimestampRequest.of(NOTE).body), "another nonce"),
    (lambda tsa: b"", "not a time stamp"),
    (lambda tsa: b"<html>Welcome to the hotel's network</html>", "not a time stamp"),
    (lambda tsa: b"\x30\x84\xff\xff\xff\xff", "not a time stamp"),
    (lambda tsa: b"\x30" * 20_000, "longer than 16 KiB"),
    (lambda tsa: tsa.answer(b"no query"), "refusal: rejection"),
    (lambda tsa: bytes([0x30, 5, 0x30, 3, 2, 1, 0]), "not a time stamp"),
])  # fmt: skip
def test_an_answer_to_anything_else_is_refused(
    tsa: TimestampAuthority, answer: Callable[[TimestampAuthority], bytes], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        TimestampRequest.of(NOTE).accept(answer(tsa))


def test_an_answer_about_another_seal_is_refused(tsa: TimestampAuthority) -> None:
    asked, other = TimestampRequest.of(NOTE), TimestampRequest.of(NOTE + b"x")
    mixed = TimestampRequest(asked.body, other.nonce, asked.digest)
    with pytest.raises(ValueError, match="something else"):
        mixed.accept(tsa.answer(other.body))


def test_a_certificate_that_has_ended_or_is_not_for_time_stamps_proves_nothing(
    tsa: TimestampAuthority, tmp_path: Path
) -> None:
    ended = TimestampAuthority(tmp_path / "ended", ends_in=timedelta(days=-1))
    signer = TimestampAuthority(tmp_path / "signer", usage=Usage.CODE_SIGNING)
    fit = TimestampAuthority(tmp_path / "fit")
    for authority, response in (
        (ended, stamp(ended)), (signer, signer.forge(stamp(tsa))),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="none of the given authorities"):
            check(response, NOTE, trusted(authority))
    check(fit.forge(stamp(tsa)), NOTE, trusted(fit))


def test_another_authority_proves_nothing(tsa: TimestampAuthority, tmp_path: Path) -> None:
    other = TimestampAuthority(tmp_path / "other")
    with pytest.raises(ValueError, match=r"none of the given authorities .*: [a-z ]+$"):
        check(stamp(other), NOTE, trusted(tsa))


def test_a_damaged_answer_is_refused_or_as_good_as_it_was(tsa: TimestampAuthority) -> None:
    whole, rng, refused = stamp(tsa), random.Random(7), 0
    at = check(whole, NOTE, trusted(tsa))
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        if rng.random() < 0.2:
            del damaged[rng.randrange(len(damaged)) :]
        try:
            assert check(bytes(damaged), NOTE, trusted(tsa)) == at
        except ValueError:
            refused += 1
    assert refused > 200


class Stamped(SealedStream):
    """A stream whose seals carry the time stamp of the seal before."""

    def __init__(self, tsa: TimestampAuthority, **options: Any) -> None:
        super().__init__(**options)
        self.tsa = tsa

    def seal_with_stamp(self, spoil: Callable[[bytes], bytes] = bytes) -> None:
        """Seal what was sent; the stamp of the last seal goes with it, if there was one."""
        word = next(filter(None, map(find_seal, reversed(self.lines))), None)
        if word is not None:
            seal = read_seal(word, [])
            response = spoil(stamp(self.tsa, seal.note))
            self.timestamp = Timestamp(seal.tally.number, response)
        self.seal()


def verified(stream: SealedStream, check: TimestampCheck) -> Report:
    checked = Verification([SIGNER.verifier], until=stream.now.timestamp(), timestamps=check)
    read_into(checked, (line + b"\n" for line in stream.lines))
    return checked.report()


def of_three_seals(tsa: TimestampAuthority, **options: Any) -> Stamped:
    stream = Stamped(tsa, **options)
    for _ in range(3):
        stream.send(10)
        stream.seal_with_stamp()
    return stream


def test_seals_carry_the_stamps_of_those_before_and_the_report_says_what_existed_when(
    tsa: TimestampAuthority,
) -> None:
    stream = of_three_seals(tsa)
    (report,) = verified(stream, TimestampCheck(trusted(tsa))).streams
    assert report.stamped is not None
    # The second seal, number 21, is of the 21 messages before it.
    assert (report.timestamps, report.stamped.number, report.stamped.size) == (2, 21, 21)
    assert datetime.fromisoformat(report.stamped.at) > START
    unchecked = verified(stream, TimestampCheck())
    assert unchecked.is_proven
    assert (unchecked.streams[0].timestamps, unchecked.streams[0].stamped) == (2, None)


def test_stamps_of_a_stranger_and_of_a_clock_that_was_wrong_are_findings(
    tsa: TimestampAuthority, tmp_path: Path
) -> None:
    stranger = TimestampAuthority(tmp_path / "stranger")
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    for stream in (of_three_seals(stranger), of_three_seals(tsa, start=tomorrow)):
        report = verified(stream, TimestampCheck(trusted(tsa)))
        assert {(f.kind, f.first) for f in report.findings} == {
            ("timestamp", 10),
            ("timestamp", 21),
        }
        assert not report.unchanged


def test_events_sealed_anew_later_have_no_stamp_from_before(tsa: TimestampAuthority) -> None:
    """Whoever has the signing key can make a history, and cannot make it old."""
    true, forged = of_three_seals(tsa), SealedStream()
    stamps = [read_seal(word, []).timestamp for line in true.lines if (word := find_seal(line))]
    for _ in range(3):
        forged.send(10, user="mallory")
        forged.seal()
    judged = TimestampCheck(trusted(tsa))
    for old in filter(None, stamps):
        judged.add(forged.name, old)
    report = verified(forged, judged)
    assert report.streams[0].stamped is None
    assert {f.kind for f in report.findings} == {"timestamp"}

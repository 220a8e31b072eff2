"""Exports by somebody who wants that verify fails, lies or takes all memory: each is bounded."""

from __future__ import annotations

import gzip
import json
import os
import random
import resource
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import zstandard

from siemrelay.proof.exports.lines import LineFinder, TooLarge
from siemrelay.proof.exports.parts import parts
from siemrelay.proof.report import Report
from siemrelay.proof.verification import Verification
from tests.support.seals.stream import SIGNER, SealedStream, read_into, sealed

MIB = 1 << 20
WHOLE = b"\n".join(sealed().lines) + b"\n"


def verified(pieces: Iterable[bytes], most_bytes: int = 64 * MIB) -> Report:
    checked = Verification([SIGNER.verifier], until=sealed().now.timestamp(), most_bytes=most_bytes)
    read_into(checked, [WHOLE, *pieces])
    return checked.report()


def numbered(number: int, stream: str = "abcdefgh22", **fields: object) -> bytes:
    return json.dumps({**fields, "siemrelay": {"n": f"{stream}:{number}"}}).encode() + b"\n"


def stream_names() -> Iterator[str]:
    letters = "abcdefghijklmnopqrstuvwxyz234567"
    for n in range(32**3):
        yield "zzzzzzz" + letters[n >> 10] + letters[n >> 5 & 31] + letters[n & 31]


TOO_LARGE: dict[str, tuple[Callable[[], Iterable[bytes]], str]] = {
    "a line without an end": (lambda: [b"x" * MIB] * 70, "is longer than 64 MiB"),
    "a JSON line without an end": (
        lambda: [WHOLE, b'{"a":"', *[b"x" * MIB] * 70], "line 34 is longer than 64 MiB",
    ),
    "a line of millions of values": (
        lambda: [WHOLE, b'{"a":[' + b"{}," * 3_000_000 + b"1]}\n"], "line 34: one value of 8 MiB",
    ),
    "a document of millions of values": (
        lambda: [b'{"results":[\n', *[b"{}," * 100_000 + b"\n"] * 40],
        "one JSON value over many lines",
    ),
    "a row of a CSV that never ends": (
        lambda: [b'_time,_raw\n1,"', *[b"x" * 99 + b"\n" + b"x" * (MIB - 100)] * 70],
        "one row of the CSV is longer than 64 MiB",
    ),
    "a row of a CSV with millions of cells": (
        lambda: [b"_time,_raw\n", b"," * 8 * MIB], "line 2: one value of 8 MiB",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("pieces", "said"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_what_would_take_too_much_memory_is_refused_before_it_does(
    pieces: Callable[[], Iterable[bytes]], said: str
) -> None:
    made = list(pieces())
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge, match=said):
            for _ in parts(made):
                pass
        assert tracemalloc.get_traced_memory()[1] < 300 * MIB
    finally:
        tracemalloc.stop()


def test_numbers_that_lie_far_apart_are_refused_when_they_take_too_much_memory() -> None:
    with pytest.raises(TooLarge, match=r"more than 1 MiB of memory.*--memory"):
        verified((numbered(n * 10**9) for n in range(5000)), most_bytes=MIB)


def test_streams_that_somebody_invents_are_counted_as_added() -> None:
    report = verified(numbered(0, name) for name in list(stream_names())[:12_000])
    assert len(report.streams) == 10_000
    said = "2,001 rows of further streams than the first 10,000"
    assert said in {finding.why for finding in report.findings}
    assert not report.is_proven


def test_thousands_of_different_messages_of_one_number_are_added_ones() -> None:
    report = verified(numbered(5, x=n) for n in range(3000))
    assert {finding.kind for finding in report.findings} == {"added"}
    assert any("2,936 messages more of numbers" in finding.why for finding in report.findings)


def test_thousands_of_texts_like_seals_are_counted() -> None:
    text = "siemrelay-seal:" + "A" * 200
    report = verified(numbered(n, m=text) for n in range(100, 10_200))
    assert {finding.kind for finding in report.findings} <= {"forged", "unproven"}
    assert report.more + len(report.findings) + len(report.notes) > 1_000


@pytest.mark.parametrize("line", [
    b"[" * 100_000, b"[" * 900 + b"]" * 900, b'{"a":' * 300 + b"1" + b"}" * 300,
    b'{"a":' + b"1" * 5000 + b"}", b'{"a":' + b"1" * 500_000 + b"}", b'{"a":1e400}',
    b'{"siemrelay":{"n":"abcdefgh22:1000000000000000000"}}',
    '{"siemrelay":{"n":"abcdefgh22:1\u0663"}}'.encode(),
    b"{" + b",".join(b'"k%d":%d' % (n, n) for n in range(20_000)) + b"}",
])  # fmt: skip
def test_odd_json_is_one_added_message(line: bytes) -> None:
    report = verified([line + b"\n"])
    assert [(finding.kind, finding.first) for finding in report.findings] == [("added", None)]
    assert report.rows == 34


def test_a_document_of_lists_in_lists_is_read_or_refused() -> None:
    for depth in (10, 500, 900, 5000):
        text = b"[" * depth + b"\n" + b"]" * depth
        try:
            assert sum(len(part.leaves.hashes) for part in parts([text])) <= 1
        except ValueError as error:
            assert "JSON" in str(error)  # noqa: PT017  (either is right)


def test_texts_that_a_document_does_not_have_are_not_searched_for_ever() -> None:
    """A number may be written with escapes, and thousands of others begin like it."""
    lines = LineFinder(b"\nabcdefgh22:1\n" + b"abcdefgh22:17\n" * 2_000)
    assert [lines.line_of(b"abcdefgh22:1"), lines.line_of(b"abcdefgh22:17")] == [2, 3]
    for _ in range(101):
        assert lines.line_of(b"abcdefgh22:1") == 3
    assert lines.line_of(b"abcdefgh22:17") == 3  # nothing is found any more, in no time


def test_an_empty_stretch_of_a_csv_hides_no_row() -> None:
    text = b"_time,_raw\n" + b"\n" * 5000 + b"1,mallory\n"
    assert [n for part in parts([text]) for n in part.leaves.numbers] == [None]


@pytest.mark.parametrize("cut", [1, 7, 64, 1000, 100_000])
def test_messages_do_not_depend_on_the_pieces_in_which_they_are_read(cut: int) -> None:
    text = b"\xef\xbb\xbf" + WHOLE.replace(b"\n", b"\r\n")
    whole = list(parts([text]))
    pieces = list(parts(text[at : at + cut] for at in range(0, len(text), cut)))
    assert [h for part in pieces for h in part.leaves.hashes] == whole[0].leaves.hashes
    assert [n for part in pieces for n in part.lines] == list(range(1, 34))


TOKENS = (
    b'"', b"\\", b"{", b"}", b"]", b",", b":", b"\n", b"\r", b" ", b"0", b"e5", b"\\u0022", b"null",
    b'"user":"eve",', b'"_raw":"x",', b'"hits":[],', b'"siemrelay":', b"abcdefgh22:3", b"-0",
)  # fmt: skip


def damaged(text: bytes, rng: random.Random) -> bytes:
    """The text with a few bytes put in, left out, changed or copied."""
    out = bytearray(text)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at, way = rng.randrange(len(out)), rng.randrange(5)
        if way == 0:
            out[at] = rng.randrange(256)
        elif way == 1:
            out[at:at] = rng.choice(TOKENS)
        elif way == 2:
            del out[at : at + rng.choice((1, 2, 5, 30))]
        elif way == 3:
            start = rng.randrange(len(out))
            out[at:at] = out[start : start + rng.choice((1, 5, 40, 300))]
        else:
            token = rng.choice(TOKENS)
            out[at : at + len(token)] = token
    return bytes(out)


def test_no_damage_to_an_export_goes_unseen() -> None:
    stream, rng = SealedStream(), random.Random(7)
    for _ in range(2):
        stream.send(4, big=9007199254740993, fraction=1.50, text='é😀"\\', nest={"a": [1, {}]})
        stream.seal()
    sent, proven = [json.loads(line) for line in stream.lines], 0
    for _ in range(500):
        text = damaged(b"\n".join(stream.lines), rng)
        checked = Verification([SIGNER.verifier], until=stream.now.timestamp())
        try:
            read_into(checked, [text])
        except ValueError:
            continue
        report = checked.report()
        if report.is_proven:
            proven += 1
            lines = [line for line in text.decode().split("\n") if line.strip()]
            there = [json.loads(line) for line in lines]
            # What is behind the last seal that is undamaged is shown as not proven yet.
            assert all(event in there for event in sent[: report.streams[0].sealed_messages]), text
    assert 5 < proven < 250


def _verify(path: Path) -> subprocess.CompletedProcess[str]:
    """Run the command with at most 2 GiB of addresses, most of which are libraries and stacks."""

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))

    return subprocess.run(
        [sys.executable, "-m", "siemrelay", "verify", "--key", str(SIGNER.verifier),
         "--memory", "64MiB", str(path)],
        capture_output=True, text=True, check=False, preexec_fn=bounded, env=os.environ,
    )  # fmt: skip


def test_bombs_are_refused_in_one_sentence_and_bounded_memory(tmp_path: Path) -> None:
    packed, window = tmp_path / "bomb.gz", tmp_path / "window.zst"
    with gzip.open(packed, "wb", compresslevel=1) as file:
        for _ in range(80):
            file.write(bytes(MIB))
    parameters = zstandard.ZstdCompressionParameters(window_log=30)
    with zstandard.ZstdCompressor(compression_params=parameters).stream_writer(
        window.open("wb")
    ) as out:
        out.write(bytes(MIB))
    for path, said in ((packed, "longer than 64 MiB"), (window, "too much memory")):
        done = _verify(path)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"cannot read {path}: " in done.stderr
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1

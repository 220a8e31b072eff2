"""Damaged inputs go through every parser: each is read or refused, and never anything else.

The seeds are in `tests/corpus`; an input that fails here belongs there. With `--slow` each parser
goes on for a minute with new random numbers; the short form always takes the same ones.
"""

from __future__ import annotations

import gzip
import json
import random
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import structlog
import trio

from siemrelay.config.effective import relay_settings, remarks, sink_settings, source_settings
from siemrelay.config.load import load_text
from siemrelay.core.errors import ConfigurationRefused, FrameRefused
from siemrelay.core.lines import records_of
from siemrelay.net.body_memory import HeldBody
from siemrelay.net.http_application import Head, HttpAnswer, HttpLimits
from siemrelay.net.http_server import HttpServer
from siemrelay.net.listener import ConnectionLimiter
from siemrelay.net.rejection_log import RejectionLog
from siemrelay.sources.http.auth import Authorization, Signature, SignatureOptions, basic_password
from siemrelay.wire.elasticsearch import NotABulkResponse, failed_items, read_error
from siemrelay.wire.hec_client import read_ack_results, read_answer
from siemrelay.wire.hec_server import HecReader, HecRefused, read_ack_ids
from siemrelay.wire.http_bodies import (
    BodyRefused,
    BodyTooLarge,
    TooManyRecords,
    decompressed,
    finish,
    read_records,
)
from siemrelay.wire.otlp import NotAnExportResponse, read_partial_success
from siemrelay.wire.relp import Frame, RelpServer, answers
from siemrelay.wire.stream_framing import StreamSplitter
from tests.support.events.mutation import corpus, mutated, pieces

SLOW_S = 60.0
SHORT = 300

_values = msgspec.json.Decoder(msgspec.Raw).decode


def framing(data: bytes, rng: random.Random) -> None:
    """However the network cuts a stream, it has the same messages, and is refused or not."""

    def read(cut: Sequence[bytes]) -> tuple[list[bytes], bool]:
        splitter = StreamSplitter(1 << 16, 1 << 20)
        found = [some for piece in cut for some in splitter.feed(piece)]
        assert splitter.held <= len(data)
        found += splitter.end()
        assert all(some.payload.endswith(b"\n") for some in found)
        records = [record for some in found for record in records_of(some.payload, some.count)]
        assert len(records) == sum(some.count for some in found)
        return records, splitter.refusal is not None

    assert read(pieces(rng, data)) == read([data])


def relp(data: bytes, rng: random.Random) -> None:
    """However the network cuts a session, it has the same frames, each of which is answered."""

    def read(cut: Sequence[bytes]) -> tuple[list[Frame], bool]:
        server, found = RelpServer(1 << 16), list[Frame]()
        try:
            for piece in cut:
                found += server.receive(piece)
                assert server.held <= len(data)
        except FrameRefused:
            return found, True
        return found, False

    found, refused = read([data[at : at + 1] for at in range(len(data))])
    again, refused_again = read(pieces(rng, data))
    assert refused == refused_again
    assert found[: len(again)] == again  # what came in one piece with a fault is refused with it
    assert answers(found).count(b" rsp ") >= len(found)


def json_bodies(data: bytes, rng: random.Random) -> None:
    """What is taken is whole lines, each of one JSON value where JSON is asked for."""
    for kind in ("json", "values", "lines"):
        try:
            found = finish(read_records(data, kind, 50))
        except (BodyRefused, TooManyRecords):
            continue
        lines = found.payload.split(b"\n")[:-1]
        assert len(lines) == found.count
        assert sum(row.count for row in found.rows()) == found.count
        if kind == "lines":
            kept = [
                line
                for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
                if line.strip(b"\r")
            ]
            assert [line for line in lines if line.strip(b"\r")] == kept
            continue
        for line in lines:
            _values(line)
        whole = _values_of(data)
        if whole is not None and kind == "json":
            assert found.count == (len(whole) if isinstance(whole, list) else 1)


def _values_of(data: bytes) -> Any:
    try:
        return json.loads(data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def inflated(data: bytes) -> bytes:
    """All zlib streams, one after the other."""
    found = b""
    while data:
        stream = zlib.decompressobj()
        found += stream.decompress(data)
        data = stream.unused_data
    return found


def compressed(data: bytes, rng: random.Random) -> None:
    """What is inflated is what the reference inflates, and no more than the limit."""
    for coding, reference in (("gzip", gzip.decompress), ("deflate", inflated)):
        try:
            found = decompressed(data, coding, 5000)
        except (BodyRefused, BodyTooLarge):
            continue
        assert len(found) <= 5000
        assert found == reference(data)


def hec(data: bytes, rng: random.Random) -> None:
    """Each record is a JSON object on one line; ids are numbers."""
    reader, query = HecReader(["time"], as_json=True), {"host": "h", "time": "1"}
    for steps in (reader.events(data, 50), reader.lines(data, query, 50)):
        try:
            found = finish(steps)
        except (HecRefused, TooManyRecords):
            continue
        assert found
        for record in found:
            assert b"\n" not in record
    with suppress(HecRefused):
        assert all(type(number) is int for number in finish(read_ack_ids(data)))


def answers_of_receivers(data: bytes, rng: random.Random) -> None:
    """A hostile receiver gets a verdict or a typed refusal."""
    with suppress(NotABulkResponse):
        assert all(index < 5 for index, _ in failed_items(data, 5))
    assert len(str(read_error(data))) < 2000
    read_answer(data)
    read_ack_results(data)
    with suppress(NotAnExportResponse):
        read_partial_success(data)


def credentials(data: bytes, rng: random.Random) -> None:
    """Nothing passes that nobody knows, whatever is in the fields."""
    text = data.decode("latin-1")
    assert Authorization(["Bearer of-nobody-else"]).find(text) is None
    basic_password(f"Basic {text}")
    for signed in ("{body}", "v0:{X-Time}:{body}", "{t}.{body}"):
        signature = Signature(SignatureOptions(secret="s", signed=signed, header="X-Sig"))
        fields = {"x-sig": text, "x-time": text}
        signature.fault(fields, 1.8e9)
        assert signature.verified(fields, data) is None


def config(data: bytes, rng: random.Random) -> None:
    """A configuration is read whole, and can be shown; or it is refused with its faults."""
    text = data.decode("utf-8", "replace")
    try:
        loaded = load_text(text, "f.yaml", {"TOKEN": "abcdef"})
    except ConfigurationRefused:
        return
    remarks(loaded)
    relay_settings(loaded)
    for name in loaded.config.sources:
        source_settings(loaded, name)
    for name in loaded.config.sinks:
        sink_settings(loaded, name)


class Parser(NamedTuple):
    """A law that every input keeps, the name of its corpus, and what is put into inputs."""

    law: Callable[[bytes, random.Random], None]
    corpus: str
    tokens: list[bytes]


_JSON = [b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\n", b"\r\n", b" ", b"null", b"1e999",
         b"9" * 400, b"\\ud800", b"\\u0000", b"\xff", b"\xef\xbb\xbf", b"}{", b"[" * 1500,
         b'{"a":' * 1100, b"NaN", b"-", b"0" * 30]  # fmt: skip

PARSERS = {
    "framing": Parser(framing, "framing", [
        b"\n", b"\0", b"\r", b" ", b"1 ", b"5 <13>x", b"0 ", b"999999999 ", b"1" * 12, b"<13>",
        b"-1 ", b"\xff", b"x" * 3000,
    ]),
    "RELP": Parser(relp, "relp", [
        b"\n", b" ", b"1 ", b"syslog", b"open", b"close", b"0", b"999999999", b"1" * 12, b"rsp",
        b"2 syslog 3 abc\n", b"\0", b"x" * 300,
    ]),
    "JSON bodies": Parser(json_bodies, "json_bodies", _JSON),
    "HEC bodies": Parser(hec, "hec", [*_JSON, b'"event":', b'"time":', b'"fields":', b'"hec":']),
    "answers": Parser(answers_of_receivers, "answers", _JSON),
    "credentials": Parser(credentials, "http", [
        b",", b"=", b"t=", b" ", b"sha256=", b"1800000000", b"\xff", b"9" * 400, b":",
    ]),
    "configuration": Parser(config, "config", [
        b"\n", b"  ", b": ", b"- ", b"&a ", b"*a", b"<<: ", b"!!int ", b"|\n", b"'", b'"', b"{",
        b"}", b"[", b"]", b"#", b"%", b"\t", b"${TOKEN}", b"${file:/etc}", b"${", b"? ", b"null",
        b"~", b"1e999", b"0x7fffffffffffffffffff", b"2026-01-01", b"[" * 3000, b"a: " * 50,
        "\u2028".encode(), b"\0", b"sources:\n", b"sinks:\n", b"type: http", b"listen: http://[",
        b"url: http://[", b"events: ", b"path: ",
    ]),
}  # fmt: skip


def inputs_of(parser: Parser) -> list[bytes]:
    found = corpus(parser.corpus)
    if parser.corpus == "config":
        examples = Path(__file__).parents[2] / "config" / "examples"
        found += [file.read_bytes() for file in sorted(examples.rglob("*.yaml"))]
    return found


def fuzz(parser: Parser, seed: int, count: float, seconds: float) -> None:
    rng, inputs = random.Random(seed), inputs_of(parser)
    deadline, done = time.monotonic() + seconds, 0
    while done < count and time.monotonic() < deadline:
        data = mutated(rng, inputs, parser.tokens)
        try:
            parser.law(data, rng)
        except Exception as error:
            error.add_note(f"the input was {data!r}")
            raise
        done += 1


@pytest.mark.parametrize("name", PARSERS)
def test_every_input_of_the_corpus_keeps_the_law(name: str) -> None:
    for data in inputs_of(PARSERS[name]):
        PARSERS[name].law(data, random.Random(1))


@pytest.mark.parametrize("name", PARSERS)
def test_damaged_inputs_keep_the_law(name: str) -> None:
    fuzz(PARSERS[name], 1, SHORT, SLOW_S)


@pytest.mark.slow
@pytest.mark.parametrize("name", PARSERS)
def test_damaged_inputs_keep_the_law_for_a_minute(name: str) -> None:
    fuzz(PARSERS[name], random.SystemRandom().randrange(1 << 32), float("inf"), SLOW_S)


def bodies(rng: random.Random) -> bytes:
    """Compressed bodies, of one member or several, some damaged."""
    texts = [rng.randbytes(rng.randrange(50)) * rng.choice((1, 1, 300)) for _ in range(3)]
    good = [gzip.compress(texts[0], mtime=0), b"".join(gzip.compress(t, mtime=0) for t in texts),
            zlib.compress(texts[0])]  # fmt: skip
    return mutated(rng, good, [b"\0", b"\x1f\x8b\x08", b"\x1f\x8b\x08\x08", b"\xff" * 8])


@pytest.mark.parametrize("seconds", [2.0, pytest.param(SLOW_S, marks=pytest.mark.slow)])
def test_damaged_compressed_bodies_are_inflated_as_the_reference_does(seconds: float) -> None:
    rng = random.Random(1 if seconds < SLOW_S else None)
    deadline = time.monotonic() + seconds
    for _ in range(1000 if seconds < SLOW_S else 10**9):
        compressed(bodies(rng), rng)
        if time.monotonic() > deadline:
            break


class Recorder:
    """Notes the requests that an HTTP server has read; see `http_server.Application`."""

    def __init__(self) -> None:
        self.read: list[tuple[str, str, bytes]] = []

    def admit(self, head: Head) -> HttpAnswer | bool:
        return HttpAnswer(200) if head.method == "GET" else True

    async def answer(self, head: Head, body: HeldBody) -> HttpAnswer:
        self.read.append((head.method, head.path, body.data))
        return HttpAnswer(200)

    def fault(self, status: int, reason: str) -> HttpAnswer:
        assert status < 500 or status in (501, 503, 505), reason
        return HttpAnswer(status, reason.encode())

    def connected(self, change: int) -> None:
        """See `ConnectionObserver`."""

    def progress(self) -> None:
        """See `ConnectionObserver`."""

    def refused(self, reason: str, records: int = 1) -> None:
        """See `ConnectionObserver`."""


async def exchanged(port: int, cut: Sequence[bytes]) -> bytes:
    """Send the pieces of a stream, each read before the next is sent, and read the answers."""
    stream, found = await trio.open_tcp_stream("127.0.0.1", port), b""
    async with stream:
        try:
            for piece in cut:
                await stream.send_all(piece)
                for _ in range(4):
                    await trio.lowlevel.checkpoint()
            await stream.send_eof()
            while data := await stream.receive_some():
                found += data
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # refused and closed while it sent
    return found


@pytest.mark.parametrize("seconds", [5.0, pytest.param(SLOW_S, marks=pytest.mark.slow)])
async def test_damaged_requests_are_read_alike_however_the_network_cuts_them(
    seconds: float,
) -> None:
    """Heads, chunks and lengths; the server neither fails nor takes a body for a request."""
    rng, inputs = random.Random(1 if seconds < SLOW_S else None), corpus("http")
    tokens = [
        b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"0\r\n\r\n", b"Content-Length: 1\r\n", b" ", b"\t",
        b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n", b"1\r\n", b"FFFFFFFFF\r\n", b";", b":",
        b"Content-Length: +1\r\n", b"HTTP/1.1", b"\0", b"\xff", b"GET / HTTP/1.1\r\n\r\n",
        b"X: y\r\n" * 250, b"a" * 40_000,
    ]  # fmt: skip
    recorder, log = Recorder(), RejectionLog(structlog.get_logger(), "http://127.0.0.1:0")
    limits = HttpLimits(body_bytes=10_000, first_s=5, idle_s=5, request_s=5)
    server = HttpServer(recorder, recorder, limits, None, ConnectionLimiter([], 100, log), log)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port, deadline = listener.socket.getsockname()[1], trio.current_time() + seconds
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: server.run([listener], drain=False))
        for number in range(len(inputs) + (150 if seconds < SLOW_S else 10**9)):
            data = inputs[number] if number < len(inputs) else mutated(rng, inputs, tokens)
            seen = []
            for cut in ([data], pieces(rng, data)[:500]):
                recorder.read.clear()
                answer = await exchanged(port, cut)
                seen.append((answer.count(b"HTTP/1.1 "), list(recorder.read)))
            # One that is refused is answered before it has all come: the connection may be reset.
            assert seen[0][1] == seen[1][1] or b"HTTP/1.1 4" in answer, (data, seen)
            if trio.current_time() > deadline:
                break
        nursery.cancel_scope.cancel()

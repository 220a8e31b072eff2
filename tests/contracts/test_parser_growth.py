"""Twice the input costs every parser about twice the time and memory, whatever is in it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import structlog
import trio

from siemrelay.config.load import load_text
from siemrelay.core.errors import ConfigurationRefused, FrameRefused
from siemrelay.net.body_memory import HeldBody
from siemrelay.net.http_application import Head, HttpAnswer, HttpLimits
from siemrelay.net.http_server import HttpServer
from siemrelay.net.listener import ConnectionLimiter
from siemrelay.net.rejection_log import RejectionLog
from siemrelay.sources.framing import RecordStream
from siemrelay.wire.framing.audit_events import AuditEvents
from siemrelay.wire.framing.contract import Framing
from siemrelay.wire.framing.csv_rows import CsvFraming, Dialect
from siemrelay.wire.framing.encodings import Encoded
from siemrelay.wire.framing.json_documents import JsonFraming
from siemrelay.wire.framing.multiline import Multiline, is_indented
from siemrelay.wire.hec_server import HecReader, HecRefused
from siemrelay.wire.http_bodies import BodyRefused, decompressed, finish, read_records
from siemrelay.wire.relp import RelpServer
from siemrelay.wire.stream_framing import StreamSplitter
from tests.support.growth import KIB, grows_with_its_input

MANY = 10**9

STREAMS = {
    "lines": b"x\n", "blank lines": b"\n", "CRLF": b"<13>x\r\n", "NULs": b"<13>x\0", "no end": b"x",
    "counted": b"9 123456789", "counted, long": b"999 " + b"x" * 999, "digits": b"1",
    "spaces": b" ", "returns": b"\r",
}  # fmt: skip
SESSIONS = {
    "messages": b"2 syslog 5 <13>x\n", "empty messages": b"2 syslog 0\n", "digits": b"1",
    "one frame": b"x", "openings": b"1 open 0\n",
}  # fmt: skip
BODIES: dict[str, tuple[bytes, bytes, bytes]] = {
    "numbers": (b"[1", b",1", b"]"),
    "arrays": (b"[1", b",[]", b"]"),
    "objects": (b"[1", b",{}", b"]"),
    "arrays in one": (b"[[1", b",[]", b"]]"),
    "objects in one": (b'{"a":[1', b',{"a":1}', b"]}"),
    "brackets": (b"", b"[", b""),
    "keys": (b"", b'{"a":', b""),
    "escapes": (b'["', b"\\n", b'"]'),
    "backslashes": (b'["', b"\\\\", b'"]'),
    "quotes": (b'["', b'\\"', b'"]'),
    "half surrogates": (b'["', b"\\ud800", b'"]'),
    "ends in a text": (b'["', b"},", b'"]'),
    "ends of values in a text": (b'"', b"}{", b'"'),
    "values": (b"", b"1\n", b""),
    "objects without a space": (b"", b"{}", b""),
    "blank lines": (b"", b"\n", b"1"),
    "spaces": (b"", b" ", b"1"),
    "a fault at the end": (b"[1", b",1", b"}"),
    "not closed": (b'["', b"a", b""),
    "digits": (b"", b"9", b""),
}
EVENTS: dict[str, tuple[bytes, bytes, bytes]] = {
    "events": (b"", b'{"event":1}', b""),
    "events with metadata": (b"", b'{"event":{"a":1},"host":"h","time":1}\n', b""),
    "texts that hold JSON": (b"", b'{"event":"{\\"a\\":1}"}', b""),
    "a fault at the end": (b"", b'{"event":1}', b"{"),
    "one event": (b'{"event":[1', b",1", b"]}"),
    "lines in an event": (b'{"event":[1', b",\n1", b"]}"),
    "half surrogates": (b'{"event":"', b"\\ud800", b'"}'),
    "spaces": (b"", b" ", b"1"),
}
CONFIGURATIONS: dict[str, tuple[str, str, str]] = {
    "sinks": ("sources: {a: {type: stdin}}\nsinks:\n", "  s%d: {server: h%d}\n", ""),
    "sources": ("sinks: {s: {server: h}}\nsources:\n", "  f%d: {type: file, path: /x%d}\n", ""),
    "unknown keys": ("", "k%d: %d\n", ""),
    "unknown references": ("sinks:\n  s: {server: h, events: [", "'${N%d}', 'x%d', ", "]}\n"),
    "one text": ("a: '", "word%d %d", "'\n"),
    "comments": ("", "# %d %d\n", "a: b\n"),
    "anchors": ("", "k%d: &a%d x\n", ""),
    "aliases": ("a: &a x\nb: [", "*a, # %d %d\n", "]\n"),
    "brackets": ("a: ", "[", ""),
}


def cut(data: bytes, size: int = 4 * KIB) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def splitting(unit: bytes, size: int) -> Callable[[], object]:
    data = cut(unit * (size // len(unit)))

    def work() -> None:
        splitter = StreamSplitter(1 << 20, 16 << 20)
        for piece in data:
            splitter.feed(piece)
        splitter.end()

    return work


FRAMED = {
    ("json", "open brackets"): b"{", ("json", "brackets over lines"): b"{\n",
    ("json", "torn objects"): b'{"a": 1\n', ("json", "torn texts"): b'{"a": "\n',
    ("json", "spaces before brackets"): b'{"a":' + b" " * 600, ("json", "elements"): b'[{"a":1},\n',
    ("csv", "quotes"): b'"', ("csv", "rows"): b"a,b\n", ("csv", "open quotes"): b'"a,b\n',
    ("csv", "returns in rows"): b"a\rb,c\n", ("multiline", "indented lines"): b"  x\n",
    ("auditd", "events"): b"type=CWD msg=audit(1.1:%d): x\n",
    ("auditd", "nodes"): b"node=%d type=A msg=audit(1.1:1): x\n",
    ("utf-16", "objects"): b'{"a":{"b":1}}',
}  # fmt: skip
FRAMINGS: dict[str, Framing] = {
    "json": JsonFraming(1 << 30), "csv": CsvFraming(Dialect(), None, 1 << 30),
    "multiline": Multiline(is_indented, 1.0, 1000, 1 << 18, 1 << 30),
    "auditd": AuditEvents(1 << 30), "utf-16": Encoded(JsonFraming(1 << 30), "utf-16-le"),
}  # fmt: skip


def framing(name: str, what: str, size: int) -> Callable[[], object]:
    unit = FRAMED[name, what]
    data = b"".join(unit % n if b"%d" in unit else unit for n in range(size // len(unit)))
    # Both first lines say that documents follow.
    data = b"{\n}\n" + data if name == "json" else data

    def work() -> None:
        stream = RecordStream(FRAMINGS[name])
        for piece in cut(data, 64 * KIB):
            stream.feed(piece)
        stream.end()

    return work


def relp(what: str, size: int) -> Callable[[], object]:
    unit = SESSIONS[what]
    begin = b"1 open 0\n" + (b"2 syslog 9999999 " if what == "one frame" else b"")
    data = cut(begin + unit * (size // len(unit)))

    def work() -> None:
        server = RelpServer(16 << 20)
        with suppress(FrameRefused):
            for piece in data:
                server.receive(piece)

    return work


def reading(unit: tuple[bytes, bytes, bytes], size: int, kind: Any) -> Callable[[], object]:
    body = unit[0] + unit[1] * (size // len(unit[1])) + unit[2]

    def work() -> None:
        with suppress(BodyRefused):
            finish(read_records(body, kind, MANY))

    return work


def collecting(unit: tuple[bytes, bytes, bytes], size: int) -> Callable[[], object]:
    body = unit[0] + unit[1] * (size // len(unit[1])) + unit[2]
    reader, some = HecReader(["time"], as_json=True), body[: len(body) // 8]

    def work() -> None:
        for steps in (reader.events(body, MANY), reader.lines(some, {"host": "h"}, MANY)):
            with suppress(HecRefused):
                finish(steps)

    return work


def loading(what: str, count: int) -> Callable[[], object]:
    begin, unit, end = CONFIGURATIONS[what]
    repeated = [unit % (n, n) if "%" in unit else unit for n in range(count)]
    text = begin + "".join(repeated) + end

    def work() -> None:
        with suppress(ConfigurationRefused):
            load_text(text, "f.yaml", {})

    return work


@pytest.mark.parametrize("what", STREAMS)
def test_a_stream_of_syslog_is_split_in_time_linear_in_it(what: str) -> None:
    grows_with_its_input(*(splitting(STREAMS[what], size * KIB) for size in (200, 400)))


@pytest.mark.parametrize(("name", "what"), FRAMED)
def test_the_records_of_a_file_are_found_in_time_linear_in_it(name: str, what: str) -> None:
    grows_with_its_input(*(framing(name, what, size * KIB) for size in (30, 60)))


@pytest.mark.parametrize("what", SESSIONS)
def test_a_session_of_relp_is_read_in_time_linear_in_it(what: str) -> None:
    grows_with_its_input(*(relp(what, size * KIB) for size in (100, 200)))


@pytest.mark.parametrize(
    ("what", "kind"),
    [(what, kind) for what in BODIES for kind in ("json", "values")]
    + [(what, "lines") for what in ("values", "blank lines", "spaces")],
)
def test_a_body_is_read_in_time_linear_in_it(what: str, kind: str) -> None:
    """Both sizes are read in several slices."""
    grows_with_its_input(*(reading(BODIES[what], size * KIB, kind) for size in (200, 400)))


@pytest.mark.parametrize("what", EVENTS)
def test_a_body_of_hec_is_read_in_time_linear_in_it(what: str) -> None:
    grows_with_its_input(*(collecting(EVENTS[what], size * KIB) for size in (150, 300)))


@pytest.mark.parametrize("what", CONFIGURATIONS)
def test_a_configuration_is_loaded_in_time_linear_in_it(what: str) -> None:
    grows_with_its_input(*(loading(what, count) for count in (30, 60)))


def test_members_of_gzip_are_few() -> None:
    """Each costs a copy of everything behind it: 10,000 of them are refused at the 65th."""
    import gzip

    member = gzip.compress(b"")
    with pytest.raises(BodyRefused, match="64 members"):
        decompressed(member * 10_000, "gzip", 1 << 20)


class Taker:
    """Takes every request; see `http_server.Application`."""

    def admit(self, head: Head) -> HttpAnswer | bool:
        return True

    async def answer(self, head: Head, body: HeldBody) -> HttpAnswer:
        return HttpAnswer(200)

    def fault(self, status: int, reason: str) -> HttpAnswer:
        return HttpAnswer(status)

    def connected(self, change: int) -> None:
        """See `ConnectionObserver`."""

    def progress(self) -> None:
        """See `ConnectionObserver`."""

    def refused(self, reason: str, records: int = 1) -> None:
        """See `ConnectionObserver`."""


REQUESTS: dict[str, tuple[bytes, bytes, bytes]] = {
    "chunks": (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"10\r\n0123456789abcdef\r\n", b"0\r\n\r\n",
    ),
    "extensions": (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"10;a=b;c=d;e\r\n0123456789abcdef\r\n", b"0\r\n\r\n",
    ),
    "requests sent ahead": (b"", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b""),
    "empty lines": (b"", b"\r\n", b""),
    "one body": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n", b"x", b""),
}  # fmt: skip


def serving(what: str, size: int) -> Callable[[], object]:
    begin, unit, end = REQUESTS[what]
    sent = begin + unit * (size // len(unit)) + end

    async def exchange() -> None:
        log = RejectionLog(structlog.get_logger(), "http://127.0.0.1:0")
        limits, taker = HttpLimits(10 << 20, 5, 5, 5), Taker()
        server = HttpServer(taker, taker, limits, None, ConnectionLimiter([], 9, log), log)
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        address = listeners[0].socket.getsockname()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: server.run(listeners, drain=False))
            async with await trio.open_tcp_stream(*address) as stream, trio.open_nursery() as both:

                async def send() -> None:
                    with suppress(trio.BrokenResourceError):
                        await stream.send_all(sent)
                        await stream.send_eof()

                both.start_soon(send)
                with suppress(trio.BrokenResourceError):
                    while await stream.receive_some():
                        pass
            nursery.cancel_scope.cancel()

    return lambda: trio.run(exchange)


@pytest.mark.parametrize("what", REQUESTS)
def test_a_connection_of_http_is_served_in_time_linear_in_its_bytes(what: str) -> None:
    grows_with_its_input(*(serving(what, size * KIB) for size in (6, 12)))

"""GELF over UDP: what arrives is joined by a reader written from Graylog's specification."""

from __future__ import annotations

import gzip
import json
import random
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from siemrelay.config.effective import sink_settings
from siemrelay.config.load import Loaded, load_text
from siemrelay.core.event import Batch
from siemrelay.pipeline.batching import BatchMaker
from siemrelay.relay.assembly import Assembly
from siemrelay.wire.gelf import HEADER_BYTES, MAX_CHUNKS, GelfDatagrams, largest_message
from tests.support.events.formats import messages_for
from tests.support.events.readers import parse_gelf
from tests.support.events.strategies import CUT_MESSAGES

NOISE = random.Random(1)


class Joiner:
    """Graylog's GELF UDP input, by its documentation ("GELF via UDP", "Chunking")."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self._parts: dict[bytes, dict[int, bytes]] = {}
        self._counts: dict[bytes, int] = {}
        self._finished: set[bytes] = set()

    def receive(self, datagram: bytes) -> None:
        assert len(datagram) <= 8192, "some Graylog components process no more"
        if datagram[:2] != b"\x1e\x0f":
            self._take(datagram)
            return
        number, at, count = struct.unpack("!8sBB", datagram[2:12])
        assert at < count <= 128, (at, count)
        assert number not in self._finished, "an id twice: the messages would be mixed"
        assert self._counts.setdefault(number, count) == count
        parts = self._parts.setdefault(number, {})
        assert at not in parts
        parts[at] = datagram[12:]
        assert parts[at]
        if len(parts) == count:
            self._finished.add(number)
            self._take(b"".join(parts[each] for each in range(count)))

    def _take(self, payload: bytes) -> None:
        if payload[:2] == b"\x1f\x8b":
            payload = gzip.decompress(payload)
        elif payload[:1] == b"\x78":
            payload = zlib.decompress(payload)
        self.messages.append(payload)


def joined(datagrams: list[bytes]) -> list[bytes]:
    joiner = Joiner()
    for datagram in datagrams:
        joiner.receive(datagram)
    return joiner.messages


@given(**CUT_MESSAGES)
def test_any_messages_are_joined_again_in_whatever_order_their_chunks_arrive(
    messages: list[bytes], datagram_bytes: int, compress: bool, shuffle: random.Random,
    first_id: int,
) -> None:  # fmt: skip
    cut = GelfDatagrams(datagram_bytes, first_id, compress=compress)
    datagrams = [datagram for message in messages for datagram in cut.of(message)]
    assert all(len(datagram) <= datagram_bytes for datagram in datagrams)
    shuffle.shuffle(datagrams)
    assert sorted(joined(datagrams)) == sorted(messages)


def test_a_message_that_fits_goes_as_it_is_and_a_longer_one_compressed() -> None:
    cut = GelfDatagrams(1420, 7, compress=True)
    assert cut.of(b"{" + b"a" * 1419) == [b"{" + b"a" * 1419]
    (datagram,) = cut.of(b"{" + b"a" * 1420)
    assert gzip.decompress(datagram) == b"{" + b"a" * 1420


@pytest.mark.parametrize("compress", [True, False])
def test_the_largest_message_takes_all_128_chunks_and_a_larger_one_none(compress: bool) -> None:
    cut = GelfDatagrams(1420, 2**64 - 1, compress=compress)
    largest = NOISE.randbytes(largest_message(1420))  # gzip makes noise longer
    chunks = cut.of(largest)
    assert len(chunks) == MAX_CHUNKS
    assert {len(chunk) for chunk in chunks} == {1420}
    assert cut.of(largest + b"x") == []
    assert joined(chunks + cut.of(largest)) == [largest, largest]
    assert HEADER_BYTES == 12


# -- the whole way -------------------------------------------------------------


def configured(sink: str, tmp_path: Path) -> Loaded:
    text = f"state_dir: {tmp_path}\nsources: {{a: {{type: stdin}}}}\nsinks:\n  graylog: {sink}\n"
    return load_text(text, "f.yaml", {})


def test_the_preset_over_udp_needs_no_more_than_a_server(tmp_path: Path) -> None:
    loaded = configured("{siem: graylog, protocol: udp, server: g.example.com}", tmp_path)
    settings = {setting.key: setting.value for setting in sink_settings(loaded, "graylog")}
    wanted = {"port": 12201, "format": "gelf", "framing": "gelf", "compression": "gzip"}
    assert {key: settings[key] for key in wanted} == wanted


@pytest.mark.parametrize(("protocol", "framing"), [("tcp", "nul"), ("tls", "nul"), ("udp", "gelf")])
def test_gelf_has_graylogs_port_and_framing_by_itself(
    protocol: str, framing: str, tmp_path: Path
) -> None:
    loaded = configured(f"{{format: gelf, protocol: {protocol}, server: g}}", tmp_path)
    sink: Any = loaded.config.sinks["graylog"]
    assert (sink.port, sink.framing) == (12201, framing)


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(5)
        yield sock


async def test_events_of_any_length_arrive_and_what_exceeds_128_chunks_is_cut_and_counted(
    receiver: socket.socket, tmp_path: Path
) -> None:
    port = receiver.getsockname()[1]
    loaded = configured(
        f"{{siem: graylog, protocol: udp, server: 127.0.0.1, port: {port}}}", tmp_path
    )
    texts = ["short", "a" * 9000, NOISE.randbytes(50_000).hex(), NOISE.randbytes(150_000).hex()]
    records = [json.dumps({"type": "T", "message": text}) for text in texts]
    assembly = Assembly(loaded.config)
    parts = assembly.sink("graylog")
    payload = "".join(record + "\n" for record in records).encode()
    batch = Batch(1, len(records), "a", 1.7e9, payload)
    messages = messages_for(assembly.formatter({"graylog": parts.messages}), "graylog", batch)
    (run,) = BatchMaker(parts.limits).batches(batch, messages, 1)
    assert run.truncated == 1
    joiner = Joiner()
    async with parts.sink.session() as session:
        assert await session.confirm(await session.send(run.messages)) == []
    while len(joiner.messages) < len(texts):
        joiner.receive(receiver.recv(1 << 16))
    arrived = [parse_gelf(message)["short_message"] for message in joiner.messages]
    assert arrived[:3] == texts[:3]
    assert arrived[3].endswith("...[cut]")
    assert texts[3].startswith(arrived[3].removesuffix("...[cut]"))
    assert len(joiner.messages[3]) <= largest_message(1420)

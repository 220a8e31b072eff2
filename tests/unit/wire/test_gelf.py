"""GELF's datagrams read back: chunks in any order, compression, and what is neither."""

from __future__ import annotations

import gzip
import random
import zlib

import pytest
from hypothesis import given

from siemrelay.wire.gelf import FIRST_BYTES, GelfDatagrams, GelfReader
from tests.support.events.strategies import CUT_MESSAGES

NOISE = random.Random(1)


class Reader(GelfReader):
    def __init__(self, max_message_bytes: int = 1 << 20, max_held_bytes: int = 1 << 20) -> None:
        self.lost = 0
        super().__init__(max_message_bytes, max_held_bytes, self._count)

    def _count(self, messages: int) -> None:
        self.lost += messages

    def read(self, datagrams: list[bytes], now_s: float = 0.0) -> list[bytes]:
        """As a listener does: what begins like text is not shown to the reader."""
        found = [self.message(d, now_s) if d[:1] in FIRST_BYTES else d for d in datagrams]
        return [message for message in found if message]


@given(**CUT_MESSAGES)
def test_the_messages_that_a_sink_sends_are_read_in_whatever_order_their_chunks_arrive(
    messages: list[bytes], datagram_bytes: int, compress: bool, shuffle: random.Random,
    first_id: int,
) -> None:  # fmt: skip
    cut = GelfDatagrams(datagram_bytes, first_id, compress=compress)
    datagrams = [datagram for message in messages for datagram in cut.of(message)]
    shuffle.shuffle(datagrams)
    reader = Reader()
    assert sorted(reader.read(datagrams)) == sorted(messages)
    assert (reader.held_bytes, reader.lost) == (0, 0)


@pytest.mark.parametrize("level", [0, 1, 6, 9])
@pytest.mark.parametrize("how", ["gzip", "zlib", "rsyslog"])
def test_compressed_messages_are_read_as_they_were(how: str, level: int) -> None:
    message = b'{"short_message":"' + b"again " * 500 + NOISE.randbytes(50).hex().encode() + b'"}'
    packed = gzip.compress(message, level) if how == "gzip" else zlib.compress(message, level)
    assert Reader().read([b"z" + packed if how == "rsyslog" else packed]) == [message]


@pytest.mark.parametrize(
    "datagram",
    [
        b"zx is text", b"x", b"z", b"\x1e", b"\x1f\x8b", b"x\x9c and no zlib", b"xylophone",
        gzip.compress(b"torn" * 100, mtime=0)[:-9], b"\x1e\x0ftoo short",
        b"\x1e\x0f" + 8 * b"i" + b"\x05\x05x",
        b"\x1e\x0f" + 8 * b"i" + b"\x00\x00x", b"\x1e\x0f" + 8 * b"i" + b"\x00\xffx",
    ],
)  # fmt: skip
def test_what_is_neither_a_chunk_nor_compressed_stays_as_it_is(datagram: bytes) -> None:
    assert Reader().read([datagram]) == [datagram]


def test_a_message_that_would_become_too_long_stays_compressed() -> None:
    bomb = gzip.compress(bytes(10_001))
    assert Reader(max_message_bytes=10_000).read([bomb]) == [bomb]
    assert Reader(max_message_bytes=10_001).read([bomb]) == [bytes(10_001)]


def test_a_message_of_which_a_chunk_is_missing_counts_as_lost_after_five_seconds() -> None:
    reader, cut = Reader(), GelfDatagrams(512, 7, compress=False)
    first, second = cut.of(b"{" + b"a" * 2000), cut.of(b"{" + b"b" * 2000)
    assert reader.read([*first[1:], first[1], *second[:-1]], 100.0) == []
    reader.expire(105.0)
    assert reader.lost == 0
    assert reader.read([second[-1]], 105.0) == [b"{" + b"b" * 2000]
    reader.expire(105.1)
    assert (reader.lost, reader.held_bytes) == (1, 0)


def test_incomplete_messages_are_held_within_a_bound_the_newest_longest() -> None:
    reader, cut = Reader(max_held_bytes=5000), GelfDatagrams(512, 7, compress=False)
    all_of = [cut.of(b"%d" % number + b"x" * 2000) for number in range(100)]
    for chunks in all_of:
        reader.read(chunks[:-1])
        assert reader.held_bytes <= 5000
    assert reader.read([all_of[-1][-1]]) == [b"99" + b"x" * 2000]
    reader.close()
    assert (reader.lost, reader.held_bytes) == (99, 0)

"""GELF over UDP: one message in one datagram, or in up to 128 chunks that are joined again.

A chunk (Graylog's "GELF via UDP", "Chunking"):

    1e 0f | message id, 8 bytes | sequence number, 1 byte | sequence count, 1 byte | data

A receiver knows a message by the id alone, whatever their sender, and drops those that are not
complete within 5 seconds. A whole message may be compressed: gzip begins with `1f 8b`, zlib with
`78`. rsyslog's `ziplevel` writes a `z` before zlib's.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

MAX_CHUNKS: Final = 128
"""The most chunks of one message (GELF via UDP)."""

_MAGIC: Final = b"\x1e\x0f"
_ID_BYTES: Final = 8
HEADER_BYTES: Final = len(_MAGIC) + _ID_BYTES + 2

_GZIP: Final = zlib.MAX_WBITS + 16  # zlib's way to ask for gzip's header and checksum
# The fastest level: it is paid for on the way of every long message.
_LEVEL: Final = 1


def largest_message(datagram_bytes: int) -> int:
    """The size in bytes of the largest message that fits into chunks."""
    return MAX_CHUNKS * (datagram_bytes - HEADER_BYTES)


class GelfDatagrams:
    """Messages → datagrams of at most so many bytes, each message under an id of its own.

    Ids count up from `first_id` and wrap at 64 bits: one sender never has the same twice. Two
    senders that begin at random places share one within 5 seconds as good as never.
    """

    def __init__(self, datagram_bytes: int, first_id: int, *, compress: bool) -> None:
        """`compress`: whether what exceeds one datagram is compressed before it is cut."""
        self._datagram_bytes, self._compress = datagram_bytes, compress
        self._next_id = first_id

    def of(self, message: bytes) -> list[bytes]:
        """The datagrams of one message, in order; none when even 128 chunks cannot hold it."""
        if len(message) <= self._datagram_bytes:
            return [message]
        if self._compress:
            compressed = zlib.compress(message, _LEVEL, _GZIP)
            # Only ever for the better, so that what fits plain is certain to fit.
            message = min(compressed, message, key=len)
            if len(message) <= self._datagram_bytes:
                return [message]
        share = self._datagram_bytes - HEADER_BYTES
        parts = [message[at : at + share] for at in range(0, len(message), share)]
        if len(parts) > MAX_CHUNKS:
            return []
        head = _MAGIC + self._id()
        return [head + bytes((at, len(parts))) + part for at, part in enumerate(parts)]

    def _id(self) -> bytes:
        own = self._next_id % (1 << 8 * _ID_BYTES)
        self._next_id += 1
        return own.to_bytes(_ID_BYTES, "big")


FIRST_BYTES: Final = frozenset((_MAGIC[:1], b"\x1f", b"x", b"z"))
"""The first bytes of chunks and compressed messages. `GelfReader` also checks for text."""

_COMPLETE_WITHIN_S: Final = 5.0
_ANY_HEADER: Final = zlib.MAX_WBITS + 32  # gzip's or zlib's
_ZLIB: Final = (b"x\x01", b"x\x5e", b"x\x9c", b"x\xda")
_COMPRESSED: Final = (b"\x1f\x8b", *_ZLIB, *(b"z" + begin for begin in _ZLIB))


class _Incomplete:
    """The chunks so far of one message."""

    def __init__(self, count: int, since_s: float) -> None:
        self.parts: list[bytes | None] = [None] * count
        self.since_s, self.size, self.missing = since_s, 0, count


class GelfReader:
    """Datagrams → messages: joins chunks in whatever order they come, and decompresses.

    What is neither, or is damaged, stays as it is. Holds at most `max_held_bytes` of incomplete
    messages, each for 5 seconds; `lost` is called with the number of those that are given up.
    """

    def __init__(
        self, max_message_bytes: int, max_held_bytes: int, lost: Callable[[int], None]
    ) -> None:
        """`max_message_bytes`: what would decompress to more stays compressed."""
        self._max_message_bytes, self._max_held_bytes = max_message_bytes, max_held_bytes
        self._lost = lost
        self._incomplete: dict[bytes, _Incomplete] = {}  # the oldest first
        self.held_bytes = 0

    def message(self, datagram: bytes, now_s: float) -> bytes:
        """The message that is complete with this datagram; empty if none is. Clock as `expire`."""
        if datagram.startswith(_MAGIC) and len(datagram) > HEADER_BYTES:
            number, (at, count) = datagram[2:10], datagram[10:HEADER_BYTES]
            if at < count <= MAX_CHUNKS:
                return self._plain(self._joined(number, at, count, datagram[HEADER_BYTES:], now_s))
        return self._plain(datagram)

    def _joined(self, number: bytes, at: int, count: int, part: bytes, now_s: float) -> bytes:
        known = self._incomplete.get(number)
        if known is None:
            known = self._incomplete[number] = _Incomplete(count, now_s)
        if len(known.parts) == count and known.parts[at] is None:
            known.parts[at] = part
            known.missing -= 1
            known.size += len(part)
            self.held_bytes += len(part)
        if not known.missing:
            self._forget(number)
            return b"".join(part for part in known.parts if part is not None)
        while self.held_bytes > self._max_held_bytes:
            self._give_up_oldest()
        return b""

    def expire(self, now_s: float) -> None:
        """Give up the messages that are incomplete for too long. Called about once a second."""
        while self._incomplete:
            oldest = next(iter(self._incomplete.values()))
            if now_s - oldest.since_s <= _COMPLETE_WITHIN_S:
                break
            self._give_up_oldest()

    def close(self) -> None:
        """Give up everything that is incomplete."""
        while self._incomplete:
            self._give_up_oldest()

    def _give_up_oldest(self) -> None:
        self._forget(next(iter(self._incomplete)))
        self._lost(1)

    def _forget(self, number: bytes) -> None:
        self.held_bytes -= self._incomplete.pop(number).size

    def _plain(self, message: bytes) -> bytes:
        if not message.startswith(_COMPRESSED):
            return message
        compressed = message[1:] if message.startswith(b"z") else message
        inflating = zlib.decompressobj(_ANY_HEADER)
        try:
            plain = inflating.decompress(compressed, self._max_message_bytes + 1)
        except zlib.error:
            return message
        whole = inflating.eof and len(plain) <= self._max_message_bytes
        return plain if whole else message

"""GELF over UDP: one message in one datagram, or in up to 128 chunks that Graylog joins again.

A chunk (Graylog's "GELF via UDP", "Chunking"):

    1e 0f | message id, 8 bytes | sequence number, 1 byte | sequence count, 1 byte | data

A receiver tells messages apart by the id alone, whatever their sender, and drops those that are not
complete within 5 seconds. A whole message may be compressed: gzip begins with `1f 8b`.
"""

from __future__ import annotations

import zlib
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

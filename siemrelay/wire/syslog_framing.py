"""Syslog on a stream (RFC 6587, 5425) cut into messages. Pure: bytes in, values out.

What the peer begins with tells its framing for the whole connection: a count and a space is octet
counting; otherwise the first line feed or NUL is what ends its messages. In NUL framing messages
may have line feeds inside.
"""

from __future__ import annotations

import re
from io import BytesIO
from typing import Final

import msgspec

ENDLESS_BYTES: Final = 256 << 20
"""No message is this long, in any framing: who sends more without an end sends no syslog."""

# As many digits as ENDLESS_BYTES has.
_COUNT_DIGITS: Final = 9
_COUNT: Final = re.compile(rb"[1-9][0-9]{0,8} ")
_COUNT_BEGUN: Final = re.compile(rb"(?:[1-9][0-9]{0,8})?")

_TRAILERS: Final = b"\r\n\0"


class Messages(msgspec.Struct, frozen=True, gc=False):
    """`count` messages, each ended by a line feed in `payload`; as `Records`, which it becomes.

    `part` numbers the pieces of one too long; `oversize` has the sizes of those over the limit.
    """

    payload: bytes
    count: int
    part: int | None = None
    oversize: tuple[int, ...] = ()


class StreamSplitter:
    """The messages of one connection, however the network cuts it.

    Messages over `part_bytes` come in parts of that size; it may be changed at any time. What is
    `held` is at most `part_bytes` beyond what was fed last. After a `refusal` nothing is taken.
    """

    def __init__(self, max_record_bytes: int, part_bytes: int) -> None:
        self._max_bytes, self.part_bytes = max_record_bytes, part_bytes
        self._held = bytearray()
        self._framing = ""
        self._part = 0
        self._part_total = 0
        self._due: int | None = None
        self._out: list[Messages] = []
        self.refusal: str | None = None

    @property
    def held(self) -> int:
        """Bytes that wait here for the rest of their message."""
        return len(self._held)

    def feed(self, data: bytes) -> list[Messages]:
        """The messages that are complete now, in order."""
        if self.refusal is not None:
            return []
        if not self._framing:
            self._recognise(data)
        if self._framing == "count":
            self._counted(data)
        elif self._framing:
            self._ended(data, b"\n" if self._framing == "newline" else b"\0")
        out, self._out = self._out, []
        return out

    def end(self) -> list[Messages]:
        """What is left when the peer is gone: a message without its end is one all the same."""
        if self.refusal is None and self._held:
            last = bytes(self._held)
            self._held.clear()
            self._close(last) if self._part else self._emit([last.strip(_TRAILERS)])
        out, self._out = self._out, []
        return out

    def _recognise(self, data: bytes) -> None:
        """Find out the framing; what is not enough to tell is held."""
        whole = bytes(self._held) + data if len(self._held) <= _COUNT_DIGITS else data
        if not self._part and len(self._held) <= _COUNT_DIGITS:
            if _COUNT.match(whole):
                self._framing = "count"
                return
            if _COUNT_BEGUN.fullmatch(whole):
                self._held += data
                return
        newline, nul = whole.find(b"\n"), whole.find(b"\0")
        if newline < 0 and nul < 0:
            self._hold(data)
        else:
            self._framing = "nul" if nul >= 0 and (newline < 0 or nul < newline) else "newline"

    # -- messages that end with a byte --------------------------------------

    def _ended(self, data: bytes, trailer: bytes) -> None:
        if self._part:
            first = data.find(trailer) + 1
            if not first:
                self._hold(data)
                return
            self._hold(data[: first - 1])
            last = bytes(self._held)
            self._held.clear()
            self._close(last)
            data = data[first:]
        end = data.rfind(trailer) + 1
        if not end:
            self._hold(data)
            return
        whole = bytes(self._held) + data[:end] if self._held else data[:end]
        self._held.clear()
        self._lines(whole) if trailer == b"\n" else self._nul_ended(whole)
        self._hold(data[end:])

    def _lines(self, whole: bytes) -> None:
        # readlines and `in` look for bytes in words; bytes.split and count go byte by byte.
        lines = BytesIO(whole).readlines()
        if len(whole) > self.part_bytes and max(map(len, lines)) > self.part_bytes + 1:
            self._emit_long([line[:-1] for line in lines])
            return
        if b"\0" in whole:
            self._emit([line.strip(_TRAILERS) for line in lines])
            return
        payload = whole
        if b"\r" in whole:
            lines = [line.strip(_TRAILERS) + b"\n" for line in lines]
            payload = b"".join(lines)
        if b"\n" in lines:
            lines = [line for line in lines if line != b"\n"]
            payload = b"".join(lines)
        if lines:
            self._out.append(Messages(payload, len(lines), None, self._oversize(payload, lines)))

    def _nul_ended(self, whole: bytes) -> None:
        messages = whole[:-1].split(b"\0")
        if len(whole) > self.part_bytes and max(map(len, messages)) > self.part_bytes:
            self._emit_long(messages)
        else:
            self._emit([message.strip(_TRAILERS) for message in messages])

    # -- messages behind their length ---------------------------------------

    def _counted(self, data: bytes) -> None:
        if self._held:
            if self._due is not None and len(self._held) + len(data) < self._due:
                self._held += data
                self._cut_due()
                return
            data = bytes(self._held) + data
            self._held.clear()
        found: list[bytes] = []
        position, size = 0, len(data)
        while position < size:
            if self._due is None:
                if data[position] in _TRAILERS:  # some senders end lines beside counting
                    position += 1
                    continue
                space = data.find(b" ", position, position + _COUNT_DIGITS + 1)
                if space < 0 and _COUNT_BEGUN.fullmatch(data, position):
                    break
                if space < 0 or not _COUNT.fullmatch(data, position, space + 1):
                    self.refusal = "no message length where one must be"
                    break
                self._due = int(data[position:space])
                if self._due > ENDLESS_BYTES:
                    self.refusal = f"a message length of {self._due} bytes"
                    break
                position = space + 1
            end = position + self._due
            if end > size:
                break
            message, position, self._due = data[position:end], end, None
            if self._part:
                self._close(message)
            elif len(message) > self.part_bytes:
                self._emit(found)
                found = []
                self._close(message)
            else:
                found.append(message.rstrip(_TRAILERS) if message[-1] in _TRAILERS else message)
        self._emit(found)
        if self.refusal is None:
            self._held += data[position:]
            self._cut_due()

    def _cut_due(self) -> None:
        while self._due is not None and len(self._held) > self.part_bytes:
            self._due -= self.part_bytes
            self._cut_part()

    # -- what comes out ------------------------------------------------------

    def _hold(self, data: bytes) -> None:
        self._held += data
        while len(self._held) > self.part_bytes:
            self._part_total += self.part_bytes
            self._cut_part()
        if self._part_total + len(self._held) > ENDLESS_BYTES:
            self.refusal = f"a message of over {ENDLESS_BYTES} bytes without an end"
            self._held.clear()

    def _cut_part(self) -> None:
        piece = bytes(self._held[: self.part_bytes])
        del self._held[: self.part_bytes]
        self._part += 1
        self._out.append(Messages(piece + b"\n", 1, self._part))

    def _close(self, last: bytes) -> None:
        """The last piece of a message that comes in parts."""
        while last:
            self._part += 1
            piece, last = last[: self.part_bytes], last[self.part_bytes :]
            piece = piece if last else piece.rstrip(_TRAILERS)
            if piece:
                self._out.append(Messages(piece + b"\n", 1, self._part))
        self._part = self._part_total = 0

    def _emit_long(self, messages: list[bytes]) -> None:
        """Messages some of which are too long; each is cut as if it had come bit by bit."""
        for message in messages:
            if len(message) > self.part_bytes:
                self._close(message)
            else:
                self._emit([message.strip(_TRAILERS)])

    def _emit(self, messages: list[bytes]) -> None:
        if b"" in messages:
            messages = [message for message in messages if message]
        if not messages:
            return
        payload = b"\n".join([*messages, b""])
        if len(messages) == 1 or len(BytesIO(payload).readlines()) == len(messages):
            oversize = self._oversize(payload, messages)
            self._out.append(Messages(payload, len(messages), None, oversize))
            return
        half = len(messages) // 2  # a line feed is inside one: that one goes alone
        self._emit(messages[:half])
        self._emit(messages[half:])

    def _oversize(self, payload: bytes, messages: list[bytes]) -> tuple[int, ...]:
        if len(payload) <= self._max_bytes + 1:
            return ()
        sizes = (len(m) - m.endswith(b"\n") for m in messages)
        return tuple(size for size in sizes if size > self._max_bytes)

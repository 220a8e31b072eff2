"""Messages on a byte stream (RFC 6587, RFC 5425): framed to be sent, and read back. Pure.

    newline         <13>one LF <13>two LF
    octet-counting  7 SP <13>one 7 SP <13>two
    nul             <13>one NUL <13>two NUL

The reader recognises a peer's framing by the beginning of the connection, for the whole of it: a
length and a space is octet counting; otherwise the first line feed or NUL is the trailer. With NUL,
messages may have line feeds inside.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from io import BytesIO
from typing import Final

import msgspec

from siemrelay.core.lines import RecordLines, payloads

Framer = Callable[[Sequence[bytes]], bytes]

LONG_FRAME_BYTES: Final = 64 * 1024
"""A longer frame is more than some receivers take: syslog-ng's default `log-msg-size`."""


def newline(messages: Sequence[bytes]) -> bytes:
    """Each message ended by LF (RFC 6587, 3.4.2); formats never write a raw LF themselves."""
    if type(messages) is RecordLines:
        return messages.payload
    return b"\n".join([*messages, b""])  # the last one too: nothing is copied twice


# Lengths recur: some thousand different ones are in use.
_length_prefix: Final = lru_cache(8192)(b"%d ".__mod__)


def octet_counting(messages: Sequence[bytes]) -> bytes:
    """`LENGTH SP MESSAGE`, one after another (RFC 6587, 3.4.1).

    A message over LONG_FRAME_BYTES ends with LF, inside its frame: rsyslog does not believe a
    length over its `maxFrameSize` (200,000) and takes what comes as lines from there on. Without
    the LF this message and all that follow it in the connection become one, and are lost.
    """
    if len(messages) == 1 and len(messages[0]) <= LONG_FRAME_BYTES:
        return b"%d %b" % (len(messages[0]), messages[0])
    messages = list(messages)
    sizes = list(map(len, messages))
    if max(sizes, default=0) > LONG_FRAME_BYTES:
        messages = [m + b"\n" if len(m) > LONG_FRAME_BYTES else m for m in messages]
        sizes = list(map(len, messages))
    # Put together without a step of Python per message, which takes a third of the time.
    frames = [b""] * (2 * len(messages))
    frames[::2], frames[1::2] = map(_length_prefix, sizes), messages
    return b"".join(frames)


def nul(messages: Sequence[bytes]) -> bytes:
    """Each message ended by NUL, as GELF over TCP and some receivers want it."""
    return b"\0".join([*messages, b""])


FRAMERS: Final[dict[str, Framer]] = {
    "newline": newline,
    "octet-counting": octet_counting,
    "nul": nul,
}


ENDLESS_BYTES: Final = 256 << 20
"""No message is as long as this: a peer that sends more without an end does not send syslog."""

# As many digits as ENDLESS_BYTES has.
_COUNT_DIGITS: Final = 9
_COUNT: Final = re.compile(rb"[1-9][0-9]{0,8} ")
_COUNT_BEGUN: Final = re.compile(rb"(?:[1-9][0-9]{0,8})?")

_TRAILERS: Final = b"\r\n\0"

# A header within a message. Text of a sender may look like it: nothing is cut there.
_NEXT_BEGINS: Final = re.compile(rb".<\d{1,3}>(?:1 )?(?:\d{4}-\d\d-|[A-Z][a-z]{2} [ \d]\d )")

# What begins so is none: a record of TLS' handshake (RFC 8446, 5.1), RELP's first command.
_NO_SYSLOG: Final = {
    b"\x16\x03": "it speaks TLS and this address does not: listen on `tls://`, or turn its TLS off",
    b"1 open ": "it speaks RELP and this address does not: listen on `relp://`",
}


class Messages(msgspec.Struct, frozen=True, gc=False):
    """`count` messages as lines in `payload` (see `core.lines`).

    `part` is the number, from 1, of a piece of a message that was too long to wait for; None for
    whole messages. `oversize` has the sizes in bytes of those over the limit.
    """

    payload: bytes
    count: int
    part: int | None = None
    oversize: tuple[int, ...] = ()


class StreamSplitter:
    """Reads the messages of one connection, in whatever pieces the network delivers it.

    A message longer than `part_bytes` comes in parts of that size; the limit may be changed at any
    time. `refusal` is the reason why the stream cannot be syslog, None as long as it can; after a
    refusal nothing more is read.
    """

    def __init__(self, max_record_bytes: int, part_bytes: int) -> None:
        """`max_record_bytes`: longer messages are reported as oversize, but not cut."""
        self._found = _Found(max_record_bytes, part_bytes)
        self._rest = _Rest(self._found)
        self._framing: _Trailer | _OctetCounting | None = None
        self.refusal: str | None = None

    @property
    def part_bytes(self) -> int:
        """The size above which a message comes in parts."""
        return self._found.part_bytes

    @part_bytes.setter
    def part_bytes(self, part_bytes: int) -> None:
        self._found.part_bytes = part_bytes

    @property
    def held(self) -> int:
        """Bytes that wait for the rest of their message: at most `part_bytes` beyond one feed."""
        return len(self._rest.data)

    @property
    def unseparated(self) -> bool:
        """Whether what is held looks like several messages, with nothing that separates them."""
        return self._framing is None and _NEXT_BEGINS.search(self._rest.data) is not None

    def feed(self, data: bytes) -> list[Messages]:
        """The messages that are complete now, in order."""
        if self.refusal is not None:
            return []
        try:
            if self._framing is None:
                self._framing = self._recognised(data)
            if self._framing is not None:
                self._framing.feed(data)
        except _NotSyslog as error:
            self.refusal = str(error)
        return self._found.take()

    def end(self) -> list[Messages]:
        """The rest of a stream that has ended: a message without its trailer counts as one."""
        if self.refusal is None and self._rest.data:
            last = self._rest.take()
            if self._found.part:
                self._found.close(last)
            else:
                self._found.add([last.strip(_TRAILERS)])
        return self._found.take()

    def _recognised(self, data: bytes) -> _Trailer | _OctetCounting | None:
        """The framing; None, and the data held, as long as it does not show."""
        rest, found = self._rest, self._found
        if not found.part and len(rest.data) <= _COUNT_DIGITS:
            whole = bytes(rest.data) + data
            for beginning, reason in _NO_SYSLOG.items():
                if whole.startswith(beginning):
                    raise _NotSyslog(reason)
            if _COUNT.match(whole):
                return _OctetCounting(rest, found)
            if _COUNT_BEGUN.fullmatch(whole):
                rest.data += data
                return None
        newline, nul = data.find(b"\n"), data.find(b"\0")
        if newline < 0 and nul < 0:
            rest.hold(data)
            return None
        by_nul = nul >= 0 and (newline < 0 or nul < newline)
        return _Trailer(b"\0" if by_nul else b"\n", rest, found)


class _NotSyslog(Exception):
    """The stream cannot be syslog, for the reason that this says."""


class _Trailer:
    """Messages that end with a byte (RFC 6587, 3.4.2)."""

    def __init__(self, trailer: bytes, rest: _Rest, found: _Found) -> None:
        self._trailer, self._rest, self._found = trailer, rest, found

    def feed(self, data: bytes) -> None:
        """Takes more of the stream. Raises _NotSyslog for a message without an end."""
        rest, found = self._rest, self._found
        if found.part:
            end = data.find(self._trailer)
            if end < 0:
                rest.hold(data)
                return
            rest.hold(data[:end])
            found.close(rest.take())
            data = data[end + 1 :]
        end = data.rfind(self._trailer) + 1
        if end:
            whole = b"".join((rest.data, memoryview(data)[:end]))
            rest.data.clear()
            if self._trailer == b"\n":
                found.add_lines(whole)
            else:
                found.add_any(whole[:-1].split(b"\0"))
        rest.hold(data[end:])


class _OctetCounting:
    """Messages behind their lengths (RFC 6587, 3.4.1; RFC 5425, 4.3)."""

    def __init__(self, rest: _Rest, found: _Found) -> None:
        self._rest, self._found = rest, found
        self._due: int | None = None  # of the message that is being read, not counting its parts

    def feed(self, data: bytes) -> None:
        """Takes more of the stream. Raises _NotSyslog where a length should be and none is."""
        rest = self._rest
        if self._due is not None and len(rest.data) + len(data) < self._due:
            rest.data += data
        else:
            data = rest.take() + data if rest.data else data
            rest.data += data[self._read(data) :]
        if self._due is not None:
            self._due -= self._found.cut(rest.data)

    def _read(self, data: bytes) -> int:
        """Reads the messages that are whole in the data, and gives where the rest begins."""
        found, whole, due = self._found, list[bytes](), self._due
        position, size = 0, len(data)
        try:
            while position < size:
                if due is None:
                    if data[position] in _TRAILERS:  # some senders end lines beside counting
                        position += 1
                        continue
                    if not (count := _COUNT.match(data, position)):
                        if _COUNT_BEGUN.fullmatch(data, position):
                            break
                        raise _NotSyslog("no message length where one must be")
                    position, due = count.end(), int(count[0])
                    if due > ENDLESS_BYTES:
                        raise _NotSyslog(f"a message length of {due} bytes")
                end = position + due
                if end > size:
                    break
                message, position, due = data[position:end], end, None
                if len(message) <= found.part_bytes and not found.part:
                    whole.append(message.rstrip(_TRAILERS) if message[-1] in _TRAILERS else message)
                else:
                    found.add(whole)
                    whole = []
                    found.close(message)
        finally:
            found.add(whole)  # before a fault they are messages all the same
            self._due = due
        return position


class _Rest:
    """The beginning of a message whose end has not come in."""

    def __init__(self, found: _Found) -> None:
        self._found = found
        self.data = bytearray()

    def hold(self, data: bytes) -> None:
        """Adds data without a trailer. Raises _NotSyslog for a message without an end."""
        self.data += data
        self._found.cut(self.data)
        if self._found.cut_bytes + len(self.data) > ENDLESS_BYTES:
            self.data.clear()
            raise _NotSyslog(f"a message of over {ENDLESS_BYTES} bytes without an end")

    def take(self) -> bytes:
        """All of it, which is held no longer."""
        data = bytes(self.data)
        self.data.clear()
        return data


class _Found:
    """The messages that are complete, and the parts of one that is too long to wait for."""

    def __init__(self, max_record_bytes: int, part_bytes: int) -> None:
        self._max_bytes, self.part_bytes = max_record_bytes, part_bytes
        self._messages: list[Messages] = []
        self.part = self.cut_bytes = 0
        """The last part of the message that is being read, from 1, and the bytes of all of them."""

    def take(self) -> list[Messages]:
        """The messages since the last call."""
        messages, self._messages = self._messages, []
        return messages

    def cut(self, held: bytearray) -> int:
        """Takes whole parts off what is held of one message; how many bytes that was."""
        size = 0
        while len(held) > self.part_bytes:
            size += self.part_bytes
            self._add_part(bytes(held[: self.part_bytes]))
            del held[: self.part_bytes]
        self.cut_bytes += size
        return size

    def close(self, last: bytes) -> None:
        """The rest of a message that comes in parts."""
        while last:
            piece, last = last[: self.part_bytes], last[self.part_bytes :]
            self._add_part(piece if last else piece.rstrip(_TRAILERS))
        self.part = self.cut_bytes = 0

    def _add_part(self, piece: bytes) -> None:
        self.part += 1
        if piece:
            self._messages.append(Messages(piece + b"\n", 1, self.part))

    def add_lines(self, whole: bytes) -> None:
        """Lines, each with its line feed."""
        # readlines and `in` search by memchr; bytes.split and count compare byte by byte.
        lines = BytesIO(whole).readlines()
        if b"\0" in whole or (
            len(whole) > self.part_bytes and max(map(len, lines)) > self.part_bytes + 1
        ):
            self.add_any([line[:-1] for line in lines])
            return
        payload = whole
        if b"\r" in whole:
            lines = [line.strip(_TRAILERS) + b"\n" for line in lines]
            payload = b"".join(lines)
        if b"\n" in lines:
            lines = [line for line in lines if line != b"\n"]
            payload = b"".join(lines)
        if lines:
            oversize = self._oversize(payload, lines)
            self._messages.append(Messages(payload, len(lines), None, oversize))

    def add_any(self, messages: list[bytes]) -> None:
        """Messages of any length, with what may stand around them."""
        if max(map(len, messages)) <= self.part_bytes:
            self.add([message.strip(_TRAILERS) for message in messages])
            return
        for message in messages:
            if len(message) > self.part_bytes:
                self.close(message)
            else:
                self.add([message.strip(_TRAILERS)])

    def add(self, messages: list[bytes]) -> None:
        """Messages that need no cutting; empty ones are none."""
        if b"" in messages:
            messages = [message for message in messages if message]
        for payload, some in payloads(messages):
            oversize = self._oversize(payload, some)
            self._messages.append(Messages(payload, len(some), None, oversize))

    def _oversize(self, payload: bytes, messages: Sequence[bytes]) -> tuple[int, ...]:
        # The generator below costs more than all else that is done with a message here.
        if len(payload) <= self._max_bytes + 1 or max(map(len, messages)) <= self._max_bytes:
            return ()
        sizes = (len(message) - message.endswith(b"\n") for message in messages)
        return tuple(size for size in sizes if size > self._max_bytes)

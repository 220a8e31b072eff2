"""RELP without I/O, both halves: messages in, frames out; bytes in, frames and answers out.

A frame is `TXNR SP COMMAND SP DATALEN [SP DATA] LF`. A session begins with the client's `open`;
`syslog` frames follow, each answered in order by an `rsp` of the same number once its message is
safe, and `close` ends it. The data of an answer begins with `CODE SP TEXT`; 200 means that the
server has taken the message.

Source: the RELP specification (rsyslog, librelp), "RELP frame", "commands".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from siemrelay import __version__
from siemrelay.core.errors import FrameRefused

TAKEN: Final = 200

# Transaction numbers run from 1 to this, then from 1 again; 0 is for hints from the server.
MAX_TXNR: Final = 999_999_999

# Answers are a code and a short text; librelp's own limit for a whole frame is 128 KiB.
MAX_ANSWER_BYTES: Final = 64 * 1024

SERVER_CLOSE: Final = b"0 serverclose 0\n"

_OFFERS: Final = f"relp_version=0\nrelp_software=siemrelay,{__version__}\ncommands=syslog".encode()

# Before the data: a number of 9 digits, a command of 32 letters, a length of 9 digits.
_HEADER: Final = re.compile(rb"([0-9]{1,9}) ([A-Za-z]{1,32}) ([0-9]{1,9})([ \n])")
_BEGUN: Final = re.compile(
    rb"[0-9]{0,9}|[0-9]{1,9} [A-Za-z]{0,32}|[0-9]{1,9} [A-Za-z]{1,32} [0-9]{0,9}"
)
_RESPONSE: Final = re.compile(rb"([0-9]{3})(?: ([^\n]*))?(?:\n(.*))?", re.DOTALL)


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One frame of either side."""

    txnr: int
    command: bytes
    data: bytes = b""

    def encoded(self) -> bytes:
        """The frame as it is sent."""
        data = b" " + self.data if self.data else b""
        return b"%d %b %d%b\n" % (self.txnr, self.command, len(self.data), data)


class FrameReader:
    """Reads the frames of a byte stream, in whatever pieces the network delivers it."""

    def __init__(self, max_data_bytes: int) -> None:
        self._max_bytes = max_data_bytes
        self._held = bytearray()

    @property
    def held(self) -> int:
        """Bytes that wait for the rest of their frame: never more than one frame."""
        return len(self._held)

    def receive(self, data: bytes) -> list[Frame]:
        """The frames that are whole by now, in order.

        Raises FrameRefused when the peer breaks the protocol; the connection is of no use then.
        """
        self._held += data
        found: list[Frame] = []
        at = 0
        while header := _HEADER.match(self._held, at):
            size, start = int(header[3]), header.end()
            if size > self._max_bytes:
                raise FrameRefused(f"a RELP frame of {size} bytes; {self._max_bytes} are taken")
            if header[4] == b"\n":
                if size:
                    raise FrameRefused("a RELP frame ends before its data")
                end = start
            else:
                end = start + size + 1
                if len(self._held) < end:
                    break
                if self._held[end - 1] != 0x0A:
                    raise FrameRefused("a RELP frame does not end where it says")
            content = bytes(self._held[start : start + size])
            found.append(Frame(int(header[1]), bytes(header[2]), content))
            at = end
        del self._held[:at]
        if header is None and not _BEGUN.fullmatch(self._held):
            begin = bytes(self._held[:32]).decode("latin-1")
            raise FrameRefused(f"not a RELP frame: {begin!r}")
        return found


class RelpAnswer(msgspec.Struct, frozen=True, gc=False):
    """The server's `rsp` to frame `txnr`; `details` are its further lines."""

    txnr: int
    code: int
    reason: str
    details: str = ""


class ServerClose(msgspec.Struct, frozen=True, gc=False):
    """The server is about to close: nothing more will be answered."""


class RelpClient:
    """The client's half of one session."""

    def __init__(self, *, last_txnr: int = 0) -> None:
        self._txnr = last_txnr
        self._reader = FrameReader(MAX_ANSWER_BYTES)

    def open(self) -> tuple[int, bytes]:
        """The frame that begins the session with what this side offers, and its number."""
        return self._command(b"open", _OFFERS)

    def close(self) -> tuple[int, bytes]:
        """The frame that ends the session, and its number."""
        return self._command(b"close", b"")

    def syslog(self, messages: Sequence[bytes]) -> tuple[list[int], bytes]:
        """The messages' numbers, and their frames in one piece."""
        first = self._txnr + 1
        numbers = list(range(first, first + len(messages)))
        if numbers and numbers[-1] > MAX_TXNR:
            numbers = [(number - 1) % MAX_TXNR + 1 for number in numbers]
        self._txnr = numbers[-1] if numbers else self._txnr
        frames = [
            b"%d syslog %d %b\n" % (number, len(message), message)
            if message
            else b"%d syslog 0\n" % number
            for number, message in zip(numbers, messages, strict=True)
        ]
        return numbers, b"".join(frames)

    def _command(self, command: bytes, data: bytes) -> tuple[int, bytes]:
        self._txnr = self._txnr % MAX_TXNR + 1
        return self._txnr, Frame(self._txnr, command, data).encoded()

    def receive(self, data: bytes) -> list[RelpAnswer | ServerClose]:
        """The answers that are whole by now, in order.

        Raises FrameRefused when the server breaks the protocol; the session is of no use then.
        """
        return list(map(_answer_in, self._reader.receive(data)))


def _answer_in(frame: Frame) -> RelpAnswer | ServerClose:
    if frame.command == b"serverclose":
        return ServerClose()
    if frame.command != b"rsp":
        raise FrameRefused(f"the peer sent the RELP command {frame.command.decode()!r}")
    if not (match := _RESPONSE.fullmatch(frame.data)):
        raise FrameRefused(f"the peer answered without a code: {frame.data[:32]!r}")
    code, reason, details = match.groups(b"")
    return RelpAnswer(frame.txnr, int(code), _text(reason), _text(details))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace").strip()


class RelpServer:
    """The server's half of one session: reads `open`, `syslog` and `close`."""

    def __init__(self, max_frame_bytes: int) -> None:
        self._reader = FrameReader(max_frame_bytes)
        self._opened = False

    @property
    def held(self) -> int:
        """Bytes that wait for the rest of their frame."""
        return self._reader.held

    def receive(self, data: bytes) -> list[Frame]:
        """The frames that are whole by now, in order.

        Raises FrameRefused when the client breaks the protocol; the connection is of no use then.
        """
        frames = self._reader.receive(data)
        for frame in frames:
            self._expect(frame.command)
        return frames

    def _expect(self, command: bytes) -> None:
        if command not in (b"open", b"syslog", b"close"):
            raise FrameRefused(f"the RELP command {command.decode()!r} is not offered here")
        if self._opened is (command == b"open"):
            raise FrameRefused("a RELP session is opened once, before everything else")
        self._opened = True


def answers(frames: Sequence[Frame]) -> bytes:
    """The server's answers to frames whose messages are safe."""
    return b"".join(map(_answer_to, frames))


def _answer_to(frame: Frame) -> bytes:
    if frame.command == b"syslog":
        return b"%d rsp 6 200 OK\n" % frame.txnr
    if frame.command == b"open":
        return Frame(frame.txnr, b"rsp", b"200 OK\n" + _OFFERS).encoded()
    return Frame(frame.txnr, b"rsp").encoded() + SERVER_CLOSE

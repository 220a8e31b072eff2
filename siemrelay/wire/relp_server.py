"""RELP, the server's half, without I/O: bytes in, frames out; answers as bytes.

See `wire.relp` for the frames. A session begins with `open`, `syslog` frames follow, each answered
in order once its message is safe, and `close` ends it.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from siemrelay import __version__
from siemrelay.core.errors import FrameRefused

# What may precede the data: a number of 9 digits, a command of 32 letters, a length of 9 digits.
_HEADER: Final = re.compile(rb"([0-9]{1,9}) ([A-Za-z]{1,32}) ([0-9]{1,9})([ \n])")
_BEGUN: Final = re.compile(
    rb"[0-9]{0,9}|[0-9]{1,9} [A-Za-z]{0,32}|[0-9]{1,9} [A-Za-z]{1,32} [0-9]{0,9}"
)

_OFFERS: Final = f"relp_version=0\nrelp_software=siemrelay,{__version__}\ncommands=syslog".encode()

SERVER_CLOSE: Final = b"0 serverclose 0\n"


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One frame of the client's: `open`, `syslog` or `close`."""

    txnr: int
    command: bytes
    data: bytes


class RelpServer:
    """What of a client's frames has come in so far."""

    def __init__(self, max_frame_bytes: int) -> None:
        self._max_bytes = max_frame_bytes
        self._held = bytearray()
        self._opened = False

    @property
    def held(self) -> int:
        """Bytes that wait here for the rest of their frame."""
        return len(self._held)

    def receive(self, data: bytes) -> list[Frame]:
        """The frames that are whole by now, in order; the rest is kept for the next call.

        What is kept is never more than one frame. Raises FrameRefused when the client breaks the
        protocol; the connection is of no use then.
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
            self._note(bytes(header[2]))
            frame = Frame(int(header[1]), bytes(header[2]), bytes(self._held[start : start + size]))
            found.append(frame)
            at = end
        del self._held[:at]
        if header is None and not _BEGUN.fullmatch(self._held):
            raise FrameRefused(f"this is no RELP: {bytes(self._held[:32])!r}")
        return found

    def _note(self, command: bytes) -> None:
        if command not in (b"open", b"syslog", b"close"):
            raise FrameRefused(f"the RELP command {command.decode()!r} is not offered here")
        if self._opened is (command == b"open"):
            raise FrameRefused("a RELP session is opened once, before everything else")
        self._opened = True


def answers(frames: list[Frame]) -> bytes:
    """The answers to frames whose messages are safe."""
    return b"".join(map(_answer, frames))


def _answer(frame: Frame) -> bytes:
    if frame.command == b"syslog":
        return b"%d rsp 6 200 OK\n" % frame.txnr
    if frame.command == b"open":
        said = b"200 OK\n" + _OFFERS
        return b"%d rsp %d %b\n" % (frame.txnr, len(said), said)
    return b"%d rsp 0\n" % frame.txnr + SERVER_CLOSE

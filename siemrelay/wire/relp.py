"""RELP, the client's half, without I/O: messages in, frames out; bytes in, answers out.

A frame is `TXNR SP COMMAND SP DATALEN [SP DATA] LF`. Each `syslog` frame is answered by an `rsp` of
the same number, whose data begins with `CODE SP TEXT`; 200 means that the receiver has taken it.
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

# Answers are a code and a few words; librelp's own limit for a whole frame is 128 KiB.
MAX_ANSWER_BYTES: Final = 64 * 1024

_HEADER: Final = re.compile(rb"([0-9]{1,9}) ([A-Za-z]{1,32}) ([0-9]{1,9})([ \n])")
_BEGUN: Final = re.compile(
    rb"[0-9]{0,9}|[0-9]{1,9} [A-Za-z]{0,32}|[0-9]{1,9} [A-Za-z]{1,32} [0-9]{0,9}"
)
_RESPONSE: Final = re.compile(rb"([0-9]{3})(?: ([^\n]*))?(?:\n(.*))?", re.DOTALL)


class Answer(msgspec.Struct, frozen=True, gc=False):
    """An `rsp`: what the peer says about frame `txnr`; `details` are its further lines."""

    txnr: int
    code: int
    reason: str
    details: str = ""


class ServerClose(msgspec.Struct, frozen=True, gc=False):
    """The peer is about to close: nothing more will be answered."""


class RelpClient:
    """The state of one RELP session: the next number, and what of a frame has come in so far."""

    def __init__(self, *, last_txnr: int = 0) -> None:
        self._txnr = last_txnr
        self._rest = b""

    def open(self) -> tuple[int, bytes]:
        """The frame that begins the session with what this side offers, and its number."""
        offers = f"relp_version=0\nrelp_software=siemrelay,{__version__}\ncommands=syslog"
        return self._command(b"open", offers.encode())

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
        said = b" " + data if data else b""
        return self._txnr, b"%d %b %d%b\n" % (self._txnr, command, len(data), said)

    def receive(self, data: bytes) -> list[Answer | ServerClose]:
        """What has come in as a whole by now, in order; the rest is kept for the next call.

        Raises FrameRefused when the peer breaks the protocol; the session is of no use then.
        """
        buffer = self._rest + data
        found: list[Answer | ServerClose] = []
        at = 0
        while header := _HEADER.match(buffer, at):
            size = int(header[3])
            if size > MAX_ANSWER_BYTES:
                raise FrameRefused(f"the peer announces {size} bytes in a RELP frame")
            start = header.end()
            if header[4] == b"\n":
                if size:
                    raise FrameRefused("a RELP frame ends before its data")
                end = start
            else:
                end = start + size + 1
                if len(buffer) < end:
                    break
                if buffer[end - 1] != 0x0A:
                    raise FrameRefused("a RELP frame does not end where it says")
            found.append(_value(int(header[1]), header[2], buffer[start : start + size]))
            at = end
        self._rest = buffer[at:]
        if header is None and not _BEGUN.fullmatch(self._rest):
            raise FrameRefused(f"the peer sent no RELP frame, but {self._rest[:32]!r}")
        return found


def _value(txnr: int, command: bytes, data: bytes) -> Answer | ServerClose:
    if command == b"serverclose":
        return ServerClose()
    if command != b"rsp":
        raise FrameRefused(f"the peer sent the RELP command {command.decode()!r}")
    if not (match := _RESPONSE.fullmatch(data)):
        raise FrameRefused(f"the peer answered without a code: {data[:32]!r}")
    code, reason, details = match.groups(b"")
    return Answer(txnr, int(code), _text(reason), _text(details))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace").strip()

"""Keeps text from outside from steering the terminal that a command writes to.

Names of files and peers, records and answers of receivers are in what commands print. A terminal
takes some characters in them for commands: to hide text, to answer as if it were typed. Every
command writes through here, so that none can forget it; checked by
test_no_command_lets_a_name_steer_the_terminal.
"""

from __future__ import annotations

import re
import sys
from typing import Any, Final, TextIO, cast

from siemrelay.formats.writing.text import sanitize_for_display

# Colours and weights, as click and rich write them.
_STYLE: Final = r"\x1b\[(?:[0-2]?[0-9]|[39][0-9])(?:;[0-9]{1,3})*m"
_CONCEALED: Final = re.compile(r"\x1b\[(?:[0-9;]*;)?8(?:;[0-9;]*)?m")
_KEPT: Final = re.compile(rf"({_STYLE}|[\n\t]+)")


class TerminalText:
    """A text stream whose control characters are shown as symbols, but for colours and lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write it, and return how many characters it had."""
        if text.isprintable():
            self._stream.write(text)
        else:
            pieces = _KEPT.split(_CONCEALED.sub("", text))
            pieces[::2] = map(sanitize_for_display, pieces[::2])
            self._stream.write("".join(pieces))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def guard_terminal() -> None:
    """Write to standard output and error through TerminalText where they are terminals."""
    if sys.stdout.isatty():
        sys.stdout = cast("TextIO", TerminalText(sys.stdout))
    if sys.stderr.isatty():
        sys.stderr = cast("TextIO", TerminalText(sys.stderr))

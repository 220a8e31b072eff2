"""Commands of siemrelay in messages: they work as they stand, whatever file the relay runs with."""

from __future__ import annotations

import re
import shlex
from typing import Final

DEFAULT_FILE: Final = "/etc/siemrelay/siemrelay.yaml"
"""The configuration that commands use without `-c FILE`."""

# Those that take `-c FILE` to find the relay or its buffer.
_COMMAND: Final = re.compile(
    r"`siemrelay (?:reload|pause|resume|check|test|tap|preview|status|top|buffer)\b[^`]*(?=`)"
)


def with_config(text: str, file: str) -> str:
    """The text with `-c FILE` in every command between backticks that would take another file."""
    if "`siemrelay " not in text or file in ("", DEFAULT_FILE):
        return text

    def named(match: re.Match[str]) -> str:
        return match[0] if " -c " in match[0] else f"{match[0]} -c {shlex.quote(file)}"

    return _COMMAND.sub(named, text)

"""Writes log lines: an event, and facts about it by name. `telemetry.log` says where they go.

Not the library structlog, whose calls these are: importing it loads asyncio and rich, a tenth of a
second at each start of the relay and of every command.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

Line = dict[str, Any]
"""The facts of a line, and its `event`."""

Output = Callable[[str, Line], None]
"""Takes a line of a level; called from any thread."""

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
"""Level → importance."""


def _plain(level: str, line: Line) -> None:
    """Where lines go before `set_output`: tests of parts, and faults of the program itself."""
    print(f"[{level}]", line.pop("event"), line, file=sys.stderr)


_output: Output = _plain
_least = 0


class Logger:
    """Writes lines with the facts that it was bound to."""

    __slots__ = ("_bound",)

    def __init__(self, bound: Line) -> None:
        self._bound = bound

    def bind(self, **facts: Any) -> Logger:
        """A logger whose lines have these facts, too."""
        return Logger({**self._bound, **facts})

    def debug(self, event: str, **facts: Any) -> None:
        """What only a developer wants to see."""
        self._write("debug", event, facts)

    def info(self, event: str, **facts: Any) -> None:
        """A change of state."""
        self._write("info", event, facts)

    def warning(self, event: str, **facts: Any) -> None:
        """What may need a person."""
        self._write("warning", event, facts)

    def error(self, event: str, **facts: Any) -> None:
        """What needs a person. `exc_info` is an exception whose traceback is written, or None."""
        self._write("error", event, facts)

    def critical(self, event: str, **facts: Any) -> None:
        """What ends the process."""
        self._write("critical", event, facts)

    def _write(self, level: str, event: str, facts: Line) -> None:
        if LEVELS[level] >= _least:
            _output(level, {**self._bound, **facts, "event": event})


_unbound: Final = Logger({})


def get_logger() -> Logger:
    """The logger without facts of its own. What it writes goes to the output of that moment."""
    return _unbound


def set_output(output: Output, least: str) -> None:
    """Give lines of the level `least` and above to `output` from now on."""
    global _output, _least
    _output, _least = output, LEVELS[least]


@contextmanager
def captured_logs() -> Iterator[list[Line]]:
    """For tests: the lines of every level that are written meanwhile, each with its `log_level`."""
    global _output, _least
    before, lines = (_output, _least), list[Line]()
    _output, _least = (lambda level, line: lines.append({**line, "log_level": level})), 0
    try:
        yield lines
    finally:
        _output, _least = before

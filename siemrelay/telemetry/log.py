"""The relay's own log: JSON lines, or coloured on a terminal; secrets never leave through it.

Lines are for state changes and losses, never one per event; ERROR means that a person must act.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import Any, Final

import structlog

_LEVELS: Final = {
    "debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING,
    "error": logging.ERROR,
}  # fmt: skip

# A shorter secret would blot out common words, and protects nothing.
_SECRET_CHARACTERS: Final = 4


class Redactor:
    """A structlog processor that writes `***` wherever a known secret stands, at any depth."""

    def __init__(self, secrets: Iterable[str]) -> None:
        found = {str(secret) for secret in secrets if len(secret) >= _SECRET_CHARACTERS}
        self._secrets = sorted(found, key=len, reverse=True)

    def text(self, text: str) -> str:
        """`text` without the secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def __call__(self, logger: Any, method: str, line: dict[str, Any]) -> dict[str, Any]:
        return {key: self._clean(value) for key, value in line.items()} if self._secrets else line

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(key)): self._clean(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self._clean(inner) for inner in value]
        if value is None or isinstance(value, (bool, int, float)):
            return value
        return self.text(str(value))  # as the renderer would write it


def configure(level: str, form: str, redactor: Redactor) -> None:
    """Set up the log on standard error. `form` is json, console, or auto: console on a terminal."""
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redactor,
    ]
    if console:
        # Tracebacks were made text before the redactor; a prettier one would show local variables.
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        processors.append(renderer)
    else:
        processors.append(structlog.processors.JSONRenderer(default=str))
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )

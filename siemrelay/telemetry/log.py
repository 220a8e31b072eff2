"""The relay's own log: JSON lines, or colours on a terminal. It never contains a secret.

A line reports a change of state or a loss, never a single event; ERROR means a person must act.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, quote_plus

import structlog

from siemrelay.core.options import URL_PASSWORD
from siemrelay.core.own_commands import DEFAULT_FILE, with_config
from siemrelay.formats.writing.text import sanitize_for_display

_LEVELS: Final = {
    "debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING,
    "error": logging.ERROR,
}  # fmt: skip

_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""Level → priority of syslog(3)."""

_LEADING: Final = ("timestamp", "level", "event")
"""The keys with which a JSON line begins."""

# Redacting a shorter secret would remove parts of common words.
_SECRET_CHARACTERS: Final = 4


# Credentials in an Authorization header. `Basic` encodes user and password, so neither is found in
# it as text.
_CREDENTIALS: Final = re.compile(r"\b(?P<scheme>Basic|Bearer|Splunk|ApiKey) [\w+/=.~-]{8,}", re.I)


def _forms(secret: str) -> set[str]:
    """The secret as JSON, URLs and HTML forms encode it, and with its white space folded."""
    as_json = json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]
    in_addresses = quote(secret), quote(secret, safe=""), quote_plus(secret)
    return {secret, " ".join(secret.split()), *as_json, *in_addresses}


class Redactor:
    """A structlog processor that writes `***` wherever a known secret stands, at any depth."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets: list[str] = []
        self.add(secrets)

    def add(self, secrets: Iterable[str]) -> None:
        """Redact these too; earlier ones stay redacted, since peers may echo them later."""
        found = {
            form
            for secret in secrets
            if len(secret) >= _SECRET_CHARACTERS
            for form in _forms(str(secret))
        }
        self._secrets = sorted(found.union(self._secrets), key=len, reverse=True)

    def text(self, text: str) -> str:
        """`text` with `***` for every secret, also in the encodings in which a peer may echo it."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        if "://" in text:
            text = URL_PASSWORD.sub(r"\g<user>:***", text)
        return _CREDENTIALS.sub(r"\g<scheme> ***", text)

    def __call__(self, logger: Any, method: str, line: dict[str, Any]) -> dict[str, Any]:
        """The log line without secrets; called by structlog."""
        return {key: self._clean(value) for key, value in line.items()}

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(key)): self._clean(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self._clean(inner) for inner in value]
        if value is None or isinstance(value, (bool, int, float)):
            return value
        written = str(value)  # the renderer writes it so
        cleaned = self.text(written)
        return value if cleaned == written else cleaned


def journal_prefix(level: str) -> str:
    """`<3>` for an error, from which journald takes a line's priority (sd-daemon(3)).

    Empty unless standard error is the journal's stream, as JOURNAL_STREAM says (systemd.exec(5)).
    """
    stream = os.environ.get("JOURNAL_STREAM", "")
    try:
        error = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):  # closed, or replaced by something without a descriptor
        return ""
    return f"<{_PRIORITIES[level]}>" if stream == f"{error.st_dev}:{error.st_ino}" else ""


class _JournalRenderer:
    """Writes one JSON line, with its priority where the journal reads it."""

    def __init__(self) -> None:
        self._prefixes = {level: journal_prefix(level) for level in _PRIORITIES}
        self._render = structlog.processors.JSONRenderer(default=str)

    def __call__(self, logger: Any, method: str, line: dict[str, Any]) -> str:
        # A reader of `journalctl` sees the begin of a line.
        line = {**dict.fromkeys(_LEADING), **line}
        text = self._render(logger, method, line)
        return f"{self._prefixes[line['level']]}{text if isinstance(text, str) else text.decode()}"


def _harmless(logger: Any, method: str, line: dict[str, Any]) -> dict[str, Any]:
    """A structlog processor for terminals: names of files and peers must not steer one."""
    # What is no text, the renderer writes by `repr`, which escapes it.
    return {
        sanitize_for_display(key): _one_line(key, value) if isinstance(value, str) else value
        for key, value in line.items()
    }


def _one_line(key: str, text: str) -> str:
    if key != "exception":
        return sanitize_for_display(text)
    # Indented, so that no line of an error's text passes for one of the log.
    return "\n".join(f"  {sanitize_for_display(line)}" for line in text.split("\n"))


def _advising(file: str) -> Any:
    """A structlog processor: the commands in messages name the file that the relay runs with."""
    file = str(Path(file).absolute())

    def advise(logger: Any, method: str, line: dict[str, Any]) -> dict[str, Any]:
        return {
            key: with_config(value, file) if isinstance(value, str) else value
            for key, value in line.items()
        }

    return advise


def configure(level: str, form: str, redactor: Redactor, config_file: str = DEFAULT_FILE) -> None:
    """Set up the log on standard error. `form` is json, console, or auto: console on a terminal.

    `config_file` is what the commands in messages are about.
    """
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redactor,
        _advising(config_file),
    ]
    if console:
        # Tracebacks become text before the redactor runs; rich ones would show local variables.
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        processors += [_harmless, renderer]
    else:
        processors.append(_JournalRenderer())
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )

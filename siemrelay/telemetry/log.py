"""The relay's own log: JSON lines, or colours on a terminal. It never contains a secret.

A line reports a change of state or a loss, never a single event; ERROR means a person must act.
"""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, quote_plus

from siemrelay.core.options import URL_PASSWORD
from siemrelay.core.own_commands import DEFAULT_FILE, with_config
from siemrelay.formats.writing.text import sanitize_for_display
from siemrelay.log import Line, set_output

_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""Level → priority of syslog(3)."""

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
    """Writes `***` wherever a known secret stands."""

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

    def line(self, line: Line) -> Line:
        """A log line without secrets, at any depth of it."""
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


def configure(level: str, form: str, redactor: Redactor, config_file: str = DEFAULT_FILE) -> None:
    """Set up the log on standard error. `form` is json, console, or auto: console on a terminal.

    `config_file` is what the commands in messages are about.
    """
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    render = _console_renderer() if console else _json_renderer()
    file = str(Path(config_file).absolute())

    def write(level: str, line: Line) -> None:
        error = line.pop("exc_info", None)
        line |= {"level": level, "timestamp": _now()}
        if error is not None:
            # Before the redactor: it may quote a secret.
            line["exception"] = "".join(traceback.format_exception(error)).rstrip("\n")
        text = render(level, _advised(redactor.line(line), file))
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    set_output(write, level)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _advised(line: Line, file: str) -> Line:
    """The commands in messages name the file that the relay runs with."""
    return {
        key: with_config(value, file) if isinstance(value, str) else value
        for key, value in line.items()
    }


_Render = Callable[[str, Line], str]


def _json_renderer() -> _Render:
    """One JSON line, with its priority where the journal reads it."""
    prefixes = {level: journal_prefix(level) for level in _PRIORITIES}
    return lambda level, line: prefixes[level] + json.dumps(line, default=str)


_RESET: Final = "\x1b[0m"
_COLOURS: Final = {
    "debug": "\x1b[32m", "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m",
    "critical": "\x1b[31m",
}  # fmt: skip
_DIM, _BOLD, _CYAN, _MAGENTA = "\x1b[2m", "\x1b[1m", "\x1b[36m", "\x1b[35m"
_EVENT_CHARACTERS: Final = 30
"""So wide are most events; what is told of them begins in one column."""


def _console_renderer() -> _Render:
    """A line for a person: time, level, event and facts. Names of files and peers stay text."""

    def styled(text: str, style: str) -> str:
        return f"{style}{text}{_RESET}" if coloured else text

    def render(level: str, line: Line) -> str:
        exception = line.pop("exception", None)
        line.pop("level")
        event = sanitize_for_display(str(line.pop("event"))).ljust(_EVENT_CHARACTERS)
        head = [styled(line.pop("timestamp"), _DIM), f"[{styled(f'{level:9}', _COLOURS[level])}]",
                styled(event, _BOLD)]  # fmt: skip
        facts = [
            f"{styled(sanitize_for_display(key), _CYAN)}={styled(_shown(value), _MAGENTA)}"
            for key, value in line.items()
        ]
        text = " ".join([*head, *facts]).rstrip()
        return text if exception is None else f"{text}\n{_indented(exception)}"

    coloured = sys.stderr.isatty()
    return render


def _shown(value: object) -> str:
    # `repr` of a path or an error has the characters of its text.
    return sanitize_for_display(value if isinstance(value, str) else repr(value))


def _indented(text: str) -> str:
    # So that no line of an error's text passes for one of the log.
    return "\n".join(f"  {sanitize_for_display(line)}" for line in text.split("\n"))

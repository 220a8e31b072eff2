"""The certificate files behind TLS contexts: loaded, and loaded again when they have changed."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import structlog

from siemrelay.core.errors import SiemrelayError

_log = structlog.get_logger()

_ADVICE: Final = (
    "check that they exist, are PEM, belong together, are readable and have no password"
)


class TlsFilesUnusable(SiemrelayError):
    """Files of a TLS context cannot be used: `advice` says what to check in the files named."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}; {_ADVICE}")
        self.reason, self.advice = reason, _ADVICE


@contextmanager
def loading(*files: Path | None) -> Iterator[None]:
    """Turn errors from loading these files into TlsFilesUnusable."""
    try:
        yield
    except (OSError, ValueError) as error:
        names = ", ".join(str(file) for file in files if file is not None)
        raise TlsFilesUnusable(f"cannot use the TLS files {names}: {error}") from error


def no_password() -> str:
    """The password of every key. Without this function OpenSSL would ask on the terminal."""
    return ""


class CurrentContext:
    """A TLS context of certificate files, made anew when one of them has changed.

    While new files cannot be used (half written, a key of another certificate), the context of the
    last usable ones stays in use, and a warning is logged.
    """

    def __init__(
        self, make: Callable[[], ssl.SSLContext], files: Callable[[], Iterable[Path]]
    ) -> None:
        """`make` reads `files`, and raises TlsFilesUnusable."""
        self._make, self._files = make, files
        self._states: list[tuple[Path, int, int, int] | None] = []
        self._usable: ssl.SSLContext | None = None

    def get(self) -> ssl.SSLContext:
        """The context for the next connection. Reads files: call it in a thread, one at a time.

        Raises TlsFilesUnusable if the files never were usable.
        """
        # Their state is taken before they are read: a change in between is noticed the next time.
        states = list(map(_state, self._files()))
        if self._usable is None or states != self._states:
            try:
                self._usable = self._make()
            except TlsFilesUnusable as error:
                if self._usable is None:
                    raise
                _log.warning("new TLS files cannot be used, the last good ones are kept",
                             reason=error.reason, advice=error.advice)  # fmt: skip
            self._states = states
        return self._usable


def _state(file: Path) -> tuple[Path, int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return file, found.st_ino, found.st_size, found.st_mtime_ns

"""The certificate files behind TLS contexts: loaded, and loaded again when they have changed."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from siemrelay.core.errors import SiemrelayError
from siemrelay.net.pem import FileState, file_state, files, findings

_ADVICE: Final = (
    "check that they exist, are PEM, belong together, are readable and have no password"
)
_CORRECTED: Final = "a corrected file is taken by itself"


class TlsFilesUnusable(SiemrelayError):
    """Files of a TLS context cannot be used. `advice` says what to do about it."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(f"{reason}; {advice}")
        self.reason, self.advice = reason, advice


@contextmanager
def loading(options: BaseModel) -> Iterator[None]:
    """Turn errors from loading the files that these options name into TlsFilesUnusable."""
    try:
        yield
    except (OSError, ValueError) as error:
        # OpenSSL names neither the file nor what is wrong with it.
        for finding in findings(options):
            reason = f"`{finding.option}`: {finding.message}"
            raise TlsFilesUnusable(reason, _CORRECTED) from error
        names = ", ".join(map(str, files(options)))
        raise TlsFilesUnusable(f"cannot use the TLS files {names}: {error}", _ADVICE) from error


def no_password() -> str:
    """The password of every key. Without this function OpenSSL would ask on the terminal."""
    return ""


class CurrentContext:
    """A TLS context of certificate files, made anew when one of them has changed.

    While new files cannot be used (half written, a key of another certificate), the context of the
    last usable ones stays in use; the relay looks at all such files and reports that.
    """

    def __init__(
        self, make: Callable[[], ssl.SSLContext], files: Callable[[], Iterable[Path]]
    ) -> None:
        """`make` reads `files`, and raises TlsFilesUnusable."""
        self._make, self._files = make, files
        self._states: list[tuple[Path, FileState | None]] = []
        self._usable: ssl.SSLContext | None = None

    def get(self) -> ssl.SSLContext:
        """The context for the next connection. Reads files: call it in a thread, one at a time.

        Raises TlsFilesUnusable if the files never were usable.
        """
        # Their state is taken before they are read: a change in between is noticed the next time.
        states = [(file, file_state(file)) for file in self._files()]
        if self._usable is None or states != self._states:
            try:
                self._usable = self._make()
            except TlsFilesUnusable:
                if self._usable is None:
                    raise
            self._states = states
        return self._usable

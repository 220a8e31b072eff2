"""Files that cannot be read: told once each, with what to do, and once when that is over."""

from __future__ import annotations

import errno
from typing import Any, Final

from siemrelay.sources.identity import showable

_ADVICE: Final = {
    errno.EACCES: "let the relay's user read it, by its group or an ACL (setfacl -m u:USER:r)",
    errno.EPERM: "let the relay's user read it, by its group or an ACL (setfacl -m u:USER:r)",
    errno.EMFILE: "raise LimitNOFILE",
    errno.ESTALE: "check the network file system",
    errno.EIO: "check the disk",
}


class Troubles:
    """What is wrong with which file; every survey tries them again."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._found: dict[str, int | None] = {}

    def met(self, path: str, error: OSError) -> None:
        """Warn of a file that cannot be read, if it is news."""
        if self._found.get(path, 0) != error.errno:
            self._found[path] = error.errno
            self._log.warning(
                "cannot read, trying again",
                path=showable(path),
                error=error.strerror or str(error),
                advice=_ADVICE.get(error.errno or 0),
            )

    def over(self, path: str) -> None:
        """Say that a file could be read, if it could not before."""
        if self._found.pop(path, None) is not None:
            self._log.info("can be read again", path=showable(path))

"""Files that cannot be read: told once each, with what to do, and once when that is over."""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection
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
    """What is wrong with which file; every survey tries them again.

    `tell` is given what is wrong now, in words, at each change; without words when nothing is.
    """

    def __init__(self, log: Any, tell: Callable[[str], None]) -> None:
        self._log, self._tell = log, tell
        self._found: dict[str, str] = {}

    def met(self, path: str, error: OSError) -> None:
        """Warn of a file that cannot be read, if it is news."""
        said, advice = error.strerror or str(error), _ADVICE.get(error.errno or 0)
        words = f"cannot read {showable(path)}: {said}" + (f"; {advice}" if advice else "")
        if self._found.get(path) != words:
            self._found[path] = words
            self._log.warning("cannot read, trying again", path=showable(path), error=said,
                              advice=advice)  # fmt: skip
            self._changed()

    def over(self, path: str) -> None:
        """Say that a file could be read, if it could not before."""
        if self._found.pop(path, None) is not None:
            self._log.info("can be read again", path=showable(path))
            self._changed()

    def only(self, paths: Collection[str]) -> None:
        """Say which files there are: what is gone is no trouble any more."""
        gone = [path for path in self._found if path not in paths]
        for path in gone:
            del self._found[path]
        if gone:
            self._changed()

    def _changed(self) -> None:
        if not self._found:
            self._tell("")
            return
        first, *others = self._found.values()
        files = f"{len(others)} more files" if len(others) > 1 else "1 more file"
        more = f" (and {files} cannot be read)" if others else ""
        self._tell(first + more)

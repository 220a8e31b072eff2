"""Files that left while the relay was stopped: what was written to them last may be lost.

A log that is not to be found at the start, neither by its inode nor as a copy, was rotated to where
the globs do not lead, deleted, or emptied. How much was written to it meanwhile nobody knows.
"""

# ruff: noqa: PTH112, PTH119, PTH120
# Paths are text here: each look at the disk handles them by the thousand, and Path costs tenfold.
from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Final

from siemrelay.sources.following import Followed
from siemrelay.sources.generations import base_name, is_compressed, is_rotated_name
from siemrelay.sources.globbing import Globs
from siemrelay.sources.identity import Place
from siemrelay.sources.remembered import Remembered

# Named in one warning; the others are counted.
_MOST_NAMED: Final = 10


class Departed:
    """Warns once of the logs that are gone at the start. Blocks on the disk."""

    def __init__(self, globs: Globs, memory: Remembered, log: Any) -> None:
        """To be built before `memory` is asked for what is found on the disk."""
        self._globs, self._memory, self._log = globs, memory, log
        # Older generations were read to their end; that they go is what rotation is for. Also those
        # whose place was stored under the log's own name, which a later file has had since.
        latest: dict[str, tuple[int, str]] = {}
        for key, place in memory.items():
            if _may_have_grown(place):
                latest[place.path] = max(latest.get(place.path, (0, "")), (place.serial, key))
        self._expected = [key for _, key in latest.values()]

    def tell(self, files: Iterable[Followed]) -> None:
        """Warn, once it is known of what was found (`files`) whether it is a copy of them."""
        gone = [
            place
            for place in map(self._memory.get, self._expected)
            # Without its directory it is not gone: a file system may be mounted late.
            if place and not place.copied and os.path.isdir(os.path.dirname(place.path))
        ]
        undecided = {os.path.basename(followed.family) for followed in files if followed.undecided}
        if undecided.intersection(base_name(place.path) for place in gone):
            return
        self._expected = []
        if not gone:
            return
        matched = all(self._globs.matches(place.path + ".1") for place in gone)
        self._log.warning(
            "left while the relay was stopped; what was written after the place read to is lost",
            files={place.path: place.offset for place in gone[:_MOST_NAMED]},
            count=len(gone),
            advice="keep rotated files for longer than the relay is stopped"
            if matched
            else "let `path` match rotated names, too (audit.json*)",
        )


def _may_have_grown(place: Place) -> bool:
    return (
        place.gone is None
        and place.offset > 0
        and not (place.copied or place.truncated)
        and not (is_compressed(place.path) or is_rotated_name(place.path))
    )

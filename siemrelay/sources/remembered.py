"""The places in files that are not being read: not found yet, deleted, or rotated out of sight."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

import msgspec

from siemrelay.sources.contract import Position
from siemrelay.sources.generations import base_name
from siemrelay.sources.identity import Place, position

# How long a file must be gone before its place is forgotten. Not less than a day: a file system
# that is mounted late, and a log that is compressed with tomorrow's rotation, are still known.
KEEP_GONE_S: Final = 86400.0


class Remembered:
    """Places by key; found again by inode, and by the name of the log they belong to.

    Bounded: what is gone for `KEEP_GONE_S` is dropped by `expire`.
    """

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        self._keys_by_inode: defaultdict[int, dict[str, None]] = defaultdict(dict)
        self._keys_by_name: defaultdict[str, dict[str, None]] = defaultdict(dict)

    def __len__(self) -> int:
        return len(self._places)

    def put(self, key: str, place: Place) -> None:
        """Remember, or replace what is remembered of that key."""
        self.pop(key)
        self._places[key] = place
        self._keys_by_inode[place.inode][key] = None
        self._keys_by_name[base_name(place.path)][key] = None

    def pop(self, key: str) -> Place | None:
        """Forget a key."""
        place = self._places.pop(key, None)
        if place is not None:
            _unlist(self._keys_by_inode, place.inode, key)
            _unlist(self._keys_by_name, base_name(place.path), key)
        return place

    def get(self, key: str) -> Place | None:
        """What is remembered of a key."""
        return self._places.get(key)

    def items(self) -> list[tuple[str, Place]]:
        """All keys and places."""
        return list(self._places.items())

    def of_inode(self, inode: int) -> list[tuple[str, Place]]:
        """The latest first."""
        keys = reversed(self._keys_by_inode.get(inode, {}))
        return [(key, self._places[key]) for key in keys]

    def of_log(self, name: str) -> list[tuple[str, Place]]:
        """All that belong to a log of that base name, in any directory."""
        return [(key, self._places[key]) for key in self._keys_by_name.get(name, {})]

    def inodes(self) -> set[int]:
        """The inodes that a file may still be found under."""
        return set(self._keys_by_inode)

    def expire(self, now_s: float) -> Iterator[Position]:
        """Note what is missing from now on, drop what is gone for too long; yields what to store.

        `now_s`: seconds since the epoch.
        """
        for key, place in list(self._places.items()):
            if place.gone is None:
                missing = msgspec.structs.replace(place, gone=now_s)
                self._places[key] = missing
                yield position(key, missing)
            elif now_s - place.gone >= KEEP_GONE_S:
                self.pop(key)
                yield Position(key, None)


def _unlist(lists: defaultdict[int, dict[str, None]] | defaultdict[str, dict[str, None]],
            name: int | str, key: str) -> None:  # fmt: skip
    keys = lists[name]  # type: ignore[index]  # each caller pairs its own list and name
    del keys[key]
    if not keys:
        del lists[name]  # type: ignore[arg-type]  # as above

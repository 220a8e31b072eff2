"""The generations of each log: the files that one name has had, in the order they are read."""

from __future__ import annotations

from collections.abc import Sequence

from siemrelay.sources.following import Followed


class Families:
    """Followed files by family, oldest first, and families by the log's name in any directory."""

    def __init__(self) -> None:
        self._members: dict[str, list[Followed]] = {}
        self._by_log: dict[str, dict[str, None]] = {}

    def of(self, family: str) -> Sequence[Followed]:
        """The generations of one log, oldest first."""
        return self._members.get(family, ())

    def relatives(self, followed: Followed) -> list[Followed]:
        """What is followed of the same log, in any directory."""
        families = self._by_log.get(_log_name(followed), {})
        return [other for name in families for other in self._members[name]]

    def add(self, followed: Followed) -> None:
        """Put a file behind the others of its family, once."""
        members = self._members.setdefault(followed.family, [])
        if followed not in members:
            members.append(followed)
        self._by_log.setdefault(_log_name(followed), {})[followed.family] = None

    def remove(self, followed: Followed) -> bool:
        """Take a file out; whether its family is empty now."""
        members = self._members[followed.family]
        members.remove(followed)
        if members:
            return False
        del self._members[followed.family]
        log_name = _log_name(followed)
        self._by_log[log_name].pop(followed.family)
        if not self._by_log[log_name]:
            del self._by_log[log_name]
        return True

    def take_unread(self, family: str) -> list[Followed]:
        """Take out those of which nothing was read yet, to be put back in order by `add`."""
        members = self._members.get(family, [])
        waiting = [followed for followed in members if followed.identity.offset == 0]
        members[:] = [followed for followed in members if followed not in waiting]
        return waiting


def _log_name(followed: Followed) -> str:
    return followed.family.rpartition("/")[2]

"""Checks the windows of one stream: between two signed states, which messages are not as sent."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

from siemrelay.proof.exported_stream import ExportedStream
from siemrelay.proof.leaf_store import LeafStore
from siemrelay.proof.report import Findings, counted
from siemrelay.proof.windows import SignedTree, chosen_messages, ranges

# In a window of more numbers than a relay seals at once, holes are looked for first.
_LARGE: Final = 1_000_000


class WindowChecks:
    """Checks one window after the other, and keeps which are proven."""

    def __init__(self, stream: ExportedStream, findings: Findings, tiles: LeafStore | None) -> None:
        """`tiles` has the relay's own leaves, as far as they are known."""
        self._stream, self._findings, self._tiles = stream, findings, tiles
        self._proven: list[range] = []
        """Rising."""

    def is_proven(self, number: int) -> bool:
        """Whether the message of this number is part of what gives a signed root."""
        place = bisect_right(self._proven, number, key=lambda each: each.start)
        return place > 0 and number in self._proven[place - 1]

    def check_if_whole(self, before: SignedTree, after: SignedTree) -> bool:
        """`check`, unless a message is missing or there are many; False then."""
        start, end, stream = before.tree.size, after.tree.size, self._stream
        if end - start > _LARGE:
            return False
        for number, leaf in enumerate(stream.leaves.between(start, end), start):
            if leaf is None and number not in stream.absent:
                return False
        self.check(before, after)
        return True

    def check(self, before: SignedTree, after: SignedTree) -> None:
        """Find what is wrong between two signed states."""
        start, end = before.tree.size, after.tree.size
        if end - start > _LARGE and self._is_mostly_missing(before, after):
            return
        stream, findings, times = self._stream, self._findings, (before.at, after.at)
        leaves = stream.leaves.between(start, end)
        for number, leaf in stream.absent.items():
            if start <= number < end and leaves[number - start] is None:
                leaves[number - start] = leaf
        missing = [start + i for i, leaf in enumerate(leaves) if leaf is None]
        self._find_missing(ranges(missing), times)
        choices = [n for n in range(start, end) if n in stream.others] if stream.others else []
        if not missing and self._is_proven(before, after, leaves, choices):
            return
        if self._tiles is not None and self._compare(self._tiles, (before, after), leaves):
            return
        name = stream.label
        for number in choices:
            findings.add("added", "different messages of one number", name, number, number, *times)
        if not missing:
            what = f"of these {end - start:,} messages one or more are" if end - start > 1 else "is"
            findings.add("changed", f"{what} not as sent", name, start, end - 1,
                         *times)  # fmt: skip
        elif present := end - start - len(missing):
            findings.add("unproven", f"{counted(present, 'message')} beside missing ones cannot be "
                         "checked without the relay's hashes (`siemrelay seal export`, then "
                         "--tiles)", name, start, end - 1, *times)  # fmt: skip

    def _find_missing(self, runs: Iterable[tuple[int, int]], times: tuple[str, str]) -> None:
        for first, last in runs:
            self._findings.add("missing", f"{counted(last - first + 1, 'message')} not in the "
                               "export", self._stream.label, first, last, *times)  # fmt: skip

    def _is_proven(
        self, before: SignedTree, after: SignedTree, leaves: Sequence[bytes | None],
        choices: Sequence[int],
    ) -> bool:  # fmt: skip
        """Whether messages of these numbers give the signed root; others are added ones."""
        found = chosen_messages(self._stream.others, before.tree, after.tree, leaves, choices)
        if found is None:
            return False
        self._proven.append(range(before.tree.size, after.tree.size))
        for number, (chosen, every) in found.items():
            for leaf, where in every:
                if leaf != chosen:
                    self._findings.add("added", f"another message of this number{where}",
                                       self._stream.label, number, number, before.at,
                                       after.at)  # fmt: skip
        return True

    def _is_mostly_missing(self, before: SignedTree, after: SignedTree) -> bool:
        """Whether a large window has holes, which are reported: an export of a few days, say."""
        stream, (start, end) = self._stream, (before.tree.size, after.tree.size)
        present, first, last, at = 0, -1, -1, start
        absent = sorted(number for number in stream.absent if start <= number < end)
        for begin, until in [*stream.leaves.runs(start, end), (end, end - 1)]:
            holes = [at - 1, *(number for number in absent if at <= number < begin), begin]
            for low, high in pairwise(holes):
                if high > low + 1:
                    self._findings.add("missing", f"{counted(high - low - 1, 'message')} not in "
                                       "the export; if it begins later, give --since",
                                       stream.label, low + 1, high - 1, before.at,
                                       after.at)  # fmt: skip
            if until >= begin:
                present, last = present + until - begin + 1, until
                first = begin if first < 0 else first
            at = until + 1
        known = present + sum(stream.leaves.get(number) is None for number in absent)
        if known == end - start:
            return False
        if present:
            self._findings.add("unproven", f"{counted(present, 'message')} beside missing ones "
                               "cannot be checked", stream.label, first, last, before.at,
                               after.at)  # fmt: skip
        return True

    def _compare(
        self, tiles: LeafStore, window: tuple[SignedTree, SignedTree],
        leaves: Sequence[bytes | None],
    ) -> bool:  # fmt: skip
        """Name each changed message by the relay's leaves; False if these are not at hand.

        The leaves need no trust: they must give the signed root, too.
        """
        before, after = window
        start, end, times = before.tree.size, after.tree.size, (before.at, after.at)
        name, stream = self._stream.label, self._stream
        known = [leaf for leaf in tiles.between(start, end) if leaf is not None]
        if len(known) < len(leaves):
            self._findings.note(f"the relay's hashes (--tiles) lack {len(leaves) - len(known):,} "
                                f"of {end - start:,}: which message was changed cannot be said",
                                name, start, end - 1)  # fmt: skip
            return False
        if before.tree.extended(known) != after.tree:
            self._findings.note("the relay's hashes (--tiles) do not give the signed root, so they "
                                "are damaged or of another stream: which message was changed "
                                "cannot be said", name, start, end - 1)  # fmt: skip
            return False
        for number, (leaf, sent) in enumerate(zip(leaves, known, strict=True), start):
            every = [leaf, *(other for other, _ in stream.others.get(number, ()))]
            if leaf is not None and sent not in every:
                self._findings.add("changed", "not as it was sent", name, number, number, *times)
            elif len(every) > 1:
                self._findings.add("added", "another message of this number", name, number, number,
                                   *times)  # fmt: skip
        return True

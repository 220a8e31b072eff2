"""Checks the windows of one stream: between two signed states, which messages are not as sent."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product
from typing import Final

from siemrelay.proof.exported_stream import ExportedStream, SignedTree
from siemrelay.proof.leaf_store import LeafStore
from siemrelay.proof.merkle import Tree
from siemrelay.proof.report import Findings, counted

# Leaves that are taken to a tree at once: a window may have millions.
_AT_ONCE: Final = 16_384

# Choices among messages of one number that are tried in a window: 2 to the power of 6.
_MOST_CHOICES: Final = 64


class WindowChecks:
    """Checks one window after the other, and keeps which are proven."""

    def __init__(self, stream: ExportedStream, findings: Findings, tiles: LeafStore | None) -> None:
        """`tiles` has the relay's own leaves, as far as they are known."""
        self._stream, self._findings, self._tiles = stream, findings, tiles
        self._others = sorted(stream.others)
        self._proven: list[range] = []
        """Rising."""

    def is_proven(self, number: int) -> bool:
        """Whether the message of this number is part of what gives a signed root."""
        place = bisect_right(self._proven, number, key=lambda each: each.start)
        return place > 0 and number in self._proven[place - 1]

    def check_if_whole(self, before: SignedTree, after: SignedTree) -> bool:
        """`check`, unless a message is missing; False then."""
        if next(self._holes(before.tree.size, after.tree.size), None) is not None:
            return False
        self.check(before, after)
        return True

    def check(self, before: SignedTree, after: SignedTree) -> None:
        """Find what is wrong between two signed states."""
        start, end = before.tree.size, after.tree.size
        name, findings, times = self._stream.label, self._findings, (before.at, after.at)
        missing = 0
        for first, last in self._holes(start, end):
            missing += last - first + 1
            hint = "; if it begins later, give --since" if first == start == 0 else ""
            findings.add("missing", f"{counted(last - first + 1, 'message')} not in the export"
                         + hint, name, first, last, *times)  # fmt: skip
        others = self._others
        choices = others[bisect_right(others, start - 1) : bisect_right(others, end - 1)]
        if not missing and self._is_proven(before, after, choices):
            return
        if self._tiles is not None and self._compare(self._tiles, before, after):
            return
        for number in choices:
            findings.add("added", "different messages of one number", name, number, number, *times)
        if not missing:
            what = f"of these {end - start:,} messages one or more are" if end - start > 1 else "is"
            findings.add("changed", f"{what} not as sent", name, start, end - 1, *times)
        elif present := end - start - missing:
            findings.add("unproven", f"{counted(present, 'message')} beside missing ones cannot be "
                         "checked without the relay's hashes (`siemrelay seal export`, then "
                         "--tiles)", name, start, end - 1, *times)  # fmt: skip

    def _holes(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """First and last of each run of numbers without a message."""
        for first, last in self._stream.leaves.runs(start, end):
            if first > start:
                yield start, first - 1
            start = last + 1
        if start < end:
            yield start, end - 1

    def _is_proven(self, before: SignedTree, after: SignedTree, choices: Sequence[int]) -> bool:
        """Whether messages of these numbers give the signed root; others are added ones."""
        stream, start, end = self._stream, before.tree.size, after.tree.size
        every = [
            [(stream.leaves.get(number) or b"", ""), *stream.others[number]] for number in choices
        ]
        for chosen in islice(product(*every), _MOST_CHOICES):
            leaves = {number: leaf for number, (leaf, _) in zip(choices, chosen, strict=True)}
            if _extended(before.tree, stream.leaves, end, leaves) == after.tree:
                self._proven.append(range(start, end))
                for number, all_of in zip(choices, every, strict=True):
                    for leaf, where in all_of:
                        if leaf != leaves[number]:
                            self._findings.add("added", "another message of this number"
                                               + f" at {where}" * bool(where), stream.label,
                                               number, number, before.at, after.at)  # fmt: skip
                return True
        return False

    def _compare(self, tiles: LeafStore, before: SignedTree, after: SignedTree) -> bool:
        """Name each changed message by the relay's leaves; False if these are not at hand.

        The leaves need no trust: they must give the signed root, too.
        """
        start, end, times = before.tree.size, after.tree.size, (before.at, after.at)
        name, stream = self._stream.label, self._stream
        known = sum(last - first + 1 for first, last in tiles.runs(start, end))
        why = ""
        if known < end - start:
            why = f"lack {end - start - known:,} of {end - start:,}"
        elif _extended(before.tree, tiles, end, {}) != after.tree:
            why = "do not give the signed root, so they are damaged or of another stream"
        if why:
            self._findings.note(f"the relay's hashes (--tiles) {why}: which message was changed "
                                "cannot be said", name, start, end - 1)  # fmt: skip
            return False
        for number in range(start, end):
            leaf, sent = stream.leaves.get(number), tiles.get(number)
            every = [leaf, *(other for other, _ in stream.others.get(number, ()))]
            if leaf is not None and sent not in every:
                self._findings.add("changed", "not as it was sent", name, number, number, *times)
            elif len(every) > 1:
                self._findings.add("added", "another message of this number", name, number, number,
                                   *times)  # fmt: skip
        return True


def _extended(tree: Tree, leaves: LeafStore, end: int, instead: Mapping[int, bytes]) -> Tree:
    """The tree with all leaves to before `end`, of which there must be every one."""
    while tree.size < end:
        start, until = tree.size, min(end, tree.size - tree.size % _AT_ONCE + _AT_ONCE)
        found = [leaf for leaf in leaves.between(start, until) if leaf is not None]
        for number, leaf in instead.items():
            if start <= number < until:
                found[number - start] = leaf
        tree = tree.extended(found)
    return tree

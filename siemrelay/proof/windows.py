"""Windows of a stream's numbers, each between two signed states of its tree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, product
from typing import Final

import msgspec

from siemrelay.proof.merkle import Tree

# Choices among messages of one number that are tried in a window: 2 to the power of 6.
_MOST_CHOICES: Final = 64

Message = tuple[bytes, str]
"""A leaf, and where its message stands in the export."""


class SignedTree(msgspec.Struct, frozen=True):
    """A state of a stream's tree that a signature vouches for, and when it was signed."""

    tree: Tree
    at: str


def windows(
    start: SignedTree, marks: Iterable[SignedTree]
) -> Iterator[tuple[SignedTree, SignedTree]]:
    """Each state with the next larger one."""
    for mark in marks:
        if mark.tree.size > start.tree.size:
            yield start, mark
            start = mark


def ranges(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """First and last of each run of consecutive numbers."""
    first = last = None
    for number in numbers:
        if first is None or last is None:
            first = last = number
        elif number == last + 1:
            last = number
        else:
            yield first, last
            first = last = number
    if first is not None and last is not None:
        yield first, last


def chosen_messages(
    others: Mapping[int, Sequence[Message]], before: Tree, after: Tree,
    leaves: Sequence[bytes | None], choices: Sequence[int],
) -> dict[int, tuple[bytes, list[Message]]] | None:  # fmt: skip
    """Which message of each doubly used number is the one that was sent; None if none fits."""
    start = before.size
    every = [
        [(leaf, "") for leaf in [leaves[number - start]] if leaf is not None]
        + [(leaf, f" at {where}") for leaf, where in others[number]]
        for number in choices
    ]
    for chosen in islice(product(*every), _MOST_CHOICES):
        tried = list(leaves)
        for number, (leaf, _) in zip(choices, chosen, strict=True):
            tried[number - start] = leaf
        if before.extended([leaf for leaf in tried if leaf is not None]) == after:
            return {
                number: (leaf, all_of)
                for number, (leaf, _), all_of in zip(choices, chosen, every, strict=True)
            }
    return None

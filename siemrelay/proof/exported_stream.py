"""One stream in an export: leaves by number, seals, and texts that only look like seals."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Container, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from siemrelay.proof.leaf_store import LeafStore
from siemrelay.proof.merkle import Tree
from siemrelay.proof.note import Verifier
from siemrelay.proof.seal import Absent, Anchor, Seal, SealText, read_seal

# Texts that only look like seals, and second messages of a number, that are kept one by one.
_MOST_DOUBTFUL: Final = 10_000
_MOST_OTHERS: Final = 100_000
_MOST_OTHERS_OF_ONE: Final = 64
_MOST_CHARACTERS: Final = 500

# Memory of a stream, of a seal with its tally, of a text that is kept, about.
_STREAM_BYTES: Final = 3_000
_SEAL_BYTES: Final = 6_000
_TEXT_BYTES: Final = 500


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


class Doubtful(NamedTuple):
    """A text like a seal that is none: an event may have any text, so it may be proven yet.

    `has_its_id`: the message is by its id the seal of its number, which no event is by chance.
    """

    number: int
    why: str
    origin: str
    has_its_id: bool


class ExportedStream:
    """Takes the messages of one stream, in any order."""

    def __init__(self, name: str) -> None:
        self.name, self.origin = name, ""
        self.leaves = LeafStore()
        self.others: dict[int, list[Message]] = {}
        """Further, different messages of a number that another message has already."""
        self.more_others = 0
        """How many more there are than `others` holds."""
        self._others = 0
        self.repeats = 0
        self.seals: list[Seal] = []
        self._words = dict[bytes, int]()
        self._notes = set[bytes]()
        self.absent: dict[int, bytes] = {}
        self._filled_in = set[int]()
        self.closing: SignedTree | None = None
        """Its end, as the stream after it says."""
        self.successor = ""
        self.rivals = dict[str, str]()
        """Further streams that say to follow this one, each with the time of a seal of it."""
        self.doubtful: list[Doubtful] = []
        self.more_doubtful = 0
        self.conflicts: list[tuple[int, str]] = []
        """Numbers of messages beside which fields say something else, and what."""
        self.more_conflicts = 0
        self._repeated = set[int]()
        self._beside, self._with_fields = dict[int, str](), 0
        """Of rows with fields beside the message the numbers and places, and how many they are."""

    @property
    def label(self) -> str:
        """The whole origin, as far as it is known."""
        return self.origin or self.name

    @property
    def sink(self) -> str:
        """The sink's name; empty while no seal says it."""
        return self.origin.split("/")[-2] if self.origin.count("/") >= 2 else ""

    def signed_by_others(self, relays: Container[str]) -> str:
        """The names of the keys that signed, if none is its relay's, who is one of `relays`."""
        relay = self.origin.partition("/")[0]
        names = {key.name for seal in self.seals for key in seal.opened.verified}
        return "" if relay in names or relay not in relays else ", ".join(sorted(names))

    def is_called(self, name: str) -> bool:
        """Whether `name` means this stream: STREAM, SINK, RELAY/SINK or RELAY/SINK/STREAM."""
        sink = self.origin.rpartition("/")[0]
        return name in (self.name, self.origin) or (bool(sink) and name in (sink, self.sink))

    @property
    def held_bytes(self) -> int:
        """Memory that it takes, about."""
        seals = _SEAL_BYTES * len(self.seals) + _TEXT_BYTES * len(self.doubtful)
        return _STREAM_BYTES + self.leaves.held_bytes + _TEXT_BYTES * self._others + seals

    def add(self, number: int, leaf: bytes, where: tuple[str, int]) -> None:
        """A message of that number, at that line of an export."""
        known = self.leaves.add(number, leaf)
        if known is None:
            return
        others = self.others.get(number, [])
        if known == leaf or any(leaf == other for other, _ in others):
            self.repeats += 1
            if len(self._repeated) < _MOST_DOUBTFUL:
                self._repeated.add(number)
        elif self._others < _MOST_OTHERS and len(others) < _MOST_OTHERS_OF_ONE:
            self.others.setdefault(number, []).append((leaf, f"{where[0]}:{where[1]}"))
            self._others += 1
        else:
            self.more_others += 1

    def add_beside(self, numbers: Sequence[int], lines: Sequence[int], export: str) -> None:
        """Messages of the stream have fields beside them, at these lines of an export."""
        self._with_fields += len(numbers)
        for number, line in zip(numbers, lines, strict=True):
            if len(self._beside) >= _MOST_DOUBTFUL:
                break
            self._beside.setdefault(number, f"{export}:{line}")

    def add_conflict(self, number: int, conflict: str, where: str) -> None:
        """A field beside a message of the stream says something else."""
        if len(self.conflicts) < _MOST_DOUBTFUL:
            self.conflicts.append((number, f"{where}: {conflict}"))
        else:
            self.more_conflicts += 1

    def copies(self) -> list[tuple[int, str]]:
        """Number and place of messages that are in the export as they are, and once more in a
        document with other fields: as a copy, which vouches for none of them."""
        rows = self.messages + self.repeats + self._others + self.more_others
        if self._with_fields == rows:
            return []
        is_known = len(self._repeated) < _MOST_DOUBTFUL  # which messages were repeated
        repeated = self._repeated if is_known else self._beside.keys()
        return sorted((n, self._beside[n]) for n in self._beside.keys() & repeated)

    def add_seal(
        self, text: SealText, number: int, where: str, verifiers: tuple[Verifier, ...]
    ) -> None:
        """A message of the stream, which holds what looks like a seal."""
        word = text.word
        if self._words.get(word) == number:
            return
        why, origin = "a malformed seal: its text is in pieces", self.name
        try:
            seal = _read_seal(word, verifiers) if word else None
        except ValueError as error:
            seal, why = None, str(error)
        if seal is not None and not seal.opened.verified:
            keys = ", ".join(seal.opened.unknown)
            why, origin = f"a seal by {keys}, not by a key that you gave", seal.origin
        elif seal is not None and (seal.stream != self.name or seal.tally.number != number):
            why = f"a seal of {seal.origin} number {seal.tally.number:,} in another place"
        elif seal is not None:
            self._words[word] = number
            if seal.note not in self._notes:
                self._notes.add(seal.note)
                self.origin = seal.origin
                self.seals.append(seal)
            return
        if len(self.doubtful) < _MOST_DOUBTFUL:
            why = f"{where}: {why}"[:_MOST_CHARACTERS]
            self.doubtful.append(Doubtful(number, why, origin[:200], text.has_its_id))
        else:
            self.more_doubtful += 1

    def sort_seals(self) -> None:
        """Bring the seals in order."""
        self.seals.sort(key=lambda seal: (seal.tree.size, seal.tally.number))
        for seal in self.seals:
            self._absent(seal.tally.absent)

    def _absent(self, absent: Sequence[Absent]) -> None:
        self.absent |= {each.number: bytes.fromhex(each.leaf) for each in absent}

    @property
    def messages(self) -> int:
        """How many different numbers have a message."""
        return self.leaves.count - len(self._filled_in)

    def fill_in(self) -> None:
        """Put the leaves of messages that are absent, as seals say, to those of the others."""
        for number, leaf in self.absent.items():
            if self.leaves.add(number, leaf) is None:
                self._filled_in.add(number)

    def close(self, previous: Anchor, seal: Seal) -> None:
        """The stream after this one says where it ends. Raises ValueError for a malformed end."""
        self.origin = self.origin or previous.origin
        self._absent(seal.tally.absent_before)
        mark = SignedTree(previous.tree, seal.tally.at)
        if self.closing is None:
            self.closing, self.successor = mark, seal.origin
        elif seal.origin != self.successor:
            self.rivals[seal.origin] = seal.tally.at

    def marks(self) -> list[SignedTree]:
        """Its signed states, the smallest first."""
        marks = [SignedTree(seal.tree, seal.tally.at) for seal in self.seals]
        if self.closing is not None:
            marks.append(self.closing)
        return sorted(marks, key=lambda mark: mark.tree.size)

    def unsealed(self, end: int) -> tuple[int, int, int] | None:
        """Count, first and last of the messages from `end` on that are no seals of its own."""
        own = sorted({seal.tally.number for seal in self.seals} | self._filled_in)
        count, first, last = 0, -1, -1
        for begin, until in self.leaves.runs(end):
            seals = own[bisect_left(own, begin) : bisect_right(own, until)]
            if until - begin + 1 == len(seals):
                continue
            count += until - begin + 1 - len(seals)
            if first < 0:
                first = begin + next(i for i, n in enumerate([*seals, -1]) if n != begin + i)
            last = until - next(i for i, n in enumerate([*seals[::-1], -1]) if n != until - i)
        return (count, first, last) if count else None


# One text may stand in many messages, and each signature takes 0.1 ms to check.
_read_seal: Final = lru_cache(256)(read_seal)

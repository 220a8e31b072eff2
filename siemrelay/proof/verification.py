"""Verifies what a SIEM exports against the seals in it: complete, unchanged, fresh.

Between two seals of a stream lies a window of numbers. The peaks of the tree at its start, with the
leaves of its messages, must give the peaks at its end, which add up to a signed root. So each
window is proven by itself, and what is wrong in one does not spoil the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise, takewhile
from typing import Final

from siemrelay.proof.leaf import Leaf
from siemrelay.proof.leaf_store import LeafStore
from siemrelay.proof.merkle import Tree
from siemrelay.proof.note import Verifier
from siemrelay.proof.report import (
    COMPLETE,
    FRESH,
    UNCHANGED,
    Discrepancy,
    Kind,
    Report,
    StreamReport,
)
from siemrelay.proof.seal import Anchor, Seal, find_seal, read_seal
from siemrelay.proof.windows import SignedTree, chosen_messages, counted, ranges, windows

_TWO_HISTORIES: Final = (
    "the stream has two histories (a cloned machine, or a state that was set back)"
)

# Of each kind of finding, so many are kept one by one; the others are counted.
_MOST_FINDINGS: Final = 10_000

# In a window of more numbers than a relay seals at once, holes are looked for first.
_LARGE: Final = 1_000_000

# A seal may be late by the way to the SIEM and by a pause of the receiver.
_LATE_S: Final = 60.0


class _Stream:
    """What the export has of one stream."""

    def __init__(self, name: str) -> None:
        self.name, self.origin = name, ""
        self.leaves = LeafStore()
        self.others: dict[int, list[tuple[bytes, str]]] = {}
        """Further, different messages of a number that another message has already."""
        self.repeats = 0
        self.seals: list[Seal] = []
        self.notes: set[bytes] = set()
        self.absent: dict[int, bytes] = {}
        self.closing: SignedTree | None = None
        """Its end, as the stream after it says."""
        self.successor = ""
        self.proven: list[range] = []
        """Numbers whose messages give a signed root."""
        self.doubtful: list[tuple[int, str, str]] = []
        """Number, reason and origin of what looks like a seal and is none, until it is proven to
        be a text that the relay sent: an event may have any text."""


class Verification:
    """Takes the rows of exports one by one, in any order; then `report`."""

    def __init__(
        self, verifiers: Iterable[Verifier], *, since: float | None = None, until: float,
        max_age_s: float | None = None, sink: str | None = None,
    ) -> None:  # fmt: skip
        """`since` and `until` (seconds) bound the time that is judged, by the relay's clock.

        `max_age_s` is the age of the last seal at `until` that is still fresh; by default twice the
        time between seals and a minute. `sink`: judge this one's streams only.
        """
        self._verifiers = tuple(verifiers)
        self._since, self._until, self._max_age_s, self._sink = since, until, max_age_s, sink
        self._streams: dict[str, _Stream] = {}
        self._findings: list[Discrepancy] = []
        self._more = self.rows = 0
        self._unnumbered, self._first_unnumbered = 0, ""
        self._elsewhere = set[str]()

    # -- reading ----------------------------------------------------------

    def add(self, leaf: Leaf, text: bytes, where: str) -> None:
        """One row: its leaf, the text that may have a seal in it, and its place in the export."""
        self.rows += 1
        if leaf.stream is None or leaf.number is None:
            self._unnumbered += 1
            self._first_unnumbered = self._first_unnumbered or where
            return
        stream = self._streams.get(leaf.stream)
        if stream is None:
            stream = self._streams[leaf.stream] = _Stream(leaf.stream)
        known = stream.leaves.add(leaf.number, leaf.hash)
        if known is not None:
            others = stream.others.get(leaf.number, [])
            if known == leaf.hash or any(leaf.hash == other for other, _ in others):
                stream.repeats += 1
            else:
                stream.others.setdefault(leaf.number, []).append((leaf.hash, where))
        if (word := find_seal(text)) is not None:
            self._add_seal(word, leaf, where)

    def _add_seal(self, word: bytes, leaf: Leaf, where: str) -> None:
        try:
            seal = read_seal(word, self._verifiers)
        except ValueError as error:
            self._doubt(leaf, f"{where}: {error}")
            return
        if not seal.opened.verified:
            keys = ", ".join(seal.opened.unknown)
            self._doubt(leaf, f"{where}: a seal by {keys}, not by a key that you gave", seal.origin)
            return
        stream = self._streams[leaf.stream or ""]
        if seal.stream != leaf.stream or seal.tally.number != leaf.number:
            self._doubt(leaf, f"{where}: a seal of {seal.origin} number {seal.tally.number:,} in "
                        "another place")  # fmt: skip
            return
        if seal.note not in stream.notes:
            stream.notes.add(seal.note)
            stream.origin = seal.origin
            stream.seals.append(seal)

    def _doubt(self, leaf: Leaf, why: str, origin: str = "") -> None:
        stream = self._streams[leaf.stream or ""]
        if len(stream.doubtful) < _MOST_FINDINGS:
            stream.doubtful.append((leaf.number or 0, why, origin or stream.name))
        else:
            self._more += 1

    def _find(
        self, kind: Kind, why: str, stream: str = "", first: int | None = None,
        last: int | None = None, after: str = "", before: str = "",
    ) -> None:  # fmt: skip
        if len(self._findings) >= _MOST_FINDINGS:
            self._more += 1
            return
        last = first if last is None else last
        self._findings.append(Discrepancy(kind, why, stream, first, last, after, before))

    @property
    def has_streams(self) -> bool:
        """Whether any row had a number."""
        return bool(self._streams)

    # -- judging ----------------------------------------------------------

    def report(self, tiles: Mapping[str, LeafStore] | None = None) -> Report:
        """The verdicts. `tiles` has the relay's own leaves, by stream, as far as they are known."""
        self._gather()
        reports = [
            self._judge(stream, (tiles or {}).get(stream.name))
            for stream in sorted(self._streams.values(), key=_first_seal_at)
            if self._is_wanted(stream)
        ]
        if self._unnumbered:
            self._find("added", f"{self._unnumbered:,} rows without a number of a sealed stream, "
                       f"the first at {self._first_unnumbered}: export only what the relay sent",
                       )  # fmt: skip
        self._judge_freshness()
        kinds = {finding.kind for finding in self._findings}
        return Report(
            not kinds & {*COMPLETE}, not kinds & {*UNCHANGED}, not kinds & {*FRESH}, self.rows,
            reports, self._findings, self._more, sorted(self._elsewhere),
        )  # fmt: skip

    def _is_wanted(self, stream: _Stream) -> bool:
        return self._sink is None or not stream.origin or _sink_of(stream.origin) == self._sink

    def _gather(self) -> None:
        """Bring together what seals say about other streams."""
        for stream in [*self._streams.values()]:
            stream.seals.sort(key=lambda seal: (seal.tree.size, seal.tally.number))
            for seal in stream.seals:
                tally = seal.tally
                stream.absent |= {each.number: bytes.fromhex(each.leaf) for each in tally.absent}
                if tally.previous is not None:
                    self._close(tally.previous, seal)

    def _close(self, previous: Anchor, seal: Seal) -> None:
        name = previous.origin.rpartition("/")[2]
        before = self._streams.get(name)
        if before is None:
            before = self._streams[name] = _Stream(name)
        before.origin = before.origin or previous.origin
        before.absent |= {
            each.number: bytes.fromhex(each.leaf) for each in seal.tally.absent_before
        }
        try:
            mark = SignedTree(previous.tree, seal.tally.at)
        except ValueError:
            self._find("forged", "the end of the stream before is malformed", seal.origin,
                       seal.tally.number)  # fmt: skip
            return
        before.successor = seal.origin
        if before.closing is None:
            before.closing = mark

    def _judge(self, stream: _Stream, tiles: LeafStore | None) -> StreamReport:
        name = stream.origin or stream.name
        marks = [SignedTree(seal.tree, seal.tally.at) for seal in stream.seals]
        if stream.closing is not None:
            marks.append(stream.closing)
        self._find_splits(stream, marks)
        marks.sort(key=lambda mark: mark.tree.size)
        start = SignedTree(Tree(), "")
        if self._since is not None:
            early = [mark for mark in marks if _seconds(mark.at) >= self._since]
            start = early[0] if early else start
        marks = [mark for mark in marks if _seconds(mark.at) <= self._until]
        known = len(self._findings)
        for before, after in windows(start, marks):
            self._judge_window(stream, name, before, after, tiles)
        for number, why, origin in stream.doubtful:
            if number in stream.others or not any(number in each for each in stream.proven):
                self._find("forged", why, origin, number)
        contested = [each.tally for each in stream.seals if each.tally.number in stream.others]
        if contested and len(self._findings) > known:
            self._find("split", f"a signed seal and another message have one number: "
                       f"{_TWO_HISTORIES}", name, contested[0].number,
                       before=contested[0].at)  # fmt: skip
        end = max((mark.tree.size for mark in marks), default=0)
        own = {seal.tally.number for seal in stream.seals}
        unsealed = [number for number in stream.leaves.numbers(end) if number not in own]
        self._judge_tail(stream, name, unsealed)
        last = stream.seals[-1].tally if stream.seals else None
        return StreamReport(
            name, stream.leaves.count, stream.repeats, len(stream.absent), end,
            marks[-1].at if marks else "", len(unsealed), len(stream.seals),
            last.counts if last else {},
        )  # fmt: skip

    def _find_splits(self, stream: _Stream, marks: Sequence[SignedTree]) -> None:
        by_size = dict[int, Tree]()
        for mark in marks:
            if by_size.setdefault(mark.tree.size, mark.tree) != mark.tree:
                self._find("split", f"two seals of one size disagree: {_TWO_HISTORIES}",
                           stream.origin, mark.tree.size, before=mark.at)  # fmt: skip
        numbers = dict[int, Seal]()
        for seal in stream.seals:
            if numbers.setdefault(seal.tally.number, seal) is not seal:
                self._find("split", f"two different seals have one number: {_TWO_HISTORIES}",
                           stream.origin, seal.tally.number, before=seal.tally.at)  # fmt: skip

    def _judge_window(
        self,
        stream: _Stream,
        name: str,
        before: SignedTree,
        after: SignedTree,
        tiles: LeafStore | None,
    ) -> None:
        start, end = before.tree.size, after.tree.size
        if end - start > _LARGE and self._is_mostly_missing(stream, name, before, after):
            return
        leaves = [stream.leaves.get(n) or stream.absent.get(n) for n in range(start, end)]
        times = before.at, after.at
        missing = [start + i for i, leaf in enumerate(leaves) if leaf is None]
        for first, last in ranges(missing):
            self._find("missing", counted(first, last, "not in the export"), name, first, last,
                       *times)  # fmt: skip
        choices = [n for n in range(start, end) if n in stream.others] if stream.others else []
        if not missing:
            found = chosen_messages(stream.others, before.tree, after.tree, leaves, choices)
            if found is not None:
                stream.proven.append(range(start, end))
                for number, (chosen, every) in found.items():
                    for leaf, where in every:
                        if leaf != chosen:
                            self._find("added", f"another message of this number{where}", name,
                                       number, number, *times)  # fmt: skip
                return
        if tiles is not None and self._compare(stream, name, (before, after), leaves, tiles):
            return
        for number in choices:
            self._find("added", "different messages of one number", name, number, number, *times)
        if not missing:
            self._find("changed", f"one or more of these {end - start:,} messages are not those "
                       "that were sent", name, start, end - 1, *times)  # fmt: skip
        elif present := end - start - len(missing):
            self._find("unproven", f"{present:,} messages beside missing ones cannot be checked "
                       "without the relay's tiles (`siemrelay seal export`)", name, start, end - 1,
                       *times)  # fmt: skip

    def _is_mostly_missing(
        self, stream: _Stream, name: str, before: SignedTree, after: SignedTree
    ) -> bool:
        """Whether a large window has holes, which are reported: an export of a few days, say."""
        start, end = before.tree.size, after.tree.size
        present = list(takewhile(lambda number: number < end, stream.leaves.numbers(start)))
        known = sorted({*present, *(number for number in stream.absent if start <= number < end)})
        if len(known) == end - start:
            return False
        for last, number in pairwise([start - 1, *known, end]):
            if number > last + 1:
                what = "not in the export; if it begins later, give --since"
                self._find("missing", counted(last + 1, number - 1, what), name, last + 1,
                           number - 1, before.at, after.at)  # fmt: skip
        if present:
            self._find("unproven", f"{len(present):,} messages beside missing ones cannot be "
                       "checked", name, present[0], present[-1], before.at, after.at)  # fmt: skip
        return True

    def _compare(
        self, stream: _Stream, name: str, window: tuple[SignedTree, SignedTree],
        leaves: Sequence[bytes | None], tiles: LeafStore,
    ) -> bool:  # fmt: skip
        """Name each changed message by the relay's leaves; False if these are not at hand.

        The leaves need no trust: they must give the signed root, too.
        """
        before, after = window
        start, times = before.tree.size, (before.at, after.at)
        known = [leaf for i in range(len(leaves)) if (leaf := tiles.get(start + i)) is not None]
        if len(known) < len(leaves) or before.tree.extended(known) != after.tree:
            return False
        for number, (leaf, sent) in enumerate(zip(leaves, known, strict=True), start):
            every = [leaf, *(other for other, _ in stream.others.get(number, ()))]
            if leaf is not None and sent not in every:
                self._find("changed", "not the message that was sent", name, number, number, *times)
            elif len(every) > 1:
                self._find("added", "another message of this number", name, number, number, *times)
        return True

    def _judge_tail(self, stream: _Stream, name: str, unsealed: list[int]) -> None:
        if not unsealed:
            return
        if not stream.seals and stream.closing is None:
            self._find("unproven", f"{len(unsealed):,} messages of a stream without any seal of a "
                       "key that you gave", name, unsealed[0], unsealed[-1])  # fmt: skip
        elif stream.closing is not None:
            self._find("unproven", f"{len(unsealed):,} messages behind the end of a stream that "
                       f"{stream.successor} followed: sent and not confirmed before, or added",
                       name, unsealed[0], unsealed[-1], after=stream.closing.at)  # fmt: skip

    def _judge_freshness(self) -> None:
        latest = dict[str, Seal]()
        for stream in self._streams.values():
            for seal in stream.seals:
                if _seconds(seal.tally.at) > self._until:  # no proof of what came before it
                    continue
                sink = seal.origin.rpartition("/")[0]
                if sink not in latest or latest[sink].tally.at < seal.tally.at:
                    latest[sink] = seal
        wanted = {sink: s for sink, s in latest.items() if self._sink in (None, _sink_of(s.origin))}
        if not wanted:
            what = f"no seal of sink {self._sink}" if self._sink else "no seal"
            self._find("stale", f"{what} by a key that you gave is in the export")
        for seal in wanted.values():
            limit_s = self._max_age_s or 2 * seal.tally.every_s + _LATE_S
            age_s = self._until - _seconds(seal.tally.at)
            if age_s > limit_s:
                self._find("stale", f"the last seal is {age_s:,.0f} s old, more than "
                           f"{limit_s:,.0f} s: what came after it is not in the export (give "
                           "--until the time at which the export ends)", seal.origin,
                           seal.tally.number, after=seal.tally.at)  # fmt: skip
        self._judge_anchors()

    def _judge_anchors(self) -> None:
        """A stream must reach as far as seals of other streams say it was sealed."""
        for stream in self._streams.values():
            for seal in stream.seals:
                for origin, (size, root) in seal.tally.others.items():
                    other = self._streams.get(origin.rpartition("/")[2])
                    if other is None:
                        self._elsewhere.add(origin)
                    if other is None or not self._is_wanted(other):
                        continue
                    sizes = {known.tree.size: known.tree.root.hex() for known in other.seals}
                    if size in sizes and sizes[size] != root:
                        self._find("split", f"{seal.origin} saw another root at this size", origin,
                                   size, before=seal.tally.at)  # fmt: skip
                    elif size > max(sizes, default=0) and other.closing is None:
                        self._find("missing", f"{seal.origin} says that it was sealed to here",
                                   origin, max(sizes, default=0), size - 1,
                                   before=seal.tally.at)  # fmt: skip


def _sink_of(origin: str) -> str:
    return origin.split("/")[-2] if origin.count("/") >= 2 else ""


def _first_seal_at(stream: _Stream) -> str:
    return min((seal.tally.at for seal in stream.seals), default="")


def _seconds(at: str) -> float:
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        return 0.0
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()

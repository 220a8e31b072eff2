"""Verifies what a SIEM exports against the seals in it: complete, unchanged, fresh.

Between two seals of a stream lies a window of numbers. The peaks of the tree at its start, with the
leaves of its messages, must give the peaks at its end, which add up to a signed root. So each
window is proven by itself, and what is wrong in one does not spoil the next.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final, Literal

from siemrelay.core.times import rfc3339
from siemrelay.proof.export_intake import MOST_BYTES, ExportIntake
from siemrelay.proof.exported_stream import ExportedStream, SignedTree, windows
from siemrelay.proof.exports import ExportPart
from siemrelay.proof.leaf_store import LeafStore
from siemrelay.proof.merkle import Tree
from siemrelay.proof.note import Verifier
from siemrelay.proof.period import START, check_early, first_state, seconds
from siemrelay.proof.report import Findings, Report, StreamReport, Tail, counted
from siemrelay.proof.seal import Anchor, Seal
from siemrelay.proof.stream import DOUBTS
from siemrelay.proof.timestamps import TimestampCheck
from siemrelay.proof.window_checks import WindowChecks

_TWO_HISTORIES: Final = (
    "the stream has two histories (a cloned machine, or a state that was set back)"
)

# A seal may be late by the way to the SIEM and by a pause of the receiver.
_LATE_S: Final = 60.0


class Verification:
    """Takes the messages of exports, in any order; then `report`."""

    def __init__(
        self, verifiers: Iterable[Verifier], *, since: float | None = None, until: float,
        max_age_s: float | None = None, sink: str | None = None, expected: Sequence[str] = (),
        timestamps: TimestampCheck | None = None, most_bytes: int = MOST_BYTES,
    ) -> None:  # fmt: skip
        """`since` and `until` (seconds) bound the time that is judged, by the relay's clock.

        `max_age_s` is the age of the last seal at `until` that is still fresh; by default twice the
        time between seals and a minute. `sink`: judge this one's streams only. `expected`: each of
        these must have a stream with messages, see `ExportedStream.is_called`. `most_bytes` of
        memory may be held for messages, some 40 each.
        """
        self._since, self._until, self._max_age_s, self._sink = since, until, max_age_s, sink
        self._until_text = rfc3339(until)
        self._expected, self._timestamps = expected, timestamps or TimestampCheck()
        verifiers = tuple(verifiers)
        self._relays = {verifier.name for verifier in verifiers}
        self._intake = ExportIntake(verifiers, most_bytes)
        self._streams = self._intake.streams
        self._findings = Findings()
        self._elsewhere = set[str]()

    # -- reading ----------------------------------------------------------

    def add(self, part: ExportPart, export: str) -> None:
        """Messages of an export of that name. Raises TooLarge if they take too much memory."""
        self._intake.add(part, export)

    @property
    def rows(self) -> int:
        """How many were added."""
        return self._intake.rows

    @property
    def has_streams(self) -> bool:
        """Whether any row had a number."""
        return bool(self._streams)

    def note(self, text: str) -> None:
        """Something that the report shall say, and no verdict depends on."""
        self._findings.note(text)

    # -- judging ----------------------------------------------------------

    def report(self, tiles: Mapping[str, LeafStore] | None = None) -> Report:
        """The verdicts. `tiles` has the relay's own leaves, by stream, as far as they are known."""
        for stream in self._streams.values():
            stream.sort_seals()
        for stream in [*self._streams.values()]:
            for seal in stream.seals:
                if seal.tally.previous is not None:
                    self._close(seal.tally.previous, seal)
        latest = self._latest_seals()
        reports = [
            self._judge(stream, latest, (tiles or {}).get(stream.name))
            for stream in sorted(self._streams.values(), key=_first_seal_at)
            if self._is_wanted(stream)
        ]
        self._intake.find(self._findings)
        self._judge_freshness(latest)
        self._judge_ends(latest)
        self._judge_given_up()
        self._judge_anchors()
        self._judge_expected()
        return self._findings.report(self.rows, reports, self._elsewhere)

    def _is_wanted(self, stream: ExportedStream) -> bool:
        return self._sink is None or not stream.origin or stream.sink == self._sink

    def _close(self, previous: Anchor, seal: Seal) -> None:
        name = previous.origin.rpartition("/")[2]
        before = self._streams.get(name)
        if before is None:
            before = self._streams[name] = ExportedStream(name)
        try:
            before.close(previous, seal)
        except ValueError:
            self._findings.add("forged", "the end of the stream before is malformed", seal.origin,
                               seal.tally.number)  # fmt: skip

    def _latest_seals(self) -> dict[str, Seal]:
        """The last seal of each sink (RELAY/SINK) that is no later than the end."""
        latest = dict[str, Seal]()
        for stream in self._streams.values():
            for seal in stream.seals:
                if seconds(seal.tally.at) > self._until:  # no proof of what came before it
                    continue
                sink = seal.origin.rpartition("/")[0]
                if sink not in latest or latest[sink].tally.at < seal.tally.at:
                    latest[sink] = seal
        return latest

    def _limit_s(self, seal: Seal) -> float:
        """How old this seal may be if it is the last one."""
        return 2 * seal.tally.every_s + _LATE_S if self._max_age_s is None else self._max_age_s

    def _late_s(self) -> float:
        """How long after any moment a seal of each stream comes while the relay runs."""
        every_s = (seal.tally.every_s for each in self._streams.values() for seal in each.seals)
        return 2 * max(every_s, default=0.0) + _LATE_S

    def _began_within(self, stream: ExportedStream, since: float) -> bool:
        """Whether the stream before this one was sealed after that time."""
        previous = next((seal.tally.previous for seal in stream.seals), None)
        before = self._streams.get(previous.origin.rpartition("/")[2]) if previous else None
        return before is not None and any(seconds(s.tally.at) >= since for s in before.seals)

    def _age_s(self, seal: Seal) -> float:
        return self._until - seconds(seal.tally.at)

    def _judge(
        self, stream: ExportedStream, latest: Mapping[str, Seal], tiles: LeafStore | None
    ) -> StreamReport:
        every = stream.marks()
        self._find_splits(stream, every)
        known, checks = self._findings.count, WindowChecks(stream, self._findings, tiles)
        stream.fill_in()
        start = START
        if self._since is not None:
            start = first_state(stream, every, self._since, self._late_s(), self._findings,
                                began_within=self._began_within(stream, self._since))  # fmt: skip
            check_early(stream, every, start, checks, self._findings)
        marks = [mark for mark in every if seconds(mark.at) <= self._until]
        for before, after in windows(start, marks):
            checks.check(before, after)
        end = max((mark.tree.size for mark in marks), default=0)
        last_one = max(marks, key=lambda mark: mark.tree.size, default=START)
        for before, after in windows(last_one, every):
            # The first of these windows has messages from before the end: it is judged like others.
            if before is last_one:
                checks.check(before, after)
            elif not checks.check_if_whole(before, after):
                break
            end = after.tree.size
        tail = self._tail(stream, end, latest)
        self._judge_doubtful(stream, checks, tail)
        contested = [each.tally for each in stream.seals if each.tally.number in stream.others]
        if contested and self._findings.count > known:
            self._findings.add("split", "a signed seal and another message have one number: "
                               f"{_TWO_HISTORIES}", stream.label, contested[0].number,
                               before=contested[0].at)  # fmt: skip
        for number, where in stream.copies():
            self._findings.add("added", f"a copy of the message with other fields beside it "
                               f"({where})", stream.label, number, number,
                               *_times_around(number, every))  # fmt: skip
        for number, why in stream.conflicts:
            self._findings.add("changed", why, stream.label, number, number,
                               *_times_around(number, every))  # fmt: skip
        if stream.more_conflicts:
            self._findings.add("changed", f"{counted(stream.more_conflicts, 'message')} more with "
                               "other fields beside them", stream.label)  # fmt: skip
        for number in sorted(number for number in stream.others if number >= end):
            self._findings.add("added", "different messages of one number", stream.label, number,
                               number, *_times_around(number, every))  # fmt: skip
        if stream.more_others:
            self._findings.add("added", f"{counted(stream.more_others, 'message')} more of numbers "
                               "that other messages have", stream.label)  # fmt: skip
        if stream.seals and (doubt := DOUBTS.get(stream.seals[0].tally.cause)) is not None:
            self._findings.note(f"the stream began because {doubt}", stream.label)
        if others := stream.signed_by_others(self._relays):
            self._findings.note(f"its seals are signed by the key of {others}, and you gave one of "
                                "its own relay, too: whoever has the other key may have made "
                                "this stream", stream.label)  # fmt: skip
        stamps, stamped, wrong = self._timestamps.judge(stream.name, stream.seals)
        for number, why in wrong:
            self._findings.add("timestamp", why, stream.label, number)
        last = stream.seals[-1].tally if stream.seals else None
        return StreamReport(
            stream.label, stream.messages, stream.repeats, len(stream.absent), end,
            marks[-1].at if marks else "", tail.messages if tail else 0, tail, len(stream.seals),
            last.counts if last else {}, stamps, stamped,
        )  # fmt: skip

    def _judge_doubtful(
        self, stream: ExportedStream, checks: WindowChecks, tail: Tail | None
    ) -> None:
        """A text like a seal may be that of an event: proven messages are what the relay sent."""
        for number, why, origin, has_its_id in stream.doubtful:
            is_behind = tail is not None and tail.state != "overdue" and number >= tail.first
            if is_behind and not has_its_id:
                self._findings.note(f"looks like a seal and is none yet: {why}. It stands behind "
                                    "the last seal: the next one proves it to be the text of an "
                                    "event, or not", stream.label, number, number)  # fmt: skip
            elif number in stream.others or not checks.is_proven(number):
                self._findings.add("forged", why, origin, number)
        if stream.more_doubtful:
            self._findings.add("forged", f"{counted(stream.more_doubtful, 'message')} more with "
                               "a text like a seal", stream.label)  # fmt: skip

    def _find_splits(self, stream: ExportedStream, marks: Sequence[SignedTree]) -> None:
        by_size = dict[int, Tree]()
        for mark in marks:
            if by_size.setdefault(mark.tree.size, mark.tree) != mark.tree:
                self._findings.add("split", f"two seals of one size disagree: {_TWO_HISTORIES}",
                                   stream.origin, mark.tree.size, before=mark.at)  # fmt: skip
        for origin, at in stream.rivals.items():
            end = stream.closing.tree.size if stream.closing else 0
            self._findings.add("split", f"two streams follow this one, {stream.successor} and "
                               f"{origin}: {_TWO_HISTORIES}", stream.label, end, end,
                               before=at)  # fmt: skip
        last = stream.seals[-1] if stream.seals else None
        if stream.closing and last and last.tree.size > stream.closing.tree.size:
            end = stream.closing.tree.size
            self._findings.add("split", f"sealed on after its end, which {stream.successor} names: "
                               f"{_TWO_HISTORIES}", stream.label, end, end,
                               before=last.tally.at)  # fmt: skip
        numbers = dict[int, Seal]()
        for seal in stream.seals:
            if numbers.setdefault(seal.tally.number, seal) is not seal:
                self._findings.add("split", f"two different seals have one number: "
                                   f"{_TWO_HISTORIES}", stream.origin, seal.tally.number,
                                   before=seal.tally.at)  # fmt: skip

    def _tail(self, stream: ExportedStream, end: int, latest: Mapping[str, Seal]) -> Tail | None:
        """The messages that no seal proves; what is wrong with them is found."""
        found = stream.unsealed(end)
        if found is None:
            return None
        count, first, last = found
        messages = counted(count, "message")
        if stream.closing is not None:
            at = stream.closing.at
            why = (f"{messages} behind the end of a stream that {stream.successor} followed: sent "
                   "and not confirmed before, or added")  # fmt: skip
            self._findings.add("unproven", why, stream.label, first, last, after=at)
            return Tail("overdue", count, first, last, at, self._until_text, why)
        seals = [seal for seal in stream.seals if seconds(seal.tally.at) <= self._until]
        if not stream.seals:
            why = (f"{messages} of a stream without any seal of a key that you gave: added, or "
                   "sent before its first seal (then export again in a minute)")  # fmt: skip
            self._findings.add("unproven", why, stream.label, first, last)
            return Tail("overdue", count, first, last, "", self._until_text, why)
        seal = max(seals or stream.seals[:1], key=lambda each: each.tree.size)
        at = seal.tally.at if seals else ""
        state = self._tail_state(stream, seal) if seals else "later"
        age = f"{self._age_s(seal):,.0f} s"
        why = {
            "later": "the seals behind them are later than --until: give a later one to have them "
            "judged",
            "pending": f"the next seal is due {seal.tally.every_s:,.0f} s after that: export again "
            "after it to have them proven",
            "overdue": f"no seal has come for {age}: export again what is newer, and see whether "
            "the relay still sends to this sink",
        }[state]
        newest = latest.get(seal.origin.rpartition("/")[0], seal)
        if state == "overdue" and newest.origin != seal.origin:
            self._findings.add("unproven", f"{messages} behind the last seal of a stream that the "
                               f"sink has left: {why}", stream.label, first, last,
                               after=at)  # fmt: skip
        return Tail(state, count, first, last, at, self._until_text, why)

    def _tail_state(
        self, stream: ExportedStream, seal: Seal
    ) -> Literal["pending", "overdue", "later"]:
        if stream.seals[-1].tree.size > seal.tree.size:
            return "later"
        return "pending" if self._age_s(seal) <= self._limit_s(seal) else "overdue"

    def _judge_freshness(self, latest: Mapping[str, Seal]) -> None:
        wanted = [seal for seal in latest.values() if self._sink in (None, _sink_of(seal))]
        if not wanted:
            what = f"no seal of sink {self._sink}" if self._sink else "no seal"
            self._findings.add("stale", f"{what} by a key that you gave is in the export")
        for seal in wanted:
            limit_s, age_s = self._limit_s(seal), self._age_s(seal)
            if age_s > limit_s:
                self._findings.add("stale", f"the last seal is {age_s:,.0f} s old, more than "
                                   f"{limit_s:,.0f} s: what came after it is not in the export "
                                   "(give --until the time at which the export ends)", seal.origin,
                                   seal.tally.number, after=seal.tally.at,
                                   before=self._until_text)  # fmt: skip

    def _judge_ends(self, latest: Mapping[str, Seal]) -> None:
        """The last stream of a sink must be fresh; each other one has its end from the next."""
        for stream in self._streams.values():
            seals = [seal for seal in stream.seals if seconds(seal.tally.at) <= self._until]
            if not seals or stream.closing is not None or not self._is_wanted(stream):
                continue
            last = max(seals, key=lambda seal: seal.tree.size)
            newest = latest[last.origin.rpartition("/")[0]]
            is_late = self._age_s(last) > self._limit_s(last)
            is_judged = self._since is None or seconds(last.tally.at) >= self._since
            has_tail = stream.unsealed(last.tree.size) is not None  # which is found as one
            if newest.origin != last.origin and is_late and is_judged and not has_tail:
                what = (f"the sink goes on with {newest.origin}, which does not name the end of "
                        "this stream: what came after its last seal may be missing (the relay's "
                        "state was lost, or its seals deleted)")  # fmt: skip
                self._findings.add("unproven", what, stream.label, last.tally.number + 1,
                                   after=last.tally.at)  # fmt: skip

    def _judge_given_up(self) -> None:
        """Dropped records have no number: the counts in the seals say how many there were."""
        sinks = dict[str, list[Seal]]()
        for stream in self._streams.values():
            for seal in stream.seals if self._is_wanted(stream) else ():
                if seconds(seal.tally.at) <= self._until:
                    sinks.setdefault(seal.origin.rpartition("/")[0], []).append(seal)
        for seals in sinks.values():
            seals.sort(key=lambda seal: seconds(seal.tally.at))
            for before, after in pairwise(seals):
                if self._since is not None and seconds(after.tally.at) < self._since:
                    continue
                more = _given_up(after) - _given_up(before)
                if more > 0:
                    self._findings.add("missing", f"{counted(more, 'record')} that the relay gave "
                                       "up before it could send them: its buffer was full or "
                                       "damaged, or a person discarded them; its own log says "
                                       "which", after.origin, after=before.tally.at,
                                       before=after.tally.at)  # fmt: skip

    def _judge_anchors(self) -> None:
        """A stream must reach as far as seals of other streams say it was sealed."""
        roots = {
            name: {seal.tree.size: seal.tree.root.hex() for seal in stream.seals}
            for name, stream in self._streams.items()
        }
        for stream in self._streams.values():
            for seal in stream.seals:
                for origin, (size, root) in seal.tally.others.items():
                    name = origin.rpartition("/")[2]
                    other = self._streams.get(name)
                    if other is None:
                        self._elsewhere.add(origin)
                    if other is None or not self._is_wanted(other):
                        continue
                    sizes = roots[name]
                    reached = other.seals[-1].tree.size if other.seals else 0
                    if size in sizes and sizes[size] != root:
                        self._findings.add("split", f"{seal.origin} saw another root at this size",
                                           origin, size, before=seal.tally.at)  # fmt: skip
                    elif size > reached and other.closing is None:
                        self._findings.add("missing", f"{seal.origin} says that it was sealed to "
                                           "here", origin, reached, size - 1,
                                           before=seal.tally.at)  # fmt: skip

    def _judge_expected(self) -> None:
        for name in self._expected:
            if not any(stream.is_called(name) and stream.messages
                       for stream in self._streams.values()):  # fmt: skip
                self._findings.add("missing", f"no sealed message of {name} is in the export, and "
                                   "you expect some (--expect)")  # fmt: skip


def _times_around(number: int, marks: Sequence[SignedTree]) -> tuple[str, str]:
    """When the states before and behind a number were signed, the smallest first."""
    place = bisect_right(marks, number, key=lambda mark: mark.tree.size)
    return marks[place - 1].at if place else "", marks[place].at if place < len(marks) else ""


def _given_up(seal: Seal) -> int:
    return seal.tally.counts.get("dropped", 0) + seal.tally.counts.get("lost", 0)


def _sink_of(seal: Seal) -> str:
    return seal.origin.split("/")[-2] if seal.origin.count("/") >= 2 else ""


def _first_seal_at(stream: ExportedStream) -> str:
    return min((seal.tally.at for seal in stream.seals), default="~")

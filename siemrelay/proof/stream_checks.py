"""Judges one stream: its windows, what is behind its last seal, and where it contradicts itself."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, Literal

from siemrelay.proof.exported_stream import ExportedStream, SignedTree, windows
from siemrelay.proof.leaf_store import LeafStore
from siemrelay.proof.merkle import Tree
from siemrelay.proof.period import LATE_S, START, JudgedPeriod, check_early, first_state, seconds
from siemrelay.proof.report import Findings, StreamReport, Tail, counted
from siemrelay.proof.seal import Seal
from siemrelay.proof.stream import DOUBTS
from siemrelay.proof.timestamps import TimestampCheck
from siemrelay.proof.window_checks import WindowChecks

_TWO_HISTORIES: Final = (
    "the stream has two histories (a cloned machine, or a state that was set back)"
)


class StreamChecks:
    """Judges the streams of an export one by one; what is wrong becomes a finding."""

    def __init__(
        self, streams: Mapping[str, ExportedStream], latest: Mapping[str, Seal],
        period: JudgedPeriod, relays: AbstractSet[str], timestamps: TimestampCheck,
        findings: Findings,
    ) -> None:  # fmt: skip
        """`latest`: the last seal of each sink; `relays`: those whose keys were given."""
        self._streams, self._latest, self._period = streams, latest, period
        self._relays, self._timestamps, self._findings = relays, timestamps, findings

    def judge(self, stream: ExportedStream, tiles: LeafStore | None) -> StreamReport:
        """The verdict. `tiles` has the relay's own leaves of it, if they are known."""
        every = stream.marks()
        self._find_splits(stream, every)
        known, checks = self._findings.count, WindowChecks(stream, self._findings, tiles)
        stream.fill_in()
        start = START
        if (since := self._period.since) is not None:
            start = first_state(stream, every, since, self._late_s(), self._findings,
                                began_within=self._began_within(stream, since))  # fmt: skip
            check_early(stream, every, start, checks, self._findings)
        marks = [mark for mark in every if seconds(mark.at) <= self._period.until]
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
        tail = self._tail(stream, end)
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

    def _tail(self, stream: ExportedStream, end: int) -> Tail | None:
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
            return Tail("overdue", count, first, last, at, self._period.until_text, why)
        seals = [seal for seal in stream.seals if seconds(seal.tally.at) <= self._period.until]
        if not stream.seals:
            why = (f"{messages} of a stream without any seal of a key that you gave: added, or "
                   "sent before its first seal (then export again in a minute)")  # fmt: skip
            self._findings.add("unproven", why, stream.label, first, last)
            return Tail("overdue", count, first, last, "", self._period.until_text, why)
        seal = max(seals or stream.seals[:1], key=lambda each: each.tree.size)
        at = seal.tally.at if seals else ""
        state = self._tail_state(stream, seal) if seals else "later"
        age = f"{self._period.age_s(seal):,.0f} s"
        why = {
            "later": "the seals behind them are later than --until: give a later one to have them "
            "judged",
            "pending": f"the next seal is due {seal.tally.every_s:,.0f} s after that: export again "
            "after it to have them proven",
            "overdue": f"no seal has come for {age}: export again what is newer, and see whether "
            "the relay still sends to this sink",
        }[state]
        newest = self._latest.get(seal.origin.rpartition("/")[0], seal)
        if state == "overdue" and newest.origin != seal.origin:
            self._findings.add("unproven", f"{messages} behind the last seal of a stream that the "
                               f"sink has left: {why}", stream.label, first, last,
                               after=at)  # fmt: skip
        return Tail(state, count, first, last, at, self._period.until_text, why)

    def _tail_state(
        self, stream: ExportedStream, seal: Seal
    ) -> Literal["pending", "overdue", "later"]:
        if stream.seals[-1].tree.size > seal.tree.size:
            return "later"
        return "pending" if self._period.age_s(seal) <= self._period.limit_s(seal) else "overdue"

    def _late_s(self) -> float:
        """How long after any moment a seal of each stream comes while the relay runs."""
        every_s = (seal.tally.every_s for each in self._streams.values() for seal in each.seals)
        return 2 * max(every_s, default=0.0) + LATE_S

    def _began_within(self, stream: ExportedStream, since: float) -> bool:
        """Whether the stream before this one was sealed after that time."""
        previous = next((seal.tally.previous for seal in stream.seals), None)
        before = self._streams.get(previous.origin.rpartition("/")[2]) if previous else None
        return before is not None and any(seconds(s.tally.at) >= since for s in before.seals)


def _times_around(number: int, marks: Sequence[SignedTree]) -> tuple[str, str]:
    """When the states before and behind a number were signed, the smallest first."""
    place = bisect_right(marks, number, key=lambda mark: mark.tree.size)
    return marks[place - 1].at if place else "", marks[place].at if place < len(marks) else ""

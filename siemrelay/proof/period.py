"""The time that is judged: where it begins (`--since`), what is from before it, and its end.

Somebody who deletes what he did deletes its seals, too. So the first seal after `since` says
nothing of a longer time before it; and a number from before it may be an added event's.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from siemrelay.core.times import rfc3339
from siemrelay.proof.exported_stream import ExportedStream, SignedTree, windows
from siemrelay.proof.merkle import Tree
from siemrelay.proof.report import Findings, counted
from siemrelay.proof.seal import Seal
from siemrelay.proof.window_checks import WindowChecks

START: Final = SignedTree(Tree(), "")

LATE_S: Final = 60.0
"""A seal may be late by the way to the SIEM and by a pause of the receiver."""


def seconds(at: str) -> float:
    """The seconds of a time as seals write it; 0 for what is none."""
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        return 0.0
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()


class JudgedPeriod(NamedTuple):
    """The time that is judged, in seconds by the relay's clock; see `Verification`."""

    since: float | None
    until: float
    max_age_s: float | None

    @property
    def until_text(self) -> str:
        """The end, as it is shown."""
        return rfc3339(self.until)

    def age_s(self, seal: Seal) -> float:
        """How old the seal is at the end."""
        return self.until - seconds(seal.tally.at)

    def limit_s(self, seal: Seal) -> float:
        """How old this seal may be if it is the last one."""
        return 2 * seal.tally.every_s + LATE_S if self.max_age_s is None else self.max_age_s


def first_state(
    stream: ExportedStream, marks: Sequence[SignedTree], since: float, late_s: float,
    findings: Findings, *, began_within: bool,
) -> SignedTree:  # fmt: skip
    """The signed state of the stream with which judging begins.

    `late_s` is how long after `since` a seal may come; `began_within`: the stream is known to have
    begun after `since`, so it is judged from its first message on.
    """
    later = [mark for mark in marks if seconds(mark.at) >= since]
    if began_within or not marks:
        return START
    if not later:
        return marks[-1]
    if seconds(later[0].at) <= since + late_s:
        return later[0]
    if stream.leaves.get(0) is not None:
        return START
    findings.add("unproven", "the first seal after --since is late: the relay was stopped, or the "
                 "seals and messages before it are deleted; export from before --since to find out "
                 "which", stream.label, later[0].tree.size - 1, before=later[0].at)  # fmt: skip
    return later[0]


def check_early(
    stream: ExportedStream, marks: Sequence[SignedTree], first: SignedTree,
    checks: WindowChecks, findings: Findings,
) -> None:  # fmt: skip
    """Judge the messages from before the `first` state, as far as the export allows it."""
    states = [mark for mark in marks if mark.tree.size <= first.tree.size]
    has_begun = False
    for before, after in windows(START, states):
        start, end = before.tree.size, after.tree.size
        runs = list(stream.leaves.runs(start, end))
        if runs == [(start, end - 1)]:
            has_begun = True
            checks.check(before, after)
            continue
        if runs and runs[-1][1] == end - 1 and not has_begun:  # here the export begins
            begin, last = runs.pop()
            findings.note(f"{counted(last - begin + 1, 'message')} at the beginning of the export "
                          "cannot be proven without those before them: they must be from before "
                          "--since, else export some minutes more", stream.label, begin,
                          last)  # fmt: skip
        has_begun = has_begun or bool(runs) or stream.leaves.get(end - 1) is not None
        stray = sum(last - begin + 1 for begin, last in runs)
        if stray:
            findings.add("unproven", f"{counted(stray, 'message')} with numbers from before the "
                         "first seal after --since: sent again later, or added; export from "
                         "before them to find out which", stream.label, runs[0][0], runs[-1][1],
                         before.at, after.at)  # fmt: skip

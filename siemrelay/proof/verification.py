"""Verifies what a SIEM exports against the seals in it: complete, unchanged, fresh.

Between two seals of a stream lies a window of numbers. The peaks of the tree at its start, with the
leaves of its messages, must give the peaks at its end, which add up to a signed root. So each
window is proven by itself, and what is wrong in one does not spoil the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from siemrelay.proof.export_intake import MOST_BYTES, ExportIntake
from siemrelay.proof.exported_stream import ExportedStream
from siemrelay.proof.exports.parts import ExportPart
from siemrelay.proof.leaf_store import LeafStore
from siemrelay.proof.note import Verifier
from siemrelay.proof.period import JudgedPeriod, seconds
from siemrelay.proof.report import Findings, Report, counted
from siemrelay.proof.seal import Anchor, Seal
from siemrelay.proof.stream_checks import StreamChecks
from siemrelay.proof.timestamps import TimestampCheck


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
        self._period, self._sink = JudgedPeriod(since, until, max_age_s), sink
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
        checks = StreamChecks(self._streams, latest, self._period, self._relays,
                              self._timestamps, self._findings)  # fmt: skip
        reports = [
            checks.judge(stream, (tiles or {}).get(stream.name))
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
                if seconds(seal.tally.at) > self._period.until:  # no proof of what came before it
                    continue
                sink = seal.origin.rpartition("/")[0]
                if sink not in latest or latest[sink].tally.at < seal.tally.at:
                    latest[sink] = seal
        return latest

    def _judge_freshness(self, latest: Mapping[str, Seal]) -> None:
        wanted = [seal for seal in latest.values() if self._sink in (None, _sink_of(seal))]
        if not wanted:
            what = f"no seal of sink {self._sink}" if self._sink else "no seal"
            self._findings.add("stale", f"{what} by a key that you gave is in the export")
        for seal in wanted:
            limit_s, age_s = self._period.limit_s(seal), self._period.age_s(seal)
            if age_s > limit_s:
                self._findings.add("stale", f"the last seal is {age_s:,.0f} s old, more than "
                                   f"{limit_s:,.0f} s: what came after it is not in the export "
                                   "(give --until the time at which the export ends)", seal.origin,
                                   seal.tally.number, after=seal.tally.at,
                                   before=self._period.until_text)  # fmt: skip

    def _judge_ends(self, latest: Mapping[str, Seal]) -> None:
        """The last stream of a sink must be fresh; each other one has its end from the next."""
        for stream in self._streams.values():
            seals = [seal for seal in stream.seals if seconds(seal.tally.at) <= self._period.until]
            if not seals or stream.closing is not None or not self._is_wanted(stream):
                continue
            last = max(seals, key=lambda seal: seal.tree.size)
            newest = latest[last.origin.rpartition("/")[0]]
            is_late = self._period.age_s(last) > self._period.limit_s(last)
            is_judged = self._period.since is None or seconds(last.tally.at) >= self._period.since
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
                if seconds(seal.tally.at) <= self._period.until:
                    sinks.setdefault(seal.origin.rpartition("/")[0], []).append(seal)
        for seals in sinks.values():
            seals.sort(key=lambda seal: seconds(seal.tally.at))
            for before, after in pairwise(seals):
                if self._period.since is not None and seconds(after.tally.at) < self._period.since:
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


def _given_up(seal: Seal) -> int:
    return seal.tally.counts.get("dropped", 0) + seal.tally.counts.get("lost", 0)


def _sink_of(seal: Seal) -> str:
    return seal.origin.split("/")[-2] if seal.origin.count("/") >= 2 else ""


def _first_seal_at(stream: ExportedStream) -> str:
    return min((seal.tally.at for seal in stream.seals), default="~")

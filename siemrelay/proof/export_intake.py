"""Takes in the messages of exports, in any order and with repeats, stream by stream."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from siemrelay.proof.exported_stream import ExportedStream
from siemrelay.proof.exports.lines import TooLarge
from siemrelay.proof.exports.parts import ExportPart
from siemrelay.proof.exports.shown_fields import UnprovenFields
from siemrelay.proof.note import Verifier
from siemrelay.proof.report import Findings, counted
from siemrelay.proof.stream import STREAM_CHARACTERS

MOST_BYTES: Final = 2 << 30
"""Of memory, for what is known of the messages: 50 million of them."""

# A relay begins a stream for each sink, and at each change of its configuration.
_MOST_STREAMS: Final = 10_000

# To add up what thousands of streams hold takes a millisecond.
_ROWS_BETWEEN_LOOKS: Final = 2_000


class ExportIntake:
    """Collects streams, and counts what belongs to none."""

    def __init__(self, verifiers: Iterable[Verifier], most_bytes: int) -> None:
        """`verifiers` are the keys of seals; `most_bytes` of memory may be held."""
        self._verifiers, self._most_bytes = tuple(verifiers), most_bytes
        self.streams: dict[str, ExportedStream] = {}
        self.rows = 0
        self._unnumbered, self._first_unnumbered, self._of_more_streams = 0, "", 0
        self._shown, self._look_at = UnprovenFields(), 0

    def add(self, part: ExportPart, export: str) -> None:
        """Messages of an export of that name. Raises TooLarge if they take too much memory."""
        hashes, numbers, lines = part.leaves.hashes, part.leaves.numbers, part.lines
        self.rows += len(hashes)
        run = self._add_run(part)
        if run is None:
            for place, (leaf, number) in enumerate(zip(hashes, numbers, strict=True)):
                stream = None if number is None else self._stream(number[:STREAM_CHARACTERS])
                if stream is not None and number is not None:
                    n = int(number[STREAM_CHARACTERS + 1 :])
                    stream.add(n, leaf, (export, lines[place]))
                elif number is not None:
                    self._of_more_streams += 1
                else:
                    self._unnumbered += 1
                    self._first_unnumbered = self._first_unnumbered or f"{export}:{lines[place]}"
        for place, found in part.seals.items():
            if (known := self._known(numbers[place])) is not None:
                stream, n = known
                stream.add_seal(found, n, f"{export}:{lines[place]}", self._verifiers)
        self._add_shown(part, export, run)
        if self.rows >= self._look_at:
            self._look_at = self.rows + _ROWS_BETWEEN_LOOKS
            self._check_memory()

    def _add_shown(
        self, part: ExportPart, export: str, run: tuple[ExportedStream, range] | None
    ) -> None:
        """The fields beside messages: mostly the same are beside all messages of a run."""
        every = [*part.shown.values()]
        if run is not None and len(every) == len(part.lines) and len(set(map(id, every))) == 1:
            stream, run_numbers = run
            if not every[0].conflict:
                self._shown.add(every[0], len(every))
                stream.add_beside(run_numbers, part.lines, export)
                return
        for place, shown in sorted(part.shown.items()):
            if (known := self._known(part.leaves.numbers[place])) is not None:
                stream, n = known
                self._shown.add(shown)
                stream.add_beside((n,), (part.lines[place],), export)
                if shown.conflict:
                    stream.add_conflict(n, shown.conflict, f"{export}:{part.lines[place]}")

    def _known(self, number: str | None) -> tuple[ExportedStream, int] | None:
        """Stream and number of a message that was added."""
        stream = None if number is None else self.streams.get(number[:STREAM_CHARACTERS])
        if stream is None or number is None:
            return None
        return stream, int(number[STREAM_CHARACTERS + 1 :])

    def _check_memory(self) -> None:
        held = sum(stream.held_bytes for stream in self.streams.values())
        if held > self._most_bytes:
            raise TooLarge(f"the messages take more than {self._most_bytes >> 20:,} MiB of memory: "
                           "verify an export of a shorter time, with --since and --until, or give "
                           "a larger --memory")  # fmt: skip

    def _stream(self, name: str) -> ExportedStream | None:
        """The stream of that name; None for one more than there can be."""
        stream = self.streams.get(name)
        if stream is None:
            if len(self.streams) >= _MOST_STREAMS:
                return None
            stream = self.streams[name] = ExportedStream(name)
        return stream

    def _add_run(self, part: ExportPart) -> tuple[ExportedStream, range] | None:
        """Add all at once if they have consecutive numbers, rising or falling, all of them new.

        Returns their stream and numbers; None if it added none.
        """
        hashes, numbers = part.leaves.hashes, part.leaves.numbers
        if not numbers or numbers[0] is None or numbers[-1] is None:
            return None
        first, last = (int(number[STREAM_CHARACTERS + 1 :]) for number in (numbers[0], numbers[-1]))
        if abs(last - first) != len(numbers) - 1:
            return None
        step, name = 1 if last >= first else -1, numbers[0][: STREAM_CHARACTERS + 1]
        run = range(first, last + step, step)
        if numbers != [f"{name}{n}" for n in run]:
            return None
        stream = self._stream(name[:-1])
        if stream is None or not stream.leaves.add_run(min(first, last), b"".join(hashes[::step])):
            return None
        return stream, run

    def find(self, findings: Findings) -> None:
        """Say what is wrong with what belongs to no stream, and what is not proven."""
        if self._unnumbered:
            findings.add("added", f"{counted(self._unnumbered, 'row')} without a number of a "
                         f"sealed stream, the first at {self._first_unnumbered}: export only what "
                         "the relay sent")  # fmt: skip
        if self._of_more_streams:
            findings.add("added", f"{counted(self._of_more_streams, 'row')} of further streams "
                         f"than the first {_MOST_STREAMS:,}")  # fmt: skip
        if self._shown.rows:
            findings.note(self._shown.said)

"""Linux audit logs: the lines of one event, which have one serial, → one record.

The kernel writes an event as several lines (SYSCALL, CWD, PATH, PROCTITLE), and those of events
that happen at the same time are mixed. An event is complete when its last line is there (PROCTITLE
or EOE; a message of a program is one line), when a line is two seconds younger, as auparse has it,
or when nothing is written for so long. It is taken at once, whatever is still open before it: the
position stays at the oldest open event, with note of what was taken behind it.

The lines are joined by spaces. That cannot be mistaken: what is joined are the kernel's own lines,
in which every text that somebody else chose has its spaces encoded.
"""

from __future__ import annotations

import re
from io import BytesIO
from typing import Final

from siemrelay.wire.framing.contract import Ahead, Chunk, Rest, chunk_of

WAIT_S: Final = 2.0
"""So much younger is a line behind which an event is complete (libaudit's END_OF_EVENT_TIMEOUT)."""

# Behind an open event so many bytes are looked at; then it is complete, too.
_MOST_BYTES: Final = 64 << 10

LINE: Final = re.compile(
    rb"(?:node=(?P<node>\S{1,256}) )?type=(?P<type>\S{1,64}) "
    rb"msg=audit\((?P<time>\d{1,12}\.\d{1,9}):(?P<serial>\d{1,20})\) ?:"
)
"""The beginning of a line."""

_LAST: Final = b"PROCTITLE"
_END: Final = b"EOE"
# A program's message: the kernel gives each a serial of its own.
_MESSAGE: Final = b" msg='"
_DAEMON: Final = b"DAEMON_"


class _Open:
    """An event whose last line is not there yet."""

    __slots__ = ("first", "lines", "time_s")

    def __init__(self, first: int, time_s: float) -> None:
        self.first, self.time_s = first, time_s
        self.lines: list[tuple[int, bytes]] = []


class AuditEvents:
    """The framing of audit logs."""

    begin_bytes: Final = 0
    by_first_line = True

    def __init__(self, max_record_bytes: int) -> None:
        self.max_record_bytes = max_record_bytes

    def splitter(self, begin: bytes, *, at_start: bool) -> AuditSplitter:
        """See `Framing`."""
        return AuditSplitter(at_start=at_start)


class AuditSplitter:
    """See `Splitter`.

    At the very beginning of a content nothing is taken before the first event: a content of which
    nothing was read cannot be recognised by what was read of it.
    """

    def __init__(self, *, at_start: bool) -> None:
        self.wait_s: float | None = WAIT_S
        self._at_start = at_start

    def split(self, data: bytes, rest: Rest, ahead: Ahead = ()) -> Chunk | None:
        """See `Splitter`. Nothing may be consumed though there are records: then `ahead` grows."""
        end = len(data) if rest is Rest.FINAL else data.rfind(b"\n") + 1
        events = _Events()
        taken = dict(ahead)
        at = skip_to = 0
        for line in BytesIO(data[:end]).readlines():
            skip_to = max(skip_to, taken.get(at, 0))
            if at >= skip_to:
                events.add(at, line)
            at += len(line)
        if rest is not Rest.OPEN and end == len(data):
            events.finish()
        consumed = events.first_open(end)
        if not consumed and (self._at_start or not events.spans):
            return None
        behind = tuple(
            (start - consumed, stop - consumed)
            for start, stop in _merged([*ahead, *events.spans])
            if stop > consumed
        )
        return chunk_of(events.records, data[:consumed], behind)


_Key = tuple[bytes, bytes, bytes]
"""Node, time and serial."""


class _Events:
    """The events of some lines, in the order in which they are complete."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.spans: list[tuple[int, int]] = []
        """Where the lines that were taken begin and end."""
        self._open: dict[_Key, _Open] = {}
        # By node, too: the clocks of two machines are not compared.
        self._by_node: dict[bytes, dict[_Key, _Open]] = {}

    def add(self, at: int, line: bytes) -> None:
        """Take in the line that begins there."""
        found = LINE.match(line)
        if found is None:
            self._take([(at, line)])
            return
        time_s, kind = float(found["time"]), found["type"]
        key = found["node"] or b"", found["time"], found["serial"]
        self._complete_before(key[0], at, time_s)
        if kind == _END:
            # It says nothing but that the event is complete.
            self.spans.append((at, at + len(line)))
            if key in self._open:
                self._complete(key)
        elif _MESSAGE in line or kind.startswith(_DAEMON):
            self._take([(at, line)])
        else:
            event = self._open.get(key)
            if event is None:
                event = self._open[key] = _Open(at, time_s)
                self._by_node.setdefault(key[0], {})[key] = event
            event.lines.append((at, line))
            if kind == _LAST:
                self._complete(key)

    def _complete_before(self, node: bytes, at: int, now: float) -> None:
        own = self._by_node.get(node)
        while own and now - next(iter(own.values())).time_s >= WAIT_S:
            self._complete(next(iter(own)))
        while at - self.first_open(at) > _MOST_BYTES:
            self._complete(next(iter(self._open)))

    def _complete(self, key: _Key) -> None:
        del self._by_node[key[0]][key]
        self._take(self._open.pop(key).lines)

    def finish(self) -> None:
        """Take what is open."""
        while self._open:
            self._complete(next(iter(self._open)))

    def _take(self, lines: list[tuple[int, bytes]]) -> None:
        self.records.append(b" ".join([line.rstrip(b"\r\n") for _, line in lines]))
        self.spans += [(at, at + len(line)) for at, line in lines]

    def first_open(self, end: int) -> int:
        """Where the oldest open event begins; `end` if none is open."""
        return next(iter(self._open.values())).first if self._open else end


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], stop)
        else:
            merged.append((start, stop))
    return merged

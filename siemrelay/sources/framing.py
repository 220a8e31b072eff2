"""The options of sources that read text: what is a record, and in which encoding it is written."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, Field, model_validator

from siemrelay.core.options import Duration, Options, Size
from siemrelay.core.patterns import LinearPattern, Pattern
from siemrelay.sources.chunks import LineSplitter, RecordSize
from siemrelay.sources.contract import Records
from siemrelay.wire.framing.contract import (
    MAX_WHOLE_BYTES,
    Ahead,
    Framing,
    Rest,
    Splitter,
    with_oversize,
)
from siemrelay.wire.framing.encodings import Encoded, known_encoding
from siemrelay.wire.framing.lines import LineFraming
from siemrelay.wire.framing.multiline import Multiline, is_indented

_MOST_BYTES: Final = 1 << 20

# An incomplete record up to this long is simply looked at again with each piece that comes.
_LONG_BYTES: Final = 256 << 10


class MultilineOptions(Options):
    """Which lines belong together."""

    start: Pattern | None = Field(
        None,
        description="a pattern (RE2) that matches somewhere in the first line of each record, and "
        r"in no other: `^\d{4}-\d\d-\d\d `. It needs the extra `regex`",
    )
    indented: bool = Field(
        False,
        description="instead of `start`: lines that are blank or begin with white space continue "
        "the record before them",
    )
    flush_after: Annotated[Duration, Field(gt=0)] = Field(
        1.0, description="the last record is complete when nothing was written for this long"
    )
    max_lines: Annotated[int, Field(ge=2)] = Field(
        1000, description="the most lines of a record; the rest becomes a record of its own"
    )
    max_size: Annotated[Size, Field(ge=1024, le=_MOST_BYTES)] = Field(
        256 << 10, description="the most bytes of a record, likewise"
    )

    @model_validator(mode="after")
    def _one_way(self) -> MultilineOptions:
        if (self.start is not None) == self.indented:
            raise ValueError("write either `start: PATTERN` or `indented: true`")
        return self


class FramingOptions(Options):
    """Options of every source that reads text line by line."""

    multiline: MultilineOptions | None = Field(
        None,
        description="records of several lines. Until the next record begins or `flush_after` is "
        "over, the position stays at the beginning of the last one: after a crash it is read again",
    )
    encoding: Annotated[str, AfterValidator(known_encoding)] = Field(
        "auto",
        description="`auto` is UTF-16 where a byte order mark says so, else UTF-8; or "
        "`utf-16-le`, `latin-1`, `cp1252` or another name that Python knows. Records are stored "
        "as UTF-8; invalid bytes are kept, and counted where the record is sent",
    )
    max_record_size: RecordSize = Field(
        1 << 20,
        description="longer records are counted as oversize, and kept. Those over 16 MiB are "
        "split into parts",
    )


def text_framing(options: FramingOptions, declared: Framing | None = None) -> Framing:
    """How records are found: as the decoder declares, else by `multiline`, else line by line."""
    return Encoded(declared or _lines(options), options.encoding)


def _lines(options: FramingOptions) -> Framing:
    multiline = options.multiline
    if multiline is None:
        return LineFraming(options.max_record_size)
    continues = is_indented
    if multiline.start is not None:
        start = LinearPattern(multiline.start)

        def continues(line: bytes) -> bool:
            return not start.is_in(line)

    return Multiline(
        continues, multiline.flush_after, multiline.max_lines, multiline.max_size,
        options.max_record_size,
    )  # fmt: skip


class RecordStream:
    """Turns a stream of bytes into records; what a framing leaves is held, up to 16 MiB of it."""

    def __init__(self, framing: Framing) -> None:
        self.oversize: list[int] = []
        """The sizes in bytes of over-long records since this was last emptied."""
        self._framing = framing
        self._splitter: Splitter | None = None
        self._lines: LineSplitter | None = None
        self._begin = self._held = b""
        self._ahead: Ahead = ()
        self._taken = False
        self._tried = 0
        """So much of a long record was looked at in vain."""

    def feed(self, data: bytes) -> list[Records]:
        """The records that are complete with `data`, in order."""
        if self._lines is not None:
            return self._lines.feed(data)
        self._held += data
        if not self._taken:
            self._begin += data
        if len(self._held) < 2 * self._tried:
            return []  # a long record, looked for again when there is twice as much or a pause
        return self._records(Rest.OPEN)

    def pause(self, quiet_s: float) -> list[Records]:
        """The records that are complete because nothing came for so long."""
        wait_s = None if self._splitter is None else self._splitter.wait_s
        if wait_s is not None and quiet_s >= wait_s:
            return self._records(Rest.QUIET)
        return self._records(Rest.OPEN) if self._tried else []

    def end(self) -> list[Records]:
        """The last records: nothing follows."""
        return self._lines.end() if self._lines is not None else self._records(Rest.FINAL)

    def _records(self, rest: Rest) -> list[Records]:
        found: list[Records] = []
        while self._held:
            splitter = self._splitter
            if splitter is None or not self._taken:
                begin = self._begin[: self._framing.begin_bytes]
                splitter = self._framing.splitter(begin, at_start=True)
                self._splitter = splitter
            now = Rest.FINAL if len(self._held) > MAX_WHOLE_BYTES else rest
            chunk = splitter.split(self._held, now, self._ahead)
            if chunk is None:
                self._tried = len(self._held) if len(self._held) > _LONG_BYTES else 0
                break
            self._tried = 0
            chunk = with_oversize(chunk, self._framing.max_record_bytes)
            self.oversize += chunk.oversize
            self._held, self._ahead = self._held[len(chunk.consumed) :], chunk.ahead
            pieces = ((chunk.payload, chunk.count), *chunk.apart)
            found += [Records(payload, count) for payload, count in pieces if count]
            if not self._taken:
                self._go_on()
                if self._lines is not None:
                    held, self._held = self._held, b""
                    found += self._lines.feed(held)
        return found

    def _go_on(self) -> None:
        """Something was taken: from now on the splitter is that of what follows."""
        self._taken = True
        begin = self._begin[: self._framing.begin_bytes]
        self._splitter = self._framing.splitter(begin, at_start=False)
        self._begin = b""
        if isinstance(self._splitter, LineFraming):
            self._lines = LineSplitter(self._framing.max_record_bytes)
            self._lines.oversize = self.oversize

"""JSON texts of any layout → records: objects over several lines, or one after the other in an
array, each as one line. Logs of one object a line are taken as lines.

An array at the top is passed over: its brackets and commas stand between the records, so reading
may stop and go on behind each of its elements.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from siemrelay.wire.framing.contract import Ahead, Chunk, Rest, Splitter, chunk_of
from siemrelay.wire.framing.lines import LineFraming

# The first line of a log is found within so much of it, if it is one object.
_BEGIN_BYTES: Final = 64 << 10

_BLANK_LINES: Final = re.compile(rb"(?:\r?\n)*+")
_BETWEEN: Final = re.compile(rb"[\s,\[\]]*+")
# A text in JSON has no line feed inside, so a torn one cannot take in what follows.
_TEXT: Final = rb'"(?:[^"\\\n]|\\[^\n])*+"'
_TO_BRACKET: Final = re.compile(rb'[^"{}\[\]]*+(?:' + _TEXT + rb'[^"{}\[\]]*+)*+')
_LINE: Final = re.compile(rb"[^\n]*+\n?")
_OPEN: Final = {b"{": b"}", b"[": b"]"}
# An object or an array may stand behind these; anywhere else the one around it is torn.
_BEFORE_VALUE: Final = {b"}": b":", b"]": b"[,"}

# Nothing that is nested deeper can be decoded.
_DEEPEST: Final = 1024
# Lines are seldom indented further.
_INDENT: Final = 128

_INCOMPLETE: Final = -1


def object_end(data: bytes, start: int) -> tuple[int, int]:
    """Where the object that begins at `start` ends, and up to where that was found out.

    The end is -1 if `data` ends first. If the object is torn, the end is `start` and the other is
    where something else begins, behind a line feed.
    """
    closing: list[bytes] = []
    at = start
    while True:
        found = _TO_BRACKET.match(data, at)
        assert found is not None, "it matches nothing at least"
        at = found.end()
        bracket = data[at : at + 1]
        if not bracket:
            return _INCOMPLETE, at
        if bracket == b'"':
            line_end = data.find(b"\n", at) + 1
            return (start, line_end) if line_end else (_INCOMPLETE, at)
        if (end := _OPEN.get(bracket)) is not None:
            # Only a new line makes it certain that it is torn and not just bad JSON.
            if (
                closing
                and _before(data, start, at) not in _BEFORE_VALUE[closing[-1]]
                and (torn := data.rfind(b"\n", start, at) + 1)
            ):
                return start, torn
            if len(closing) >= _DEEPEST:
                torn = data.find(b"\n", at) + 1
                return (start, torn) if torn else (_INCOMPLETE, at)
            closing.append(end)
        elif bracket == closing[-1]:
            closing.pop()
            if not closing:
                return at + 1, at + 1
        at += 1


def _before(data: bytes, start: int, at: int) -> bytes:
    """The last byte before `at` that is no white space."""
    size = _INDENT
    while not (before := data[max(start, at - size) : at].rstrip()) and size < at - start:
        size *= 4
    return before[-1:]


class JsonFraming:
    """Lines where the first one is an object as a whole, else documents.

    A file of one object without a line feed is read once nothing was written for a second.
    """

    begin_bytes = _BEGIN_BYTES
    by_first_line = True

    def __init__(self, max_record_bytes: int) -> None:
        self.max_record_bytes = max_record_bytes
        self._lines, self._documents = LineFraming(max_record_bytes), JsonDocuments()

    def splitter(self, begin: bytes, *, at_start: bool) -> Splitter:
        """See `Framing`."""
        blank = _BLANK_LINES.match(begin)
        assert blank is not None, "it matches nothing at least"
        begin = begin[blank.end() :]
        if begin.startswith(b"["):
            return self._documents
        if not begin.startswith(b"{"):
            return self._lines
        line_end = begin.find(b"\n")
        if line_end < 0:
            return self._lines if len(begin) >= _BEGIN_BYTES // 2 else _ONE_LINE
        end, _ = object_end(begin[:line_end], 0)
        return self._documents if end == _INCOMPLETE else self._lines


class JsonDocuments:
    """See `Splitter`. What is no object is taken line by line, as it is."""

    def __init__(self, wait_s: float | None = None) -> None:
        """With `wait_s` nothing is taken until nothing was written for so long."""
        self.wait_s = wait_s

    def split(self, data: bytes, rest: Rest, ahead: Ahead = ()) -> Chunk | None:
        """See `Splitter`."""
        if self.wait_s is not None and rest is Rest.OPEN:
            return None
        records: list[bytes] = []
        taken = 0
        while True:
            between = _BETWEEN.match(data, taken)
            assert between is not None, "it matches nothing at least"
            at = between.end()
            if at == len(data):
                taken = at
                break
            if data[at : at + 1] == b"{":
                end, torn = object_end(data, at)
                if end == at:
                    end = torn
                elif end != _INCOMPLETE:
                    records.append(_on_one_line(data[at:end]))
                    taken = end
                    continue
            else:
                found = _LINE.match(data, at)
                assert found is not None, "it matches nothing at least"
                end = found.end() if data[found.end() - 1 : found.end()] == b"\n" else _INCOMPLETE
            if end == _INCOMPLETE:
                if rest is not Rest.FINAL:
                    taken = at if records else taken
                    break
                end = len(data)
            records.append(data[at:end].rstrip(b"\r\n"))
            taken = end
        return chunk_of(records, data[:taken]) if taken else None


def _on_one_line(document: bytes) -> bytes:
    """The same JSON without line feeds, which stand between its parts only."""
    if b"\n" not in document:
        return document
    try:
        return msgspec.json.format(document, indent=-1)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return document.replace(b"\r", b" ").replace(b"\n", b" ")


_ONE_LINE: Final = JsonDocuments(1.0)

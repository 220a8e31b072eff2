"""Text in other encodings → UTF-8, with the position kept in bytes of the file.

No byte is lost and none is fatal: what is no character of its encoding becomes a lone surrogate,
which UTF-8 has no bytes for. It is stored as three bytes that hold its value (WTF-8), and counted
where the record is decoded, as every byte that is not UTF-8.
"""

from __future__ import annotations

import codecs
from typing import Final

import msgspec

from siemrelay.wire.framing.contract import Ahead, Chunk, Framing, Rest, Splitter

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)  # fmt: skip
_LINE_FEEDS: Final = {"utf-16-le": b"\n\0", "utf-16-be": b"\0\n"}
_LONGEST_MARK: Final = 3

# Encodings with a state between characters: reading could not go on in their middle.
_STATEFUL: Final = ("iso2022", "utf_7", "hz", "utf_8_sig", "utf_32")


def known_encoding(name: str) -> str:
    """The name as Python knows it, `auto` as it is.

    Raises ValueError with a sentence for a person.
    """
    if name == "auto":
        return name
    try:
        codec = codecs.lookup(name)
    except LookupError as error:
        raise ValueError(
            f"unknown encoding `{name}`; write auto, utf-8, utf-16, utf-16-le, utf-16-be, latin-1, "
            "cp1252 or another of Python's names"
        ) from error
    known = codec.name.replace("-", "_")
    if not codec._is_text_encoding or known.startswith(_STATEFUL):
        raise ValueError(f"files in `{name}` cannot be followed; convert them to utf-8")
    return codec.name


class Encoded:
    """A framing behind the conversion into UTF-8."""

    def __init__(self, inner: Framing, encoding: str) -> None:
        """`encoding` as from `known_encoding`; `auto` and `utf-16` go by the byte order mark."""
        self._inner, self._encoding = inner, encoding
        self.max_record_bytes = inner.max_record_bytes
        self.by_first_line = inner.by_first_line
        self.begin_bytes = max(inner.begin_bytes * 2, _LONGEST_MARK)

    def splitter(self, begin: bytes, *, at_start: bool) -> Splitter:
        """See `Framing`. Without a mark `auto` is UTF-8, and `utf-16` little-endian (Windows')."""
        mark, encoding = self._found(begin)
        if encoding == "utf-8":
            inner = self._inner.splitter(begin[len(mark) :], at_start=at_start)
            if not at_start or not begin or not codecs.BOM_UTF8.startswith(begin[:3]):
                return inner
            return _Converted(inner, None, codecs.BOM_UTF8)
        codec = _Codec(encoding)
        text, _ = codec.decode(begin[len(mark) :], final=False)
        inner = self._inner.splitter(text.encode("utf-8", "surrogatepass"), at_start=at_start)
        return _Converted(inner, codec, mark if at_start else b"")

    def encoding_of(self, begin: bytes) -> str:
        """The encoding of a content that begins so."""
        return self._found(begin)[1]

    def _found(self, begin: bytes) -> tuple[bytes, str]:
        marked = next(((mark, name) for mark, name in _MARKS if begin.startswith(mark)), (b"", ""))
        if self._encoding == "utf-16":
            return marked if marked[1] in _LINE_FEEDS else (b"", "utf-16-le")
        if self._encoding == "auto":
            return marked if marked[1] else (b"", "utf-8")
        return marked if marked[1] == self._encoding else (b"", self._encoding)


def line_feed(framing: Framing, begin: bytes) -> bytes:
    """The line feed of a content that begins so."""
    encoding = framing.encoding_of(begin) if isinstance(framing, Encoded) else ""
    return _LINE_FEEDS.get(encoding, b"\n")


class _Codec(msgspec.Struct, frozen=True):
    """Bytes to text and back without loss."""

    encoding: str

    @property
    def errors(self) -> str:
        return "surrogatepass" if self.encoding in _LINE_FEEDS else "surrogateescape"

    def decode(self, data: bytes, *, final: bool) -> tuple[str, int]:
        """The text, and how many bytes it took: not the first bytes of a character at the end."""
        decoder = codecs.getincrementaldecoder(self.encoding)(self.errors)
        text = decoder.decode(data)
        held, _ = decoder.getstate()
        if not final:
            return text, len(data) - len(held)
        if self.encoding in _LINE_FEEDS:  # the first half of a pair, the first byte of a half
            whole = len(held) // 2 * 2
            text, held = text + held[:whole].decode(self.encoding, self.errors), held[whole:]
        return text + "".join(chr(0xDC00 + byte) for byte in held), len(data)

    def length(self, text: str, data: bytes) -> int:
        """How many bytes at the beginning of `data` gave the text."""
        length = len(text.encode(self.encoding, self.errors))
        if self.decode(data[:length], final=False) == (text, length):
            return length
        low, high = 0, len(data)  # two spellings of one character: looked for
        while low < high:
            middle = (low + high) // 2
            if len(self.decode(data[:middle], final=False)[0]) < len(text):
                low = middle + 1
            else:
                high = middle
        return low


class _Converted:
    """See `Splitter`."""

    def __init__(self, inner: Splitter, codec: _Codec | None, mark: bytes) -> None:
        """`mark`: what the content may begin with, and is left out."""
        self._inner, self._codec, self._mark = inner, codec, mark

    @property
    def wait_s(self) -> float | None:
        return self._inner.wait_s

    def split(self, data: bytes, rest: Rest, ahead: Ahead = ()) -> Chunk | None:
        """See `Splitter`. Nothing is ever taken ahead."""
        skipped = len(self._mark) if data.startswith(self._mark) else 0
        if not skipped and self._mark.startswith(data) and rest is not Rest.FINAL:
            return None  # half a mark
        data, whole = data[skipped:], data
        if self._codec is None:
            chunk = self._inner.split(data, rest)
            taken = 0 if chunk is None else len(chunk.consumed)
        else:
            chunk, taken = self._converted(self._codec, data, rest)
        if chunk is None:
            alone = rest is Rest.FINAL and whole and not data
            return Chunk(b"", 0, consumed=whole) if alone else None
        return msgspec.structs.replace(chunk, consumed=whole[: skipped + taken])

    def _converted(self, codec: _Codec, data: bytes, rest: Rest) -> tuple[Chunk | None, int]:
        """The inner chunk, and how many of the bytes it took."""
        text, decoded = codec.decode(data, final=rest is Rest.FINAL)
        converted = text.encode("utf-8", "surrogatepass")
        chunk = self._inner.split(converted, rest) if converted else None
        if chunk is None or len(chunk.consumed) == len(converted):
            return chunk, decoded
        return chunk, codec.length(chunk.consumed.decode("utf-8", "surrogatepass"), data)

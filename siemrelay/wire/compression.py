"""The compressions of log files: recognised by their first bytes, expanded in steps. Pure."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

import msgspec

# The most that one step may expand to: a bomb costs no memory.
OUTPUT_BYTES: Final = 256 << 10
# zlib's largest window (15 bits) plus 16: a gzip header and trailer, nothing else.
_GZIP_WBITS: Final = 15 + 16
# zstd bounds no output, but a block of 128 KiB takes four bytes at least: so much expands to 16 MiB
# at most. A step takes as many of them as fill its output.
_ZSTD_INPUT_BYTES: Final = 512
# What that usually expands to: with more, each piece would allocate and free as much.
_ZSTD_OUTPUT_BYTES: Final = 8 << 10
# Its decoder's memory: what `zstd --long=27` and `--ultra -22` need.
_ZSTD_WINDOW_BYTES: Final = 1 << 27
# The decoder of `xz -9` needs 65 MiB.
_XZ_MEMORY_BYTES: Final = 256 << 20
# What a step takes where the decoder cannot be rewound: damage costs no more than this.
_SMALL_INPUT_BYTES: Final = 4 << 10


CUT_OFF: Final = "ends in the middle of its compressed data"
"""The damage of a file whose last member is not complete."""


class Damaged(Exception):
    """The compressed data is broken; `saved` is what came before the break in this step."""

    def __init__(self, why: str, saved: bytes = b"") -> None:
        super().__init__(why)
        self.saved = saved


class CannotExpand(Exception):
    """The compression is recognised, and not read: somebody else has to expand the file."""


class Expander(Protocol):
    """Expands one member (frame, stream) of a compressed file."""

    ended: bool
    """Whether the member is complete."""
    pending: bool
    """Whether more may come out without more input."""

    def step(self, data: memoryview) -> tuple[bytes, int]:
        """Some of the output, and how many bytes of `data` it took. Raises Damaged."""


class _Gzip:
    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(_GZIP_WBITS)
        self.ended = self.pending = False

    def step(self, data: memoryview) -> tuple[bytes, int]:
        # A copy of the state (some 40 KiB) is what lets everything before the damaged byte be
        # had: after an error zlib hands out nothing of the whole piece.
        before = self._inflater.copy()
        try:
            output = self._inflater.decompress(data, OUTPUT_BYTES)
        except zlib.error as error:
            raise Damaged(str(error), _salvage(before, data)) from error
        self.ended = self._inflater.eof
        # Without input zlib hands out what it holds back of what it has taken.
        self.pending = not self.ended and len(output) == OUTPUT_BYTES
        rest = self._inflater.unused_data if self.ended else self._inflater.unconsumed_tail
        return output, len(data) - len(rest)


def _salvage(inflater: zlib._Decompress, data: memoryview) -> bytes:
    """The output of `data` up to the byte that breaks it."""
    saved = bytearray()
    for at in range(len(data)):
        try:
            saved += inflater.decompress(data[at : at + 1])
        except zlib.error:
            break
    return bytes(saved)


class _Buffered(Protocol):
    """`lzma.LZMADecompressor` and `bz2.BZ2Decompressor`."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: memoryview, max_length: int = -1) -> bytes: ...


class _FromLibrary:
    def __init__(self, decompressor: _Buffered, errors: tuple[type[Exception], ...]) -> None:
        self._decompressor, self._errors = decompressor, errors
        self.ended = self.pending = False

    def step(self, data: memoryview) -> tuple[bytes, int]:
        # While output is pending it has input of its own.
        piece = data[: 0 if self.pending else _SMALL_INPUT_BYTES]
        try:
            output = self._decompressor.decompress(piece, OUTPUT_BYTES)
        except self._errors as error:
            raise Damaged(str(error)) from error
        self.ended = self._decompressor.eof
        self.pending = not self.ended and not self._decompressor.needs_input
        return output, len(piece) - len(self._decompressor.unused_data)


class _Zstd:
    def __init__(self) -> None:
        import zstandard

        self._errors = (zstandard.ZstdError,)
        self._decompressor = zstandard.ZstdDecompressor(
            max_window_size=_ZSTD_WINDOW_BYTES
        ).decompressobj(write_size=_ZSTD_OUTPUT_BYTES)
        self.ended = self.pending = False

    def step(self, data: memoryview) -> tuple[bytes, int]:
        output, size_bytes, used = list[bytes](), 0, 0
        while size_bytes < OUTPUT_BYTES and used < len(data) and not self.ended:
            piece = data[used : used + _ZSTD_INPUT_BYTES]
            try:
                output.append(self._decompressor.decompress(piece))
            except self._errors as error:
                raise Damaged(str(error), b"".join(output)) from error
            self.ended = self._decompressor.eof
            size_bytes += len(output[-1])
            used += len(piece) - len(self._decompressor.unused_data)
        return b"".join(output), used


def _xz() -> Expander:
    import lzma

    decompressor = lzma.LZMADecompressor(lzma.FORMAT_AUTO, memlimit=_XZ_MEMORY_BYTES)
    return _FromLibrary(decompressor, (lzma.LZMAError, EOFError))


def _bzip2() -> Expander:
    import bz2

    return _FromLibrary(bz2.BZ2Decompressor(), (OSError, ValueError, EOFError))


class Compression(msgspec.Struct, frozen=True):
    """One way to compress a file; without `expander` it can be recognised but not read."""

    name: str
    suffixes: tuple[str, ...]
    magics: tuple[bytes, ...]
    """With what a member begins; no text begins so."""
    expander: Callable[[], Expander] | None = None


_ZSTD_SKIPPABLE: Final = tuple(bytes([low]) + b"\x2a\x4d\x18" for low in range(0x50, 0x60))

COMPRESSIONS: Final = (
    Compression("gzip", (".gz",), (b"\x1f\x8b",), _Gzip),
    Compression("zstd", (".zst",), (b"\x28\xb5\x2f\xfd", *_ZSTD_SKIPPABLE), _Zstd),
    Compression("xz", (".xz",), (b"\xfd7zXZ\0",), _xz),
    # "BZh", a digit for the block size, then pi of the first block or, of an empty file, its root.
    Compression("bzip2", (".bz2",), tuple(
        b"BZh%d" % size + block for size in range(1, 10)
        for block in (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")), _bzip2),
    Compression("lz4", (".lz4",), (b"\x04\x22\x4d\x18",)),
    Compression("lzop", (".lzo",), (b"\x89LZO\0\r\n\x1a\n",)),
    Compression("compress", (".Z",), (b"\x1f\x9d",)),
    Compression("zip", (".zip",), (b"PK\x03\x04",)),
    Compression("7-Zip", (".7z",), (b"7z\xbc\xaf\x27\x1c",)),
    Compression("lzma", (".lzma",), (b"\x5d\0\0",), _xz),
    Compression("Brotli", (".br",), ()),
)  # fmt: skip

COMPRESSED_SUFFIX: Final = re.compile(
    "(?:" + "|".join(re.escape(suffix) for row in COMPRESSIONS for suffix in row.suffixes) + ")$"
)
"""How the name of a compressed file ends."""

BEGIN_BYTES: Final = max(len(magic) for row in COMPRESSIONS for magic in row.magics)
"""How many of a file's first bytes say how it is compressed."""


def compression_of(begin: bytes, path: str) -> Compression | None:
    """How a file is compressed, by its first bytes, then by its name; None if it is not.

    A file whose name alone says so is empty yet, or damaged.
    """
    for row in COMPRESSIONS:
        if begin.startswith(row.magics):
            return row
    return next((row for row in COMPRESSIONS if path.endswith(row.suffixes)), None)


_PADDING: Final = re.compile(rb"\0*")
"""Tapes and block devices pad with NULs."""


class Decompressor:
    """Expands a compressed file, all of its members, in bounded steps. After Damaged it is over."""

    def __init__(self, compression: Compression) -> None:
        """Raises CannotExpand if the compression has no expander."""
        if compression.expander is None:
            raise CannotExpand(f"{compression.name}: expand the file first")
        self._compression, self._expander = compression, compression.expander
        self._member: Expander | None = None
        self._input, self._used = b"", 0

    def feed(self, data: bytes) -> None:
        """Add the next bytes of the file."""
        self._input, self._used = self._input[self._used :] + data, 0
        self._skip_padding()

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes out of what was fed."""
        if self._member is not None:
            return self._used == len(self._input) and not self._member.pending
        start = self._input[self._used : self._used + BEGIN_BYTES]
        return any(len(start) < len(m) and m.startswith(start) for m in self._compression.magics)

    @property
    def complete(self) -> bool:
        """Whether what was fed ends where a member ends."""
        return self._member is None and self._used == len(self._input)

    def step(self) -> bytes:
        """Some of the content, perhaps nothing; only while it does not need input.

        Raises Damaged.
        """
        if self._member is None:
            if not self._input.startswith(self._compression.magics, self._used):
                raise Damaged(f"not {self._compression.name} data")
            self._member = self._expander()
        output, used = self._member.step(memoryview(self._input)[self._used :])
        self._used += used
        if self._member.ended:
            self._member = None
            self._skip_padding()
        return output

    def _skip_padding(self) -> None:
        if self._member is None and (padding := _PADDING.match(self._input, self._used)):
            self._used = padding.end()


def expanded(pieces: Iterable[bytes], compression: Compression) -> Iterator[bytes]:
    """The content of a whole compressed file; some pieces may be empty.

    Raises Damaged, with nothing in `saved`, behind what can be had of damaged or cut off data, and
    CannotExpand.
    """
    decompressor = Decompressor(compression)
    for piece in pieces:
        decompressor.feed(piece)
        while not decompressor.needs_input:
            try:
                output = decompressor.step()
            except Damaged as damage:
                yield damage.saved
                raise Damaged(str(damage)) from damage
            yield output
    if not decompressor.complete:
        raise Damaged(CUT_OFF)

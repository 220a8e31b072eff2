"""Seals: what a relay says about one stream so far, signed, in a text that any format carries.

A seal has three parts. The *note* is a C2SP checkpoint (origin, size, root) with one more line, the
SHA-256 of the *tally*, signed. The tally is JSON and accounts for what is not in the stream. The
*peaks* of the tree at that size let a reader check each stretch between two seals by itself; they
need no signature, as they must add up to the signed root.

A fourth part, in some seals, is the time stamp (RFC 3161) of an earlier seal of the stream: it came
from its authority after that seal was sent. It is signed by the authority, over that seal's note.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from hashlib import sha256
from typing import Final, NamedTuple

import msgspec

from siemrelay.proof.merkle import HASH_BYTES, Tree
from siemrelay.proof.note import OpenedNote, Signer, Verifier, open_note, sign

_MARK: Final = "siemrelay-seal:"
SEAL_MARK: Final = _MARK.encode()
"""Begins the word of each seal."""

_TOKEN: Final = re.compile(rb"siemrelay-seal:([A-Za-z0-9_-]{100,65536})")
_TALLY: Final = "tally "


class Absent(msgspec.Struct, frozen=True, array_like=True):
    """A number whose message the receiver does not have, with its leaf in hexadecimal digits."""

    number: int
    leaf: str
    reason: str


class Anchor(msgspec.Struct, frozen=True, omit_defaults=True):
    """A state of a stream: its origin, the size of its tree, its peaks in hexadecimal digits."""

    origin: str
    size: int
    peaks: list[str]

    @property
    def tree(self) -> Tree:
        """The tree; raises ValueError if the peaks are not those of such a size."""
        tree = Tree(self.size, tuple(bytes.fromhex(peak) for peak in self.peaks))
        if not tree.is_whole():
            raise ValueError("the peaks of a tree do not fit its size")
        return tree

    @classmethod
    def of(cls, origin: str, tree: Tree) -> Anchor:
        """That state of a stream."""
        return cls(origin, tree.size, [peak.hex() for peak in tree.peaks])


class SealTally(msgspec.Struct, frozen=True, omit_defaults=True):
    """The figures that a seal accounts for.

    `number` is the seal's own in its stream, `at` the relay's clock (RFC 3339), `reason` why it was
    made now, `every_s` how often one is made. `counts` are those of the sink since it began, up to
    the record `next_sequence`. `absent` are numbers since the seal before, of messages that the
    receiver does not have. `previous` is the end of the stream before this one, `absent_before`
    such numbers of that one, `cause` why this one began. `others` are the latest seals of the
    relay's other streams (origin → size and root).
    """

    number: int
    at: str
    reason: str
    every_s: float
    next_sequence: int
    counts: dict[str, int]
    format: str
    version: str
    configuration: str
    cause: str
    absent: list[Absent] = []
    previous: Anchor | None = None
    absent_before: list[Absent] = []
    others: dict[str, tuple[int, str]] = {}


class Timestamp(msgspec.Struct, frozen=True, array_like=True):
    """An authority's answer about the note of seal `number`: a TimeStampResp in DER, as it came."""

    number: int
    response: bytes


class _Parts(msgspec.Struct, frozen=True, array_like=True):
    note: bytes
    tally: bytes
    peaks: bytes
    timestamp: Timestamp | None = None


class Seal(msgspec.Struct, frozen=True):
    """A seal whose parts belong together; `opened` says who signed it."""

    origin: str
    tree: Tree
    tally: SealTally
    note: bytes
    opened: OpenedNote
    timestamp: Timestamp | None = None

    @property
    def stream(self) -> str:
        """The last part of the origin, which is in the number of each message."""
        return self.origin.rpartition("/")[2]


def made_text(
    origin: str, tree: Tree, tally: SealTally, signers: Iterable[Signer],
    timestamp: Timestamp | None = None,
) -> str:  # fmt: skip
    """The seal as one word of text, without a character that any format would escape."""
    written = msgspec.json.encode(tally)
    digest = b64encode(sha256(written).digest()).decode()
    root = b64encode(tree.root).decode()
    text = f"{origin}\n{tree.size}\n{root}\n{_TALLY}{digest}\n"
    parts = (sign(text.encode(), signers), written, b"".join(tree.peaks))
    whole = parts if timestamp is None else (*parts, timestamp)
    return _MARK + urlsafe_b64encode(msgspec.msgpack.encode(whole)).decode().rstrip("=")


class SealText(NamedTuple):
    """A text in a message that looks like a seal: its word, empty for one in pieces.

    `has_its_id`: the message has the id that only the seal of its number has, `STREAM-N`.
    """

    word: bytes
    has_its_id: bool


def seal_text(message: bytes, number: str | None) -> SealText | None:
    """The text that looks like a seal in a message of that number (`STREAM:N`); else None."""
    word = find_seal(message) or b""
    has_its_id = number is not None and number.replace(":", "-").encode() in message
    return SealText(word, has_its_id) if word or has_its_id else None


def find_seal(text: bytes) -> bytes | None:
    """The word of a seal in a text; None if there is none."""
    found = _TOKEN.search(text) if SEAL_MARK in text else None
    return found[1] if found else None


def read_seal(word: bytes, verifiers: Iterable[Verifier]) -> Seal:
    """Read a seal, and check that its parts belong together and signatures of these keys are true.

    Raises ValueError with a sentence for a person. Whether a known key signed it, is for the caller
    to see.
    """
    try:
        parts = _unpack(word)
        tally, opened = parts.tally, open_note(parts.note, verifiers)
        origin, size, root, line, *_ = opened.text.decode().split("\n")
        tree = Tree(int(size), _cut(parts.peaks))
        accounted = msgspec.json.decode(tally, type=SealTally)
    except (binascii.Error, msgspec.MsgspecError, ValueError) as error:
        raise ValueError(f"a malformed seal: {error}") from error
    if line != _TALLY + b64encode(sha256(tally).digest()).decode():
        raise ValueError("a malformed seal: its tally is not the signed one")
    if not tree.is_whole() or b64encode(tree.root).decode() != root:
        raise ValueError("a malformed seal: its peaks do not add up to the signed root")
    return Seal(origin, tree, accounted, parts.note, opened, parts.timestamp)


def note_of(text: str) -> bytes:
    """The note of a seal's text, as `made_text` made it: what a time stamp is of."""
    return _unpack(text.removeprefix(_MARK).encode()).note


def _unpack(word: bytes) -> _Parts:
    packed = urlsafe_b64decode(word + b"=" * (-len(word) % 4))
    return msgspec.msgpack.decode(packed, type=_Parts)


def _cut(peaks: bytes) -> tuple[bytes, ...]:
    return tuple(peaks[i : i + HASH_BYTES] for i in range(0, len(peaks), HASH_BYTES))

"""One sink's sealed stream as the relay keeps it: with the sink's cursor, in one transaction.

Message n of the stream is leaf n of its tree. A number stands for one message for ever: a message
that is sent again has the same one, because it is made of the same record by the same
configuration. Where that is not certain, a new stream begins, and its seals name the end of the one
before.

Invariant: the stream belongs to the cursor while `next_sequence` is the cursor's. Whatever moves
the cursor without the stream (records given up or lost, a time without `seal:`) parts them, and the
next attempt begins a new stream.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from siemrelay.proof.merkle import Tree
from siemrelay.proof.seal import Absent, Anchor

STREAM_CHARACTERS: Final = 10
"""Of the stream's part of a number: base 32, so 50 bits."""

NUMBER_CHARACTERS: Final = STREAM_CHARACTERS + 1 + 16
"""Of the longest number: stream, colon, digits."""

# Numbers for which a seal accounts one by one: some 130 bytes each. With so many, one is due.
MOST_ABSENT: Final = 100


COPIED: Final = "state copied or restored"
SET_BACK: Final = "state set back"
ANOTHER_MACHINE: Final = "another machine"

DOUBTS: Final = {
    COPIED: "the relay's state directory was copied, or restored from a backup",
    SET_BACK: "the relay's state is older than seals that it has sent: it was restored from a "
    "backup",
    ANOTHER_MACHINE: "the relay's state directory came to another machine: it was moved, or a "
    "machine was cloned",
}
"""Causes of a new stream that a person should look at, each with a clause about it."""


class Witness(msgspec.Struct, frozen=True, array_like=True):
    """A file that a copy of the state does not have alike: its name, inode and time of change.

    `machine` is a digest of the machine's id; empty where it has none.
    """

    name: str
    inode: int
    changed_ns: int
    machine: str


class Numbering(msgspec.Struct, frozen=True):
    """The numbers of messages in a stream, from `first` on.

    A message is formatted once for all sinks that want it alike, and each has its own numbers. So
    it is written with `placeholder`, once: as long as the longest number, and nobody can guess it.
    """

    stream: str
    first: int
    placeholder: bytes

    def numbered(self, messages: Sequence[bytes]) -> list[bytes]:
        """The messages, each with its number `STREAM:N` in the place of the placeholder."""
        before, replaced = f"{self.stream}:".encode(), self.placeholder
        return [
            message.replace(replaced, b"%b%d" % (before, n), 1)
            for n, message in enumerate(messages, self.first)
        ]


class PendingSeal(msgspec.Struct, frozen=True, array_like=True):
    """A seal that is on disk and not confirmed: message `number`, sent whenever it is its turn.

    It stands before the record `position`. `size` is that of the tree that it seals, `absent` how
    many numbers it accounts for; `text` and `at` (seconds) make the same message again.
    """

    number: int
    position: int
    size: int
    root: str
    absent: int
    at: float
    text: str


class Sealed(msgspec.Struct, frozen=True, array_like=True):
    """The last seal that the receiver confirmed: size and root (hexadecimal) of its tree, time."""

    size: int = 0
    root: str = ""
    at: float = 0.0

    @classmethod
    def by(cls, seal: PendingSeal) -> Sealed:
        """The state once that seal is confirmed."""
        return cls(seal.size, seal.root, seal.at)


class Confirmed(msgspec.Struct, frozen=True):
    """The settled messages: the tree with the leaves of a batch, and what it lacks."""

    tree: Tree
    absent: Sequence[Absent] = ()


class StreamState(msgspec.Struct, frozen=True, array_like=True):
    """A stream. `tree` has the settled messages, `absent` those of them that the receiver lacks.

    `configuration` is the digest of what messages are made by, `cause` why the stream began, with
    the record `first_sequence`,
    `previous` the end of the stream before, `absent_before` those of its messages that the receiver
    lacks and no seal of its own has named. `witness` tells the state from a copy of it. No record
    from `sent_end` on was sent before this was stored; None where that is not known.
    """

    origin: str
    configuration: str
    cause: str
    first_sequence: int
    next_sequence: int
    tree: Tree = Tree()
    absent: tuple[Absent, ...] = ()
    pending: PendingSeal | None = None
    sealed: Sealed = Sealed()
    previous: Anchor | None = None
    absent_before: tuple[Absent, ...] = ()
    witness: Witness | None = None
    sent_end: int | None = None

    @property
    def name(self) -> str:
        """The stream's part of its numbers."""
        return self.origin.rpartition("/")[2]

    def is_sealed(self) -> bool:
        """Whether a confirmed seal covers everything but itself."""
        return self.tree.size <= self.sealed.size + 1

    def confirmed(self, more: Confirmed) -> StreamState:
        """With a batch that was settled."""
        pending, sealed, absent = self.pending, self.sealed, (*self.absent, *more.absent)
        if pending is not None and pending.number < more.tree.size:
            sealed, absent = Sealed.by(pending), absent[pending.absent :]
            pending = None
        return msgspec.structs.replace(
            self, tree=more.tree, absent=absent, pending=pending, sealed=sealed
        )

    def written(self) -> str:
        """As text that `read` reads."""
        return b64encode(msgspec.msgpack.encode(self)).decode()

    @classmethod
    def read(cls, text: str) -> StreamState | None:
        """The stream of a text; None for none, and for a damaged one."""
        if not text:
            return None
        try:
            state = msgspec.msgpack.decode(b64decode(text, validate=True), type=cls)
        except (binascii.Error, ValueError, msgspec.MsgspecError):
            return None
        return state if state.tree.is_whole() else None


StreamChange = Callable[[StreamState | None], StreamState]
"""Makes a sink's new stream of the one that it has; it neither waits nor fails."""

"""What a SIEM has of a sealed stream, made without a relay: messages with numbers, and seals."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from siemrelay.proof.exports.parts import parts
from siemrelay.proof.leaf import hash_of
from siemrelay.proof.merkle import Tree
from siemrelay.proof.note import Signer
from siemrelay.proof.seal import Absent, Anchor, SealTally, Timestamp, made_text
from siemrelay.proof.verification import Verification

START = datetime(2026, 11, 28, 3, tzinfo=UTC)
SIGNER = Signer("relay.example", bytes(range(32)))


class SealedStream:
    """One stream: each `send` is one message a line of `lines`, each `seal` one more."""

    def __init__(
        self, name: str = "abcdefgh22", sink: str = "splunk", *, signer: Signer = SIGNER,
        previous: SealedStream | None = None, start: datetime = START,
    ) -> None:  # fmt: skip
        self.name, self.origin, self.signer = name, f"relay.example/{sink}/{name}", signer
        self.tree = Tree()
        self.previous = None if previous is None else Anchor.of(previous.origin, previous.tree)
        self.now, self.lines, self.start_s = start, list[bytes](), start.timestamp()
        self.absent, self.seals = list[Absent](), 0
        self.dropped = 0
        self.timestamp: Timestamp | None = None
        """Goes with the next seal."""

    def _add(self, event: dict[str, Any]) -> bytes:
        number = self.tree.size
        return self.send_line(
            json.dumps(event | {"siemrelay": {"n": f"{self.name}:{number}"}}).encode()
        )

    def send_line(self, line: bytes) -> bytes:
        """Send a message that has the next number already."""
        self.lines.append(line)
        self.tree = self.tree.extended([hash_of(line)])
        return line

    def send(self, count: int = 1, **fields: Any) -> None:
        """Send events."""
        for _ in range(count):
            event = {"type": "User Logged In", "user": f"user{self.tree.size}"}
            self._add({**event, **fields})

    def refuse(self) -> None:
        """Send an event that the receiver refuses."""
        self.send()
        line = self.lines.pop()
        self.absent.append(Absent(self.tree.size - 1, hash_of(line).hex(), "refused 400 no"))

    def seal(self, others: dict[str, tuple[int, str]] | None = None) -> bytes:
        """A minute later, seal what was sent; returns the seal's line."""
        self.now += timedelta(minutes=1)
        tally = SealTally(
            number=self.tree.size, at=self.now.isoformat(), reason="interval", every_s=60.0,
            next_sequence=1, counts={"delivered": self.tree.size, "dropped": self.dropped},
            format="json", version="1", configuration="c0ffee", cause="start",
            absent=self.absent, previous=self.previous, others=others or {},
        )  # fmt: skip
        self.absent = []
        text = made_text(self.origin, self.tree, tally, [self.signer], self.timestamp)
        name = f"{self.name}-{self.tree.size}"
        return self._add({"id": name, "type": "Delivery Seal", "message": f"sealed: {text}"})

    @property
    def last_seal(self) -> dict[str, tuple[int, str]]:
        """This stream as another one's seal names it, if all but its last message is sealed."""
        size = self.tree.size - 1
        tree = Tree().extended(list(map(hash_of, self.lines[:size])))
        return {self.origin: (size, tree.root.hex())}


def sealed(seals: int = 3, between: int = 10, **options: Any) -> SealedStream:
    """A stream with so many seals, and events before each."""
    stream = SealedStream(**options)
    for _ in range(seals):
        stream.send(between)
        stream.seal()
    return stream


def read_into(
    checked: Verification, pieces: Iterable[bytes], added: Sequence[str] = ()
) -> None:  # fmt: skip
    """Add the messages of an export that is called `export`."""
    for part in parts(pieces, added):
        checked.add(part, "export")

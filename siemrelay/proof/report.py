"""What a verification says: three verdicts, the streams, and each thing that is wrong."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Kind = Literal["missing", "changed", "added", "forged", "split", "unproven", "stale"]

COMPLETE: Final[tuple[Kind, ...]] = ("missing",)
UNCHANGED: Final[tuple[Kind, ...]] = ("changed", "added", "forged", "split", "unproven")
FRESH: Final[tuple[Kind, ...]] = ("stale",)


class Discrepancy(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong: numbers `first` to `last` of a stream, between two moments."""

    kind: Kind
    why: str
    stream: str = ""
    first: int | None = None
    last: int | None = None
    after: str = ""
    before: str = ""


class StreamReport(msgspec.Struct, frozen=True):
    """One stream: its messages in the export, and up to where it is proven."""

    origin: str
    messages: int
    repeats: int
    absent: int
    sealed_messages: int
    sealed_at: str
    unsealed: int
    seals: int
    counts: dict[str, int]


class Report(msgspec.Struct, frozen=True):
    """What an export proves. `more` counts the findings that are not listed.

    `elsewhere` are streams that seals name and of which the export has nothing: other exports must
    have them.
    """

    complete: bool
    unchanged: bool
    fresh: bool
    rows: int
    streams: list[StreamReport]
    findings: list[Discrepancy]
    more: int = 0
    elsewhere: list[str] = []

    @property
    def is_proven(self) -> bool:
        """Whether all three verdicts are good."""
        return self.complete and self.unchanged and self.fresh

"""The result of a verification: three verdicts, the streams, and each finding."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

Kind = Literal["missing", "changed", "added", "forged", "split", "unproven", "timestamp", "stale"]

COMPLETE: Final[tuple[Kind, ...]] = ("missing",)
UNCHANGED: Final[tuple[Kind, ...]] = (
    "changed", "added", "forged", "split", "unproven", "timestamp",
)  # fmt: skip
FRESH: Final[tuple[Kind, ...]] = ("stale",)

# So many findings are kept one by one, so many notes, and so much of a text: they may be made of
# what an attacker has written.
_MOST_FINDINGS: Final = 10_000
_MOST_NOTES: Final = 1_000
_MOST_CHARACTERS: Final = 500


def counted(count: int, singular: str, plural: str = "") -> str:
    """So many of them: `1 message`, `2,000 messages`."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


class Discrepancy(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong: numbers `first` to `last` of a stream, between two moments.

    `places` are where such a message stands in the exports, each as FILE:LINE.
    """

    kind: Kind
    why: str
    stream: str = ""
    first: int | None = None
    last: int | None = None
    after: str = ""
    before: str = ""
    places: tuple[str, ...] = ()


class Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something to know that no verdict depends on."""

    text: str
    stream: str = ""
    first: int | None = None
    last: int | None = None


class Tail(msgspec.Struct, frozen=True):
    """Messages behind the last seal of a stream that is no later than `until`.

    `pending`: the next seal proves them. `overdue`: it should have come by now. `later`: seals from
    after `until` are there, and not all messages before them.
    """

    state: Literal["pending", "overdue", "later"]
    messages: int
    first: int
    last: int
    after: str
    until: str
    why: str


class Stamped(msgspec.Struct, frozen=True):
    """An authority vouches: seal `number` existed at a time, with `size` messages before it."""

    number: int
    size: int
    at: str


class StreamReport(msgspec.Struct, frozen=True):
    """One stream: its messages in the export, and up to where it is proven."""

    origin: str
    messages: int
    repeats: int
    absent: int
    sealed_messages: int
    sealed_at: str
    unsealed: int
    tail: Tail | None
    seals: int
    counts: dict[str, int]
    timestamps: int = 0
    stamped: Stamped | None = None


class Report(msgspec.Struct, frozen=True):
    """The result for one export. `more` counts the findings that are not listed.

    `elsewhere` are streams that seals name and of which the export has nothing: other exports must
    have them. `schema` grows when a member changes its meaning or goes; new members may come.
    """

    complete: bool
    unchanged: bool
    fresh: bool
    rows: int
    streams: list[StreamReport]
    findings: list[Discrepancy]
    more: int = 0
    elsewhere: list[str] = []
    notes: list[Note] = []
    schema: int = 1

    @property
    def is_proven(self) -> bool:
        """Whether all three verdicts are good."""
        return self.complete and self.unchanged and self.fresh


class Findings:
    """Collects what is found, in bounded memory."""

    def __init__(self) -> None:
        self._found, self._notes = list[Discrepancy](), list[Note]()
        self._kinds = set[Kind]()
        self.count = 0

    def add(
        self, kind: Kind, why: str, stream: str = "", first: int | None = None,
        last: int | None = None, after: str = "", before: str = "",
    ) -> None:  # fmt: skip
        """One thing that is wrong; `last` is `first` if it is not given."""
        self._kinds.add(kind)
        self.count += 1
        if len(self._found) < _MOST_FINDINGS:
            last = first if last is None else last
            self._found.append(
                Discrepancy(kind, _shown(why), _shown(stream), first, last, after, before)
            )

    def note(
        self, text: str, stream: str = "", first: int | None = None, last: int | None = None
    ) -> None:
        """Something to know."""
        if len(self._notes) < _MOST_NOTES:
            self._notes.append(Note(_shown(text), _shown(stream), first, last))

    def report(self, rows: int, streams: list[StreamReport], elsewhere: Iterable[str]) -> Report:
        """The verdicts. Findings stand by stream and number, those of no stream behind them."""
        order = {stream.origin: place for place, stream in enumerate(streams)}
        listed = sorted(
            self._found,
            key=lambda each: (
                order.get(each.stream, len(order) + (not each.stream)), each.stream,
                each.first is None, each.first or 0,
            ),
        )  # fmt: skip
        return Report(
            not self._kinds & {*COMPLETE}, not self._kinds & {*UNCHANGED},
            not self._kinds & {*FRESH}, rows, streams, listed, self.count - len(listed),
            sorted(elsewhere), self._notes,
        )  # fmt: skip


def _shown(text: str) -> str:
    """As a report shows it: an attacker's text may not command the reader's terminal."""
    text = text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]} ..."
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)

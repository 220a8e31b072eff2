"""The event types that are known by name, and how a name is recognised.

The table gives a sink's choice of events its vocabulary and a record without category or severity
its defaults. It is not a fence: a type that is not in it is forwarded like any other, and
`event_types:` in the configuration adds to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final
from unicodedata import normalize

import msgspec

from siemrelay.core.event import DEFAULT_SEVERITY

ANY: Final = "Any Audit Record"
"""The name to subscribe by that takes every event; no event bears it."""
UNPARSED: Final = "Unparsed Record"
"""The type of a record that could not be read; its bytes are kept."""
UNTYPED: Final = "Untyped Record"
"""The type of a record that was read but names no type of its own."""
UNKNOWN: Final = "unknown"
"""The category of both; that of the relay's own events is `relay`."""
TEST: Final = "SIEM Integration Test"
"""The type of the event that `siemrelay test` sends."""
RELAY_STARTED: Final = "Relay Started"
RELAY_STOPPED: Final = "Relay Stopped"
RELOADED: Final = "Configuration Reloaded"
RELOAD_REFUSED: Final = "Configuration Reload Refused"
SINK_PAUSED: Final = "Sink Paused"
SINK_RESUMED: Final = "Sink Resumed"
TAP_OPENED: Final = "Tap Opened"
TEST_SENT: Final = "Test Event Sent"
REPLAYED: Final = "Records Replayed"
LETTERS_RETRIED: Final = "Dead Letters Retried"
LETTERS_DROPPED: Final = "Dead Letters Dropped"
RECORDS_DROPPED: Final = "Records Dropped"
RECORDS_MISSING: Final = "Records Missing"
EVENTS_SAMPLED: Final = "Events Sampled"
EVENTS_LIMITED: Final = "Events Limited"
SEAL: Final = "Delivery Seal"
"""The type of the signed seals that a sink with `seal:` gets about its own events."""
SEAL_KEY_ROTATED: Final = "Seal Key Rotated"
STATE_DOUBTED: Final = "Relay State Copied"
OWN_SOURCE: Final = "siemrelay"
"""The name of the source of the relay's own events; no configured source may have it."""

# Characters between words: controls, spaces, ASCII, Latin-1 and general punctuation. Not `\W`, to
# which the vowel signs of Indic and Thai names belong, too.
_SEPARATORS: Final = re.compile("[\0-/:-@\\[-`{-\xbf\u2000-\u206f\u3000-\u303f]+")
_CAMEL_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def normal_key(name: str) -> str:
    """A name without case, spacing, `_`, `-`, punctuation and camelCase, for comparisons.

    Two names with the same key are the same type. A name of punctuation alone is its own key.
    """
    return _SEPARATORS.sub("", normalize("NFC", name.casefold())) or name


def separate_words(text: str) -> str:
    """Casefolded, with one space wherever a word ends: `userLoggedIn`, `USER_logged-in`."""
    parted = _SEPARATORS.sub(" ", _CAMEL_HUMP.sub(" ", text))
    return normalize("NFC", parted.casefold())


class EventType(msgspec.Struct, frozen=True):
    """One known type: its category and severity (0 to 10) hold for records that give none."""

    name: str
    category: str = "custom"
    severity: int = DEFAULT_SEVERITY
    description: str = ""
    product: str = "custom"

    def __post_init__(self) -> None:
        assert 0 <= self.severity <= 10, (self.name, self.severity)


_OWN: Final = (
    (UNPARSED, UNKNOWN, 4, "A record that could not be read; its bytes are kept"),
    (UNTYPED, UNKNOWN, DEFAULT_SEVERITY, "A record that names no type of its own"),
    (TEST, "relay", 1, "The event that `siemrelay test` sends"),
    (RELAY_STARTED, "relay", 3, "The relay started"),
    (RELAY_STOPPED, "relay", 4, "The relay stopped in order"),
    (RELOADED, "relay", 4, "The relay took a changed configuration"),
    (RELOAD_REFUSED, "relay", 5, "The relay refused a changed configuration"),
    (SINK_PAUSED, "relay", 5, "Somebody paused the delivery to a sink"),
    (SINK_RESUMED, "relay", 3, "Somebody resumed the delivery to a sink"),
    (TAP_OPENED, "relay", 4, "Somebody watches the relay's events"),
    (TEST_SENT, "relay", 1, "Somebody sent a test event to a sink beside the relay"),
    (REPLAYED, "relay", 4, "Somebody sent stored records to a sink again"),
    (LETTERS_RETRIED, "relay", 4, "Somebody sent dead letters to a sink again"),
    (LETTERS_DROPPED, "relay", 7, "Somebody removed dead letters for good"),
    (RECORDS_DROPPED, "relay", 8, "A full buffer dropped records before a sink had them"),
    (SEAL_KEY_ROTATED, "relay", 6, "Somebody made a new key that signs seals"),
    (
        STATE_DOUBTED,
        "relay",
        7,
        "The relay runs on a copied or restored state: its seals begin a new stream",
    ),
    (SEAL, "relay", 1, "What a sink has received so far, signed, for `siemrelay verify`"),
    (RECORDS_MISSING, "relay", 8, "Stored records are gone from the disk"),
    (EVENTS_SAMPLED, "relay", 3, "A sink's `sample` left out events since the last such event"),
    (EVENTS_LIMITED, "relay", 5, "A source's `limit` left out events since the last such event"),
)

BUILT_IN: Final = (
    EventType(ANY, "any", 0, "All audits: takes every event, known or not", "any"),
    *(EventType(*row, product="siemrelay") for row in _OWN),
)
"""The types that every relay knows, `ANY` first. Those of products are in `products/`."""

Values = Mapping[str, Mapping[str, str]]
"""Field → what a product's records have there, or a pattern with `*` and `?` → its meaning.

The empty text stands for a record that has nothing there.
"""


class Catalogue:
    """The built-in types and others; of namesakes the last one counts.

    Does not change once made, so it may be shared between threads.
    """

    def __init__(self, others: Iterable[EventType] = (), values: Values | None = None) -> None:
        """`values` are the meanings of what the records have as type, category, severity and
        outcome.
        """
        self.values: Values = values or {}
        self._by_key: dict[str, EventType] = {}
        for known in (*BUILT_IN, *others):
            self._by_key[normal_key(known.name)] = known
        self.types: tuple[EventType, ...] = tuple(self._by_key.values())
        # Without that of ANY, which no event has: `category:any` would take nothing at all.
        self.categories: frozenset[str] = frozenset(
            known.category for known in self.types if known.name != ANY
        )
        # Nearly every name arrives as it is written here: one look-up instead of a key.
        self._by_name = {known.name: known for known in self.types}

    def find(self, name: str) -> EventType | None:
        """The type of that name, however it is spelled; None where it is not known."""
        return self._by_name.get(name) or self._by_key.get(normal_key(name))

    def canonical(self, name: str) -> str:
        """The name as the catalogue spells it; a name that is not known stays as it is."""
        known = self.find(name)
        return name if known is None else known.name

    def nearest(self, name: str) -> str | None:
        """The entry of `include` that an unknown name most likely stands for.

        It is a type's name or `category:NAME`; None if nothing known resembles the name.
        """
        from difflib import get_close_matches  # only for faults: keeps the start quick

        written: dict[str, str] = {}
        for category in sorted(self.categories):
            entry = f"category:{category}"
            written[normal_key(category)] = written[normal_key(entry)] = entry
        written.update((key, known.name) for key, known in self._by_key.items())
        close = get_close_matches(normal_key(name), written, n=1)
        return written[close[0]] if close else None

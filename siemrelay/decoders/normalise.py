"""From what a record says to the values that an event promises.

The four low-cardinality fields are worked out together, once per distinct combination, and
remembered: a batch pays for the combinations in it, not for its events.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final

from siemrelay.catalogue import UNTYPED, Catalogue
from siemrelay.event import DEFAULT_SEVERITY, FAILED_SEVERITY
from siemrelay.times import rfc3339

Kind = tuple[str, str | None, int | None, str | None]
"""type, category, severity, outcome of one event."""

_OUTCOMES: Final = {
    **dict.fromkeys(
        ("success", "successful", "succeeded", "ok", "true", "allowed", "allow", "granted",
         "passed", "pass", "completed", "complete", "approved", "accepted", "1", "200"), "success"),
    **dict.fromkeys(
        ("failure", "failed", "fail", "error", "false", "denied", "deny", "refused", "rejected",
         "blocked", "unauthorized", "forbidden", "0"), "failure"),
}  # fmt: skip

_SEVERITIES: Final = {
    **{"debug": 0, "trace": 0, "info": 2, "informational": 2, "information": 2, "low": 2},
    **{"notice": 3, "minor": 4, "medium": 5, "moderate": 5, "warning": 5, "warn": 5},
    **{"error": 7, "high": 8, "major": 7, "severe": 8, "critical": 9, "crit": 9, "alert": 9},
    **{"emergency": 10, "emerg": 10, "fatal": 10},
}

# Combinations come from outside; past this many the memory of them is started anew.
_KINDS_KEPT: Final = 4096

_RFC3339: Final = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII
)
_ISO_LOOSE: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d+))?\s*(Z|z|UTC|[+-]\d\d:?\d\d)?", re.ASCII
)


def severity_of(value: Any) -> int | None:
    """A number or a name on the event's scale of 0 to 10; None if it is neither."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        return min(max(int(value), 0), 10) if abs(value) < float("inf") else None
    text = str(value).strip().casefold()
    if text in _SEVERITIES:
        return _SEVERITIES[text]
    return min(int(text), 10) if text.isdecimal() and len(text) < 4 else None


def outcome_of(value: Any) -> str:
    """success, failure or unknown."""
    return _OUTCOMES.get(str(value).strip().casefold(), "unknown")


def time_of(value: Any) -> str | None:
    """A time as RFC 3339 with an offset: text that is one already, looser ISO 8601, epoch s or ms.

    A time without an offset is taken as UTC. None if it is no time. RFC 5424 allows six fractional
    digits at most, so finer ones are cut.
    """
    if isinstance(value, str):
        if _RFC3339.fullmatch(value):
            return value if _real(value) else None
        match = _ISO_LOOSE.fullmatch(value.strip())
        if match is None:
            return time_of(float(value)) if value.isdecimal() and 9 <= len(value) <= 13 else None
        day, clock, fraction, offset = match.groups()
        offset = offset or "Z"
        if offset in ("z", "UTC"):
            offset = "Z"
        elif offset != "Z" and ":" not in offset:
            offset = f"{offset[:3]}:{offset[3:]}"
        text = f"{day}T{clock}{'.' + fraction[:6] if fraction else ''}{offset}"
        return text if _real(text) else None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e14:
        # Seconds reach 1e11 in the year 5138, milliseconds were there in 1973.
        return rfc3339(value / 1000 if value >= 1e11 else value)
    return None


def _real(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def times_are_plain(times: list[str]) -> bool:
    """Whether every text is a real RFC 3339 time already: for a whole batch at C speed."""
    try:
        list(map(datetime.fromisoformat, times))
    except ValueError:
        return False
    shapes = set("\n".join(times).translate(_DIGITS).split("\n"))
    return all(_RFC3339.fullmatch(shape) for shape in shapes)


_DIGITS: Final = {ord(digit): "0" for digit in "123456789"}


class Kinds:
    """The normal form of each combination of type, category, severity and outcome seen."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._known: dict[tuple[Any, ...], Kind] = {}
        self._canonical: set[str] = set()

    def all_canonical(self, names: set[str]) -> bool:
        """Whether every type name is spelled as events promise it."""
        if not names <= self._canonical:
            for name in names - self._canonical:
                if not name or self._catalogue.canonical(name) != name:
                    return False
            if len(self._canonical) >= _KINDS_KEPT:
                self._canonical.clear()
            self._canonical |= names
        return True

    def normal(self, said: tuple[Any, ...]) -> Kind:
        """The combination as an event promises it. Its parts are hashable scalars or None."""
        # True == 1 in a dict; the types keep them apart.
        key = (*said, type(said[2]), type(said[3]))
        kind = self._known.get(key)
        if kind is None:
            if len(self._known) >= _KINDS_KEPT:
                self._known.clear()
            kind = self._known[key] = self._work_out(*said)
        return kind

    def _work_out(self, name: Any, category: Any, severity: Any, outcome: Any) -> Kind:
        name = self._catalogue.canonical(str(name)) if name not in (None, "") else UNTYPED
        known = self._catalogue.find(name)
        outcome = "unknown" if outcome is None else outcome_of(outcome)
        level = severity_of(severity)
        if level is None:
            level = known.severity if known else DEFAULT_SEVERITY
            if outcome == "failure":
                level = max(level, FAILED_SEVERITY)
        if category in (None, ""):
            category = known.category if known else "other"
        return name, str(category), level, outcome

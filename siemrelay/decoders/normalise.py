"""From what a record says to the values that an event promises.

The four low-cardinality fields are worked out together, once per distinct combination, and
remembered: a batch pays for the combinations in it, not for its events.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final

from siemrelay.core.event import DEFAULT_SEVERITY, FAILED_SEVERITY
from siemrelay.core.event_types import UNTYPED, Catalogue
from siemrelay.core.times import rfc3339
from siemrelay.decoders.reading import text_of

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
    "debug": 0, "trace": 0, "info": 2, "informational": 2, "information": 2, "low": 2,
    "notice": 3, "minor": 4, "medium": 5, "moderate": 5, "warning": 5, "warn": 5,
    "error": 7, "high": 8, "major": 7, "severe": 8, "critical": 9, "crit": 9, "alert": 9,
    "emergency": 10, "emerg": 10, "fatal": 10,
}  # fmt: skip

# Combinations come from outside; past this many the memory of them is started anew, and those
# with more characters than a name has are worked out each time.
KINDS_KEPT: Final = 4096
_KIND_CHARACTERS: Final = 256

_RFC3339: Final = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII
)
_ISO_LOOSE: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:[.,](\d+))?\s*(Z|z|UTC|[+-]\d\d:?\d\d)?",
    re.ASCII,
)
_EPOCH: Final = re.compile(r"\d{9,19}(?:\.\d{1,9})?", re.ASCII)

# Epoch seconds reach this in the year 5138; what is larger is in milli-, micro- or nanoseconds.
_EPOCH_SECONDS_END: Final = 1e11


def severity_of(value: Any) -> int | None:
    """A number or a name on the event's scale of 0 to 10; None if it is neither."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        # Compared before it is made an integer: infinity and NaN have none.
        return int(min(max(value, 0), 10)) if value == value else None
    text = str(value).strip().casefold()
    if text in _SEVERITIES:
        return _SEVERITIES[text]
    return min(int(text), 10) if text.isdecimal() and len(text) < 4 else None


def outcome_of(value: Any) -> str:
    """success, failure or unknown."""
    return _OUTCOMES.get(str(value).strip().casefold(), "unknown")


def time_of(value: Any) -> str | None:
    """A time as RFC 3339 with an offset; None if the value is no time.

    Read are text that is one already, looser ISO 8601 (without an offset it is taken as UTC; more
    than six fractional digits, which RFC 5424 does not allow, are cut) and the time since the
    epoch in seconds, milli-, micro- or nanoseconds.
    """
    if isinstance(value, str):
        if _RFC3339.fullmatch(value):
            return value if times_are_plain([value]) else None
        match = _ISO_LOOSE.fullmatch(value.strip())
        if match is None:
            return time_of(float(value)) if _EPOCH.fullmatch(value) else None
        day, clock, fraction, offset = match.groups()
        offset = offset or "Z"
        if offset in ("z", "UTC"):
            offset = "Z"
        elif offset != "Z" and ":" not in offset:
            offset = f"{offset[:3]}:{offset[3:]}"
        text = f"{day}T{clock}{'.' + fraction[:6] if fraction else ''}{offset}"
        return text if times_are_plain([text]) else None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e20:
        moment_s = float(value)
        while moment_s >= _EPOCH_SECONDS_END:
            moment_s /= 1000
        return rfc3339(moment_s)
    return None


_DIGITS: Final = bytes(ord("0") if chr(b) in "123456789" else b for b in range(256))
_MILLISECONDS: Final = b"0000-00-00T00:00:00.000Z\n"


def times_are_plain(times: list[str]) -> bool:
    """Whether every text is a real RFC 3339 time already: for a whole batch at C speed."""
    try:
        list(map(datetime.fromisoformat, times))
    except ValueError:
        return False
    # Some Pythons read ISO 8601's hour 24, which RFC 3339 does not have.
    joined = "\n".join([*times, ""]).encode("ascii", "replace")
    if b"T24" in joined:
        return False
    forms = joined.translate(_DIGITS)
    if forms == _MILLISECONDS * len(times):
        return True
    return all(map(_RFC3339.fullmatch, set(forms.decode().split("\n")[:-1])))


class Kinds:
    """The normal form of each combination of type, category, severity and outcome seen."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._known: dict[tuple[Any, ...], Kind] = {}
        self._canonical: set[str] = set()

    def all_canonical(self, names: set[str]) -> bool:
        """Whether every type name is spelled as events promise it."""
        fresh = names - self._canonical
        if any(not name or self._catalogue.canonical(name) != name for name in fresh):
            return False
        if len(self._canonical) + len(fresh) > KINDS_KEPT:
            self._canonical.clear()
        self._canonical |= {name for name in fresh if len(name) <= _KIND_CHARACTERS}
        return True

    def normal(self, said: tuple[Any, ...]) -> Kind:
        """The combination as an event promises it. Its parts are hashable scalars or None."""
        # True == 1 == 1.0 in a dict; the types keep them apart.
        key = (*said, *map(type, said))
        kind = self._known.get(key)
        if kind is None:
            kind = self._work_out(*said)
            if sum(len(part) for part in said if isinstance(part, str)) <= _KIND_CHARACTERS:
                if len(self._known) >= KINDS_KEPT:
                    self._known.clear()
                self._known[key] = kind
        return kind

    def _work_out(self, name: Any, category: Any, severity: Any, outcome: Any) -> Kind:
        name = UNTYPED if name in (None, "") else self._catalogue.canonical(str(text_of(name)))
        known = self._catalogue.find(name)
        outcome = "unknown" if outcome is None else outcome_of(outcome)
        level = severity_of(severity)
        if level is None:
            level = known.severity if known else DEFAULT_SEVERITY
            if outcome == "failure":
                level = max(level, FAILED_SEVERITY)
        if category in (None, ""):
            category = known.category if known else "other"
        return name, str(text_of(category)), level, outcome


def not_understood(said: tuple[Any, ...]) -> dict[str, Any]:
    """The severity and the outcome that a record gave and that mean nothing here."""
    _, _, severity, outcome = said
    lost = {}
    if severity is not None and severity_of(severity) is None:
        lost["severity"] = severity
    if outcome is not None and outcome != "unknown" and outcome_of(outcome) == "unknown":
        lost["outcome"] = outcome
    return lost

"""Times as events carry them: RFC 3339 text."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(moment_s: float) -> str:
    """Seconds since the epoch as RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(moment_s, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def epoch_ms(time: str) -> int:
    """Milliseconds since the epoch of an RFC 3339 time."""
    # Not int(timestamp() * 1000): the float is off by one for about one millisecond in forty.
    return round(datetime.fromisoformat(time).timestamp() * 1000)

"""The pauses that HTTP answers ask for: Retry-After, and the headers about a rate limit. Pure.

Sources: RFC 9110, 10.2.3; GitHub, "Rate limits for the REST API"; Okta, "Rate limits"; GitLab,
"Rate limits"; Google, "Reports API: limits and quotas"; draft-ietf-httpapi-ratelimit-headers.
"""

from __future__ import annotations

import datetime
import email.utils
from collections.abc import Mapping
from typing import Final

_REMAINING: Final = ("x-ratelimit-remaining", "x-rate-limit-remaining", "ratelimit-remaining")
_RESET: Final = ("x-ratelimit-reset", "x-rate-limit-reset", "ratelimit-reset")

# A reset is a moment in seconds or milliseconds since the epoch, or a number of seconds from now.
_EPOCH_S: Final = 1e9
_EPOCH_MS: Final = 1e12

# Resets are in whole seconds, and the limit is renewed during the last one.
_ROUNDED_S: Final = 1.0

_GOOGLE_REASONS: Final = (b"ateLimitExceeded", b"uotaExceeded")


def retry_after_s(value: str | None, *, now_s: float) -> float | None:
    """The seconds that a Retry-After header asks for (RFC 9110, 10.2.3), or None."""
    value = (value or "").strip()
    if value.isascii() and value.isdecimal():
        return float(value)
    moment_s = _http_date_s(value)
    return None if moment_s is None else max(moment_s - now_s, 0.0)


def is_throttled(status: int, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether an answer refuses the request because of its rate alone.

    `headers` are looked up in lower case. A 403 may be that, too: GitHub's has no requests left or
    a Retry-After, Google's says so in its body.
    """
    if status != 403:
        return status == 429
    if headers.get("retry-after") is not None or _first(headers, _REMAINING) == 0:
        return True
    return any(reason in body for reason in _GOOGLE_REASONS)


def is_used_up(headers: Mapping[str, str]) -> bool:
    """Whether an answer says that no request is left until the limit's reset."""
    return _first(headers, _REMAINING) == 0


def limit_pause_s(headers: Mapping[str, str], *, now_s: float) -> float | None:
    """The seconds until requests are taken again; None if the answer does not say.

    That is Retry-After, or, where no requests are left, the limit's reset. A moment counts from the
    answer's own Date: the two clocks may differ.
    """
    date_s = _http_date_s(headers.get("date", ""))
    now_s = now_s if date_s is None else date_s
    asked_s = retry_after_s(headers.get("retry-after"), now_s=now_s)
    if asked_s is not None:
        return asked_s
    reset = _first(headers, _RESET)
    if reset is None or _first(headers, _REMAINING) not in (0, None):
        return None
    if reset >= _EPOCH_S:
        reset = (reset / 1000 if reset >= _EPOCH_MS else reset) - now_s
    return max(reset, 0.0) + _ROUNDED_S


def _first(headers: Mapping[str, str], names: tuple[str, ...]) -> float | None:
    """The number in the first of these headers that is there and begins with one."""
    for name in names:
        # draft-ietf-httpapi-ratelimit-headers: more values may follow a comma or semicolon.
        text = headers.get(name, "").partition(",")[0].partition(";")[0].strip()
        if text.isascii() and text.isdecimal():
            return float(text)
    return None


def _http_date_s(value: str) -> float | None:
    try:
        moment = email.utils.parsedate_to_datetime(value)
        if moment.tzinfo is None:  # RFC 9110, 5.6.7: the moment is in GMT
            moment = moment.replace(tzinfo=datetime.UTC)
        return moment.timestamp()
    except (ValueError, OverflowError):
        return None

"""The pauses that answers ask for, in the headers that products use."""

from __future__ import annotations

import pytest

from siemrelay.wire.rate_limits import is_throttled, limit_pause_s

NOW_S = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("headers", "pause_s"),
    [
        ({}, None),
        ({"retry-after": "17"}, 17.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:50 GMT"}, 30.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:00:00 GMT"}, 0.0),
        # Our clock is an hour late: the answer's own counts.
        ({"date": "Tue, 14 Nov 2023 23:13:20 GMT", "retry-after": "Tue, 14 Nov 2023 23:13:50 GMT"},
         30.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1700000060"}, 61.0),  # GitHub
        ({"x-rate-limit-remaining": "0", "x-rate-limit-reset": "1700000060",
          "date": "Tue, 14 Nov 2023 22:13:50 GMT"}, 31.0),  # Okta
        ({"x-rate-limit-reset": "1700000060"}, 61.0),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "1700000060"}, 61.0),  # GitLab
        ({"ratelimit-remaining": "0", "ratelimit-reset": "12"}, 13.0),  # the IETF's draft
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1700000060000"}, 61.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1600000000"}, 1.0),
        ({"x-ratelimit-remaining": "4", "x-ratelimit-reset": "1700000060"}, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "soon"}, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "-5"}, None),
        ({"retry-after": "3", "x-ratelimit-reset": "1700000060"}, 3.0),
    ],
)  # fmt: skip
def test_the_pause_that_an_answer_asks_for(headers: dict[str, str], pause_s: float | None) -> None:
    assert limit_pause_s(headers, now_s=NOW_S) == pause_s


@pytest.mark.parametrize(
    ("status", "headers", "body", "throttled"),
    [
        (429, {}, b"", True),
        (403, {}, b"Forbidden", False),
        (403, {"x-ratelimit-remaining": "0"}, b"API rate limit exceeded", True),
        (403, {"x-ratelimit-remaining": "57"}, b"Must have admin rights", False),
        (403, {"retry-after": "60"}, b"secondary rate limit", True),
        (403, {}, b'{"error":{"errors":[{"reason":"userRateLimitExceeded"}]}}', True),
        (403, {}, b'{"error":{"errors":[{"reason":"quotaExceeded"}]}}', True),
        (403, {}, b'{"error":{"errors":[{"reason":"insufficientPermissions"}]}}', False),
        (200, {"x-ratelimit-remaining": "0"}, b"", False),
        (503, {"retry-after": "5"}, b"", False),
    ],
)
def test_only_the_rate_is_no_fault_of_the_token(
    status: int, headers: dict[str, str], body: bytes, *, throttled: bool
) -> None:
    assert is_throttled(status, headers, body) is throttled

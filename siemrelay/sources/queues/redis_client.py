"""The client of Redis: how it is made, and its failures by what a person can do about them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from siemrelay.core.extras import REDIS as EXTRA
from siemrelay.sources.queues.redis_options import RedisOptions
from siemrelay.sources.queues.window import QueueFailed

# No answer within this, beyond the wait that was asked for, is none.
_ANSWER_S: Final = 10.0


def connected(options: RedisOptions) -> Any:
    """A client, which connects by itself when it is used. Raises QueueFailed."""
    try:
        import redis  # an extra, and slow to load
    except ImportError as error:
        raise QueueFailed(EXTRA.absence, advice=EXTRA.advice) from error
    tls: dict[str, Any] = {}
    if options.url.startswith("rediss"):
        # The host name is not compared by itself before redis-py 6.
        tls = {"ssl_ca_certs": options.ca, "ssl_check_hostname": True}
    return redis.Redis.from_url(
        str(options.url), socket_timeout=_ANSWER_S, socket_connect_timeout=_ANSWER_S,
        health_check_interval=0, **tls,
    )  # fmt: skip


@contextmanager
def told(stream: str) -> Iterator[None]:
    """Make the client's errors within QueueFailed."""
    import redis

    try:
        yield
    except redis.AuthenticationError as error:
        raise QueueFailed(
            f"Redis refused the password: {error}", advice="mend the user and password in `url`"
        ) from None
    except redis.exceptions.NoPermissionError as error:
        raise QueueFailed(
            f"Redis: {error}", advice="the user needs xreadgroup, xack, xautoclaim, xclaim and "
            "xgroup on this key",
        ) from None  # fmt: skip
    except redis.exceptions.ReadOnlyError as error:
        raise QueueFailed(
            f"Redis: {error}", advice="write the primary's address in `url`"
        ) from None
    except redis.ResponseError as error:
        said = str(error)
        advice = "" if said.startswith(_PASSING) else (
            f"is `stream: {stream}` a stream, and Redis 6.2 or newer?"
        )  # fmt: skip
        raise QueueFailed(f"Redis: {said}", advice=advice) from None
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        raise QueueFailed(f"Redis: {error}; is it running there?") from error


_PASSING: Final = ("NOGROUP", "OOM", "MASTERDOWN", "TRYAGAIN", "CLUSTERDOWN", "UNBLOCKED")
"""What these words begin passes by itself, or with a new start of the source."""

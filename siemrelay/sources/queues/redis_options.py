"""What a Redis stream and its consumer group need to be told."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from siemrelay.core.options import Duration, Secret
from siemrelay.net.pem import AuthorityFile
from siemrelay.sources.queues.window import WindowOptions


def _redis_url(value: str) -> Secret:
    parts = urlsplit(value)
    if parts.scheme not in ("redis", "rediss", "unix") or not (parts.hostname or parts.path):
        raise ValueError("write redis://HOST:PORT/DATABASE, or rediss:// for TLS")
    return Secret(value)


_Text = Annotated[str, Field(min_length=1)]


class RedisOptions(WindowOptions):
    """Settings of `type: redis`."""

    url: Annotated[Secret, AfterValidator(_redis_url)] = Field(
        description="redis://USER:PASSWORD@HOST:PORT/DATABASE; rediss:// is within TLS, verified"
    )
    stream: _Text = Field(description="the stream's key; it need not exist yet")
    group: _Text = Field("siemrelay", description="the consumer group; made if it does not exist")
    consumer: _Text | None = Field(
        None,
        description="this relay's name in the group, different for each; by default one that is "
        "made up and kept in `state_dir`",
    )
    field: _Text | None = Field(
        None,
        description="which field of an entry is the record; by default its only one, or all of "
        "them as a JSON object",
    )
    claim_after: Annotated[Duration, Field(ge=1)] = Field(
        60.0,
        description="entries that another relay has held without a sign of life for so long are "
        "taken over",
    )
    start_at: Literal["beginning", "end"] = Field(
        "beginning",
        description="where a group that is made here starts in the stream; one that was lost "
        "since starts at the beginning",
    )
    ca: AuthorityFile | None = Field(
        None, description="authorities to trust (PEM), instead of the system's"
    )

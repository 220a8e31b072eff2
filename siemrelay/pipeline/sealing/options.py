"""The options of a sink's seals."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from siemrelay.core.options import Duration, Options, Secret


class SealOptions(Options):
    """Seals, by which an auditor verifies at the receiver that nothing is missing or changed."""

    every: Annotated[Duration, Field(ge=1)] = Field(
        60.0, description="how often a seal is sent: at most so much is not under one"
    )
    keep: Duration = Field(
        90 * 86400.0,
        description="how long the relay keeps the hash of each message (32 bytes), by which a "
        "changed one is named; seals stay for ever",
    )
    key: Secret | None = Field(
        None,
        description="the signing key, as in the file `seal.key`; by default that file in "
        "`state_dir`, which is made at the first start",
    )


def _expanded(value: Any) -> Any:
    """Expand the short forms `yes` and `no`."""
    if isinstance(value, bool):
        return {} if value else None
    return value


SealChoice = Annotated[
    SealOptions | None,
    BeforeValidator(_expanded, json_schema_input_type=bool | SealOptions | None),
    Field(
        description="number every message and send signed seals, for `siemrelay verify`: `yes`, or "
        "a mapping"
    ),
]
"""What may be written for `seal`: yes, no or a mapping."""

"""The name and settings of a sealed stream."""

from __future__ import annotations

from pathlib import Path

import msgspec


class StreamSettings(msgspec.Struct, frozen=True):
    """The name and settings of a stream; see `StreamState` and `SealTally` for the fields."""

    relay: str
    sink: str
    protocol: str
    format: str
    configuration: str
    every_s: float
    keep_s: float
    state_dir: Path

"""How commands open the buffer, also while a relay runs on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from siemrelay.buffer.sqlite.store import Store
from siemrelay.buffer.state_dir import find_buffer
from siemrelay.cli.config_faults import exit_with_faults
from siemrelay.cli.options import advice
from siemrelay.cli.refusal import refuse
from siemrelay.config.load import Loaded, load
from siemrelay.core.errors import BufferBroken, BufferFull, ConfigurationRefused, StartRefused
from siemrelay.telemetry.log import Redactor, configure


def load_or_exit(config: str, *, sends_to: str | None = None) -> Loaded:
    """Load the configuration and set the log up for a person; exits with 78 on faults.

    Only the secrets of the sink `sends_to` are needed.
    """
    only = [] if sends_to is None else [sends_to]
    try:
        loaded = load(config, need_credentials=sends_to is not None, only_sinks=only)
    except ConfigurationRefused as refused:
        exit_with_faults(refused, "the buffer was not touched")
    configure("warning", "auto", Redactor(loaded.secrets), config)
    return loaded


@contextmanager
def open_buffer(state_dir: Path) -> Iterator[Store]:
    """Open the buffer; exits with 75 when it cannot be opened now, with 74 when the disk fails."""
    try:
        with closing(Store(find_buffer(state_dir))) as store:
            yield store
    except (StartRefused, BufferFull) as error:
        refuse(advice(f"siemrelay: {error}"), os.EX_TEMPFAIL)
    except BufferBroken as error:
        refuse(advice(f"siemrelay: {error}"), os.EX_IOERR)


def range_end(store: Store, last: int | None, until: float | None, end: int) -> int:
    """`end`, or the sequence number after `last` or of the first record received at `until`."""
    ends = [end]
    if last is not None:
        ends.append(last + 1)
    if until is not None and (later := store.received_after(until)) is not None:
        ends.append(later)
    return min(ends)

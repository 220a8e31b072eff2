"""How commands come to a buffer, beside the relay that may run on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import click

from siemrelay.buffer.state_dir import find_buffer
from siemrelay.buffer.store import Store
from siemrelay.cli.refusal import refuse
from siemrelay.config.load import Loaded, load
from siemrelay.core.errors import BufferBroken, BufferFull, ConfigurationRefused, StartRefused
from siemrelay.telemetry.log import Redactor, configure


def loaded_from(config: str) -> Loaded:
    """The configuration; what is logged from here on is for a person. Ends with 78 on faults."""
    try:
        loaded = load(config)
    except ConfigurationRefused as refused:
        refuse(refused)
    configure("warning", "auto", Redactor(loaded.secrets))
    return loaded


@contextmanager
def opened(state_dir: Path) -> Iterator[Store]:
    """Its buffer. Ends with 75 when it cannot be opened now, with 74 when the disk fails."""
    try:
        with closing(Store(find_buffer(state_dir))) as store:
            yield store
    except (StartRefused, BufferFull) as error:
        click.secho(f"siemrelay: {error}", err=True, fg="red")
        raise SystemExit(os.EX_TEMPFAIL) from error
    except BufferBroken as error:
        click.secho(f"siemrelay: {error}", err=True, fg="red")
        raise SystemExit(os.EX_IOERR) from error

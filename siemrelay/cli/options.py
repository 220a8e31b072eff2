"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click

DEFAULT_FILE: Final = "/etc/siemrelay/siemrelay.yaml"


def config_option(*, required: bool = True) -> Callable[[Any], Any]:
    """The option `-c FILE`; the command gets `config`, without a default if not `required`."""
    return click.option(
        "-c",
        "--config",
        metavar="FILE",
        type=click.Path(dir_okay=False),
        default=DEFAULT_FILE if required else None,
        show_default=required,
        help="The configuration file.",
    )


def json_option() -> Callable[[Any], Any]:
    """The option `--json`; the command gets `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")

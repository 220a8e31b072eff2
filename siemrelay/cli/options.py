"""Options that several commands have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click

DEFAULT_FILE: Final = "/etc/siemrelay/siemrelay.yaml"


def config_option(*, required: bool = True) -> Callable[[Any], Any]:
    """`-c FILE`, given to the command as `config`; without a default if not `required`."""
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
    """`--json`, given to the command as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Write JSON, for programs.")

"""Options that several commands share."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import click

from siemrelay.core.own_commands import DEFAULT_FILE, with_config


def config_option(*, required: bool = True) -> Callable[[Any], Any]:
    """The option `-c FILE`; the command gets `config`, without a default if not `required`.

    Whether the file can be read is found out by loading it: faults have one form and one exit code.
    """
    return click.option(
        "-c",
        "--config",
        metavar="FILE",
        multiple=True,
        default=(DEFAULT_FILE,) if required else (),
        show_default=required,
        callback=_the_only_one,
        help="The configuration file.",
    )


def _the_only_one(_: click.Context, param: click.Parameter, files: tuple[str, ...]) -> str | None:
    if len(files) > 1:
        raise click.BadParameter(
            f"given {len(files)} times ({', '.join(files)}); one file is the whole configuration",
            param=param,
        )
    return files[0] if files else None


def advice(text: str) -> str:
    """The text; the commands in it name the `-c FILE` that this command was given."""
    context = click.get_current_context(silent=True)
    file = context.params.get("config") if context else None
    return with_config(text, file or DEFAULT_FILE)


def read_by(read: Callable[[Any], Any]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """A callback for an option: its value as `read` makes it of what was given; None stays None.

    A ValueError or OSError of `read` is a usage error with that message.
    """

    def callback(_: click.Context, param: click.Parameter, value: Any) -> Any:
        try:
            return None if value is None else read(value)
        except (OSError, ValueError) as error:
            raise click.BadParameter(str(error), param=param) from error

    return callback


def moment(text: str) -> float:
    """`2026-11-28T03:00:00Z` as seconds since the epoch; without a zone it is UTC.

    Raises ValueError with an example.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("write a time like 2026-11-28T03:00:00Z") from None
    return found.replace(tzinfo=found.tzinfo or UTC).timestamp()


def moment_or_age(text: str) -> float:
    """As `moment`; `2h` is two hours ago."""
    from siemrelay.core.options import seconds  # it takes time, and most commands need none of it

    if _YEAR.match(text):
        return moment(text)
    try:
        return time.time() - seconds(text)
    except ValueError as error:
        raise ValueError(f"{error}, or a time like 2026-11-28T03:00:00Z") from None


_YEAR: Final = re.compile(r"\d{4}-")


def period_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options `--since` and `--until`; the command gets them as seconds since the epoch."""
    for name, words in (("--until", "before"), ("--since", "at or after")):
        command = click.option(
            name, metavar="TIME", callback=read_by(moment_or_age),
            help=f"Records received {words} this time, like 2026-11-28T03:00:00Z, or 2h for two "
            "hours ago.",
        )(command)  # fmt: skip
    return command


Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def _named(section: str) -> Complete:
    def complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
        # Imported here, and read without validation: a shell waits for it at the tab key.
        from siemrelay.config.files import document_of, text_of
        from siemrelay.core.errors import ConfigurationRefused

        file = context.params.get("config") or DEFAULT_FILE
        try:
            top = document_of(text_of(file), file).value
        except ConfigurationRefused:
            return []
        names = top.get(section) if isinstance(top, dict) else None
        return [
            name for name in names or () if isinstance(name, str) and name.startswith(incomplete)
        ]

    return complete


complete_sinks: Final = _named("sinks")
"""For `shell_complete`: the sinks of the configuration in use."""

complete_sources: Final = _named("sources")
"""As `complete_sinks`, the sources."""


def json_option() -> Callable[[Any], Any]:
    """The option `--json`; the command gets `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")

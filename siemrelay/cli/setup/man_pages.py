"""Man pages of all commands, from their own help (man(7))."""

from __future__ import annotations

import re
from collections.abc import Iterator
from inspect import cleandoc
from typing import Final

import click

from siemrelay import __version__
from siemrelay.cli.commands import COMMANDS, main

_FILES: Final = (
    ("/etc/siemrelay/siemrelay.yaml", "the configuration"),
    ("/etc/siemrelay/credentials/", "secrets, which systemd hands to the service"),
    ("/var/lib/siemrelay/", "the disk buffer"),
)


def pages() -> dict[str, str]:
    """Name of a file → its page: `siemrelay.1`, and one for each command."""
    context = click.Context(main, info_name="siemrelay")
    found = {"siemrelay.1": _page(context, "siemrelay", "forward audit events to SIEMs")}
    for name, (_, line) in COMMANDS.items():
        command = main.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context)
        found[f"siemrelay-{name}.1"] = _page(inner, f"siemrelay-{name}", line)
    return found


def _page(context: click.Context, title: str, line: str) -> str:
    return "\n".join(_lines(context, title, line)) + "\n"


def _lines(context: click.Context, title: str, line: str) -> Iterator[str]:
    yield f'.TH "{title.upper()}" 1 "" "siemrelay {__version__}" "siemrelay"'
    yield ".SH NAME"
    yield f"{_escaped(title)} \\- {_escaped(line)}"
    yield ".SH SYNOPSIS"
    yield from _usage(context)
    yield from _described(context.command, ".SH DESCRIPTION")
    yield from _options(context, ".SH OPTIONS")
    if context.command is main:
        yield ".SH COMMANDS"
        for name, (_, text) in COMMANDS.items():
            yield from (".TP", f"\\fBsiemrelay\\-{_escaped(name)}\\fR(1)", _escaped(text))
    elif isinstance(context.command, click.Group):
        for name, command in context.command.commands.items():
            inner = click.Context(command, info_name=name, parent=context)
            yield f".SH {_escaped(name).upper()}"
            yield from _usage(inner)
            yield from _described(command, ".PP")
            yield from _options(inner, ".PP")
    yield ".SH FILES"
    for path, text in _FILES:
        yield from (".TP", f"\\fI{_escaped(path)}\\fR", _escaped(text))
    yield ".SH SEE ALSO"
    others = [f"\\fBsiemrelay\\-{_escaped(name)}\\fR(1)" for name in COMMANDS]
    yield ", ".join(others if context.command is main else ["\\fBsiemrelay\\fR(1)"])


def _usage(context: click.Context) -> Iterator[str]:
    words = context.command.collect_usage_pieces(context)
    yield f"\\fB{_escaped(context.command_path)}\\fR {_escaped(' '.join(words))}"


def _described(command: click.Command, heading: str) -> Iterator[str]:
    """The help: paragraphs, and blocks that stand as they are written."""
    yield heading
    first = True
    for block in re.split(r"\n\n+", cleandoc(command.help or "")):
        verbatim = block.startswith("\b")
        if not first:
            yield ".PP"
        first = False
        if verbatim:
            yield from (".nf", *map(_escaped, block.splitlines()[1:]), ".fi")
        else:
            yield _escaped(" ".join(block.split()))


def _options(context: click.Context, heading: str) -> Iterator[str]:
    records = [
        record
        for parameter in context.command.get_params(context)
        if isinstance(parameter, click.Option)
        and (record := parameter.get_help_record(context)) is not None
    ]
    if records:
        yield heading
    for names, text in records:
        yield from (".TP", f"\\fB{_escaped(names)}\\fR", _escaped(" ".join(text.split())))


def _escaped(text: str) -> str:
    """Text that troff prints as it is."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("\u2026", "\\[u2026]")
    return f"\\&{text}" if text.startswith((".", "'")) else text

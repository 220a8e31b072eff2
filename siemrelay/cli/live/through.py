"""`siemrelay test --through`: asks the running relay to follow a test event."""

from __future__ import annotations

import json
import os
from typing import Final, NoReturn

import click
import msgspec

from siemrelay.cli.live.control_client import directory_of, follow, print_answer
from siemrelay.cli.options import advice
from siemrelay.formats.writing.text import sanitize_for_display
from siemrelay.relay.control import ControlAnswer, TestLine, TestRequest

# The relay answers at the end of the time that it was given; then it is busy or dead.
_GRACE_S: Final = 30.0

_COLOURS: Final = {
    "delivered": "green", "filtered": "yellow", "disabled": "yellow", "paused": "yellow",
}  # fmt: skip


def test_through(
    config: str, sinks: list[str], timeout_s: float, *, person: str | None, as_json: bool
) -> NoReturn:
    """Print what becomes of the event for each sink, then exit: 0 if none failed, else 1."""
    if person and os.geteuid() != 0:
        raise click.UsageError("only root may send a test through the relay --as somebody else")
    request = TestRequest(sinks, timeout_s)
    answer, found = ControlAnswer(False, []), list[TestLine]()
    for line in follow(directory_of(config), request, timeout_s + _GRACE_S, person):
        if isinstance(line, TestLine):
            found.append(line)
            if not as_json:
                colour = _COLOURS.get(line.outcome, "red")
                outcome = click.style(f"{line.outcome:15}", fg=colour)
                click.echo(
                    f"  {line.sink:20} {outcome} {sanitize_for_display(advice(line.detail), 1000)}"
                )
        elif isinstance(line, ControlAnswer):
            answer = line
    if not found:
        print_answer(answer)
    if as_json:
        result = {"taken": answer.done, "mark": answer.lines[-1],
                  "sinks": msgspec.to_builtins(found)}  # fmt: skip
        click.echo(json.dumps(result))
    elif answer.done:
        click.secho(f"{answer.lines[0]}: every sink confirmed it or filters it", fg="green")
    else:
        click.secho(f"{answer.lines[0]}: not every sink confirmed it", err=True, fg="red")
    if not as_json:
        click.echo(f"A search for {answer.lines[-1]} finds it at the receivers.")
    raise SystemExit(0 if answer.done else 1)

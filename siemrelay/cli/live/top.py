"""`siemrelay top`: the running relay's status, refreshed every second."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import click

from siemrelay.cli.live.endpoint_client import (
    RelayUnreachable,
    endpoint_of,
    endpoint_options,
    exit_unreachable,
    fetch_status,
)
from siemrelay.cli.live.status import styled
from siemrelay.cli.refusal import refuse

_EVERY_S: Final = 1.0

# What terminals send (xterm's control sequences; `j` and `k` as in less).
_KEYS: Final = {
    b"q": "q", b"s": "s", b"\x1b[A": "up", b"\x1bOA": "up", b"k": "up", b"\x1b[B": "down",
    b"\x1bOB": "down", b"j": "down", b"\r": "enter", b"\n": "enter", b"\x1b": "escape",
}  # fmt: skip

_ENTER: Final = "\x1b[?1049h\x1b[?25l"
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"


@click.command()
@endpoint_options
def top(config: str, at: tuple[str, int] | None) -> None:
    """Show `siemrelay status` live, until `q` or Ctrl-C. Needs a terminal.

    `s` changes the order of the sinks (as configured, state, backlog, behind, rate, name); the
    arrow keys pick a sink and Enter shows all that is known of it. Continues while the relay
    restarts.

    \b
    Example:
      siemrelay top -c relay.yaml
    """
    if not sys.stdout.isatty():
        refuse("top needs a terminal; `siemrelay status` does not", os.EX_USAGE)
    address = endpoint_of(config, at)
    try:
        report = fetch_status(address)
    except RelayUnreachable as error:
        exit_unreachable(error)
    from siemrelay.cli.live.top_screen import (
        TopView,
        screen,
    )  # imports rich, which only this command needs

    view, going, message = TopView(), True, ""
    with suppress(KeyboardInterrupt), _full_screen():
        while going:
            fetched_at = time.monotonic()
            try:
                report = fetch_status(address)
                message = ""
            except RelayUnreachable as error:
                message = str(error)
            while going:
                width, height = os.get_terminal_size()
                shown = screen(report, view, width, height, message)
                sys.stdout.write("\x1b[H" + "\x1b[K\n".join(map(styled, shown)) + "\x1b[K\x1b[J")
                sys.stdout.flush()
                key = _key(fetched_at + _EVERY_S - time.monotonic())
                if key is None:
                    break
                going = view.press(key, report)


@contextmanager
def _full_screen() -> Iterator[None]:
    """The whole terminal, keys as they are pressed; as it was afterwards."""
    keyboard = sys.stdin.fileno() if sys.stdin.isatty() else None
    before = None if keyboard is None else termios.tcgetattr(keyboard)
    try:
        if keyboard is not None:
            tty.setcbreak(keyboard)
        sys.stdout.write(_ENTER)
        yield
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
        if keyboard is not None and before is not None:
            termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def _key(within_s: float) -> str | None:
    """The next known key; None if none is pressed in time."""
    if not sys.stdin.isatty():
        time.sleep(max(within_s, 0.0))
        return None
    until = time.monotonic() + within_s
    while select.select([sys.stdin], [], [], max(until - time.monotonic(), 0.0))[0]:
        pressed = os.read(sys.stdin.fileno(), 32)
        if not pressed:  # the terminal is gone
            return "q"
        if (key := _KEYS.get(pressed)) is not None:
            return key
    return None

"""The path of an event as a picture: logs, the relay and its buffer, sinks."""

from __future__ import annotations

from typing import Final

from rich.text import Text

from siemrelay.demo.audit_log import PRODUCTS
from siemrelay.demo.scene import CHOICES, TAKES, WAYS
from siemrelay.demo.stage import Stage

# Together a line of 99 cells: a terminal of 100 is shown everything.
_LOG_CELLS: Final = 19
_COUNT_CELLS: Final = 7
_BOX_CELLS: Final = 16
_WAY_CELLS: Final = 12


def picture(stage: Stage) -> Text:
    """Five lines of 99 cells."""
    logs = [_log(stage, product) for product in PRODUCTS]
    blank = " " * (_LOG_CELLS + _COUNT_CELLS + len(_LINES))
    rows = [
        (Text(blank), "    ", "┌" + "─" * _BOX_CELLS + "┐", None),
        (logs[0], "─┐  ", _boxed("siemrelay run"), 0),
        (Text(blank), " ├─▶", _boxed("buffer on disk"), 1),
        (logs[1], "─┘  ", _boxed(f"{stage.figures.stored:,} stored"), 2),
        (Text(blank), "    ", "└" + "─" * _BOX_CELLS + "┘", None),
    ]
    names = list(CHOICES)
    lines = []
    for log, joint, box, sink in rows:
        line = Text.assemble(log, (joint, "cyan"), (box, "cyan"))
        if sink is not None:
            line.append_text(_branch(stage, names[sink], sink))
        lines.append(line)
    found = Text("\n").join(lines)
    found.no_wrap, found.overflow = True, "crop"
    return found


_LINES: Final = " lines "


def _log(stage: Stage, product: str) -> Text:
    log = stage.writer.logs[product]
    name = f"{product}/{log.path.name}"
    return Text.assemble((name.ljust(_LOG_CELLS), "bold"), f"{log.lines:>{_COUNT_CELLS},}{_LINES}")


def _boxed(text: str) -> str:
    return f"│{text.center(_BOX_CELLS)}│"


_JOINTS: Final = ("─┬", " ├", " └")


def _branch(stage: Stage, name: str, index: int) -> Text:
    down = stage.down == name
    way = f" {WAYS[name]} ".ljust(_WAY_CELLS, "─")
    head, colour = ("✗ ", "red") if down else ("▶ ", "cyan")
    return Text.assemble(
        (f"{_JOINTS[index]}─", "cyan"), (way, colour), (f"─{head}", colour),
        (name.ljust(11), "red bold" if down else "bold"), (TAKES[name], "dim"),
    )  # fmt: skip

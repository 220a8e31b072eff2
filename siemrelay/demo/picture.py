"""The path of an event as a picture: logs, the relay and its buffer, sinks."""

from __future__ import annotations

from typing import Final

from rich.text import Text

from siemrelay.demo.audit_log import PRODUCTS
from siemrelay.demo.scene import CHOICES, TAKES, WAYS
from siemrelay.demo.stage import Stage
from siemrelay.options import show_bytes

_LOG_CELLS: Final = 20
_BOX_CELLS: Final = 20
_WAY_CELLS: Final = 15

_KIB: Final = 1024


def picture(stage: Stage) -> Text:
    """Five lines of about 95 cells."""
    buffer = show_bytes(stage.figures.buffer_bytes // _KIB * _KIB)
    logs = [_log(stage, product) for product in PRODUCTS]
    blank = " " * (_LOG_CELLS + 15)
    rows = [
        (Text(blank), "    ", "┌" + "─" * _BOX_CELLS + "┐", None),
        (logs[0], "─┐  ", _boxed("siemrelay run"), 0),
        (Text(blank), " ├─▶", _boxed("buffer on disk"), 1),
        (logs[1], "─┘  ", _boxed(f"{stage.figures.stored:,} in {buffer}"), 2),
        (Text(blank), "    ", "└" + "─" * _BOX_CELLS + "┘", None),
    ]
    names = list(CHOICES)
    lines = []
    for log, joint, box, sink in rows:
        line = Text.assemble(log, (joint, "cyan"), (box, "cyan"))
        if sink is not None:
            line.append_text(_branch(stage, names[sink], sink))
        lines.append(line)
    return Text("\n").join(lines)


def _log(stage: Stage, product: str) -> Text:
    log = stage.writer.logs[product]
    name = f"{product}/{log.path.name}"
    return Text.assemble((name.ljust(_LOG_CELLS), "bold"), f"{log.lines:>7,} lines ")


def _boxed(text: str) -> str:
    return f"│{text.center(_BOX_CELLS)}│"


_JOINTS: Final = ("─┬", " ├", " └")


def _branch(stage: Stage, name: str, index: int) -> Text:
    down = stage.down == name
    way = f" {WAYS[name]} ".ljust(_WAY_CELLS + 2, "─")
    head, colour = ("✗ ", "red") if down else ("▶ ", "cyan")
    return Text.assemble(
        (f"{_JOINTS[index]}─", "cyan"), (way, colour), (f"─{head}", colour),
        (name.ljust(11), "red bold" if down else "bold"), (TAKES[name], "dim"),
    )  # fmt: skip

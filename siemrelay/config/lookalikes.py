"""Points at characters that look like those of YAML and are not, where they may explain a fault.

Word processors, chats and web pages put them in: `“` for a quotation mark, a no-break space for a
space. YAML takes them for text, so the parser's message is about something else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from siemrelay.core.errors import Fault

_MEANT: Final = {
    **dict.fromkeys("“”„‟«»＂", 'looks like `"`: type that'),  # noqa: RUF001 (they are the point)
    **dict.fromkeys("‘’‚‛＇", "looks like `'`: type that"),  # noqa: RUF001
    **dict.fromkeys("\u00a0\u2007\u202f\u3000", "looks like a space: type that"),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", "is invisible: take it out"),
    **dict.fromkeys("‐‑‒–—−－", "looks like `-`: type that"),  # noqa: RUF001
    **dict.fromkeys("：", "looks like `:`: type that"),  # noqa: RUF001
    **dict.fromkeys("，", "looks like `,`: type that"),  # noqa: RUF001
}  # fmt: skip
_LOOKALIKE: Final = re.compile(f"[{''.join(_MEANT)}]")
_END_OF_VALUE: Final = re.compile(r", |\}|$")


def with_lookalikes(
    faults: Iterable[Fault], text: str, included: Mapping[str, str] = MappingProxyType({})
) -> list[Fault]:
    """The faults, each with the first lookalike in its key or value, if there is one.

    Where a fault names no key the YAML is broken, and the cause may also stand before it: in its
    line or the one above. `included` are the texts of the other files that faults may name.
    """
    lines = {file: each.split("\n") for file, each in included.items()}
    main = text.split("\n")
    return [
        _explained(fault, lines.get(fault.file, []) if fault.file else main) for fault in faults
    ]


def _explained(fault: Fault, lines: list[str]) -> Fault:
    if fault.line is None:
        return fault
    start = (fault.column or 1) - 1
    for line in (fault.line, fault.line - 1) if not fault.key else (fault.line,):
        if not 0 < line <= len(lines):
            continue
        text = lines[line - 1]
        if fault.key and (end := _END_OF_VALUE.search(text, start)):
            found = _LOOKALIKE.search(text, start, end.start())
        else:
            found = _LOOKALIKE.search(text)
        if found is not None:
            hint = f"column {found.start() + 1} of line {line} has U+{ord(found[0]):04X}"
            return replace(fault, message=f"{fault.message}; {hint}, which {_MEANT[found[0]]}")
    return fault

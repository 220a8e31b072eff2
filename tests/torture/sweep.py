"""One failing call at a time, for every one of a small life: `python -m tests.torture.sweep`.

Runs with the library preloaded and forks a process for each life, which is twenty times faster than
starting one. Arguments: LIBRARY ROOT CALL ERRNO TIMES STRIDE SEED. Prints one `Outcome` a line.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import msgspec

from tests.torture.laws import Past, broken_laws
from tests.torture.shim import Call, Shim
from tests.torture.workload import run

STEPS = 8


class Outcome(msgspec.Struct, frozen=True):
    """What came of it: exit codes of the life with the fault and of the next one, what is wrong
    with the directory afterwards, and what they wrote.
    """

    skip: int
    failed_calls: int
    first: int
    second: int
    broken: list[str]
    said: str


def forked(work: Callable[[], int], output: Path) -> int:
    """Do it in a process of its own; the exit code, 1 for any traceback."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    try:
        os._exit(work())
    except BaseException:  # noqa: BLE001  (a fork must not go on in the parent's place)
        traceback.print_exc()
        os._exit(1)


def outcome(
    shim: Shim, root: Path, call: Call, error: int, times: int, skip: int, seed: str
) -> Outcome:
    root.mkdir()
    said, found = root / "said", root / "broken"
    shim.fail(call, error, skip=skip, times=times, part="/state")
    first = forked(lambda: run(root, f"{seed}.1", STEPS), said)
    failed = shim.failed
    shim.heal()
    second = forked(lambda: run(root, f"{seed}.2", STEPS), said)

    def check() -> int:
        past = Past()
        if (root / "marks").exists():
            past.note((root / "marks").read_bytes())
        found.write_bytes(msgspec.json.encode(broken_laws(root / "state", past)))
        return 0

    checked = forked(check, said)
    broken = (
        msgspec.json.decode(found.read_bytes(), type=list[str]) if not checked else ["no check"]
    )
    return Outcome(skip, failed, first, second, broken, said.read_text())


def main() -> None:
    library, root, call, error, times, stride, seed = sys.argv[1:]
    with Shim(Path(library), Path(root)) as shim:
        for skip in range(0, 10_000, int(stride)):
            found = outcome(
                shim, Path(root) / str(skip), Call[call], int(error), int(times), skip, seed
            )
            if not found.failed_calls:
                return
            print(msgspec.json.encode(found).decode(), flush=True)


if __name__ == "__main__":
    main()

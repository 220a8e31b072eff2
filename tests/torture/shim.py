"""The preloaded library that records, breaks and delays what a process does to its files."""

from __future__ import annotations

import ctypes
import enum
import mmap
import os
import struct
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.servers import program

SOURCE = Path(__file__).with_name("disk_shim.c")

HANG = -1


HEAD = struct.Struct("=IIQqQ")
"""Of a record in the log: call, bytes of the path, inode, offset, size."""


class Call(enum.IntEnum):
    """What the library knows, numbered as in its source. NONE is in the log for a mark."""

    WRITE = 0
    SYNC = 1
    TRUNCATE = 2
    ALLOCATE = 3
    OPEN = 4
    UNLINK = 5
    RENAME = 6
    MKDIR = 7
    FAILED_SYNC = 8
    NONE = 9


class _Control(ctypes.Structure):
    _fields_ = (
        ("clock_offset_ns", ctypes.c_int64),
        ("call", ctypes.c_int32),
        ("error", ctypes.c_int32),
        ("skip", ctypes.c_int32),
        ("times", ctypes.c_int32),
        ("hanging", ctypes.c_int32),
        ("failed", ctypes.c_int32),
        ("made", ctypes.c_int32 * Call.NONE),
        ("part", ctypes.c_char * 64),
    )


def build(directory: Path) -> Path:
    """Compile the library; skips the test where there is no compiler."""
    library = directory / "disk_shim.so"
    subprocess.run(
        [program("gcc", "gcc"), "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC",
         "-shared", "-o", library, SOURCE, "-ldl", "-lpthread"],
        check=True,
    )  # fmt: skip
    return library


class Shim:
    """The library's settings for processes whose files are below `root`. Use in `with`.

    Any process may have one for the same root: they share what the library obeys. `log` is written
    only when the environment was asked for with `recorded`.
    """

    def __init__(self, library: Path, root: Path) -> None:
        self._library, self._root = library, root
        self.log = root.with_name(f"{root.name}.log")
        self.log.touch()
        control = root.with_name(f"{root.name}.control")
        if not control.exists():
            control.write_bytes(bytes(ctypes.sizeof(_Control)))
        with control.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), ctypes.sizeof(_Control))
        self._control = _Control.from_buffer(self._memory)
        self._path = control
        self.heal()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.heal()
        del self._control
        self._memory.close()

    def environment(self, *, recorded: bool = False) -> dict[str, str]:
        """What a process needs in its environment, beside what it has."""
        settings = {
            "LD_PRELOAD": str(self._library),
            "TORTURE_ROOT": str(self._root),
            "TORTURE_CONTROL": str(self._path),
        }
        return {**os.environ, **settings, **({"TORTURE_LOG": str(self.log)} if recorded else {})}

    def mark(self, text: str) -> None:
        """Write into the log that this happened, after all that is in it now."""
        data = text.encode()
        with self.log.open("ab", buffering=0) as log:
            log.write(HEAD.pack(Call.NONE, 0, 0, 0, len(data)) + data)

    def fail(
        self, call: Call, error: int, *, skip: int = 0, times: int = -1, part: str = ""
    ) -> None:
        """Make such calls fail with an errno, or `HANG` until `heal`: `times` after `skip`.

        `part`: only of files whose path holds it. Negative `times`: until `heal`.
        """
        control = self._control
        control.call = Call.NONE
        control.error, control.skip, control.times = error, skip, times
        control.part = part.encode()
        control.failed = 0
        control.call = call

    def heal(self) -> None:
        """Let every call through again."""
        self._control.call = Call.NONE

    @property
    def hanging(self) -> int:
        """How many calls wait now."""
        return int(self._control.hanging)

    @property
    def failed(self) -> int:
        """How many calls have failed since `fail`."""
        return int(self._control.failed)

    def made(self, call: Call) -> int:
        """How many such calls there were, in files whose path holds the `part` of `fail`."""
        return int(self._control.made[call])

    def move_clock(self, by_s: float) -> None:
        """The wall clock of the processes is off by so much from now on."""
        self._control.clock_offset_ns = int(by_s * 1e9)

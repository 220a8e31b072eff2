"""Programs that rotate their own logs, as loggers and container runtimes do it."""

from __future__ import annotations

import gzip
import logging
import shutil
import subprocess
import threading
import time
from logging.handlers import RotatingFileHandler, TimedRotatingFileHandler, WatchedFileHandler
from pathlib import Path

import loguru

from tests.support.rotation.numbered_logs import Writer
from tests.support.servers import program

# Many rotations in a short test. All programs keep so many files that none is deleted while the
# relay is stopped or starts.
ROLL_BYTES = 4096

loguru.logger.remove()  # its own sink to stderr


class PythonWriter(Writer):
    """Writes through a handler of the standard library's `logging`."""

    def __init__(self, log: str, handler: logging.FileHandler) -> None:
        super().__init__(log)
        self._handler = handler
        logging.raiseExceptions = True

        def fail(record: logging.LogRecord) -> None:
            raise  # what the handler has caught

        handler.handleError = fail  # type: ignore[method-assign]  # a failed write fails the test

    def write(self, line: bytes) -> None:
        self._handler.handle(logging.makeLogRecord({"msg": line.decode()}))

    def close(self) -> None:
        self._handler.close()


def rotating(path: Path) -> RotatingFileHandler:
    """`.1` to `.30`, all names shifted at each rotation."""
    return RotatingFileHandler(path, maxBytes=2 * ROLL_BYTES, backupCount=30, delay=True)


def rotating_gzip(path: Path) -> RotatingFileHandler:
    """The same with gzip, by the recipe of the logging cookbook."""

    def gzipped(source: str, destination: str) -> None:
        with Path(source).open("rb") as read, gzip.open(destination, "wb") as written:
            shutil.copyfileobj(read, written)
        Path(source).unlink()

    handler = rotating(path)
    handler.rotator = gzipped
    handler.namer = lambda name: f"{name}.gz"
    return handler


def timed(path: Path) -> TimedRotatingFileHandler:
    """A new file each second, `.2026-11-27_20-36-41`, and thirty kept."""
    return TimedRotatingFileHandler(path, when="S", backupCount=30, delay=True)


def watched(path: Path) -> WatchedFileHandler:
    """Opens its log again when somebody else has renamed it."""
    return WatchedFileHandler(path, delay=True)


class LoguruWriter(Writer):
    """Writes through loguru: rotated files are named for the microsecond, and compressed at once.

    loguru has one logger; each writer's sink takes the writer's own lines.
    """

    def __init__(self, log: str, root: Path) -> None:
        super().__init__(log)
        self._logger = loguru.logger.bind(log=log)
        self._sink = loguru.logger.add(
            root / f"{log}.log", rotation=2 * ROLL_BYTES, compression="gz", format="{message}",
            filter=lambda record: record["extra"].get("log") == log, catch=False, delay=True,
        )  # fmt: skip

    def write(self, line: bytes) -> None:
        self._logger.info(line.decode())

    def close(self) -> None:
        loguru.logger.remove(self._sink)


class MultilogWriter(Writer):
    """Writes to the standard input of daemontools' multilog, which rotates within its folder.

    The log is `current`, a rotated one `@`, its time and `.s`: with `processor` `gzip`, compressed
    under just that name.
    """

    def __init__(self, log: str, root: Path, *processor: str) -> None:
        super().__init__(log)
        actions = [f"s{ROLL_BYTES}", "n200", *(f"!{each}" for each in processor)]
        self._process = subprocess.Popen(
            [program("multilog", "daemontools"), *actions, str(root / log)], stdin=subprocess.PIPE
        )

    def write(self, line: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")
        self._process.stdin.flush()

    def close(self) -> None:
        self._process.communicate()


class RollingWriter(Writer):
    """Renames its log when it is large, begins a new one, and compresses the old one later.

    The compressed file grows slowly in its place, as that of a large log does.
    """

    def __init__(self, log: str, path: Path, roll_bytes: int = ROLL_BYTES) -> None:
        super().__init__(log)
        self.path, self._roll_bytes = path, roll_bytes
        self._file = path.open("ab", buffering=0)
        self.rolls = 0
        self._compressing: list[threading.Thread] = []

    def write(self, line: bytes) -> None:
        if self._file.tell() > self._roll_bytes:
            self.roll()
        self._file.write(line + b"\n")

    def roll(self) -> None:
        """Rename, begin a new file, compress in the background."""
        raise NotImplementedError

    def _begin(self) -> None:
        self._file.close()
        self._file = self.path.open("ab", buffering=0)

    def compress_later(self, source: Path, destination: Path, named: Path | None = None) -> None:
        """Write `destination` bit by bit, then delete `source`, then rename to `named`."""
        work = threading.Thread(target=self._compress, args=(source, destination, named))
        self._compressing.append(work)
        work.start()

    def _compress(self, source: Path, destination: Path, named: Path | None) -> None:
        with source.open("rb") as read, destination.open("wb", buffering=0) as raw:
            with gzip.GzipFile(fileobj=raw, mode="wb") as written:
                while data := read.read(512):
                    written.write(data)
                    written.flush()
                    time.sleep(0.01)
        if named is not None:
            destination.rename(named)
        source.unlink()

    def close(self) -> None:
        self._file.close()
        for work in self._compressing:
            work.join()


class Log4jWriter(RollingWriter):
    """`app.log`, `app-2026-11-27-1.log` for a moment, then `app-2026-11-27-1.log.gz` (log4j 2)."""

    def roll(self) -> None:
        self.rolls += 1
        old = self.path.with_name(f"{self.path.stem}-2026-11-27-{self.rolls}.log")
        self.path.rename(old)
        self.compress_later(old, old.with_name(f"{old.name}.gz"))
        self._begin()


class LogbackWriter(RollingWriter):
    """`app.log`, `app.2026-11-27.1.log1764273401.tmp` for a moment, then `….1.log.gz`."""

    def roll(self) -> None:
        self.rolls += 1
        name = f"{self.path.stem}.2026-11-27.{self.rolls}.log"
        old = self.path.with_name(f"{name}{time.monotonic_ns()}.tmp")
        self.path.rename(old)
        self.compress_later(old, old.with_name(f"{name}.gz"))
        self._begin()


class KubernetesWriter(RollingWriter):
    """A container's log as kubelet and a container runtime keep it.

    `containers/NAME.log` is a link to `pods/NAME/app/0.log`. Rotated: renamed with the time, the
    one before compressed by way of a `.tmp`; the runtime writes into the renamed file until it has
    opened the new one. Every third time the container starts anew, with `1.log` and so on.
    """

    def __init__(self, log: str, root: Path, roll_bytes: int = ROLL_BYTES) -> None:
        folder = root / "pods" / log / "app"
        folder.mkdir(parents=True)
        self._link = root / "containers" / f"{log}.log"
        self._link.parent.mkdir(exist_ok=True)
        self._link.symlink_to(folder / "0.log")
        super().__init__(log, folder / "0.log", roll_bytes)
        self._before: Path | None = None
        self._late = self._starts = 0

    def write(self, line: bytes) -> None:
        super().write(b"2026-11-27T20:36:41.089Z stdout F " + line)

    def roll(self) -> None:
        if self._late:
            self._late -= 1
            if not self._late:
                self._begin()
        elif self.rolls % 3 == 2:
            self.rolls += 1
            self._start_anew()
        else:
            self.rolls += 1
            self._rename()
            self._late = 5  # so many lines still go into the renamed file

    def _rename(self) -> None:
        if self._before is not None:
            name = self._before.name
            self.compress_later(
                self._before, self._before.with_name(f"{name}.tmp"),
                self._before.with_name(f"{name}.gz"),
            )  # fmt: skip
        self._before = self.path.with_name(f"{self.path.name}.20261127-{self.rolls:06}")
        self.path.rename(self._before)

    def _start_anew(self) -> None:
        self._starts += 1
        self.path = self.path.with_name(f"{self._starts}.log")
        self._begin()
        link = self._link.with_suffix(".new")
        link.symlink_to(self.path)
        link.replace(self._link)

"""The state directory: its lock, and how the relay and other processes open the buffer in it."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import structlog

from siemrelay.buffer.reserve import EmergencyReserve
from siemrelay.buffer.sqlite.errors import NO_ROOM
from siemrelay.buffer.sqlite.files import rewrite
from siemrelay.buffer.sqlite.hidden_records import HiddenRecords, find_hidden_records
from siemrelay.buffer.sqlite.schema import SCHEMA_VERSION, connect_read_only
from siemrelay.buffer.sqlite.store import Store
from siemrelay.buffer.sqlite.write_ahead_log import correct_log, log_file
from siemrelay.buffer.watermark import HighWatermark
from siemrelay.core.errors import BufferBroken, BufferFull, DiskFull, StartRefused
from siemrelay.durable_files import sync_directory

_log = structlog.get_logger()


def buffer_file(state_dir: Path) -> Path:
    """The path of the buffer's database."""
    return state_dir / "buffer.db"


def lock_state_dir(state_dir: Path) -> int:
    """Make the directory (0700) and lock it; returns the descriptor that holds the lock.

    Raises StartRefused when another process holds it or it cannot be made.
    """
    try:
        _make(state_dir)
        descriptor = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        advice = (
            "make some MiB of room there"
            if error.errno in NO_ROOM
            else "make it writable for this user, or set another `state_dir`"
        )
        if isinstance(error, PermissionError) and os.access(state_dir, os.W_OK | os.X_OK):
            advice = f"{state_dir / 'lock'} belongs to another user: chown -R all of the directory"
        raise StartRefused(
            f"cannot use state_dir {state_dir}: {error.strerror}; {advice}"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StartRefused(
            f"another siemrelay (process {_holder(state_dir)}) already runs on state_dir "
            f"{state_dir}; stop it, or give this one a `state_dir` of its own"
        ) from error
    with suppress(OSError):  # on a full disk the lock holds without the number of its holder
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _make(state_dir: Path) -> None:
    """Make the directory, so that a power cut does not take it back with all that is in it."""
    above = [path.parent for path in (state_dir, *state_dir.parents) if not path.exists()]
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Its own entry also when it is there: the relay that made it may have been killed before this.
    for parent in above or [state_dir.parent]:
        try:
            sync_directory(parent)
        except PermissionError:
            continue  # made by a user who may write there
        except OSError as error:
            lacks = error.errno in NO_ROOM
            advice = "make some MiB of room there" if lacks else "check the disk under it"
            raise StartRefused(
                f"cannot write {parent} to disk: {error.strerror}; {advice}"
            ) from error


def running_process(state_dir: Path) -> str | None:
    """The process id of the relay that holds the directory; None if no relay runs."""
    with _no_relay_starts(state_dir) as none_runs:
        return None if none_runs else _holder(state_dir)


@contextmanager
def _no_relay_starts(state_dir: Path) -> Iterator[bool]:
    """Whether no relay holds the directory; if so, none can start meanwhile: keep it short."""
    with ExitStack() as held:
        try:
            lock = held.enter_context((state_dir / "lock").open("rb"))
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:
            pass  # no relay has ever run on it, or it is not ours to open
        yield True


def _holder(state_dir: Path) -> str:
    return (state_dir / "lock").read_text("ascii", "replace").strip() or "unknown"


def find_buffer(state_dir: Path) -> Path:
    """The buffer's file, for a process beside the relay's, or without one.

    Changes nothing but a damaged log, which it corrects where no relay runs.

    Raises StartRefused when there is none, it may not be opened, or another version wrote it;
    BufferBroken as `_without_hidden_records`.
    """
    path = buffer_file(state_dir)
    try:
        with path.open("r+b"), _looking(state_dir) as file:
            (version,) = file.execute("PRAGMA user_version").fetchone()
    except FileNotFoundError as error:
        raise StartRefused(
            f"there is no buffer in {state_dir}: no relay has used this `state_dir` yet"
        ) from error
    except PermissionError as error:
        raise StartRefused(
            f"no permission to open {path}; run this as root or as the service's user"
        ) from error
    except OSError as error:
        advice = (
            "; SQLite must write beside it: copy the directory elsewhere (cp -a), set `state_dir`"
            if error.errno == errno.EROFS
            else ""
        )
        raise StartRefused(f"cannot open {path}: {error.strerror}{advice}") from error
    except sqlite3.Error as error:
        raise StartRefused(
            f"cannot open {path}: {error}; `siemrelay buffer check` says what can be read"
        ) from error
    if version != SCHEMA_VERSION:
        raise StartRefused(
            f"{path} was written by another version of siemrelay (layout {version}, this one knows "
            f"{SCHEMA_VERSION}); a relay of this version migrates it at its start"
        )
    return path


@contextmanager
def _looking(state_dir: Path) -> Iterator[sqlite3.Connection]:
    """A connection that only reads, and leaves a damaged log to the relay where one runs.

    Raises as `_without_hidden_records`.
    """
    path = buffer_file(state_dir)
    with closing(connect_read_only(path)) as connection:
        if running_process(state_dir) is not None or _hidden(path, connection) is None:
            yield connection
            return
    # Looked at again, since a relay may have started meanwhile; from here on none can
    # (test_a_log_is_not_corrected_under_a_relay_that_has_just_started).
    with _no_relay_starts(state_dir) as none_runs, ExitStack() as opened:
        reading = _without_hidden_records(path) if none_runs else closing(connect_read_only(path))
        yield opened.enter_context(reading)


def open_store(state_dir: Path, reserve: EmergencyReserve, log_bytes: int) -> Store:
    """The buffer of the relay that runs on the directory, on a full disk with the reserve's room.

    Raises StartRefused when that is not enough, or a newer siemrelay wrote it.
    """
    _rewrite_log(state_dir)
    try:
        try:
            return Store(buffer_file(state_dir), log_bytes)
        except DiskFull:
            reserve.release()
            return Store(buffer_file(state_dir), log_bytes)
    except DiskFull as error:
        raise StartRefused(
            f"cannot open the buffer in {state_dir}: {error}; make some MiB of room there"
        ) from error
    except BufferFull as error:
        raise StartRefused(f"cannot open the buffer in {state_dir}: {error}") from error
    except OSError as error:
        advice = (
            "move it away, and a new buffer is begun"
            if buffer_file(state_dir).is_dir()
            else "it must be a file that this user may read and write"
        )
        raise StartRefused(
            f"cannot open {buffer_file(state_dir)}: {error.strerror}; {advice}"
        ) from error


def _rewrite_log(state_dir: Path) -> None:
    """See `files.rewrite`, of what an earlier process left.

    Raises StartRefused, BufferBroken as `_without_hidden_records`.
    """
    database = buffer_file(state_dir)
    log = log_file(database)
    if not log.exists():
        return  # the last process ended in order
    try:
        # Other faults of the file are reported when the store is opened.
        with suppress(sqlite3.Error), ExitStack() as opened:
            looking = opened.enter_context(_without_hidden_records(database))
            writing = opened.enter_context(closing(sqlite3.connect(database, timeout=0)))
            writing.execute("SELECT 1 FROM sqlite_schema").fetchone()
            looking.close()  # only now: the other one need not go through the log again
            rewrite(writing, database)
    except OSError as error:
        if error.errno in NO_ROOM:
            return  # where a file system writes in other places; what waits can still be delivered
        raise StartRefused(
            f"cannot write {log} to disk: {error.strerror}; check the disk under it"
        ) from error


def _hidden(database: Path, connection: sqlite3.Connection) -> HiddenRecords | None:
    watermark = HighWatermark(database.parent).read() if log_file(database).exists() else None
    return find_hidden_records(database, connection, 1 if watermark is None else watermark.end)


@contextmanager
def _without_hidden_records(database: Path) -> Iterator[sqlite3.Connection]:
    """A connection that only reads, once a log that hides acknowledged records is corrected.

    SQLite overwrites such records as soon as it writes. For when no relay runs on the directory
    nor can start meanwhile. Raises BufferBroken when more is damaged than can be corrected,
    OSError, sqlite3.Error.
    """
    with closing(connect_read_only(database)) as connection:
        hidden = _hidden(database, connection)
        if hidden is None:
            yield connection
            return
    if not hidden.corrections:
        raise BufferBroken(
            f"{database}: {hidden.summary}. Nothing was changed; check the disk, then "
            "`siemrelay buffer salvage` saves all that can be read into a new file"
        )
    correct_log(database, hidden.corrections)
    _log.error("the buffer's write-ahead log was damaged, and is corrected: nothing is lost",
               file=str(log_file(database)), from_sequence=hidden.first, to_sequence=hidden.last,
               at=[correction.at for correction in hidden.corrections],
               advice="check the disk and the memory of this machine")  # fmt: skip
    with closing(connect_read_only(database)) as connection:
        yield connection

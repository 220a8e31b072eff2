"""The journal source: `journalctl --output=json`, from the stored cursor on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Final, Literal

import msgspec
import structlog
import trio
from pydantic import Field

from siemrelay.core.errors import SiemrelayError
from siemrelay.core.options import NonEmpty, Options
from siemrelay.sources.chunks import LineSplitter, RecordSize
from siemrelay.sources.contract import Intake, Position, Records, SourceKind
from siemrelay.sources.pacing import StreamPace

_READ_BYTES: Final = 512 * 1024

# A quiet journal must not look like a stuck source.
_PROGRESS_S: Final = 60.0

# The end of journalctl's standard error, for the error message.
_ERROR_BYTES: Final = 2000

# journalctl ends at SIGTERM at once; after this it is killed.
_END_S: Final = 2.0

_KEY: Final = "journal"
"""Key of the position: {"cursor": the journal's, of the last entry handed over}."""


class JournalOptions(Options):
    """Options of `type: journal`."""

    units: list[NonEmpty] = Field(
        default=[], description="only entries of these systemd units; patterns are allowed"
    )
    identifiers: list[NonEmpty] = Field(
        default=[], description="only entries of these syslog identifiers"
    )
    matches: list[Annotated[str, Field(pattern=r"^[A-Z0-9_]+=")]] = Field(
        default=[], description="only entries with these fields (`_TRANSPORT=audit`)"
    )
    directory: str | None = Field(
        None, min_length=1, description="read the journal files of this directory instead"
    )
    start_at: Literal["beginning", "end"] = Field(
        "beginning", description="where to start in the journal at the very first start"
    )
    max_record_size: RecordSize = Field(
        1 << 20, description="longer entries are counted as oversize, and kept"
    )


class JournalFailed(SiemrelayError):
    """journalctl cannot be run, or ended by itself: the source is restarted after a pause."""


class _Cursor(msgspec.Struct, rename={"cursor": "__CURSOR"}):
    cursor: str | None = None


class JournalSource:
    """Every entry of the journal once, as JSON; a restart continues at the stored cursor."""

    def __init__(self, name: str, options: JournalOptions) -> None:
        self.name, self._options = name, options

    async def run(self, intake: Intake, *, drain: bool) -> None:
        """Follow for ever; with `drain`, return at the journal's end. See `Source`.

        Raises JournalFailed. If cancelled, journalctl is ended.
        """
        stored = intake.positions().get(_KEY, {}).get("cursor")
        command = list(self._command(stored, follow=not drain))
        try:
            process = await trio.lowlevel.open_process(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except FileNotFoundError as error:
            raise JournalFailed(
                "there is no `journalctl` on the PATH: install systemd, or remove this source"
            ) from error
        errors = _StandardError()
        try:
            async with trio.open_nursery() as nursery:
                assert process.stderr is not None
                nursery.start_soon(errors.listen, process.stderr)
                await self._read(process, intake, stored)
                code = await process.wait()
                # What it said last may still be in the pipe.
                with trio.move_on_after(_END_S):
                    await errors.ended.wait()
                nursery.cancel_scope.cancel()
        finally:
            await _end(process)
        if code or not drain:
            raise JournalFailed(f"journalctl ended with {code}: {errors.text or 'no message'}")

    def _command(self, cursor: str | None, *, follow: bool) -> Iterator[str]:
        options = self._options
        yield from ("journalctl", "--output=json", "--no-pager", "--all", "--quiet")
        if follow:
            yield "--follow"
        if cursor is not None:
            # Not --after-cursor: where that entry is gone, or does not match any more, it skips the
            # next one as well. The entry at the cursor itself is recognised and left out.
            yield f"--cursor={cursor}"
        if cursor is None and options.start_at == "end":
            yield from ("--lines=0",) if follow else ("--since=now",)
        else:
            yield from ("--no-tail",) if follow else ()
        if options.directory is not None:
            yield f"--directory={options.directory}"
        yield from (f"--unit={unit}" for unit in options.units)
        yield from (f"--identifier={identifier}" for identifier in options.identifiers)
        yield from options.matches

    async def _read(self, process: trio.Process, intake: Intake, taken: str | None) -> None:
        """Offer the entries, but for a first one whose cursor is `taken`."""
        lines, pace = LineSplitter(self._options.max_record_size), StreamPace(intake)
        assert process.stdout is not None
        while True:
            data: bytes | bytearray | None = None
            with trio.move_on_after(_PROGRESS_S):
                data = await process.stdout.receive_some(_READ_BYTES)
            intake.progress()
            if data == b"":
                return  # an entry without its line feed is incomplete, and comes again
            if data:
                pace.note_read(len(data))
                await pace.turn()
            for records in lines.feed(bytes(data or b"")):
                records, taken = _without(records, taken), None
                if records.count:
                    await intake.offer(_positioned(records))
            for size in lines.oversize:
                intake.oversize(size)
            lines.oversize.clear()


def _without(records: Records, taken: str | None) -> Records:
    """The records without the first entry if it was stored before."""
    first, _, rest = records.payload.partition(b"\n")
    if taken is None or records.part is not None or _cursor(first) != taken:
        return records
    return Records(rest, records.count - 1)


def _positioned(records: Records) -> Records:
    """The records with the cursor of the last entry; parts of an entry have none."""
    last = records.payload[records.payload.rfind(b"\n", 0, -1) + 1 :]
    cursor = None if records.part is not None else _cursor(last)
    if cursor is None:
        return records
    position = Position(_KEY, {"cursor": cursor})
    return msgspec.structs.replace(records, positions=(position,))


def _cursor(entry: bytes) -> str | None:
    with suppress(msgspec.DecodeError, UnicodeDecodeError):
        return _decode(entry).cursor
    return None


_decode: Final = msgspec.json.Decoder(_Cursor).decode


class _StandardError:
    """Keeps the end of journalctl's standard error."""

    def __init__(self) -> None:
        self._bytes = b""
        self.ended = trio.Event()

    @property
    def text(self) -> str:
        return " ".join(self._bytes.decode("utf-8", "replace").split())

    async def listen(self, stream: trio.abc.ReceiveStream) -> None:
        async for data in stream:
            self._bytes = (self._bytes + data)[-_ERROR_BYTES:]
        self.ended.set()


async def _end(process: trio.Process) -> None:
    with trio.CancelScope(shield=True):
        if process.poll() is None:
            process.terminate()
            with trio.move_on_after(_END_S):
                await process.wait()
        if process.poll() is None:
            process.kill()
            structlog.get_logger().warning("journalctl did not end at SIGTERM: killed")
            await process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                await stream.aclose()


JOURNAL: Final = SourceKind(
    JournalOptions, JournalSource, "json", "the systemd journal, through journalctl"
)

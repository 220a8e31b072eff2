"""A log, its writer and a logrotate on a simulated disk, and the file source that follows them.

Everything happens in single steps, so that a test chooses what happens between any two calls that
the source makes to the disk.
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, Final

from siemrelay.sources.file.checkpoints import CheckpointStore
from siemrelay.sources.file.finder import Finder, Globs
from siemrelay.sources.file.fingerprint import ContentChanged
from siemrelay.sources.file.reader import FileMoved, FollowedFile
from siemrelay.sources.file.schedule import Schedule
from siemrelay.sources.file.tracker import Tracker
from siemrelay.sources.file.warnings import UnreadableFiles
from siemrelay.wire.framing.contract import Chunk
from siemrelay.wire.framing.lines import LineFraming
from tests.support.rotation.simulated_disk import DIRECTORY, Inode, SimulatedDisk, SimulatedWatcher

LOG: Final = f"{DIRECTORY}/audit.log"
# Beyond every wait of the source: seconds until it has come to rest, once nothing is written.
PATIENCE_S: Final = 70


@dataclass(frozen=True)
class Step:
    """One thing that somebody does: `write`, `rotate`, `copytruncate`, `compress` (a generation of
    earlier), `reopen` (the log, by a late writer), `stop` or `kill` (the relay, for `count` steps).
    """

    what: str
    count: int = 1
    width: int = 10
    compress: bool = False
    late: bool = False
    """Whether the writer goes on in the rotated file until `reopen`; of `compress`: whether it is
    the oldest plain generation that is compressed, instead of the latest.
    """

    @property
    def mixes(self) -> bool:
        """Whether lines are written to two files at a time, or are cut away by the rotation."""
        return self.late and self.what in ("rotate", "copytruncate")


class World:
    """The disk with a writer and a logrotate; each `step` is one call of theirs."""

    def __init__(self, header: int, keep: int) -> None:
        self.now = 1000.0
        self.disk = SimulatedDisk(lambda: self.now)
        self.header, self.keep = b"#" * header + b"\n" if header else b"", keep
        self.written: list[bytes] = []
        self.cut: set[bytes] = set()
        """Lines that copytruncate cuts away between the copy and the truncation, or that are in a
    deleted file when the relay starts: nobody can read them.
    """
        self.busy = False
        """Whether a rotation is under way: it takes no time to speak of."""
        self.delivered: Counter[bytes] = Counter()
        self.writer = self.new_log()

    def new_log(self) -> Inode:
        inode = self.disk.create(LOG)
        self.disk.hold(inode)
        if self.header:
            self.disk.append(inode, self.header)
        return inode

    def run(self, steps: list[Step]) -> Iterator[Step | None]:
        for step in steps:
            match step.what:
                case "write":
                    yield from self._write(step)
                case "rotate":
                    yield from self._rotate(step)
                case "copytruncate":
                    yield from self._copytruncate(step)
                case "reopen":
                    self._reopen()
                case "compress":
                    plain = sorted(
                        (path for path in self.disk.names if path[-1].isdigit()), key=_number
                    )
                    if plain:
                        self.busy = True
                        yield from self._compress(plain[-1 if step.late else 0])
                        self.busy = False
                case "stop" | "kill":
                    yield step

    def _write(self, step: Step) -> Iterator[None]:
        for _ in range(step.count):
            line = b"%d-" % len(self.written) * step.width
            self.written.append(line)
            self.disk.append(self.writer, line + b"\n")
            if not (self.writer.links or self.disk.is_open(self.writer)):
                self.cut.add(line)
            yield

    def relay_ended(self) -> None:
        """What is unread in deleted files, which only the relay or a writer has open, is lost."""
        for inode in self.disk.close_all():
            if not inode.links:
                self.cut.update(bytes(inode.data).splitlines())
        if not self.writer.links:
            self.cut.update(bytes(self.writer.data).splitlines())

    def _reopen(self) -> None:
        if LOG in self.disk.names and self.disk.names[LOG] is not self.writer:
            self.disk.release(self.writer)
            self.writer = self.disk.names[LOG]
            self.disk.hold(self.writer)

    def _shift(self) -> Iterator[None]:
        for path in sorted(self.disk.names.keys() - {LOG}, key=_number, reverse=True):
            number = _number(path)
            if number >= self.keep and self._may_go(self.disk.names[path]):
                self.disk.unlink(path)
                yield
                continue
            suffix = ".gz" if path.endswith(".gz") else ""
            self.disk.rename(path, f"{LOG}.{number + 1}{suffix}")
            yield

    def _may_go(self, inode: Inode) -> bool:
        """A file that nobody holds and nobody has read is lost to everybody."""
        data = bytes(inode.data)
        content = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
        lines = [line for line in content.splitlines() if not line.startswith(b"#")]
        return all(self.delivered[line] for line in lines)

    def _rotate(self, step: Step) -> Iterator[None]:
        self.busy = True
        yield from self._shift()
        self.disk.rename(LOG, f"{LOG}.1")
        yield
        old = self.writer
        self.writer = self.new_log()
        if step.late:
            self.disk.release(self.writer)
            self.writer = old
        else:
            self.disk.release(old)
        yield
        if step.compress:
            yield from self._compress()
        self.busy = False

    def _copytruncate(self, step: Step) -> Iterator[None]:
        self._reopen()
        self.busy = True
        yield from self._shift()
        log = self.disk.names[LOG]
        copy = self.disk.create(f"{LOG}.1")
        yield
        while len(copy.data) < len(log.data):
            at = len(copy.data)
            self.disk.append(copy, bytes(log.data[at : at + max(1, len(log.data) // 2)]))
            yield
        if step.late:
            cut = len(self.written)
            yield from self._write(Step("write", step.count))
            self.cut.update(self.written[cut:])
        self.disk.truncate(log)
        if self.header:
            self.disk.append(log, self.header)
        yield
        if step.compress:
            yield from self._compress()
        self.busy = False

    def _compress(self, path: str = f"{LOG}.1") -> Iterator[None]:
        plain = self.disk.names[path]
        packed = self.disk.create(f"{path}.gz")
        yield
        data = gzip.compress(bytes(plain.data), mtime=0)
        self.disk.append(packed, data[: len(data) // 2])
        yield
        self.disk.append(packed, data[len(data) // 2 :])
        packed.mtime_ns = plain.mtime_ns
        yield
        self.disk.unlink(path)
        yield


def _number(path: str) -> int:
    return int(path.removeprefix(LOG + ".").removesuffix(".gz"))


class Mute:
    """A log that keeps nothing."""

    def debug(self, event: str, **values: object) -> None: ...

    info = warning = error = debug


@dataclass
class Relay:
    """The file source without trio and without a buffer; `stored` outlives it."""

    world: World
    pattern: str
    watches: bool
    stored: dict[str, Any] = field(default_factory=dict)
    order: list[bytes] = field(default_factory=list)
    lost: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        world = self.world
        log = Mute()
        globs = Globs([self.pattern])
        self.watcher = SimulatedWatcher(world.disk, globs.is_wanted, active=self.watches)
        self.store = CheckpointStore()
        assert self.store.load(self.stored) == {}
        clock = lambda: world.now  # noqa: E731  (a clock)
        self.schedule = Schedule(log, drain=False, clock=clock)
        self.tracker = Tracker(
            Finder(globs, world.disk), self.watcher, world.disk, self.store, self.schedule,
            UnreadableFiles(log, lambda files, why: None),
            lambda path, unread: self.lost.append((path, unread)),
            log, framing=LineFraming(1 << 20), clock=clock, wall_clock=clock,
            pause=lambda seconds: None,
        )  # fmt: skip
        self.tracker.survey(full=True)
        self.next_full = world.now + 1.0

    def step(self) -> bool:
        """What the source does between two waits; whether it read anything."""
        tracker, schedule = self.tracker, self.schedule
        tracker.collect()
        full = self.world.now >= self.next_full
        if full or tracker.survey_due or tracker.undecided:
            tracker.survey(full=full)
            if full:
                self.next_full = self.world.now + 1.0
        self._store(self.store.take_changes())
        moved = False
        for family in schedule.ready:
            last: FollowedFile | None = None
            while (due := tracker.next_read(family)) is not None and due[0] is not last:
                last, finish = due
                try:
                    chunk = last.read(finish=finish, disk=self.world.disk)
                except ContentChanged:
                    tracker.truncated(last)
                    break
                except FileMoved:
                    tracker.moved(last)
                    break
                if chunk is not None:
                    moved = True
                    self._deliver(last, chunk)
                if last.ready or (tracker.events_suffice and schedule.is_over(last)):
                    break
        schedule.wake_later()
        return moved

    def _deliver(self, file: FollowedFile, chunk: Chunk) -> None:
        self._store((*self.store.take_changes(), file.progress.position()))
        lines = chunk.payload.splitlines()
        assert len(lines) == chunk.count
        self.world.delivered.update(lines)
        self.order += lines
        if file.progress.finished_size is not None:
            file.close()

    def _store(self, positions: tuple[Any, ...]) -> None:
        for position in positions:
            if position.value is None:
                self.stored.pop(position.key, None)
            else:
                self.stored[position.key] = dict(position.value)


class Killed(BaseException):
    """The relay's process is killed just here."""


class Interleaving:
    """Runs the script between the relay's calls: after each of `gaps` calls one more step."""

    def __init__(self, world: World, script: Iterator[Step | None], gaps: list[int]) -> None:
        self._world, self._script, self._gaps = world, script, cycle(gaps)
        self._left = next(self._gaps)
        self._inside = False
        self.over = False
        self.stop: Step | None = None

    def before_call(self) -> None:
        if self._inside or self.over or self.stop is not None:
            return
        self._left -= 1
        if self._left < 0:
            self._left = next(self._gaps)
            self.advance()
            if self.stop is not None and self.stop.what == "kill":
                raise Killed

    def advance(self) -> None:
        """One step, which is not interrupted by itself."""
        self._inside = True
        try:
            self.stop = next(self._script)
        except StopIteration:
            self.over = True
        self._inside = False


def play(
    steps: list[Step], gaps: list[int], *, header: int = 0, keep: int = 30,
    pattern: str = LOG + "*", watches: bool = True,
) -> tuple[World, Relay]:  # fmt: skip
    """Run a script beside the source until both have come to rest."""
    world = World(header, keep)
    relay = Relay(world, pattern, watches)
    between = Interleaving(world, world.run(steps), gaps)
    world.disk.before_call = between.before_call
    while not between.over:
        world.now += 0.01 if world.busy else 0.3
        with suppress(Killed):
            relay.step()
        if (stop := between.stop) is not None:
            world.disk.before_call = lambda: None
            relay.watcher.close()
            world.relay_ended()
            for _ in range(stop.count):
                if not between.over:
                    between.advance()
            between.stop = None
            world.now += 1
            relay.start()
            world.disk.before_call = between.before_call
    world.disk.before_call = lambda: None
    for _ in range(PATIENCE_S):
        world.now += 1
        relay.step()
    return world, relay


def check(world: World, relay: Relay, steps: list[Step]) -> None:
    """The law: every line that could be read is delivered; once, unless the relay was stopped while
    lines were written to two files; and in the order in which they were written.

    Where all generations begin with the same kilobyte, a log that was copied, emptied and written
    to before anything else was read of it looks as before: its copy may come after it.
    """
    mixed = any(step.mixes for step in steps)
    once = not (mixed and any(step.what in ("stop", "kill") for step in steps))
    lost = [line[:20] for line in world.written
            if not world.delivered[line] and line not in world.cut]  # fmt: skip
    assert not lost, f"lost {lost}"
    if once:
        twice = [line[:20] for line in world.written if world.delivered[line] > 1]
        assert not twice, f"repeated {twice}"
    same = world.header and any(step.what == "copytruncate" for step in steps)
    if once and not mixed and not same:
        order = [line for line in relay.order if not line.startswith(b"#")]
        assert order == [line for line in world.written if world.delivered[line]]

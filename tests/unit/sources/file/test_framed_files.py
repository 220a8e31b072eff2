"""Files whose records are more than lines: whole through restarts and rotation, none twice."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.core.lines import records_of
from siemrelay.sources.file.options import FileOptions
from siemrelay.wire.framing.audit_events import AuditEvents, AuditSplitter
from siemrelay.wire.framing.contract import Framing, Rest
from siemrelay.wire.framing.csv_rows import CsvFraming, Dialect
from siemrelay.wire.framing.json_documents import JsonFraming
from tests.support.examples import examples
from tests.support.rotation.file_source_rig import CollectingIntake, append, drained, running

MIB = 1 << 20
INDENTED: dict[str, Any] = {"multiline": {"indented": True, "flush_after": "200ms"}}


def contents(number: int) -> list[tuple[str, bytes, bytes]]:
    """For each framing its settings, a piece of a file, and the record in it."""
    return [
        ("indented", b"%d first\n  second\n\tthird\n" % number,
         b"%d first\n  second\n\tthird" % number),
        ("csv", b'%d,"a ""b""\nc"\n' % number, b'{"n":"%d","v":"a \\"b\\"\\nc"}' % number),
        ("json", b'{\n  "n": %d,\n  "v": [{}]\n}\n' % number, b'{"n":%d,"v":[{}]}' % number),
        ("utf-16", f"{number} \u00fc\n".encode("utf-16-le"), f"{number} \u00fc".encode()),
    ]  # fmt: skip


BEGINS = {"indented": b"", "csv": b"n,v\n", "json": b"[\n", "utf-16": b"\xff\xfe"}
SETTINGS: dict[str, dict[str, Any]] = {"indented": INDENTED}


def framing(name: str) -> Framing | None:
    if name == "auditd":
        return AuditEvents(MIB)
    if name == "csv":
        return CsvFraming(Dialect(), None, MIB)
    return JsonFraming(MIB) if name == "json" else None


class KilledIntake(CollectingIntake):
    """The relay is killed at the `nth` offer: before it is stored, or after."""

    def __init__(self, nth: int, *, stores: bool, kept: CollectingIntake) -> None:
        super().__init__()
        self._left, self._stores = nth, stores
        self.stored, self.lines = kept.stored, kept.lines

    async def offer(self, *records: Any) -> None:
        self._left -= 1
        if self._left < 0:
            if self._stores:
                await super().offer(*records)
            raise KeyboardInterrupt
        await super().offer(*records)


@pytest.mark.parametrize("name", BEGINS)
@examples(12)
@given(data=st.data())
async def test_a_kill_at_any_moment_loses_and_repeats_nothing(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    log = tmp_path_factory.mktemp("logs") / "audit.log"
    made = [next(c for c in contents(n) if c[0] == name) for n in range(12)]
    whole = BEGINS[name] + b"".join(piece for _, piece, _ in made)
    stops = [*sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=4))), len(whole)]
    kept, written = CollectingIntake(), 0
    settings = SETTINGS.get(name, {})
    log.touch()
    for stop in stops:
        append(log, whole[written:stop])
        written = stop
        intake = KilledIntake(
            data.draw(st.integers(0, 3)), stores=data.draw(st.booleans()), kept=kept
        )
        with trio.move_on_after(0.05):
            try:
                async with running(log, intake, framing=framing(name), poll="10ms", **settings):
                    await trio.sleep_forever()
            except* KeyboardInterrupt:
                pass
    assert await drained(log, kept, framing=framing(name), **settings) == [r for *_, r in made]


@examples(15)
@given(data=st.data())
async def test_a_kill_at_any_moment_loses_and_repeats_no_audit_event_however_mixed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    # Some lines stay open for seconds; those of other events come and go meanwhile.
    lines = [b"type=%b msg=audit(%d.000:%d): x=%d\n" % (kind, n // 4, n, n)
             for n in range(24) for kind in (b"SYSCALL", b"CWD", b"PROCTITLE")
             if kind != b"PROCTITLE" or n % 3]  # fmt: skip
    order = data.draw(st.permutations(range(6)))
    mixed = [lines[i + j] for i in range(0, len(lines), 6) for j in order if i + j < len(lines)]
    log = tmp_path_factory.mktemp("logs") / "audit.log"
    kept, whole = CollectingIntake(), b"".join(mixed)
    stops = [*sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=4))), len(whole)]
    for written, stop in zip([0, *stops], stops, strict=False):
        append(log, whole[written:stop])
        nth, stores = data.draw(st.integers(0, 3)), data.draw(st.booleans())
        intake = KilledIntake(nth, stores=stores, kept=kept)
        with trio.move_on_after(0.05):
            try:
                async with running(log, intake, framing=framing("auditd"), poll="10ms"):
                    await trio.sleep_forever()
            except* KeyboardInterrupt:
                pass
    found = await drained(log, kept, framing=framing("auditd"))
    at_once = AuditSplitter(at_start=True).split(whole, Rest.FINAL)
    assert at_once is not None
    assert found == records_of(at_once.payload, at_once.count)


async def test_a_copy_of_a_log_with_open_events_repeats_none_that_were_taken(
    tmp_path: Path,
) -> None:
    log, intake = tmp_path / "audit.log", CollectingIntake()
    first, last = (b"type=%b msg=audit(5.000:1): x\n" % kind for kind in (b"CWD", b"PROCTITLE"))
    done = [b"type=PROCTITLE msg=audit(5.000:%d): x\n" % n for n in range(2, 6)]
    append(log, done[0] + first + done[1] + done[2])
    async with running(log, intake, framing=framing("auditd")):
        await intake.until_lines(3)
    assert intake.is_at(log, len(done[0]))
    (tmp_path / "audit.log.1").write_bytes(log.read_bytes() + last)
    log.write_bytes(done[3])
    found = await drained(f"{tmp_path}/audit.log*", intake, framing=framing("auditd"))
    event = first[:-1] + b" " + last[:-1]
    assert found == [*(line[:-1] for line in done[:3]), event, done[3][:-1]]


async def test_the_last_record_is_read_when_nothing_was_written_for_a_while(
    tmp_path: Path,
) -> None:
    log, intake = tmp_path / "audit.log", CollectingIntake()
    append(log, b"one\n  more\ntwo\n")
    async with running(log, intake, **INDENTED):
        await intake.until_lines(2)
        assert intake.lines == [b"one\n  more", b"two"]
        append(log, b"three\n  in")
        append(log, b"complete\n")
        await intake.until_lines(3)
        assert intake.lines[2] == b"three\n  incomplete"


async def test_an_open_record_is_read_again_by_the_next_relay(tmp_path: Path) -> None:
    log, intake = tmp_path / "audit.log", CollectingIntake()
    settings: dict[str, Any] = {"multiline": {"indented": True, "flush_after": "1h"}}
    append(log, b"one\ntwo\n")
    async with running(log, intake, **settings):
        await intake.until_lines(1)
    assert intake.is_at(log, len(b"one\n"))
    append(log, b"  more of two\nthree\n")
    async with running(log, intake, **settings):
        await intake.until_lines(2)
    assert intake.lines == [b"one", b"two\n  more of two"]


async def test_a_record_ends_where_its_file_was_rotated(tmp_path: Path) -> None:
    log, intake = tmp_path / "audit.log", CollectingIntake()
    settings: dict[str, Any] = {"multiline": {"indented": True, "flush_after": "1h"}}
    append(log, b"one\n  more\n")
    async with running(f"{tmp_path}/audit.log*", intake, poll="20ms", **settings):
        log.rename(tmp_path / "audit.log.1")
        append(log, b"two\nthree\n")
        await intake.until_lines(2)
    assert intake.lines == [b"one\n  more", b"two"]


async def test_a_compressed_file_of_documents_is_read(tmp_path: Path) -> None:
    values = [{"n": n, "deep": {"list": [n]}} for n in range(2000)]
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(json.dumps(values, indent=1).encode()))
    found = await drained(tmp_path / "a.json.gz", CollectingIntake(), framing=JsonFraming(MIB))
    assert [json.loads(line) for line in found] == values


async def test_a_document_larger_than_one_read_is_one_record(tmp_path: Path) -> None:
    value = {"text": ["x" * 1000] * 3000}
    (tmp_path / "a.json").write_text(json.dumps(value, indent=1))
    intake = CollectingIntake()
    (found,) = await drained(tmp_path / "a.json", intake, framing=JsonFraming(MIB))
    assert json.loads(found) == value
    assert intake.oversizes == [len(found)]


async def test_a_file_of_one_object_without_a_line_feed_is_read(tmp_path: Path) -> None:
    log, intake = tmp_path / "audit.json", CollectingIntake()
    log.write_text('{"a": 1}')
    async with running(log, intake, framing=JsonFraming(MIB)):
        assert await intake.until_lines(1) == [b'{"a": 1}']
        append(log, b'\n{"a": 2}\n')
        assert await intake.until_lines(2) == [b'{"a": 1}', b'{"a": 2}']


async def test_reading_from_the_end_of_a_utf_16_file_begins_at_a_line(tmp_path: Path) -> None:
    log, intake = tmp_path / "audit.log", CollectingIntake()
    log.write_bytes("\ufeffold \u0a0a\u000a".encode("utf-16-le"))
    async with running(log, intake, start_at="end"):
        await intake.until(lambda: len(intake.stored) > 1)
        append(log, "new \u0a0a\n".encode("utf-16-le"))
        assert await intake.until_lines(1) == ["new \u0a0a".encode()]


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"multiline": {}}, "write either"),
        ({"multiline": {"indented": True, "start": "^a"}}, "write either"),
        ({"multiline": {"start": "(?=a)"}}, "no look-around"),
        ({"encoding": "utf-7"}, "cannot be followed"),
    ],
)
def test_a_framing_that_cannot_be_is_refused(settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        FileOptions(path="/x", **settings)


async def test_a_pattern_begins_each_record(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(b"2024-01-01 a\nException\n at x\n2024-01-02 b\n")
    settings = {"multiline": {"start": r"^\d{4}-\d\d-\d\d "}}
    assert await drained(log, CollectingIntake(), **settings) == [
        b"2024-01-01 a\nException\n at x", b"2024-01-02 b",
    ]  # fmt: skip

"""Standard input, cut into lines however it comes, and through the real daemon in a pipe."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.core.lines import records_of
from siemrelay.sources.chunks import LineSplitter
from siemrelay.sources.contract import Records
from siemrelay.sources.framing import RecordStream, text_framing
from siemrelay.sources.stdin import StdinOptions
from siemrelay.wire.framing.contract import MAX_WHOLE_BYTES
from tests.support.daemon import PATIENCE_S, event, ids, tcp
from tests.support.receivers.sockets import TcpReceiver


def lines_of(records: list[Records]) -> list[bytes]:
    return [line for some in records for line in some.payload[:-1].split(b"\n")]


@given(st.lists(st.binary(max_size=5).map(lambda b: b.replace(b"\r", b"x"))), st.data())
def test_lines_come_out_whole_wherever_the_stream_is_cut(
    some: list[bytes], data: st.DataObject
) -> None:
    stream = b"\n".join(some)
    cutter, found, at = LineSplitter(1 << 20), list[Records](), 0
    while at < len(stream):
        size = data.draw(st.integers(1, 7))
        found += cutter.feed(stream[at : at + size])
        at += size
    found += cutter.end()
    assert lines_of(found) == [line for line in stream.split(b"\n") if line]
    assert all(records.count == len(lines_of([records])) for records in found)


@given(
    pieces=st.lists(st.sampled_from([b"one\n", b"  more\n", b"two", b"\n", b"\tx\n"]), max_size=9),
    size=st.integers(1, 9),
    settings=st.sampled_from([{}, {"multiline": {"indented": True}}, {"encoding": "latin-1"}]),
)  # fmt: skip
def test_a_stream_gives_the_records_of_its_framing_however_it_comes(
    pieces: list[bytes], size: int, settings: dict[str, Any]
) -> None:
    content, framing = b"".join(pieces), text_framing(StdinOptions(**settings))
    stream, at_once = RecordStream(framing), RecordStream(framing)
    cut = [content[at : at + size] for at in range(0, len(content), size)]
    found = [records for data in cut for records in stream.feed(data)]
    whole = [*at_once.feed(content), *at_once.end()]
    assert records_in([*found, *stream.end()]) == records_in(whole)


def records_in(found: list[Records]) -> list[bytes]:
    return [record for some in found for record in records_of(some.payload, some.count)]


def test_a_record_on_standard_input_ends_when_nothing_comes_for_a_while() -> None:
    settings = {"multiline": {"indented": True, "flush_after": "2s"}}
    stream = RecordStream(text_framing(StdinOptions(**settings)))
    assert records_in(stream.feed(b"one\n  more\n")) == []
    assert records_in(stream.pause(1.9)) == []
    assert records_in(stream.pause(2.1)) == [b"one\n  more"]
    assert records_in(stream.feed(b"  late\ntwo\n")) == [b"  late"]


def test_a_line_without_end_comes_out_in_numbered_parts() -> None:
    cutter = LineSplitter(1 << 20)
    found = list[Records]()
    for _ in range(35):
        found += cutter.feed(b"x" * (1 << 20))
    assert [records.part for records in found] == [1, 2]
    found += cutter.feed(b"y\nnext\n")
    assert [(records.part, len(records.payload)) for records in found] == [
        (1, MAX_WHOLE_BYTES + 1), (2, MAX_WHOLE_BYTES + 1), (3, (3 << 20) + 2), (None, 5),
    ]  # fmt: skip
    assert cutter.oversize == [(35 << 20) + 1]
    assert cutter.end() == []


def configuration(directory: Path, port: int) -> Path:
    file = directory / "x.yaml"
    file.write_text(yaml.safe_dump({
        "state_dir": str(directory / "state"),
        "self_audit": False,
        "sources": {"in": {"type": "stdin"}},
        "sinks": {"out": tcp(port)},
        "endpoint": {"listen": "off"},
    }))  # fmt: skip
    return file


def relay(file: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "siemrelay", "run", "-c", str(file), *options]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_pipe_into_run_drain_arrives_whole_and_the_daemon_ends(tmp_path: Path) -> None:
    text = "\n".join(json.dumps(event(n)) for n in range(5000))
    with TcpReceiver() as receiver:
        process = relay(configuration(tmp_path, receiver.port), "--drain")
        _, log = process.communicate(text.encode(), timeout=PATIENCE_S)
        assert process.returncode == 0, log.decode()
        receiver.until(5000)
    assert receiver.arrived.ids == ids(range(5000))


def test_a_file_as_standard_input_is_read_to_its_end(tmp_path: Path) -> None:
    audit = tmp_path / "audit.json"
    audit.write_text("".join(json.dumps(event(n)) + "\n" for n in range(3)))
    with TcpReceiver() as receiver, audit.open("rb") as stdin:
        file = configuration(tmp_path, receiver.port)
        command = [sys.executable, "-m", "siemrelay", "run", "-c", str(file), "--drain"]
        done = subprocess.run(command, stdin=stdin, capture_output=True, timeout=PATIENCE_S)
        assert done.returncode == 0, done.stderr.decode()
        receiver.until(3)
    assert receiver.arrived.ids == ids(range(3))


def test_a_closed_standard_input_is_one_at_its_end(tmp_path: Path) -> None:
    with TcpReceiver() as receiver:
        file = configuration(tmp_path, receiver.port)
        command = [sys.executable, "-m", "siemrelay", "run", "-c", str(file), "--drain"]
        closed = ["sh", "-c", 'exec "$@" <&-', "sh", *command]
        done = subprocess.run(closed, capture_output=True, timeout=PATIENCE_S)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr.decode()


def test_a_line_is_sent_while_the_pipe_stays_open_and_a_stop_does_not_wait_for_its_end(
    tmp_path: Path,
) -> None:
    with TcpReceiver() as receiver:
        process = relay(configuration(tmp_path, receiver.port))
        assert process.stdin is not None
        os.write(process.stdin.fileno(), json.dumps(event(1)).encode() + b"\n" + b'{"id": "half')
        receiver.until(1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
        process.communicate()
    assert receiver.arrived.ids == ids([1])

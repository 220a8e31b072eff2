"""What happens to a relay under seals, and to the messages on their way, shows in the export.

The attacks of the design on the relay and the way; on the export itself:
`tests/interop/test_sealed_exports.py`.

| on the relay and the way | test |
|---|---|
| a message shortened by the relay; pause and resume | `…shortened_paused_or_lost…` |
| kept without an answer, for longer than between two seals | `…without_an_answer…` |
| lost on the way (UDP) | `…shortened_paused_or_lost…` |
| refused, retried, replayed | `test_seals.py` |
| `drop_oldest` in a full buffer | `…gave_up…` |
| filter changed, idle and under load | `test_seals.py` |
| upgraded | `…upgraded…` |
| kill -9 | `test_seals.py`; at every write `tests/torture/test_power_cut.py` |
| state restored from a backup; lost | `test_seals.py`; with the key kept `…lost_state…` |
| a cloned machine, under its own name and under another | `…cloned…` |
| clock set back | `…clock…` |
| key rotated; an old key seals anew | `test_seals.py`; `…an_old_key…` |
| a time without `seal:` | `…time_without_seals…` |
"""

from __future__ import annotations

import json
import os
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex
from typing import Any

from siemrelay.proof.leaf import hash_of
from siemrelay.proof.merkle import Tree
from siemrelay.proof.note import Signer
from siemrelay.proof.seal import find_seal, made_text, read_seal
from tests.conftest import MakeDaemon
from tests.support.daemon import Daemon, append, event, http, tcp, udp, until
from tests.support.receivers.http import TAKEN, Answer, HttpReceiver
from tests.support.receivers.sockets import TcpReceiver, UdpReceiver
from tests.support.seals.relay import (
    SEAL,
    Auditor,
    archive,
    is_sealed,
    seal_command,
    seal_with_key,
    sealed_events,
    sealed_messages,
    started_with_ten,
    write_export,
)

# Of an interpreter: a wall clock that is ahead by what a file says, read at each call.
_CLOCK = """
import time
from pathlib import Path
true_time, ahead = time.time, Path({ahead!r})
time.time = lambda: true_time() + float(ahead.read_text())
"""
_VERSION = """
import siemrelay
siemrelay.__version__ = "99.0"
"""


def customized(daemon: Daemon, folder: Path, code: str) -> None:
    """Let the relay's interpreter run that at its start."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code, encoding="utf-8")
    places = [str(folder), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    daemon.environment["PYTHONPATH"] = ":".join(places)


def numbered(row: bytes | str) -> int:
    value = json.loads(row)
    return int(value["siemrelay"]["n"].partition(":")[2])


def test_messages_that_are_shortened_paused_or_lost_on_the_way(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    short, late = tmp_path / "short", tmp_path / "late"
    with UdpReceiver() as receiver:
        daemon = make_daemon({
            "short": archive(short, max_message_size="8KiB"), "late": archive(late),
            "datagrams": {"protocol": "udp", **udp(receiver.port, **SEAL)},
        })  # fmt: skip
        append(daemon.audit, [event(1, message="x" * 30_000), *map(event, range(2, 31))])
        daemon.start()
        until(
            lambda: (
                sealed_messages(short) >= 31 <= sealed_messages(late)
                and is_sealed(daemon, "datagrams", 31)
            )
        )
        assert daemon.command("pause", "late").returncode == 0
        append(daemon.audit, map(event, range(31, 61)))
        until(lambda: sealed_messages(short) >= 62 and is_sealed(daemon, "datagrams", 62))
        assert sealed_events(late) == 30
        assert daemon.command("resume", "late").returncode == 0
        until(lambda: sealed_messages(late) >= 62)
        assert daemon.terminate() == 0
        sent = receiver.arrived.messages
    auditor = Auditor(daemon)
    assert max(map(len, short.read_bytes().splitlines())) <= 8192
    for export in (short, late):
        assert auditor.verify(export)["streams"][0]["messages"] >= 62
    # Of three datagrams one does not arrive: neither events nor, but for the last, seals.
    arrived = [row for i, row in enumerate(sent) if i % 3 or i == len(sent) - 1]
    lost = sorted({numbered(row) for row in sent} - {numbered(row) for row in arrived})
    found = auditor.found(write_export(tmp_path / "datagrams", arrived))
    assert sorted(n for kind, a, b in found if kind == "missing" for n in range(a, b + 1)) == lost


def test_messages_that_a_receiver_kept_without_an_answer_keep_their_numbers(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    """An outage longer than the time between seals: the seal that is due must take a free number,
    or the receiver has two messages of one."""
    with HttpReceiver() as receiver:
        daemon = make_daemon({"out": http(receiver.url, format="json", **SEAL)})
        append(daemon.audit, map(event, range(1, 11)))
        daemon.start()
        until(lambda: is_sealed(daemon, "out", 11))
        receiver.answer = lambda request: Answer(503, "kept all the same")
        append(daemon.audit, map(event, range(11, 16)))
        before = len(receiver.requests)
        outage = time.monotonic() + 1.5
        until(lambda: len(receiver.requests) > before + 2 and time.monotonic() > outage)
        daemon.kill()  # and the next process does not know what was sent
        daemon.start()
        until(lambda: len(receiver.requests) > before + 6)
        receiver.answer = lambda request: TAKEN
        until(lambda: is_sealed(daemon, "out", 17))
        assert daemon.terminate() == 0
        kept = [message for request in receiver.requests for message in request.messages]
    report = Auditor(daemon).verify(write_export(tmp_path / "export", kept))
    assert report["streams"][0]["repeats"] >= 10


def test_records_that_a_full_buffer_gave_up_are_missing_in_the_verdict(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    with TcpReceiver() as receiver, TcpReceiver() as healthy:
        daemon = make_daemon(
            {"out": tcp(receiver.port, when_full="drop_oldest", **SEAL),
             "healthy": tcp(healthy.port)},
            buffer={"max_size": "16MiB"},
        )  # fmt: skip
        append(daemon.audit, map(event, range(1, 11)))
        daemon.start()
        until(lambda: is_sealed(daemon, "out", 11))
        receiver.down()
        written = 10
        while not daemon.metric("sink_dropped_total", sink="out"):
            append(
                daemon.audit, [event(written + i, padding=token_hex(250_000)) for i in (1, 2, 3, 4)]
            )
            written += 4
            healthy.until(written)
        receiver.up()
        until(lambda: daemon.metric("sink_backlog_records", sink="out") == 0)
        dropped = int(daemon.metric("sink_dropped_total", sink="out"))
        assert daemon.terminate() == 0
        export = write_export(tmp_path / "export", receiver.arrived.messages)
    report = Auditor(daemon).verify(export, code=1)
    (finding,) = report["findings"]
    assert (finding["kind"], finding["why"].partition(" ")[0]) == ("missing", f"{dropped:,}")
    assert len(report["streams"]) == 2


def test_an_upgraded_relay_begins_a_new_stream_that_names_the_end_of_the_old_one(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    export = tmp_path / "out.json"
    daemon = started_with_ten(make_daemon, export, sealed=False)
    daemon.kill()  # whatever was in flight
    customized(daemon, tmp_path / "site", _VERSION)
    daemon.start()
    append(daemon.audit, map(event, range(11, 21)))
    until(lambda: sealed_events(export) >= 20)
    assert daemon.terminate() == 0
    report = Auditor(daemon).verify(export, code=1 if sealed_events(export) > 20 else 0)
    assert len(report["streams"]) == 2
    assert not [f for f in report["findings"] if f["kind"] not in ("unproven",)]


def test_a_lost_state_under_the_same_key_leaves_an_end_that_is_not_proven(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    export = tmp_path / "out.json"
    daemon = make_daemon({"out": archive(export, seal=seal_with_key(tmp_path))})
    append(daemon.audit, [event(1)])
    daemon.start()
    until(lambda: sealed_events(export) == 1)
    assert daemon.terminate() == 0
    lost = len(export.read_text().splitlines())
    shutil.rmtree(daemon.state)
    daemon.start()
    until(lambda: sealed_events(export) == 2)
    assert daemon.terminate() == 0
    later = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    assert ("unproven", lost, lost) in Auditor(daemon).found(export, until=later)


def test_a_cloned_machine_is_found(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    exports = [tmp_path / "one", tmp_path / "two", tmp_path / "three"]
    daemon = started_with_ten(make_daemon, exports[0])
    assert daemon.terminate() == 0
    clones = [daemon]
    for number, (export, host) in enumerate(zip(exports[1:], ("", "other"), strict=True)):
        shutil.copytree(daemon.directory, tmp_path / f"clone{number}")
        clone = make_daemon({"out": archive(export)}, directory=tmp_path / f"clone{number}")
        if host:
            clone.config["sinks"]["out"]["map"] = {"host": "severity"}
        clones.append(clone)
    for number, each in enumerate(clones):
        append(each.audit, [event(100 + number)])
        each.start()
    for export, each in zip(exports, clones, strict=True):
        until(lambda: '"id":"n00001' in export.read_text())  # noqa: B023  (called now)
        assert each.terminate() == 0
    auditor = Auditor(daemon)
    auditor.verify(exports[0])
    # Of one stream with the same numbers, and of one that goes on while another one follows it.
    for other in exports[1:]:
        assert "split" in {kind for kind, *_ in auditor.found(exports[0], other)}


def test_a_clock_that_is_set_back_leaves_everything_proven(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    export, clock = tmp_path / "out.json", tmp_path / "clock"
    daemon = make_daemon({"out": archive(export)})
    clock.write_text("0")
    customized(daemon, tmp_path / "site", _CLOCK.format(ahead=str(clock)))
    append(daemon.audit, map(event, range(1, 11)))
    daemon.start()
    until(lambda: sealed_messages(export) >= 11)
    clock.write_text("-10800")
    append(daemon.audit, map(event, range(11, 21)))
    until(lambda: sealed_messages(export) >= 22)
    assert daemon.terminate() == 0
    auditor = Auditor(daemon)
    late: Any = {"max-age": "4h"}
    report = auditor.verify(export, **late)
    assert report["streams"][0]["unsealed"] == 0
    at = [json.loads(row)["time"] for row in export.read_text().splitlines() if "Seal" in row]
    assert at != sorted(at)
    rows = export.read_bytes().splitlines()
    cut = write_export(tmp_path / "cut", [row for row in rows if b'"id":"n0000015"' not in row])
    assert "missing" in {kind for kind, *_ in auditor.found(cut, **late)}


def test_what_an_old_key_seals_anew_is_found_by_the_seals_of_the_new_one(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    export = tmp_path / "out.json"
    daemon = started_with_ten(make_daemon, export)
    stolen = Signer.read((daemon.state / "seal.key").read_text().split()[0])
    assert seal_command(daemon, "rotate").returncode == 0
    append(daemon.audit, map(event, range(11, 21)))
    until(lambda: sealed_messages(export) >= 22)
    assert daemon.terminate() == 0
    forged, tree = list[bytes](), Tree()
    for row in export.read_bytes().splitlines():
        row = row.replace(b"account number 5 was", b"account number 6 was")
        word = find_seal(row)
        if word is not None and tree.size < 12:
            seal = read_seal(word, ())
            text = made_text(seal.origin, tree, seal.tally, [stolen]) if seal.tree.size else ""
            row = row.replace(b"siemrelay-seal:" + word, text.encode()) if text else row
        tree = tree.extended([hash_of(row)])
        forged.append(row)
    found = Auditor(daemon).found(write_export(tmp_path / "forged", forged))
    assert {"changed", "forged", "split"} & {kind for kind, *_ in found}


def test_a_time_without_seals_is_found(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    export = tmp_path / "out.json"
    daemon = started_with_ten(make_daemon, export)
    settings = daemon.config["sinks"]["out"]
    for seal, number in ((False, 11), ({"every": "1s"}, 12)):
        settings["seal"] = seal
        assert daemon.command("reload").returncode == 0
        append(daemon.audit, [event(number)])
        until(lambda: sealed_events(export) == number)  # noqa: B023  (called now)
    assert daemon.terminate() == 0
    report = Auditor(daemon).verify(export, code=1)
    assert {f["kind"] for f in report["findings"]} == {"added"}
    assert len(report["streams"]) == 2

"""What sinks with `seal:` send is verified by a person who has nothing but their exports."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeDaemon
from tests.support import launcher
from tests.support.daemon import append, event, http, tcp, until
from tests.support.documents import without_endpoint
from tests.support.programs.timestamp_authority import TimestampAuthority
from tests.support.receivers.elasticsearch import Elasticsearch
from tests.support.receivers.http import TAKEN, Answer, HttpReceiver, Request, binary
from tests.support.receivers.otlp import OtlpReceiver
from tests.support.receivers.sockets import TcpReceiver
from tests.support.receivers.splunk import TOKEN, SplunkReceiver
from tests.support.seals.relay import (
    SEAL,
    Auditor,
    archive,
    is_sealed,
    seal_command,
    seal_with_key,
    sealed_events,
    started_with_ten,
    write_export,
)
from tests.support.seals.stream import SIGNER


def each_json(text: str) -> Iterator[Any]:
    """JSON values one after the other."""
    while text.strip():
        value, end = json.JSONDecoder().raw_decode(text.lstrip())
        text = text.lstrip()[end:]
        yield value


def test_an_export_is_verified_and_what_was_tampered_with_is_found(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    plain, cef = tmp_path / "out.json", tmp_path / "out.cef"
    daemon = make_daemon(
        {"plain": archive(plain), "cef": archive(cef, format="cef", header="rfc3164"),
         "free": archive(tmp_path / "free.json", seal=False)}
    )  # fmt: skip
    append(daemon.audit, map(event, range(1, 101)))
    daemon.start()
    until(lambda: is_sealed(daemon, "plain", 101) and is_sealed(daemon, "cef", 101))
    sinks = {sink["name"]: sink for sink in json.loads(daemon.get("/status")[1])["sinks"]}
    assert sinks["plain"]["seal"]["sealed_messages"] >= 101
    assert sinks["free"]["seal"] is None
    status = daemon.command("status", "--at", daemon.endpoint).stdout
    assert "are under seal" in status
    key = "+".join(Auditor(daemon).key.split("+")[:2])
    assert (sinks["plain"]["seal"]["key"], len(sinks["plain"]["seal"]["root"])) == (key, 64)
    assert len(re.findall(rf"last checkpoint: size \d+, root [\w+/]{{43}}=; key {re.escape(key)}\n",
                          status)) == 2  # fmt: skip
    assert daemon.metric("sink_seal_timestamp_seconds", sink="cef") > 0
    assert daemon.terminate() == 0
    shown = json.loads(seal_command(daemon, "show", "--json").stdout)
    assert {sink for sink, seal in shown.items() if seal["under_seal"] >= 101} == {"plain", "cef"}
    auditor = Auditor(daemon)
    text = seal_command(daemon, "show").stdout
    assert text.count(f"  key: {key}\n") == 2
    root = b64encode(bytes.fromhex(shown["cef"]["root"])).decode()
    assert f"last checkpoint: size {shown['cef']['under_seal']}, root {root}\n" in text
    for export in (plain, cef):
        report = auditor.verify(export)
        assert report["streams"][0]["unsealed"] == 0
        (line,) = [x for x in export.read_text().splitlines() if "number 42 was" in x]
        tampered = tmp_path / "tampered"
        for instead, kind in ((line.replace("ada", "eve"), "changed"), ("", "missing")):
            tampered.write_text(export.read_text().replace(line, instead))
            assert kind in {kind for kind, *_ in auditor.found(tampered)}
    # Without `seal:` nothing is numbered.
    assert '"n":' not in (tmp_path / "free.json").read_text()
    done = launcher.run("verify", "--key", auditor.key, str(tmp_path / "free.json"))
    assert (done.returncode, "no message" in done.stderr) == (2, True)


def test_refused_and_replayed_messages_keep_their_numbers_and_the_hashes_name_the_changed_one(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    def refuse(request: Request) -> Answer:
        return Answer(400, "no") if b"number 7 was" in request.content else TAKEN

    export, tiles = tmp_path / "export", tmp_path / "tiles"
    with HttpReceiver(refuse) as receiver:
        daemon = make_daemon({"out": http(receiver.url, format="json", **SEAL)})
        append(daemon.audit, map(event, range(1, 21)))
        daemon.start()
        until(lambda: is_sealed(daemon, "out", 21))
        append(daemon.audit, map(event, range(21, 31)))
        until(lambda: is_sealed(daemon, "out", 32))

        def exported() -> Path:
            return write_export(export, receiver.arrived.messages)

        auditor = Auditor(daemon)
        assert auditor.verify(exported())["streams"][0]["absent"] == 1
        receiver.answer = lambda request: TAKEN
        done = launcher.run("buffer", "dead-letters", "-c", str(daemon.file), "out", "--retry")
        assert "1 accepted" in done.stdout, done
        assert auditor.verify(exported())["streams"][0]["absent"] == 1
        done = launcher.run("buffer", "replay", "-c", str(daemon.file), "out", "--from", "5")
        assert "26 delivered" in done.stdout, done
        assert auditor.verify(exported())["streams"][0]["repeats"] == 26
        assert daemon.terminate() == 0
    assert seal_command(daemon, "export", "out", str(tiles)).returncode == 0
    exported()
    export.write_bytes(
        export.read_bytes().replace(b"account number 9 was", b"account number 8 was")
    )
    assert {kind for kind, *_ in auditor.found(export)} == {"changed"}
    (name,) = [path.name for path in tiles.iterdir()]
    number = int(
        export.read_text().partition('"id":"n0000009"')[2].partition(f'"{name}:')[2].split('"')[0]
    )
    page = tmp_path / "report.html"
    assert auditor.found(export, tiles=str(tiles), html=str(page)) == {("changed", number, number)}
    assert "Not unchanged:" in page.read_text()
    shown = launcher.run("verify", "--key", auditor.key, "--tiles", str(tiles), str(export)).stdout
    (line,) = [i for i, text in enumerate(export.read_text().splitlines(), 1)
               if '"id":"n0000009"' in text][:1]  # fmt: skip
    assert f"n={number} " in shown
    assert f"{export}:{line}" in shown


def test_a_killed_relay_goes_on_with_its_stream(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    with TcpReceiver() as receiver:
        daemon = make_daemon({"out": tcp(receiver.port, **SEAL)})
        for attempt in range(4):
            append(daemon.audit, map(event, range(attempt * 500 + 1, attempt * 500 + 501)))
            daemon.start()
            # At any moment: before the first message, behind the first seal, in the middle.
            until(lambda: len(receiver.arrived) >= attempt * 500 + 90)  # noqa: B023  (called now)
            daemon.kill()
        daemon.start()
        until(lambda: is_sealed(daemon, "out", 2000))
        assert daemon.terminate() == 0
        export = write_export(tmp_path / "export", receiver.arrived.messages)
    report = Auditor(daemon).verify(export)
    assert len(report["streams"]) == 1
    assert json.loads(export.read_text().splitlines()[0])["type"] == "Delivery Seal"


def test_a_changed_configuration_begins_a_new_stream_that_names_the_old_one(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    export = tmp_path / "out.json"
    daemon = started_with_ten(make_daemon, export, sealed=False)
    daemon.config["sinks"]["out"]["events"] = {"exclude": ["User Deleted"]}
    assert daemon.command("reload").returncode == 0
    append(daemon.audit, [event(11, type="User Deleted"), event(12)])
    until(lambda: sealed_events(export) == 11)
    assert daemon.terminate() == 0
    auditor = Auditor(daemon)
    report = auditor.verify(export)
    assert [stream["unsealed"] for stream in report["streams"]] == [0, 0]
    names = [stream["origin"].rpartition("/")[2] for stream in report["streams"]]
    only_new = tmp_path / "only-new"
    lines = export.read_text().splitlines(keepends=True)
    only_new.write_text("".join(line for line in lines if f'"{names[0]}:' not in line))
    assert {kind for kind, *_ in auditor.found(only_new)} == {"missing"}


def test_a_configuration_that_changes_under_load_leaves_nothing_unproven(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    with TcpReceiver() as receiver:
        daemon = make_daemon({"out": tcp(receiver.port, **SEAL)})
        daemon.start()
        for turn in range(4):
            append(daemon.audit, map(event, range(turn * 5000 + 1, turn * 5000 + 5001)))
            until(lambda: len(receiver.arrived) >= turn * 5000 + 200)  # noqa: B023  (called now)
            daemon.config["sinks"]["out"]["events"] = {"min_severity": (turn + 1) % 2}
            assert daemon.command("reload").returncode == 0
        until(lambda: sum(b"Account Prov" in m for m in receiver.arrived.messages) >= 20_000)
        assert daemon.terminate() == 0
        export = write_export(tmp_path / "export", receiver.arrived.messages)
    report = Auditor(daemon).verify(export)
    assert len(report["streams"]) == 5
    assert not any(stream["unsealed"] for stream in report["streams"])


def test_a_state_that_was_set_back_is_reported_by_the_relay_and_found_by_verify(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    export, backup = tmp_path / "out.json", tmp_path / "backup"
    daemon = make_daemon({"out": archive(export)}, self_audit=True)
    append(daemon.audit, map(event, range(1, 11)))
    daemon.start()
    until(lambda: sealed_events(export) == 10)
    assert daemon.terminate() == 0
    shutil.copytree(daemon.state, backup)
    append(daemon.audit, map(event, range(11, 21)))
    daemon.start()
    until(lambda: sealed_events(export) == 20)
    assert daemon.terminate() == 0
    shutil.rmtree(daemon.state)
    backup.rename(daemon.state)
    append(daemon.audit, map(event, range(21, 31)))
    daemon.start()
    until(lambda: sealed_events(export) >= 40)
    assert daemon.terminate() == 0
    assert [line["sink"] for line in daemon.log if line["event"] == "a sealed stream begins anew"]
    assert '"type":"Relay State Copied"' in export.read_text()
    report = Auditor(daemon).verify(export, code=1)
    assert {finding["kind"] for finding in report["findings"]} == {"split"}
    assert "restored from a backup" in report["notes"][-1]["text"]
    assert [stream["unsealed"] for stream in report["streams"]] == [0, 0]


def test_an_authority_stamps_seals_without_holding_up_seals_or_events(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    tsa, export, tiles = TimestampAuthority(tmp_path / "tsa"), tmp_path / "out.json", tmp_path / "x"
    with HttpReceiver(lambda request: Answer(503)) as server:
        settings = {"every": "1s", "timestamp": {"url": server.url, "every": "1s"}}
        daemon = make_daemon({"out": archive(export, seal=settings)})
        append(daemon.audit, map(event, range(1, 11)))
        daemon.start()
        until(
            lambda: (
                is_sealed(daemon, "out", 11) and daemon.metric("sink_tsa_failing", sink="out") == 1
            )
        )
        assert "get no time stamps" in daemon.get("/overview")[1]
        server.answer = lambda request: binary(tsa.answer(request.body))
        until(lambda: daemon.metric("sink_tsa_failing", sink="out") == 0)
        append(daemon.audit, [event(11)])  # the seal at the stop is of this, and has the stamp
        until(lambda: sealed_events(export) == 11)
        assert daemon.terminate() == 0
    warned = [line for line in daemon.log if "no time stamp yet" in line["event"]]
    assert len(warned) == 1
    auditor = Auditor(daemon)
    (stream,) = auditor.verify(export, tsa_ca=str(tsa.ca))["streams"]
    assert stream["timestamps"] >= 1
    assert stream["stamped"]["size"] >= 11
    assert seal_command(daemon, "export", "out", str(tiles)).returncode == 0
    notes = sorted(tiles.rglob("*.note"))
    assert len(notes) >= stream["timestamps"]
    assert all(tsa.accepts(note.with_suffix(".tsr"), note) for note in notes)
    stranger = TimestampAuthority(tmp_path / "stranger")
    assert {kind for kind, *_ in auditor.found(export, tsa_ca=str(stranger.ca))} == {"timestamp"}


def test_a_lost_state_directory_begins_a_stream_of_another_key(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    export = tmp_path / "out.json"
    daemon = make_daemon({"out": archive(export)})
    append(daemon.audit, [event(1)])
    daemon.start()
    until(lambda: sealed_events(export) == 1)
    assert daemon.terminate() == 0
    auditor = Auditor(daemon)
    assert auditor.verify(export)["streams"][0]["messages"] >= 2
    shutil.rmtree(daemon.state)
    daemon.start()
    until(lambda: sealed_events(export) == 2)
    assert daemon.terminate() == 0
    assert "forged" in {kind for kind, *_ in auditor.found(export)}


def test_keys_are_rotated_while_the_relay_runs(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    export = tmp_path / "out.json"
    daemon = make_daemon({"out": archive(export)})
    append(daemon.audit, [event(1)])
    daemon.start()
    until(lambda: is_sealed(daemon, "out", 2))
    assert (daemon.state / "seal.key").stat().st_mode & 0o777 == 0o600
    old = Auditor(daemon)
    done = seal_command(daemon, "rotate")
    assert done.returncode == 0, done
    assert old.key in done.stderr
    append(daemon.audit, [event(2)])
    until(lambda: sealed_events(export) == 2)
    assert daemon.terminate() == 0
    both = Auditor(daemon)
    assert both.key.splitlines() == [old.key, done.stdout.strip()]
    both.verify(export)
    # For an hour both sign, so the old key is enough; the new one knows nothing of before.
    old.verify(export)


def test_a_key_may_come_from_the_configuration(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    export = tmp_path / "out.json"
    daemon = make_daemon({"out": archive(export, seal=seal_with_key(tmp_path))})
    append(daemon.audit, [event(1)])
    daemon.start()
    until(lambda: is_sealed(daemon, "out", 2))
    assert daemon.terminate() == 0
    assert not (daemon.state / "seal.key").exists()
    auditor = Auditor(daemon)
    assert auditor.key == str(SIGNER.verifier)
    auditor.verify(export)
    done = seal_command(daemon, "rotate")
    assert (done.returncode, "put a new one into `seal.key`" in done.stderr) == (2, True)
    # Whoever cannot read the credential sees everything else.
    (tmp_path / "key").unlink()
    assert "key: of a credential that this" in seal_command(daemon, "show").stdout
    assert "is a credential that this command cannot read" in seal_command(daemon, "key").stderr


@pytest.mark.parametrize(("sink", "fault"), [
    ({"format": "raw"}, "`raw` has no place"),
    ({"max_message_size": "4KiB"}, "a seal needs up to 8KiB"),
    ({"seal": "60s"}, "write `yes`, `no`, or a mapping like `{every: 60s}`"),
    ({"seal": {"key": "hunter2"}}, "seal.key: not a signing key"),
])  # fmt: skip
def test_a_sink_that_cannot_be_sealed_is_a_fault(
    make_daemon: MakeDaemon, tmp_path: Path, sink: dict[str, Any], fault: str
) -> None:
    daemon = make_daemon({"out": archive(tmp_path / "out", **sink)})
    done = daemon.command("check")
    assert done.returncode == 78
    assert fault in done.stdout + done.stderr


def test_exports_of_splunk_elasticsearch_and_opentelemetry_are_verified(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    with SplunkReceiver() as splunk, Elasticsearch() as elastic, OtlpReceiver() as otlp:
        daemon = make_daemon({
            "splunk": {"protocol": "splunk-hec", "url": splunk.url,
                       "authorization": f"Splunk {TOKEN}", **SEAL},
            "ecs": {"protocol": "elasticsearch", "url": elastic.url, "format": "ecs", **SEAL},
            "otlp": {"protocol": "otlp", "url": otlp.url, "format": "cef", **SEAL},
        })  # fmt: skip
        append(daemon.audit, map(event, range(1, 301)))
        daemon.start()
        sinks = ("splunk", "ecs", "otlp")
        until(lambda: all(is_sealed(daemon, sink, 301) for sink in sinks))
        # The next seals name those of the other sinks.
        append(daemon.audit, [event(301)])
        until(lambda: all(is_sealed(daemon, sink, 303) for sink in sinks))
        assert daemon.terminate() == 0
        posted = b"".join(request.content for request in splunk.requests).decode()
        raws = [{"_raw": json.dumps(found["event"])} for found in each_json(posted)]
        hits = [{"_id": name, "_source": found} for name, found in elastic.documents.items()]
        logs = [json.loads(request.content) for request in otlp.requests]
    exports = {
        "splunk.json": json.dumps({"results": raws}),
        "elastic.json": json.dumps({"hits": {"hits": hits}}, indent=1),
        "otlp.json": "".join(json.dumps(log) + "\n" for log in logs),
    }
    for name, text in exports.items():
        (tmp_path / name).write_text(text)
    auditor = Auditor(daemon)
    report = auditor.verify(*(tmp_path / name for name in exports))
    assert [stream["unsealed"] for stream in report["streams"]] == [0, 0, 0]
    # A seal of one sink vouches for the others: a stream that is cut off is missed by its peers.
    kept = [hit for hit in hits if "Delivery Seal" not in json.dumps(hit)]
    (tmp_path / "elastic.json").write_text(json.dumps({"hits": {"hits": kept[:50]}}))
    assert "missing" in {kind for kind, *_ in auditor.found(*(tmp_path / n for n in exports))}


def test_a_reader_follows_the_guide_word_by_word(tmp_path: Path) -> None:
    guide = Path(__file__).parents[2] / "config" / "auditors.md"
    script = guide.read_text().partition("## Try it")[2].partition("```sh\n")[2].partition("```")[0]
    command = tmp_path / "bin" / "siemrelay"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m siemrelay "$@"\n')
    command.chmod(0o755)
    places = os.environ.get("PATH", ""), os.environ.get("PYTHONPATH", "")
    done = subprocess.run(
        ["bash", "-c", without_endpoint(script)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PATH": f"{command.parent}:{places[0]}",
                          "PYTHONPATH": f"{guide.parents[1]}:{places[1]}"},
    )  # fmt: skip
    assert done.returncode == 1, done
    proven, changed, deleted = done.stdout.split("stream ")[1:]
    assert "NOT" not in proven
    assert re.search(r"changed \S+ n=42 .*: not as it was sent \(changed.json:43\)", changed)
    assert re.search(r"missing \S+ n=77 .*: 1 message not in the export", deleted)
    assert ("NOT UNCHANGED" in changed, "NOT COMPLETE" in deleted) == (True, True)

"""A product's file from end to end: records that hold many, in a compressed file, as events."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import yaml

from tests.conftest import MakeDaemon
from tests.support.daemon import append, until

CASES = Path(__file__).parents[1] / "unit" / "products" / "records" / "cloudtrail.yaml"


def test_a_trails_file_becomes_an_event_for_each_of_its_records(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    (case, *_) = yaml.safe_load(CASES.read_text())
    logs, out = tmp_path / "trail", tmp_path / "out.json"
    logs.mkdir()
    trail = logs / "888888888888_CloudTrail_us-east-1.json.gz"
    trail.write_bytes(gzip.compress(case["body"].encode()))  # no line feed ends it
    daemon = make_daemon({})
    daemon.config["sources"] = {
        "trail": {"type": "file", "product": "cloudtrail", "path": f"{logs}/*.json.gz"}
    }
    daemon.config["sinks"] = {
        "out": {"protocol": "file", "path": str(out), "events": {"min_severity": 6}}
    }
    daemon.start()
    assert until(lambda: out.exists() and out.read_bytes().endswith(b"\n"))
    (event,) = map(json.loads, out.read_bytes().splitlines())
    assert (event["type"], event["severity"], event["outcome"]) == ("StopLogging", 10, "failure")
    assert event["attributes"]["errorCode"] == "AccessDenied"
    assert daemon.metric("source_records_total", source="trail") == 2

    shown = daemon.command("preview", "--json", str(trail))
    found = [json.loads(line)["event"]["type"] for line in shown.stdout.splitlines()]
    assert found == ["CreateUser", "StopLogging"]


def test_a_reload_reads_the_operators_products_and_refuses_faulty_ones(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    products, out = tmp_path / "products", tmp_path / "out.json"
    products.mkdir()
    doors = products / "doors.yaml"
    doors.write_text(
        "summary: doors\nfields: {type: what}\ntypes: {session: {Door Opened: [6, x]}}\n"
    )
    daemon = make_daemon({})
    daemon.config["products_dir"] = str(products)
    daemon.config["sources"]["audit"]["product"] = "doors"
    daemon.config["sinks"] = {"out": {"protocol": "file", "path": str(out)}}
    daemon.start()

    def severities() -> list[int]:
        lines = out.read_bytes().splitlines() if out.exists() else []
        return [json.loads(line)["severity"] for line in lines]

    append(daemon.audit, [{"what": "door opened"}])
    assert until(lambda: severities() == [6])
    doors.write_text(doors.read_text().replace("[6,", "[9,"))
    done = daemon.command("reload")
    assert done.returncode == 0, done.stderr
    append(daemon.audit, [{"what": "door opened"}])
    assert until(lambda: severities() == [6, 9])
    doors.write_text("summary: doors\nfields: {typ: what}\n")
    for command in ("reload", "check"):
        refused = daemon.command(command)
        assert refused.returncode == 78
        assert f"{doors}:2:10: fields.typ: unknown event field" in refused.stdout + refused.stderr
    append(daemon.audit, [{"what": "door opened"}])
    assert until(lambda: severities() == [6, 9, 9])

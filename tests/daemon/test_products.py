"""A product's file from end to end: records that hold many, in a compressed file, as events."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import yaml

from tests.conftest import MakeDaemon
from tests.support.daemon import until

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

"""A start loads what a relay needs, and nothing that only some parts and commands need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

_PROGRAM = """
import sys
from siemrelay.__main__ import main
try:
    main(["run", "-c", sys.argv[1], "--drain"])
except SystemExit as end:
    assert end.code == 0
print(*sys.modules, file=sys.stderr)
"""

# Each takes longer than a part takes to start.
NOT_FOR_EVERY_START = {
    "cryptography", "confluent_kafka", "redis", "pika", "httpx2", "jsonschema", "rich", "pygments",
    "urllib.request", "siemrelay.sinks.http.client", "siemrelay.sources.syslog.source",
    "siemrelay.net.http_server", "siemrelay.telemetry.page", "siemrelay.telemetry.metrics",
    "siemrelay.pipeline.sealing.sealed_stream", "siemrelay.proof.leaf",
}  # fmt: skip


def test_a_relay_that_has_run_has_loaded_nothing_that_it_does_not_use(tmp_path: Path) -> None:
    (tmp_path / "audit.json").write_text('{"type": "x"}\n')
    config = tmp_path / "relay.yaml"
    config.write_text(json.dumps({
        "state_dir": str(tmp_path / "state"), "endpoint": {"listen": "off"},
        "sources": {"audit": {"type": "file", "path": str(tmp_path / "audit.json")}},
        "sinks": {"out": {"protocol": "stdout", "format": "json"}},
    }))  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(config)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    loaded = done.stderr.splitlines()[-1].split()
    assert "siemrelay.relay.relay" in loaded
    assert not NOT_FOR_EVERY_START & set(loaded)

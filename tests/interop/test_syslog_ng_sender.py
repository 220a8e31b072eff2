"""A real syslog-ng that sends to the syslog source by each of its network drivers."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import MakeDaemon
from tests.support.daemon import until
from tests.support.programs.syslog_ng import command
from tests.unit.sinks.test_tls_sink import Files

TOTAL = 2000

CONFIGURATION = """
@version: 3.35
options {{ keep-hostname(yes); use-dns(no); stats-freq(0); flush-lines(1); }};
source s {{ file("{log}" flags(no-parse) follow-freq(0.1) program-override("app")); }};
destination d {{ {destination}; }};
log {{ source(s); destination(d); }};
"""


@contextmanager
def sender(directory: Path, destination: str) -> Iterator[Path]:
    """Sends what is appended to the file."""
    log, configuration = directory / "app.log", directory / "sender.conf"
    log.touch()
    configuration.write_text(CONFIGURATION.format(log=log, destination=destination))
    program, environment = command()
    with (directory / "sender.err").open("wb") as errors:
        process = subprocess.Popen(
            [*program, "--foreground", "--no-caps", "--stderr", f"--cfgfile={configuration}",
             f"--persist-file={directory}/persist.s", f"--control={directory}/control.s",
             f"--pidfile={directory}/pid.s"],
            stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
            env={**os.environ, **environment},
        )  # fmt: skip
    try:
        yield log
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize("way", [
    'network("127.0.0.1" port({port}) transport("tcp"))',
    'network("127.0.0.1" port({port}) transport("udp"))',
    'syslog("127.0.0.1" port({port}) transport("tcp"))',
    'syslog("127.0.0.1" port({port}) transport("tls") tls(ca-file("{files.ca}") '
    'cert-file("{files.client}") key-file("{files.client_key}")))',
    'unix-stream("{directory}/socket")',
    'unix-dgram("{directory}/socket")',
])  # fmt: skip
def test_syslog_ng_sends_by_every_driver(make_daemon: MakeDaemon, tmp_path: Path, way: str) -> None:
    files = Files(tmp_path)
    scheme = next(
        scheme for word, scheme in {
            '"tls"': "tls", '"udp"': "udp", "unix-stream": "unix", "unix-dgram": "unixgram",
            '"tcp"': "tcp",
        }.items() if word in way
    )  # fmt: skip
    listen = f"{scheme}://{tmp_path}/socket" if "unix" in scheme else f"{scheme}://127.0.0.1:0"
    daemon = make_daemon({})
    out = {"protocol": "file", "path": str(daemon.directory / "out"), "format": "json"}
    relayed = {"protocol": "file", "path": str(daemon.directory / "relayed"), "format": "syslog"}
    daemon.config["sinks"] = {"out": out, "relayed": relayed}
    daemon.config["sources"] = {"logs": {"type": "syslog", "listen": listen}}
    if scheme == "tls":
        daemon.config["sources"]["logs"]["tls"] = {
            "certificate": str(files.server), "key": str(files.server_key),
            "client_ca": str(files.ca),
        }  # fmt: skip
    daemon.start()
    port = until(lambda: daemon.said("listening"))[0]["port"]
    written = daemon.directory / "out"

    def received() -> list[str]:
        whole = written.read_bytes().rpartition(b"\n")[0] if written.exists() else b""
        return [json.loads(line)["message"] for line in whole.splitlines()]

    with sender(tmp_path, way.format(port=port, files=files, directory=tmp_path)) as log:
        with log.open("a") as file:
            file.writelines(f"number {number} of ada's\n" for number in range(TOTAL))
        until(lambda: len(received()) == TOTAL, what=(tmp_path / "sender.err").read_text())
        until(lambda: daemon.metric("sink_delivered_total", sink="relayed") == TOTAL)
    lines = (daemon.directory / "relayed").read_text().splitlines()
    own = re.compile(r"<13>1 \S+ \S+ app - - (?:-|\[meta [^\]]*\]) number (\d+) of ada's")
    forwarded = [int(match[1]) for match in map(own.fullmatch, lines) if match is not None]
    assert forwarded == (list(range(TOTAL)) if way.startswith("syslog(") else [])
    assert len(lines) == TOTAL
    assert received() == [f"number {number} of ada's" for number in range(TOTAL)]
    event = json.loads(written.read_bytes().splitlines()[0])
    assert event["attributes"]["syslog"]["app"] == "app"
    assert daemon.terminate() == 0

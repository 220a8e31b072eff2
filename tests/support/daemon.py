"""A rig around the real daemon: writes its configuration, runs it as a process, watches it.

Nothing here sleeps for a fixed time: `until` asks again and again for a condition, with a deadline.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tests.support import launcher

T = TypeVar("T")

# Long enough for a busy machine with a slow disk; a condition that holds is seen at once.
PATIENCE_S = 20.0
_ASK_AGAIN_S = 0.01

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))

# A retry pause that lets tests see the second attempt without waiting for it.
QUICK_RETRY = {"initial": "50ms", "max": "200ms"}


def until(condition: Callable[[], T], within_s: float = PATIENCE_S, what: str = "") -> T:
    """Wait until `condition` gives something true and return it; fails after `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {what or condition}")
        time.sleep(_ASK_AGAIN_S)
    return found


def event(number: int, **fields: Any) -> dict[str, Any]:
    """An audit event as a source writes it; `n0000001` is the id of number 1."""
    return {
        "id": f"n{number:07}", "time": "2026-03-04T05:06:07.089Z", "type": "Account Provisioned",
        "severity": 3, "outcome": "success", "actor": {"name": "ada", "address": "10.1.2.3"},
        "message": f"account number {number} was provisioned", **fields,
    }  # fmt: skip


def ids(numbers: Iterable[int]) -> list[str]:
    """The ids of `event` for these numbers."""
    return [f"n{number:07}" for number in numbers]


def append(path: Path, events: Iterable[Mapping[str, Any]]) -> None:
    """Write events to the end of a file, one a line, in one write."""
    lines = "".join(json.dumps(each) + "\n" for each in events)
    with path.open("a", encoding="utf-8") as file:
        file.write(lines)


def tcp(port: int, **settings: Any) -> dict[str, Any]:
    """A TCP sink that gets JSON lines."""
    return {
        "protocol": "tcp", "server": "127.0.0.1", "port": port, "format": "json",
        "retry": QUICK_RETRY, "timeout": "3s", **settings,
    }  # fmt: skip


def udp(port: int, **settings: Any) -> dict[str, Any]:
    """A UDP sink that gets JSON."""
    return {"server": "127.0.0.1", "port": port, "format": "json", "retry": QUICK_RETRY, **settings}


def http(url: str, **settings: Any) -> dict[str, Any]:
    """An HTTP sink that does not wait for more events."""
    batch = {"max_wait": "10ms", **settings.pop("batch", {})}
    return {"url": url, "retry": QUICK_RETRY, "timeout": "3s", "batch": batch, **settings}


class Daemon:
    """One relay with its directory: `audit.json` is its source, `state` its buffer.

    `config` is the whole configuration and may be changed between runs.
    """

    def __init__(self, directory: Path, sinks: Mapping[str, Any], **top: Any) -> None:
        self.directory = directory
        self.audit = directory / "audit.json"
        self.state = directory / "state"
        self.config: dict[str, Any] = {
            "state_dir": str(self.state),
            "sources": {"audit": {"type": "file", "path": str(self.audit), "poll": "100ms"}},
            "sinks": dict(sinks),
            "endpoint": {"listen": "127.0.0.1:0"},
            # Tests count what they send; test_self_audit.py switches it on.
            "self_audit": False,
            **top,
        }
        self.file = directory / "siemrelay.yaml"
        # A proxy of the machine's has no business between the parts of a test.
        self.environment = dict(os.environ)
        self.process: launcher.Process | subprocess.Popen[bytes] | None = None
        self._logs: list[Path] = []
        self.may_show_tracebacks = False
        """Of a test that makes a part fail: `close` lets its traceback stand in the log."""

    # -- its life ---------------------------------------------------------

    def start(self, *options: str, ready: bool = True) -> Daemon:
        """Start a process; with `ready`, wait until it reads its sources."""
        assert self.process is None, "it runs already"
        self.write_config()
        log = self.directory / f"log.{len(self._logs)}"
        self._logs.append(log)
        with log.open("wb") as stderr, open(os.devnull, "rb") as nothing:
            self.process = launcher.start(
                ["run", "-c", str(self.file), *options], environment=self.environment,
                stdin=nothing.fileno(), stdout=stderr.fileno(), stderr=stderr.fileno(),
            )  # fmt: skip
        if ready:
            until(lambda: self.said("started") or self.process_ended(), what="a start")
            assert self.said("started"), self.log_text
        return self

    def peak_mb(self) -> float:
        """The most memory that the present process has had."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6

    def processor_s(self) -> float:
        """The processor time that the present process has used, in all its threads."""
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")

    def process_ended(self) -> bool:
        """Whether the present process has ended by itself."""
        return self.process is not None and self.process.poll() is not None

    def write_config(self) -> None:
        """Write `config` to the file that the next start and the commands read."""
        self.file.write_text(yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True))
        self.file.chmod(0o600)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, within_s: float = PATIENCE_S) -> int:
        """Wait for the process' own end; its exit code."""
        assert self.process is not None
        code = self.process.wait(within_s)
        self.process = None
        return code

    def terminate(self, within_s: float = PATIENCE_S) -> int:
        """SIGTERM, and wait for the end; the exit code."""
        self.send(signal.SIGTERM)
        return self.wait(within_s)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self.send(signal.SIGKILL)
        self.wait()

    def close(self) -> None:
        """Put away whatever still runs, and look through all logs for what must not be there."""
        if self.process is not None:
            self.process.kill()
            self.wait()
        for log in () if self.may_show_tracebacks else self._logs:
            assert "Traceback" not in log.read_text(), log.read_text()

    # -- what it says -----------------------------------------------------

    @property
    def log_text(self) -> str:
        """Everything that the present or last process wrote."""
        return self._logs[-1].read_text()

    @property
    def log(self) -> list[dict[str, Any]]:
        """The log lines of the present or last process."""
        whole = self.log_text.rpartition("\n")[0].splitlines()
        return [json.loads(line) for line in whole if line.startswith("{")]

    def said(self, event: str) -> list[dict[str, Any]]:
        """The log lines with that event."""
        return [line for line in self.log if line["event"] == event]

    @property
    def endpoint(self) -> str:
        """HOST:PORT of its endpoint."""
        return f"127.0.0.1:{self.said('endpoint listening')[0]['port']}"

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of the endpoint's answer."""
        try:
            with _OPENER.open(f"http://{self.endpoint}{path}", timeout=PATIENCE_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metrics(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Every sample of a scrape: (name, sorted labels) → value."""
        from prometheus_client.parser import text_string_to_metric_families

        families = text_string_to_metric_families(self.get("/metrics")[1])
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }

    def metric(self, name: str, **labels: str) -> float:
        """One sample's value; the `siemrelay_` in front is left out."""
        return self.metrics()[f"siemrelay_{name}", tuple(sorted(labels.items()))]

    def refused(self, source: str) -> int:
        """How much the source has turned away, for whatever reason."""
        return int(sum(
            value
            for (name, labels), value in self.metrics().items()
            if name == "siemrelay_source_refused_total" and dict(labels)["source"] == source
        ))  # fmt: skip

    def state_of(self, sink: str) -> str:
        """The state that the sink's metric names."""
        found = self.metrics()
        (state,) = [
            dict(labels)["state"]
            for (name, labels), value in found.items()
            if name == "siemrelay_sink_state" and dict(labels)["sink"] == sink and value == 1
        ]
        return state

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of the buffer's database, as an operator would look at them."""
        with closing(sqlite3.connect(f"file:{self.state}/buffer.db?mode=ro", uri=True)) as database:
            return database.execute(query).fetchall()

    def command(
        self, *arguments: str, stdin: str = "", environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run another command of siemrelay on the same configuration."""
        self.write_config()
        name, *rest = arguments
        return launcher.run(
            name, "-c", str(self.file), *rest, input=stdin,
            environment={**self.environment, **(environment or {})},
        )  # fmt: skip

"""What SIEMs export of one relay's sealed sinks: recorded once, then tampered with in copies.

The relay is the real one. rsyslog and syslog-ng are real and write files by their own templates;
Splunk, Elasticsearch, an OTLP collector and Graylog are stand-ins that keep what they were sent,
and their exports have the shape that their documentation shows.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from siemrelay.cli.proof.verify import verify
from siemrelay.core.times import rfc3339
from tests.support import launcher
from tests.support.daemon import Daemon, append, event, tcp, until
from tests.support.events.hostile import forged_events
from tests.support.programs.rsyslogd import FilingRsyslogd
from tests.support.programs.syslog_ng import FilingSyslogNg
from tests.support.receivers.elasticsearch import Elasticsearch
from tests.support.receivers.otlp import OtlpReceiver
from tests.support.receivers.sockets import TcpReceiver
from tests.support.receivers.splunk import TOKEN, SplunkReceiver

ROUNDS, EVENTS = 3, 20

Finding = tuple[str, int | None, int | None]
"""Kind, first and last number."""

_NUMBER = re.compile(r"\b([a-z2-7]{10}):(\d{1,16})\b")
_SEALED = re.compile(r"sealed (\d+) messages of ")
_ORIGIN = re.compile(r"messages of (\S+/(\S+)/([a-z2-7]{10})): siemrelay-seal")
_BODY = re.compile(r"CEF:|LEEF:|\[event@|\{|siemrelay: ")


def number_of(row: str) -> int:
    """The number of a message."""
    found = _NUMBER.search(row)
    assert found, row
    return int(found[2])


def sealed_by(row: str) -> int | None:
    """How many messages this one seals; None if it is no seal."""
    found = _SEALED.search(row) if "siemrelay-seal:" in row else None
    return int(found[1]) if found else None


@dataclass(frozen=True)
class Export:
    """What a SIEM has of one sink's stream, a message a row, and how it writes rows down."""

    sink: str
    rows: tuple[str, ...]
    shape: Callable[[Sequence[str]], str]
    key: str
    ends_at: float
    """The time of the last row, in seconds."""

    def tampered(self, change: Callable[[list[str]], Sequence[str]]) -> Export:
        """This with other rows."""
        return replace(self, rows=tuple(change([*self.rows])))

    @property
    def stream(self) -> str:
        """The stream's part of its numbers."""
        found = _NUMBER.search(self.rows[0])
        assert found
        return found[1]

    @property
    def events(self) -> list[int]:
        """The places of rows that are no seals."""
        return [i for i, row in enumerate(self.rows) if sealed_by(row) is None]

    def windows(self) -> list[range]:
        """The numbers between two seals that are there."""
        ends = sorted({size for row in self.rows if (size := sealed_by(row)) is not None})
        return [range(a, b) for a, b in zip([0, *ends], ends, strict=False) if a < b]

    def window_of(self, number: int) -> Finding:
        """First and last of the numbers that are sealed with this one, as changed."""
        (found,) = [window for window in self.windows() if number in window]
        return "changed", found[0], found[-1]

    def holes(self) -> set[Finding]:
        """What an auditor is told about numbers that are not there."""
        have, findings = {number_of(row) for row in self.rows}, set[Finding]()
        for window in self.windows():
            run: list[int] = []
            for number in [*window, None]:
                if number is not None and number not in have:
                    run.append(number)
                elif run:
                    findings.add(("missing", run[0], run[-1]))
                    run = []
            if not have.issuperset(window) and have.intersection(window):
                findings.add(("unproven", window[0], window[-1]))
        return findings

    def body(self, row: str) -> int:
        """Where in the row the message begins, behind its header."""
        found = _BODY.search(row)
        assert found, row
        return found.start() + len(found[0]) * (found[0] == "siemrelay: ")


def verified(
    *exports: Export | str, folder: Path, keys: Sequence[str] = (), after_s: float = 0.0,
    options: Sequence[str] = (),
) -> tuple[int, dict[str, Any]]:  # fmt: skip
    """Exit code and report of `siemrelay verify`, `after_s` after the last row."""
    given = [each for each in exports if isinstance(each, Export)]
    end = max((each.ends_at for each in given), default=0.0) + after_s
    words = [word for key in keys or {each.key for each in given} for word in ("--key", key)]
    for i, export in enumerate(exports):
        path = folder / f"export{i}"
        text = export if isinstance(export, str) else export.shape(export.rows)
        path.write_text(text, encoding="utf-8", newline="")
        words.append(str(path))
    done = CliRunner().invoke(verify, [*words, "--until", rfc3339(end), "--json", *options])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return done.exit_code, json.loads(done.stdout) if done.exit_code != 2 else {}


def findings(report: dict[str, Any]) -> set[Finding]:
    """What is wrong."""
    return {(f["kind"], f.get("first"), f.get("last")) for f in report["findings"]}


# -- shapes ---------------------------------------------------------------


def lines(rows: Sequence[str]) -> str:
    """A file of lines."""
    return "".join(f"{row}\n" for row in rows)


def splunk_csv(rows: Sequence[str]) -> str:
    """Splunk's export as CSV, of a search whose results have the raw message."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["_raw", "_time", "host", "index", "source", "sourcetype"])
    for row in rows:
        writer.writerow([row, "2026-11-28T03:00:00.000+0100", "relay", "main", "http:siem", "json"])
    return out.getvalue()


def splunk_json(rows: Sequence[str]) -> str:
    """Splunk's export as JSON: a line a result."""
    return lines([
        json.dumps({"preview": False, "offset": i, "result": {"_raw": row, "host": "relay"}})
        for i, row in enumerate(rows)
    ])  # fmt: skip


def elastic_hits(rows: Sequence[str]) -> str:
    """The pages of an Elasticsearch scroll."""
    hits = [{"_index": "logs", "_id": str(i), "_source": json.loads(row)}
            for i, row in enumerate(rows)]  # fmt: skip
    pages = [hits[i : i + 10] for i in range(0, len(hits), 10)]
    return lines([
        json.dumps({"_scroll_id": "DXF1ZXJ5QW5kRmV0Y2g=", "took": 2, "timed_out": False,
                    "_shards": {"total": 1, "successful": 1, "skipped": 0, "failed": 0},
                    "hits": {"total": {"value": len(hits), "relation": "eq"}, "max_score": None,
                             "hits": page}})
        for page in [*pages, []]
    ])  # fmt: skip


def otlp_json(rows: Sequence[str]) -> str:
    """What the file exporter of an OpenTelemetry collector writes."""
    return lines([
        json.dumps({"resourceLogs": [{"resource": {}, "scopeLogs": [{"scope": {}, "logRecords": [
            {"timeUnixNano": "1772600767089000000", "body": {"stringValue": row}}
            for row in rows[i : i + 10]
        ]}]}]})
        for i in range(0, len(rows), 10)
    ])  # fmt: skip


# -- the recording --------------------------------------------------------

SHAPES: dict[str, tuple[str, Callable[[Sequence[str]], str]]] = {
    "Splunk, CSV": ("splunk", splunk_csv),
    "Splunk, JSON": ("splunk", splunk_json),
    "Elasticsearch, a scroll": ("elastic", elastic_hits),
    "OTLP, a collector's file": ("otlp", otlp_json),
    "GELF, lines": ("gelf", lines),
    "rsyslog, CEF in its default file": ("rsyslog-cef", lines),
    "rsyslog, LEEF in its traditional file": ("rsyslog-leef", lines),
    "rsyslog, RFC 5424 in RSYSLOG_SyslogProtocol23Format": ("rsyslog-5424", lines),
    "syslog-ng, RFC 3164 in its default file": ("ng-3164", lines),
    "syslog-ng, JSON in its default file": ("ng-json", lines),
}  # fmt: skip
"""What an export is called → its sink, and how the SIEM writes it."""

_FILES = {"rsyslog-cef": "file", "rsyslog-leef": "traditional", "rsyslog-5424": "protocol23"}


def record(directory: Path) -> dict[str, Export]:
    """By shape: what the SIEMs have once the relay has stopped, after three rounds of events."""
    with ExitStack() as stack:
        splunk, elastic = (
            stack.enter_context(SplunkReceiver()),
            stack.enter_context(Elasticsearch()),
        )
        otlp, gelf = stack.enter_context(OtlpReceiver()), stack.enter_context(TcpReceiver())
        (directory / "ng").mkdir()
        rsyslog = stack.enter_context(FilingRsyslogd(directory))
        ng = stack.enter_context(FilingSyslogNg(directory / "ng"))
        sinks: dict[str, dict[str, Any]] = {
            "splunk": {"protocol": "splunk-hec", "url": splunk.url,
                       "authorization": f"Splunk {TOKEN}"},
            "elastic": {"protocol": "elasticsearch", "url": elastic.url, "format": "ecs"},
            "otlp": {"protocol": "otlp", "url": otlp.url, "format": "cef"},
            "gelf": tcp(gelf.port, format="gelf", framing="newline"),
            "rsyslog-cef": tcp(rsyslog.port, format="cef", header="rfc3164", timezone="UTC"),
            "rsyslog-leef": tcp(rsyslog.port, format="leef", header="rfc3164", timezone="UTC"),
            "rsyslog-5424": tcp(rsyslog.port, format="syslog"),
            "ng-3164": tcp(ng.port, format="rfc3164", timezone="UTC"),
            "ng-json": tcp(ng.port, format="json", header="rfc3164", timezone="UTC"),
        }  # fmt: skip
        for settings in sinks.values():
            settings["seal"] = {"every": "1s"}
        daemon = Daemon(directory, sinks)
        try:
            key, ends_at = _run(daemon, [*sinks])
        finally:
            daemon.close()
        kept = {
            "splunk": [*_raw(b"".join(r.content for r in splunk.requests).decode())],
            "elastic": [json.dumps(found) for found in elastic.documents.values()],
            "otlp": [record.body.string_value for record in otlp.records],
            "gelf": [message.decode() for message in gelf.arrived.messages],
        }  # fmt: skip
        for sink in sinks:
            if sink not in kept:
                path = rsyslog.files / _FILES[sink] if sink in _FILES else ng.file
                kept[sink] = until(lambda: _filed(path, sink), what=sink)  # noqa: B023  (called now)
    return {
        name: Export(sink, tuple(kept[sink]), shape, key, ends_at)
        for name, (sink, shape) in SHAPES.items()
    }


def _run(daemon: Daemon, sinks: Sequence[str]) -> tuple[str, float]:
    """The relay's life; its verifier key, and when its last seal was made."""
    hostile = forged_events()
    for turn in range(ROUNDS):
        first = turn * EVENTS
        some = [event(first + i, message=f"account number {first + i} was provisioned")
                for i in range(EVENTS - 5)]  # fmt: skip
        append(daemon.audit, [*some, *(hostile[turn * 5 + i] for i in range(5))])
        if daemon.process is None:
            daemon.start()
        have = until(lambda: _messages(daemon, sinks, (turn + 1) * EVENTS))  # noqa: B023  (called now)
        until(lambda: all(_status(daemon)[sink]["seal"]["sealed_messages"] >= have[sink]  # noqa: B023  (called now)
                          for sink in sinks))  # fmt: skip
    assert daemon.terminate() == 0
    shown = json.loads(launcher.run("seal", "show", "-c", str(daemon.file), "--json").stdout)
    assert all(seal["messages"] == seal["under_seal"] + 1 for seal in shown.values())
    ends_at = max(datetime.fromisoformat(seal["sealed_at"]).timestamp() for seal in shown.values())
    return launcher.run("seal", "key", "-c", str(daemon.file)).stdout.strip(), ends_at


def _status(daemon: Daemon) -> dict[str, dict[str, Any]]:
    return {sink["name"]: sink for sink in json.loads(daemon.get("/status")[1])["sinks"]}


def _messages(daemon: Daemon, sinks: Sequence[str], events: int) -> dict[str, int]:
    """The messages of each stream, once all of so many events are in it; empty before.

    A sink that has not connected yet has no seal, though nothing waits for it.
    """
    found = json.loads(daemon.get("/status")[1])
    if found["sources"][0]["records"] < events:
        return {}
    if any(sink["oldest_undelivered_at"] for sink in found["sinks"]):
        return {}
    seals = {sink["name"]: sink["seal"] for sink in found["sinks"] if sink["seal"]}
    if not seals.keys() >= {*sinks}:
        return {}
    return {name: seal["messages"] for name, seal in seals.items()}


def _raw(posted: str) -> Iterator[str]:
    """The raw messages in what was posted to Splunk: as they stand in their envelopes."""
    at, mark, decoder = 0, '"event":', json.JSONDecoder()
    while (at := posted.find(mark, at)) >= 0:
        start = at + len(mark)
        _, at = decoder.raw_decode(posted, start)
        yield posted[start:at]


def _filed(path: Path, sink: str) -> list[str]:
    """The sink's rows in a file, once the last one is there; empty before."""
    if not path.exists():
        return []
    rows = path.read_text(encoding="utf-8").splitlines()
    found = [match for row in rows if (match := _ORIGIN.search(row)) and match[2] == sink]
    if not found:
        return []
    mine = [row for row in rows if f"{found[0][3]}:" in row]
    return mine if len(mine) == 1 + max(map(number_of, mine)) else []

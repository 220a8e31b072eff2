"""Debian's Prometheus: the alert rules by its own test program, and a relay that it scrapes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from siemrelay.telemetry.metrics import METRICS
from tests.conftest import MakeDaemon
from tests.support.daemon import append, event, tcp, until
from tests.support.receivers.sockets import TcpReceiver
from tests.support.servers import free_port, missing

ROOT = Path(__file__).parents[2]
RULES = ROOT / "systemd/alerts.yml"
ALERTS = {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"]
          for rule in group["rules"]}  # fmt: skip

# A proxy of the machine's has no business here.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))

# What every series of one relay has.
WHERE = 'job="siemrelay",instance="r:9614"'


def of_prometheus(name: str) -> str:
    """Its program: installed, or unpacked by tests/run."""
    unpacked = Path(sys.prefix) / "prometheus/usr/bin" / name
    if unpacked.exists():
        return str(unpacked)
    return shutil.which(name) or missing(f"{name} is not unpacked (Debian package prometheus)")


def series(name: str, values: str, **labels: str) -> tuple[str, str]:
    """One series of a minute's steps; `values` in promtool's notation."""
    some = "".join(f',{key}="{value}"' for key, value in labels.items())
    return f"{name}{{{WHERE}{some}}}", values


def state(sink: str, now: str) -> list[tuple[str, str]]:
    return [
        series("siemrelay_sink_state", f"{int(each == now)}x120", sink=sink, state=each)
        for each in ("connecting", "up", "waiting", "holding", "failed", "paused", "disabled")
    ]


def sink_counter(name: str) -> list[tuple[str, str]]:
    """Of a sink that counts one more after six minutes, and of one that does not."""
    return [
        series(f"siemrelay_sink_{name}", "7x5 8x75", sink="loud"),
        series(f"siemrelay_sink_{name}", "7x120", sink="quiet"),
        *state("loud", "up"), *state("quiet", "up"),
    ]  # fmt: skip


def source_counter(name: str, step: str) -> list[tuple[str, str]]:
    return [series(f"siemrelay_source_{name}", step, source="loud"),
            series(f"siemrelay_source_{name}", "7x120", source="quiet")]  # fmt: skip


LOUD_SINK, LOUD_SOURCE, RELAY = {"sink": "loud"}, {"source": "loud"}, dict[str, str]()
DAY = 86400
EXPIRY = "siemrelay_sink_certificate_expiry_timestamp_seconds"
REMOVED = "siemrelay_removed_sink_backlog_records"
INTERVAL = "siemrelay_sink_seal_interval_seconds"
STAMPED = ("siemrelay_sink_tsa_timestamp_seconds", "siemrelay_sink_tsa_failing")
SEALED, SAMPLED = "siemrelay_sink_seal_timestamp_seconds", "siemrelay_sink_sampled_total"
LIMITED = "siemrelay_source_limited_total"

CASES: list[tuple[str, list[tuple[str, str]], str, list[dict[str, str]]]] = [
    ("SiemrelayDown", [series("up", "1x10 0x60")], "15m", []),
    ("SiemrelayDown", [series("up", "1x10 0x60")], "17m", [RELAY]),
    ("SiemrelayRestarts", [series("process_start_time_seconds", "1x10 2x10 3x10 4x90")], "40m",
     [RELAY]),
    ("SiemrelayRestarts", [series("process_start_time_seconds", "1x10 2x10 3x90")], "40m", []),
    ("SiemrelaySinkBehind", [
        series("siemrelay_sink_oldest_undelivered_age_seconds", "0+60x60", sink="loud"),
        series("siemrelay_sink_oldest_undelivered_age_seconds", "0+60x60", sink="off"),
        series("siemrelay_sink_oldest_undelivered_age_seconds", "0+60x60", sink="away"),
        series("siemrelay_sink_oldest_undelivered_age_seconds", "200x60", sink="quiet"),
        *state("loud", "waiting"), *state("off", "disabled"), *state("away", "paused"),
        *state("quiet", "up"),
    ], "11m", [LOUD_SINK]),
    ("SiemrelaySinkHolding", [*state("loud", "holding"), *state("quiet", "waiting"),
                              *state("off", "disabled")], "2m", [LOUD_SINK]),
    ("SiemrelaySinkHolding", [*state("loud", "failed")], "2m", [LOUD_SINK]),
    ("SiemrelaySinkPaused", [series("siemrelay_sink_state", "1x400", sink="loud", state="paused")],
     "23h", []),
    ("SiemrelaySinkPaused", [series("siemrelay_sink_state", "1x400", sink="loud", state="paused")],
     "25h", [LOUD_SINK]),
    ("SiemrelayDeadLetters", sink_counter("dead_lettered_total"), "15m", [LOUD_SINK]),
    ("SiemrelayDeadLetters", sink_counter("dead_lettered_total"), "70m", []),
    ("SiemrelayDropped", [*sink_counter("dropped_total"), *state("off", "disabled"),
                          series("siemrelay_sink_dropped_total", "0+9x120", sink="off")],
     "15m", [LOUD_SINK]),
    ("SiemrelayRecordsMissing", sink_counter("missing_total"), "15m", [LOUD_SINK]),
    ("SiemrelayFileBytesLost", source_counter("lost_bytes_total", "7x5 900x69"), "15m",
     [LOUD_SOURCE]),
    ("SiemrelayUpstreamDropped", source_counter("upstream_dropped_total", "7x5 8x69"), "15m",
     [LOUD_SOURCE]),
    ("SiemrelaySourceFailed", source_counter("failed", "1x60"), "4m", []),
    ("SiemrelaySourceFailed", [series("siemrelay_source_failed", "1x60", source="loud"),
                               series("siemrelay_source_failed", "0x60", source="quiet")],
     "6m", [LOUD_SOURCE]),
    ("SiemrelaySourceRestarts", source_counter("restarts_total", "0+1x120"), "15m", [LOUD_SOURCE]),
    *((f"Siemrelay{part.title()}Credentials", [
        series(f"siemrelay_{part}_credentials_unusable", "1x60", **{part: "loud"}),
        series(f"siemrelay_{part}_credentials_unusable", "0x60", **{part: "quiet"}),
    ], "6m", [{part: "loud"}]) for part in ("sink", "source")),
    ("SiemrelayUnreadableFiles", [
        series("siemrelay_source_unreadable_files", "2x60", source="loud"),
        series("siemrelay_source_unreadable_files", "0x60", source="quiet"),
    ], "6m", [LOUD_SOURCE]),
    ("SiemrelayUnparsed", [
        series("siemrelay_source_unparsed_ratio", "0.11x60", source="loud"),
        series("siemrelay_source_records_total", "0+50x60", source="loud"),
        series("siemrelay_source_unparsed_ratio", "0.09x60", source="quiet"),
        series("siemrelay_source_records_total", "0+50x60", source="quiet"),
        series("siemrelay_source_unparsed_ratio", "1x60", source="idle"),
        series("siemrelay_source_records_total", "9x60", source="idle"),
    ], "40m", [LOUD_SOURCE]),
    ("SiemrelayCertificateExpires", [
        series(EXPIRY, f"{13 * DAY}x90", sink="loud"),
        series(EXPIRY, f"{15 * DAY}x90", sink="quiet"),
    ], "61m", [LOUD_SINK]),
    # The last seal was made at 0 s, and one is due every minute: late from the fourth minute on.
    *(("SiemrelaySealsStale", [
        *(one for sink in ("loud", "away", "slow") for one in (
            series(SEALED, "0x60", sink=sink),
            series(INTERVAL, "3600x60" if sink == "slow" else "60x60", sink=sink),
            *state(sink, "paused" if sink == "away" else "waiting"),
        )),
        series(SEALED, "0+60x60", sink="quiet"), series(INTERVAL, "60x60", sink="quiet"),
    ], at, fires) for at, fires in (("8m", []), ("10m", [LOUD_SINK]))),
    ("SiemrelayNeverSealed", [
        *(series(INTERVAL, "60x60", sink=sink) for sink in ("loud", "off", "quiet")),
        series(SEALED, "0+60x60", sink="quiet"), *state("off", "disabled"),
    ], "16m", [LOUD_SINK]),
    ("SiemrelaySealsUnstamped", [
        series("siemrelay_sink_tsa_failing", "1x90", sink="loud"),
        series("siemrelay_sink_tsa_failing", "1x50 0x40", sink="quiet"),
    ], "61m", [LOUD_SINK]),
    ("SiemrelayBufferFull", [series("siemrelay_buffer_full", "1x10")], "2m", [RELAY]),
    ("SiemrelayBufferFull", [series("siemrelay_buffer_full", "0x10")], "2m", []),
    # From 600 of 1,000 on by 2 a minute: 480 more within 4 hours.
    ("SiemrelayBufferFills", [series("siemrelay_buffer_size_bytes", "600+2x120"),
                              series("siemrelay_buffer_max_size_bytes", "1000x120")],
     "60m", [RELAY]),
    ("SiemrelayBufferFills", [series("siemrelay_buffer_size_bytes", "900x120"),
                              series("siemrelay_buffer_max_size_bytes", "1000x120")], "60m", []),
    # A young buffer grows fast for a while.
    ("SiemrelayBufferFills", [series("siemrelay_buffer_size_bytes", "0+5x60"),
                              series("siemrelay_buffer_max_size_bytes", "1000x120")], "60m", []),
    ("SiemrelayRemovedSink", [series(REMOVED, "3x90", sink="loud")], "61m", [LOUD_SINK]),
    ("SiemrelayReloadFailed", [series("siemrelay_config_last_reload_successful", "1x5 0x20")],
     "12m", [RELAY]),
    ("SiemrelayReloadFailed", [series("siemrelay_config_last_reload_successful", "1x20")],
     "12m", []),
]  # fmt: skip


SLOW_TO_FIRE = {"SiemrelaySinkPaused"}
"""Alerts with a day of patience: their series have steps of five minutes, to save time."""


def labels_of(wanted: dict[str, str]) -> str:
    return "{" + ",".join(f'{k}="{v}"' for k, v in {"instance": "r:9614", **wanted}.items()) + "}"


DASHBOARD = json.loads((ROOT / "systemd/grafana-dashboard.json").read_text())


def queries() -> list[str]:
    """Every query of the dashboard, as Grafana sends it."""
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    found = [target["expr"] for panel in panels for target in panel["targets"]]
    found += [note["expr"] for note in DASHBOARD["annotations"]["list"]]
    variables = {"$job": "siemrelay", "$instance": ".*", "$__rate_interval": "1m",
                 "$__interval": "1m"}  # fmt: skip
    for name, value in variables.items():
        found = [query.replace(name, value) for query in found]
    return found


def test_the_dashboard_names_metrics_that_exist_and_no_panel_lies_on_another() -> None:
    known = {f"{m.prefix}{m.name}" + ("_bucket" if m.kind == "histogram" else "") for m in METRICS}
    named = set(re.findall(r"\b(?:siemrelay|process)_\w+", str(queries())))
    assert named - known == set()
    assert not any("$" in query for query in queries())
    places = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(places) == len(set(places))
    assert max(x for x, _ in places) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_every_alert_has_a_case_in_which_it_fires_and_says_what_to_do() -> None:
    assert {name for name, _, _, fires in CASES if fires} == set(ALERTS)
    for rule in ALERTS.values():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"].keys() == {"summary", "description"}


def test_the_alerts_name_metrics_that_exist() -> None:
    known = {f"{metric.prefix}{metric.name}" for metric in METRICS}
    named = set(
        re.findall(r"\b(?:siemrelay|process)_\w+", str([r["expr"] for r in ALERTS.values()]))
    )
    assert named - known == set()


def test_promtool_sees_each_alert_fire_when_it_should_and_only_then(tmp_path: Path) -> None:
    files = []
    for step_minutes in (1, 5):
        tests = [
            {
                "interval": f"{step_minutes}m",
                "input_series": [{"series": name, "values": values} for name, values in given],
                "promql_expr_test": [{
                    "expr": "count by (instance, sink, source) "
                    f'(ALERTS{{alertname="{alert}",alertstate="firing"}})',
                    "eval_time": at,
                    "exp_samples": [{"labels": labels_of(each), "value": 1} for each in fires],
                }],
            }
            for alert, given, at, fires in CASES
            if (alert in SLOW_TO_FIRE) == (step_minutes > 1)
        ]  # fmt: skip
        files.append(tmp_path / f"tests{step_minutes}.yml")
        files[-1].write_text(yaml.safe_dump({
            "rule_files": [str(RULES)], "evaluation_interval": f"{step_minutes}m", "tests": tests,
        }))  # fmt: skip
    command = [of_prometheus("promtool"), "test", "rules", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def prometheus(directory: Path, target: str) -> Iterator[Callable[..., Any]]:
    """A Prometheus that scrapes the target every second; yields a function that asks its API."""
    port = free_port()
    config = directory / "prometheus.yml"
    config.write_text(yaml.safe_dump({
        "global": {"scrape_interval": "200ms", "evaluation_interval": "200ms"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": "siemrelay", "static_configs": [{"targets": [target]}]}
        ],
    }))  # fmt: skip
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [of_prometheus("prometheus"), f"--config.file={config}",
             f"--storage.tsdb.path={directory}/tsdb", f"--web.listen-address=127.0.0.1:{port}"],
            stdout=log, stderr=log,
        )  # fmt: skip

    def ask(what: str, **parameters: str) -> Any:
        address = f"http://127.0.0.1:{port}/api/v1/{what}?{urlencode(parameters)}"
        try:
            with _OPENER.open(address, timeout=10) as answer:
                return json.load(answer)["data"]
        except OSError:  # not ready yet
            assert process.poll() is None, (directory / "prometheus.log").read_text()
            return None

    try:
        yield ask
    finally:
        process.terminate()
        process.wait(20)


def test_prometheus_scrapes_a_running_relay_and_takes_the_rules(
    tmp_path: Path, make_daemon: MakeDaemon
) -> None:
    with TcpReceiver() as receiver:
        daemon = make_daemon({"siem": tcp(receiver.port), "off": tcp(1, enabled=False)}).start()
        append(daemon.audit, (event(n) for n in range(1, 11)))
        receiver.until(10)
        until(lambda: daemon.metric("sink_delivered_total", sink="siem") == 10)
        with prometheus(tmp_path, daemon.endpoint) as ask:

            def found(query: str) -> dict[str, float]:
                answer = ask("query", query=query)
                return {
                    series["metric"].get("sink", series["metric"].get("__name__", "")):
                    float(series["value"][1])
                    for series in (answer or {}).get("result", ())
                }  # fmt: skip

            until(lambda: found("siemrelay_sink_delivered_total") == {"siem": 10, "off": 0})
            assert found("up") == {"up": 1}
            assert found('siemrelay_sink_state{state="disabled"} == 1') == {"off": 1}
            assert found("process_resident_memory_bytes > 1e6")
            names = ask("label/__name__/values")
            wanted = {
                f"{metric.prefix}{metric.name}" for metric in METRICS
                if metric.kind != "histogram" and not (set(metric.labels) & {"reason"})
            }  # fmt: skip
            # No TLS here, no sink was removed, none is sealed or sampled, no source is limited.
            absent = {EXPIRY, REMOVED, SEALED, INTERVAL, *STAMPED, SAMPLED, LIMITED}
            assert wanted - set(names) == absent
            until(lambda: evaluated(ask("rules")) == dict.fromkeys(ALERTS, "ok"))
            assert ask("alerts")["alerts"] == []
            for query in queries():
                assert ask("query", query=query) is not None, query


def evaluated(rules: Any) -> dict[str, str]:
    """Each rule's health, once it has been evaluated."""
    return {rule["name"]: rule["health"] for group in rules["groups"] for rule in group["rules"]}

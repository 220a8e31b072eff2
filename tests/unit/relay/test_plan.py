"""What a reload would change, as a table of two configurations."""

from __future__ import annotations

import pytest
import yaml

from siemrelay.config.load import Loaded, load_text
from siemrelay.relay.plan import plan

BASE = """
state_dir: /var/lib/siemrelay
sources:
  alm: {type: file, path: /var/log/a.json}
  devices: {type: syslog, listen: "udp://127.0.0.1:5514"}
sinks:
  qradar: {server: q.example.com, protocol: tcp, port: 514}
  web: {url: "https://w.example.com/in?token=old-token", authorization: "Bearer ${TOKEN}"}
"""
TOKEN = {"TOKEN": "the-old-secret"}


def loaded(text: str, token: str = "the-old-secret") -> Loaded:
    return load_text(text, "f", {"TOKEN": token})


def changed(**parts: object) -> str:
    """The base with other values at dotted places; None removes."""
    value = yaml.safe_load(BASE)
    for place, new in parts.items():
        *above, last = place.split("__")
        inner = value
        for key in above:
            inner = inner.setdefault(key, {})
        if new is None:
            del inner[last]
        else:
            inner[last] = new
    return yaml.safe_dump(value, sort_keys=False)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (BASE, ["keep 4 parts unchanged"]),
        (changed(sinks__qradar__port=6514),
         ["restart sink qradar (port 514 → 6514)", "keep 3 parts unchanged"]),
        (changed(sinks__new={"server": "n.example.com"}),
         ["add sink new", "keep 4 parts unchanged"]),
        (changed(sinks__qradar=None), ["remove sink qradar", "keep 3 parts unchanged"]),
        (changed(sources__devices=None), ["remove source devices", "keep 3 parts unchanged"]),
        (changed(sinks__qradar__events={"min_severity": 4}),
         ["restart sink qradar (events.min_severity 0 → 4)", "keep 3 parts unchanged"]),
        (changed(sinks__qradar__enabled=False),
         ["restart sink qradar (enabled yes → no)", "keep 3 parts unchanged"]),
        (changed(buffer={"max_size": "20GiB"}),
         ["set buffer.max_size 10GiB → 20GiB", "keep 4 parts unchanged"]),
        (changed(endpoint={"listen": "off"}),
         ["set endpoint.listen 127.0.0.1:9614 → off", "keep 4 parts unchanged"]),
        (changed(sinks__ibm={"renamed_from": "qradar", "server": "q.example.com",
                             "protocol": "tcp", "port": 515}, sinks__qradar=None),
         ["rename sink qradar to ibm (port 514 → 515)", "keep 3 parts unchanged"]),
        (changed(sinks__qradar__renamed_from="ibm"), ["keep 4 parts unchanged"]),
        (changed(log={"level": "debug"}), ["set log.level info → debug", "keep 4 parts unchanged"]),
    ],
)  # fmt: skip
def test_a_plan_names_each_change_and_the_difference(text: str, lines: list[str]) -> None:
    assert plan(loaded(BASE).config, loaded(text).config).lines() == lines


def test_a_plan_finds_the_new_name_of_a_sink_that_says_nothing_of_it() -> None:
    text = changed(
        sinks__qradar=None, sinks__other={"server": "o.example.com"},
        sinks__ibm={"server": "q.example.com", "protocol": "tcp", "port": 514},
    )  # fmt: skip
    assert plan(loaded(BASE).config, loaded(text).config).alike == {"qradar": "ibm"}


def test_a_changed_protocol_restarts_the_sink() -> None:
    text = changed(sinks__qradar={"server": "q.example.com", "protocol": "udp", "port": 514})
    (change,) = plan(loaded(BASE).config, loaded(text).config).changes
    assert (change.kind, change.name) == ("restart", "qradar")
    assert "protocol tcp → udp" in change.details


def test_a_new_block_is_shown_as_it_stands_in_a_file() -> None:
    tls = {"server": "q.example.com", "protocol": "tls", "tls": {"verify": False}}
    (change,) = plan(loaded(BASE).config, loaded(changed(sinks__qradar=tls)).config).changes
    assert any(line.startswith("tls none → {ca: none, ") for line in change.details)
    assert any("verify: no" in line for line in change.details)


def test_a_control_character_is_shown_as_its_picture() -> None:
    text = changed(sinks__qradar={"server": "q.example.com", "protocol": "tcp", "port": 514,
                                  "format": "leef"})  # fmt: skip
    (change,) = plan(loaded(BASE).config, loaded(text).config).changes
    assert "delimiter none → ␉" in change.details


def test_a_changed_secret_restarts_the_sink_and_is_not_shown() -> None:
    other = loaded(BASE, "the-new-secret")
    (change,) = plan(loaded(BASE).config, other.config).changes
    assert str(change) == "restart sink web (authorization changed)"


def test_a_changed_secret_in_an_address_is_not_shown() -> None:
    text = BASE.replace("old-token", "new-token")
    lines = "\n".join(plan(loaded(BASE).config, loaded(text).config).lines())
    assert "restart sink web" in lines
    assert "old-token" not in lines
    assert "new-token" not in lines


def test_declared_event_types_restart_every_part() -> None:
    text = changed(event_types={"Door Opened": {"severity": 5}})
    planned = plan(loaded(BASE).config, loaded(text).config)
    assert len(planned.changes) == 4
    assert planned.unchanged == 0


def test_what_only_a_restart_can_change_is_named() -> None:
    text = changed(state_dir="/srv/x")
    assert plan(loaded(BASE).config, loaded(text).config).fixed == ("state_dir",)

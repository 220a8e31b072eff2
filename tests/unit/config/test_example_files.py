"""The files beside the code: the reference is what the code says, every example loads."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from siemrelay import registry
from siemrelay.config.effective import sink_settings
from siemrelay.config.load import load, load_text
from siemrelay.config.presets import PRESETS
from siemrelay.config.reference import render
from siemrelay.core.event import Actor, AuditEvent, Batch, DecodedBatch, Selection
from siemrelay.relay.assembly import Assembly

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "config").rglob("*.yaml"))
CREDENTIAL = re.compile(r"\$\{credential:([^}]+)\}")


def environment(text: str, folder: Path) -> dict[str, str]:
    """Whatever the text refers to."""
    for name in CREDENTIAL.findall(text):
        (folder / name).write_text("not really a secret\n")
    variables = dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), "1")
    return {**variables, "CREDENTIALS_DIRECTORY": str(folder)}


def test_reference_is_what_the_code_says() -> None:
    assert (ROOT / "config" / "reference.md").read_text() == render(), (
        "run: python -m siemrelay.config.reference > config/reference.md"
    )


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_example_loads_without_fault(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(file.read_text(), tmp_path).items():
        monkeypatch.setenv(name, value)
    found = load(file)
    assert found.config.sinks
    assert not found.inline_secrets


def test_every_protocol_and_format_has_an_example(tmp_path: Path) -> None:
    sinks = [
        sink
        for file in EXAMPLES
        for text in [file.read_text()]
        for sink in load_text(text, file.name, environment(text, tmp_path)).config.sinks.values()
    ]
    assert {sink.protocol for sink in sinks} == set(registry.PROTOCOLS)
    assert {sink.format for sink in sinks} == set(registry.FORMATS)


def test_every_source_has_an_example(tmp_path: Path) -> None:
    sources = [
        source
        for file in EXAMPLES
        for text in [file.read_text()]
        for source in load_text(
            text, file.name, environment(text, tmp_path)
        ).config.sources.values()
    ]
    assert {source.type for source in sources} == set(registry.SOURCES)


@pytest.mark.parametrize(
    "rows", [registry.SOURCES, registry.DECODERS, registry.FORMATS, registry.PROTOCOLS]
)
def test_every_row_of_the_registry_leads_to_a_kind(rows: registry.Rows[Any]) -> None:
    for name in rows:
        assert rows[name].summary


def test_every_preset_has_an_example_that_takes_its_defaults(tmp_path: Path) -> None:
    for name, preset in PRESETS.items():
        file = ROOT / "config" / "examples" / "siem" / f"{name}.yaml"
        text = file.read_text()
        loaded = load_text(text, file.name, environment(text, tmp_path))
        (settings,) = (sink_settings(loaded, sink) for sink in loaded.config.sinks)
        origins = {setting.key.partition(".")[0]: setting.origin for setting in settings}
        (sink,) = loaded.document.value["sinks"].values()
        for key in preset.defaults:
            # The headers of Google SecOps: one is the preset's, one the example's.
            assert origins[key] == ("file" if key in sink else "preset"), (name, key)
            assert key not in sink or key == "headers"


def test_what_the_file_says_is_stronger_than_the_preset(tmp_path: Path) -> None:
    text = """
sources: {a: {type: file, path: /var/log/a.json}}
sinks:
  q: {siem: qradar, server: q.example.com, port: 1514, format: cef}
  d: {siem: datadog, authorization: key-of-eight, batch: {max_events: 10}}
"""
    config = load_text(text, "x.yaml", {}).config
    qradar, datadog = config.sinks["q"], config.sinks["d"]
    assert (qradar.port, qradar.format, qradar.protocol) == (1514, "cef", "tcp")  # type: ignore[attr-defined]  # of the joined model
    assert datadog.batch.max_events == 10  # type: ignore[attr-defined]  # of the joined model
    assert datadog.batch.encoding == "array"  # type: ignore[attr-defined]  # of the joined model


def test_every_preset_names_the_page_that_its_limits_are_from() -> None:
    for name, preset in PRESETS.items():
        assert preset.page.startswith("https://") or name == "generic"


def test_limits_of_a_message_hold_in_every_format_over_every_protocol_of_its_siem() -> None:
    text = """
sources: {a: {type: file, path: /var/log/a.json}}
sinks:
  tls: {siem: qradar, protocol: tls, server: q.example.com}
  udp: {siem: qradar, protocol: udp, server: q.example.com}
  http: {siem: qradar, protocol: http, url: "https://q.example.com"}
  cef: {siem: qradar, server: q.example.com, format: cef}
  own: {siem: qradar, server: q.example.com, max_message_size: 32kB}
"""
    sinks = load_text(text, "x.yaml", {}).config.sinks
    sizes = {name: sink.max_message_size for name, sink in sinks.items()}
    assert sizes == {"tls": 4096, "udp": 1024, "http": None, "cef": 4096, "own": 32_000}


def test_google_secops_is_sent_the_media_type_of_its_page_and_the_headers_of_the_file() -> None:
    text = """
sources: {a: {type: stdin}}
sinks: {c: {siem: chronicle, url: "https://c.example.com", authorization: feed-secret,
            headers: {X-goog-api-key: the-key}}}
"""
    (sink,) = load_text(text, "x.yaml", {}).config.sinks.values()
    headers = {"Content-Type": "application/json", "X-goog-api-key": "the-key"}
    assert sink.headers == headers  # type: ignore[attr-defined]  # of the joined model


def test_datadog_reads_time_and_status_from_where_it_looks() -> None:
    """It looks for `timestamp` and `status`, and a number there is syslog's: 7 is debug."""
    text = """
sources: {a: {type: file, path: /var/log/a.json}}
sinks: {d: {siem: datadog, authorization: key-of-eight, map: {who: actor.name}}}
"""
    config = load_text(text, "x.yaml", {}).config
    event = AuditEvent(id="1", time="2026-03-04T05:06:07Z", type="T", severity=8,
                       category="c", outcome="success",
                       actor=Actor(name="ada"))  # fmt: skip
    decoded = DecodedBatch(Batch(1, 1, "a", 1.7e9, b"{}\n"), [event])
    (message,) = Assembly(config).sink("d").format.encode(Selection(decoded))
    document = json.loads(message)
    del document["siemrelay"]
    assert document == {
        "id": "1", "timestamp": "2026-03-04T05:06:07Z", "type": "T", "category": "c",
        "outcome": "success", "status": 3,
        "event_severity": 8, "actor": {"name": "ada"}, "who": "ada",
    }  # fmt: skip


def test_a_preset_does_not_speak_of_a_protocol_that_the_file_did_not_take() -> None:
    text = """
sources: {a: {type: file, path: /var/log/a.json}}
sinks: {s: {siem: splunk, protocol: udp, server: s.example.com}}
"""
    loaded = load_text(text, "x.yaml", {})
    sink = loaded.config.sinks["s"]
    assert (sink.protocol, sink.format) == ("udp", "syslog")
    (origin,) = [s.origin for s in sink_settings(loaded, "s") if s.key == "format"]
    assert origin == "default"


@pytest.mark.parametrize(
    ("sink", "expected"),
    [
        ("{siem: qradar, protocol: tls}", ("leef", "rfc3164", 6514)),
        ("{siem: arcsight, protocol: udp}", ("cef", "rfc3164", 514)),
        ("{siem: logrhythm, protocol: udp, format: json}", ("json", "none", 514)),
        ("{siem: graylog, protocol: tls}", ("gelf", "none", 12201)),
    ],
)
def test_a_preset_keeps_its_format_over_the_other_protocols_that_its_siem_takes_it_by(
    sink: str, expected: tuple[str, str, int]
) -> None:
    text = "sources: {a: {type: file, path: /var/log/a.json}}\nsinks: {s: " + sink
    config = load_text(text.replace("protocol", "server: h, protocol") + "}", "x.yaml", {}).config
    found: Any = config.sinks["s"]
    assert (found.format, found.header, found.port) == expected


def test_commented_out_parts_of_the_packaged_file_load_too(tmp_path: Path) -> None:
    text = (ROOT / "config" / "siemrelay.yaml").read_text()
    # A comment is two spaces or more, `# `, then a key; prose begins in the first column.
    shown = re.sub(r"(?m)^( {2,})# (?=[ \w.]+:)", r"\1", text)
    assert shown != text
    config = load_text(shown, "siemrelay.yaml", environment(shown, tmp_path)).config
    assert set(config.sinks) == {"archive", "qradar", "collector"}


def blocks(document: str) -> list[str]:
    """The YAML that a document shows."""
    found = re.findall(r"(?ms)^```yaml\n(.*?)^```", (ROOT / document).read_text())
    assert found
    return found


@pytest.mark.parametrize("document", ["README.md", "config/README.md", "config/auditors.md"])
def test_every_configuration_that_a_document_shows_loads(document: str, tmp_path: Path) -> None:
    whole = [block for block in blocks(document) if re.search(r"(?m)^sinks:", block)]
    assert whole
    for block in whole:
        text = block
        if not re.search(r"(?m)^sources:", block):
            text += "sources: {a: {type: file, path: /var/log/a.json}}\n"
        assert load_text(text, document, environment(text, tmp_path)).config.sinks


def test_every_option_of_a_part_that_the_guide_shows_loads(tmp_path: Path) -> None:
    """Each under its own name, also where a block shows several forms of one option."""
    shown = [block for block in blocks("config/README.md")
             if re.match("(events|where|redact|sample|limit):", block)]  # fmt: skip
    options = [option for block in shown for option in re.split(r"(?m)^(?=\w)", block) if option]
    assert {option.partition(":")[0] for option in options} == {
        "events", "where", "redact", "sample", "limit",
    }  # fmt: skip
    for option in options:
        indented = "".join(f"    {line}\n" for line in option.splitlines())
        source, sink = (indented, "") if option.startswith("limit:") else ("", indented)
        text = (f"sources:\n  a:\n    type: file\n    path: /var/log/a.json\n{source}"
                f"sinks:\n  s:\n    server: h\n{sink}")  # fmt: skip
        assert load_text(text, "config/README.md", environment(text, tmp_path)).config.sinks


def test_the_product_that_the_guide_shows_loads(tmp_path: Path) -> None:
    (product,) = (text for text in blocks("config/README.md") if text.startswith("summary:"))
    (tmp_path / "door.yaml").write_text(product)
    text = (f"products_dir: {tmp_path}\nsources:\n"
            "  a: {type: file, path: /var/log/a.json, product: door}\n"
            "  b: {type: http, listen: 'http://127.0.0.1:8080', product: door}\n"
            "sinks: {s: {server: h}}\n")  # fmt: skip
    assert load_text(text, "config/README.md", {}).config.sources


def test_reference_shows_permissions_as_people_write_them() -> None:
    (row,) = (line for line in render().splitlines() if line.startswith("| `mode` |"))
    assert row.split(" | ")[1:3] == ["octal permissions", "`0660`"]


def test_reference_says_where_a_key_is_required_only_because_its_block_is_there() -> None:
    rows = {tuple(line.split(" | ")[::2])[:2] for line in render().splitlines()}
    assert ("| `basic.username`", "required in this block") in rows
    assert ("| `url`", "required") in rows

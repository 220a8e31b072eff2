"""What `check FILE` and `preview` propose can be pasted, and then every record is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from siemrelay.cli.commands import main
from siemrelay.cli.proposals import proposal
from siemrelay.core.event import FIELDS, Batch
from siemrelay.core.event_types import Catalogue
from siemrelay.registry import DECODERS
from tests.support.events.products import GENERIC

RECEIVED_S = 1_795_900_000.0  # 28 November 2026
AUDIT = (Path(__file__).parents[2] / "corpus" / "audit.log").read_bytes()
DATED = b"2026-11-20 08:00:00 ERROR failed\n  at x\n2026-11-20 08:00:01 INFO ok\n"
SAMPLES: dict[str, tuple[bytes, dict[str, Any]]] = {
    "ndjson": (b'{"type":"a"}\n{"type":"b"}\n', {"decoder": "json"}),
    "document": (
        json.dumps([{"type": "a"}, {"type": "b"}], indent=1).encode(), {"decoder": "json"},
    ),
    "auditd": (AUDIT, {"product": "auditd", "decoder": "auditd"}),
    "csv": (b"time,user,action\n1,ada,login\n2,bob,logout\n", {"decoder": "csv"}),
    "semicolons": ("time;user\n1;M\u00fcller\n".encode("cp1252"),
                   {"decoder": "csv", "encoding": "cp1252", "delimiter": ";"}),
    "no header": (b"1\tada\tlogin\n2\tbob\tlogout\n",
                  {"decoder": "csv", "delimiter": "\t",
                   "columns": ["column1", "column2", "column3"]}),
    "utf-16": ("\ufefftime,user\n1,M\u00fcller\n".encode("utf-16-le"), {"decoder": "csv"}),
    "utf-16 without a mark": ('{"type":"a"}\n'.encode("utf-16-be"),
                              {"decoder": "json", "encoding": "utf-16-be"}),
    "cef": (b"CEF:0|v|p|1|t|n|5|src=1.2.3.4\n", {"decoder": "cef"}),
    "leef": (b"<13>Nov 20 08:00:00 h LEEF:1.0|v|p|1|t|src=1.2.3.4\n", {"decoder": "leef"}),
    "pairs": (b'date=2026-11-20 time=10:00:00 devname="x" action=deny\n', {"decoder": "key_value"}),
    "syslog": (b"<13>Nov 20 08:00:00 host sshd[1]: hello\n", {"decoder": "syslog"}),
    "text": (b"some words\nmore, of them\n", {"decoder": "text"}),
    "stack traces": (b"Exception\n\tat x\n\tat y\nException\n\tat z\n",
                     {"decoder": "text", "multiline": {"indented": True}}),
    "dated": (DATED, {"decoder": "regex"}),
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLES)
def test_the_decoder_that_fits_is_proposed(name: str) -> None:
    data, wanted = SAMPLES[name]
    found = proposal(data, whole=True)
    assert found is not None
    assert found.settings | wanted == found.settings
    if found.settings["decoder"] != "regex":
        assert found.settings == wanted
    assert found.fit == found.of


@pytest.mark.parametrize("name", SAMPLES)
def test_the_proposed_lines_can_be_pasted_and_then_every_record_is_read(
    name: str, tmp_path: Path
) -> None:
    (file := tmp_path / "records").write_bytes(SAMPLES[name][0])
    checked = CliRunner().invoke(main, ["check", str(file)])
    assert checked.exit_code == 0, checked.output
    lines = checked.output[checked.output.index("sources:") :].replace("NAME", "audit")
    config = tmp_path / "siemrelay.yaml"
    config.write_text(lines + "sinks: {out: {server: siem.example.com}}\n")
    assert yaml.safe_load(lines)["sources"]["audit"]["path"] == str(file)
    shown = CliRunner().invoke(main, ["preview", "-c", str(config), "--json", str(file)])
    assert shown.exit_code == 0, shown.output
    found = [json.loads(line)["event"] for line in shown.stdout.splitlines()]
    assert found
    assert "Unparsed Record" not in {event["type"] for event in found}


def test_preview_says_that_the_decoder_does_not_fit_and_which_one_does(tmp_path: Path) -> None:
    (file := tmp_path / "records").write_bytes(SAMPLES["semicolons"][0])
    config = tmp_path / "siemrelay.yaml"
    config.write_text(
        f"sources: {{badges: {{type: file, path: {file}}}}}\n"
        "sinks: {out: {server: s.example.com}}\n"
    )
    shown = CliRunner().invoke(main, ["preview", "-c", str(config), str(file)])
    assert "2 of 2 records cannot be parsed; record 1: not JSON" in shown.stderr
    assert (
        "set in source badges:\n    decoder: csv\n    encoding: cp1252\n    delimiter: ;"
        in shown.stderr
    )


@pytest.mark.parametrize(
    ("lines", "time", "message"),
    [
        # mosquitto, Python's logging, nginx' error.log, squid's cache.log, times in brackets
        ("2026-11-20T08:00:00: New connection from 10.0.0.1\n", "08:00:00Z", "New connection from"),
        ("2026-11-20 08:00:00,123 ERROR failed\n", "08:00:00.123Z", "ERROR failed"),
        ("2026-11-20T08:00:00.5+01:00 a b\n  more\n", "08:00:00.5+01:00", "a b"),
        ("2026/11/20 08:00:00 [error] 7#7: refused\n", "08:00:00Z", "[error] 7#7: refused"),
        ("2026/11/20 08:00:00| Ready\n", "08:00:00Z", "Ready"),
        ("[2026-11-20 08:00:00] a: b\n", "08:00:00Z", "a: b"),
        ("[2026/11/20 08:00:00.5,  0] server.c:1(main)\n  a\n", "08:00:00.5Z", "server.c:1(main)"),
        ("[2026-11-20 08:00:00,5 +0100] a\n", "08:00:00.5+01:00", "a"),
        ("[20/Nov/2026:08:00:00 +0000] a b\n", "08:00:00Z", "a b"),
    ],
)
def test_the_pattern_that_is_proposed_takes_the_time_of_a_record(
    lines: str, time: str, message: str
) -> None:
    found = proposal((lines * 3).encode(), whole=True)
    assert found is not None
    pattern = found.settings["pattern"]
    decoder = DECODERS["regex"].build(GENERIC, frozenset(FIELDS), Catalogue(), pattern=pattern)
    record = lines.rstrip().replace("\n", " ").encode()
    (event,) = decoder.decode(Batch(1, 1, "", RECEIVED_S, record + b"\n")).events
    assert str(event.time).endswith(f"-11-20T{time}")
    assert str(event.message).startswith(message)


ACCESS = [
    # Apache's combined, its common with a user name that holds a space, squid's, nginx' of a client
    # that speaks TLS; and users and clients who write the rest of a line into a name or a header
    '192.0.2.1 - ada [20/Nov/2026:08:00:00 +0000] "GET /a?b=c HTTP/1.1" 200 241 "-" "curl \\"7\\""',
    '2001:db8::1 - - [20/Nov/2026:08:00:00 +0000] "POST /login HTTP/2" 401 -',
    '192.0.2.1 - - [20/Nov/2026:08:00:00 +0000] "CONNECT h:1 HTTP/1.1" 403 9 "-" "x" TCP_DENIED:-',
    r'192.0.2.1 - - [20/Nov/2026:08:00:00 +0000] "\x16\x03\x01\" 200" 400 150 "-" "-"',
    r"192.0.2.1 - x [20/Nov/2026:07:00:00 +0000] \"GET /ok X\" 200 1 [20/Nov/2026:08:00:00 +0000] "
    r'"GET /secret HTTP/1.1" 401 9',
    '192.0.2.1 - - [20/Nov/2026:08:00:00 +0000] "GET /secret" 401 9 " 200 5" "x"',
]


def test_the_pattern_for_access_logs_believes_no_client(tmp_path: Path) -> None:
    found = proposal("".join(f"{line}\n" for line in ACCESS[:4] * 9).encode(), whole=True)
    assert found is not None
    assert (found.fit, found.of) == (36, 36)
    decoder = DECODERS["regex"].build(
        GENERIC, frozenset(FIELDS), Catalogue(), pattern=found.settings["pattern"]
    )
    payload = "".join(f"{line}\n" for line in ACCESS).encode()
    events = decoder.decode(Batch(1, len(ACCESS), "", RECEIVED_S, payload)).events
    assert [(e.type, e.outcome, e.actor.name, e.target.name) for e in events] == [
        ("GET", "success", "ada", "/a?b=c"),
        ("POST", "failure", None, "/login"),
        ("CONNECT", "failure", None, "h:1"),
        ("Untyped Record", "failure", None, None),
        ("Unparsed Record", "unknown", None, None),
        ("GET", "failure", None, "/secret"),
    ]
    assert events[1].actor.address == "2001:db8::1"
    assert [e.time for e in events[:4]] == ["2026-11-20T08:00:00Z"] * 4


def test_a_file_without_records_and_a_configuration_are_answered(tmp_path: Path) -> None:
    (empty := tmp_path / "empty").write_bytes(b"\n")
    result = CliRunner().invoke(main, ["check", str(empty)])
    assert result.exit_code == 1
    assert "has no records" in result.output
    (config := tmp_path / "x.yaml").write_text("{}")
    result = CliRunner().invoke(main, ["check", str(config)])
    assert result.exit_code == 2
    assert result.output.count("a configuration is named with -c FILE") == 1


RECORDS = Path(__file__).parents[1] / "products" / "records"


@pytest.mark.parametrize("file", sorted(RECORDS.glob("*.yaml")), ids=lambda file: file.stem)
def test_a_products_records_are_recognised(file: Path) -> None:
    bodies = [case["body"].rstrip() for case in yaml.safe_load(file.read_text())]
    found = proposal("\n".join(bodies).encode() + b"\n", whole=True)
    assert found is not None
    # The product `generic` is the default, which no proposal names.
    named = found.settings.get("product", found.settings["decoder"])
    assert named == ("json" if file.stem == "generic" else file.stem)


def test_preview_names_the_product_of_records_that_are_read_as_generic(tmp_path: Path) -> None:
    case = yaml.safe_load((RECORDS / "github.yaml").read_text())[0]
    (file := tmp_path / "records").write_text(case["body"] + "\n")
    config = tmp_path / "siemrelay.yaml"
    source = f"{{type: file, path: {file}}}"
    config.write_text(f"sources: {{a: {source}}}\nsinks: {{out: {{server: h}}}}\n")
    shown = CliRunner().invoke(main, ["preview", "-c", str(config), str(file)])
    assert "these are records of github; in source a set `product: github`" in shown.stderr
    config.write_text(config.read_text().replace("type: file", "type: file, product: github"))
    shown = CliRunner().invoke(main, ["preview", "-c", str(config), str(file)])
    assert "product" not in shown.stderr


def test_records_that_only_have_a_type_in_common_with_a_product_are_not_its_own() -> None:
    data = b'{"type":"LOGIN","user":"ada","time":1700000000}\n{"type":"LOGOUT","user":"ada"}\n'
    found = proposal(data, whole=True)
    assert found is not None
    assert found.settings == {"decoder": "json"}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('{"accept": {"a": 1}, "accept": {"a": 2}}', "accept"),  # sudo's JSON file
        ('{"x": [{"b": 1, "c": 2, "b": 3}]}', "b"),
        ('{"a": {"b": 1}, "b": 2}', None),
    ],
)
def test_check_warns_of_a_name_that_an_object_has_twice(
    text: str, name: str | None, tmp_path: Path
) -> None:
    (file := tmp_path / "records").write_text(text + "\n")
    shown = CliRunner().invoke(main, ["check", str(file)]).output
    warned = f"an object has the name {name} more than once: only the last one is read"
    assert (warned in shown) == (name is not None)
    assert ("more than once" in shown) == (name is not None)

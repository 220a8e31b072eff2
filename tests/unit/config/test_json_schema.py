"""The JSON Schema: current, true of every example, and against every faulty file it can refuse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner

from siemrelay.cli.commands import main
from siemrelay.config.json_schema import document, render
from siemrelay.config.yaml_document import parse
from tests.unit.config import test_load

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "config").rglob("*.yaml"))
SCHEMA = document()
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)

BEYOND = (
    "needs `framing: gelf`", "names port 51", "must not be shorter than `initial`",
    "must be at least 480B", "must be more than 0s", "must be at most 1m", "buffer.max_size: must",
    "the port", "the host in it", "invisible character", "write a whole address",
    "write a name or address", "a header cannot carry this text", "write a header's name",
    "the relay sets this header itself", "which protocol?", "unknown product",
    "write the name or address alone", "is not an address", "no event has", "is not a number",
    "`min` is above `max`", "is written ${NAME}, with braces", "for all events",
)  # fmt: skip
"""Parts of the faults that no schema can see: relations of two keys, what is inside a text."""


def faulty() -> Iterator[tuple[str, str]]:
    """Every faulty file of the loader's tables, with the fault that the loader reports."""
    for function in vars(test_load).values():
        for mark in getattr(function, "pytestmark", ()):
            if mark.name == "parametrize" and mark.args[0] == ("text", "fault"):
                yield from ((whole(text, fault), fault) for text, fault in mark.args[1])


def whole(text: str, fault: str) -> str:
    if " sinks.s" in fault:
        return f"{test_load.SOURCE}sinks:\n  s: {text}\n"
    if " sources.s" in fault:
        return f"sources:\n  s: {text}\n{test_load.SINK}"
    return text


def errors(text: str) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(parse(text).value)]


def test_the_schema_is_one_and_its_copy_is_current() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert json.loads(render()) == SCHEMA
    assert (ROOT / "config/siemrelay.schema.json").read_text() == render(), (
        "run: python -m siemrelay schema > config/siemrelay.schema.json"
    )
    assert CliRunner().invoke(main, ["schema"]).output == render()


def test_the_first_line_of_the_commented_file_leads_editors_to_it() -> None:
    first = (ROOT / "config/siemrelay.yaml").read_text().partition("\n")[0]
    assert first == "# yaml-language-server: $schema=siemrelay.schema.json"


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_every_example_is_valid(file: Path) -> None:
    assert errors(file.read_text()) == []


def test_every_faulty_file_is_refused_unless_no_schema_can_see_the_fault() -> None:
    table = list(faulty())
    assert len(table) > 60
    accepted = [fault for text, fault in table if not errors(text)]
    assert [fault for fault in accepted if not any(part in fault for part in BEYOND)] == []
    assert [part for part in BEYOND if not any(part in fault for fault in accepted)] == []


@pytest.mark.parametrize(
    "part",
    [
        "{server: a, port: '${PORT}', enabled: '${ON}', timeout: '${WAIT}', protocol: tcp}",
        "{server: a, protocol: '${PROTOCOL}', framing: nul}",
        "{siem: '${SIEM}', url: 'https://a/'}",
        "{siem: qradar, server: [a, 'b:515'], port: '515', enabled: 'no'}",
        "{siem: splunk, protocol: udp, server: s}",
        "{siem: datadog, authorization: abcdefgh}",
        "{url: 'http://a/', format: cef, vendor: x}",
        "{server: a, pool: [x, y], events: {include: x, outcome: success}, max_message_size: 1KiB}",
    ],
)
def test_what_a_file_may_write_in_other_ways_is_valid(part: str) -> None:
    assert errors(f"{test_load.SOURCE}sinks:\n  s: {part}\n") == []


@pytest.mark.parametrize("key", ["framing: nul", "delimiter: tab"])
def test_a_key_of_another_protocol_or_format_is_refused(key: str) -> None:
    text = f"{test_load.SOURCE}sinks:\n  s: {{siem: splunk, url: 'http://a', {key}}}\n"
    assert len(errors(text)) == 1


def offered(part: dict[str, Any]) -> set[str]:
    """The keys that an editor offers for a sink: of the branches whose `if` holds."""
    sink = SCHEMA["definitions"]["sink"]
    keys = {*sink["properties"]}
    for branch in sink["allOf"]:
        condition = {**branch["if"], "definitions": SCHEMA["definitions"]}
        if jsonschema.Draft7Validator(condition).is_valid(part):
            keys |= {key for key, value in branch["then"]["properties"].items() if value}
    return keys


def test_an_editor_offers_the_keys_of_the_preset_protocol_and_format_alone() -> None:
    assert {"index", "url", "events"} <= offered({"siem": "splunk"})
    assert not {"delimiter", "framing", "server"} & offered({"siem": "splunk"})
    assert {"server", "port", "delimiter", "vendor"} <= offered({"siem": "qradar"})
    assert "url" not in offered({"siem": "qradar"})
    assert {"facility", "server"} <= offered({})

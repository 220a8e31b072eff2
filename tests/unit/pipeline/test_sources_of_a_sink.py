"""`sources:` on a sink: it gets the events of these sources and of no others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from siemrelay.cli.commands import main
from siemrelay.config.load import load_text
from siemrelay.core.errors import ConfigurationRefused
from siemrelay.core.event import Batch, Selection
from siemrelay.formats.envelopes.record_id import record_ids
from siemrelay.pipeline.batching import BatchMaker
from siemrelay.pipeline.format_cache import FormatCache, SinkReader
from siemrelay.relay.assembly import Assembly
from siemrelay.sinks.contract import BatchLimits

CONFIG = """\
state_dir: /nowhere
sources:
  alm: {{type: file, path: /var/log/a.json, renamed_from: old}}
  hooks: {{type: stdin}}
sinks:
  all: {{siem: generic, server: 192.0.2.1}}
  siem: {{siem: generic, server: 192.0.2.1, format: json, sources: {sources}}}
"""


def reader(sources: str) -> SinkReader:
    assembly = Assembly(load_text(CONFIG.format(sources=sources), "f").config)
    return FormatCache(assembly.formatter({"siem": assembly.sink_format("siem")})).reader("siem")


@pytest.mark.parametrize(
    ("sources", "source", "taken"),
    [
        ("[]", "hooks", True),
        ("alm", "alm", True), ("alm", "hooks", False), ("[alm, hooks]", "hooks", True),
        ("alm", "old", True), ("hooks", "old", False),
        ("alm", "siemrelay", False), ("[alm, siemrelay]", "siemrelay", True),
    ],
)  # fmt: skip
async def test_a_sink_takes_the_records_of_its_sources_and_passes_the_others(
    sources: str, source: str, taken: bool
) -> None:
    batch = Batch(11, 2, source, 1_700_000_000.0, b'{"type":"a"}\n{"type":"b"}\n')
    messages = await reader(sources).messages(batch)
    (found,) = BatchMaker(BatchLimits()).batches(batch, messages, 12)
    assert [json.loads(message)["type"] for message in found.messages] == (["b"] if taken else [])
    assert ([*found.sequences], found.filtered) == (([12], 0) if taken else ([], 1))
    assert found.next_sequence == 13
    assert messages.first_wanted(12, 13) == (12 if taken else 13)


def test_the_records_of_a_renamed_source_keep_their_ids() -> None:
    """A queue may deliver again, under the new name, what was stored under the old one."""
    assembly = Assembly(load_text(CONFIG.format(sources="[]"), "f").config)
    formatter = assembly.formatter({"siem": assembly.sink_format("siem")})

    def ids(source: str) -> tuple[list[str], str | None]:
        batch = Batch(11, 1, source, 1_700_000_000.0, b'{"type":"a"}\n')
        decoded = formatter.decode(batch, [])
        return record_ids(Selection(decoded)), decoded.events[0].id

    assert ids("alm") == ids("old")
    assert ids("alm") != ids("hooks")


def test_a_name_that_no_source_has_is_a_fault_with_the_nearest_one() -> None:
    with pytest.raises(ConfigurationRefused) as refused:
        load_text(CONFIG.format(sources="[alm, hook]"), "f")
    (fault,) = refused.value.faults
    assert fault.located("f") == (
        "f:7:67: sinks.siem.sources: no source is named `hook`; did you mean `hooks`?"
    )


def test_preview_says_that_a_sink_does_not_take_that_source(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(CONFIG.format(sources="hooks"))
    result = CliRunner().invoke(
        main, ["preview", "-c", str(file), "--source", "alm"], input='{"type":"a"}\n'
    )
    assert "source alm is not in sources" in result.output, result.output

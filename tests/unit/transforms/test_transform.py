"""`where:` and `add:` in a configuration: at a source, at a sink, in `preview`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from siemrelay.cli.commands import main
from siemrelay.config.load import load_text
from siemrelay.core.errors import ConfigurationRefused
from siemrelay.core.event import AuditEvent, Batch
from siemrelay.pipeline.formatting.messages import InternalError, SinkMessages, messages_of
from siemrelay.relay.assembly import Assembly
from siemrelay.sources.contract import Records
from siemrelay.transforms.additions import Additions
from siemrelay.transforms.redaction.events import EventRedactor
from tests.support.events.strategies import HOSTILE

CONFIG = """\
sources:
  alm: {{type: stdin, product: alm{source}}}
sinks:
  siem: {{server: 192.0.2.1, protocol: tcp, format: json{sink}}}
  cef: {{server: 192.0.2.1, protocol: tcp, format: cef, header: none}}
"""
RECORDS = (
    b'{"type":"User Logged In","user":"ada","env":"prod"}\n'
    b'{"type":"User Logged In","user":"svc-a","env":"prod"}\n'
    b'{"type":"User Logged In","user":"bob","env":"test"}\n'
    b"nonsense\n"
)


def assembled(source: str = "", sink: str = "") -> Assembly:
    return Assembly(load_text(CONFIG.format(source=source, sink=sink), "f.yaml", {}).config)


def messages(
    assembly: Assembly, name: str = "siem", *, payload: bytes = RECORDS, limit: int | None = None
) -> SinkMessages:
    """What that sink gets for these records."""
    every = {each: assembly.sink_format(each) for each in ("siem", "cef")}
    if limit is not None:
        every = {
            each: msgspec.structs.replace(form, max_message_bytes=limit)
            for each, form in every.items()
        }
    formatter, errors = assembly.formatter(every), list[InternalError]()
    batch = Batch(1, payload.count(b"\n"), "alm", 1.7e9, payload)
    decoded = formatter.decode(batch, errors)
    group, view = formatter.places[name]
    made = formatter.format(decoded, group, [view], errors)
    assert not errors
    return messages_of(made, view, decoded.unparsed, [])


def sent(assembly: Assembly) -> list[dict[str, Any]]:
    return [json.loads(message) for message in messages(assembly).messages]


def names(events: list[dict[str, Any]]) -> list[str | None]:
    return [event.get("actor", {}).get("name") for event in events]


def test_a_sink_gets_the_events_for_which_its_conditions_hold() -> None:
    assert names(sent(assembled())) == ["ada", "svc-a", "bob", None]
    assert names(sent(assembled(sink=", where: {attributes.env: prod}"))) == ["ada", "svc-a"]
    where = ", events: User *, where: {attributes.env: {not: test}, actor.name: {not: svc-*}}"
    assert names(sent(assembled(sink=where))) == ["ada"]


def test_a_source_stores_the_records_for_which_its_conditions_hold() -> None:
    source_filter = assembled(source=", where: {attributes.env: prod}").source_filter("alm")
    assert source_filter is not None
    kept = source_filter.apply(Records(RECORDS, 4)).records
    assert kept.payload.splitlines() == [*RECORDS.splitlines()[:2], b"nonsense"]
    excluding = ", events: {exclude: Unparsed Record}, where: {attributes.env: prod}"
    source_filter = assembled(source=excluding).source_filter("alm")
    assert source_filter is not None
    assert source_filter.apply(Records(RECORDS, 4))[0].count == 2
    assert assembled().source_filter("alm") is None


def test_fields_of_the_source_and_of_the_sink_are_added() -> None:
    sink = ", add: {attributes.env: dr, severity: 9}, where: {attributes.site: here}"
    assembly = assembled(", add: {attributes.site: here}", sink)
    for event in sent(assembly):
        assert (event["attributes"]["site"], event["attributes"]["env"]) == ("here", "dr")
        assert event["severity"] == 9
    for message in messages(assembly, "cef").messages:
        assert b"attributes_site=here" in message
        assert b"=dr" not in message, "what one sink adds is its own"


def test_a_truncated_message_has_what_was_added() -> None:
    record = json.dumps({"type": "x", "message": "long " * 200, "id": "e"}).encode() + b"\n"
    assembly = assembled(sink=", add: {category: mine}")
    found = messages(assembly, payload=RECORDS + record, limit=480)
    assert list(found.truncated) == [5]
    assert json.loads(found.messages[-1])["category"] == "mine"


def test_preview_names_the_condition_that_decided(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(CONFIG.format(source="", sink=", where: {attributes.env: [prod, dr]}"))
    shown = CliRunner().invoke(main, ["preview", "-c", str(file), "--sink", "siem"], input=RECORDS)
    assert "kept, every condition in where holds" in shown.output
    assert "filtered, where: attributes.env 'test' is not 'prod' or 'dr'" in shown.output
    assert "filtered, where: there is no attributes.env" in shown.output


def test_nothing_can_be_added_to_records_that_are_forwarded_as_received() -> None:
    with pytest.raises(ConfigurationRefused) as refused:
        load_text(CONFIG.format(source="", sink="").replace("format: json", "format: raw, "
                  "add: {attributes.env: dr}"), "f.yaml", {})  # fmt: skip
    assert "nothing can be added" in str(refused.value)


def test_check_shows_conditions_as_the_file_writes_them(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    where = ", where: {actor.name: {not: [root, adm*]}, severity: {min: 3}, attributes.env: prod}"
    file.write_text(CONFIG.format(source=", add: {attributes.tags: [a, b]}", sink=where))
    shown = CliRunner().invoke(main, ["check", "-c", str(file)])
    assert shown.exit_code == 0, shown.output
    lines = [" ".join(line.split()) for line in shown.output.splitlines()]
    assert "add attributes.tags: a, b file" in lines
    assert [line for line in lines if line.startswith(
        "where actor.name: {not: root, adm*}, severity: {min: 3.0}, attributes.env: {any: prod} "
    )]  # fmt: skip


def test_an_event_that_a_transform_cannot_take_becomes_a_dead_letter_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    apply = Additions.apply

    def broken(self: Additions, events: list[AuditEvent]) -> list[AuditEvent]:
        if any(event.actor.name == "bob" for event in events):
            raise ZeroDivisionError
        return apply(self, events)

    monkeypatch.setattr(Additions, "apply", broken)
    assembly = assembled(sink=", add: {attributes.env: dr}, redact: [{field: actor.name}]")
    monkeypatch.setattr(EventRedactor, "apply", lambda self, events: (list(events), []))
    formatter = assembly.formatter({"siem": assembly.sink_format("siem")})
    errors = list[InternalError]()
    decoded = formatter.decode(Batch(1, 4, "alm", 1.7e9, RECORDS), errors)
    made = formatter.format(decoded, 0, [0], errors)
    assert made.sequences == [1, 2, 4]
    assert [sequence for sequence, _ in made.views[0].failed] == [3]
    assert [error.message for error in errors] == [
        "internal error: format failed, records become dead letters"
    ]


@pytest.mark.parametrize("decoder", ["json", "syslog", "cef", "key_value", "text"])
def test_any_record_goes_through_conditions_and_additions(decoder: str) -> None:
    shaped = {
        "where": {path: {"not": "x"} for path in ("attributes.a", "attributes.a.b.c", "message")},
        "add": {"attributes.a.b": 1, "actor.name": "x"},
    }  # fmt: skip
    text = json.dumps({
        "sources": {"s": {"type": "stdin", "decoder": decoder, **shaped}},
        "sinks": {"siem": {"server": "a", "format": "json", **shaped}},
    })  # fmt: skip
    assembly = Assembly(load_text(text, "f.yaml", {}).config)
    source_filter, parts = assembly.source_filter("s"), assembly.sink("siem")
    formatter = assembly.formatter({"siem": parts.messages})
    assert source_filter is not None
    for name, record in HOSTILE.items():
        kept = source_filter.apply(Records(record + b"\n", 1)).records
        assert kept.count == 1, name
        made = formatter.formatted(Batch(1, 1, "s", 1.7e9, record + b"\n"), {0: [0]})
        assert not made.errors, name
        (message,) = made.groups[0].messages
        assert json.loads(message)["attributes"]["a"]["b"] == 1

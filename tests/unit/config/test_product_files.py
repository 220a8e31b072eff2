"""`products_dir`: the operator's own products, and faults located in their files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from siemrelay.config.effective import source_settings
from siemrelay.config.load import Loaded, load_again, load_text
from siemrelay.core.errors import ConfigurationRefused
from siemrelay.products.product import BUILT_IN
from siemrelay.relay.assembly import Assembly
from siemrelay.relay.plan import plan
from tests.support.events.strategies import batch_of

DOORS = """
summary: the doors of the house
items: passages
fields:
  type: [what, "{door.kind} {way}"]
  actor.name: badge.owners.0.name
  outcome: code
values:
  outcome: {"2*": success, "4*": failure, "": success}
types:
  building:
    Door Opened: [6, Somebody opened a door]
sources:
  http: {event_type_header: X-Door}
"""


def loaded(folder: Path, source: str, events: str = "Any Audit Record", text: str = "") -> Loaded:
    return load_text(
        f"""
products_dir: {folder}
sources: {{s: {{{source}}}}}
sinks: {{q: {{server: h, events: {events}}}}}
{text}""",
        "f.yaml", {},
    )  # fmt: skip


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def test_records_are_read_as_the_operators_file_says(tmp_path: Path) -> None:
    write(tmp_path, doors=DOORS)
    made = loaded(tmp_path, "type: file, path: /a, product: doors", "door opened")
    decoder = Assembly(made.config).decoder("s", [], everything=True)
    opened, locked, silent = decoder.decode(batch_of([
        b'{"what":"door_opened","code":204,"badge":{"owners":[{"name":"ada"}]},"n":1}',
        b'{"door":{"kind":"front"},"way":"in","code":"403"}',
        b'{"way":"in"}',
    ])).events  # fmt: skip
    assert (opened.type, opened.category, opened.severity) == ("Door Opened", "building", 6)
    assert (opened.actor.name, opened.outcome) == ("ada", "success")
    # What a value means is no reason to lose it.
    assert opened.attributes == {"code": 204, "badge": {"owners": [{"name": "ada"}]}, "n": 1}
    assert (locked.type, locked.outcome, locked.severity) == ("front in", "failure", 5)
    assert (silent.type, silent.outcome) == ("Untyped Record", "success")


def test_a_source_takes_the_options_that_its_product_sets_and_its_own_first(tmp_path: Path) -> None:
    write(tmp_path, doors=DOORS)
    http = 'type: http, listen: "http://127.0.0.1:1", product: doors'
    made = loaded(tmp_path, http)
    origins = {s.key: (s.value, s.origin) for s in source_settings(made, "s")}
    assert origins["items"] == ("passages", "product")
    assert origins["event_type_header"] == ("X-Door", "product")
    assert origins["max_body"][1] == "default"
    own: Any = loaded(tmp_path, f"{http}, items: all").config.sources["s"]
    assert (own.items, own.event_type_header) == ("all", "X-Door")
    other: Any = loaded(tmp_path, "type: file, path: /a, product: doors").config.sources["s"]
    assert other.items == "passages"


def test_a_file_with_a_built_in_name_replaces_the_product_and_may_extend_it(
    tmp_path: Path,
) -> None:
    write(tmp_path, alm="summary: ours\nextends: alm\nfields: {type: kind}\n")
    made = loaded(tmp_path, "type: file, path: /a, product: alm", "Account Provisioned")
    assert made.config.products["alm"].spellings["type"][:2] == ("kind", "type")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "p.yaml:1:1: expected `summary:`"),
        ("summary: [", "p.yaml:1:"),
        ("fields: {}", "p.yaml:1:1: summary: is required"),
        ("summary: x\nfields:\n  actor: [a]", "p.yaml:3:3: fields.actor: unknown event field"),
        ("summary: x\nfield: {}", "p.yaml:2:1: field: unknown key `field`; did you mean `fields`?"),
        ("summary: x\nvalues: {outcome: {a: good}}", "the outcome of 'a' must be success"),
        ("summary: x\nvalues: {message: {a: b}}", "values of `message` have no meanings"),
        ("summary: x\ntypes:\n  session:\n    Login: [11, x]",
         "p.yaml:4:13: types.session.Login[0]: must be at most 10"),
        ("summary: x\ntypes_of: [alm, lightrum]",
         "p.yaml:2:17: types_of[1]: unknown product `lightrum`; did you mean `lightrun`?"),
        ("summary: x\nextends: almm", "p.yaml:2:10: extends: unknown product `almm`; did"),
        ("summary: x\nsources:\n  htp: {}", "p.yaml:3:3: sources.htp: unknown source type `htp`"),
        ("summary: x\nsources:\n  http:\n    handshak: okta",
         "p.yaml:4:5: sources.http.handshak: a source of type http has no `handshak`; did you mean "
         "`handshake`?"),
        ("summary: x\nsources: {file: {decoder: jso}}",
         "p.yaml:2:27: sources.file.decoder: unknown decoder `jso`; did you mean `json`?"),
    ],
)  # fmt: skip
def test_a_fault_is_located_in_the_products_own_file(tmp_path: Path, text: str, fault: str) -> None:
    write(tmp_path, p=text)
    with pytest.raises(ConfigurationRefused) as refused:
        loaded(tmp_path, "type: file, path: /a, product: p")
    (line,) = str(refused.value).splitlines()
    assert fault in line
    assert line.startswith(f"{tmp_path}/p.yaml:")


def test_products_that_extend_each_other_are_a_fault(tmp_path: Path) -> None:
    write(tmp_path, a="summary: x\nextends: b", b="summary: x\nextends: a")
    with pytest.raises(ConfigurationRefused, match=r"b\.yaml:2:10: extends: `b` extends itself"):
        loaded(tmp_path, "type: file, path: /a, product: a")


def test_a_directory_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationRefused, match=r"f\.yaml:2:15: products_dir: the directory"):
        loaded(tmp_path / "missing", "type: file, path: /a")
    with pytest.raises(ConfigurationRefused, match="products_dir: write an absolute path"):
        loaded(Path("products"), "type: file, path: /a")


def test_a_fifo_among_the_products_is_a_fault_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.yaml")
    with pytest.raises(ConfigurationRefused, match=r"p\.yaml: is not a regular file"):
        loaded(tmp_path, "type: file, path: /a")


def test_an_unknown_product_is_a_fault_that_names_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, doors=DOORS, notes="summary: x")
    (tmp_path / "README").write_text("not YAML: [")
    with pytest.raises(ConfigurationRefused, match="unknown product `door`; did you mean `doors`"):
        loaded(tmp_path, "type: file, path: /a, product: door")


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        (
            "User.Session.Start",
            "'User.Session.Start' is an event type of okta; no source has `prod",
        ),
        ("Door Opened", "'Door Opened' is an event type of doors; no source has `product: doors`"),
        ("Door Opend", "unknown event type 'Door Opend'"),
    ],
)
def test_a_type_of_a_product_that_no_source_has_names_that_product(
    tmp_path: Path, entry: str, fault: str
) -> None:
    write(tmp_path, doors=DOORS)
    with pytest.raises(ConfigurationRefused) as refused:
        loaded(tmp_path, "type: file, path: /a", f"[{entry}]")
    assert fault in str(refused.value)
    loaded(tmp_path, "type: file, path: /a, product: doors", "[Door Opened]")


def test_a_changed_file_restarts_the_parts_and_the_same_files_do_not(tmp_path: Path) -> None:
    write(tmp_path, doors=DOORS)
    source = "type: file, path: /a, product: doors"
    before, same = loaded(tmp_path, source), loaded(tmp_path, source)
    assert not plan(before.config, same.config).changes
    write(tmp_path, doors=DOORS.replace("[6,", "[7,"))
    changed = plan(before.config, loaded(tmp_path, source).config).changes
    assert {(change.section, change.kind) for change in changed} == {
        ("source", "restart"), ("sink", "restart"),
    }  # fmt: skip
    # What was loaded is loaded again as it was, whatever the file says by now.
    assert load_again(before, {}).config.products == before.config.products
    assert before.config.products != BUILT_IN

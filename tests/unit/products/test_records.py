"""Records as products write them, by their vendors' documentation, and the events that they are.

`form` is the field of a form that holds the body; an empty one, that the body is only called so.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml

from siemrelay.config.load import load_text
from siemrelay.core.event import FIELDS, field_getter
from siemrelay.products.product import BUILT_IN
from siemrelay.relay.assembly import Assembly
from siemrelay.wire.forms import form_value
from siemrelay.wire.http_bodies import BodyKind, finish, read_records
from siemrelay.wire.items import ItemSplitter
from tests.support.events.strategies import batch_of

FOLDER = Path(__file__).parent / "records"
WITHOUT_RECORDS = {"alm", "lightrun", "journal"}
CASES = [
    (file.stem, case)
    for file in sorted(FOLDER.glob("*.yaml"))
    for case in yaml.safe_load(file.read_text())
]
RECEIVED_S = 1_785_000_000.0
HTTP = {"type": "http", "listen": "http://127.0.0.1:1"}


def events_of(product: str, case: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of a case's body as a webhook, or a source of another type, of that product."""
    source = {**case.get("source", HTTP), "product": product}
    text = json.dumps({"sources": {"s": source}, "sinks": {"q": {"server": "h"}}})
    config = load_text(text, "f.yaml", {}).config
    options: Any = config.sources["s"]
    body = case["body"].encode()
    kind: BodyKind = "values" if options.decoder == "json" else "lines"
    if source["type"] == "http":
        kind = "json"
    if "form" in case:
        body = urlencode({case["form"]: case["body"]}).encode() if case["form"] else body
        if not body.startswith(b"{"):
            body = finish(form_value(body, options.form_field))
    kept = [getattr(options, f"{kind}_header", None) for kind in ("event_type", "delivery")]
    said = {name: value for name, value in case.get("headers", {}).items() if name in kept}
    members = json.dumps(said)[1:-1].encode()
    items = ItemSplitter(options.items) if options.items else None
    found = finish(read_records(body, kind, 100, items, members))
    records = found.payload.split(b"\n")[:-1]
    decoder = Assembly(config).decoder("s", [], everything=True)
    # The same together and record by record.
    events = decoder.decode(batch_of(records, received_at=RECEIVED_S)).events
    alone = [
        decoder.decode(batch_of([record], received_at=RECEIVED_S)).events[0] for record in records
    ]
    shown = [{f: field_getter(f)(event) for f in FIELDS} for event in events]
    assert [{f: field_getter(f)(event) for f in FIELDS if f != "id"} for event in alone] == [
        {f: value for f, value in event.items() if f != "id"} for event in shown
    ]
    return [{f: value for f, value in event.items() if value is not None} for event in shown]


@pytest.mark.parametrize(
    ("product", "case"), CASES, ids=[f"{product}: {case['of']}" for product, case in CASES]
)
def test_a_products_record_becomes_this_event(product: str, case: dict[str, Any]) -> None:
    found, expected = events_of(product, case), case["events"]
    for event, wanted in zip(found, expected, strict=True):
        if "id" not in wanted:  # one that is made of the record
            assert len(event.pop("id")) == 32
        assert event == wanted


def test_every_product_has_records() -> None:
    assert {product for product, _ in CASES} == {*BUILT_IN} - WITHOUT_RECORDS


def test_times_without_a_zone_are_in_that_of_the_source() -> None:
    record = '{"EventID":4720,"EventTime":"2024-03-01 08:00:03"}'
    source = {"type": "file", "path": "/a", "timezone": "Europe/Berlin"}
    (event,) = events_of("windows", {"source": source, "body": record})
    assert event["time"] == "2024-03-01T08:00:03+01:00"

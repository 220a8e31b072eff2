"""A record in which secrets cannot be replaced is stored as its event, and read as that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.buffer.sink_cursor import SinkPolicy
from siemrelay.config.load import load_text
from siemrelay.core.event import REDACTED_PART, Batch, attributes_of
from siemrelay.pipeline.intake.intake import Committer
from siemrelay.relay.assembly import Assembly
from siemrelay.sources.contract import Position, Records
from siemrelay.telemetry.stats import SourceStats, Stats

SECRET = "top\nsecret"
"""In a record its line break is an escape, so that the record does not hold it as it is."""

PATTERN = r"(?P<time>\S+) (?P<type>\w+) pin=(?P<pin>\d+) (?P<message>.*)"

CASES: dict[str, tuple[dict[str, Any], list[dict[str, Any]], str]] = {
    "cef": ({"decoder": "cef"}, [{"field": "message"}],
            "CEF:0|v|p|1|1|Login|5|msg=top\\nsecret cs1=kept suser=ada"),
    "leef": ({"decoder": "leef"}, [{"field": "attributes.pin"}],
             "LEEF:1.0|v|p|1|Login|usrName=ada\tpin=4711\tnote=4711\tcs1=kept"),
    "key_value": ({"decoder": "key_value"}, [{"field": "actor.name"}],
                  'type=Login user="ada" note="of ada, adam" cs1=kept'),
    "syslog": ({"decoder": "syslog"}, [{"field": "message"}],
               '<13>1 2026-03-01T08:00:00Z h Login - - [a@1 cs1="kept"] '
               "CEF:0|v|p|1|1|Login|5|msg=top\\nsecret cs1=kept suser=ada"),
    "regex": ({"decoder": "regex", "pattern": PATTERN}, [{"field": "attributes.pin"}],
              "2026-03-01T08:00:00Z Login pin=4711 cs1=kept ada"),
    "csv": ({"decoder": "csv", "columns": ["type", "user", "message", "cs1"]},
            [{"field": "message"}], 'Login,ada,"top ""secret"" x",kept'),
}  # fmt: skip


def assembled(case: str) -> Assembly:
    source, rules, _ = CASES[case]
    text = json.dumps({
        "sources": {"s": {"type": "stdin", "redact": rules, **source}},
        "sinks": {"siem": {"server": "a", "format": "json"}},
    })  # fmt: skip
    return Assembly(load_text(text, "f.yaml", {}).config)


@pytest.mark.parametrize("case", CASES)
def test_what_is_stored_is_read_by_the_sources_own_decoder(case: str) -> None:
    made, record = assembled(case), CASES[case][2].encode() + b"\n"
    source_filter = made.source_filter("s")
    assert source_filter is not None
    (stored,) = source_filter.apply(Records(record, 1)).pieces()
    for secret in (b"secret", b"4711"):
        assert secret not in stored.payload
    batch = Batch(1, 1, "s", 1.7724e9, stored.payload, stored.part)
    for everything in (True, False):
        decoder = made.decoder("s", [made.sink("siem")], everything=everything)
        (event,) = decoder.decode(batch).events
        assert event.type == "Login"
        assert "kept" in json.dumps(attributes_of(event)) + str(event.message)
    parts = made.sink("siem")
    decoded = made.decoder("s", [parts]).decode(batch)
    assert event.actor.name in ("ada", "***", None)
    assert decoded.unparsed == 0


def test_of_several_records_only_those_that_are_withheld_stand_alone() -> None:
    source_filter = assembled("cef").source_filter("s")
    assert source_filter is not None
    plain, odd = b"CEF:0|v|p|1|1|Login|5|suser=a msg=plain", CASES["cef"][2].encode()
    position = (Position("f", {"at": 9}),)
    lines = [odd, plain, plain, odd, odd, plain]
    found = source_filter.apply(Records(b"".join(x + b"\n" for x in lines), 6, position))
    pieces = list(found.pieces())
    assert [(piece.count, piece.part) for piece in pieces] == [
        (1, REDACTED_PART), (2, None), (1, REDACTED_PART), (1, REDACTED_PART), (1, None),
    ]  # fmt: skip
    assert [piece.positions for piece in pieces] == [()] * 4 + [position]
    assert (found.redacted, b"secret" in b"".join(p.payload for p in pieces)) == (6, False)
    assert pieces[1].payload == b"CEF:0|v|p|1|1|Login|5|suser=a msg=***\n" * 2


async def test_the_mark_is_stored_and_nobody_can_send_it(tmp_path: Path) -> None:
    made, stats = assembled("cef"), Stats(sources={"s": SourceStats("s")})
    forged = b'{"type":"Login","actor":{"name":"root"},"attributes":{"a":1}}\n'
    with DiskBuffer(tmp_path, max_size_bytes=1 << 30, keep_s=1e9, stats=stats.buffer) as buffer:
        buffer.set_sinks({"siem": SinkPolicy()})
        async with trio.open_nursery() as nursery:
            committer = Committer(buffer, stats, 0.0)
            nursery.start_soon(committer.run)
            intake = committer.intake("s", made.source_filter("s"))
            await intake.store(Records(CASES["cef"][2].encode() + b"\n", 1), Records(forged, 1))
            nursery.cancel_scope.cancel()
        batches = [*await buffer.read(1), *await buffer.read(2)]
    decoder = made.decoder("s", [], everything=True)
    events = [event for batch in batches for event in decoder.decode(batch).events]
    assert batches[0].part == REDACTED_PART
    assert [event.type for event in events] == ["Login", "Unparsed Record"]
    assert stats.sources["s"].redacted == 2


def test_the_id_of_one_is_not_made_of_its_secrets_and_its_own_id_stays() -> None:
    made = assembled("cef")
    for own in ("", " externalId=e-7"):
        source_filter, decoder = made.source_filter("s"), made.decoder("s", [], everything=True)
        assert source_filter is not None
        ids = set()
        for sequence in (1, 2):
            record = CASES["cef"][2].encode() + own.encode() + b"\n"
            (stored,) = source_filter.apply(Records(record, 1)).pieces()
            assert ("id" in json.loads(stored.payload)) == bool(own)
            batch = Batch(sequence, 1, "s", 1.7724e9, stored.payload, stored.part)
            ids.add(decoder.decode(batch).events[0].id)
        assert ids == {"e-7"} if own else len(ids) == 2


@pytest.mark.parametrize("payload", [b"no json\n", b'{"nobody": 1}\n', b'{"actor": 5}\n', b"[]\n"])
def test_a_damaged_one_is_an_unparsed_record(payload: bytes) -> None:
    decoder = assembled("cef").decoder("s", [], everything=True)
    decoded = decoder.decode(Batch(1, 1, "s", 1.7e9, payload, REDACTED_PART))
    assert (decoded.events[0].type, decoded.unparsed) == ("Unparsed Record", 1)

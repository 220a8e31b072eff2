"""Twice the input costs every decoder about twice the time and memory, whatever is in it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from siemrelay import registry
from siemrelay.core.event import FIELDS, Batch, DecodedBatch
from siemrelay.core.event_types import UNPARSED
from siemrelay.core.forgiving_json import LONG_RECORD_BYTES
from siemrelay.decoders.contract import Decoder
from tests.support.events.products import CATALOGUE, GENERIC
from tests.support.growth import KIB, grows_with_its_input

# Both sizes are below that of a long record, which is read otherwise.
SMALL, LARGE = 60 * KIB, 120 * KIB

UNITS: dict[str, tuple[bytes, bytes, bytes]] = {
    "text": (b"", b"word ", b""),
    "spaces": (b"", b" ", b""),
    "no UTF-8": (b"", b"\xff", b""),
    "brackets": (b"<13>1 - - - - - ", b"[", b""),
    "parameters": (b"<13>1 - - - - - [a", b' b="c"', b""),
    "parameters, closed": (b"<13>1 - - - - - [a", b' b="c"', b"] x"),
    "escaped parameters": (b"<13>1 - - - - - [a", b' b="\\', b""),
    "elements": (b"<13>1 - - - - - ", b'[a b="c"]', b" x"),
    "months": (b"<13>", b"Oct ", b""),
    "a long host": (b"<13>Oct 11 22:14:15 ", b"a", b""),
    "tags": (b"<13>Oct 11 22:14:15 box ", b"a:", b""),
    "counts": (b"<13>", b"1: ", b""),
    "CEF bars": (b"CEF:0|", b"|", b""),
    "CEF keys": (b"CEF:0|a|b|c|d|e|5|", b" a=b", b""),
    "CEF signs": (b"CEF:0|a|b|c|d|e|5|", b"a=", b""),
    "CEF escapes": (b"CEF:0|a|b|c|d|e|5|msg=", b"\\=", b""),
    "CEF backslashes": (b"CEF:0|", b"\\", b""),
    "LEEF tabs": (b"LEEF:2.0|a|b|c|d|", b"\t", b""),
    "LEEF pairs": (b"LEEF:1.0|a|b|c|d|", b"\ta=b", b""),
    "pairs": (b"", b"a=b ", b""),
    "pairs in words": (b"x ", b"a=b,", b" x"),
    "quoted pairs": (b"", b'a="b c" ', b""),
    "signs": (b"", b"a=", b""),
    "open quotes": (b"", b'a="', b""),
    "open apostrophes": (b"", b"a='", b""),
    "escapes in a value": (b'b=1 a="', b'\\"', b'"'),
    "escapes, not closed": (b'b=1 a="', b'\\"', b""),
    "commas": (b"x a=", b",", b""),
    "commas in values": (b"x a=", b"b,", b'"'),
    "own form": (b'x (a="1"', b' b="2"', b')'),
    "own form, not closed": (b'x: y (a="', b'" b="', b'")'),
    "own form, opened again": (b"x: y", b' (a="1', b'")'),
    "objects in objects": (b"", b'{"a":', b""),
    "arrays": (b'{"a":', b"[", b""),
    "arrays, closed": (b'{"a":[', b"[],", b"1]}"),
    "values": (b'{"type":"x","a":[1', b",1", b"]}"),
    "attributes": (b'{"type":"x","attributes":{"a":[1', b",1", b"]}}"),
    "numbers without a value": (b'{"type":"x","a":[1', b",NaN", b"]}"),
    "a fault at the end": (b'{"type":"x","a":[1', b",1", b",]}"),
    "half surrogates": (b'{"type":"x","a":"', b"\\ud800", b'"}'),
    "JSON escapes": (b'{"type":"x","a":"', b'\\"', b'"}'),
    "backslashes": (b'{"type":"x","a":"', b"\\\\", b'"}'),
    "one key again and again": (b'{"a":1', b',"a":1', b"}"),
    "a long number": (b'{"severity":', b"9", b"}"),
    "a cookie": (b"@cee:", b" ", b"{}"),
}  # fmt: skip
"""Beginning, what is repeated, and end of a record."""

LINES: dict[str, bytes] = {
    "empty lines": b"\n", "objects": b"{}\n", "types": b'{"type":"x"}\n', "pairs": b"a=1 b=2\n",
    "headers": b"<13>Oct 11 22:14:15 h a: x\n", "halves": b'{"type":\n',
}  # fmt: skip


def built(decoder: str) -> Decoder:
    wanted = frozenset({*FIELDS, "attributes"})
    return registry.DECODERS[decoder].build(GENERIC, wanted, CATALOGUE)


def record_of(what: str, size: int) -> bytes:
    beginning, unit, end = UNITS[what]
    return beginning + unit * (size // len(unit)) + end


def decoding(decoder: str, payload: bytes, count: int) -> Callable[[], DecodedBatch]:
    batch = Batch(1, count, "test", 1_767_225_600.0, payload)
    return lambda: built(decoder).decode(batch)


@pytest.mark.parametrize("what", UNITS)
@pytest.mark.parametrize("decoder", registry.DECODERS)
def test_a_record_of_twice_the_size_costs_about_twice_as_much(decoder: str, what: str) -> None:
    grows_with_its_input(*(
        decoding(decoder, record_of(what, size) + b"\n", 1) for size in (SMALL, LARGE)
    ))  # fmt: skip


@pytest.mark.parametrize("what", LINES)
@pytest.mark.parametrize("decoder", registry.DECODERS)
def test_twice_as_many_records_cost_about_twice_as_much(decoder: str, what: str) -> None:
    grows_with_its_input(*(
        decoding(decoder, LINES[what] * count, count) for count in (1500, 3000)
    ))  # fmt: skip


COSTLY = ["values", "attributes", "numbers without a value", "a fault at the end",
          "half surrogates", "one key again and again"]  # fmt: skip


@pytest.mark.parametrize("what", COSTLY)
@pytest.mark.parametrize("decoder", ["json", "syslog"])
def test_a_long_record_of_too_many_values_is_kept_as_text(decoder: str, what: str) -> None:
    good = b'{"type":"good"}'
    record = record_of(what, 3 * LONG_RECORD_BYTES)
    for records in ([record], [good, record, good]):
        payload = b"".join(each + b"\n" for each in records)
        events = decoding(decoder, payload, len(records))().events
        (kept,) = [event for event in events if event.type != "good"]
        assert kept.message == record.decode()
        assert len(events) == len(records)
        if decoder == "json":
            assert kept.type == UNPARSED


@pytest.mark.parametrize("decoder", ["json", "syslog"])
def test_a_long_record_of_few_values_is_read(decoder: str) -> None:
    record = b'{"type":"x","message":"%b"}' % (b"word " * LONG_RECORD_BYTES)
    for records in ([record], [b'{"type":"x"}', record, b'{"type":"x"}']):
        payload = b"".join(each + b"\n" for each in records)
        events = decoding(decoder, payload, len(records))().events
        assert {event.type for event in events} == {"x"}

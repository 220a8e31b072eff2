"""Mutated records go through every decoder: one event each with all its promises, alone or not.

It starts from `tests/corpus/records.txt`; a record that fails here belongs there. With `--slow` it
goes on for a minute with new random numbers; the short form always takes the same ones.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from siemrelay import registry
from siemrelay.core.event import FIELDS, AuditEvent, Batch, attributes_of, field_getter
from siemrelay.decoders.contract import Decoder
from tests.support.events.decoded import assert_promises
from tests.support.events.mutation import mutated
from tests.support.events.products import CATALOGUE, GENERIC

CORPUS = (Path(__file__).parents[1] / "corpus" / "records.txt").read_bytes().splitlines()
EVERYTHING = frozenset({*FIELDS, "attributes"})
SLOW_S = 60.0

TOKENS = [
    b'"', b"'", b"\\", b"=", b" ", b"  ", b"\t", b"\r", b"\0", b",", b";", b":", b"|", b"[", b"]",
    b"{", b"}", b"(", b")", b"<13>", b"<0>1 ", b"- ", b"-", b"\xff",
    b"\xef\xbb\xbf", b"\xed\xa0\x80",
    b"\xe2\x80\xa8", b"\\ud800", b"\\u0000", b"\\n", b"\\\\", b"CEF:0|", b"LEEF:2.0|", b"@cee:",
    b'type="x"', b"severity=0", b"id=1", b'"id":"1",', b"null", b"1e999", b"NaN",
    b"Oct 11 22:14:15 ", b"2026-01-01T00:00:00Z ", b"[a b=\"c\"]", b"event@1", b"a=", b"9" * 40,
    b"x" * 300,
]  # fmt: skip


def batches(seed: int) -> Iterator[list[bytes]]:
    rng = random.Random(seed)
    while True:
        records = [
            mutated(rng, CORPUS, TOKENS).replace(b"\n", b" ") for _ in range(rng.randint(1, 6))
        ]
        yield records * rng.choice((1, 1, 5))


def built(decoder: str, wanted: frozenset[str]) -> Decoder:
    return registry.DECODERS[decoder].build(GENERIC, wanted, CATALOGUE)


def shown(event: AuditEvent) -> tuple[Any, ...]:
    # 1 == True == 1.0: what is compared is what a JSON line would show.
    return (*(repr(field_getter(f)(event)) for f in FIELDS), json.dumps(attributes_of(event)))


def fuzz(decoder: str, records: list[bytes], kept: dict[frozenset[str], Decoder]) -> None:
    for wanted, old in kept.items():
        together = Batch(1, len(records), "test", 1.8e9, b"".join(r + b"\n" for r in records))
        events = old.decode(together).events
        assert len(events) == len(records)
        alone = [
            built(decoder, wanted).decode(Batch(i, 1, "test", 1.8e9, record + b"\n")).events[0]
            for i, record in enumerate(records, 1)
        ]
        assert list(map(shown, events)) == list(map(shown, alone)), records
        if wanted == EVERYTHING:
            for event, record in zip(events, records, strict=True):
                try:
                    assert_promises(event)
                except AssertionError as broken:
                    broken.add_note(f"record: {record!r}")
                    raise


def decoders(name: str) -> dict[frozenset[str], Decoder]:
    return {wanted: built(name, wanted) for wanted in (EVERYTHING, frozenset(FIELDS))}


@pytest.mark.parametrize("decoder", registry.DECODERS)
def test_every_record_of_the_corpus_keeps_the_promises(decoder: str) -> None:
    fuzz(decoder, CORPUS, decoders(decoder))


@pytest.mark.parametrize("decoder", registry.DECODERS)
def test_mutated_records_keep_the_promises(decoder: str) -> None:
    kept = decoders(decoder)
    for _, records in zip(range(60), batches(1), strict=False):
        fuzz(decoder, records, kept)


@pytest.mark.slow
@pytest.mark.parametrize("decoder", registry.DECODERS)
def test_mutated_records_keep_the_promises_for_a_minute(decoder: str) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    kept, deadline = decoders(decoder), time.monotonic() + SLOW_S
    for records in batches(seed):
        fuzz(decoder, records, kept)
        if time.monotonic() > deadline:
            break

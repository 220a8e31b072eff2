"""Where the time goes: each stage by itself, in one process, in microseconds per event."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from siemrelay import registry
from siemrelay.buffer.store import Store
from siemrelay.catalogue import Catalogue
from siemrelay.decoders.contract import Decoder
from siemrelay.event import FIELDS, Batch, DecodedBatch, Selection
from siemrelay.filters import EventFilter, EventsOptions
from siemrelay.wire.framing import newline
from tests.bench import corpus

_EVENTS = 40_000
_BATCH_BYTES = 512 * 1024
_ROUNDS = 3


def run() -> None:
    """Print a line per stage; the best of three rounds each."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.ndjson"
        corpus.write(path, _EVENTS)
        data = path.read_bytes()
        batches = list(_batches(data))
        _measure("read and cut", lambda: list(_batches(path.read_bytes())))
        _measure("compress and commit (fsync)", lambda: _commit(Path(folder), batches))
        decoded = _decoding(batches)
        events = EventFilter(EventsOptions(include=corpus.KEPT_TYPES), Catalogue())
        _measure("filter", lambda: [events.select(d.events) for d in decoded])
        for name, kind in registry.FORMATS.items():
            form = kind.build(kind.options(), "host")
            chosen = [Selection(d) for d in decoded]
            _measure(f"format {name}", partial(_encode, form, chosen))
        cef = registry.FORMATS["cef"]
        messages = _encode(cef.build(cef.options(), "host"), [Selection(d) for d in decoded])
        _measure("frame", lambda: [newline(run) for run in messages])


def _batches(data: bytes) -> Any:
    first = start = 0
    while start < len(data):
        end = data.rfind(b"\n", start, start + _BATCH_BYTES) + 1
        payload = data[start:end]
        count = payload.count(b"\n")
        yield Batch(first + 1, count, "bench", time.time(), payload)
        first, start = first + count, end


def _decoding(batches: list[Batch]) -> list[DecodedBatch]:
    for name, wanted in (
        ("decode, the fields of cef", registry.FORMATS["cef"].build(_cef(), "host").fields),
        ("decode, every field and attributes", frozenset({*FIELDS, "attributes"})),
    ):
        decoder = registry.DECODERS["json"].build(registry.PRODUCTS["alm"], wanted, Catalogue())
        _measure(name, partial(_decode_all, decoder, batches))
    return [decoder.decode(batch) for batch in batches]


def _decode_all(decoder: Decoder, batches: list[Batch]) -> None:
    for batch in batches:
        decoder.decode(batch)


def _cef() -> Any:
    return registry.FORMATS["cef"].options()


def _encode(form: Any, selections: list[Selection]) -> list[list[bytes]]:
    return [form.encode(selection) for selection in selections]


def _commit(folder: Path, batches: list[Batch]) -> None:
    path = folder / f"{time.perf_counter_ns()}.db"
    store = Store(path)
    for batch in batches:
        store.append([batch], {}, {})
    store.close()


def _measure(name: str, work: Callable[[], Any]) -> None:
    best = float("inf")
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    print(f"  {name:38} {best / _EVENTS * 1e6:7.2f} µs/event")

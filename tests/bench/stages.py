"""Where the time goes: each stage by itself, in one process, in microseconds of CPU per event."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from siemrelay import registry
from siemrelay.buffer.sqlite.store import Store
from siemrelay.cli.run import GC_THRESHOLD
from siemrelay.core.event import FIELDS, Batch, DecodedBatch, Selection
from siemrelay.core.filters import EventFilter, EventsOptions
from siemrelay.decoders.contract import Decoder
from siemrelay.formats.contract import Format
from siemrelay.pipeline.formatting.messages import FormattedBatch, GroupMessages, SelectedMessages
from siemrelay.pipeline.workers.frames import HEADER_BYTES, Job, answer, answered, asked, frame
from siemrelay.products.product import BUILT_IN
from siemrelay.sinks.http.compression import gzipped
from siemrelay.transforms.transform import EventTransform, TransformOptions, transform_of
from siemrelay.wire.stream_framing import newline
from tests.bench import corpus
from tests.support.events.products import CATALOGUE

_EVENTS = 40_000
_BATCH_BYTES = 512 * 1024
_ROUNDS = 3

_costs: dict[str, float] = {}

TRANSFORMS: dict[str, dict[str, Any]] = {
    "where, a name": {"where": {"actor.name": "user-*"}},
    "where, a network": {"where": {"actor.address": "10.0.0.0/8"}},
    "where, an attribute": {"where": {"attributes.env": ["prod", "dr"]}},
    "add, an attribute": {"add": {"attributes.env": "prod"}},
    "add, a field": {"add": {"category": "custom"}},
    "redact, a field": {"redact": {"rules": [{"field": "actor.name", "action": "pseudonym"}],
                                   "key": "0123456789abcdef"}},
    "redact, an attribute": {"redact": [{"field": "attributes.host"}]},
    "redact, a pattern": {"redact": [{"pattern": "ACME-[0-9]{6}"}]},
    "redact, every kind": {"redact": [{"kind": ["email", "card", "iban", "token", "password"]}]},
}  # fmt: skip
"""The goals: `where:` and `add:` 0.3 µs, `redact:` 1 by field and 5 by pattern."""


def run() -> dict[str, float]:
    """Print a line per stage, the best of three rounds each; collects garbage as the relay does.

    Returns the microseconds of CPU per event by the name of the stage.
    """
    _costs.clear()
    gc.set_threshold(GC_THRESHOLD)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.ndjson"
        corpus.write(path, _EVENTS)
        data = path.read_bytes()
        batches = list(_batches(data))
        _measure("read and cut", lambda: list(_batches(path.read_bytes())))
        _measure("compress and commit (fsync)", lambda: _commit(Path(folder), batches))
        decode = _decoding(batches)
        _decoding_syslog(path.read_text("utf-8").splitlines())
        events = EventFilter(EventsOptions(include=corpus.KEPT_TYPES), CATALOGUE)
        _measure_each("filter", batches, decode, lambda decoded: events.select(decoded.events))
        for name, options in TRANSFORMS.items():
            transform = transform_of(TransformOptions.model_validate(options))
            assert transform is not None
            _measure_each(name, batches, decode, partial(_transform, transform))
            if transform.redacts:
                _measure_each(f"{name}, of records", batches, decode,
                              partial(_redact_records, transform))  # fmt: skip
        for name, kind in registry.FORMATS.items():
            form = kind.build(kind.options(), "host")
            encode = partial(_encode, form)
            _measure_each(f"format {name}", batches, decode, encode)
        for name in ("splunk-hec", "elasticsearch"):
            _enveloping(name, batches, decode)
        cef = registry.FORMATS["cef"]
        form = cef.build(cef.options(), "host")
        messages = [_encode(form, decode(batch)) for batch in batches]
        _measure("frame", lambda: [newline(run) for run in messages])
        _measure("to a worker and back", partial(_exchange, batches, messages))
    return dict(_costs)


def _exchange(batches: list[Batch], messages: list[list[bytes]]) -> None:
    """What the relay does for a worker, without the pipe."""
    for batch, run in zip(batches, messages, strict=True):
        frame(*asked(Job(batch, {0: [0]}), 0))
        sequences = [*range(batch.first_sequence, batch.next_sequence)]
        made = GroupMessages(run, sequences, [], [], {0: SelectedMessages(None, "", [])}, 0)
        message, data = answered(FormattedBatch(0, [], {0: made}, []))
        answer(bytes(frame(message))[HEADER_BYTES:], b"".join(data))


def _batches(data: bytes) -> Any:
    first = start = 0
    while start < len(data):
        end = data.rfind(b"\n", start, start + _BATCH_BYTES) + 1
        payload = data[start:end]
        count = payload.count(b"\n")
        yield Batch(first + 1, count, "bench", time.time(), payload)
        first, start = first + count, end


def _decoding(batches: list[Batch]) -> Callable[[Batch], DecodedBatch]:
    for name, wanted in (
        ("decode, the fields of cef", registry.FORMATS["cef"].build(_cef(), "host").fields),
        ("decode, every field and attributes", frozenset({*FIELDS, "attributes"})),
    ):
        decoder = registry.DECODERS["json"].build(BUILT_IN["alm"].spellings, wanted, CATALOGUE)
        _measure(name, partial(_decode_all, decoder, batches))
    return decoder.decode


def _enveloping(
    protocol: str, batches: list[Batch], decode: Callable[[Batch], DecodedBatch]
) -> None:
    """The sink's own format in its envelope, and the bodies of its requests in gzip."""
    kind = registry.PROTOCOLS[protocol]
    inner = registry.FORMATS[kind.format]
    form = kind.wrap(
        inner.build(inner.options(), "host"),
        kind.options.model_validate({"url": "http://receiver.example.com"}),
    )
    _measure_each(f"format {kind.format} for {protocol}", batches, decode, partial(_encode, form))
    bodies = [b"\n".join(_encode(form, decode(batch))) for batch in batches]
    _measure(f"gzip for {protocol}", lambda: list(map(gzipped, bodies)))


def _decoding_syslog(bodies: list[str]) -> None:
    syslog = registry.FORMATS["syslog"]
    form = syslog.build(syslog.options.model_validate({"rewrite": True}), "host")
    for name, header in (
        ("RFC 5424", '<134>1 2026-01-01T00:00:00.000Z host app 7 ID1 [a@32473 b="c"] '),
        ("RFC 3164", "<134>Jan  1 00:00:00 host app[7]: "),
    ):
        lines = [f"{header}{body}\n" for body in bodies]
        batches = list(_batches("".join(lines).encode()))
        wanted = frozenset({*FIELDS, "attributes"})
        decoder = registry.DECODERS["syslog"].build(BUILT_IN["alm"].spellings, wanted, CATALOGUE)
        _measure(f"decode {name}, JSON inside", partial(_decode_all, decoder, batches))
        _measure_each(f"{name} to syslog", batches, decoder.decode, partial(_encode, form))
        if name == "RFC 5424":
            forwarding = syslog.build(syslog.options(), "host")
            _measure(f"{name} forwarded", partial(_forward_all, forwarding, batches))


def _forward_all(form: Format, batches: list[Batch]) -> None:
    for batch in batches:
        newline(form.encode(Selection(DecodedBatch(batch, _undecoded, is_syslog=True))))


def _undecoded() -> DecodedBatch:
    raise AssertionError("what is forwarded is not decoded")


def _decode_all(decoder: Decoder, batches: list[Batch]) -> None:
    for batch in batches:
        decoder.decode(batch)


def _cef() -> Any:
    return registry.FORMATS["cef"].options()


def _encode(form: Format, decoded: DecodedBatch) -> list[bytes]:
    return list(form.encode(Selection(decoded)))


def _transform(transform: EventTransform, decoded: DecodedBatch) -> Selection:
    keep, _ = transform.select(decoded, None)
    return transform.apply(Selection(decoded, keep))[0]


def _redact_records(transform: EventTransform, decoded: DecodedBatch) -> list[bytes]:
    return transform.redacted(decoded.records, decoded.events)[0]


def _commit(folder: Path, batches: list[Batch]) -> None:
    path = folder / f"{time.perf_counter_ns()}.db"
    store = Store(path)
    for batch in batches:
        store.append([batch], {}, {}, {})
    store.close()


def _measure(name: str, work: Callable[[], Any]) -> None:
    _tell(name, min(_took(work) for _ in range(_ROUNDS)))


def _measure_each(
    name: str, batches: list[Batch], decode: Callable[[Batch], DecodedBatch],
    work: Callable[[DecodedBatch], Any],
) -> None:  # fmt: skip
    """Of what is done with a batch right after it was decoded, as the relay does it."""
    _tell(name, min(
        sum(_took(partial(work, decode(batch))) for batch in batches) for _ in range(_ROUNDS)
    ))  # fmt: skip


def _took(work: Callable[[], Any]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _tell(name: str, took_s: float) -> None:
    _costs[name] = took_s / _EVENTS * 1e6
    print(f"  {name:38} {_costs[name]:7.2f} µs/event")

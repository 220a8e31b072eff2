"""What protocols put around messages: one thing an event, with the message in it unchanged.

Each envelope goes around objects and lines, and what it makes is read by parsers that are not ours.
Then real requests, as their receivers get them: each has the events of its batch and no others. A
new protocol earns these tests by its row in the registry and rows in `ENVELOPES`, `_NEEDED` and
`EXPORTS`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import trio
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from siemrelay.core.event import Actor, AuditEvent, Batch, DecodedBatch, Selection, Target
from siemrelay.core.filters import EventFilter, EventsOptions
from siemrelay.formats.contract import Canonical, Format
from siemrelay.pipeline.batching import BatchMaker
from siemrelay.pipeline.formatting.formatter import Formatter
from siemrelay.pipeline.formatting.sink_format import SinkFormat
from siemrelay.proof.envelopes import sent_hashes
from siemrelay.proof.exports.parts import parts as export_parts
from siemrelay.registry import PROTOCOLS
from siemrelay.sinks.contract import unwrapped
from tests.contracts.sink_peers import PEERS, Http, SinkPeer
from tests.support.events.formats import PLAIN, made, messages_for
from tests.support.events.hostile import EVENTS, FORGERIES
from tests.support.events.products import CATALOGUE
from tests.support.events.strategies import HOSTILE, selection_of
from tests.support.examples import examples
from tests.support.receivers.otlp import plain, value_of
from tests.support.receivers.splunk import check_event, read_event

# So deep, or with such numbers, parsers differ; the tests of each format have these.
_ODD = {"a long integer", "a large number"} | {n for n in HOSTILE if n.startswith("nested")}
RECORDS = st.one_of(
    st.sampled_from([record for name, record in HOSTILE.items() if name not in _ODD]),
    st.sampled_from(FORGERIES).map(lambda text: text.encode("utf-8", "replace")),
    st.sampled_from([b"{},{}", b'{"a":1}],[{"forged":1}', b'{}{"index":{}}', b"01", b"-", b'"x',
                     b'{"event":"FORGED"}', b'{"@timestamp":"FORGED"}', b'{"TimeGenerated":null}']),
).map(lambda record: record.replace(b"\n", b" "))  # fmt: skip
"""Lines that the format `raw` passes on."""


class Number(str):
    """A number as it is written."""


def json_of(message: bytes) -> Any:
    """The value of a JSON text by the letter of RFC 8259. Raises ValueError."""

    def no_number(name: str) -> Any:
        raise ValueError(f"{name} is no JSON")

    return json.loads(
        message.decode(), parse_int=Number, parse_float=Number, parse_constant=no_number
    )


def value_in(message: bytes) -> Any:
    """A message's JSON value; the message as a text where it is none."""
    try:
        value = json_of(message)
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except ValueError:
        return message.decode()
    return value


class Envelope(NamedTuple):
    """One form of a protocol's envelope.

    `inside` gives what an enveloped message holds, by the receiver's rules, with an AssertionError
    for what breaks them; `expected` gives the same of the message and the event that went in.
    """

    settings: Mapping[str, Any]
    inside: Callable[[bytes], Any]
    expected: Callable[[bytes, AuditEvent], Any]


INNER = ("json", "ecs", "syslog", "raw")
"""Objects, objects with a time of the envelope's name, lines, and what senders write."""


# Splunk


def _hec(message: bytes) -> Any:
    check_event(read_event(message), 0, {"audit"})
    found = json.loads(message, object_pairs_hook=lambda pairs: pairs)
    names = [name for name, _ in found]
    assert len(names) == len(set(names))
    return json_of(message)["event"]


def _of_hec(message: bytes, event: AuditEvent) -> Any:
    value = value_in(message)
    if isinstance(value, dict) and message.startswith(b"{"):
        return value
    return message.decode() if message.decode().strip() else "-"


# Elasticsearch and Sentinel: objects with a time


def _document(message: bytes) -> Any:
    action, document = message.split(b"\n")
    ((verb, about),) = json.loads(action).items()
    assert verb == "create"
    assert re.fullmatch("[0-9a-f]{32}", about["_id"])
    return json_of(document)


def _stamped(stamp: str, text: str) -> Callable[[bytes, AuditEvent], Any]:
    def expected(message: bytes, event: AuditEvent) -> Any:
        value = value_in(message)
        if not isinstance(value, dict):
            return {stamp: event.time, text: message.decode()}
        return value if value.get(stamp) is not None else {**value, stamp: event.time}

    return expected


# OpenTelemetry

_OTLP_FIELDS = {
    "audit.id": "id", "audit.category": "category", "audit.outcome": "outcome",
    "audit.severity": "severity", "user.name": "actor.name", "user.id": "actor.id",
    "source.address": "actor.address", "audit.target.type": "target.type",
    "audit.target.name": "target.name", "audit.target.id": "target.id",
}  # fmt: skip


def _record(message: bytes) -> Any:
    return _fields_of(json_format.Parse(message, LogRecord()))


def _fields_of(record: LogRecord) -> Any:
    found = plain(record.attributes)
    assert re.fullmatch("[0-9a-f]{32}", found.pop("log.record.uid"))
    assert found.pop("siemrelay.source") == "test"
    assert found.pop("siemrelay.sequence") > 0
    return value_of(record.body), found


def _of_record(body: Callable[[bytes], Any]) -> Callable[[bytes, AuditEvent], Any]:
    def expected(message: bytes, event: AuditEvent) -> Any:
        parts = {"actor": event.actor, "target": event.target, "": event}
        found = {}
        for name, field in _OTLP_FIELDS.items():
            whole, _, part = field.rpartition(".")
            value = getattr(parts[whole], part)
            if value not in (None, "") or name == "audit.severity":
                found[name] = value if value is None or isinstance(value, int) else utf8(value)
        return body(message), found

    return expected


def utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _as_otlp(value: Any) -> Any:
    """A value as protobuf gives it back: integers have 64 bits."""
    if isinstance(value, Number):
        value = int(value) if value.lstrip("-").isdigit() else float(value)
    if isinstance(value, dict):
        return {name: _as_otlp(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_as_otlp(inner) for inner in value]
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        return str(value)
    return value


def _structured(message: bytes) -> Any:
    value = value_in(message)
    return _as_otlp(value) if isinstance(value, dict) else message.decode()


# All of them

_PLAIN = Envelope({}, bytes.decode, lambda message, event: message.decode())
_TIMED = _stamped("@timestamp", "message")
ENVELOPES: dict[str, list[Envelope]] = {
    "http": [
        _PLAIN,
        Envelope({"batch": {"encoding": "array"}}, json_of, lambda m, event: value_in(m)),
    ],
    "splunk-hec": [
        Envelope({"index": "audit", "fields": {"user": "actor.name"}}, _hec, _of_hec),
        _PLAIN._replace(settings={"endpoint": "raw"}),
    ],
    "elasticsearch": [Envelope({}, _document, _TIMED)],
    "sentinel": [Envelope({}, json_of, _stamped("TimeGenerated", "RawData"))],
    "otlp": [
        Envelope({"body": "text"}, _record, _of_record(bytes.decode)),
        Envelope({"body": "structured"}, _record, _of_record(_structured)),
    ],
    "kafka": [_PLAIN, _PLAIN._replace(settings={"key": "actor"})],
}
_NAMED = [
    pytest.param(row, envelope, id=f"{row}-{number}")
    for row, envelopes in ENVELOPES.items()
    for number, envelope in enumerate(envelopes)
]
_NEEDED: dict[str, Mapping[str, Any]] = {
    "http": {"url": "http://127.0.0.1:9/"},
    "splunk-hec": {"url": "http://127.0.0.1:9", "authorization": "Splunk x"},
    "elasticsearch": {"url": "http://127.0.0.1:9"},
    "sentinel": {
        "endpoint": "https://127.0.0.1:9", "rule": "dcr-1", "stream": "Custom-A", "tenant": "t",
        "client_id": "c", "client_secret": "s",
    },
    "otlp": {"url": "http://127.0.0.1:9"},
    "kafka": {"brokers": "127.0.0.1:9", "topic": "audit"},
}  # fmt: skip
"""Options that a row cannot do without."""


def enveloped(row: str, inner: Format, options: Mapping[str, Any]) -> Format:
    kind = PROTOCOLS[row]
    return kind.wrap(inner, kind.options.model_validate({**_NEEDED[row], **options}))


def test_every_protocol_over_http_or_with_an_envelope_is_here() -> None:
    peers: dict[str, Any] = PEERS
    over_http = {row for row, peer in peers.items() if issubclass(peer, Http.__mro__[1])}
    with_envelope = {row for row, kind in PROTOCOLS.items() if kind.wrap is not unwrapped}
    rows = set(ENVELOPES), set(_NEEDED), set(EXPORTS)
    assert rows == (over_http | with_envelope,) * 3, "a row of each table for each protocol"


@pytest.mark.parametrize("name", INNER)
@pytest.mark.parametrize(("row", "envelope"), _NAMED)
@examples(15)
@given(events=EVENTS, records=st.lists(RECORDS, min_size=3, max_size=3))
def test_each_message_is_in_its_envelope_as_it_is_without(
    row: str, envelope: Envelope, name: str, events: list[AuditEvent], records: list[bytes]
) -> None:
    inner = made(name)
    selection = selection_of(events, records[: len(events)])
    messages = enveloped(row, inner, envelope.settings).encode(selection)
    assert len(messages) == len(events)
    for message, bare, event in zip(messages, inner.encode(selection), events, strict=True):
        assert not {*range(0x20)} & {*message} - {0x09} - (
            {0x0A} if row == "elasticsearch" else set()
        )
        assert envelope.inside(message) == envelope.expected(bare, event)


# Requests, as their receivers get them


def _lines(body: bytes) -> list[bytes]:
    assert body.endswith(b"\n")
    return body[:-1].split(b"\n")


def _elements(body: bytes) -> list[bytes]:
    return [json.dumps(element).encode() for element in json.loads(body)]


def _values(body: bytes) -> Iterator[bytes]:
    decoder, text, at = json.JSONDecoder(), body.decode(), 0
    while at < len(text):
        start = at
        _, at = decoder.raw_decode(text, at)
        yield text[start:at].encode()
        at = len(text) - len(text[at:].lstrip())


def _documents(body: bytes) -> list[bytes]:
    lines = _lines(body)
    return [b"\n".join(pair) for pair in zip(lines[::2], lines[1::2], strict=True)]


def _log_records(body: bytes) -> list[bytes]:
    (resource,) = json_format.Parse(body, ExportLogsServiceRequest()).resource_logs
    (scope,) = resource.scope_logs
    return [json_format.MessageToJson(record).encode() for record in scope.log_records]


BODIES: dict[str, Callable[[bytes], Any]] = {
    "http-0": _lines, "http-1": _elements, "splunk-hec-0": _values,
    "splunk-hec-1": _lines, "elasticsearch-0": _documents,
    "sentinel-0": _elements, "otlp-0": _log_records, "otlp-1": _log_records,
}  # fmt: skip
"""How a request's body is taken apart into enveloped messages, by the id in `_NAMED`."""
_OVER_HTTP = [each for each in _NAMED if each.id in BODIES]


def forged() -> list[AuditEvent]:
    """An event for each text that ends something somewhere, in all of its fields."""
    return [
        AuditEvent(
            id=f"{n}{text}", time="2026-03-04T05:06:07.089Z", type=f"t{text}", category=text,
            severity=3, outcome="success", actor=Actor(text, text, text),
            target=Target(text, text, text), message=text,
            attributes=msgspec.Raw(msgspec.json.encode({text: text})),
        )
        for n, text in enumerate(map(utf8, FORGERIES))
    ]  # fmt: skip


class _Decoded:
    """A decoder that knows the events of its batch already."""

    def __init__(self, decoded: DecodedBatch) -> None:
        self._decoded = decoded

    def decode(self, batch: Batch) -> DecodedBatch:
        return self._decoded


async def sent(peer: SinkPeer, form: Format, selection: Selection) -> list[int]:
    """Send them as a delivery would, in batches within the limits; the number of events of each."""
    kind = PROTOCOLS[peer.row]
    options = kind.options.model_validate(peer.settings)
    decoded = selection.decoded
    everything = EventFilter(EventsOptions(), CATALOGUE)
    sink = SinkFormat(everything, form, kind.max_message_bytes(options))
    found = messages_for(Formatter({"s": sink}, {}, _Decoded(decoded)), "s", decoded.batch)
    maker = BatchMaker(kind.limits(options))
    sizes = []
    async with peer.sink().session() as session:
        for batch in maker.batches(decoded.batch, found, decoded.batch.first_sequence):
            refusals = await session.confirm(await session.send(batch.messages))
            assert all(refusal.duplicate for refusal in refusals)  # the same batch again
            sizes.append(len(batch.messages))
    return sizes


@pytest.mark.parametrize("name", INNER)
@pytest.mark.parametrize(("row", "envelope"), _OVER_HTTP)
async def test_a_request_has_the_events_of_its_batch_and_no_more_bytes_than_allowed(
    request: pytest.FixtureRequest, row: str, envelope: Envelope, name: str, tmp_path: Path
) -> None:  # fmt: skip
    bodies = BODIES[request.node.callspec.id.removesuffix(f"-{name}")]
    peer = PEERS[row](row, tmp_path)
    events = forged()
    records = [(event.message or " ").encode("utf-8", "replace").replace(b"\n", b" ")
               for event in events]  # fmt: skip
    selection, inner = selection_of(events, records), made(name)
    async with peer.open():
        most_bytes = 50_000
        batch = {
            "max_bytes": f"{most_bytes}B",
            "max_events": 7,
            **envelope.settings.get("batch", {}),
        }
        peer.settings |= {**envelope.settings, "batch": batch}
        if row == "splunk-hec":
            peer.settings["sourcetype"] = "audit"
        form = PROTOCOLS[row].wrap(inner, PROTOCOLS[row].options.model_validate(peer.settings))
        with trio.fail_after(60):
            sizes = await sent(peer, form, selection)
        posted = peer.bodies  # type: ignore[attr-defined]  # peers over HTTP have them
    assert sum(sizes) == len(events)
    assert max(sizes) == 7
    found = [list(bodies(body)) for body in posted]
    assert [len(each) for each in found] == sizes
    assert all(
        len(body) <= most_bytes for body, size in zip(posted, sizes, strict=True) if size > 1
    )
    expected = [
        envelope.expected(bare, event)
        for bare, event in zip(inner.encode(selection), events, strict=True)
    ]
    assert [envelope.inside(message) for each in found for message in each] == expected


@pytest.mark.parametrize(("row", "envelope"), _OVER_HTTP)
async def test_a_request_is_never_a_byte_longer_than_allowed(
    row: str, envelope: Envelope, tmp_path: Path
) -> None:
    peer = PEERS[row](row, tmp_path)
    events = [msgspec.structs.replace(PLAIN, id=f"e{n}", message="m" * 2000) for n in range(3)]
    selection, inner = selection_of(events), made("json")
    async with peer.open():
        peer.settings |= envelope.settings
        if row == "splunk-hec":
            peer.settings["sourcetype"] = "audit"

        async def bodies_within(most_bytes: int) -> list[int]:
            before = len(peer.bodies)  # type: ignore[attr-defined]  # peers over HTTP have them
            encoding = envelope.settings.get("batch", {})
            peer.settings["batch"] = {"max_bytes": f"{most_bytes}B", **encoding}
            options = PROTOCOLS[row].options.model_validate(peer.settings)
            await sent(peer, PROTOCOLS[row].wrap(inner, options), selection)
            return [len(body) for body in peer.bodies[before:]]  # type: ignore[attr-defined]  # as above

        with trio.fail_after(60):
            (whole,) = await bodies_within(1_000_000)
            for most_bytes in (whole - 1, whole, whole + 1):
                assert max(await bodies_within(most_bytes)) <= most_bytes
            assert len(await bodies_within(whole + 1)) == 1


# Under seals

NUMBER = "abcdefgh22:7"


def _as_splunk(message: bytes) -> bytes:
    if message.startswith(b'{"time":'):
        event = json.loads(message)["event"]
        message = event.encode() if isinstance(event, str) else _stored_anew(event)
    return _stored_anew({"result": {"_raw": message.decode()}, "preview": False})


def _stored_anew(value: Any) -> bytes:
    """As a receiver may write it: members in another order, other spaces."""
    return json.dumps(value, sort_keys=True, separators=(", ", " : "), ensure_ascii=True).encode()


def _as_json(message: bytes) -> bytes:
    try:
        value = json.loads(message)
    except ValueError:
        return message
    return value.encode() if isinstance(value, str) else _stored_anew(value)


EXPORTS: dict[str, Callable[[bytes], bytes]] = {
    "http": _as_json,
    "splunk-hec": _as_splunk,
    "elasticsearch": lambda message: _stored_anew({"_source": json.loads(message.split(b"\n")[1])}),
    "sentinel": _as_json,
    "otlp": lambda message: _stored_anew(
        {"resourceLogs": [{"scopeLogs": [{"logRecords": [json.loads(message)]}]}]}
    ),
    "kafka": _as_json,
}
"""By protocol: what an export has of a message that was sent."""


@pytest.mark.parametrize("name", ["json", "ecs", "ocsf", "gelf", "cef", "leef", "syslog"])
@pytest.mark.parametrize(("row", "envelope"), _NAMED)
@examples(15)
@given(event=EVENTS)
def test_an_export_has_the_leaf_that_the_relay_has(
    row: str, envelope: Envelope, name: str, event: list[AuditEvent]
) -> None:
    plain = selection_of(event)
    form = enveloped(row, made(name), envelope.settings)
    canonical = isinstance(form, Canonical) and form.canonical
    for message in form.encode(Selection(plain.decoded, number=NUMBER)):
        (part,) = export_parts([EXPORTS[row](message)])
        assert part.leaves.numbers == ["abcdefgh22:7"]
        assert part.leaves.hashes == sent_hashes([message], row, canonical=canonical)

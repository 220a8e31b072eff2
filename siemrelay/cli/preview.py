"""`siemrelay preview`: what each sink would receive for given records. It sends nothing."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from itertools import chain
from typing import Any, BinaryIO, Final

import click
import msgspec

from siemrelay import registry
from siemrelay.cli.config_faults import exit_with_faults
from siemrelay.cli.options import complete_sinks, complete_sources, config_option, json_option
from siemrelay.cli.proposals import SAMPLE_BYTES, proposal, shown_proposal
from siemrelay.cli.record_files import contents, records_in
from siemrelay.config.load import load
from siemrelay.config.models import RelayConfig
from siemrelay.core.errors import ConfigurationRefused
from siemrelay.core.event import (
    FIELDS,
    REDACTED_PART,
    AuditEvent,
    Batch,
    DecodedBatch,
    Selection,
    attributes_of,
    field_getter,
)
from siemrelay.core.event_types import UNPARSED, UNTYPED
from siemrelay.core.lines import payloads
from siemrelay.formats.writing.text import sanitize_for_display
from siemrelay.pipeline.formatting.truncate import truncated
from siemrelay.products.product import BUILT_IN
from siemrelay.relay.assembly import Assembly, SinkParts, unparsed_why
from siemrelay.transforms.event_paths import ATTRIBUTES
from siemrelay.wire.framing.contract import MAX_WHOLE_BYTES
from siemrelay.wire.framing.lines import LineFraming
from siemrelay.wire.items import ItemSplitter, on_one_line

# Bounds memory when a whole log is piped through.
_PORTION_RECORDS: Final = 1000

# Of attributes inside attributes, which a sender may nest without end.
_MAX_DEPTH: Final = 8


@click.command()
@config_option()
@click.option("--sink", "only", metavar="NAME", help="Show only this sink.",
              shell_complete=complete_sinks)  # fmt: skip
@click.option("--source", metavar="NAME", shell_complete=complete_sources,
              help="Decode as this source does; the first one by default.")  # fmt: skip
@json_option()
@click.argument("records", metavar="[FILE]", type=click.File("rb"), default="-")
def preview(
    config: str, only: str | None, source: str | None, as_json: bool, records: BinaryIO
) -> None:
    """Show what each sink would receive for the records in FILE or on standard input.

    For each record it prints the fields that were found, then for each sink whether the record is
    kept or filtered, and why, and the exact bytes of the message. FILE may be compressed with gzip,
    zstd, xz or bzip2; the source's `items` splits records. Nothing is sent or stored.

    \b
    Example:
      tail -n 3 /var/log/alm/audit.json | siemrelay preview --sink qradar
    """
    try:
        loaded = load(config, need_credentials=False, only_sinks=[only] if only else None)
    except ConfigurationRefused as refused:
        exit_with_faults(refused, "nothing is shown")
    settings = loaded.config
    source = source or next(iter(settings.sources))
    for name, known, what in ((source, settings.sources, "source"), (only, settings.sinks, "sink")):
        if name is not None and name not in known:
            raise click.UsageError(f"unknown {what} `{name}`; the {what}s are {', '.join(known)}")
    if records.isatty():
        click.echo("reading records from this terminal; Ctrl-D ends them", err=True)
    assembly = Assembly(settings)
    sinks = [assembly.sink(name) for name in settings.sinks if only in (None, name)]
    previewer = _Previewer(assembly, source, sinks)
    untyped, unparsed = 0, _Unparsed()
    chosen = settings.sources[source]
    framed = registry.SOURCES[chosen.type].framed
    framing = registry.framing(chosen) if framed else LineFraming(MAX_WHOLE_BYTES)
    sample = _Sample()
    found = records_in(sample.of(contents(records)), framing)
    if chosen.items is not None:
        found = _items(found, ItemSplitter(chosen.items))
    for result in previewer.results(found):
        untyped += result["event"].get("type") == UNTYPED
        unparsed.note(result)
        if as_json:
            click.echo(json.dumps(result))
        else:
            _print(result)
    if unparsed.is_empty:
        click.secho(f"warning: no record in {records.name}", err=True, fg="yellow")
    if untyped:
        click.secho(f"warning: {_untyped(untyped, source)}", err=True, fg="yellow")
    fitting = proposal(sample.data, whole=sample.is_whole)
    product = fitting.settings.get("product") if fitting is not None else None
    if product is not None and chosen.product == "generic":
        warning = f"these are records of {product}; in source {source} set `product: {product}`"
        click.secho(f"warning: {warning}", err=True, fg="yellow")
    if unparsed.are_many:
        click.secho(f"warning: {unparsed.text(settings, source)}", err=True, fg="yellow")
        if fitting is not None and fitting.settings["decoder"] not in (chosen.decoder, "text"):
            click.echo(
                "\n".join(shown_proposal(fitting, source if framed else None, "FILE")), err=True
            )


class _Sample:
    """The beginning of what is read, for a proposal."""

    def __init__(self) -> None:
        self.data = b""
        self.is_whole = True

    def of(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The same pieces; the first of them are kept."""
        for piece in pieces:
            if len(self.data) < SAMPLE_BYTES:
                self.data += piece
            else:
                self.is_whole = False
            yield piece


class _Unparsed:
    """The records that the decoder could not parse."""

    def __init__(self) -> None:
        self._count = self._all = 0
        self._first: dict[str, Any] = {}

    def note(self, result: dict[str, Any]) -> None:
        self._all += 1
        if result["event"].get("type") == UNPARSED:
            self._first = self._first or result
            self._count += 1

    @property
    def is_empty(self) -> bool:
        """Whether there was no record at all."""
        return self._all == 0

    @property
    def are_many(self) -> bool:
        """Whether it is not just a line or two of something else."""
        return self._count * 10 >= self._all > 0

    def text(self, config: RelayConfig, source: str) -> str:
        record = str(self._first["event"].get("message", ""))
        why = unparsed_why(config, source, record.encode())
        number = self._first["record"]
        return f"{self._count:,} of {self._all:,} records cannot be parsed; record {number}: {why}"


def _untyped(count: int, source: str) -> str:
    products = ", ".join(name for name in BUILT_IN if name != "generic")
    return (
        f"{count:,} of these records name no type that is known here; in source {source} set "
        f"`product:` to what writes them ({products}), or name the field that holds the type, "
        "like `fields: {type: event.name}`"
    )


def _items(records: Iterator[bytes], splitter: ItemSplitter) -> Iterator[bytes]:
    """The items of records that have some, and the others."""
    for record in records:
        slices = splitter.slices(record)
        yield from [record] if slices is None else chain.from_iterable(map(on_one_line, slices))


class _Previewer:
    """Decodes every field, so that a person also sees those that no sink uses."""

    def __init__(self, assembly: Assembly, source: str, sinks: list[SinkParts]) -> None:
        self._source, self._sinks = source, sinks
        self._decoder = assembly.decoder(source, sinks, everything=True)
        self._source_filter = assembly.source_filter(source)

    def results(self, records: Iterator[bytes]) -> Iterator[dict[str, Any]]:
        first = 1
        portion: list[bytes] = []
        for record in records:
            if record.strip():
                portion.append(record)
            if len(portion) == _PORTION_RECORDS:
                yield from self._portion(first, portion)
                first, portion = first + len(portion), []
        if portion:
            yield from self._portion(first, portion)

    def _portion(self, first: int, records: list[bytes]) -> Iterator[dict[str, Any]]:
        for payload, some in payloads(records):
            batch = Batch(first, len(some), self._source, time.time(), payload)
            first = batch.next_sequence
            decoded = self._decoder.decode(batch)
            stored, reasons = self._stored(decoded)
            for i, event in enumerate(stored.events):
                kept, why = reasons[i]
                yield {
                    "record": batch.first_sequence + i,
                    "event": _found(event),
                    "source": {"kept": kept, "why": why},
                    "sinks": {
                        parts.name: _shown(parts, stored, i) for parts in self._sinks if kept
                    },
                }

    def _stored(self, decoded: DecodedBatch) -> tuple[DecodedBatch, list[tuple[bool, str]]]:
        """The events as the source stores their records; and of each whether it does, and why."""
        if self._source_filter is None:
            return decoded, [(True, "")] * len(decoded.events)
        reasons = [self._source_filter.explain(event) for event in decoded.events]
        admitted = self._source_filter.admit(decoded.events, [kept for kept, _ in reasons])
        reasons = [(kept, why) for kept, (_, why) in zip(admitted, reasons, strict=True)]
        batch = decoded.batch
        records, withheld = self._source_filter.redacted(decoded.records, decoded.events)
        payload = b"".join([record + b"\n" for record in records])
        if payload != batch.payload:
            decoded = self._decoder.decode(msgspec.structs.replace(batch, payload=payload))
            for i in withheld:
                alone = msgspec.structs.replace(
                    batch, first_sequence=batch.first_sequence + i, count=1,
                    payload=records[i] + b"\n", part=REDACTED_PART,
                )  # fmt: skip
                (decoded.events[i],) = self._decoder.decode(alone).events
        return decoded, reasons


def _found(event: AuditEvent) -> dict[str, Any]:
    pairs = ((field, field_getter(field)(event)) for field in FIELDS)
    found = {field: value for field, value in pairs if value is not None}
    return found | dict(_named(attributes_of(event), ATTRIBUTES))


def _named(values: dict[str, Any], above: str, depth: int = 1) -> Iterator[tuple[str, Any]]:
    """Every attribute by the name that `where` takes, as far as a person would write one."""
    for name, value in values.items():
        path = f"{above}.{name}"
        if isinstance(value, dict) and depth < _MAX_DEPTH:
            yield from _named(value, path, depth + 1)
        elif isinstance(value, dict):
            yield path, "{...}"
        elif isinstance(value, list):
            nested = any(isinstance(each, (dict, list)) for each in value)
            yield path, "[...]" if nested else value
        elif value is not None:
            yield path, value


def _shown(parts: SinkParts, decoded: DecodedBatch, index: int) -> dict[str, Any]:
    kept, why = parts.events.explain(decoded.events[index])
    source = decoded.batch.source
    if parts.sources is not None and source not in parts.sources:
        kept, why = False, f"source {source} is not in sources"
    if kept and parts.transform is not None:
        kept, why = parts.transform.explain(decoded.events[index]) or (kept, why)
    if not kept:
        return {"kept": False, "why": why}
    selection = Selection(decoded).alone(index)
    if parts.transform is not None:
        selection, _ = parts.transform.apply(selection)
    (message,) = parts.format.encode(selection)
    limit = parts.max_message_bytes
    cut = limit is not None and len(message) > limit
    if cut and limit is not None:
        message = truncated(parts.format, selection, 0, message, limit)
    text = message.decode("utf-8")
    return {"kept": True, "why": why, "bytes": len(message), "cut": cut, "message": text}


def _print(result: dict[str, Any]) -> None:
    colour = sys.stdout.isatty()
    click.secho(f"record {result['record']}", bold=colour)
    for field, value in result["event"].items():
        shown = sanitize_for_display(f"{field:14} {value}")  # a sender chooses attributes' names
        click.echo(f"  {shown}")
    if not result["source"]["kept"]:
        click.secho(f"  -> not stored: {result['source']['why']}", fg="yellow")
    for name, shown in result["sinks"].items():
        verdict = "kept" if shown["kept"] else "filtered"
        click.secho(
            f"  -> {name}: {verdict}, {shown['why']}", fg="green" if shown["kept"] else "yellow"
        )
        if shown["kept"]:
            cut = ", truncated to max_message_size" if shown["cut"] else ""
            click.echo(
                f"     {shown['bytes']} bytes{cut}: {sanitize_for_display(shown['message'])}"
            )

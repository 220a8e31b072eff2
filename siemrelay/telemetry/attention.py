"""Conditions that need a person, the most urgent first, each with its remedy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from siemrelay.core.backoff import HOLD_ADVICE
from siemrelay.core.own_commands import with_config
from siemrelay.telemetry.status import RelayReport, SinkReport
from siemrelay.telemetry.status_text import span

# Certificates are renewed a month before their end at the latest; then somebody forgot.
_CERTIFICATE_S: Final = 14 * 86_400

_STARTING: Final = ("starting", "stopping")


class Attention(msgspec.Struct, frozen=True):
    """One thing; `bad`: something stands still. Commands and keys are in backticks."""

    tone: Literal["bad", "warning"]
    title: str
    reason: str = ""
    advice: str = ""


# By whether it is the disk.
_FULL: Final = {
    False: ("The buffer is full", "Fix, pause or disable the sinks that hold it, or raise "
            "`buffer.max_size` and `siemrelay reload`."),
    True: ("The file system of `state_dir` is full", "Free space there; intake goes on by itself."),
}  # fmt: skip


def attention(report: RelayReport) -> list[Attention]:
    """Everything, the bad before the warnings."""
    found = [
        msgspec.structs.replace(each, advice=with_config(each.advice, report.config_file))
        for each in _found(report)
    ]
    return sorted(found, key=lambda each: each.tone != "bad")


def _found(report: RelayReport) -> Iterator[Attention]:
    buffer = report.buffer
    if buffer.full:
        held_by = f" for {', '.join(buffer.held_by)}" if buffer.held_by else ""
        title, advice = _FULL[buffer.disk_full]
        yield Attention("bad", f"{title}: intake waits{held_by}", "", advice)
    for sink in report.sinks:
        yield from _sink(sink, report)
    for source in report.sources:
        if source.credentials_fault:
            yield Attention("bad", f"Source {source.name} goes on with its earlier TLS files or "
                            "secrets", source.credentials_fault)  # fmt: skip
        if source.unparsed_why:
            yield Attention(
                "warning", f"Source {source.name}: {source.unparsed_share:.0%} of its records "
                "cannot be parsed", source.unparsed_why,
                f"`siemrelay preview --source {source.name} FILE` proposes the decoder that fits.",
            )  # fmt: skip
        if source.files == 0 and not source.unreadable_files:
            yield Attention("warning", f"Source {source.name}: no file matches its `path`", "",
                            "One is read as soon as it appears.")  # fmt: skip
    for text in report.troubles:
        if text.endswith(" is full: intake waits"):
            continue
        title, _, reason = text.partition(": ")
        yield Attention("warning" if text in _STARTING else "bad",
                        f"{title[:1].upper()}{title[1:]}", reason)  # fmt: skip
    if report.reload_error:
        yield Attention(
            "bad", "The last reload was refused", report.reload_error,
            "The relay goes on with the configuration that it has. `siemrelay check` shows every "
            "fault.",
        )  # fmt: skip
    for name, count in buffer.dead_letters.items():
        if count:
            yield Attention(
                "warning", f"{name} refused {count:,} {'event' if count == 1 else 'events'}",
                "They are kept as dead letters.",
                f"`siemrelay buffer dead-letters {name}` shows each with the receiver's answer; "
                "`--retry` sends them again after the fix.",
            )  # fmt: skip
    for name, removed in buffer.removed.items():
        yield Attention(
            "warning",
            f"{name} is no longer configured, and {_waiting(removed.backlog)} for it",
            f"They are kept for {span(removed.kept_until - report.at)} yet.",
            f"Set `renamed_from: {name}` on the sink that takes its place, or drop them with "
            f"`siemrelay reload --discard-backlog {name}`.",
        )  # fmt: skip


def _waiting(records: int) -> str:
    return "1 record waits" if records == 1 else f"{records:,} records wait"


def _sink(sink: SinkReport, report: RelayReport) -> Iterator[Attention]:
    waits = f", {_waiting(sink.backlog)}" if sink.backlog else ""
    title = f"{sink.name} is {sink.state} for {span(report.at - sink.since)}{waits}"
    if sink.state == "holding":
        yield Attention("bad", title, sink.reason, f"{HOLD_ADVICE[:1].upper()}{HOLD_ADVICE[1:]}.")
    elif sink.state == "waiting" and (sink.retries or sink.backlog):
        yield Attention("warning", title, sink.reason, "It retries by itself. "
                        f"`siemrelay test {sink.name}` shows the step that fails.")  # fmt: skip
    elif sink.state in ("failed", "paused"):
        yield Attention("bad" if sink.state == "failed" else "warning", title, sink.reason)
    if sink.credentials_fault:
        yield Attention("bad", f"Sink {sink.name} goes on with its earlier TLS files or secrets",
                        sink.credentials_fault)  # fmt: skip
    ends = sink.certificate_expires_at
    if ends is not None and ends - report.at < _CERTIFICATE_S:
        when = f"ends in {span(ends - report.at)}" if ends > report.at else "has expired"
        yield Attention("warning", f"The certificate that {sink.name} shows {when}", "",
                        "It is the receiver's: have it renewed there.")  # fmt: skip
    if sink.timestamps is not None and sink.timestamps.fault:
        yield Attention("warning", f"The seals of {sink.name} get no time stamps",
                        sink.timestamps.fault, "Seals and events go on without; it is asked again. "
                        "Check `seal: {timestamp: …}`.")  # fmt: skip
    seal = sink.seal
    if seal is not None and seal.is_stale(report.at) and sink.state == "up":
        yield Attention("warning", f"The last seal of {sink.name} is late: "
                        f"{span(report.at - (seal.sealed_at or 0))} old", f"One is sent every "
                        f"{span(seal.every_s)}; what came after it is not proven.",
                        "The log says why none could be made.")  # fmt: skip

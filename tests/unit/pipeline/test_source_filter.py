"""`events:` on a source: what is noise is never stored, what cannot be read is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.config.load import load_text
from siemrelay.core.errors import ConfigurationRefused
from siemrelay.pipeline.intake.source_filter import SourceFilter
from siemrelay.relay.assembly import Assembly
from siemrelay.sources.contract import Position, Records
from tests.conftest import MakeDaemon
from tests.support.daemon import append, event, ids, tcp, until
from tests.support.receivers.sockets import TcpReceiver

KEPT, NOISE = "Account Provisioned", "User Logged In"


def source_filter(events: object) -> SourceFilter | None:
    text = json.dumps({
        "sources": {"a": {"type": "file", "path": "/a", "events": events}},
        "sinks": {"s": {"server": "127.0.0.1"}},
    })  # fmt: skip
    return Assembly(load_text(text, "x.yaml").config).source_filter("a")


def records(*lines: bytes) -> Records:
    return Records(
        b"".join(line + b"\n" for line in lines), len(lines), (Position("f", {"at": 1}),)
    )


def line(kind: str) -> bytes:
    return json.dumps({"type": kind, "severity": 5}).encode()


def test_without_a_choice_there_is_no_sieve() -> None:
    assert source_filter("Any Audit Record") is None


def test_what_events_leaves_out_is_gone_and_the_position_stays() -> None:
    made = source_filter({"exclude": [NOISE]})
    assert made is not None
    some = records(line(NOISE), line(KEPT), line(NOISE), b"no json")
    kept = made.apply(some).records
    assert kept.payload == line(KEPT) + b"\nno json\n"
    assert (kept.count, kept.positions) == (2, some.positions)
    nothing = made.apply(records(line(NOISE))).records
    assert (nothing.payload, nothing.count, nothing.positions) == (b"", 0, some.positions)
    everything = records(line(KEPT), line(KEPT))
    assert made.apply(everything).records is everything


@pytest.mark.parametrize(
    ("events", "kept"),
    [
        ([KEPT], True),
        ({"include": [KEPT], "exclude": ["Unparsed Record"]}, False),
        ({"exclude": ["Unparsed*"]}, False),
        ({"min_severity": 9}, True),
    ],
)
def test_what_cannot_be_read_is_kept_unless_it_is_left_out_by_name(
    events: object, kept: bool
) -> None:
    made = source_filter(events)
    assert made is not None
    assert made.apply(records(b"no json"))[0].count == kept


@given(st.lists(st.sampled_from([KEPT, NOISE, ""]), max_size=30))
def test_the_rest_comes_through_in_order(kinds: list[str]) -> None:
    made = source_filter([KEPT])
    assert made is not None
    lines = [line(kind) if kind else b"\xff" for kind in kinds]
    expected = [each for each, kind in zip(lines, kinds, strict=True) if kind != NOISE]
    assert made.apply(records(*lines))[0].payload == b"".join(each + b"\n" for each in expected)


def test_an_unknown_name_on_a_source_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigurationRefused) as refused:
        source_filter(["Acount Provisioned"])
    (fault,) = refused.value.faults
    assert fault.key == "sources.a.events[0]"
    assert "Account Provisioned" in fault.message


def test_the_daemon_neither_stores_nor_sends_noise_and_counts_it(make_daemon: MakeDaemon) -> None:
    with TcpReceiver() as receiver:
        daemon = make_daemon({"all": tcp(receiver.port)})
        daemon.config["sources"]["audit"]["events"] = {"exclude": [NOISE]}
        daemon.start()
        append(daemon.audit, [event(n, type=NOISE if n % 2 else KEPT) for n in range(10)])
        receiver.until(5)
        assert daemon.metric("source_filtered_total", source="audit") == 5
        assert daemon.metric("source_records_total", source="audit") == 5
        assert daemon.rows("SELECT sum(count) FROM batches") == [(5,)]
        daemon.kill()
        daemon.start()
        append(daemon.audit, [event(11, type=NOISE), event(12)])
        until(lambda: receiver.arrived.ids[-1:] == ids([12]))
        assert daemon.terminate() == 0
    assert sorted(set(receiver.arrived.ids)) == ids([0, 2, 4, 6, 8, 12])


def test_check_shows_which_events_a_source_leaves_out(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from siemrelay.cli.check import check

    file = tmp_path / "x.yaml"
    file.write_text(
        "sources: {a: {type: file, path: /a, events: {exclude: [User Logged In]}}}\n"
        "sinks: {s: {server: 127.0.0.1}}\n"
    )
    result = CliRunner().invoke(check, ["-c", str(file)])
    assert result.exit_code == 0, result.output
    assert "User Logged In" in result.output

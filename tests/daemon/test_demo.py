"""The demo, as a person starts it: a process, its output, its exit code; and how it counts."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from siemrelay.config.load import load
from siemrelay.core.event import AuditEvent
from siemrelay.core.filters import EventFilter
from siemrelay.demo.audit_log import Writer, due
from siemrelay.demo.balance import Balance, SinkBalance, compare, settled
from siemrelay.demo.daemon import Daemon, Figures, SinkFigures, read_metrics
from siemrelay.demo.ledger import Arrival, Ledger, Sample, Tally, samples
from siemrelay.demo.messages import read_cef, read_json, read_syslog
from siemrelay.demo.progress import DemoProgress
from siemrelay.demo.receivers import HttpReceiver, TcpReceiver
from siemrelay.demo.records import KINDS, record
from siemrelay.demo.setup import CHOICES, DemoFiles, write_configuration
from siemrelay.demo.view import PlainView
from siemrelay.telemetry.metrics import render, sampled
from siemrelay.telemetry.stats import SinkCounts, SinkStats, SourceStats, Stats
from tests.support.events.products import CATALOGUE

# A demo of four seconds takes six; a machine that is busy with other tests takes longer.
_PATIENCE_S = 60


@contextmanager
def _demo(place: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The demo as a process of its own, its temporary directory inside `place`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "siemrelay", "demo", "--plain", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "TMPDIR": str(place)},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _until(process: subprocess.Popen[str], words: str) -> str:
    """Read lines until one has these words; returns it."""
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return line
    raise AssertionError(f"ended without saying {words!r}")


def _is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _daemon_pid(line: str) -> int:
    return int(line.partition("(process ")[2].partition(")")[0])


def test_demo_balances_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with _demo(tmp_path, "--seconds", "4") as process:
        pid = _daemon_pid(_until(process, "(process "))
        output, _ = process.communicate(timeout=_PATIENCE_S)
    assert process.returncode == 0, output
    assert "the relay finishes audit.json.1" in output
    assert "cef-tcp receiver is up again" in output
    assert "It balances" in output
    assert "siemrelay check" in output
    assert list(tmp_path.iterdir()) == []
    assert not _is_running(pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_demo_delivers_the_rest_and_balances_when_stopped_early(
    tmp_path: Path, number: signal.Signals
) -> None:
    with _demo(tmp_path, "--seconds", "600") as process:
        _until(process, "json-http")  # the configuration
        _until(process, "received")  # the first figures
        process.send_signal(number)
        output, _ = process.communicate(timeout=_PATIENCE_S)
    assert process.returncode == 0, output
    assert "stopped by you" in output
    assert "It balances" in output
    assert list(tmp_path.iterdir()) == []


def test_demo_fails_and_shows_the_log_when_its_daemon_is_killed(tmp_path: Path) -> None:
    with _demo(tmp_path, "--seconds", "600") as process:
        pid = _daemon_pid(_until(process, "(process "))
        os.kill(pid, signal.SIGKILL)
        output, _ = process.communicate(timeout=_PATIENCE_S)
    assert process.returncode == 1
    assert "the daemon ended" in output
    assert "started" in output  # a line of its log
    assert list(tmp_path.iterdir()) == []


def test_demo_ends_and_cleans_up_when_nobody_reads_its_output(tmp_path: Path) -> None:
    with _demo(tmp_path, "--seconds", "600") as process:
        pid = _daemon_pid(_until(process, "(process "))
        assert process.stdout is not None
        process.stdout.close()
        process.wait(timeout=_PATIENCE_S)
    assert process.returncode == 1
    assert list(tmp_path.iterdir()) == []
    assert not _is_running(pid)


def test_demo_puts_everything_away_at_the_second_signal_though_its_daemon_hangs(
    tmp_path: Path,
) -> None:
    with _demo(tmp_path, "--seconds", "600") as process:
        pid = _daemon_pid(_until(process, "(process "))
        _until(process, "received")
        os.kill(pid, signal.SIGSTOP)
        process.send_signal(signal.SIGINT)
        _until(process, "stopped by you")
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=_PATIENCE_S)
    assert process.returncode == 130, output
    assert list(tmp_path.iterdir()) == []
    assert not _is_running(pid)


_WHOLE = SinkBalance("cef-tcp", written=10, filtered=4, delivered=6, received=6)


def test_balance_holds_when_written_is_delivered_and_filtered() -> None:
    balance = Balance(10, 10, (_WHOLE, replace(_WHOLE, repeats=3)))
    assert balance.faults() == []
    assert balance.exit_code == 0


@pytest.mark.parametrize(
    ("stored", "sink", "said"),
    [
        (9, _WHOLE, "10 written, but the relay stored 9"),
        (10, replace(_WHOLE, filtered=3), "cef-tcp: 10 written, but the relay counts 6 delivered"),
        (10, replace(_WHOLE, received=5), "the relay counts 6 delivered, the receiver 5 received"),
        (10, replace(_WHOLE, missing=("a", "b", "c", "d")), "4 never arrived: a, b, c, ..."),
        (10, replace(_WHOLE, unwanted=1), "1 arrived although its `events` excludes them"),
        (10, replace(_WHOLE, foreign=2), "2 messages were not events of this demo"),
    ],
)
def test_balance_gives_exit_code_1_and_names_what_is_missing(
    stored: int, sink: SinkBalance, said: str
) -> None:
    balance = Balance(10, stored, (sink,))
    assert balance.exit_code == 1
    assert any(said in fault for fault in balance.faults())


def _taken(ledger: Ledger, *identities: str) -> Tally:
    tally = Tally(ledger)
    for identity in identities:
        tally.take(Arrival(identity, 0.0), b"", 1.0)
    return tally


def test_the_comparison_names_missing_and_unwanted_events() -> None:
    ledger = Ledger("run")
    ids = [ledger.enter(kind) for kind in range(len(KINDS))]
    wanted = [i for i, known in zip(ids, KINDS, strict=True) if CHOICES["cef-tcp"](known)]
    unwanted = next(i for i in ids if i not in wanted)
    tallies = {"cef-tcp": _taken(ledger, *wanted[1:], unwanted)}
    figures = SinkFigures("up", len(wanted), len(ids) - len(wanted))
    (sink,) = compare(ledger, tallies, Figures(len(ids), {"cef-tcp": figures})).sinks
    assert (sink.missing, sink.unwanted, sink.received) == ((wanted[0],), 1, len(wanted))


def test_tally_counts_repeats_and_strangers_apart() -> None:
    ledger = Ledger("run")
    first, second = ledger.enter(0), ledger.enter(0)
    tally = _taken(ledger, first, first, second, "run-000002", "other-000000", "run-x", "")
    tally.take(None, b"", 1.0)
    assert (tally.unique, tally.repeats, tally.foreign) == (2, 1, 5)


def test_tally_forgets_what_is_older_than_a_second() -> None:
    ledger = Ledger("run")
    tally = Tally(ledger)
    for moment_s, lag_s in ((10.0, 9.0), (11.5, 0.1), (12.0, 0.3)):
        tally.take(Arrival(ledger.enter(0), moment_s - lag_s), b"", moment_s)
    assert tuple(tally.recent(12.1)) == pytest.approx((3, 2.0, 0.2))
    assert tally.recent(99.0) == (3, 0.0, None)


def test_a_sample_shows_control_characters_of_a_sender_as_symbols(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sample = Sample(b"type\x1b[2J", {"cef-tcp": b"CEF\x07"})
    PlainView().closing(Balance(0, 0, ()), [sample], [])
    shown = capsys.readouterr().out
    assert "type␛[2J" in shown
    assert "CEF␇" in shown


def test_samples_are_the_messages_that_receivers_got_of_the_chosen_events() -> None:
    ledger = Ledger("run")
    tallies = {"a": Tally(ledger), "b": Tally(ledger)}
    first, second = ledger.enter(0), ledger.enter(0)
    ledger.samples[1] = b"line"
    for tally in tallies.values():
        tally.take(Arrival(first, 0.0), b"of the first", 1.0)
    tallies["b"].take(Arrival(second, 0.0), b"of the second", 1.0)
    assert samples(ledger, tallies) == [Sample(b"line", {"b": b"of the second"})]


async def test_no_snapshot_shows_more_received_than_stored_or_stored_than_written(
    tmp_path: Path,
) -> None:
    """Events that arrive while a snapshot is taken may not tear its counts apart."""
    ledger = Ledger("run")
    tallies = {"syslog-udp": Tally(ledger)}
    with Writer(tmp_path, ledger, 1000) as writer:

        class BusyDaemon(Daemon):
            async def figures(self) -> Figures:
                writer.write(2)
                stored = len(ledger)
                writer.write(2)
                for number in range(len(ledger)):
                    tallies["syslog-udp"].take(Arrival(ledger.identity(number), 0.0), b"", 1.0)
                return Figures(stored)

        progress = DemoProgress(1.0, writer, tallies)
        for _ in range(5):
            await progress.refresh(BusyDaemon(DemoFiles(tmp_path, 1, "")))
            shown = progress.snapshot
            assert shown.received["syslog-udp"].received <= shown.figures.stored
            assert shown.figures.stored <= sum(shown.written.values())


def test_settled_waits_for_the_receiver_and_not_only_for_the_relay() -> None:
    ledger = Ledger("run")
    one = ledger.enter(0)
    figures = Figures(1, {"syslog-udp": SinkFigures("up", delivered=1)})
    assert not settled(ledger, {"syslog-udp": _taken(ledger)}, figures)
    assert settled(ledger, {"syslog-udp": _taken(ledger, one)}, figures)
    assert not settled(ledger, {"syslog-udp": _taken(ledger, one)}, replace(figures, stored=0))


@pytest.mark.parametrize("rate", [1, 7, 200, 2000])
def test_due_never_falls_and_keeps_the_average(rate: int) -> None:
    counts = [due(tick / 100, rate) for tick in range(6001)]
    assert counts == sorted(counts)
    assert counts[-1] == pytest.approx(60 * rate, rel=0.02, abs=2)


def test_every_type_of_both_products_is_written_as_itself() -> None:
    catalogue, rng = CATALOGUE, random.Random(1)
    written = {known.name for known in CATALOGUE.types if known.product in ("alm", "lightrun")}
    for kind, known in enumerate(KINDS):
        line = record(kind, "id-1", "2026-01-01T00:00:00.000001+00:00", rng)
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        found = msgspec.json.decode(line)
        said = catalogue.find(found["auditType" if known.product == "alm" else "eventType"])
        assert said == known
        written.remove(known.name)
    assert not written


def test_configuration_of_the_demo_has_no_faults_and_chooses_what_the_balance_expects(
    tmp_path: Path,
) -> None:
    scene = write_configuration(tmp_path, dict.fromkeys(CHOICES, 1), 2, "token-of-the-demo")
    config = load(str(scene.file)).config
    for name, takes in CHOICES.items():
        chosen = EventFilter(config.sinks[name].events, CATALOGUE)
        for known in KINDS:
            event = AuditEvent(type=known.name, category=known.category, severity=known.severity)
            assert chosen.explain(event)[0] == takes(known), (name, known.name)


def test_configuration_of_the_demo_stands_in_a_directory_with_any_name(tmp_path: Path) -> None:
    place = tmp_path / 'a "b" [c]: #d'
    place.mkdir()
    scene = write_configuration(place, dict.fromkeys(CHOICES, 1), 2, "token-of-the-demo")
    loaded = load(str(scene.file))
    assert loaded.config.state_dir == place / "state"
    assert "token-of-the-demo" in {secret.removeprefix("Bearer ") for secret in loaded.secrets}


def test_messages_are_read_back_from_each_format() -> None:
    expected = Arrival("run-7", 1767225600.123)
    assert read_syslog(
        b"<109>1 2026-01-01T00:00:00.123Z host siemrelay - AccountSecretIDchanged "
        rb'[event@32473 sequence="9" id="run-7" type="Account Secret ID changed" '
        rb'actor.name="o\"b\]r\\ien"] a message [with] id="none"'
    ) == expected  # fmt: skip
    assert read_cef(
        b"<109>Jan  1 00:00:00 host CEF:0|siemrelay|audit|1.0|Account Secret ID changed|"
        b"Account Secret ID changed|5|rt=1767225600123 externalId=run-7 cat=account "
        rb'suser=o"b]r\\ien msg=a\=b'
    ) == expected  # fmt: skip
    line = rb'{"id":"run-7","time":"2026-01-01T00:00:00.123Z","type":"Account Secret ID changed",'
    line += rb'"actor":{"name":"o\"b]r\\ien"}}'
    assert read_json(line) == expected
    assert [read_json(other) for other in (b"[]", b"nothing", b"{}", b"")] == [None] * 4


@pytest.mark.parametrize("garbage", [b"", b"\xff\0", b"<1>1 x", b"CEF:0|", b"CEF:0|a|b|c|d|e|5|x"])
def test_messages_that_are_none_are_counted_and_never_raise(garbage: bytes) -> None:
    assert read_syslog(garbage) is None
    assert read_cef(garbage) is None


def test_metrics_are_read_back_as_the_daemon_writes_them() -> None:
    stats = Stats()
    stats.sources = {"a": SourceStats("a", records=3), "b": SourceStats("b", records=4)}
    stats.sinks = {
        "x": SinkStats("x", state="up", counts=SinkCounts(delivered=5, filtered=2), backlog=1)
    }
    expected = Figures(7, {"x": SinkFigures("up", delivered=5, filtered=2, backlog=1)})
    assert read_metrics(render(sampled(stats)).decode()) == expected


async def test_tcp_receiver_that_goes_down_reads_to_the_end_and_comes_back_on_its_port() -> None:
    ledger = Ledger("run")
    receiver = TcpReceiver(ledger)
    port = await receiver.bind()
    line = b"CEF:0|v|p|1|t|t|5|rt=1000 externalId=%b\n"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receiver.run)
        await trio.testing.wait_all_tasks_blocked()
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(line % ledger.enter(0).encode())
        while not receiver.tally.unique:
            await trio.lowlevel.checkpoint()
        receiver.take_down()
        assert await stream.receive_some() == b""
        # Sent after its FIN and before ours: it still reads.
        await stream.send_all(line % ledger.enter(0).encode() + b"CEF:0|half a line")
        await stream.aclose()
        while receiver.tally.unique < 2:
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", port)
        receiver.bring_up()
        await trio.testing.wait_all_tasks_blocked()
        async with await trio.open_tcp_stream("127.0.0.1", port) as again:
            await again.send_all(line % ledger.enter(0).encode())
            while receiver.tally.unique < 3:
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert receiver.tally.foreign == 0


async def _ask(port: int, request: bytes) -> bytes:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(request)
        return await stream.receive_some()


async def test_http_receiver_counts_only_what_comes_with_the_token() -> None:
    ledger = Ledger("run")
    receiver = HttpReceiver(ledger, "right")
    port = await receiver.bind()
    body = b'{"id":"%b","time":"2026-01-01T00:00:00Z","type":"t"}\n' % ledger.enter(0).encode()
    request = b"%b HTTP/1.1\r\nHost: x\r\nAuthorization: %b\r\nContent-Length: %d\r\n\r\n%b"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receiver.run)
        for line, authorization, status in (
            (b"POST /events", b"Bearer wrong", b"401"),
            (b"POST /other", b"Bearer right", b"404"),
            (b"PUT /events", b"Bearer right", b"405"),
        ):
            answer = await _ask(port, request % (line, authorization, len(body), body))
            assert answer.startswith(b"HTTP/1.1 " + status)
            assert receiver.tally.unique == 0
        answer = await _ask(port, request % (b"POST /events", b"Bearer right", len(body), body))
        assert answer.startswith(b"HTTP/1.1 200")
        assert receiver.tally.unique == 1
        nursery.cancel_scope.cancel()


def test_the_demo_of_proof_finds_the_changed_and_the_deleted_event() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "siemrelay", "demo", "--proof"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    kinds = [line.split()[0] for line in done.stdout.splitlines() if " n=" in line]
    assert kinds == ["changed", "missing"]

"""A sink or source that gets another name, or leaves the file, keeps what is its own."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeDaemon
from tests.daemon.test_buffer_commands import buffer
from tests.support.daemon import Daemon, append, event, http, ids, tcp, until
from tests.support.receivers.http import Answer, HttpReceiver
from tests.support.receivers.sockets import TcpReceiver

WAITING = 300


def apply(daemon: Daemon, by: str) -> None:
    """Let the relay take the changed configuration, running on or started anew."""
    if by == "reload":
        found = daemon.command("reload")
        assert found.returncode == 0, found.stderr
    else:
        daemon.terminate()
        daemon.start()


def with_waiting_sink(make_daemon: MakeDaemon, *receivers: TcpReceiver) -> Daemon:
    """A relay of which the sink `old` has a record delivered and WAITING ones waiting."""
    kept, old = receivers
    daemon = make_daemon({"kept": tcp(kept.port), "old": tcp(old.port)}, shutdown_timeout="1s")
    daemon.start()
    append(daemon.audit, [event(0)])
    old.until(1)
    until(lambda: daemon.metric("sink_delivered_total", sink="old") == 1)
    old.down()
    append(daemon.audit, [event(1 + number) for number in range(WAITING)])
    kept.until(1 + WAITING)
    return daemon


def rename(daemon: Daemon, old: str, new: str, section: str = "sinks") -> None:
    parts = daemon.config[section]
    parts[new] = {**parts.pop(old), "renamed_from": old}


@pytest.mark.parametrize("by", ["reload", "start"])
def test_a_renamed_sink_takes_over_what_waits_and_its_counts(
    make_daemon: MakeDaemon, by: str
) -> None:
    with TcpReceiver() as kept, TcpReceiver() as old:
        daemon = with_waiting_sink(make_daemon, kept, old)
        rename(daemon, "old", "new")
        if by == "reload":
            found = daemon.command("check", "--against-running")
            assert "would rename sink old to new" in found.stdout
        apply(daemon, by)
        assert daemon.metric("sink_backlog_records", sink="new") == WAITING
        assert daemon.metric("sink_delivered_total", sink="new") == 1
        assert not daemon.rows("SELECT * FROM cursors WHERE sink = 'old'")
        old.up()
        old.until(1 + WAITING)
        assert old.arrived.ids == ids(range(1 + WAITING))
        until(lambda: daemon.metric("sink_backlog_records", sink="new") == 0)
        # The key may stay: it does nothing any more.
        apply(daemon, by)
        append(daemon.audit, [event(1 + WAITING)])
        old.until(2 + WAITING)
        until(lambda: daemon.metric("sink_delivered_total", sink="new") == 2 + WAITING)


def test_a_renamed_sink_takes_its_dead_letters_and_its_pause_along(
    make_daemon: MakeDaemon,
) -> None:
    def answer(request: object) -> Answer:
        return Answer(400 if b"n0000001" in getattr(request, "body", b"") else 200)

    with HttpReceiver(answer) as receiver:
        daemon = make_daemon({"old": http(receiver.url)}).start()
        append(daemon.audit, [event(1)])
        until(lambda: daemon.metric("sink_dead_lettered_total", sink="old") == 1)
        assert daemon.command("pause", "old").returncode == 0
        append(daemon.audit, [event(2)])
        until(lambda: daemon.metric("sink_backlog_records", sink="old") == 1)
        rename(daemon, "old", "new")
        apply(daemon, "reload")
        assert daemon.state_of("new") == "paused"
        assert daemon.metric("sink_dead_lettered_total", sink="new") == 1
        assert daemon.rows("SELECT sink FROM dead_letters") == [("new",)]
        rename(daemon, "new", "newer")
        apply(daemon, "start")
        assert daemon.state_of("newer") == "paused"
        assert daemon.rows("SELECT sink FROM dead_letters") == [("newer",)]
        assert daemon.command("resume", "newer").returncode == 0
        until(lambda: daemon.metric("sink_delivered_total", sink="newer") == 1)


def test_records_of_a_sink_that_is_missing_at_a_start_are_kept_and_shown(
    make_daemon: MakeDaemon,
) -> None:
    with TcpReceiver() as kept, TcpReceiver() as old:
        daemon = with_waiting_sink(make_daemon, kept, old)
        settings = daemon.config["sinks"].pop("old")
        apply(daemon, "start")
        (line,) = daemon.said("a sink is no longer configured; its records are kept")
        assert (line["sink"], line["undelivered"]) == ("old", WAITING)
        assert "--discard-backlog old" in line["advice"]
        assert f"old is no longer configured; {WAITING} records wait for it" in daemon.get("/")[1]
        assert daemon.metric("removed_sink_backlog_records", sink="old") == WAITING
        assert f"old is no longer configured; {WAITING} records from 2 on" in (
            buffer(daemon, "info")
        )
        # They are kept over another start, and are there when the sink is back.
        apply(daemon, "start")
        daemon.config["sinks"]["old"] = settings
        apply(daemon, "reload")
        old.up()
        old.until(1 + WAITING)
        assert old.arrived.ids == ids(range(1 + WAITING))
        assert "no longer configured" not in daemon.get("/")[1]


def test_a_new_name_given_after_the_start_takes_the_kept_records_over_too(
    make_daemon: MakeDaemon,
) -> None:
    with TcpReceiver() as kept, TcpReceiver() as old:
        daemon = with_waiting_sink(make_daemon, kept, old)
        settings = daemon.config["sinks"].pop("old")
        apply(daemon, "start")
        daemon.config["sinks"]["new"] = {**settings, "renamed_from": "old"}
        apply(daemon, "reload")
        old.up()
        old.until(1 + WAITING)
        assert old.arrived.ids == ids(range(1 + WAITING))


def test_a_sink_with_a_place_of_its_own_gets_advice_how_to_send_the_kept_records(
    make_daemon: MakeDaemon,
) -> None:
    """The name was changed without `renamed_from`, the relay restarted: nothing is lost yet."""
    with TcpReceiver() as kept, TcpReceiver() as old:
        daemon = with_waiting_sink(make_daemon, kept, old)
        daemon.config["sinks"]["new"] = daemon.config["sinks"].pop("old")
        apply(daemon, "start")
        old.up()
        append(daemon.audit, [event(1 + WAITING)])
        old.until(2)
        daemon.config["sinks"]["new"]["renamed_from"] = "old"
        found = daemon.command("reload")
        assert found.returncode == 0, found.stderr
        wanted = f"siemrelay buffer replay new --from 2 --to {1 + WAITING} -c {daemon.file}`"
        assert wanted in found.stdout
        buffer(daemon, "replay", "new", "--from", "2", "--to", str(1 + WAITING))
        assert sorted(old.arrived.ids) == ids(range(2 + WAITING))
        found = daemon.command("reload", "--discard-backlog", "old")
        assert found.returncode == 0, found.stderr
        assert "is no longer configured" not in daemon.get("/")[1]


def test_kept_records_are_dropped_and_counted_when_their_time_is_over(
    make_daemon: MakeDaemon,
) -> None:
    with TcpReceiver() as kept, TcpReceiver() as old:
        daemon = with_waiting_sink(make_daemon, kept, old)
        daemon.config["sinks"].pop("old")
        apply(daemon, "start")
        daemon.config["buffer"] = {"keep_removed": "0s"}
        apply(daemon, "start")
        (line,) = daemon.said("the place of a removed sink is dropped")
        assert (line["level"], line["sink"], line["undelivered"]) == ("error", "old", WAITING)
        assert daemon.metric("buffer_discarded_total") == WAITING
        assert not daemon.rows("SELECT * FROM cursors WHERE sink = 'old'")


def test_discarding_for_a_sink_that_stays_is_refused(make_daemon: MakeDaemon) -> None:
    with TcpReceiver() as receiver:
        daemon = make_daemon({"siem": tcp(receiver.port)}).start()
        for name in ("siem", "typo"):
            found = daemon.command("reload", "--discard-backlog", name)
            assert found.returncode == 78
            assert f"--discard-backlog {name}: no sink of that name is removed" in found.stderr


def test_a_removed_sink_that_is_up_has_everything_first(make_daemon: MakeDaemon) -> None:
    """Under load something is always in flight: a healthy sink can be removed nevertheless."""
    with TcpReceiver() as kept, TcpReceiver() as old:
        daemon = make_daemon({"kept": tcp(kept.port), "old": tcp(old.port)}).start()
        append(daemon.audit, [event(0)])
        old.until(1)
        del daemon.config["sinks"]["old"]
        daemon.write_config()
        append(daemon.audit, [event(1 + number) for number in range(20_000)])
        until(lambda: daemon.metric("sink_delivered_total", sink="kept") > 1)
        before = int(daemon.metric("source_records_total", source="audit"))
        daemon.send(signal.SIGHUP)
        until(lambda: daemon.said("configuration reloaded") or daemon.said("reload refused"))
        assert not daemon.said("reload refused")
        assert old.arrived.ids[:before] == ids(range(before))
        kept.until(20_001)


def source_daemon(make_daemon: MakeDaemon, receiver: TcpReceiver) -> Daemon:
    return make_daemon({"siem": tcp(receiver.port, format="json")})


@pytest.mark.parametrize("by", ["reload", "start"])
def test_a_renamed_source_keeps_its_positions_and_counts(
    make_daemon: MakeDaemon, tmp_path: Path, by: str
) -> None:
    fields = {"message": "said"}
    with TcpReceiver() as receiver:
        daemon = source_daemon(make_daemon, receiver)
        source: dict[str, Any] = daemon.config["sources"]["audit"]
        source["fields"] = fields
        daemon.start()
        append(daemon.audit, [{**event(number), "said": "hello"} for number in range(3)])
        receiver.until(3)
        until(lambda: daemon.metric("sink_backlog_records", sink="siem") == 0)
        receiver.down()
        append(daemon.audit, [{**event(3), "said": "hello"}])
        until(lambda: daemon.metric("source_records_total", source="audit") == 4)
        rename(daemon, "audit", "alm", "sources")
        apply(daemon, by)
        assert daemon.metric("source_records_total", source="alm") == 4
        append(daemon.audit, [{**event(4), "said": "hello"}])
        receiver.up()
        receiver.until(5)
        assert sorted(receiver.arrived.ids) == ids(range(5))
        # The record that was stored under the old name was read as the source's own.
        assert {json.loads(each)["message"] for each in receiver.arrived.messages} == {"hello"}


@pytest.mark.parametrize(
    ("section", "parts", "fault"),
    [
        ("sinks", {"a": {"renamed_from": "a"}}, "sinks.a.renamed_from: this is the sink's name"),
        ("sinks", {"a": {"renamed_from": "b"}, "b": {}}, "`b` is still a sink: remove it"),
        ("sinks", {"a": {"renamed_from": "x"}, "b": {"renamed_from": "x"}},
         "sinks.b.renamed_from: sink `a` takes the place of `x` already"),
    ],
)  # fmt: skip
def test_a_former_name_that_is_not_free_is_a_fault(
    make_daemon: MakeDaemon, section: str, parts: dict[str, Any], fault: str
) -> None:
    daemon = make_daemon({name: {**tcp(9), **part} for name, part in parts.items()})
    found = daemon.command("check")
    assert found.returncode == 78
    assert fault in found.stderr

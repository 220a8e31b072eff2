"""Sinks that come, go and pause between the runs of the real daemon."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from http.client import HTTPException

from tests.conftest import MakeDaemon
from tests.support.daemon import append, event, ids, tcp, until
from tests.support.http_sender import Sender, port_of
from tests.support.receivers.sockets import TcpReceiver


def test_a_sink_added_later_starts_at_the_next_record_or_the_oldest_kept(
    make_daemon: MakeDaemon,
) -> None:
    with TcpReceiver() as first, TcpReceiver() as next_one, TcpReceiver() as oldest:
        daemon = make_daemon({"first": tcp(first.port)}).start()
        append(daemon.audit, map(event, (1, 2, 3)))
        first.until(3)
        daemon.terminate()
        daemon.config["sinks"] |= {
            "next": tcp(next_one.port),
            "oldest": tcp(oldest.port, start_at="oldest"),
        }
        daemon.start()
        append(daemon.audit, [event(4)])
        first.until(4)
        next_one.until(1)
        oldest.until(4)
        assert daemon.terminate() == 0
    assert first.arrived.ids == ids([1, 2, 3, 4])
    assert next_one.arrived.ids == ids([4])
    assert oldest.arrived.ids == ids([1, 2, 3, 4])


def test_a_removed_sink_that_is_not_kept_stops_holding_records_back(
    make_daemon: MakeDaemon,
) -> None:
    with TcpReceiver() as stays, TcpReceiver(up=False) as gone:
        daemon = make_daemon(
            {"stays": tcp(stays.port), "gone": tcp(gone.port)},
            buffer={"keep": "0s", "keep_removed": "0s"},
        ).start()
        append(daemon.audit, map(event, range(1, 11)))
        until(lambda: daemon.metric("sink_backlog_records", sink="gone") == 10)
        until(lambda: daemon.metric("sink_backlog_records", sink="stays") == 0)
        assert daemon.terminate() == 0
        assert daemon.rows("SELECT sum(count) FROM batches") == [(10,)]
        del daemon.config["sinks"]["gone"]
        daemon.start()
        until(lambda: daemon.rows("SELECT count(*) FROM batches") == [(0,)])
        (line,) = daemon.said("the place of a removed sink is dropped")
        assert (line["sink"], line["undelivered"]) == ("gone", 10)
        assert daemon.rows("SELECT sink FROM cursors") == [("stays",)]
        append(daemon.audit, [event(11)])
        stays.until(11)
    assert stays.arrived.ids == ids(range(1, 12))


def test_a_disabled_sink_keeps_its_place(make_daemon: MakeDaemon) -> None:
    with TcpReceiver() as other, TcpReceiver() as paused:
        daemon = make_daemon(
            {"other": tcp(other.port), "paused": tcp(paused.port)}, buffer={"keep": "0s"}
        ).start()
        append(daemon.audit, [event(1)])
        paused.until(1)
        daemon.terminate()
        daemon.config["sinks"]["paused"]["enabled"] = False
        daemon.start()
        append(daemon.audit, [event(2), event(3)])
        other.until(3)
        assert daemon.state_of("paused") == "disabled"
        assert daemon.metric("sink_backlog_records", sink="paused") == 2
        assert daemon.terminate(within_s=8) == 0
        assert len(paused.arrived) == 1
        daemon.config["sinks"]["paused"]["enabled"] = True
        daemon.start()
        paused.until(3)
    assert paused.arrived.ids == ids([1, 2, 3])


def test_sequence_numbers_go_on_after_everything_was_delivered_and_deleted(
    make_daemon: MakeDaemon,
) -> None:
    with TcpReceiver() as receiver:
        daemon = make_daemon({"stream": tcp(receiver.port)}, buffer={"keep": "0s"}).start()
        append(daemon.audit, map(event, range(1, 11)))
        receiver.until(10)
        daemon.terminate()
        daemon.start()
        until(lambda: daemon.rows("SELECT count(*) FROM batches") == [(0,)])
        append(daemon.audit, [event(11)])
        receiver.until(11)
    assert b'"sequence":11,' in receiver.arrived.messages[-1]


def test_a_state_dir_renamed_while_running_ends_the_relay_and_loses_nothing_acknowledged(
    make_daemon: MakeDaemon,
) -> None:
    with TcpReceiver(up=False) as receiver:
        daemon = make_daemon({"stream": tcp(receiver.port)})
        daemon.config["sources"] = {
            "hooks": {"type": "http", "listen": "http://127.0.0.1:0/events"}
        }
        daemon.start()
        elsewhere = daemon.state.with_name("elsewhere")
        with Sender(port_of(daemon)) as sender:
            assert sender.post(json.dumps(event(1)).encode())[0] == 200
            daemon.state.rename(elsewhere)
            with suppress(OSError, HTTPException):  # closed by the end of the process
                assert sender.post(json.dumps(event(2)).encode())[0] != 200
        assert daemon.wait() == os.EX_IOERR
        (line,) = daemon.said("the disk buffer failed; ending")
        assert "state_dir was removed, renamed or replaced" in line["error"]
        elsewhere.rename(daemon.state)
        daemon.start()
        receiver.up()
        receiver.until(1)
        assert daemon.terminate() == 0
    assert receiver.arrived.ids[:1] == ids([1])

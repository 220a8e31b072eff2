"""The real daemon's sinks in trouble: each hurts only itself, and nothing is lost."""

from __future__ import annotations

from collections import Counter

from tests.conftest import MakeDaemon
from tests.support.daemon import append, event, http, ids, tcp, udp, until
from tests.support.receivers.http import TAKEN, Answer, HttpReceiver, Request
from tests.support.receivers.sockets import TcpReceiver, UdpReceiver

# Runs of one connection that may be unsettled when it breaks: 4 sent and not settled
# (`delivery._IN_FLIGHT_BATCHES`), one being sent and one whose settling is under way.
UNSETTLED_RUNS = 6

# A healthy sink's events arrive in milliseconds; a machine that is busy with the other tests may
# take longer, but never as long as the broken sinks' timeouts of 30 s.
UNDELAYED_S = 15.0


def test_broken_sinks_of_every_kind_never_delay_the_healthy_one(make_daemon: MakeDaemon) -> None:
    with TcpReceiver() as healthy, TcpReceiver(up=False) as down, TcpReceiver(reads=False) as slow:
        with HttpReceiver(lambda request: Answer(401, "no such token")) as refusing:
            daemon = make_daemon(
                {
                    "healthy": tcp(healthy.port),
                    "down": tcp(down.port, timeout="30s"),
                    "slow": tcp(slow.port, timeout="30s"),
                    "refusing": http(refusing.url, authorization="Bearer wrong-token"),
                }
            ).start()
            # More than the kernel keeps for a receiver that never reads.
            append(daemon.audit, (event(n, padding="x" * 400) for n in range(1, 20_001)))
            healthy.until(20_000)
            until(lambda: daemon.state_of("refusing") == "holding")
            assert daemon.state_of("down") == "waiting"
            assert daemon.metric("sink_backlog_records", sink="slow") > 0
            for n in range(20_001, 20_021):
                append(daemon.audit, [event(n)])
                healthy.until(n, UNDELAYED_S)
            until(lambda: daemon.metric("sink_backlog_records", sink="healthy") == 0)
            assert daemon.metric("sink_backlog_records", sink="down") == 20_020
            assert daemon.get("/readyz")[0] == 200
            daemon.kill()
    assert healthy.arrived.ids == ids(range(1, 20_021))


def test_a_sink_that_comes_up_gets_everything_from_where_it_was(make_daemon: MakeDaemon) -> None:
    with TcpReceiver(up=False) as late:
        daemon = make_daemon({"late": tcp(late.port)}).start()
        append(daemon.audit, map(event, range(1, 1001)))
        (line,) = until(lambda: daemon.said("sink waiting"))
        assert "is the receiver running there?" in line["reason"]
        late.up()
        late.until(1000)
        until(lambda: daemon.state_of("late") == "up")
        assert daemon.metric("sink_retries_total", sink="late") >= 1
    assert late.arrived.ids == ids(range(1, 1001))


def test_a_503_is_waited_out_for_as_long_as_retry_after_asks(make_daemon: MakeDaemon) -> None:
    busy = [Answer(503, "busy", Retry_After="2")]

    def answer(request: Request) -> Answer:
        return busy.pop() if busy else TAKEN

    with HttpReceiver(answer) as web:
        daemon = make_daemon({"web": http(web.url)}).start()
        append(daemon.audit, [event(1)])
        web.until(1)
        first, second = web.requests
        assert second.at - first.at >= 2
        assert "HTTP 503 busy" in daemon.said("sink waiting")[0]["reason"]
    assert web.arrived.ids == ids([1])


def test_one_poisonous_event_among_500_becomes_a_dead_letter_alone(
    make_daemon: MakeDaemon,
) -> None:
    def answer(request: Request) -> Answer:
        return Answer(400, "field `x` is no date") if b"poison" in request.body else TAKEN

    with HttpReceiver(answer) as web:
        daemon = make_daemon({"web": http(web.url)})
        append(daemon.audit, (event(n, **{"message": "poison"} if n == 123 else {})
                              for n in range(1, 501)))  # fmt: skip
        daemon.start()
        web.until(499)
        until(lambda: daemon.metric("sink_backlog_records", sink="web") == 0)
        assert sorted(web.arrived.ids) == ids(n for n in range(1, 501) if n != 123)
        assert daemon.metric("sink_dead_lettered_total", sink="web") == 1
        assert daemon.metric("sink_delivered_total", sink="web") == 499
        (letter,) = daemon.rows("SELECT sink, sequence, code, reason, record FROM dead_letters")
        assert letter[:4] == ("web", 123, "400", "field `x` is no date")
        assert b"n0000123" in letter[4]
        assert daemon.said("events refused")[0]["first_sequence"] == 123
        assert daemon.terminate() == 0


def test_a_401_holds_with_advice_and_a_start_with_the_right_token_delivers_all(
    make_daemon: MakeDaemon,
) -> None:
    def answer(request: Request) -> Answer:
        right = request.headers.get("authorization") == "Bearer right-token"
        return TAKEN if right else Answer(401, "who are you?")

    with HttpReceiver(answer) as web:
        daemon = make_daemon({"web": http(web.url, authorization="Bearer wrong-token")}).start()
        append(daemon.audit, map(event, range(1, 11)))
        (line,) = until(lambda: daemon.said("sink holding"))
        assert line["level"] == "error"
        assert "check the token" in line["reason"]
        assert daemon.state_of("web") == "holding"
        asked = len(web.requests)
        append(daemon.audit, map(event, range(11, 21)))
        until(lambda: daemon.metric("sink_backlog_records", sink="web") == 20)
        assert len(web.requests) == asked, "a held sink is not hammered"
        assert daemon.terminate(within_s=8) == 0
        daemon.config["sinks"]["web"]["authorization"] = "Bearer right-token"
        daemon.start()
        web.until(20)
        assert web.arrived.ids == ids(range(1, 21))


def test_a_sink_without_its_files_is_logged_at_the_start_and_the_others_deliver(
    make_daemon: MakeDaemon,
) -> None:
    with TcpReceiver() as receiver:
        sinks = {
            "good": tcp(receiver.port),
            "lacking": tcp(receiver.port) | {"protocol": "tls", "tls": {"ca": "/no/ca.pem"}},
        }
        daemon = make_daemon(sinks).start()
        append(daemon.audit, [event(1)])
        receiver.until(1)
        (line,) = daemon.said("missing on this machine")
        assert line["level"] == "error"
        assert line["fault"].endswith("sinks.lacking.tls.ca: there is no file /no/ca.pem")
        (held,) = until(lambda: daemon.said("sink holding"))
        assert "/no/ca.pem" in held["reason"]


def test_a_receiver_that_resets_in_mid_stream_loses_nothing(make_daemon: MakeDaemon) -> None:
    resets, total = 3, 40_000
    with TcpReceiver(resets=resets) as receiver:
        daemon = make_daemon({"stream": tcp(receiver.port, timeout="30s")})
        append(daemon.audit, (event(n, padding="x" * 100) for n in range(1, total + 1)))
        daemon.start()
        until(lambda: receiver.arrived and receiver.arrived.messages[-1].find(b"n0040000") >= 0)
        until(lambda: daemon.metric("sink_backlog_records", sink="stream") == 0)
        ((largest,),) = daemon.rows("SELECT max(count) FROM batches")
        assert daemon.metric("sink_retries_total", sink="stream") == resets
        assert daemon.terminate() == 0
    counted = Counter(receiver.arrived.ids)
    assert sorted(counted) == ids(range(1, total + 1))
    assert counted.total() - total <= resets * UNSETTLED_RUNS * largest


def test_a_message_too_large_for_a_datagram_is_cut_and_counted(make_daemon: MakeDaemon) -> None:
    with UdpReceiver() as datagrams:
        daemon = make_daemon({"datagrams": udp(datagrams.port, format="syslog")}).start()
        append(daemon.audit, [event(1), event(2, message="é" * 40_000), event(3)])
        datagrams.until(3)
        assert daemon.metric("sink_truncated_messages_total", sink="datagrams") == 1
    first, cut, last = datagrams.arrived.messages
    assert cut.endswith(b"...[cut]")
    assert cut.decode("utf-8")
    assert b"n0000001" in first
    assert b"n0000003" in last


def test_an_idle_receiver_that_closes_is_connected_to_again(make_daemon: MakeDaemon) -> None:
    with TcpReceiver() as receiver:
        daemon = make_daemon({"stream": tcp(receiver.port)}).start()
        append(daemon.audit, [event(1)])
        until(lambda: daemon.metric("sink_delivered_total", sink="stream") == 1)
        receiver.down()
        until(lambda: daemon.said("sink waiting"))
        receiver.up()
        until(lambda: receiver.connections_made == 2)
        append(daemon.audit, [event(2)])
        receiver.until(2)
    assert receiver.arrived.ids == ids([1, 2])


def test_a_held_start_is_reported_at_once_and_not_once_a_second(make_daemon: MakeDaemon) -> None:
    with TcpReceiver(up=False) as receiver:
        # A stop that waited for the sink would outlast the patience of `terminate`.
        daemon = make_daemon({"dead": tcp(receiver.port)}, shutdown_timeout="60s").start()
        append(daemon.audit, [event(1)])
        until(lambda: daemon.metric("sink_retries_total", sink="dead") >= 5)
        assert len(daemon.said("sink waiting")) == 1
        assert daemon.terminate() == 0

"""The AMQP source against a real RabbitMQ: acknowledged when safe, given to others otherwise."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pika.exceptions
import pytest

from tests.conftest import MakeDaemon
from tests.support.daemon import Daemon, event, ids, tcp, until
from tests.support.programs.rabbitmq import RabbitServer
from tests.support.receivers.sockets import TcpReceiver


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    with RabbitServer(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server


@pytest.fixture
def queue(server: RabbitServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """A new queue, by the name of the test."""
    channel = server.channel()
    channel.queue_declare(request.node.name, durable=True)
    yield request.node.name
    channel.connection.close()


def relay(make: MakeDaemon, server: RabbitServer, queue: str, port: int, **more: Any) -> Daemon:
    daemon = make({"out": tcp(port)})
    daemon.config["sources"] = {
        "queue": {"type": "amqp", "url": server.url, "queue": queue, **more}
    }
    return daemon


def publish(server: RabbitServer, queue: str, numbers: range) -> None:
    channel = server.channel()
    channel.confirm_delivery()
    for number in numbers:
        channel.basic_publish(
            "", queue, json.dumps(event(number)).encode(), pika.BasicProperties(delivery_mode=2)
        )
    channel.connection.close()


def left(server: RabbitServer, queue: str) -> int:
    """How many messages the broker would give to somebody else now."""
    channel = server.channel()
    try:
        return int(channel.queue_declare(queue, passive=True).method.message_count)
    finally:
        channel.connection.close()


@pytest.mark.parametrize("acknowledge", ["buffered", "delivered"])
def test_every_message_arrives_in_order_and_is_acknowledged(
    make_daemon: MakeDaemon, server: RabbitServer, queue: str, acknowledge: str
) -> None:
    publish(server, queue, range(300))
    with TcpReceiver() as receiver:
        daemon = relay(make_daemon, server, queue, receiver.port, acknowledge=acknowledge).start()
        publish(server, queue, range(300, 320))
        receiver.until(320)
        assert daemon.terminate() == 0
        assert left(server, queue) == 0
    assert receiver.arrived.ids == ids(range(320))


def test_run_drain_ends_when_the_queue_is_empty(
    make_daemon: MakeDaemon, server: RabbitServer, queue: str
) -> None:
    publish(server, queue, range(100))
    with TcpReceiver() as receiver:
        daemon = relay(make_daemon, server, queue, receiver.port).start("--drain", ready=False)
        assert daemon.wait() == 0
        assert left(server, queue) == 0
    assert receiver.arrived.ids == ids(range(100))


def test_what_a_killed_relay_held_goes_to_another(
    make_daemon: MakeDaemon, server: RabbitServer, queue: str
) -> None:
    with TcpReceiver(up=False) as dead, TcpReceiver() as receiver:
        first = relay(make_daemon, server, queue, dead.port, acknowledge="delivered").start()
        publish(server, queue, range(50))
        until(lambda: first.metric("source_records_total", source="queue") == 50)
        assert left(server, queue) == 0
        first.kill()
        second = relay(make_daemon, server, queue, receiver.port, acknowledge="delivered").start()
        receiver.until(50)
        assert second.terminate() == 0
        assert left(server, queue) == 0
    assert sorted(receiver.arrived.ids) == ids(range(50))


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"url": "guest:wr0ng-one@"}, "correct them in `url`"),
        ({"queue": "not-there"}, "set `declare: yes`"),
    ],
)
def test_a_refusal_says_what_to_change_and_no_password(
    make_daemon: MakeDaemon, server: RabbitServer, queue: str, change: dict[str, str], advice: str
) -> None:
    with TcpReceiver() as receiver:
        daemon = relay(make_daemon, server, queue, receiver.port)
        settings = daemon.config["sources"]["queue"]
        if "url" in change:
            change = {"url": server.url.replace("guest:guest@", change["url"])}
        settings |= change
        daemon.start()
        (line,) = until(lambda: daemon.said("part failed, restarting it")[:1])
        assert advice in line["error"]
        assert "wr0ng" not in daemon.log_text
        assert daemon.terminate() == 0


def test_a_queue_is_made_if_that_was_asked_for(
    make_daemon: MakeDaemon, server: RabbitServer
) -> None:
    with TcpReceiver() as receiver:
        daemon = relay(make_daemon, server, "made-here", receiver.port, declare=True).start()

        def there() -> bool:
            try:
                return left(server, "made-here") == 0
            except pika.exceptions.ChannelClosedByBroker:
                return False

        until(there)
        publish(server, "made-here", range(3))
        receiver.until(3)
        assert daemon.terminate() == 0


def test_a_queue_that_is_deleted_and_made_again_is_read_on(
    make_daemon: MakeDaemon, server: RabbitServer, queue: str
) -> None:
    with TcpReceiver() as receiver:
        daemon = relay(make_daemon, server, queue, receiver.port).start()
        publish(server, queue, range(5))
        receiver.until(5)
        channel = server.channel()
        channel.queue_delete(queue)
        (line,) = until(lambda: daemon.said("part failed, restarting it")[:1])
        assert f"was the queue {queue} deleted?" in line["error"]
        channel.queue_declare(queue, durable=True)
        publish(server, queue, range(5, 10))
        receiver.until(10)
        assert daemon.terminate() == 0
        channel.connection.close()
    assert receiver.arrived.ids == ids(range(10))


def test_any_bytes_are_a_message(make_daemon: MakeDaemon, server: RabbitServer, queue: str) -> None:
    channel = server.channel()
    for body in (b"", b"\n", b"\xff\x00", b'{"a":1}\n{"a":2}', b"x" * 1_000_000, b"{" * 10_000):
        channel.basic_publish("", queue, body)
    channel.connection.close()
    with TcpReceiver() as receiver:
        daemon = relay(make_daemon, server, queue, receiver.port).start()
        receiver.until(6)
        until(lambda: left(server, queue) == 0)
        assert daemon.terminate() == 0


def test_large_messages_are_bounded_by_their_size_while_nothing_can_be_stored(
    make_daemon: MakeDaemon, server: RabbitServer, queue: str
) -> None:
    count, size = 200, 1_000_000
    channel = server.channel()
    for _ in range(count):
        channel.basic_publish("", queue, random.Random(5).randbytes(size))
    channel.connection.close()
    with TcpReceiver(up=False) as receiver:
        daemon = relay(make_daemon, server, queue, receiver.port)
        daemon.config["buffer"] = {"max_size": "16MiB"}
        daemon.start()
        until(lambda: daemon.said("buffer is full"))
        until(lambda: daemon.peak_mb() > 100)
        taken: list[int] = []

        def takes_no_more() -> bool:
            taken.append(left(server, queue))
            return len(taken) > 20 and len(set(taken[-20:])) == 1

        until(takes_no_more)
        # The process by itself, twice what is held at the most, and what one read brings.
        assert daemon.peak_mb() < 64 + 2 * 67 + 16
        daemon.kill()
    assert left(server, queue) > 0


def test_a_broker_that_starts_anew_is_read_on(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    own = RabbitServer(tmp_path)
    with TcpReceiver() as receiver:
        with own:
            channel = own.channel()
            channel.queue_declare("kept", durable=True)
            channel.connection.close()
            daemon = relay(make_daemon, own, "kept", receiver.port).start()
            publish(own, "kept", range(20))
            receiver.until(20)
        until(lambda: daemon.said("part failed, restarting it"))
        with own:
            publish(own, "kept", range(20, 40))
            # Its back-off grew to 30 s while the broker started, and a try at a broker that is half
            # started takes 15 s.
            receiver.until(40, 120)
            assert daemon.terminate() == 0
    assert sorted(set(receiver.arrived.ids)) == ids(range(40))

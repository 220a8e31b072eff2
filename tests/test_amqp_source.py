"""The AMQP source against a real RabbitMQ: acknowledged when safe, given to others otherwise."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pika
import pika.exceptions
import pytest

from tests.conftest import MakeDaemon
from tests.daemon import Daemon, event, ids, tcp, until
from tests.rabbitmq import RabbitServer
from tests.receivers import TcpReceiver


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
        ({"url": "guest:wr0ng-one@"}, "mend them in `url`"),
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

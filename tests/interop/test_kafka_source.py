"""The Kafka source against librdkafka's mock cluster: offsets follow what is safe."""

from __future__ import annotations

import json
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.conftest import MakeDaemon
from tests.support.daemon import Daemon, event, ids, tcp, until
from tests.support.programs.kafka_cluster import KafkaCluster
from tests.support.receivers.sockets import TcpReceiver

TOPIC = "audit"
UNKNOWN_TOPIC = 3  # its number in the protocol


def relay(make: MakeDaemon, cluster: KafkaCluster, port: int, **more: Any) -> Daemon:
    daemon = make({"out": tcp(port)})
    daemon.config["sources"] = {
        "queue": {"type": "kafka", "brokers": cluster.bootstrap, "topic": TOPIC, **more}
    }
    return daemon


def produce(cluster: KafkaCluster, numbers: range, partitions: int = 4) -> None:
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "log_level": 0})
    for number in numbers:
        record = json.dumps(event(number)).encode()
        producer.produce(TOPIC, record, partition=number % partitions)
    assert producer.flush(20) == 0


def committed(cluster: KafkaCluster, partitions: int = 4) -> int:
    """How many records the group has acknowledged, over all partitions."""
    consumer = Consumer({
        "bootstrap.servers": cluster.bootstrap, "group.id": "siemrelay", "log_level": 0,
    })  # fmt: skip
    try:
        places = [TopicPartition(TOPIC, number) for number in range(partitions)]
        return sum(max(place.offset, 0) for place in consumer.committed(places, 10))
    finally:
        consumer.close()


@pytest.mark.parametrize("acknowledge", ["buffered", "delivered"])
def test_every_record_arrives_in_order_of_its_partition_and_is_committed(
    make_daemon: MakeDaemon, acknowledge: str
) -> None:
    with KafkaCluster() as cluster, TcpReceiver() as receiver:
        cluster.create(TOPIC)
        produce(cluster, range(400))
        daemon = relay(make_daemon, cluster, receiver.port, acknowledge=acknowledge).start()
        receiver.until(400)
        produce(cluster, range(400, 440))
        receiver.until(440)
        until(lambda: committed(cluster) == 440)
        assert daemon.terminate() == 0
    arrived = receiver.arrived.ids
    assert sorted(arrived) == ids(range(440))
    for partition in range(4):
        own = [one for one in arrived if int(one[1:]) % 4 == partition]
        assert own == sorted(own)


def test_run_drain_ends_at_the_end_of_every_partition(make_daemon: MakeDaemon) -> None:
    with KafkaCluster() as cluster, TcpReceiver() as receiver:
        cluster.create(TOPIC)
        produce(cluster, range(100))
        daemon = relay(make_daemon, cluster, receiver.port).start("--drain", ready=False)
        assert daemon.wait(60) == 0
        assert committed(cluster) == 100
    assert sorted(receiver.arrived.ids) == ids(range(100))


def test_nothing_is_committed_before_the_sink_has_it_where_that_was_asked_for(
    make_daemon: MakeDaemon,
) -> None:
    with KafkaCluster() as cluster, TcpReceiver(up=False) as receiver:
        cluster.create(TOPIC)
        produce(cluster, range(40))
        daemon = relay(make_daemon, cluster, receiver.port, acknowledge="delivered").start()
        until(lambda: daemon.metric("source_records_total", source="queue") == 40)
        assert committed(cluster) == 0
        daemon.kill()
        receiver.up()
        daemon.start()
        until(lambda: committed(cluster) == 40, 60)
        assert daemon.terminate() == 0
    assert sorted(set(receiver.arrived.ids)) == ids(range(40))


def test_what_a_killed_relay_held_goes_to_another(make_daemon: MakeDaemon) -> None:
    with KafkaCluster() as cluster, TcpReceiver(up=False) as dead, TcpReceiver() as receiver:
        cluster.create(TOPIC)
        produce(cluster, range(40))
        first = relay(make_daemon, cluster, dead.port, acknowledge="delivered").start()
        until(lambda: first.metric("source_records_total", source="queue") == 40, 60)
        second = relay(make_daemon, cluster, receiver.port, acknowledge="delivered").start()
        first.kill()
        receiver.until(40, 60)
        until(lambda: committed(cluster) == 40, 60)
        assert second.terminate() == 0
    assert sorted(set(receiver.arrived.ids)) == ids(range(40))


def test_two_relays_share_a_topic_and_a_third_that_comes_and_goes_loses_nothing(
    make_daemon: MakeDaemon,
) -> None:
    with KafkaCluster() as cluster, TcpReceiver() as receiver:
        cluster.create(TOPIC)
        relays = [relay(make_daemon, cluster, receiver.port).start() for _ in range(3)]
        for start in range(0, 3000, 500):
            produce(cluster, range(start, start + 500))
            relays[2].terminate()
            relays[2].start()
        until(lambda: len(set(receiver.arrived.ids)) == 3000, 90)
        until(lambda: committed(cluster) == 3000, 60)
        for daemon in relays:
            assert daemon.terminate() == 0
    assert sorted(set(receiver.arrived.ids)) == ids(range(3000))


def test_a_topic_that_is_made_later_is_reported_and_read(make_daemon: MakeDaemon) -> None:
    with KafkaCluster() as cluster, TcpReceiver() as receiver:
        cluster.fail_topic(TOPIC, UNKNOWN_TOPIC)
        daemon = relay(make_daemon, cluster, receiver.port).start()
        (line,) = until(lambda: daemon.said("part failed, restarting it")[:1])
        assert "create the topic, or correct its name in `topic`" in line["error"]
        cluster.fail_topic(TOPIC, 0)
        produce(cluster, range(10))
        receiver.until(10, 60)
        assert daemon.terminate() == 0


def test_brokers_that_go_and_come_back_are_read_on(make_daemon: MakeDaemon) -> None:
    with KafkaCluster() as cluster, TcpReceiver() as receiver:
        cluster.create(TOPIC)
        produce(cluster, range(20))
        daemon = relay(make_daemon, cluster, receiver.port).start()
        receiver.until(20)
        cluster.set_down()
        cluster.set_up()
        produce(cluster, range(20, 40))
        receiver.until(40, 60)
        until(lambda: committed(cluster) == 40, 60)
        assert daemon.terminate() == 0
    assert sorted(set(receiver.arrived.ids)) == ids(range(40))


def test_any_bytes_are_a_record_and_tombstones_are_passed_over(make_daemon: MakeDaemon) -> None:
    with KafkaCluster() as cluster, TcpReceiver() as receiver:
        cluster.create(TOPIC)
        producer = Producer({"bootstrap.servers": cluster.bootstrap, "log_level": 0})
        for value in (b"", b"\n", None, b"\xff\x00", b'{"a":1}\n{"a":2}', b"x" * 900_000):
            producer.produce(TOPIC, value, partition=0)
        assert producer.flush(20) == 0
        daemon = relay(make_daemon, cluster, receiver.port).start()
        receiver.until(5)
        until(lambda: committed(cluster) == 6)
        assert daemon.terminate() == 0

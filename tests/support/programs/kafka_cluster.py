"""librdkafka's own mock cluster: real clients reach it over TCP, and it fails as it is told to."""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import confluent_kafka
from confluent_kafka import Consumer, TopicPartition

from tests.support.daemon import PATIENCE_S

_PRODUCER = 0
_PRODUCE_REQUEST = 0  # its number in Kafka's protocol
_ERROR_BYTES = 512
_PARTITIONS = 4


def _library() -> ctypes.CDLL:
    """The very library that the client has loaded, wherever it lies."""
    assert confluent_kafka.libversion()
    mapped = Path("/proc/self/maps").read_text().splitlines()
    path = next(line.split()[-1] for line in mapped if "librdkafka" in line)
    library = ctypes.CDLL(path)
    pointers = ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_mock_cluster_new")
    for name in pointers:
        getattr(library, name).restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    return library


class KafkaCluster:
    """Brokers on loopback, each topic made when it is first asked for (4 partitions)."""

    def __init__(self, brokers: int = 1) -> None:
        self._lib = _library()
        words = ctypes.create_string_buffer(_ERROR_BYTES)
        settings = ctypes.c_void_p(self._lib.rd_kafka_conf_new())
        for name, value in ((b"log_level", b"0"), (b"bootstrap.servers", b"127.0.0.1:9")):
            self._lib.rd_kafka_conf_set(settings, name, value, words, _ERROR_BYTES)
        handle = self._lib.rd_kafka_new(_PRODUCER, settings, words, ctypes.c_size_t(_ERROR_BYTES))
        assert handle, words.value
        self._handle = ctypes.c_void_p(handle)
        self._cluster = ctypes.c_void_p(self._lib.rd_kafka_mock_cluster_new(self._handle, brokers))
        # By default a group waits 3 s for more members before the first of them reads.
        self._lib.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        self.bootstrap: str = self._lib.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        self.brokers = range(1, brokers + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        self._lib.rd_kafka_mock_cluster_destroy(self._cluster)
        self._lib.rd_kafka_destroy(self._handle)

    def set_down(self) -> None:
        """Every broker closes its connections and takes no new ones."""
        for broker in self.brokers:
            self._lib.rd_kafka_mock_broker_set_down(self._cluster, broker)

    def set_up(self) -> None:
        """Every broker is back."""
        for broker in self.brokers:
            self._lib.rd_kafka_mock_broker_set_up(self._cluster, broker)

    def set_round_trip_ms(self, delay_ms: int) -> None:
        """Every answer comes so much later."""
        for broker in self.brokers:
            self._lib.rd_kafka_mock_broker_set_rtt(self._cluster, broker, delay_ms)

    def fail_topic(self, topic: str, code: int) -> None:
        """Metadata of the topic has this error; 0 for none."""
        self._lib.rd_kafka_mock_topic_set_error(self._cluster, topic.encode(), code)

    def create(self, topic: str, partitions: int = _PARTITIONS) -> None:
        """Make a topic."""
        self._lib.rd_kafka_mock_topic_create(self._cluster, topic.encode(), partitions, 1)

    def refuse_batches(self, *codes: int) -> None:
        """The next batches are answered with these errors, one each (0 takes it)."""
        errors = (ctypes.c_int * len(codes))(*codes)
        self._lib.rd_kafka_mock_push_request_errors_array(
            self._cluster, ctypes.c_int16(_PRODUCE_REQUEST), ctypes.c_size_t(len(codes)), errors
        )

    def read_all(self, topic: str, partitions: int = _PARTITIONS) -> list[Any]:
        """Every message of the topic, in order within each partition."""
        consumer = Consumer({
            "bootstrap.servers": self.bootstrap, "group.id": "test", "log_level": 0,
            "fetch.wait.max.ms": 20, "enable.auto.commit": False,
        })  # fmt: skip
        try:
            places = [TopicPartition(topic, number) for number in range(partitions)]
            ends = [consumer.get_watermark_offsets(place, PATIENCE_S)[1] for place in places]
        finally:
            consumer.close()
        return self.read(topic, sum(ends), partitions)

    def read(self, topic: str, count: int, partitions: int = _PARTITIONS) -> list[Any]:
        """The first messages of the topic, in order within each partition."""
        consumer = Consumer({
            "bootstrap.servers": self.bootstrap, "group.id": "test", "log_level": 0,
            "fetch.wait.max.ms": 20, "enable.auto.commit": False,
        })  # fmt: skip
        try:
            consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
            found: list[Any] = []
            while len(found) < count:
                more = consumer.consume(count - len(found), PATIENCE_S)
                assert more, f"{len(found)} messages of {count}"
                assert not any(message.error() for message in more)
                found += more
            return found
        finally:
            consumer.close()

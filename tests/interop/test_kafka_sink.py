"""The Kafka sink against librdkafka's own cluster: order, failures, refusals, settings."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from typing import Any

import pytest
import trio
from confluent_kafka import KafkaError

from siemrelay.config.load import load_text
from siemrelay.core.errors import BatchRefused, ConfigurationRefused, SinkHolds, SinkWaits
from siemrelay.core.event import Actor, AuditEvent, Batch, DecodedBatch, Selection
from siemrelay.formats.envelopes.keyed import keyed_messages
from siemrelay.formats.json import Json, JsonOptions
from siemrelay.pipeline.rejection import isolate
from siemrelay.sinks.kafka.client import delivery_error
from siemrelay.sinks.kafka.options import KafkaOptions
from siemrelay.sinks.kafka.sink import KafkaSink
from tests.conftest import MakeDaemon
from tests.support.daemon import QUICK_RETRY, append, event, ids, until
from tests.support.programs.kafka_cluster import KafkaCluster
from tests.support.servers import free_port

TOPIC = "audit"
WITHIN_S = 20


def options(cluster: KafkaCluster | str, **more: object) -> KafkaOptions:
    brokers = cluster if isinstance(cluster, str) else cluster.bootstrap
    settings = {"brokers": brokers, "topic": TOPIC, "linger": "1ms", **more}
    return KafkaOptions.model_validate(settings)


def numbered(numbers: range) -> list[bytes]:
    return [f"message {number}".encode() for number in numbers]


def values(messages: list[Any]) -> list[bytes]:
    return [message.value() for message in messages]


async def test_runs_are_confirmed_and_arrive(cluster: KafkaCluster) -> None:
    steps: list[tuple[str, str]] = []
    sink = KafkaSink(options(cluster))
    async with sink.session(lambda step, detail: steps.append((step, detail))) as session:
        tickets = [await session.send(numbered(range(i, i + 50))) for i in range(0, 500, 50)]
        assert [await session.confirm(ticket) for ticket in tickets] == [[]] * 10
    assert sorted(values(cluster.read(TOPIC, 500))) == sorted(numbered(range(500)))
    assert [step for step, _ in steps[:2]] == ["connect", "send"]
    assert f"topic {TOPIC}, partitions: 4" in steps[0][1]
    assert "all in-sync replicas have it: partition" in steps[-1][1]


@pytest.mark.parametrize("compression", ["lz4", "zstd", "gzip", "snappy", "none"])
async def test_every_compression_is_read_back(cluster: KafkaCluster, compression: str) -> None:
    async with KafkaSink(options(cluster, compression=compression)).session() as session:
        await session.confirm(await session.send([b"x" * 10_000] * 10))
    assert values(cluster.read(TOPIC, 10)) == [b"x" * 10_000] * 10


def selection(actors: list[Actor], source: str = "alm") -> Selection:
    events = [
        AuditEvent(id=f"e{i:05}", type="T", time="2026-03-04T05:06:07Z", actor=actor)
        for i, actor in enumerate(actors)
    ]
    return Selection(
        DecodedBatch(Batch(1, len(events), source, 1.7e9, b"{}\n" * len(events)), events)
    )


async def test_the_events_of_one_actor_keep_their_order(cluster: KafkaCluster) -> None:
    people = [Actor(name=f"person {i % 7}") for i in range(2000)]
    chosen = options(cluster, key="actor")
    messages = keyed_messages(Json(JsonOptions()), chosen).encode(selection(people))
    async with KafkaSink(chosen).session() as session:
        tickets = [await session.send(messages[i : i + 100]) for i in range(0, 2000, 100)]
        for ticket in tickets:
            assert await session.confirm(ticket) == []
    found = cluster.read(TOPIC, 2000)
    for person in {actor.name for actor in people}:
        own = [message for message in found if message.key().decode() == person]
        assert len({message.partition() for message in own}) == 1
        assert all(a < b for a, b in pairwise(json.loads(m.value())["id"] for m in own))


@pytest.mark.parametrize(
    ("key", "actor", "expected"),
    [
        ("source", Actor("ada", "u1"), b"alm"),
        ("actor", Actor("ada", "u1"), b"ada"),
        ("actor", Actor(None, "u1"), b"u1"),
        ("actor", Actor(), b"alm"),
        ("actor", Actor("\ufffd"), "\ufffd".encode()),
        ("none", Actor("ada"), None),
    ],
)
def test_the_key_is_what_was_chosen(key: str, actor: Actor, expected: bytes | None) -> None:
    form = keyed_messages(Json(JsonOptions()), options("b:1", key=key))
    (message,) = form.encode(selection([actor]))
    assert getattr(message, "key", None) == expected
    assert message == Json(JsonOptions()).encode(selection([actor]))[0]
    assert key != "actor" or {"actor.name", "actor.id"} <= form.fields


async def test_brokers_that_are_away_for_a_while_cost_neither_events_nor_duplicates(
    cluster: KafkaCluster,
) -> None:
    async with KafkaSink(options(cluster)).session() as session:
        await session.confirm(await session.send(numbered(range(10))))
        cluster.set_down()
        ticket = await session.send(numbered(range(10, 20)))
        with trio.move_on_after(0.5) as scope:
            await session.confirm(ticket)
        assert scope.cancelled_caught
        cluster.set_up()
        with trio.fail_after(WITHIN_S):
            assert await session.confirm(ticket) == []
    assert sorted(values(cluster.read(TOPIC, 20))) == sorted(numbered(range(20)))


async def test_brokers_that_stay_away_are_given_up_after_the_timeout(
    cluster: KafkaCluster,
) -> None:
    with trio.fail_after(WITHIN_S):
        with pytest.raises(SinkWaits, match="confirmed nothing for 1s"):  # noqa: PT012  (where it shows is not told)
            async with KafkaSink(options(cluster, timeout="1s")).session() as session:
                await session.confirm(await session.send([b"one"]))
                cluster.set_down()
                await session.confirm(await session.send([b"two"]))


async def test_a_port_where_nobody_listens_is_said_to_refuse() -> None:
    with trio.fail_after(WITHIN_S):
        with pytest.raises(SinkWaits, match=r"Connection refused.*check `brokers`"):
            async with KafkaSink(options(f"127.0.0.1:{free_port()}")).session():
                pass


async def test_a_name_that_cannot_be_resolved_is_said_to_be_so() -> None:
    with trio.fail_after(WITHIN_S):
        with pytest.raises(SinkWaits, match=r"Failed to resolve 'no-such-host\.invalid"):
            async with KafkaSink(options("no-such-host.invalid:9092")).session():
                pass


async def test_a_broker_without_tls_is_said_to_have_none(cluster: KafkaCluster) -> None:
    with trio.fail_after(WITHIN_S):
        # Whether it closes or answers in plain text first is a matter of chance.
        with pytest.raises((SinkHolds, SinkWaits), match=r"check `brokers`.*`security_protocol`"):
            async with KafkaSink(options(cluster, security_protocol="ssl")).session():
                pass


async def test_a_broker_without_passwords_holds(cluster: KafkaCluster) -> None:
    chosen = options(
        cluster, security_protocol="sasl_plaintext", username="u", password="not-shown"
    )
    with trio.fail_after(WITHIN_S):
        with pytest.raises(SinkHolds, match="check `username`") as caught:
            async with KafkaSink(chosen).session():
                pass
    assert "not-shown" not in str(caught.value)


async def test_a_topic_that_is_not_allowed_holds(cluster: KafkaCluster) -> None:
    cluster.create(TOPIC)
    cluster.fail_topic(TOPIC, KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with trio.fail_after(WITHIN_S):
        with pytest.raises(SinkHolds, match="allow the relay's user to write"):
            async with KafkaSink(options(cluster)).session():
                pass


async def test_a_message_over_the_limit_is_refused_and_the_others_go_on(
    cluster: KafkaCluster,
) -> None:
    large = b"x" * 2_000_000
    async with KafkaSink(options(cluster)).session() as session:
        refused = await session.confirm(await session.send([b"one", large, b"two"]))
        assert [(r.index, r.code) for r in refused] == [(1, "MSG_SIZE_TOO_LARGE")]
    assert sorted(values(cluster.read(TOPIC, 2))) == [b"one", b"two"]


async def test_a_higher_limit_of_the_client_is_used(cluster: KafkaCluster) -> None:
    large = b"x" * 2_000_000
    chosen = options(cluster, client={"message.max.bytes": 4_000_000})
    async with KafkaSink(chosen).session() as session:
        assert await session.confirm(await session.send([large])) == []


async def test_a_batch_that_the_broker_refuses_is_halved_to_the_culprit(
    cluster: KafkaCluster,
) -> None:
    cluster.create(TOPIC, 1)
    bad = KafkaError.INVALID_RECORD
    # The whole of four, its first half, and of that the first: the second message is taken.
    async with KafkaSink(options(cluster, linger="50ms")).session() as session:
        await session.confirm(await session.send([b"before"]))
        cluster.refuse_batches(bad, bad, bad)
        messages = numbered(range(4))
        with pytest.raises(BatchRefused) as caught:
            await session.confirm(await session.send(messages))
        refusals, taken = await isolate(session, messages, caught.value, proven=True)
    assert ([r.index for r in refusals], taken) == ([0], 3)
    assert values(cluster.read(TOPIC, 4, 1)) == [b"before", *messages[1:]]


async def test_one_message_is_blamed_only_when_it_was_refused_alone(
    cluster: KafkaCluster,
) -> None:
    cluster.create(TOPIC, 1)
    # Long enough that both are in one batch, on a busy machine too.
    async with KafkaSink(options(cluster, linger="500ms")).session() as session:
        await session.confirm(await session.send([b"before"]))
        cluster.refuse_batches(KafkaError.INVALID_RECORD)
        tickets = [await session.send([b"one"]), await session.send([b"two"])]
        assert [await session.confirm(ticket) for ticket in tickets] == [[], []]
    assert values(cluster.read(TOPIC, 3, 1)) == [b"before", b"one", b"two"]


async def test_more_than_the_client_keeps_waits_for_room(cluster: KafkaCluster) -> None:
    chosen = options(cluster, client={"queue.buffering.max.messages": 10}, linger="0ms")
    async with KafkaSink(chosen).session() as session:
        with trio.fail_after(WITHIN_S):
            assert await session.confirm(await session.send(numbered(range(200)))) == []
    assert sorted(values(cluster.read(TOPIC, 200))) == sorted(numbered(range(200)))


async def test_leaving_in_the_middle_of_everything_takes_a_bounded_time(
    cluster: KafkaCluster,
) -> None:
    for round_trip_ms in (0, 60_000):
        with trio.fail_after(WITHIN_S), trio.CancelScope() as scope:
            async with KafkaSink(options(cluster)).session() as session:
                await session.confirm(await session.send([b"one"]))
                cluster.set_round_trip_ms(round_trip_ms)
                await session.send(numbered(range(1000)))
                scope.cancel()
        assert scope.cancelled_caught


async def test_without_the_client_the_sink_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(SinkHolds, match=r"pip install 'siemrelay\[kafka\]'"):
        async with KafkaSink(options("b:1")).session():
            pass


async def test_a_property_that_librdkafka_does_not_know_holds() -> None:
    with pytest.raises(SinkHolds, match=r'"no.such.property"; check `client`'):
        async with KafkaSink(options("b:1", client={"no.such.property": 1})).session():
            pass


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("_SSL", "certificate verify failed: self-signed", "tls: {ca: FILE}"),
        ("_SSL", "certificate verify failed: certificate has expired", "renew the certificate"),
        ("_SSL", "Hostname mismatch", "brokers"),
        (
            "_TRANSPORT",
            "ssl://b:1/bootstrap: error:0A000086:SSL routines::certificate verify "
            "failed (after 1ms in state SSL_HANDSHAKE)",
            "tls: {ca: FILE}",
        ),
        (
            "_TRANSPORT",
            "Receive failed: error:0A00045C:SSL routines::tlsv13 alert certificate "
            "required: SSL alert number 116 (after 0ms)",
            "tls: {certificate: FILE, key: FILE}",
        ),
        ("TOPIC_AUTHORIZATION_FAILED", "no", "allow the relay's user"),
        ("CLUSTER_AUTHORIZATION_FAILED", "no", "IdempotentWrite"),
    ],
)
def test_what_a_person_must_fix_comes_with_advice(name: str, words: str, expected: str) -> None:
    found = delivery_error(name, words)
    assert isinstance(found, SinkHolds)
    assert expected in found.advice


@pytest.mark.parametrize("name", ["_TRANSPORT", "NOT_ENOUGH_REPLICAS", "REQUEST_TIMED_OUT", "new"])
def test_what_passes_is_waited_for(name: str) -> None:
    assert isinstance(delivery_error(name, ""), SinkWaits)
    cut = "error:0A000126:SSL routines::unexpected eof while reading (after 1ms)"
    assert isinstance(delivery_error(name, cut), SinkWaits)


SETTINGS: list[tuple[dict[str, object], str]] = [
    ({"client": {"acks": 1}}, "acks cannot be set"),
    ({"client": {"sasl.password": "x"}}, "the sink's `password`"),
    ({"username": "u", "password": "p"}, "security_protocol: sasl_ssl"),
    ({"security_protocol": "sasl_ssl", "username": "u"}, "needs `username` and `password`"),
    ({"tls": {"verify": False}}, "`tls` needs"),
    ({"security_protocol": "ssl", "tls": {"server_name": "x"}}, "leave out `server_name`"),
    ({"brokers": []}, "brokers"),
    ({"topic": "no spaces"}, "topic"),
]


@pytest.mark.parametrize(("settings", "said"), SETTINGS)
def test_settings_that_do_not_fit_are_faults_of_the_file(
    settings: dict[str, object], said: str
) -> None:
    sink = {"protocol": "kafka", "brokers": ["b:9092"], "topic": "t", **settings}
    config = {"sources": {"a": {"type": "file", "path": "/x"}}, "sinks": {"k": sink}}
    with pytest.raises(ConfigurationRefused) as caught:
        load_text(json.dumps(config), "x.yaml", {})
    (fault,) = caught.value.faults
    assert said in fault.located("x.yaml")


def test_secrets_among_the_further_properties_are_hidden() -> None:
    chosen = options("b:1", client={"ssl.key.password": "hidden-word", "debug": "all"})
    assert "hidden-word" not in repr(chosen)
    assert chosen.properties()["ssl.key.password"] == "hidden-word"


def test_the_daemon_produces_everything_and_test_shows_the_steps(
    make_daemon: MakeDaemon, cluster: KafkaCluster
) -> None:
    sink = {
        "protocol": "kafka", "brokers": cluster.bootstrap, "topic": TOPIC, "retry": QUICK_RETRY
    }  # fmt: skip
    daemon = make_daemon({"kafka": sink})
    found = daemon.command("test", "kafka")
    assert found.returncode == 0, found.stderr
    assert "all in-sync replicas have it" in found.stdout
    daemon.start()
    append(daemon.audit, map(event, range(1, 1001)))
    until(lambda: daemon.metric("sink_delivered_total", sink="kafka") == 1000)
    found_ids = [json.loads(value)["id"] for value in values(cluster.read(TOPIC, 1001))[1:]]
    assert found_ids == ids(range(1, 1001)), "one source, one partition, in order"
    assert daemon.terminate() == 0

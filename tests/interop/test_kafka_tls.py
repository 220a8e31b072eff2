"""The Kafka sink within TLS: what goes through, and the one sentence when it does not."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from siemrelay.core.errors import DeliveryError, SinkHolds, SinkWaits
from siemrelay.sinks.kafka.options import KafkaOptions
from siemrelay.sinks.kafka.sink import KafkaSink
from tests.support.certificates import server_context
from tests.support.programs.kafka_cluster import KafkaCluster
from tests.support.programs.kafka_tls import KafkaOverTls

TOPIC = "audit"
WITHIN_S = 20


@pytest.fixture
def ca(authority: trustme.CA, tmp_path: Path) -> str:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")


def sink(brokers: str, **more: Any) -> KafkaSink:
    settings = {"brokers": brokers, "topic": TOPIC, "security_protocol": "ssl", "timeout": "5s"}
    return KafkaSink(KafkaOptions.model_validate(settings | more))


async def fault(made: KafkaSink) -> DeliveryError:
    with trio.fail_after(WITHIN_S), pytest.raises(DeliveryError) as raised:
        async with made.session() as session:
            await session.confirm(await session.send([b"never confirmed"]))
    return raised.value


async def test_runs_are_confirmed_through_tls_and_arrive(
    cluster: KafkaCluster, authority: trustme.CA, ca: str
) -> None:
    context = server_context(authority.issue_cert("127.0.0.1"))
    steps: dict[str, str] = {}
    messages = [b"message %d" % n for n in range(500)]
    with KafkaOverTls(cluster.bootstrap, context) as front, trio.fail_after(WITHIN_S):
        async with sink(front.bootstrap, tls={"ca": ca}).session(steps.__setitem__) as session:
            tickets = [await session.send(messages[i : i + 50]) for i in range(0, 500, 50)]
            assert [await session.confirm(ticket) for ticket in tickets] == [[]] * 10
    found = [message.value() for message in cluster.read(TOPIC, 500)]
    assert sorted(found) == sorted(messages)
    assert steps["tls"] == "by librdkafka; the brokers' certificates are verified"
    assert front.bootstrap in steps["connect"]


async def test_a_client_certificate_is_shown(
    cluster: KafkaCluster, authority: trustme.CA, ca: str, tmp_path: Path
) -> None:
    context = server_context(authority.issue_cert("127.0.0.1"))
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    mine = authority.issue_cert("relay")
    mine.private_key_and_cert_chain_pem.write_to_path(tmp_path / "mine.pem")
    tls = {"ca": ca}
    with KafkaOverTls(cluster.bootstrap, context) as front:
        refused = await fault(sink(front.bootstrap, tls=tls))
        assert isinstance(refused, SinkHolds)
        assert "the peer wants a certificate of this side" in refused.reason
        assert "set `tls: {certificate: FILE, key: FILE}`" in refused.advice
        tls["certificate"] = str(tmp_path / "mine.pem")
        async with sink(front.bootstrap, tls=tls).session() as session:
            assert await session.confirm(await session.send([b"one"])) == []


def expired(authority: trustme.CA) -> trustme.LeafCert:
    now = datetime.now(UTC)
    return authority.issue_cert(
        "127.0.0.1", not_before=now - timedelta(days=2), not_after=now - timedelta(days=1)
    )


@pytest.mark.parametrize(
    ("issue", "reason", "advice"),
    [
        (expired, "certificate has expired", "renew the receiver's certificate"),
        (lambda authority: authority.issue_cert("other.example.com"), "IP address mismatch",
         "call the receiver by a name that is in its certificate"),
        (lambda authority: trustme.CA().issue_cert("127.0.0.1"),
         "unable to get local issuer certificate", "set `tls: {ca: FILE}` to the authority"),
    ],
    ids=["expired", "of another name", "foreign"],
)  # fmt: skip
async def test_a_brokers_certificate_that_is_not_accepted_holds_and_says_what_to_fix(
    issue: Callable[[trustme.CA], trustme.LeafCert], reason: str, advice: str,
    cluster: KafkaCluster, authority: trustme.CA, ca: str,
) -> None:  # fmt: skip
    with KafkaOverTls(cluster.bootstrap, server_context(issue(authority))) as front:
        found = await fault(sink(front.bootstrap, tls={"ca": ca}))
    assert isinstance(found, SinkHolds)
    assert found.reason.startswith(f"broker 127.0.0.1 port {front.bootstrap.split(':')[1]}: ")
    assert reason in found.reason
    assert advice in found.advice


async def test_plain_kafka_to_a_tls_port_asks_whether_it_expects_tls(
    cluster: KafkaCluster, authority: trustme.CA
) -> None:
    context = server_context(authority.issue_cert("127.0.0.1"))
    with KafkaOverTls(cluster.bootstrap, context) as front:
        found = await fault(sink(front.bootstrap, security_protocol="plaintext"))
    assert isinstance(found, SinkWaits)
    assert "whether they expect TLS there (`security_protocol`)" in found.reason

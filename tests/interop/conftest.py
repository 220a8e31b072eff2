"""A Kafka cluster; and after the tests of rotation, their figures in a table."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.programs.kafka_cluster import KafkaCluster


@pytest.fixture
def cluster() -> Iterator[KafkaCluster]:
    with KafkaCluster() as made:
        yield made


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = [
        (report.nodeid.partition("[")[2].rstrip("]"), str(value))
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        for name, value in report.user_properties
        if name == "rotation"
    ]
    if rows:
        terminalreporter.section("rotations")
        for case, figures in rows:
            terminalreporter.write_line(f"{case}: {figures.splitlines()[0]}")

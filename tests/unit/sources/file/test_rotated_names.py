"""Which files are generations of one log, and which of them is older: by their names alone."""

from __future__ import annotations

import pytest

from siemrelay.sources.file.rotated_names import age, family, is_rotated_name


@pytest.mark.parametrize(
    ("name", "log"),
    [
        ("audit.log", "audit.log"),
        ("audit.log.1", "audit.log"),
        ("audit.log.12.gz", "audit.log"),
        ("audit.log-20240131", "audit.log"),
        ("audit.log-20240131.gz", "audit.log"),
        ("audit.log-1706659200", "audit.log"),
        ("audit-2024-01-31.json", "audit.json"),
        ("audit-2024-01-31-2.log.gz", "audit.log"),
        ("audit.log.2024-01-31T10-00-00", "audit.log"),
        ("0.log.20240131-101112", "0.log"),
        ("0.log.20240131-101112.tmp", "0.log"),
        ("0.log.tmp", "0.log.tmp"),
        ("audit.2024-01-31.1.log1706659200123.tmp", "audit.log"),
        ("audit.2024-01-31.1.log.gz", "audit.log"),
        ("host123456.log", "host123456.log"),
        ("audit.log123456", "audit.log123456"),
        ("audit.log-2024013123", "audit.log"),
        ("audit-2024013123.log.gz", "audit.log"),
        ("audit-20240131-1706659200.log", "audit.log"),
        ("audit.log-20240131-1706659200.gz", "audit.log"),
        ("@4000000065b9a2b01d4c3a2f.s", "current"),
        ("@4000000065b9a2b01d4c3a2f", "current"),
        ("audit.2024-01-31_10-00-00_123456.log", "audit.log"),  # loguru
        ("audit.2024-01-31_10-00-00_123456.log.gz", "audit.log"),
        ("host-1.log", "host-1.log"),
        ("host-2.log", "host-2.log"),
        ("20240131.log", ".log"),
        ("2024-01-31", "2024-01-31"),
    ],
)
def test_generations_of_one_log_are_one_family(name: str, log: str) -> None:
    assert family(f"/var/log/{name}") == f"/var/log/{log}"
    assert is_rotated_name(f"/var/log/{name}") == (name != log)


@pytest.mark.parametrize(
    "oldest_first",
    [
        ["audit.log.10.gz", "audit.log.9", "audit.log.1", "audit.log"],
        ["audit.log-20231231.gz", "audit.log-20240101", "audit.log"],
        ["audit-2024-01-09.log", "audit-2024-01-10.log"],
        ["audit-2024-01-09-2.log", "audit-2024-01-09-10.log", "audit-2024-01-10.log"],
        ["audit.log-20240131-1706659200", "audit.log-20240131-1706659201.gz", "audit.log"],
        ["audit.2024-01-31_10-00-00_099999.log.gz", "audit.2024-01-31_10-00-00_123456.log.gz"],
        ["@4000000065b9a2b01d4c3a2f.s", "@4000000065b9a2b11d4c3a2f.s", "current"],
    ],
)
def test_generations_are_sorted_by_age(oldest_first: list[str]) -> None:
    assert sorted(sorted(oldest_first), key=age) == oldest_first

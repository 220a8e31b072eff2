"""Rows whose records another thread compresses before their commit begins."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from siemrelay.buffer.rows import Payloads
from siemrelay.core.event import Batch


@pytest.fixture
def payloads() -> Iterator[Payloads]:
    made = Payloads()
    yield made
    made.close()


def batch(number: int) -> Batch:
    return Batch(number, 1, "a", 0.0, b"record %d\n" % number * 10_000)


def test_a_row_is_the_same_whichever_thread_compressed_its_records(payloads: Payloads) -> None:
    batches = [batch(number) for number in range(1, 100)]
    alone = [payloads.row(each) for each in batches]
    for each in batches[:10]:
        payloads.compress_ahead(each.payload)
    # The first are under way or done by now, the last ones are compressed here.
    assert [payloads.row(each) for each in batches] == alone
    assert [payloads.batch(row) for row in alone] == batches


def test_what_nobody_takes_is_forgotten(payloads: Payloads) -> None:
    for number in range(100):
        payloads.compress_ahead(batch(number).payload)
    assert payloads._ahead is not None
    assert len(payloads._ahead._begun) <= 16


def test_closing_ends_the_thread() -> None:
    before = {*threading.enumerate()}  # some end meanwhile: trio's, which are idle since a test
    payloads = Payloads()
    payloads.compress_ahead(batch(1).payload)
    (thread,) = {*threading.enumerate()} - before
    payloads.close()
    assert not thread.is_alive()

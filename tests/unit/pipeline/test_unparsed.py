"""A decoder that does not fit is found out by what comes in, and said once."""

from __future__ import annotations

import structlog
import trio
import trio.testing

from siemrelay import registry
from siemrelay.core.event import FIELDS, Batch
from siemrelay.core.event_types import Catalogue
from siemrelay.core.lines import payloads
from siemrelay.pipeline.intake.unparsed import ParseCheck
from siemrelay.products.product import BUILT_IN
from siemrelay.telemetry.attention import attention
from siemrelay.telemetry.log import Redactor
from siemrelay.telemetry.stats import SourceStats, Stats
from siemrelay.telemetry.status import StatusReporter

GOOD, BAD = b'{"type": "Login"}', b"Nov 20 08:00:00 host sshd[1]: no JSON\n  at all"


def check() -> tuple[Stats, ParseCheck]:
    stats = Stats()
    stats.sources["audit"] = SourceStats("audit")
    kind = registry.DECODERS["json"]
    decoder = kind.build(BUILT_IN["generic"].spellings, frozenset(FIELDS), Catalogue())
    return stats, ParseCheck(stats, lambda source: decoder, lambda source, record: kind.why(record))


def batches(*records: bytes) -> list[Batch]:
    first, made = 1, []
    for payload, some in payloads(records):
        made.append(Batch(first, len(some), "audit", 0.0, payload))
        first += len(some)
    return made


def test_many_records_that_cannot_be_parsed_are_one_warning_with_the_first_of_them() -> None:
    stats, checked = check()
    source = stats.sources["audit"]
    with structlog.testing.capture_logs() as log:
        for _ in range(3):
            for batch in batches(GOOD, BAD, BAD):
                checked.look(source, batch)
    (line,) = log
    assert line["log_level"] == "warning"
    assert line["first_sequence"] == 2
    assert line["record"].startswith("Nov 20 08:00:00 host sshd[1]: no JSON")
    assert line["why"].startswith("not JSON: invalid character")
    assert "siemrelay preview --source audit FILE" in line["advice"]
    assert source.unparsed_share == 2 / 3
    report = StatusReporter(stats, Redactor([])).status(0.0)
    assert report.sources[0].unparsed_why == source.unparsed_why
    (found,) = [each for each in attention(report) if "cannot be parsed" in each.title]
    assert (found.title, found.tone) == (
        "Source audit: 67% of its records cannot be parsed",
        "warning",
    )
    assert "Nov 20" not in f"{found}{report}", "the endpoint shows no content of records"


def test_a_record_now_and_then_is_no_warning_and_a_fault_that_is_over_is_said() -> None:
    stats, checked = check()
    source = stats.sources["audit"]
    with structlog.testing.capture_logs() as log:
        checked.look(source, batches(*[GOOD] * 15, b"", *[GOOD] * 4)[0])
        assert log == []
        for _ in range(5):
            checked.look(source, batches(*[b"x"] * 20)[0])
        for _ in range(30):
            checked.look(source, batches(*[GOOD] * 20)[0])
    # Once; whether the end of it is logged depends on the level.
    assert [line["log_level"] for line in log][:1] == ["warning"]
    assert {line["log_level"] for line in log[1:]} <= {"info"}
    assert (source.unparsed_share, source.unparsed_why) == (0.0, "")


def test_a_record_that_takes_long_to_decode_is_not_looked_at_on_the_loop() -> None:
    stats, checked = check()
    source = stats.sources["audit"]
    for records in ([b"x" * (1 << 20 | 1)], [b"x" * (2 << 20), BAD]):
        for batch in batches(*records)[:1]:
            checked.look(source, batch)
    assert (source.unparsed_share, source.unparsed_why) == (0.0, "")
    checked.look(source, batches(b"x" * (1 << 20))[0])
    assert (source.unparsed_share, source.unparsed_why[:8]) == (1.0, "not JSON")


async def test_one_batch_a_second_is_looked_at_and_an_idle_relay_is_not_woken(
    autojump_clock: trio.testing.MockClock,
) -> None:
    stats, checked = check()
    source = stats.sources["audit"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(checked.run)
        checked.stored(batches(BAD))
        checked.stored(batches(GOOD))
        await trio.sleep(0.5)
        assert source.unparsed_share == 1.0
        checked.stored(batches(GOOD))
        await trio.sleep(2)
        assert source.unparsed_share == 0.5
        nursery.cancel_scope.cancel()

"""Whether events suffice: then a quiet log is looked at less often."""

from __future__ import annotations

from siemrelay.sources.file.schedule import pause_after_full_survey
from siemrelay.sources.file.watcher import Changes, Reliability

_WRITTEN = Changes(written={(1, 2): None})


def surveyed(events: Reliability, times: int) -> Reliability:
    for _ in range(times):
        events.surveyed(full=True, found=False)
    return events


def test_events_are_proven_by_many_surveys_that_found_only_what_was_reported() -> None:
    events = Reliability()
    assert not surveyed(events, 10).proven
    events.reported(_WRITTEN)
    events.surveyed(full=True, found=True)
    assert surveyed(events, 30).proven


def test_surveys_of_what_events_name_prove_nothing() -> None:
    events = Reliability()
    for _ in range(100):
        events.surveyed(full=False, found=False)
    assert not events.proven


def test_a_log_whose_writes_no_event_reports_is_looked_at_as_often_as_configured() -> None:
    events = surveyed(Reliability(), 40)
    assert events.proven
    events.surveyed(full=True, found=True)
    assert not surveyed(events, 1000).proven


def test_what_events_had_reported_before_the_last_survey_excuses_nothing() -> None:
    events = surveyed(Reliability(), 1)
    events.reported(_WRITTEN)
    events.surveyed(full=True, found=True)
    events.surveyed(full=True, found=True)
    assert not surveyed(events, 1000).proven


def test_proven_events_make_looks_five_times_rarer() -> None:
    assert pause_after_full_survey(1, 0.0, 1.0) == 1.0
    assert pause_after_full_survey(1, 0.0, 1.0, events_suffice=True) == 5.0

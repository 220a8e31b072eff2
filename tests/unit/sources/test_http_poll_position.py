"""Where a poll goes on: nothing lost, nothing repeated, whatever the API's order and pages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.core.times import epoch_ms, rfc3339
from siemrelay.sources.http_poll.options import HttpPollOptions
from siemrelay.sources.http_poll.position import ApiAnswer, PollPosition
from siemrelay.sources.http_poll.seen import SeenItems
from siemrelay.wire.pagination import NotAPage
from siemrelay.wire.request_templates import Request
from tests.support.examples import examples

NOW_MS = 1_760_000_000_000
URL = "https://api.example.com/audit"

Stored = dict[str, Mapping[str, Any]]


def options(**more: Any) -> HttpPollOptions:
    return HttpPollOptions.model_validate({"url": URL, **more})


def time_at(ms: int) -> str:
    return rfc3339(ms / 1000)


def query(request: Request) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(request.url).query).items()}


def store(stored: Stored, position: PollPosition) -> None:
    """What the buffer does with a position's values."""
    for each in position.positions():
        if each.value is None:
            stored.pop(each.key, None)
        else:
            stored[each.key] = json.loads(json.dumps(each.value))


@dataclass
class LateApi:
    """An API whose items become visible late, in pages that a link leads through."""

    newest_first: bool
    page_size: int
    items: list[tuple[int, int, str]] = field(default_factory=list)
    """When it happened, when it becomes visible, and its id."""

    def answer(self, request: Request, now_ms: int) -> ApiAnswer:
        asked = query(request)
        since_ms = epoch_ms(asked["since"]) if "since" in asked else 0
        start = int(asked.get("at", 0))
        seen = [item for item in self.items if item[0] >= since_ms and item[1] <= now_ms]
        seen.sort(reverse=self.newest_first)
        page = seen[start : start + self.page_size]
        body = [{"id": name, "time": time_at(at)} for at, _, name in page]
        end = start + self.page_size
        since = f"since={asked['since']}&" if "since" in asked else ""
        link = f"/audit?{since}at={end}" if end < len(seen) else None
        return ApiAnswer(json.dumps(body).encode(), link)


OVERLAP_S = 60

LATE: dict[str, Any] = {
    "since": {"parameter": "since", "field": "time"}, "window": {"overlap": f"{OVERLAP_S}s"},
    "dedupe": "id",
}  # fmt: skip


@examples(150)
@given(
    newest_first=st.booleans(),
    page_size=st.integers(1, 5),
    events=st.lists(
        st.tuples(st.integers(0, 300), st.integers(0, OVERLAP_S - 1)), min_size=1, max_size=30
    ),
    polls=st.lists(st.integers(1, 90), min_size=5, max_size=12),
    restarts=st.sets(st.integers(0, 60)),
)
def test_late_items_are_taken_once_through_restarts(
    newest_first: bool, page_size: int, events: list[tuple[int, int]], polls: list[int],
    restarts: set[int],
) -> None:  # fmt: skip
    """A restart comes after any page: its items are stored, the next page is not asked for."""
    api = LateApi(newest_first, page_size)
    api.items = [
        (NOW_MS + at * 1000, NOW_MS + (at + late) * 1000, str(number))
        for number, (at, late) in enumerate(events)
    ]
    stored, taken = Stored(), list[str]()
    now_ms, pages = NOW_MS, 0
    position = PollPosition(options(**LATE), None, stored, now_ms)
    for pause in [*polls, 400, 1]:
        now_ms += pause * 1000
        request: Request | None = position.begin(now_ms)
        while request is not None:
            answer = api.answer(request, now_ms)
            new = position.take(answer)
            if new:
                taken += [json.loads(item)["id"] for item in new]
                store(stored, position)
            pages += 1
            if pages in restarts:
                position = PollPosition(options(**LATE), None, stored, now_ms)
                request = position.begin(now_ms)
                continue
            request = position.following(request, answer)
        if position.finish():
            store(stored, position)
    assert sorted(taken, key=int) == [str(number) for number in range(len(events))]


def test_a_window_reads_a_long_past_part_by_part_up_to_the_lag() -> None:
    made = options(
        parameters={"from": "{since}", "to": "{until}"}, since={"field": "time"}, start_at="4h",
        window={"size": "1h", "lag": "10m", "overlap": "5m"},
    )  # fmt: skip
    position = PollPosition(made, None, {}, NOW_MS)
    asked = []
    for _ in range(5):
        request = position.begin(NOW_MS)
        asked.append(query(request))
        position.take(ApiAnswer(b"[]"))
        assert position.following(request, ApiAnswer(b"[]")) is None
        behind = position.is_behind
        position.finish()
        if not behind:
            break
    minutes = [
        tuple((epoch_ms(each[key]) - NOW_MS) / 60_000 for key in ("from", "to")) for each in asked
    ]
    assert minutes == [(-240, -180), (-185, -125), (-130, -70), (-75, -15), (-20, -10)]


def test_without_a_time_a_parameter_that_needs_one_is_left_out() -> None:
    made = options(
        parameters={"phrase": "created:>={since}", "include": "all"},
        since={"field": "time", "format": "rfc3339_s"},
    )  # fmt: skip
    position = PollPosition(made, None, {}, NOW_MS)
    request = position.begin(NOW_MS)
    assert query(request) == {"include": "all"}
    position.take(ApiAnswer(json.dumps([{"time": "2025-10-01T02:03:04.567Z"}]).encode()))
    position.finish()
    assert query(position.begin(NOW_MS)) == {
        "include": "all", "phrase": "created:>=2025-10-01T02:03:04Z",
    }  # fmt: skip


def test_each_value_has_a_position_of_its_own_and_is_encoded_in_the_address() -> None:
    made = options(
        url="https://api.example.com/groups/{each}/events", for_each=["a/b", "a/b#1"],
        since={"parameter": "since", "field": "time"}, dedupe="id",
    )  # fmt: skip
    stored = Stored()
    for each, day in (("a/b", "01"), ("a/b#1", "02")):
        position = PollPosition(made, each, stored, NOW_MS)
        request = position.begin(NOW_MS)
        assert urlsplit(request.url).path == (
            "/groups/a%2Fb/events" if each == "a/b" else "/groups/a%2Fb%231/events"
        )
        body = json.dumps([{"id": each, "time": f"2025-10-{day}T00:00:00Z"}]).encode()
        assert len(position.take(ApiAnswer(body))) == 1
        position.finish()
        store(stored, position)
    for each, day in (("a/b", "01"), ("a/b#1", "02")):
        position = PollPosition(made, each, stored, NOW_MS)
        assert query(position.begin(NOW_MS))["since"].startswith(f"2025-10-{day}")
        body = json.dumps([{"id": each, "time": f"2025-10-{day}T00:00:00Z"}]).encode()
        assert position.take(ApiAnswer(body)) == []


def test_the_link_of_an_empty_page_is_where_the_next_poll_begins() -> None:
    made = options(keep_next=True, since={"parameter": "since", "field": "t"}, start_at="1h")
    stored = Stored()
    position = PollPosition(made, None, stored, NOW_MS)
    request = position.begin(NOW_MS)
    assert "since" in query(request)
    answer = ApiAnswer(b'[{"t":"2025-10-09T08:00:00Z"}]', "/audit?after=1")
    position.take(answer)
    following = position.following(request, answer)
    assert following == Request("https://api.example.com/audit?after=1")
    position.take(ApiAnswer(b"[]", "/audit?after=2"))
    assert position.following(following, ApiAnswer(b"[]", "/audit?after=2")) is None
    assert position.finish()
    store(stored, position)
    again = PollPosition(made, None, stored, NOW_MS)
    assert again.begin(NOW_MS) == Request("https://api.example.com/audit?after=2")
    assert again.resumed
    again.forget_next()
    assert query(again.begin(NOW_MS))["since"] == "2025-10-09T08:00:00.000Z"
    assert not again.resumed


def test_nothing_is_asked_for_that_is_out_of_the_apis_reach() -> None:
    made = options(since={"parameter": "since", "field": "t"}, start_at="1h",
                   window={"reach": "7d", "size": "1d"})  # fmt: skip
    stored = Stored()
    position = PollPosition(made, None, stored, NOW_MS)
    position.begin(NOW_MS)
    assert position.out_of_reach is None
    position.finish()
    store(stored, position)
    later_ms = NOW_MS + 30 * 86_400_000
    again = PollPosition(made, None, stored, later_ms)
    asked = query(again.begin(later_ms))
    earliest_ms = later_ms - 7 * 86_400_000
    assert asked["since"] == rfc3339(earliest_ms / 1000)
    assert again.out_of_reach == (NOW_MS - 3_600_000, earliest_ms)


def test_an_empty_page_without_a_link_is_asked_for_again() -> None:
    position = PollPosition(options(keep_next=True), None, {}, NOW_MS)
    first = ApiAnswer(b'[{"n":1}]', "/audit?after=1")
    position.take(first)
    following = position.following(position.begin(NOW_MS), first)
    assert following is not None
    position.take(ApiAnswer(b"[]"))
    assert position.following(following, ApiAnswer(b"[]")) is None
    position.finish()
    assert position.begin(NOW_MS) == following


def test_what_stands_in_first_is_sent_until_there_is_a_cursor() -> None:
    made = options(
        post={"kind": "audit"}, start_at="1h",
        cursor={"parameter": "cursor", "from": "cursor",
                "first": {"limit": 100, "start_time": "{start}"}},
    )  # fmt: skip
    stored = Stored()
    position = PollPosition(made, None, stored, NOW_MS)

    def sent(request: Request | None) -> Any:
        assert request is not None
        assert request.body is not None
        return json.loads(request.body)

    request = position.begin(NOW_MS)
    assert sent(request) == {
        "kind": "audit", "limit": 100, "start_time": rfc3339(NOW_MS / 1000 - 3600),
    }  # fmt: skip
    answer = ApiAnswer(b'{"cursor":"c1","items":[{"n":1}]}')
    position.take(answer)
    assert sent(position.following(request, answer)) == {"kind": "audit", "cursor": "c1"}
    store(stored, position)
    again = PollPosition(made, None, stored, NOW_MS)
    assert sent(again.begin(NOW_MS)) == {"kind": "audit", "cursor": "c1"}
    in_query = {"parameter": "from", "from": "last", "first": {"take": 100}}
    asked = PollPosition(options(cursor=in_query), None, {}, NOW_MS).begin(NOW_MS)
    assert query(asked) == {"take": "100"}


def test_a_stored_link_to_another_server_is_not_followed() -> None:
    stored: Stored = {"poll": {"next": "https://api.example.com/audit?after=2"}}
    made = options(url="https://other.example.com/audit", keep_next=True)
    assert PollPosition(made, None, stored, NOW_MS).begin(NOW_MS).url == made.url


@pytest.mark.parametrize(
    "link",
    [
        "https://evil.example.com/audit?page=2", "http://api.example.com/audit?page=2",
        "https://api.example.com:8443/audit", "//evil.example.com/audit",
        "https://api.example.com@evil.example.com/", "https://me:you@api.example.com/audit",
        "https://api.example.com:port/",
    ],
)  # fmt: skip
def test_the_items_are_taken_and_a_link_elsewhere_is_not_followed(link: str) -> None:
    position = PollPosition(options(), None, {}, NOW_MS)
    request, answer = position.begin(NOW_MS), ApiAnswer(b'[{"n":1}]', link)
    assert len(position.take(answer)) == 1
    with pytest.raises(NotAPage, match="another origin"):
        position.following(request, answer)


@pytest.mark.parametrize("link", ["https://API.example.com:443/audit?p=2", "?p=2", "/audit?p=2"])
def test_a_link_to_the_same_server_is_followed_however_it_is_written(link: str) -> None:
    position = PollPosition(options(), None, {}, NOW_MS)
    request, answer = position.begin(NOW_MS), ApiAnswer(b'[{"n":1}]', link)
    position.take(answer)
    following = position.following(request, answer)
    assert following is not None
    assert query(following) == {"p": "2"}


def test_a_page_token_is_sent_with_the_same_window_until_it_ends() -> None:
    made = options(
        parameters={"startTime": "{since}"}, start_at="1h", may_lack_items=True,
        since={"field": "id.time"}, page={"parameter": "pageToken", "from": "nextPageToken"},
    )  # fmt: skip
    stored = Stored()
    position = PollPosition(made, None, stored, NOW_MS)
    first = position.begin(NOW_MS)
    answer = ApiAnswer(b'{"items":[{"id":{"time":"2025-10-09T08:20:00Z"}}],"nextPageToken":"t 2"}')
    position.take(answer)
    second = position.following(first, answer)
    assert second is not None
    assert query(second) == {**query(first), "pageToken": "t 2"}
    store(stored, position)
    position = PollPosition(made, None, stored, NOW_MS + 60_000)
    assert position.begin(NOW_MS + 60_000) == second
    position.take(ApiAnswer(b'{"kind":"admin#reports#activities"}'))
    assert position.following(second, ApiAnswer(b"{}")) is None
    position.finish()
    assert query(position.begin(NOW_MS)) == {"startTime": "2025-10-09T08:20:00.000Z"}


def test_a_body_is_filled_in_and_takes_the_page_token() -> None:
    made = options(
        post={"range": {"gte": "{since}", "lte": "{until}"}, "size": 100, "tags": ["{each}", "x"]},
        for_each=["prod"], since={"field": "t", "format": "epoch_ms"},
        page={"parameter": "search.after", "from": "last"},
    )  # fmt: skip
    position = PollPosition(made, "prod", {}, NOW_MS)
    request = position.begin(NOW_MS)
    assert request.body is not None
    assert json.loads(request.body) == {
        "range": {"lte": str(NOW_MS)}, "size": 100, "tags": ["prod", "x"],
    }  # fmt: skip
    answer = ApiAnswer(b'{"data":[{"t":"2025-10-09T08:20:00Z"}],"last":"abc"}')
    position.take(answer)
    following = position.following(request, answer)
    assert following is not None
    assert following.body is not None
    assert json.loads(following.body)["search"] == {"after": "abc"}


def test_a_position_of_an_earlier_version_repeats_nothing() -> None:
    made = options(since={"parameter": "since", "field": "t"})
    item = b'{"t":"2025-10-09T08:20:00Z"}'
    fresh = PollPosition(made, None, {}, NOW_MS)
    fresh.take(ApiAnswer(b"[" + item + b"]"))
    fresh.finish()
    main, chunk = fresh.positions()
    assert main.value is not None
    assert chunk.value is not None
    old: Stored = {"poll": {"cursor": None, **main.value, "seen": chunk.value["marks"]}}
    again = PollPosition(made, None, old, NOW_MS)
    again.begin(NOW_MS)
    assert again.take(ApiAnswer(b"[" + item + b"]")) == []
    assert len(again.positions()) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"url": "https://a/{since}"}, "`url` takes"),
        ({"for_each": ["a"]}, "need each other"),
        ({"url": "https://a/{each}"}, "need each other"),
        ({"for_each": ["a", "a"], "url": "https://a/{each}"}, "twice"),
        ({"parameters": {"p": "{since}"}}, "need `since`"),
        ({"since": {"field": "t"}}, "needs a `parameter`"),
        ({"window": {"overlap": "1h"}}, "needs `since`"),
        ({"start_at": "30d"}, "needs `since`, or"),
        ({"parameters": {"p": "{start}"}}, "belongs into `cursor: {first}`"),
        ({"cursor": {"parameter": "c", "from": "c", "first": {"a": "{since}"}}}, "nothing else"),
        ({"since": {"field": "t", "parameter": "p"}, "window": {"size": "1h"}},
         "time in `start_at`"),
        ({"since": {"field": "t", "parameter": "p"}, "start_at": "1d",
          "window": {"size": "1h", "overlap": "1h"}}, "longer than `overlap`"),
        ({"next": "n", "page": {"parameter": "p", "from": "n"}}, "one of `page`"),
        ({"authorization": "Bearer a", "headers": {"authorization": "b"}}, "given twice"),
        ({"authorization": "Bearer a", "oauth": {"token_url": "https://t", "client_id": "c",
          "client_secret": "s"}}, "not both"),
    ],
)  # fmt: skip
def test_what_cannot_be_polled_is_a_fault(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        options(**given)


# -- what has come before ---------------------------------------------------


def test_marks_are_stored_chunk_by_chunk_and_forgotten_with_their_time() -> None:
    seen = SeenItems({}, 10_000)
    stored: dict[int, Any] = {}
    for page in range(12):
        seen.add([f"{page}-{n}" for n in range(100)], page)
        changes = seen.changes()
        assert len(changes) == 1, "a page writes the chunk that takes its marks"
        stored |= changes
    again = SeenItems(stored, 10_000)
    assert len(again) == 1200
    assert not any(again.new([f"{page}-0" for page in range(12)]))
    again.forget_before(5)
    assert again.changes() == {1: None}
    assert again.new(["0-0", "9-0"]) == [True, False]


@pytest.mark.parametrize("newest_first", [False, True])
def test_for_want_of_room_the_oldest_items_are_forgotten_first(*, newest_first: bool) -> None:
    seen = SeenItems({}, 2000)
    moments = range(5000, 0, -100) if newest_first else range(0, 5000, 100)
    for moment in moments:
        seen.add([f"{moment}-{n}" for n in range(100)], moment)
    assert len(seen) <= 2000
    assert not any(seen.new([f"{max(moments)}-{n}" for n in range(100)]))
    assert seen.forgotten_ms < 4000


def test_what_is_still_on_the_pages_is_remembered() -> None:
    """An API without times: 50 items are on every poll's page, among ever new ones."""
    seen = SeenItems({}, 1000)
    lasting = [f"lasting-{n}" for n in range(50)]
    for poll in range(40):
        marks = [*lasting, *(f"{poll}-{n}" for n in range(100))]
        new = seen.new(marks)
        assert sum(new) == (150 if poll == 0 else 100)
        seen.add([m for m, is_new in zip(marks, new, strict=True) if is_new], poll)
        seen.poll_ended()
    assert len(seen) <= 1000

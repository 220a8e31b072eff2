"""The polled HTTP API: pages, cursors, times, refusals, and the real daemon through a kill."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
import trio

from siemrelay.config.option_models import source_model
from siemrelay.sources.http_poll import source
from siemrelay.sources.http_poll.client import open_client
from siemrelay.sources.http_poll.options import HttpPollOptions
from siemrelay.sources.http_poll.source import HttpPollSource
from siemrelay.wire.pagination import NotAPage, next_page, page_items, value_at
from siemrelay.wire.request_templates import Request, with_parameter
from tests.conftest import MakeDaemon
from tests.support.daemon import event, ids, tcp, until
from tests.support.polled.api import Answered, Api
from tests.support.receivers.http import Answer, HttpReceiver
from tests.support.receivers.http import Request as ReceivedRequest
from tests.support.receivers.sockets import TcpReceiver
from tests.support.rotation.file_source_rig import CollectingIntake


async def poll(intake: CollectingIntake, url: str, **options: Any) -> None:
    with trio.fail_after(120):  # more than a thousand pages, on a busy machine
        made = HttpPollOptions.model_validate({"url": url, **options})
        await HttpPollSource("api", made).run(intake, drain=True)


def numbers(intake: CollectingIntake) -> list[int]:
    return [json.loads(line)["n"] for line in intake.lines]


def page_after(query: dict[str, str], headers: Any) -> Answered:
    """Seven items in pages of three; the cursor is the number of the last one."""
    start = int(query.get("cursor", 0))
    items = [{"n": n, "text": "a\nb"} for n in range(start + 1, min(start + 3, 7) + 1)]
    last = items[-1]["n"] if items else start
    return 200, {"events": items, "paging": {"next": str(last)}}, {}


async def test_all_pages_of_a_cursor_are_read_and_the_next_poll_goes_on_after_them() -> None:
    intake = CollectingIntake()
    options = {"cursor": {"parameter": "cursor", "from": "paging.next"}}
    with Api(page_after) as api:
        await poll(intake, api.url, **options)
        assert numbers(intake) == [1, 2, 3, 4, 5, 6, 7]
        await poll(intake, api.url, **options)
        assert numbers(intake) == [1, 2, 3, 4, 5, 6, 7]
        assert api.asked[-1] == {"cursor": "7"}


async def test_what_items_lead_to_is_stored_once_though_some_of_it_fails_or_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The list is asked for again after a failure; contents that were stored are not."""
    monkeypatch.setattr(source, "_REFUSED_PAUSE_S", 0.01)
    fails = {"3": 2}

    def answer(query: dict[str, str], headers: Any) -> Answered:
        if (number := query.get("content")) is None:
            listed = [{"id": n, "uri": f"/audit?content={n}"} for n in range(1, 6)]
            return 200, listed[:3] if "page" not in query else listed[3:], (
                {} if "page" in query else {"NextPageUri": "/audit?page=2"}
            )  # fmt: skip
        if fails.get(number, 0) > 0:
            fails[number] -= 1
            return 503, {}, {}
        if number == "4":
            return 404, {"error": "expired"}, {}
        return 200, [{"n": int(number) * 10}, {"n": int(number) * 10 + 1}], {}

    intake = CollectingIntake()
    options = {"follow": "uri", "next_header": "NextPageUri", "dedupe": "id", "every": "10ms"}
    with Api(answer) as api:
        await poll(intake, api.url, **options)
        asked = [query["content"] for query in api.asked if "content" in query]
        assert numbers(intake) == [10, 11, 20, 21, 30, 31, 50, 51]
        assert asked == ["1", "2", "3", "3", "3", "4", "5"]
        await poll(intake, api.url, **options)
        assert len(intake.lines) == 8


async def test_an_item_leads_to_no_other_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_REFUSED_PAUSE_S", 0.001)
    addresses = ["http://elsewhere/", "/audit?content=1"]

    def answer(query: dict[str, str], headers: Any) -> Answered:
        if "content" in query:
            return 200, [{"n": 1}], {}
        return 200, [{"uri": addresses.pop(0)}], {}

    intake = CollectingIntake()
    with Api(answer) as api:
        await poll(intake, api.url, follow="uri", every="1ms")
    assert numbers(intake) == [1]
    assert "another origin, http://elsewhere" in intake.blocked_whys[1]


@pytest.mark.parametrize("form", ["rfc3339", "epoch", "epoch_ms"])
async def test_since_asks_from_the_newest_and_takes_nothing_twice(form: str) -> None:
    moments = ["2026-01-01T00:00:00.100Z", "2026-01-01T00:00:00.100Z", "2026-01-01T00:00:01.900Z"]
    items = [{"n": n, "at": moment} for n, moment in enumerate(moments)]

    def answer(query: dict[str, str], headers: Any) -> Answered:
        return 200, items, {}  # an API that does not look at the time at all: the worst case

    intake = CollectingIntake()
    options = {"since": {"parameter": "from", "field": "at", "format": form}}
    with Api(answer) as api:
        await poll(intake, api.url, **options)
        items.append({"n": 3, "at": "2026-01-01T00:00:01.900Z"})
        del items[:2]
        await poll(intake, api.url, **options)
        asked = {"rfc3339": moments[2], "epoch": "1767225601", "epoch_ms": "1767225601900"}[form]
        assert api.asked == [{}, {"from": asked}]
    assert numbers(intake) == [0, 1, 2, 3]


async def test_older_pages_are_not_missed_though_the_newest_came_first() -> None:
    broken = True

    def answer(query: dict[str, str], headers: Any) -> Answered:
        start = int(query.get("page", 9))
        if start == 6 and broken:
            return 503, b"busy", {}
        items = [{"n": n, "at": f"2026-01-01T00:00:0{n}Z"} for n in range(start, start - 3, -1)]
        since = query.get("from", "")
        items = [item for item in items if str(item["at"]) >= since[:19]]
        return 200, {"items": items, "next": f"/audit?page={start - 3}" if start > 3 else None}, {}

    intake = CollectingIntake()
    options = {"since": {"parameter": "from", "field": "at"}, "next": "next", "every": "1ms"}
    with Api(answer) as api:
        made = HttpPollOptions.model_validate({"url": api.url, **options})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(HttpPollSource("api", made).run, intake, drain=True))
            with trio.fail_after(120):
                await intake.until_lines(3)
            nursery.cancel_scope.cancel()
        assert numbers(intake) == [9, 8, 7]
        broken = False
        await poll(intake, api.url, **options)
        assert numbers(intake) == [9, 8, 7, 6, 5, 4, 3, 2, 1]
        await poll(intake, api.url, **options)
        assert {"from": "2026-01-01T00:00:09.000Z"} in api.asked
    assert len(intake.lines) == 9


async def test_a_long_past_is_read_to_its_last_page_and_an_endless_one_is_left() -> None:
    pages = 1200

    def answer(query: dict[str, str], headers: Any) -> Answered:
        page = int(query.get("page", 0))
        items = [{"n": page, "at": f"2026-01-01T00:00:00.{9999 - page}Z"}] if page < pages else []
        return 200, {"items": items, "next": f"/audit?page={page + 1}"}, {}

    intake = CollectingIntake()
    with Api(answer) as api:
        await poll(intake, api.url, since={"parameter": "from", "field": "at"}, next="next")
    assert numbers(intake) == list(range(pages))
    assert len(api.asked) < pages + 200


async def test_start_at_now_asks_for_nothing_old() -> None:
    with Api(lambda query, headers: (200, [], {})) as api:
        await poll(
            CollectingIntake(), api.url, start_at="now",
            since={"parameter": "from", "field": "at"},
        )  # fmt: skip
        assert api.asked[0]["from"].startswith("20")


async def test_link_headers_and_a_next_address_lead_on_and_repeats_are_known() -> None:
    def answer(query: dict[str, str], headers: Any) -> Answered:
        if query.get("page") == "2":
            return 200, {"data": [{"n": 2}], "more": None}, {}
        link = {"Link": '</audit?page=2>; rel="next"'}
        return 200, {"data": [{"n": 1}], "more": "/audit?page=2"}, link

    for options in ({}, {"next": "more"}):
        intake = CollectingIntake()
        with Api(answer) as api:
            await poll(intake, api.url, **options)
            await poll(intake, api.url, **options)
        assert numbers(intake) == [1, 2]


async def test_pages_are_asked_for_by_post_with_the_token_in_the_body() -> None:
    bodies: list[dict[str, Any]] = []

    def answer(request: ReceivedRequest) -> Answer:
        assert request.headers["content-type"] == "application/json"
        bodies.append(json.loads(request.body))
        start = int(bodies[-1].get("page", {}).get("after", 0))
        found = {"hits": [{"n": n} for n in range(start, min(start + 3, 7))]}
        return Answer(200, json.dumps(found | ({"last": start + 3} if start < 6 else {})))

    intake = CollectingIntake()
    with HttpReceiver(answer) as api:
        made = source_model("http_poll", "json").model_validate({
            "type": "http_poll", "url": api.url, "post": {"size": 3, "log": "audit"},
            "items": "hits", "page": {"parameter": "page.after", "from": "last"},
        })  # fmt: skip
        assert isinstance(made, HttpPollOptions)
        await HttpPollSource("api", made).run(intake, drain=True)
    assert numbers(intake) == list(range(7))
    assert bodies[0] == {"size": 3, "log": "audit"}
    assert [body["page"]["after"] for body in bodies[1:]] == ["3", "6"]


@pytest.mark.parametrize(
    ("headers", "pause_s"),
    [
        ({"RateLimit-Remaining": "0", "RateLimit-Reset": "30"}, 31.0),
        ({"RateLimit-Remaining": "9", "RateLimit-Reset": "30"}, 0.0),
        ({"RateLimit-Reset": "30"}, 0.0),
        ({"RateLimit-Remaining": "0", "RateLimit-Reset": "99999"}, 3600.0),
        ({}, 0.0),
    ],
)
async def test_an_answer_that_uses_up_the_limit_is_followed_by_a_pause(
    headers: dict[str, str], pause_s: float
) -> None:
    with Api(lambda query, _: (200, [], headers)) as api:
        made = HttpPollOptions.model_validate({"url": api.url})
        async with open_client(made) as client:
            assert (await client.fetch(Request(api.url))).pause_s == pause_s


async def test_headers_for_the_api_do_not_go_to_the_token_endpoint() -> None:
    met: dict[str, Any] = {}

    def token(request: ReceivedRequest) -> Answer:
        met.update(request.headers)
        return Answer(200, '{"access_token": "t"}')

    def answer(query: dict[str, str], headers: Any) -> Answered:
        assert headers["X-Api-Key"] == "for-the-api"
        assert headers["Authorization"] == "Bearer t"
        return 200, [], {}

    with Api(answer) as api, HttpReceiver(token) as tokens:
        oauth = {"token_url": tokens.url, "client_id": "a", "client_secret": "b"}
        await poll(CollectingIntake(), api.url, oauth=oauth, headers={"X-Api-Key": "for-the-api"})
    assert met["content-type"] == "application/x-www-form-urlencoded"
    assert "x-api-key" not in met
    assert "authorization" not in met


async def test_what_a_person_must_change_is_reported_until_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A 503 passes by itself and is none of that, nor does it end the report."""
    monkeypatch.setattr(source, "_REFUSED_PAUSE_S", 0.001)
    statuses = [503, 401, 503, 401, 200]

    def answer(query: dict[str, str], headers: Any) -> Answered:
        return statuses.pop(0), [], {}

    intake = CollectingIntake()
    with Api(answer) as api:
        await poll(intake, api.url, every="1ms")
        assert intake.blocked_whys == [
            "", f"cannot poll {api.url}: HTTP 401 []; check `authorization`", "",
        ]  # fmt: skip


def test_a_refusal_is_logged_once_with_advice_and_without_the_token(
    make_daemon: MakeDaemon,
) -> None:
    tries = 0

    def answer(query: dict[str, str], headers: Any) -> Answered:
        nonlocal tries
        assert headers["Authorization"] == "Bearer s3cret-token"
        tries += 1
        if tries < 4:
            return 503, b"busy", {"Retry-After": "0"}
        return (200, {"oops": 1}, {}) if tries == 4 else (401, b"who?", {})

    with Api(answer) as api:
        daemon = make_daemon({"out": tcp(1)})
        daemon.config["sources"] = {
            "api": {
                "type": "http_poll", "url": api.url, "every": "1ms",
                "authorization": "Bearer s3cret-token",
            }
        }  # fmt: skip
        daemon.start()
        until(lambda: len(daemon.said("poll failed")) == 2)
        reasons = [line["reason"] for line in daemon.said("poll failed")]
        assert daemon.terminate() == 0
        assert "s3cret" not in daemon.log_text
        daemon.start()
        until(lambda: daemon.said("poll failed"))
        reasons += [line["reason"] for line in daemon.said("poll failed")]
        assert daemon.terminate() == 0
        assert "s3cret" not in daemon.log_text
    assert reasons == [
        "HTTP 503 busy", "no array of items found; set `items:`; it has oops",
        "HTTP 401 who?; check `authorization`",
    ]  # fmt: skip


def test_the_daemon_takes_each_item_once_through_a_kill(make_daemon: MakeDaemon) -> None:
    items: list[dict[str, Any]] = [event(n) for n in range(100)]

    def answer(query: dict[str, str], headers: Any) -> Answered:
        start = int(query.get("after", 0))
        return 200, {"items": items[start : start + 30], "last": min(start + 30, len(items))}, {}

    with Api(answer) as api, TcpReceiver() as receiver:
        daemon = make_daemon({"out": tcp(receiver.port)})
        daemon.config["sources"] = {
            "api": {
                "type": "http_poll", "url": api.url, "every": "20ms",
                "cursor": {"parameter": "after", "from": "last"},
            }
        }  # fmt: skip
        daemon.start()
        receiver.until(100)
        daemon.kill()
        items += [event(n) for n in range(100, 150)]
        daemon.start()
        until(lambda: receiver.arrived.ids[-1:] == ids([149]))
        assert daemon.rows("SELECT sum(count) FROM batches") == [(150,)]
        assert daemon.terminate() == 0
    assert sorted(set(receiver.arrived.ids)) == ids(range(150))


@pytest.mark.parametrize(
    ("body", "path", "items"),
    [
        (b'[{"a": 1},\n {"b": "x\\ny"}]', None, [b'{"a":1}', b'{"b":"x\\ny"}']),
        (b'{"count": 2, "results": [1, 2]}', None, [b"1", b"2"]),
        (b'{"a": {"b": [{"c": []}]}}', "a.b", [b'{"c":[]}']),
        (b"[]", None, []),
    ],
)
def test_items_are_found(body: bytes, path: str | None, items: list[bytes]) -> None:
    assert page_items(body, path) == items


@pytest.mark.parametrize(
    ("body", "path", "why"),
    [
        (b"<html>", None, "no JSON array"),
        (b'{"a": 1}', None, "it has a"),
        (b'{"a": 1}', "b.c", "nothing at `items: b.c`; it has a"),
        (b'{"a": 1}', "a", "no JSON array at `items: a`"),
        (b"\xff", None, "no JSON array"),
    ],
)
def test_an_answer_that_is_no_page_is_reported(body: bytes, path: str | None, why: str) -> None:
    with pytest.raises(NotAPage, match=why.replace("`", ".")):
        page_items(body, path)


def test_credentials_do_not_follow_to_another_origin() -> None:
    assert next_page("https://a/x?p=1", "/y") == "https://a/y"
    assert next_page("https://a/x", None) is None
    with pytest.raises(NotAPage, match="another origin"):
        next_page("https://a/x", "https://evil/x")
    with pytest.raises(NotAPage, match="another origin"):
        next_page("https://a/x", "http://a/x")


def test_parameters_are_replaced_and_dotted_paths_lead_to_values() -> None:
    assert with_parameter("http://a/x?b=1&c=2", "b", "ü &") == "http://a/x?c=2&b=%C3%BC%20%26"
    assert value_at(b'{"a": {"b": 3}}', "a.b") == 3
    assert value_at(b'{"a": {"b": null}}', "a.b") is None
    assert value_at(b"[1]", "a") is None
    assert value_at(b'{"@odata.nextLink": "l", "a": {"b.c": 1}}', "@odata.nextLink") == "l"
    assert value_at(b'{"@odata.nextLink": "l", "a": {"b.c": 1}}', "a.b.c") == 1

"""The status page of a running relay in a real Chromium, as somebody sees it and types on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection

import pytest

from tests.conftest import MakeDaemon
from tests.support.daemon import Daemon, append, event, http, tcp, until
from tests.support.programs.chromium import Chromium, chromium
from tests.support.receivers.http import Answer, HttpReceiver
from tests.support.receivers.sockets import TcpReceiver
from tests.support.servers import program

HOSTILE = "<img src=x onerror=document.title='owned'>"
TOKEN = "hunter2-hunter2"


@contextmanager
def watched(make_daemon: MakeDaemon, *, show_events: bool) -> Iterator[tuple[Daemon, Chromium]]:
    """A relay with a sink that holds for a hostile reason, and a browser on its page."""

    def refuse(request: object) -> Answer:
        return Answer(401, f"{HOSTILE} {TOKEN}")

    name = program("chromium-headless-shell", "chromium-headless-shell")
    with TcpReceiver() as up, HttpReceiver(refuse) as web, chromium(name) as browser:
        daemon = make_daemon(
            {
                "siem": tcp(up.port, seal={"every": "1s"}),
                "web": http(web.url, authorization=f"Bearer {TOKEN}"),
            },
            endpoint={"listen": "127.0.0.1:0", "show_events": show_events},
        ).start()
        append(daemon.audit, [event(1, type=HOSTILE), event(2, actor={"name": HOSTILE})])
        until(lambda: daemon.metric("sink_state", sink="web", state="holding") == 1)
        browser.look(1280)
        browser.open(f"http://{daemon.endpoint}/")
        browser.until("document.querySelectorAll('.sinks li').length === 2")
        browser.until("document.querySelectorAll('tbody tr').length === 2")
        yield daemon, browser


def text(selector: str) -> str:
    return f"document.querySelector({selector!r}).textContent"


def test_the_page_shows_what_holds_first_and_takes_nothing_from_outside_for_markup(
    make_daemon: MakeDaemon,
) -> None:
    with watched(make_daemon, show_events=True) as (daemon, browser):
        trouble = browser.value(text("#troubles li"))
        assert trouble.startswith("web is holding for")
        assert HOSTILE in trouble
        assert "check the token and its prefix" in trouble
        assert "***" in trouble
        assert TOKEN not in browser.value("document.documentElement.outerHTML")
        events = browser.value(text("tbody"))
        assert events.count(HOSTILE) == 2
        assert browser.value("document.images.length") == 0
        assert browser.value("document.title") == "(!) siemrelay: web is holding"
        for width in (1280, 390, 320):
            for scheme in ("light", "dark"):
                browser.look(width, scheme=scheme)
                assert browser.value("document.documentElement.scrollWidth") <= width
        until(lambda: "last checkpointsize " in browser.value(text(".sinks")))
        seal = json.loads(daemon.get("/status")[1])["sinks"][0]["seal"]
        assert f"key of seals{seal['key']}" in browser.value(text(".sinks"))
        assert browser.console == []
        daemon.terminate()
        browser.until(f"{text('#verdict')}.startsWith('No answer since')")


def test_the_page_is_read_and_opened_without_a_mouse_and_shows_no_contents_by_itself(
    make_daemon: MakeDaemon,
) -> None:
    with watched(make_daemon, show_events=False) as (_, browser):
        assert browser.value(text("thead")) == "TimeSourceTypeOutcome"
        assert "ada" not in browser.value(text("tbody"))
        landmarks = (
            "[...document.querySelectorAll('header, nav, main, footer')].map(e => e.localName)"
        )
        assert browser.value(landmarks) == ["header", "nav", "main", "footer"]
        assert browser.value(
            "[...document.querySelectorAll('section')].every("
            "  s => document.getElementById(s.getAttribute('aria-labelledby')))"
        )
        met = []
        for _ in range(6):
            browser.press("Tab", 9)
            met.append(browser.value("document.activeElement.textContent"))
        assert met[:3] == ["Skip to the content", "Metrics", "Status as JSON"]
        for shown, name in zip(met[3:], ("audit", "siem", "web"), strict=True):
            assert shown.startswith(name)
        assert browser.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        browser.press("Enter", 13, "\r")
        assert "attempts that failed" in browser.value(text(".sinks details[open]"))
        # It stays open and keeps the focus while the figures change.
        browser.value("window.drawn = 0; new MutationObserver(() => { window.drawn++; }).observe("
                      "document.querySelector('tbody'), {childList: true})")  # fmt: skip
        browser.until("window.drawn > 0")
        assert "attempts that failed" in browser.value(text(".sinks details[open]"))
        assert browser.value("document.activeElement.closest('details').open")


@pytest.mark.parametrize("host", ["evil.example.com", "127.0.0.1.evil.example.com:9614"])
def test_the_page_answers_to_no_name_that_a_web_page_could_bind_to_this_machine(
    make_daemon: MakeDaemon, host: str
) -> None:
    with TcpReceiver() as receiver:
        daemon = make_daemon({"siem": tcp(receiver.port)}).start()
        connection = HTTPConnection(daemon.endpoint, timeout=5)
        connection.request("GET", "/", headers={"Host": host, "Accept": "text/html"})
        answer = connection.getresponse()
        assert answer.status == 421
        assert b"<html" not in answer.read()
        connection.close()

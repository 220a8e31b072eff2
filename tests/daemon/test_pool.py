"""`pool:` and `run --pool`: one configuration for a fleet of relays."""

from __future__ import annotations

import os

import pytest

from siemrelay.config.load import load_text, of_pool
from siemrelay.core.errors import ConfigurationRefused
from tests.conftest import MakeDaemon
from tests.support.daemon import append, event, ids, tcp
from tests.support.receivers.sockets import TcpReceiver

FLEET = """
sources:
  north: {type: file, path: /n, pool: north}
  both: {type: file, path: /b, pool: [north, south]}
  south: {type: file, path: /s, pool: south}
  alone: {type: file, path: /a, pool: lonely}
sinks:
  here: {server: 127.0.0.1, pool: north}
  there: {server: 127.0.0.1, pool: [south]}
  unlabelled: {server: 127.0.0.1}
"""


def test_a_pool_has_its_own_parts_only() -> None:
    loaded = load_text(FLEET, "fleet.yaml")
    assert set(loaded.config.sources) == {"north", "both", "south", "alone"}
    north, south = of_pool(loaded, "north").config, of_pool(loaded, "south").config
    assert (set(north.sources), set(north.sinks)) == ({"north", "both"}, {"here"})
    assert (set(south.sources), set(south.sinks)) == ({"both", "south"}, {"there"})


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        ("nort", "no source has `pool: nort`; did you mean `north`?"),
        ("west", "no source has `pool: west`; the pools are lonely, north, south"),
        ("lonely", "no sink has `pool: lonely`; the pools are lonely, north, south"),
    ],
)
def test_a_pool_without_source_or_sink_is_refused(pool: str, message: str) -> None:
    with pytest.raises(ConfigurationRefused) as refused:
        of_pool(load_text(FLEET, "fleet.yaml"), pool)
    assert [fault.message for fault in refused.value.faults] == [message]


def test_a_relay_runs_its_pool_and_nothing_else(make_daemon: MakeDaemon) -> None:
    with TcpReceiver() as mine, TcpReceiver() as theirs:
        sinks = {"mine": tcp(mine.port, pool="a"), "theirs": tcp(theirs.port, pool="b")}
        daemon = make_daemon(sinks)
        daemon.config["sources"]["audit"]["pool"] = ["a", "b"]
        daemon.start("--pool", "a")
        append(daemon.audit, map(event, range(5)))
        mine.until(5)
        assert daemon.rows("SELECT sink FROM cursors") == [("mine",)]
        assert daemon.terminate() == 0
        daemon.start("--pool", "c", ready=False)
        assert daemon.wait() == os.EX_CONFIG
        assert "the pools are a, b" in daemon.log_text
    assert not theirs.arrived.messages


def test_what_a_sink_of_another_pool_has_not_got_is_kept_for_it(make_daemon: MakeDaemon) -> None:
    with TcpReceiver() as mine, TcpReceiver(up=False) as theirs:
        sinks = {"mine": tcp(mine.port, pool="a"), "theirs": tcp(theirs.port, pool="b")}
        daemon = make_daemon(sinks)
        daemon.config["sources"]["audit"]["pool"] = ["a", "b"]
        daemon.config["buffer"] = {"keep": "0s"}
        daemon.start()
        append(daemon.audit, map(event, range(3)))
        mine.until(3)
        assert daemon.terminate() == 0
        daemon.start("--pool", "a")
        append(daemon.audit, map(event, range(3, 5)))
        mine.until(5)
        assert daemon.terminate() == 0
        theirs.up()
        daemon.start()
        theirs.until(5)
        assert daemon.terminate() == 0
    assert theirs.arrived.ids == ids(range(5))

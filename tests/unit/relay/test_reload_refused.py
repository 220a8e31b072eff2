"""A reload that is refused in its midst leaves every part as it was."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest
import trio
from structlog.testing import capture_logs

from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.cli.live.control_client import send
from siemrelay.config.load import Loaded, load_text
from siemrelay.core.errors import StartRefused
from siemrelay.relay.control import PauseRequest, ReloadRequest
from siemrelay.relay.pauses import Pauses
from siemrelay.relay.relay import Relay
from tests.support.daemon import until

CONFIG = """\
state_dir: {directory}/state
endpoint: {{listen: off}}
self_audit: no
sources: {{{source}: {{type: file, path: {directory}/audit.json, poll: 20ms{former}}}}}
sinks: {{{sink}: {{protocol: file, path: {directory}/out.json, format: raw}}}}
"""


async def eventually(condition: Callable[[], bool]) -> None:
    await trio.to_thread.run_sync(until, condition)


@pytest.mark.parametrize("refused_by", ["change_source_name", "change_sinks"])
async def test_a_source_goes_on_by_its_old_name_where_the_new_one_cannot_be_stored(
    tmp_path: Path, refused_by: str
) -> None:
    def loaded(source: str, sink: str, former: str) -> Loaded:
        text = CONFIG.format(directory=tmp_path, source=source, sink=sink, former=former)
        return load_text(text, "f.yaml", {})

    new = loaded("b", "t", ", renamed_from: a")
    relay = Relay(loaded("a", "s", ""), read=lambda text, variables: new)
    audit = tmp_path / "audit.json"
    audit.write_text('{"id": "1"}\n')
    with patch.object(DiskBuffer, refused_by, side_effect=StartRefused("no room")), capture_logs():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(relay.run, signals=False))
            await eventually(lambda: relay.stats.ready)
            await eventually(lambda: relay.stats.sources["a"].records == 1)
            state = tmp_path / "state"
            answer = await trio.to_thread.run_sync(send, state, ReloadRequest())
            assert (answer.done, answer.lines) == (False, ["no room"])
            assert [*relay.stats.sources] == ["a"]
            with audit.open("a") as file:
                file.write('{"id": "2"}\n')
            await eventually(lambda: relay.stats.sources["a"].records == 2)
            relay.stop()
    assert (tmp_path / "out.json").read_text() == '{"id": "1"}\n{"id": "2"}\n'


async def test_a_paused_sink_gets_nothing_where_its_new_name_cannot_be_stored(
    tmp_path: Path,
) -> None:
    def loaded(sink: str, former: str) -> Loaded:
        text = CONFIG.format(directory=tmp_path, source="a", sink=sink, former="")
        return load_text(text.replace("format: raw", "format: raw" + former), "f.yaml", {})

    renamed = loaded("t", ", renamed_from: s")
    relay = Relay(loaded("s", ""), read=lambda text, variables: renamed)
    state, audit = tmp_path / "state", tmp_path / "audit.json"
    refusal = patch.object(DiskBuffer, "change_sinks", side_effect=StartRefused("no room"))
    with refusal, capture_logs():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(relay.run, signals=False))
            await eventually(lambda: relay.stats.ready)
            await trio.to_thread.run_sync(send, state, PauseRequest("s"))
            answer = await trio.to_thread.run_sync(send, state, ReloadRequest())
            assert (answer.done, answer.lines) == (False, ["no room"])
            audit.write_text('{"id": "1"}\n')
            await eventually(lambda: relay.stats.sources["a"].records == 1)
            relay.stop()
    assert relay.stats.sinks["s"].state == "paused"
    assert "s" in Pauses(state)
    assert (tmp_path / "out.json").read_text() == ""


@pytest.mark.parametrize("former", ["", ", renamed_from: s"])
async def test_a_sink_goes_on_where_the_key_of_its_seals_cannot_be_used(
    tmp_path: Path, former: str
) -> None:
    def loaded(sink: str, more: str) -> Loaded:
        text = CONFIG.format(directory=tmp_path, source="a", sink=sink, former="")
        return load_text(text.replace("format: raw", "format: json" + more), "f.yaml", {})

    sealed = loaded("t" if former else "s", ", seal: {}" + former)
    relay = Relay(loaded("s", ""), read=lambda text, variables: sealed)
    state, audit = tmp_path / "state", tmp_path / "audit.json"
    with capture_logs():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(relay.run, signals=False))
            await eventually(lambda: relay.stats.ready)
            (state / "seal.key").write_text("damaged\n")
            answer = await trio.to_thread.run_sync(send, state, ReloadRequest())
            assert not answer.done
            assert "cannot use the signing key" in answer.lines[0]
            audit.write_text('{"id": "1"}\n')
            await eventually(lambda: relay.stats.sinks["s"].counts.delivered == 1)
            relay.stop()

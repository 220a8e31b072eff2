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
from siemrelay.relay.control import ReloadRequest
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

"""Logs on tmpfs and overlayfs, rotated by logrotate: where inodes and events differ from ext4's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.conftest import MakeDaemon
from tests.interop.test_logrotate import WAYS, run, shorter
from tests.support.mounts import overlay, tmpfs
from tests.support.rotation.numbered_logs import AppendingWriter, line_of
from tests.support.rotation.rig import RELAYS, Relay, Rig, judge

Mount = Callable[[Path], AbstractContextManager[Path]]


@pytest.mark.parametrize("mount", [tmpfs, overlay])
@pytest.mark.parametrize(
    ("way", "relay"),
    [
        ("compress", "live"),
        ("copytruncate, compress", "restarted"),
        *(
            pytest.param(way, relay, marks=pytest.mark.slow)
            for way in ("create", "compress", "late, delaycompress", "copytruncate, compress")
            for relay in RELAYS
        ),
    ],
)
def test_logrotate_loses_and_repeats_nothing_there(
    mount: Mount, way: str, relay: Relay, tmp_path: Path, make_daemon: MakeDaemon
) -> None:
    with mount(tmp_path) as there:
        case = shorter(WAYS[way], relay=relay)
        run(case, tmp_path, there / "logs", make_daemon, peer=False)


def test_a_log_in_the_image_is_followed_after_its_first_write_has_copied_it_up(
    tmp_path: Path, make_daemon: MakeDaemon
) -> None:
    # A file that is open for reading stays the one below, without what is written afterwards.
    lower = tmp_path / "lower" / "logs"
    lower.mkdir(parents=True)
    for log in ("audit00", "audit01"):
        lines = [line_of(log, number) + b"\n" for number in range(1, 51)]
        (lower / f"{log}.log").write_bytes(b"".join(lines))
    with overlay(tmp_path) as there:
        logs = there / "logs"
        writers = [
            AppendingWriter(logs / f"{log}.log", log, creates=False)
            for log in ("audit00", "audit01")
        ]
        for writer in writers:
            writer.number = 50
        daemon = make_daemon({}, directory=tmp_path)
        with Rig(daemon, [f"{logs}/audit*.log*"], writers) as rig:
            rig.run(
                "live", lambda: None, rotations=2, interval_s=0.5, relay_first=True, read_first=100
            )
            judge(rig, "live")

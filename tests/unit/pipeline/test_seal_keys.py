"""The relay's signing keys: made once, kept for this user alone, rotated with an hour of both."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import structlog

from siemrelay.core.errors import SinkHolds, StartRefused
from siemrelay.pipeline.sealing.keys import SealKeys, key_file
from siemrelay.proof.note import Signer


async def test_a_key_is_made_once_and_is_for_this_user_alone(tmp_path: Path) -> None:
    first = SealKeys(tmp_path, "relay").make()
    assert key_file(tmp_path).stat().st_mode & 0o777 == 0o600
    assert SealKeys(tmp_path, "another").make() == first
    assert await SealKeys(tmp_path, "relay").signers() == first


async def test_after_a_rotation_both_sign_for_an_hour(tmp_path: Path) -> None:
    keys = SealKeys(tmp_path, "relay")
    (old,) = keys.make()
    keys.rotate(new := Signer.generate("relay"))
    assert await keys.signers() == [old, new]
    an_hour_ago = key_file(tmp_path).stat().st_mtime - 3601
    os.utime(key_file(tmp_path), (an_hour_ago, an_hour_ago))
    assert await keys.signers() == [new]
    assert keys.make() == [new]


async def test_every_key_of_rotations_within_an_hour_signs(tmp_path: Path) -> None:
    """Else the second rotation would leave no seal that hands over from the first key."""
    keys = SealKeys(tmp_path, "relay")
    (old,) = keys.make()
    new = [Signer.generate("relay") for _ in range(5)]
    keys.rotate(new[0])
    keys.rotate(new[1])
    assert await keys.signers() == [old, *new[:2]]
    for key in new[2:]:
        keys.rotate(key)
    assert await keys.signers() == new[1:]


def test_a_lost_key_and_one_that_others_may_read_are_warned_of(tmp_path: Path) -> None:
    keys = SealKeys(tmp_path, "relay")
    with structlog.testing.capture_logs() as logs:
        keys.make()
        assert logs == []
        key_file(tmp_path).chmod(0o640)
        keys.make()
        assert [log["event"] for log in logs] == ["others than its owner may read the signing key"]
        (tmp_path / "seals/abcdefgh22").mkdir(parents=True)
        key_file(tmp_path).unlink()
        (new,) = keys.make()
    assert logs[1]["event"] == "the signing key was lost, and a new one signs from now on"
    assert logs[1]["verifier_key"] == str(new.verifier)


def test_without_a_state_directory_no_key_is_made(tmp_path: Path) -> None:
    """A command of root's would make it root's, and the relay's user could not start."""
    with pytest.raises(StartRefused, match="start the relay once, which makes both"):
        SealKeys(tmp_path / "state", "relay").make()


async def test_a_damaged_key_refuses_the_start_and_holds_the_sink(tmp_path: Path) -> None:
    key_file(tmp_path).write_text("PRIVATE+KEY+x\n")
    with pytest.raises(StartRefused, match=r"seal\.key: not a signing key"):
        SealKeys(tmp_path, "relay").make()
    with pytest.raises(SinkHolds, match="cannot sign"):
        await SealKeys(tmp_path, "relay").signers()


def test_a_key_of_the_configuration_that_is_none_refuses_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartRefused, match="of a sink: not a signing key"):
        SealKeys(tmp_path, "relay", "secret").make()

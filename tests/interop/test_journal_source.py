"""The journal source against the real journalctl, on journal files that systemd itself wrote."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from siemrelay.sources.journal import JournalFailed, JournalOptions, JournalSource
from tests.conftest import MakeDaemon
from tests.support.daemon import tcp, until
from tests.support.programs.journal_files import MISSING, write_journal
from tests.support.receivers.sockets import TcpReceiver
from tests.support.rotation.file_source_rig import CollectingIntake

pytestmark = pytest.mark.skipif(MISSING, reason="systemd's journal programs are not installed")


def numbers_of(lines: list[bytes]) -> list[int]:
    return [int(json.loads(line)["MESSAGE"].split()[1]) for line in lines]


async def test_every_entry_is_read_once_and_a_restart_goes_on_after_the_last(
    tmp_path: Path,
) -> None:
    journal, intake = tmp_path / "journal", CollectingIntake()
    source = JournalSource("j", JournalOptions(directory=str(journal)))
    write_journal(journal, range(50))
    await source.run(intake, drain=True)
    assert numbers_of(intake.lines) == list(range(50))
    write_journal(journal, range(50, 60))
    await source.run(intake, drain=True)
    assert numbers_of(intake.lines) == list(range(60))


async def test_where_the_last_entry_is_gone_or_not_asked_for_no_other_is_missed(
    tmp_path: Path,
) -> None:
    journal, intake = tmp_path / "journal", CollectingIntake()
    write_journal(journal, range(4))
    await JournalSource("j", JournalOptions(directory=str(journal))).run(intake, drain=True)
    (journal / "audit-0.journal").unlink()
    write_journal(journal, range(4, 8))
    await JournalSource("j", JournalOptions(directory=str(journal))).run(intake, drain=True)
    assert numbers_of(intake.lines) == list(range(8))
    write_journal(journal, range(8, 12))
    options = JournalOptions(directory=str(journal), identifiers=["cron"])
    await JournalSource("j", options).run(intake, drain=True)
    assert numbers_of(intake.lines) == [*range(8), 8, 10]


async def test_only_what_was_asked_for_is_read(tmp_path: Path) -> None:
    write_journal(tmp_path / "journal", range(10))
    intake = CollectingIntake()
    options = JournalOptions(directory=str(tmp_path / "journal"), identifiers=["sshd"])
    await JournalSource("j", options).run(intake, drain=True)
    assert numbers_of(intake.lines) == [1, 3, 5, 7, 9]


async def test_journalctls_own_words_are_in_the_error(tmp_path: Path) -> None:
    source = JournalSource("j", JournalOptions(directory=str(tmp_path / "nowhere")))
    with pytest.raises(JournalFailed, match="nowhere"):
        await source.run(CollectingIntake(), drain=True)


async def test_without_journalctl_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JournalFailed, match="install systemd"):
        await JournalSource("j", JournalOptions()).run(CollectingIntake(), drain=False)


def test_the_daemon_follows_the_journal_through_a_kill(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    write_journal(journal, range(20))
    with TcpReceiver() as receiver:
        daemon = make_daemon({"out": tcp(receiver.port)})
        daemon.config["sources"] = {
            "journal": {"type": "journal", "product": "journal", "directory": str(journal)}
        }
        daemon.start()
        receiver.until(20)
        daemon.kill()
        write_journal(journal, range(20, 30))
        daemon.start()
        until(
            lambda: receiver.arrived.messages[-1:] and b"entry 29" in receiver.arrived.messages[-1]
        )
        daemon.send(signal.SIGTERM)
        assert daemon.wait() == 0
    events = [json.loads(message) for message in receiver.arrived.messages]
    assert {event["message"] for event in events} == {f"entry {n}" for n in range(30)}
    assert {event["type"] for event in events} == {"sshd", "cron"}
    assert events[0]["time"].startswith("2023-11-14T22:13:20")
    assert daemon.rows("SELECT sum(count) FROM batches") == [(30,)]

"""`siemrelay buffer`: looking into a buffer, and sending what it holds again."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any

from siemrelay.buffer.dead_letters import DeadLetter
from siemrelay.buffer.replay import DeadLetterRetry
from siemrelay.buffer.rows import StoredCursor
from siemrelay.buffer.sink_cursor import Outcome
from siemrelay.buffer.sqlite.schema import PAGE_BYTES, SCHEMA_VERSION
from siemrelay.buffer.sqlite.store import Store
from siemrelay.core.times import rfc3339
from tests.conftest import MakeDaemon
from tests.support import launcher
from tests.support.daemon import Daemon, append, event, http, ids, tcp, until
from tests.support.receivers.http import Answer, HttpReceiver
from tests.support.receivers.sockets import TcpReceiver

REFUSED = (b"n0000007", b"n0000030")


class Picky:
    """Answers 400 to requests with certain events, until it is fixed."""

    def __init__(self) -> None:
        self.fixed = False
        self.status = 400

    def __call__(self, request: Any) -> Answer:
        if not self.fixed and any(name in request.body for name in REFUSED):
            return Answer(self.status, "no such thing")
        return Answer(200)


@contextmanager
def relay(make_daemon: MakeDaemon) -> Iterator[tuple[Daemon, HttpReceiver, Picky]]:
    """A relay that has delivered 40 events to `web`, but for two that it refused."""
    picky = Picky()
    with HttpReceiver(picky) as web:
        daemon = make_daemon({"web": http(web.url, events={"exclude": ["User Logged In"]})}).start()
        append(daemon.audit, (event(n) for n in range(1, 41)))
        until(lambda: daemon.metric("source_records_total", source="audit") == 40)
        append(daemon.audit, (event(n, type="User Logged In") for n in range(41, 46)))
        until(lambda: daemon.metric("source_records_total", source="audit") == 45)
        # In the file too, where the commands look. Not by a command: each takes half a second of a
        # processor, which a busy machine does not have.
        until(lambda: daemon.rows("SELECT next_sequence FROM cursors") == [(46,)])
        yield daemon, web, picky


def buffer(daemon: Daemon, *arguments: str, code: int = 0) -> str:
    """What a command of `siemrelay buffer` prints on standard output."""
    name, *rest = arguments
    done = launcher.run("buffer", name, "-c", str(daemon.file), *rest)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_info_tells_what_is_kept_and_how_far_each_sink_is(make_daemon: MakeDaemon) -> None:
    with relay(make_daemon) as (daemon, _, _):
        assert daemon.process is not None
        info = json.loads(buffer(daemon, "info", "--json"))
        assert (info["oldest"], info["end"]) == (1, 46)
        assert info["process"] == str(daemon.process.pid)
        (web,) = info["sinks"]
        assert (web["next_sequence"], web["dead_letters"], web["replayed"]) == (46, 2, 0)
        assert EQUATION(web) == (45, 38, 5, 2, 0, 0, True)
        assert info["sources"] == [
            {"source": "audit", "records": 45, "bytes": daemon.audit.stat().st_size, "filtered": 0}
        ]
        daemon.terminate()
        assert "no relay runs on it" in buffer(daemon, "info")
        shown = buffer(daemon, "info")
        assert "records 1 to 45 are kept" in shown
        assert (
            "stored = delivered + filtered + refused + dropped + waiting: holds for every sink"
        ) in shown


EQUATION = itemgetter(
    "stored", "delivered", "filtered", "refused", "dropped", "waiting", "balanced"
)


def test_counts_go_on_after_a_kill_and_say_so_when_they_do_not_add_up(
    make_daemon: MakeDaemon,
) -> None:
    with relay(make_daemon) as (daemon, web, _):
        last_success = daemon.metric("sink_last_success_timestamp_seconds", sink="web")
        assert last_success > 0
        until(lambda: balance(daemon) == (45, 38, 5, 2, 0, 0, True))
        daemon.kill()
        web.close()
        daemon.start()
        assert daemon.metric("sink_delivered_total", sink="web") == 38
        assert daemon.metric("sink_filtered_total", sink="web") == 5
        assert daemon.metric("sink_dead_lettered_total", sink="web") == 2
        assert daemon.metric("sink_stored_total", sink="web") == 45
        assert daemon.metric("source_records_total", source="audit") == 45
        assert daemon.metric("sink_last_success_timestamp_seconds", sink="web") == last_success
        append(daemon.audit, (event(n) for n in range(46, 49)))
        until(lambda: daemon.metric("source_records_total", source="audit") == 48)
        assert balance(daemon) == (48, 38, 5, 2, 0, 3, True)
        daemon.terminate()
        with closing(sqlite3.connect(daemon.state / "buffer.db")) as database, database:
            database.execute("UPDATE cursors SET delivered = delivered - 1")
        assert "does NOT hold for web" in buffer(daemon, "info")


def balance(daemon: Daemon) -> tuple[Any, ...]:
    (web,) = json.loads(buffer(daemon, "info", "--json"))["sinks"]
    return tuple(EQUATION(web))


def test_show_gives_records_as_they_came_in(make_daemon: MakeDaemon) -> None:
    with relay(make_daemon) as (daemon, _, _):
        written = daemon.audit.read_text().splitlines()
        shown = lines(buffer(daemon, "show", "--from", "7", "--to", "9", "--json"))
        assert [one["record"] for one in shown] == written[6:9]
        assert [one["sequence"] for one in shown] == [7, 8, 9]
        assert {one["source"] for one in shown} == {"audit"}
        last = buffer(daemon, "show").splitlines()
        assert [line.partition(" ")[0] for line in last] == [str(n) for n in range(36, 46)]
        assert buffer(daemon, "show", "--source", "other") == ""
        assert buffer(daemon, "show", "--from", "100") == ""
        assert len(buffer(daemon, "show", "--since", "1h").splitlines()) == 45
        assert buffer(daemon, "show", "--until", "1h") == ""


def test_a_range_is_sent_again_beside_the_running_relay(make_daemon: MakeDaemon) -> None:
    with relay(make_daemon) as (daemon, web, _):
        before = len(web.arrived)
        said = buffer(daemon, "replay", "web", "--from", "10", "--to", "19")
        assert "10 delivered, 0 filtered, 0 refused" in said
        assert web.arrived.ids[before:] == ids(range(10, 20))
        said = buffer(daemon, "replay", "web", "--since", "1h")
        assert "38 delivered, 5 filtered, 2 refused" in said
        then = time.time()
        assert "nothing to send" in buffer(daemon, "replay", "web", "--since", rfc3339(then))
        said = buffer(daemon, "replay", "web", "--since", rfc3339(then - 3600), "--until",
                      rfc3339(then))  # fmt: skip
        assert "38 delivered, 5 filtered, 2 refused" in said
        assert "nothing to send" in buffer(daemon, "replay", "web", "--from", "1", "--until", "1h")
        assert daemon.metric("sink_delivered_total", sink="web") == 38
        assert daemon.metric("sink_replayed_total", sink="web") == 86
        assert daemon.rows("SELECT next_sequence FROM cursors") == [(46,)]
        assert balance(daemon) == (45, 38, 5, 2, 0, 0, True)
        assert json.loads(buffer(daemon, "info", "--json"))["sinks"][0]["dead_letters"] == 2


def test_a_replay_of_records_no_longer_kept_says_so(make_daemon: MakeDaemon) -> None:
    with relay(make_daemon) as (daemon, web, _):
        append(daemon.audit, [event(46)])
        until(lambda: daemon.metric("sink_delivered_total", sink="web") == 39)
        daemon.terminate()
        with closing(sqlite3.connect(daemon.state / "buffer.db")) as database, database:
            database.execute("DELETE FROM batches WHERE first_sequence = 41")
        assert "nothing to send" in buffer(daemon, "replay", "web", "--from", "47")
        said = buffer(daemon, "replay", "web", "--from", "40")
        assert "sending records 40 to 46" in said
        assert (
            "2 delivered, 0 filtered, 0 refused (kept as dead letters), 5 no longer stored" in said
        )
        assert web.arrived.ids[-2:] == ids([40, 46])


def test_a_replay_needs_to_know_from_where_and_to_whom(make_daemon: MakeDaemon) -> None:
    with relay(make_daemon) as (daemon, _, _):
        assert "give either --from NUMBER" in buffer(daemon, "replay", "web", code=2)
        assert "give either --from NUMBER" in buffer(
            daemon, "replay", "web", "--from", "1", "--since", "2h", code=2
        )
        assert "no sink is called wep; there is web" in buffer(
            daemon, "replay", "wep", "--since", "2h", code=2
        )
        assert "write 2s or 2h" in buffer(daemon, "replay", "web", "--since", "2", code=2)
        said = buffer(daemon, "replay", "web", "--since", "yesterday", code=2)
        assert "or a time like 2026-11-28T03:00:00Z" in said


def test_a_replay_to_a_sink_that_holds_ends_with_what_to_fix(make_daemon: MakeDaemon) -> None:
    with relay(make_daemon) as (daemon, _, picky):
        picky.status = 401
        said = buffer(daemon, "replay", "web", "--from", "1", code=1)
        assert "web: HTTP 401 no such thing" in said
        assert "authorization" in said


def test_a_replay_waits_for_a_peer_that_is_down_until_ctrl_c(make_daemon: MakeDaemon) -> None:
    with relay(make_daemon) as (daemon, _, _), TcpReceiver(up=False) as dead:
        daemon.config["sinks"]["web"] = tcp(dead.port)
        daemon.write_config()
        process = subprocess.Popen(
            [sys.executable, "-m", "siemrelay", "buffer", "replay", "-c", str(daemon.file),
             "--from", "1", "web"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        assert "sink waiting" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
        assert process.returncode == 130
        assert "web: stopped; 0 were delivered before" in said


def test_dead_letters_have_the_record_the_message_and_the_peers_words(
    make_daemon: MakeDaemon,
) -> None:
    with relay(make_daemon) as (daemon, _, _):
        written = daemon.audit.read_text().splitlines()
        letters = lines(buffer(daemon, "dead-letters", "--json"))
        assert [letter["sequence"] for letter in letters] == [7, 30]
        assert [letter["record"] for letter in letters] == [written[6], written[29]]
        assert {letter["source"] for letter in letters} == {"audit"}
        assert all("no such thing" in letter["reason"] for letter in letters)
        assert json.loads(letters[0]["message"])["id"] == "n0000007"
        shown = buffer(daemon, "dead-letters", "web", "--from", "8")
        assert shown.count("no such thing") == 1
        assert "no sink is called wep" in buffer(daemon, "dead-letters", "wep", code=2)


def test_a_retry_forgets_what_is_taken_now_and_keeps_what_is_not(make_daemon: MakeDaemon) -> None:
    with relay(make_daemon) as (daemon, web, picky):
        assert "0 accepted, 2 refused again" in buffer(daemon, "dead-letters", "web", "--retry")
        assert len(lines(buffer(daemon, "dead-letters", "--json"))) == 2
        picky.fixed = True
        # What the filter says now does not matter: these were wanted.
        daemon.config["sinks"]["web"]["events"] = {"include": ["User Logged In"]}
        daemon.write_config()
        before = len(web.arrived)
        said = buffer(daemon, "dead-letters", "web", "--retry", "--to", "7")
        assert "1 accepted, 0 refused again" in said
        assert web.arrived.ids[before:] == ids([7])
        assert [one["sequence"] for one in lines(buffer(daemon, "dead-letters", "--json"))] == [30]
        until(lambda: '"dead_letters":{"web":1}' in daemon.get("/status")[1])
        assert balance(daemon) == (45, 39, 5, 1, 0, 0, True)
        buffer(daemon, "dead-letters", "web", "--retry")
        assert buffer(daemon, "dead-letters") == "no dead letters\n"
        assert daemon.metric("sink_delivered_total", sink="web") == 40
        assert balance(daemon) == (45, 40, 5, 0, 0, 0, True)


def test_dropping_asks_first_and_forgets_only_what_was_named(make_daemon: MakeDaemon) -> None:
    with relay(make_daemon) as (daemon, _, _):
        assert "confirm with --yes" in buffer(daemon, "dead-letters", "web", "--drop", code=2)
        assert "need the name of a sink" in buffer(
            daemon, "dead-letters", "--drop", "--yes", code=2
        )
        assert "not both" in buffer(daemon, "dead-letters", "web", "--drop", "--retry", code=2)
        said = buffer(daemon, "dead-letters", "web", "--drop", "--yes", "--from", "8")
        assert said == "web: 1 dropped\n"
        assert [one["sequence"] for one in lines(buffer(daemon, "dead-letters", "--json"))] == [7]


def test_a_letter_whose_record_is_gone_cannot_be_sent_and_stays(
    make_daemon: MakeDaemon,
) -> None:
    with relay(make_daemon) as (daemon, _, picky):
        picky.fixed = True
        with closing(sqlite3.connect(daemon.state / "buffer.db")) as database, database:
            database.execute("UPDATE dead_letters SET record = x'' WHERE sequence = 7")
        assert "1 accepted, 0 refused again" in buffer(daemon, "dead-letters", "web", "--retry")
        assert [one["sequence"] for one in lines(buffer(daemon, "dead-letters", "--json"))] == [7]


def test_where_no_relay_has_run_there_is_no_buffer(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"web": tcp(1)})
    daemon.write_config()
    for command in ("info", "show", "dead-letters"):
        assert "no relay has used this `state_dir` yet" in buffer(daemon, command, code=75)
    assert not daemon.state.exists()


def test_a_damaged_buffer_is_checked_salvaged_and_used_again(make_daemon: MakeDaemon) -> None:
    with relay(make_daemon) as (daemon, web, _):
        assert "buffer.db: healthy" in buffer(daemon, "check")
        assert "already runs on state_dir" in buffer(daemon, "salvage", code=75)
        web.close()
        append(daemon.audit, (event(n) for n in range(46, 56)))
        until(lambda: daemon.metric("source_records_total", source="audit") == 55)
        assert daemon.terminate() == 0
        path = daemon.state / "buffer.db"
        with closing(sqlite3.connect(path)) as database:
            (root,) = database.execute(
                "SELECT rootpage FROM sqlite_master WHERE name = 'batches'"
            ).fetchone()
        whole = path.read_bytes()
        with path.open("r+b") as file:
            file.seek((root - 1) * PAGE_BYTES)
            file.write(bytes(PAGE_BYTES))
        daemon.start(ready=False)
        assert daemon.wait() == os.EX_IOERR
        (line,) = daemon.said("the disk buffer failed; ending")
        assert "siemrelay buffer salvage" in line["error"]
        checked = launcher.run("buffer", "check", "-c", str(daemon.file), "--json")
        assert checked.returncode == os.EX_IOERR
        report = json.loads(checked.stdout)
        assert (report["healthy"], report["end"], report["positions"]) == (False, 56, 1)
        (sink,) = report["sinks"]
        assert (sink["sink"], sink["next_sequence"], sink["waiting"]) == ("web", 46, 10)
        saved = json.loads(buffer(daemon, "salvage", "--json"))
        assert saved["records"] == report["records"]
        kept = Path(saved["damaged_file"])
        assert len(kept.read_bytes()) == len(whole)
        with HttpReceiver() as receiver:
            daemon.config["sinks"]["web"]["url"] = receiver.url
            daemon.start()
            until(lambda: daemon.metric("sink_backlog_records", sink="web") == 0)
            missing = daemon.metric("sink_missing_total", sink="web")
            assert missing == sink["unreadable"]
            assert len(receiver.arrived) == 10 - missing
            assert bool(missing) == bool(daemon.said("acknowledged records are gone from the disk"))
            assert balance(daemon)[-1]
            assert daemon.terminate() == 0


def test_a_file_of_the_layout_before_is_made_new_by_the_relay_only(
    make_daemon: MakeDaemon,
) -> None:
    with relay(make_daemon) as (daemon, _, picky):
        daemon.terminate()
        older(daemon.state / "buffer.db")
        assert "a relay of this version migrates it" in buffer(daemon, "info", code=75)
        daemon.start()
        assert daemon.rows("PRAGMA user_version") == [(SCHEMA_VERSION,)]
        assert [one["sequence"] for one in lines(buffer(daemon, "dead-letters", "--json"))] == [
            7, 30,
        ]  # fmt: skip
        # What the older one counted is not known: the counts begin where its cursor was.
        assert balance(daemon) == (0, 0, 0, 0, 0, 0, True)
        picky.fixed = True
        assert "2 accepted, 0 refused again" in buffer(daemon, "dead-letters", "web", "--retry")
        assert balance(daemon) == (0, 0, 0, 0, 0, 0, True)


def older(path: Path) -> None:
    """Make it a file of layout 1."""
    with closing(sqlite3.connect(path)) as database, database:
        for column in StoredCursor.__struct_fields__[1:]:
            database.execute(f"ALTER TABLE cursors DROP COLUMN {column}")
        database.execute("DROP INDEX dead_letters_of")
        for column in ("source", "received_at", "part"):
            database.execute(f"ALTER TABLE dead_letters DROP COLUMN {column}")
        database.execute("PRAGMA user_version = 1")


def letters_of(sequences: Iterable[int]) -> list[DeadLetter]:
    return [DeadLetter("s", n, 1.0, "400", "no", b"r%d" % n, b"m") for n in sequences]


async def test_a_retry_forgets_only_letters_that_it_has_sent(tmp_path: Path) -> None:
    with closing(Store(tmp_path / "buffer.db")) as store:
        store.store_dead_letters(letters_of(range(2, 301, 2)), {})
        again = DeadLetterRetry(store, "s", 1, 301)
        position, sent = 1, []
        while position < 301:
            batches = await again.read(position)
            sent += [batch.first_sequence for batch in batches if batch.count]
            # The relay keeps new ones meanwhile, before and behind what is on its way.
            store.store_dead_letters(letters_of([position + 2, 299]), {})
            last = batches[-1].first_sequence
            if last in (128, 256):  # refused again
                await again.store_dead_letters(
                    letters_of([last]), batches[-1].next_sequence, Outcome(refused=1)
                )
            position = batches[-1].next_sequence
            again.advance("s", position, Outcome())
        await again.finish()
        assert again.done.is_set()
        assert sent == sorted(set(sent))
        kept = {letter.sequence for letter in store.letters("s", 1, 400, 400)}
        assert {128, 256} <= kept
        assert kept == ({*range(2, 301, 2), 3, 131, 259, 299} - set(sent)) | {128, 256}


def test_a_flipped_byte_in_the_log_of_a_killed_relay_loses_no_record(
    make_daemon: MakeDaemon,
) -> None:
    with relay(make_daemon) as (daemon, web, _):
        web.close()
        append(daemon.audit, (event(n) for n in range(46, 56)))
        until(lambda: daemon.metric("source_records_total", source="audit") == 55)
        daemon.kill()
        flip(daemon, size=1)
        checked = launcher.run("buffer", "check", "-c", str(daemon.file))
        assert "records behind it: 1 to 55; a start corrects it first" in checked.stdout
        with HttpReceiver() as receiver:
            daemon.config["sinks"]["web"]["url"] = receiver.url
            daemon.start()
            until(lambda: daemon.metric("sink_backlog_records", sink="web") == 0)
            assert receiver.arrived.ids == ids(range(46, 56))
            (line,) = daemon.said("the buffer's write-ahead log was damaged, and is corrected: "
                                  "nothing is lost")  # fmt: skip
            assert line["to_sequence"] == 55
            until(lambda: daemon.rows("SELECT next_sequence FROM cursors") == [(56,)])
            receiver.close()
            append(daemon.audit, (event(n) for n in range(56, 66)))
            until(lambda: daemon.metric("source_records_total", source="audit") == 65)
            daemon.kill()
        flip(daemon, size=40)
        before = log_of(daemon).read_bytes()
        daemon.start(ready=False)
        assert daemon.wait() == os.EX_IOERR
        (line,) = daemon.said("the disk buffer failed; ending")
        assert "siemrelay buffer salvage" in line["error"]
        assert "damaged at byte" in buffer(daemon, "info", code=os.EX_IOERR)
        checked = launcher.run("buffer", "check", "-c", str(daemon.file))
        assert checked.returncode == os.EX_IOERR
        assert "damaged at byte" in checked.stdout
        assert log_of(daemon).read_bytes() == before
        assert json.loads(buffer(daemon, "salvage", "--json"))["end"] == 66
        with HttpReceiver() as receiver:
            daemon.config["sinks"]["web"]["url"] = receiver.url
            daemon.start()
            until(lambda: daemon.metric("sink_backlog_records", sink="web") == 0)
            # The cursor was in the damaged frame: what an older one does not know is sent again.
            assert receiver.arrived.ids == ids(range(46, 66))
            assert balance(daemon)[-1]
            assert daemon.terminate() == 0


def log_of(daemon: Daemon) -> Path:
    return daemon.state / "buffer.db-wal"


def flip(daemon: Daemon, *, size: int) -> None:
    """Damage the write-ahead log in its first frame."""
    whole = bytearray(log_of(daemon).read_bytes())
    whole[1000 : 1000 + size] = bytes(byte ^ 0x01 for byte in whole[1000 : 1000 + size])
    log_of(daemon).write_bytes(whole)

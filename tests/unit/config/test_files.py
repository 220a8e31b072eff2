"""Several files, one configuration: what is included, and where a fault in it is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from siemrelay.cli.check import check
from siemrelay.config import files
from siemrelay.config.effective import remarks, sink_settings
from siemrelay.config.endpoint_address import state_dir
from siemrelay.config.load import Loaded, load, load_again, load_text
from siemrelay.core.errors import ConfigurationRefused

MAIN = """\
include: conf.d/*.yaml
state_dir: /var/lib/here
sources:
  a: {type: stdin}
"""
SINK = "sinks:\n  s: {server: siem.example.com}\n"


def write(folder: Path, **texts: str) -> Path:
    """The main file, with `conf.d/NAME.yaml` for each text."""
    file = folder / "relay.yaml"
    file.write_text(texts.pop("main", MAIN))
    (folder / "conf.d").mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / "conf.d" / f"{name}.yaml").write_text(text)
    return file


def warned(loaded: Loaded) -> list[str]:
    return [fault.located(loaded.file) for fault in remarks(loaded)]


def faults(file: Path) -> list[str]:
    """Each fault as a person reads it, without the directory."""
    with pytest.raises(ConfigurationRefused) as refused:
        load(file)
    located = (fault.located(refused.value.file) for fault in refused.value.faults)
    return [line.replace(f"{file.parent}/", "") for line in located]


def test_included_files_add_their_parts_in_the_order_of_their_names(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        b="sinks:\n  second: {server: b}\nevent_types: [Door Opened]\n",
        a="sinks:\n  first: {server: a}\nevent_types: {Door Shut: {severity: 7}}\n",
        c="sources:\n  hooks: {type: http, listen: 'http://127.0.0.1:8080'}\n",
    )
    (tmp_path / "conf.d/notes.txt").write_text("{")
    (tmp_path / "conf.d/.hidden.yaml").write_text("{")
    config = load(file).config
    assert [*config.sinks] == ["first", "second"]
    assert [*config.sources] == ["a", "hooks"]
    assert [*config.event_types] == ["Door Shut", "Door Opened"]
    assert state_dir(file) == config.state_dir == Path("/var/lib/here")


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({"a": SINK, "b": "\n" + SINK},
         "conf.d/b.yaml:3:3: sinks.s: `s` is already in conf.d/a.yaml:2; give one of them another "
         "name"),
        ({"main": MAIN + SINK, "a": SINK},
         "conf.d/a.yaml:2:3: sinks.s: `s` is already in relay.yaml:6; give one of them another "
         "name"),
        ({"a": "sinks:\n  s: {server: a, prot: 1}\n"},
         "conf.d/a.yaml:2:18: sinks.s.prot: unknown key `prot`; did you mean `protocol`?"),
        ({"a": "sinks:\n  s: {server: a, port: 1\n"}, "conf.d/a.yaml:3:1: expected ',' or '}'"),
        ({"a": SINK + "buffer: {max_size: 1GiB}\n"},
         "conf.d/a.yaml:3:1: buffer: `buffer` belongs in relay.yaml; an included file holds only "),
        ({"a": SINK + "include: x.yaml\n"},
         "conf.d/a.yaml:3:1: include: an included file includes no others; name them in "
         "relay.yaml"),
        ({"a": "- s\n"}, "conf.d/a.yaml:1:1: expected `sources:`, `sinks:`, `event_types:`"),
        ({"a": "sinks: [s]\n"}, "conf.d/a.yaml:1:8: sinks: expected `name:` lines below it"),
        ({"a": "sinks:\n  s: {server: '${NOPE_}'}\n"},
         "conf.d/a.yaml:2:15: sinks.s.server: the environment variable NOPE_ is not set"),
        ({"main": MAIN.replace("conf.d/*.yaml", "none.yaml") + SINK},
         "relay.yaml:1:10: include: none.yaml: no such file; "),
        ({"main": MAIN.replace("conf.d/*.yaml", "[conf.d]") + SINK},
         "relay.yaml:1:11: include[0]: conf.d: is a directory; "),
        ({"main": MAIN.replace("conf.d/*.yaml", "'${X}/*'") + SINK},
         "relay.yaml:1:10: include: `include` takes no `${...}`"),
        ({"main": MAIN.replace("conf.d/*.yaml", "{a: b}") + SINK},
         "relay.yaml:1:10: include: expected a list, found `key: value` lines"),
    ],
)  # fmt: skip
def test_a_fault_is_found_in_its_file(tmp_path: Path, texts: dict[str, str], expected: str) -> None:
    first, *_ = faults(write(tmp_path, **texts))
    assert first.startswith(expected)


def test_nothing_but_files_is_opened(tmp_path: Path) -> None:
    file = write(tmp_path, main=MAIN + SINK)
    os.mkfifo(tmp_path / "conf.d/pipe.yaml")
    (tmp_path / "conf.d/broken.yaml").symlink_to("nowhere")
    broken, pipe = faults(file)
    assert "conf.d/broken.yaml: no such file" in broken
    assert "conf.d/pipe.yaml: is not a regular file" in pipe


def test_more_files_than_a_configuration_has_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_MAX_INCLUDED", 1)
    assert "matches 2 files; at most 1 " in faults(write(tmp_path, a=SINK, b=""))[0]


def test_a_pattern_without_a_match_explains_what_is_missing(tmp_path: Path) -> None:
    file = write(tmp_path, main=MAIN + SINK)
    assert warned(load(file)) == [], "a directory for drop-ins is empty at first"
    (tmp_path / "conf.d").rmdir()
    (warning,) = warned(load(file))
    assert ":1:10: include: no file matches " in warning
    found = faults(write(tmp_path))
    assert [line for line in found if "sinks: is required" in line]
    assert [line for line in found if "no file matches conf.d/*.yaml" in line]


def test_an_empty_file_is_a_warning(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, a="# later\n", b=SINK))
    assert warned(loaded) == [f"{tmp_path}/conf.d/a.yaml:1:1: the file is empty"]


def test_a_file_is_included_once_and_never_in_itself(tmp_path: Path) -> None:
    file = write(tmp_path, main=MAIN.replace("conf.d/*.yaml", "['*.yaml', conf.d/a.yaml, '*/a*']"),
                 a=SINK)  # fmt: skip
    assert [*load(file).included] == [f"{tmp_path}/conf.d/a.yaml"]


def test_what_was_loaded_is_loaded_again_whatever_the_files_say_by_now(tmp_path: Path) -> None:
    file = write(tmp_path, a="sinks:\n  s: {server: '${HOST_}'}\n")
    before = load_text(file.read_text(), str(file), {"HOST_": "before.example.com"})
    (tmp_path / "conf.d/a.yaml").write_text("{")
    after = load_again(before, {"HOST_": "after.example.com"})
    servers = [getattr(loaded.config.sinks["s"], "server", None) for loaded in (before, after)]
    assert servers == ["before.example.com", "after.example.com"]


def test_a_part_whose_new_secret_cannot_be_used_keeps_its_own_and_the_others_get_theirs(
    tmp_path: Path,
) -> None:
    sinks = "".join(
        f"  {name}: {{url: 'https://a/', authorization: 'Bearer ${{file:{tmp_path}/{name}}}'}}\n"
        for name in ("empty", "gone", "broken", "good")
    )
    files = {name: tmp_path / name for name in ("empty", "gone", "broken", "good")}
    for name, file in files.items():
        file.write_text(f"old-{name}")
    source = "sources:\n  a: {type: file, path: /a}\n"
    before = load_text(f"{source}sinks:\n{sinks}", "f", {})
    for name, text in {"empty": "", "broken": "é", "good": "new-good"}.items():
        files[name].write_text(text)
    files["gone"].unlink()
    after = load_again(before, {})
    assert {name: getattr(sink, "authorization") for name, sink in after.config.sinks.items()} == {  # noqa: B009  # the joined model's
        "empty": "Bearer old-empty", "gone": "Bearer old-gone", "broken": "Bearer old-broken",
        "good": "Bearer new-good",
    }  # fmt: skip
    assert [fault.key for fault in after.kept] == [
        f"sinks.{name}.authorization" for name in ("empty", "gone", "broken")
    ]
    for name, file in files.items():
        file.write_text(f"newer-{name}")
    newest = load_again(after, {})
    assert newest.kept == ()
    assert "newer-broken" in newest.secrets


def test_a_secret_in_an_included_file_is_judged_by_that_files_permissions(tmp_path: Path) -> None:
    file = write(tmp_path, a="sinks:\n  s: {url: 'https://a/', authorization: Bearer abcdefg}\n")
    file.chmod(0o600)
    (warning,) = warned(load(file))
    assert warning.startswith(f"{tmp_path}/conf.d/a.yaml:2:")
    assert "every user of this machine can read the file" in warning


@pytest.mark.parametrize(
    ("url", "warnings"), [("redis://queue/0", 0), ("amqp://queue", 0), ("redis://:pw1234@queue", 1)]
)
def test_the_address_of_a_queue_is_a_secret_only_if_it_has_a_password(
    tmp_path: Path, url: str, warnings: int
) -> None:
    kind = "redis, stream: a" if url.startswith("redis") else "amqp, queue: a"
    text = f"sources:\n  q: {{type: {kind}, url: '{url}'}}\nsinks: {{s: {{server: h}}}}\n"
    file = write(tmp_path, a=text)
    assert sum("a secret is in the file" in line for line in warned(load(file))) == warnings


def test_programs_read_the_file_of_each_fault(tmp_path: Path) -> None:
    file = write(tmp_path, a="sinks:\n  s: {server: a, prot: 1}\n")
    answer = json.loads(CliRunner().invoke(check, ["-c", str(file), "--json"]).stdout)
    assert [fault["file"] for fault in answer["faults"]] == [f"{tmp_path}/conf.d/a.yaml"]


SHARED = """\
x-splunk: &splunk
  siem: splunk
  url: https://splunk.example.com:8088
  authorization: "${NOT_USED_IN_HERE}"
sources: {a: {type: stdin}}
sinks:
  first: {<<: *splunk, authorization: Splunk abcdefg, index: audit}
  second: {<<: *splunk, authorization: Splunk hijklmn, enabled: no}
"""


def test_shared_blocks_hold_what_parts_have_in_common() -> None:
    loaded = load_text(SHARED, "f.yaml", {})
    first, second = loaded.config.sinks.values()
    assert getattr(first, "url", None) == getattr(second, "url", "") != ""
    assert (first.enabled, second.enabled) == (True, False)
    assert [s.origin for s in sink_settings(loaded, "first") if s.key == "url"] == ["file"]


def test_a_fault_in_a_shared_block_is_found_there() -> None:
    with pytest.raises(ConfigurationRefused) as refused:
        load_text(SHARED.replace("siem: splunk", "siem: splunk\n  compres: no"), "f.yaml", {})
    assert {fault.line for fault in refused.value.faults} == {3}


def test_a_directory_that_may_not_be_listed_is_a_fault_and_not_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, main=MAIN + SINK, more=SINK)
    closed = str(tmp_path / "conf.d")
    allowed = os.access

    def access(path: str, mode: int, *, effective_ids: bool = False) -> bool:
        return path != closed and allowed(path, mode, effective_ids=effective_ids)

    monkeypatch.setattr(os, "access", access)
    (fault,) = faults(file)
    assert "relay.yaml:1:10: include: user " in fault
    assert "may not list conf.d; run as root or as the service's user" in fault

"""Text from outside never steers a terminal: not through a command, not through the log."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from siemrelay.cli.terminal import TerminalText

STEERING = {
    "ESC": "\x1b[2J\x1b]0;title\x07", "C1": "\x9b2J\x85", "bidi": "\u202e\u2066\u200f\u061c",
    "lines": "\u2028\u2029", "C0": "\x00\x08\x0b\x7f", "return": "\rforged", "concealed": "\x1b[8m",
    "mixed": "\x1b[0;8m\x1b[31;8;1m",
}  # fmt: skip
"""Characters that a terminal takes for commands, by kind."""


def steers(text: str) -> bool:
    """Whether something is left that a terminal acts upon, but for lines and colours."""
    text = re.sub(r"\x1b\[(?:[0-3]|3[0-7])(?:;3[0-7])?m", "", text)
    return not text.replace("\r\n", "").replace("\n", "").replace("\t", "").isprintable()


@pytest.mark.parametrize("kind", STEERING)
def test_what_is_written_to_a_terminal_steers_nothing(kind: str) -> None:
    stream = io.StringIO()
    TerminalText(stream).write(f"a\x1b[31mred\x1b[0m {STEERING[kind]}\n")
    written = stream.getvalue()
    assert written.startswith("a\x1b[31mred\x1b[0m ")
    assert written.endswith("\n")
    assert not steers(written)


def on_a_terminal(arguments: list[str], **environment: str) -> str:
    """What a command writes, output and errors, when both are a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "siemrelay", *arguments], stdout=theirs, stderr=theirs,
        stdin=subprocess.DEVNULL, env={**os.environ, "TERM": "xterm", **environment},
    ):  # fmt: skip
        os.close(theirs)
        found = b""
        try:
            while data := os.read(ours, 65536):
                found += data
        except OSError:
            pass  # how Linux says that nobody has the other end open
    os.close(ours)
    return found.decode("utf-8", "replace")


def test_no_command_lets_a_name_steer_the_terminal(tmp_path: Path) -> None:
    """The configuration's own name and the record are hostile; the log is on a terminal, too."""
    name = "".join(STEERING.values()).replace("\0", "") + ".yaml"
    config, logs = tmp_path / name, tmp_path / f"log{name}"
    record = {"type": "".join(STEERING.values()), "message": "".join(STEERING.values())}
    logs.write_text(json.dumps(record) + "\n")
    config.write_text(json.dumps({
        "sources": {"a": {"type": "file", "path": f"{tmp_path}/log*"}},
        "sinks": {"s": {"server": "siem.example.com"}},
        "state_dir": str(tmp_path / "state"), "log": {"format": "console"}, "oops": 1,
    }))  # fmt: skip
    assert not steers(on_a_terminal(["check", "-c", str(config)]))
    config.write_text(config.read_text().replace(', "oops": 1', ""))
    for arguments in (["check"], ["preview", str(logs)], ["buffer", "show"]):
        written = on_a_terminal([*arguments, "-c", str(config)])
        assert written
        assert not steers(written), (arguments, written)


_LOGGER = """
import sys
from pathlib import Path
import structlog
from siemrelay.telemetry.log import Redactor, configure

configure("info", sys.argv[1], Redactor(["secret"]))
for text in sys.argv[2:]:
    structlog.get_logger().warning(
        text, peer=text, path=Path(text), several=[text], error=ValueError(text), **{text: 1})
    try:
        raise ValueError(text)
    except ValueError as error:
        structlog.get_logger().error("failed", exc_info=error)
"""


@pytest.mark.parametrize("form", ["console", "json"])
def test_no_field_of_the_log_steers_a_terminal_or_begins_a_line(form: str) -> None:
    texts = [text.replace("\0", "") for text in STEERING.values()]
    texts.append('x\n{"event": "forged"}\r\n2026-01-01 [error] forged')
    done = subprocess.run(
        [sys.executable, "-c", _LOGGER, form, *texts], capture_output=True, text=True, check=True,
        timeout=60,
    )  # fmt: skip
    assert not steers(done.stderr)
    lines = done.stderr.splitlines()
    if form == "json":
        assert done.stderr.isascii()
        assert len(lines) == 2 * len(texts)
        assert [json.loads(line)["event"] for line in lines[::2]] == texts
    else:
        assert not [line for line in lines if line.startswith(("{", "2026-01-01"))]

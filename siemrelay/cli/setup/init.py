"""`siemrelay init`: writes a first configuration from a few answers."""

from __future__ import annotations

import grp
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import yaml

from siemrelay.cli.config_faults import exit_with_faults
from siemrelay.cli.refusal import refuse
from siemrelay.cli.setup.first_config import (
    Answers,
    credentials,
    render,
    required_keys,
    sink_fault,
    source_fault,
    source_keys,
)
from siemrelay.config.load import load_text
from siemrelay.config.presets import PRESETS
from siemrelay.core.errors import ConfigurationRefused
from siemrelay.core.own_commands import DEFAULT_FILE
from siemrelay.products.product import BUILT_IN

_CREDENTIALS = Path("/etc/siemrelay/credentials")


@click.command()
@click.option("-c", "--config", metavar="FILE", default=DEFAULT_FILE, show_default=True,
              help="The file to write, which must not exist; - prints it.")  # fmt: skip
@click.option("--siem", type=click.Choice([*PRESETS]), help="The SIEM that gets the events.")
@click.option("--source", metavar="FROM", help="A file or glob (/var/log/alm/audit.json), an "
              "address to listen on (udp://0.0.0.0:514), or journal.")  # fmt: skip
@click.option("--product", type=click.Choice([*BUILT_IN]), default="generic", metavar="NAME",
              show_default=True,
              help="What writes the records: a known product, like github.")  # fmt: skip
@click.option("--server", metavar="HOST", help="The receiver's name or address.")
@click.option("--url", metavar="URL", help="The receiver's address, for HTTP; without secrets.")
@click.option("--port", type=click.IntRange(1, 65535), help="If it is not the SIEM's own.")
@click.option("--name", metavar="NAME", help="The sink's name. [default: the SIEM's]")
@click.option("--set", "more", metavar="KEY=VALUE", multiple=True,
              help="Another key of the sink, like --set protocol=tls.")  # fmt: skip
def init(
    config: str, siem: str | None, source: str | None, product: str, server: str | None,
    url: str | None, port: int | None, name: str | None, more: tuple[str, ...],
) -> None:  # fmt: skip
    """Write a first configuration with comments, and say what to do next.

    Asks on a terminal for what the options leave open. It never overwrites a file, and asks for no
    secret: the file refers to credentials, and the last lines say how to store them. Exits with 64
    if the file exists, 78 if the answers do not make a valid configuration.

    \b
    Examples:
      siemrelay init
      siemrelay init --siem splunk --url https://splunk:8088 --source /var/log/alm/audit.json
      siemrelay init --siem qradar --server qradar.example.com --source udp://0.0.0.0:5514
    """
    if config != "-" and Path(config).exists():
        refuse(f"{config} exists; edit it, or write another file with -c FILE", os.EX_USAGE)
    if source is not None and (fault := source_fault(source)):
        raise click.UsageError(f"--source {source}: {fault}")
    siem = siem or _ask("SIEM", "--siem", choices=[*PRESETS])
    source = source or _ask("Source (file, glob or address)", "--source", source_fault)
    keys: dict[str, Any] = {"server": server, "url": url, "port": port}
    keys = {key: value for key, value in keys.items() if value is not None}
    keys.update(_pair(pair) for pair in more)
    if siem == "sentinel" and "url" in keys:
        keys["endpoint"] = keys.pop("url")
    missing = required_keys(siem, keys)
    if siem == "generic" and missing == ["server"]:
        receiver = _ask("Receiver (a host, or http(s)://…)", "--server … or --url …",
                        lambda answer: sink_fault(siem, keys, _key_of(answer), answer))  # fmt: skip
        keys[_key_of(receiver)], missing = receiver, []
    options = " ".join(map(_option, missing))
    for key in missing:
        keys[key] = _ask(f"{siem}: {key}", options, partial(sink_fault, siem, {**keys}, key))
    answers = Answers(siem, source, product, name or siem, keys)
    _refuse_secrets(answers)
    text = render(answers, DEFAULT_FILE if config == "-" else config)
    try:
        # Secrets may be stored later; the file says where.
        loaded = load_text(text, config, need_credentials=False, only_sinks=[])
    except ConfigurationRefused as refused:
        exit_with_faults(refused, "no file was written")
    if loaded.inline_secrets:
        refuse(
            "an answer holds a secret: leave it out, and write ${credential:NAME} in its place",
            os.EX_USAGE,
        )
    if config == "-":
        click.echo(text, nl=False)
        return
    _write(Path(config), text)
    files = [fault.message for fault in loaded.unread if "credential" not in fault.message]
    _say_next(answers, config, files)


def _option(key: str) -> str:
    return f"--{key} …" if key in ("server", "url") else f"--set {key}=…"


def _key_of(receiver: str) -> str:
    return "url" if "://" in receiver else "server"


def _may_ask() -> bool:
    return sys.stdin.isatty()


def _ask(
    what: str, option: str, fault: Callable[[str], str | None] = lambda answer: None,
    choices: list[str] | None = None,
) -> str:  # fmt: skip
    """Ask until the answer has no fault. Without a terminal the option must be given."""
    if not _may_ask():
        raise click.UsageError(f"give {option}{': ' if choices else ''}{', '.join(choices or ())}")

    def checked(answer: str) -> str:
        if wrong := fault(answer):
            raise click.UsageError(wrong)
        return answer

    answer: str = (
        click.prompt(what, type=click.Choice(choices), err=True) if choices
        else click.prompt(what, value_proc=checked, err=True)
    )  # fmt: skip
    return answer


def _pair(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise click.UsageError(f"--set {text}: write KEY=VALUE")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError:
        return key, value


def _refuse_secrets(answers: Answers) -> None:
    """A URL of Sumo Logic is its own secret; other secrets are found in the loaded file."""
    if answers.siem != "sumologic":
        return
    last = urlsplit(str(answers.keys.get("url", ""))).path.rstrip("/").rpartition("/")[2]
    if last != "http":
        refuse("--url: leave out what follows /http/ in the address, which is the secret; the "
               "file takes it from a credential", os.EX_USAGE)  # fmt: skip


def _write(file: Path, text: str) -> None:
    """Write it for root and the service's group. Exits with 64 where that cannot be."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            if os.geteuid() == 0 and (group := _group()) is not None:
                os.fchown(descriptor, -1, group)
            stream.write(text)
    except FileNotFoundError:
        refuse(
            f"there is no directory {file.parent}; `siemrelay install` makes the service's own",
            os.EX_USAGE,
        )
    except OSError as error:
        refuse(f"cannot write {file}: {error.strerror}", os.EX_USAGE)
    click.echo(f"wrote {file}")


def _group() -> int | None:
    try:
        return grp.getgrnam("siemrelay").gr_gid
    except KeyError:
        return None  # not installed as a service


def _say_next(answers: Answers, config: str, absent: list[str]) -> None:
    wanted = credentials(answers)
    service = config == DEFAULT_FILE
    which = "" if service else f" -c {config}"
    click.echo("\nNext:")
    for name, meaning in wanted:
        place = _CREDENTIALS / name
        click.echo(f"  # {meaning}; paste it, then Ctrl-D:")
        click.echo(f"  (umask 077; cat > {place if service else name})")
    if wanted and service:
        lines = "".join(f"LoadCredential={name}:{_CREDENTIALS / name}\\n" for name, _ in wanted)
        folder = "/etc/systemd/system/siemrelay.service.d"
        click.echo(f"  mkdir -p {folder}")
        click.echo(f"  printf '[Service]\\n{lines}' > {folder}/credentials.conf")
        click.echo("  systemctl daemon-reload")
    elif wanted:
        click.echo("  export CREDENTIALS_DIRECTORY=$PWD")
    for message in absent:
        click.echo(f"  # {message}")
    tls = source_keys(answers.source).get("tls")
    if tls:
        click.echo(f"  # put the listener's certificate at {tls['certificate']}, its key (0640, "
                   f"group siemrelay) at {tls['key']}")  # fmt: skip
    click.echo(f"  siemrelay check{which}")
    click.echo(f"  siemrelay test{which} {answers.sink_name}")
    click.echo("  systemctl enable --now siemrelay" if service else f"  siemrelay run{which}")

"""How commands fetch the status of a running relay from its endpoint."""

from __future__ import annotations

import http.client
import os
import socket
import threading
from contextlib import closing, suppress
from functools import partial
from typing import Any, Final, NoReturn

import click
import msgspec

from siemrelay.cli.config_faults import exit_with_faults
from siemrelay.cli.options import config_option
from siemrelay.cli.refusal import refuse
from siemrelay.config.endpoint_address import endpoint_address
from siemrelay.core.errors import ConfigurationRefused
from siemrelay.core.own_commands import DEFAULT_FILE
from siemrelay.formats.writing.text import sanitize_for_display
from siemrelay.telemetry.endpoint_options import EndpointOptions
from siemrelay.telemetry.status import RelayReport

# The relay answers between two batches, after a few look-ups on disk.
ANSWER_S: Final = 10.0
_ANSWER_BYTES: Final = 16 << 20

# An endpoint that listens on every address is reached on the loopback one.
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "*": "127.0.0.1"}


def endpoint_options(command: Any) -> Any:
    """The options `-c FILE` and `--at HOST:PORT`; the command gets `config` and `at`."""
    command = click.option(
        "--at", metavar="HOST:PORT", callback=_address,
        help="The endpoint to ask, instead of the configuration's.",
    )(command)  # fmt: skip
    return config_option()(command)


def _address(context: click.Context, option: click.Parameter, at: str | None) -> Any:
    try:
        address = EndpointOptions(listen=at).address if at is not None else None
    except ValueError:
        address = None
    if at is not None and (address is None or address[1] == 0):
        raise click.BadParameter("write HOST:PORT, like 127.0.0.1:9614")
    return address


def endpoint_of(config: str, at: tuple[str, int] | None) -> tuple[str, int]:
    """The endpoint's host and port; exits with 78 when the configuration does not have one."""
    address = at or _configured(config)
    if address is None:
        refuse(f"{config} sets `endpoint: {{listen: off}}`: no endpoint to ask", os.EX_CONFIG)
    host, port = address
    if port == 0:
        refuse(f"{config} lets the system choose the endpoint's port; take it from the relay's log "
               "and give --at HOST:PORT", os.EX_CONFIG)  # fmt: skip
    return _EVERYWHERE.get(host, host), port


def _configured(config: str) -> tuple[str, int] | None:
    if config == DEFAULT_FILE and not os.access(config, os.R_OK):
        # Only root reads the service's file; the default endpoint answers every local user.
        return EndpointOptions().address
    try:
        return endpoint_address(config)
    except ConfigurationRefused as refused:
        exit_with_faults(refused, "no relay was asked")


def fetch_status(address: tuple[str, int]) -> RelayReport:
    """Fetch the relay's status. Raises RelayUnreachable with a message for a person."""
    host, port = address
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        status, body = _got(host, port)
    except (OSError, ValueError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise RelayUnreachable(sanitize_for_display(
            f"no relay answers on {where} ({why}); is it running? -c FILE names its configuration, "
            "--at HOST:PORT its endpoint"
        )) from error  # fmt: skip
    try:
        return msgspec.json.decode(body, type=RelayReport)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RelayUnreachable(
            f"what answers on {where} is not a siemrelay of this version (HTTP {status}); "
            "--at HOST:PORT names another endpoint"
        ) from error


def warn_of_another(report: RelayReport, config: str) -> None:
    """Warn if the relay at the endpoint of that configuration runs with another file."""
    running = report.config_file
    if running and os.path.realpath(running) != os.path.realpath(config):
        click.secho(
            f"warning: the relay at this address runs with {sanitize_for_display(running)}, not "
            f"with {config}", err=True, fg="yellow",
        )  # fmt: skip


def _got(host: str, port: int) -> tuple[int, bytes]:
    """HTTP status and body of `/status`, within `ANSWER_S` and `_ANSWER_BYTES`."""
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_S)
    with closing(connection):
        connection.connect()
        # The socket's timeout bounds each read; a slow sender could stretch them without end.
        deadline = threading.Timer(ANSWER_S, partial(_hang_up, connection.sock))
        deadline.daemon = True
        deadline.start()
        try:
            connection.request("GET", "/status")
            with connection.getresponse() as answer:
                return answer.status, answer.read(_ANSWER_BYTES)
        finally:
            deadline.cancel()


def _hang_up(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


class RelayUnreachable(Exception):
    """No relay of this version answers at that address; the message says what to do."""


def exit_unreachable(error: RelayUnreachable) -> NoReturn:
    """Print the message and exit with 69 (EX_UNAVAILABLE)."""
    refuse(str(error), os.EX_UNAVAILABLE)

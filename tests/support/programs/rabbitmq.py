"""A real rabbitmq-server for tests: on loopback, in a directory of its own."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from tests.support.daemon import until
from tests.support.servers import free_port, program

# Erlang takes its time to start.
_START_S = 90


class RabbitServer:
    """Runs from `with` to its end."""

    def __init__(self, directory: Path) -> None:
        installed = program("rabbitmq-server", "rabbitmq-server")
        # Not Debian's wrapper, which insists on a user of its own.
        found = sorted(Path("/usr/lib/rabbitmq/lib").glob("*/sbin/rabbitmq-server"))
        self.port = free_port()
        self._command = [str(found[-1]) if found else installed]
        self._environment = {
            **os.environ, "HOME": str(directory), "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_MNESIA_BASE": str(directory / "db"), "RABBITMQ_LOGS": "-",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1", "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()), "ERL_EPMD_PORT": str(free_port()),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(directory / "none"),
            "RABBITMQ_PID_FILE": str(directory / "pid"),
            "ERL_CRASH_DUMP": str(directory / "erl_crash.dump"),
        }  # fmt: skip
        self._log = directory / "rabbitmq.log"
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/%2F"

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

        def up() -> bool:
            assert self._process.poll() is None, self._log.read_text()
            return b"Server startup complete" in self._log.read_bytes()

        try:
            until(up, _START_S, "rabbitmq-server's start")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        # The session has Erlang's port mapper in it, too.
        with suppress(ProcessLookupError):  # its start failed
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def channel(self) -> Any:
        """A channel of a new connection."""
        import pika

        return pika.BlockingConnection(pika.URLParameters(self.url)).channel()

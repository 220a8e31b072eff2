"""A real redis-server for a test: on loopback, in a directory of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Self

from tests.support.daemon import until
from tests.support.servers import free_port, program


class RedisServer:
    """Runs from `with` to its end; `client` talks to it."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.port = free_port()
        self._command = [
            program("redis-server", "redis-server"), "--port", str(self.port),
            "--bind", "127.0.0.1", "--dir", str(directory),
            "--save", "", "--appendonly", "no", *options,
        ]  # fmt: skip
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> Self:
        import redis

        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        self.client: Any = redis.Redis(port=self.port)
        self.no_such_key = redis.ResponseError

        def answers() -> bool:
            try:
                return bool(self.client.ping())
            except redis.AuthenticationError:
                return True
            except redis.ConnectionError:
                return False

        until(answers, what="redis-server's answer")
        return self

    def __exit__(self, *exc: object) -> None:
        self.client.close()
        self.kill()

    def kill(self) -> None:
        """End it, and with it all that it held; `with` it again to start it anew."""
        self._process.kill()
        self._process.wait()

    def add(self, stream: str, records: list[bytes]) -> None:
        """Append these records, one entry each."""
        pipe = self.client.pipeline(transaction=False)
        for record in records:
            pipe.xadd(stream, {"event": record})
        pipe.execute()

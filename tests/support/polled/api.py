"""A JSON API on loopback, as the HTTP poll source asks it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from tests.support.servers import free_port

Answered = tuple[int, Any, dict[str, str]]


class Served:
    """A context in which the server `_server` runs in a thread."""

    _server: ThreadingHTTPServer

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Api(Served):
    """An API on loopback; `answer` takes the query and the headers of a GET."""

    def __init__(self, answer: Callable[[dict[str, str], Any], Answered]) -> None:
        self.asked: list[dict[str, str]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}
                api.asked.append(query)
                status, body, headers = answer(query, self.headers)
                data = body if isinstance(body, bytes) else json.dumps(body, indent=2).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that breaks off is part of the tests."""

        self._server = Server(("127.0.0.1", free_port()), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/audit"

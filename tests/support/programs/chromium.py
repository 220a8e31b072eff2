"""A real Chromium without a window, driven through its DevTools protocol over a pipe."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import RawIOBase
from typing import Any

from tests.support.daemon import until


class Chromium:
    """One browser with one tab."""

    def __init__(self, to_browser: RawIOBase, from_browser: RawIOBase) -> None:
        self._to, self._from, self._rest = to_browser, from_browser, b""
        self._number = 0
        self._session = ""
        self.console: list[str] = []
        """What the page wrote to its console, and errors that nothing caught."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol; its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result
            if answer.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded",
                                        "Runtime.consoleAPICalled"):  # fmt: skip
                self.console.append(json.dumps(answer["params"]))

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            some = self._from.read(1 << 16)
            assert some, "the browser has ended"
            self._rest += some
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def look(self, width: int, height: int = 900, scheme: str = "light", scale: float = 1) -> None:
        """Set the size of the window and the colour scheme."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=scale, mobile=width < 600)  # fmt: skip
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": scheme},
                            {"name": "prefers-reduced-motion", "value": "reduce"}])  # fmt: skip

    def open(self, url: str) -> None:
        """Go to a page."""
        self.call("Page.navigate", url=url)

    def value(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, script: str) -> Any:
        """Wait until the expression is true; its value."""
        return until(lambda: self.value(script), what=script)

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key and let it go."""
        for kind in ("keyDown", "keyUp"):
            typed = text if kind == "keyDown" else ""
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, text=typed,
                      windowsVirtualKeyCode=code)  # fmt: skip

    def picture(self, *, whole: bool = True) -> bytes:
        """A screenshot as PNG."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(found["data"])


@contextmanager
def chromium(program: str) -> Iterator[Chromium]:
    """A browser that ends with the block."""
    read_there, to_browser = os.pipe()
    from_browser, write_there = os.pipe()
    # The protocol is spoken on the descriptors 3 and 4.
    exec_it = f'exec "$@" 3<&{read_there} 4>&{write_there}'
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            ["bash", "-c", exec_it, "bash", program, "--headless", "--no-sandbox", "--disable-gpu",
             "--disable-dev-shm-usage", "--remote-debugging-pipe", f"--user-data-dir={profile}",
             "--no-first-run", "--disable-background-networking", "about:blank"],
            pass_fds=(read_there, write_there), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(read_there)
        os.close(write_there)
        with os.fdopen(to_browser, "wb", 0) as writes, os.fdopen(from_browser, "rb", 0) as reads:
            try:
                yield Chromium(writes, reads)
            finally:
                process.kill()
                process.wait()

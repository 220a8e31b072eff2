"""Talk to systemd: ready, stopping, status and the watchdog (sd_notify(3))."""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable


class Notifier:
    """Sends notifications where systemd asked for them; does nothing elsewhere."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        path = os.environ.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the abstract namespace.
        self._address = "\0" + path[1:] if path.startswith("@") else path
        mine = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._watchdog_us = int(os.environ.get("WATCHDOG_USEC", "0") or 0) if mine else 0
        self._clock, self._status, self._alive_at = clock, "", -math.inf

    @property
    def is_wanted(self) -> bool:
        """Whether anybody is notified."""
        return bool(self._address)

    @property
    def watchdog_interval_s(self) -> float:
        """How often `alive` must be called: half of what systemd allows; for ever without it."""
        return self._watchdog_us / 2e6 if self._watchdog_us else float("inf")

    def ready(self) -> None:
        """The relay reads its sources, by the configuration that it has."""
        self._send("READY=1")

    def reloading(self) -> None:
        """A reload has begun; `ready` says that it is over, done or refused.

        systemd requires the time (CLOCK_MONOTONIC) from 253 on and ignores it before.
        """
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The relay has begun to stop."""
        self._send("STOPPING=1")

    def alive(self, status: str) -> None:
        """Everything makes progress; `status` is shown by `systemctl status`.

        A status that has not changed is sent only as often as the watchdog needs it: each
        notification wakes systemd.
        """
        now = self._clock()
        if status == self._status and now < self._alive_at + self.watchdog_interval_s / 2:
            return
        if self._send(f"STATUS={status}" + ("\nWATCHDOG=1" if self._watchdog_us else "")):
            self._status, self._alive_at = status, now

    def _send(self, text: str) -> bool:
        """Whether it was sent."""
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto(text.encode("utf-8", "replace"), self._address)
        except OSError:
            return False  # without systemd's ear the relay still works; systemd notices by itself
        return True

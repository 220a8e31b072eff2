"""The person who runs a command, and the events that say what was done."""

from __future__ import annotations

import os
import pwd
from typing import Any

from siemrelay.config.models import RelayConfig
from siemrelay.relay.self_audit import spool_event


def person() -> str:
    """The person who runs this: the user that called sudo, else the login name."""
    caller = os.environ.get("SUDO_USER")
    if caller and os.geteuid() == 0:
        return caller
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"


def audit(config: RelayConfig, event_type: str, sink: str, message: str, **attributes: Any) -> None:
    """Leave an event for the relay of that configuration; `message` begins after the person.

    Called before something is done, so that nothing is done without it.
    """
    name = person()
    spool_event(config.state_dir, event_type, name, sink, f"{name} {message}",
                enabled=config.self_audit, uid=os.geteuid(), **attributes)  # fmt: skip

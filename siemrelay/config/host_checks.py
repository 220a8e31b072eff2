"""What a configuration needs from this machine and does not find: PEM files, packages, proxies.

`load` accepts such a configuration: a file may be missing for a while, and only the part that needs
it waits for it. `siemrelay check` reports it as a fault; `siemrelay run` logs it and starts.
"""

from __future__ import annotations

from siemrelay.config.load import Loaded
from siemrelay.config.requirements import missing
from siemrelay.config.yaml_document import in_order
from siemrelay.core.errors import Fault
from siemrelay.sinks.http.client import TransportOptions
from siemrelay.sinks.http.proxies import unusable_proxies


def lacking(loaded: Loaded) -> tuple[list[Fault], list[Fault]]:
    """Faults that are certain, and doubts that this user cannot settle, each with its line.

    Looks at enabled sinks and all sources, and reads the files that they name.
    """
    faults, doubts = missing(loaded.document, loaded.config.sources, loaded.config.sinks)
    for name, sink in loaded.config.sinks.items():
        if sink.enabled and isinstance(sink, TransportOptions):
            # A doubt: the relay may be started with other variables than this command.
            named = next(key for key in ("url", "endpoint") if hasattr(sink, key))
            doubts += [
                loaded.document.fault(
                    ("sinks", name, named), f"no request can be made here: {unusable}"
                )
                for unusable in unusable_proxies()
            ]
    return in_order(faults), in_order(doubts)

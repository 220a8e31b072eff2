"""Resources that a configuration needs and this machine lacks: PEM files, packages, proxies.

`load` accepts such a configuration: a file may be missing for a while, and only the part that needs
it waits for it. `siemrelay check` reports what is certain as a fault; `siemrelay run` logs it and
starts. What another user or moment may settle is a warning of `siemrelay check`.
"""

from __future__ import annotations

from siemrelay.config.load import Loaded
from siemrelay.config.requirements import missing
from siemrelay.config.yaml_document import in_order
from siemrelay.core.errors import Fault


def missing_resources(loaded: Loaded) -> tuple[list[Fault], list[Fault]]:
    """Faults that are certain, and those that this user cannot settle, each with its line.

    Looks at enabled sinks and all sources, and reads the files that they name.
    """
    faults, uncertain = missing(loaded.document, loaded.config.sources, loaded.config.sinks)
    for name, sink in loaded.config.sinks.items():
        # Sinks over HTTP have a URL.
        named = next((key for key in ("url", "endpoint") if hasattr(sink, key)), None)
        if sink.enabled and named is not None:
            # With urllib's requests: a start pays for the parts that it has.
            from siemrelay.sinks.http.proxies import unusable_proxies

            # A doubt: the relay may be started with other variables than this command.
            uncertain += [
                loaded.document.fault(
                    ("sinks", name, named), f"no request can be made here: {unusable}"
                )
                for unusable in unusable_proxies()
            ]
    return in_order(faults), in_order(uncertain)

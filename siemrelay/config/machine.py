"""What a configuration needs of this machine and does not find: PEM files, packages, proxies.

Apart from `load`: a file may be missing for a while, and then a part by itself waits for it; the
others run. `siemrelay check` refuses it, a relay tells of it and starts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import BaseModel

from siemrelay import pem, registry
from siemrelay.config.document import KeyPath
from siemrelay.config.load import Loaded, in_order
from siemrelay.errors import Fault
from siemrelay.extras import Extra
from siemrelay.sinks.http_client import TransportOptions
from siemrelay.sinks.http_proxy import unusable_proxies


def lacking(loaded: Loaded) -> tuple[list[Fault], list[Fault]]:
    """What is certainly missing or wrong here, and what only this user cannot judge.

    Each at its place in the file. Of enabled sinks and of all sources; reads the files they name.
    """
    faults, doubts = list[Fault](), list[Fault]()
    for at, part, extra in _parts(loaded):
        if extra is not None and extra.missing():
            key = (*at, "type" if at[0] == "sources" else "protocol")
            faults.append(loaded.document.fault(key, f"{extra.absence}; {extra.advice}"))
        for path, options in _nested(part, at):
            for finding in pem.findings(options):
                fault = loaded.document.fault((*path, finding.option), finding.message)
                (faults if finding.certain else doubts).append(fault)
        if isinstance(part, TransportOptions):
            # A doubt: the relay may be started with other variables than this command.
            named = next(name for name in ("url", "endpoint") if hasattr(part, name))
            doubts += [
                loaded.document.fault((*at, named), f"no request can be made here: {unusable}")
                for unusable in unusable_proxies()
            ]
    return in_order(faults), in_order(doubts)


def _parts(loaded: Loaded) -> Iterator[tuple[KeyPath, BaseModel, Extra | None]]:
    for name, source in loaded.config.sources.items():
        yield ("sources", name), source, registry.SOURCES[source.type].extra
    for name, sink in loaded.config.sinks.items():
        if sink.enabled:
            yield ("sinks", name), sink, registry.PROTOCOLS[sink.protocol].extra


def _nested(options: BaseModel, at: KeyPath) -> Iterator[tuple[KeyPath, BaseModel]]:
    """The options and all those inside them, each with its place."""
    yield at, options
    for name, info in type(options).model_fields.items():
        value, path = getattr(options, name), (*at, info.alias or name)
        inside: Mapping[str | int, object] = {}
        if isinstance(value, Mapping):
            inside = value
        elif isinstance(value, list):
            inside = dict(enumerate(value))
        for step, item in ((None, value), *inside.items()):
            if isinstance(item, BaseModel):
                yield from _nested(item, path if step is None else (*path, step))

"""What workers format with: the relay's configuration, without its credentials, in bytes."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from siemrelay.config.models import RelayConfig
from siemrelay.config.option_models import sink_model, source_model
from siemrelay.core.options import Secret
from siemrelay.pipeline.formatting import Formatter
from siemrelay.pipeline.workers.cores import usable_cores
from siemrelay.relay.assembly import Assembly
from siemrelay.transforms.redaction.options import RedactOptions, RedactRule

# More than these only wait for the process that owns buffer and connections; measured with one sink
# and with ten formats.
_MOST_BY_DEFAULT: Final = 4


def most_workers(config: RelayConfig) -> int:
    """How many workers there may be at a time. One core is for the relay itself."""
    if config.workers != "auto":
        return config.workers
    return min(usable_cores() - 1, _MOST_BY_DEFAULT)


def worker_tables(config: RelayConfig, sinks: Sequence[str]) -> bytes:
    """A pickled function that makes the formatter of these sinks, numbered as here."""
    stream = io.BytesIO()
    _Pickler(stream, config).dump(partial(_formatter, config, [*sinks], Assembly(config).number))
    return stream.getvalue()


def _formatter(config: RelayConfig, sinks: Sequence[str], number: str) -> Formatter:
    assembly = Assembly(config, number)
    return assembly.formatter({name: assembly.sink_format(name) for name in sinks})


def _redact(rules: list[RedactRule], key: str | None) -> RedactOptions:
    return RedactOptions.model_construct(rules=rules, key=None if key is None else Secret(key))


class _Pickler(pickle.Pickler):
    """Leaves secrets out, and names the models that were made for each combination of parts.

    Only the key of pseudonyms goes along: messages are made with it.
    """

    def __init__(self, stream: io.BytesIO, config: RelayConfig) -> None:
        super().__init__(stream, pickle.HIGHEST_PROTOCOL)
        self._models: dict[Any, Any] = {
            type(sink): (sink_model, (sink.protocol, sink.format)) for sink in config.sinks.values()
        } | {
            type(source): (source_model, (source.type, source.decoder))
            for source in config.sources.values()
        }  # fmt: skip

    def reducer_override(self, value: Any) -> Any:
        """See `pickle`."""
        if isinstance(value, RedactOptions):
            return _redact, (value.rules, None if value.key is None else str(value.key))
        if isinstance(value, Secret):
            return Secret, ("",)
        if isinstance(value, type):
            return self._models.get(value, NotImplemented)
        return NotImplemented

"""CSV → events: rows under declared columns, or the objects that a file's header line made."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field

from siemrelay.core.event_types import Catalogue
from siemrelay.core.options import NonEmpty
from siemrelay.decoders.contract import (
    MAX_TIME_AHEAD_S,
    MAX_TIME_PAST_S,
    Decoder,
    DecoderKind,
    ZonedOptions,
)
from siemrelay.decoders.field_records import FieldsDecoder
from siemrelay.decoders.fields import Spellings
from siemrelay.decoders.json.decoder import JsonDecoder
from siemrelay.decoders.times import zone_of
from siemrelay.wire.framing.contract import Framing
from siemrelay.wire.framing.csv_rows import CsvFraming, Dialect, named

_Character = Annotated[str, Field(min_length=1, max_length=1, pattern=r"[^\r\n]")]


class CsvOptions(ZonedOptions):
    """Settings of the decoder `csv`."""

    columns: Annotated[list[NonEmpty], Field(min_length=1)] | None = Field(
        None,
        description="the names of the values, in order, where the file has no header line (one "
        "that repeats them is left out). Without it the first line of each file is its header, and "
        "every row is stored as a JSON object under its names",
    )
    delimiter: _Character = Field(",", description="the character between two values")
    quote: _Character = Field(
        '"', description="the character around values that contain a delimiter or line feed"
    )


def _built(
    spellings: Spellings, wanted: frozenset[str], catalogue: Catalogue,
    columns: list[str] | None = None, delimiter: str = ",", quote: str = '"',
    timezone: str = "UTC",
    max_time_past: float = MAX_TIME_PAST_S, max_time_ahead: float = MAX_TIME_AHEAD_S,
) -> Decoder:  # fmt: skip
    zone = zone_of(timezone)
    if columns is None:
        return JsonDecoder(spellings, wanted, catalogue, max_time_past, max_time_ahead, zone=zone)
    dialect, names = Dialect(delimiter, quote), tuple(columns)

    def read(text: str) -> dict[str, Any] | None:
        values = dialect.values(text)
        return None if values is None else named(names, values)

    return FieldsDecoder(read, spellings, wanted, catalogue, max_time_past, max_time_ahead, zone)


def _framing(options: CsvOptions, max_record_bytes: int) -> Framing:
    return CsvFraming(Dialect(options.delimiter, options.quote), options.columns, max_record_bytes)


CSV: Final = DecoderKind(
    CsvOptions, _built, "CSV: rows under the names of `columns`, or of each file's header line",
    _framing, lambda record: "no row with as many values as there are columns",
)  # fmt: skip

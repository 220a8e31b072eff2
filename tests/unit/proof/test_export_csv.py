"""The rows of a CSV at once are those that the csv module reads one by one."""

from __future__ import annotations

import csv
import io
from itertools import zip_longest
from typing import Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from siemrelay.proof.exports.csv_columns import _plain_columns, csv_columns
from siemrelay.proof.exports.lines import blocks_of_lines

WIDTH = 2
CELLS = st.one_of(
    st.sampled_from(["", '""', "a", 'a""b', '"a,b"', '"{""n"":1}"', '""""', '"""a"', '"a"b', 'a"b',
                     ' "a"', '"a\nb"', '"\n"', '"a\r\nb"', "a\rb", "\0", '"\1"', "é", "\udcff"]),
    st.text(st.sampled_from('",\n\r\0\1\2a'), max_size=6),
)  # fmt: skip
ROW = st.one_of(st.lists(CELLS, min_size=WIDTH, max_size=WIDTH), st.lists(CELLS, max_size=4))
TEXT = st.lists(st.tuples(ROW, st.sampled_from(["\n", "\r\n"])), max_size=4).map(
    lambda rows: "".join(",".join(cells) + end for cells, end in rows)
)


def with_care(text: str) -> list[list[str]] | None:
    """Rows that are not empty as the csv module reads them; None for what it refuses."""
    lines = text.removesuffix("\n").split("\n") if text else []
    try:
        return [row for row in csv.reader(f"{line}\n" for line in lines) if any(row)]
    except csv.Error:
        return None


@given(text=TEXT)
@example(text='a""b,c\n')
@example(text='"a",x\0\n"b",\n')
@example(text='"a"",b\n')
@example(text='"a"b,c\n')
@example(text="a,b,\n,c\r\n")
@example(text="a,\2,b\n")
@example(text="a,b,c\nd\n")
@example(text='a,"\0b"\n')
def test_plain_rows_of_a_csv_are_read_as_the_csv_module_reads_them(text: str) -> None:
    lines = text.encode("utf-8", "surrogateescape").removesuffix(b"\n").split(b"\n")
    columns = _plain_columns(lines, WIDTH)
    if columns is not None and any(map(all, columns)):
        assert list(map(list, zip(*columns, strict=True))) == with_care(text)


@given(text=TEXT, cut=st.integers(1, 60))
def test_rows_of_a_csv_do_not_depend_on_the_pieces_in_which_it_is_read(text: str, cut: int) -> None:
    text = f"x,y\n{text}"
    data, rows = text.encode("utf-8", "surrogateescape"), with_care(text)
    try:
        got = read([data[i : i + cut] for i in range(0, len(data), cut)])
    except ValueError:
        assert rows is None
        return
    assert rows is not None
    assert got == [
        [*row[:WIDTH], *[""] * (WIDTH - len(row)), *filter(None, row[WIDTH:][-1:])] for row in rows
    ]


def read(pieces: list[bytes]) -> list[list[str]]:
    """Rows, in which an empty cell behind the last column is left out."""
    return [
        list(row) if any(row[WIDTH:]) else list(row[:WIDTH])
        for columns, lines in csv_columns(blocks_of_lines(pieces), WIDTH)
        for row, _ in zip_longest(zip(*columns, strict=True), lines)
    ]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_rows_as_programs_write_them_do_without_the_csv_module(
    quoting: Literal[0, 1, 2], ending: str
) -> None:
    rows = [["now", '{"n": "1", "m": "a, "b""}'], ["", 'a "b"'], ["é, x", "2"], ["\\", 'x "']]
    out = io.StringIO()
    csv.writer(out, quoting=quoting, lineterminator=ending).writerows(rows)
    lines = out.getvalue().encode().removesuffix(b"\n").split(b"\n")
    columns = _plain_columns(lines, WIDTH)
    assert columns == [list(column) for column in zip(*rows, strict=True)]

"""CSV as it is really published."""

import gzip
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

from shepherd.errors import TaskFailedError
from shepherd.store.memory import MemoryStore
from shepherd.worker.data import data_type
from shepherd.worker.delimited import unique_names
from shepherd.worker.desk import Desk

Read = Callable[..., pl.DataFrame]


@pytest.fixture
def read(tmp_path: Path) -> Iterator[Read]:
    with Desk(MemoryStore(), prefix="runs/1", scratch=tmp_path) as desk:

        def call(
            content: str | bytes, *, name: str = "data.csv", media_type: str = "text/csv", as_: Any = pl.DataFrame
        ) -> Any:
            raw = content.encode() if isinstance(content, str) else content
            return data_type(as_).decode(desk.put(raw, name=name, media_type=media_type), desk)

        yield call


CLEAN = 'name,size,day\nZoë,1.5,2024-02-29\n"Müller, ""Otto""\r\njun.",2,2024-03-01\n,NA,\n'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "latin-1"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_encoding_and_separator_make_no_difference(read: Read, encoding: str, separator: str) -> None:
    rows = CLEAN.replace('"Müller, ', "'").replace(",", separator).replace("'", '"Müller, ')

    assert read(rows.encode(encoding)).to_dict(as_series=False) == {
        "name": ["Zoë", 'Müller, "Otto"\r\njun.', None],
        "size": [1.5, 2.0, None],
        "day": [date(2024, 2, 29), date(2024, 3, 1), None],
    }


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_make_no_difference(read: Read, end: str) -> None:
    assert read(f"a,b{end}1,x{end}2,y{end}").to_dict(as_series=False) == {"a": [1, 2], "b": ["x", "y"]}


def test_windows_1252_is_found_after_a_long_beginning_of_ascii(read: Read) -> None:
    content = b"a,b\n" + b"x,1\n" * 100_000 + "Straße €,2\n".encode("cp1252")

    assert read(content)["a"][-1] == "Straße €"


def test_a_stated_charset_is_used_where_it_is_not_utf_8(read: Read) -> None:
    content = "łódź,n\nŻółw,1\n".encode("iso8859-2")

    assert read(content, media_type="text/csv; charset=iso-8859-2").to_dict(as_series=False) == {
        "łódź": ["Żółw"],
        "n": [1],
    }


def test_two_thousand_columns(read: Read) -> None:
    names = [f"c{n}" for n in range(2_000)]

    frame = read(",".join(names) + "\n" + "\n".join(",".join([str(row)] * 2_000) for row in range(3)))

    assert frame.columns == names
    assert frame["c1999"].to_list() == [0, 1, 2]


def test_an_empty_file_is_a_table_without_columns_and_a_header_one_without_rows(read: Read) -> None:
    assert read("").shape == (0, 0)
    assert read("\n\n").shape == (0, 0)
    assert read("a,b").schema == {"a": pl.String, "b": pl.String}
    assert read("a;b\r\n").shape == (0, 2)


def test_columns_without_a_name_of_their_own_get_one(read: Read) -> None:
    assert read("a,a,,a_2\n1,2,3,4\n").columns == ["a", "a_3", "column_3", "a_2"]
    assert unique_names(["x", "x", "x"]) == ["x", "x_2", "x_3"]
    assert unique_names([" ", ""]) == ["column_1", "column_2"]


def test_a_row_with_too_many_fields_is_refused_with_its_line(read: Read) -> None:
    rows = 'a,b\n1,"two\nlines"\n' + "2,x\n" * 20_000 + "3,4,5\n"

    with pytest.raises(TaskFailedError, match="line 20004 has 3 fields, but the header names 2") as raised:
        read(rows)
    assert raised.value.code == "invalid_data"


def test_a_quote_that_is_not_closed_is_refused_with_its_line(read: Read) -> None:
    with pytest.raises(TaskFailedError, match=r"line 3: .*is a quote not closed"):
        read('a,b\n1,x\n2,"y\n3,z\n')


def test_short_rows_are_filled_up_and_empty_fields_too_many_are_none(read: Read) -> None:
    assert read("a,b,c\n1\n1,2\n").rows() == [(1, None, None), (1, 2, None)]
    assert read("a,b\n1,2,\n3,4,,\n").rows() == [(1, 2), (3, 4)]


def test_blank_lines_are_no_rows(read: Read) -> None:
    assert read("\na,b\n1,2\n\n\r\n3,4\n\n").rows() == [(1, 2), (3, 4)]


def test_quotes_inside_a_field_that_does_not_begin_with_one_are_text(read: Read) -> None:
    assert read('a,b\n1,5"\n2,"u, v"\n3,6"\n')["b"].to_list() == ['5"', "u, v", '6"']


def test_the_line_with_which_excel_is_told_the_separator_is_no_row(read: Read) -> None:
    assert read("sep=;\na;b\n1;2,5\n").rows() == [(1, 2.5)]


def test_many_missing_values_before_the_first_one_do_not_hide_what_a_column_is(read: Read) -> None:
    frame = read("a,b,c\n" + ",NA,1\n" * 50_000 + "1.5,2020-01-01,1\n")

    assert frame.schema == {"a": pl.Float64, "b": pl.Date, "c": pl.Int64}
    assert frame.row(-1) == (1.5, date(2020, 1, 1), 1)


def test_later_rows_that_are_unlike_the_first_change_what_a_column_is(read: Read) -> None:
    frame = read("a,b,c\n" + "1,1,2020-01-01\n" * 20_000 + "1.5,x,never\n")

    assert frame.schema == {"a": pl.Float64, "b": pl.String, "c": pl.String}
    assert frame.row(-1) == (1.5, "x", "never")
    assert frame.row(0) == (1.0, "1", "2020-01-01")


@pytest.mark.parametrize(
    ("early", "late", "type_"),
    [
        ("12345", "00501", pl.String),
        ("12345", "-01", pl.String),
        ("12345", "+00", pl.String),
        ("12345", "1234567890123456789", pl.String),
        ("12345", "-123456789012345678", pl.Int64),
        ("12345", "0", pl.Int64),
        ("12345", "-0", pl.Int64),
        ("12345", "+5", pl.Int64),
        ("12345", " 5", pl.String),
        ("12345", "1e5", pl.Float64),
        ("1.5", "00.5", pl.String),
        ("1.5", "-007", pl.String),
        ("1.5", "1234567890123456789", pl.String),
        ("1.5", "inf", pl.String),
        ("1.5", "-Infinity", pl.String),
        ("1.5", "NAN", pl.String),
        ("1.5", "1e999", pl.String),
        ("1.5", "1e300", pl.Float64),
        ("1.5", "-0.25", pl.Float64),
        ("1.5", "0e0", pl.Float64),
        ("1,5", "1.234", pl.String),
        ("1,5", "01,5", pl.String),
        ("1,5", "-0,5", pl.Float64),
        ("2024-01-31", "2024-2-1", pl.String),
        ("2024-01-31", "+2024-02-01", pl.String),
        ("2024-01-31 10:00:00", "2024-1-31 10:00:00", None),
        ("true", "1", pl.String),
        ("true", "T", pl.String),
    ],
)
def test_a_value_far_down_is_read_as_one_at_the_top_is(read: Read, early: str, late: str, type_: Any) -> None:
    rows = [early] * 10_000

    far_down = read("x;y\n" + "".join(f"{value};{n}\n" for n, value in enumerate([*rows, late])))
    at_the_top = read("x;y\n" + "".join(f"{value};{n}\n" for n, value in enumerate([late, *rows])))

    assert far_down.schema == at_the_top.schema
    assert far_down["x"].dtype == (type_ or at_the_top["x"].dtype)
    assert far_down["x"].to_list() == at_the_top["x"].to_list()[1:] + at_the_top["x"].to_list()[:1]
    assert far_down["y"].to_list() == list(range(10_001))


@pytest.mark.parametrize(
    ("values", "read_as"),
    [
        (["1", "-2"], [1, -2]),
        (["1", "2.5", "1e3"], [1.0, 2.5, 1000.0]),
        (["true", "False", "TRUE"], [True, False, True]),
        (["2020-01-31", "1999-12-01"], [date(2020, 1, 31), date(1999, 12, 1)]),
        (
            ["2020-01-31 10:00:00", "2020-01-31 10:00:00.5"],
            [datetime.fromisoformat("2020-01-31T10:00"), datetime.fromisoformat("2020-01-31T10:00:00.500")],
        ),
        (["2020-01-31T10:00:00Z"], [datetime(2020, 1, 31, 10, tzinfo=UTC)]),
        (["00501", "12345"], ["00501", "12345"]),
        (["1", "12345678901234567890"], ["1", "12345678901234567890"]),
        (["2020-02-30", "2020-01-01"], ["2020-02-30", "2020-01-01"]),
        (["31.01.2020"], ["31.01.2020"]),
        (["1,5", "2", "10,25"], [1.5, 2.0, 10.25]),
        (["0,125"], [0.125]),
        (["1,234", "2,345"], ["1,234", "2,345"]),
        (["1.234,56"], ["1.234,56"]),
    ],
)
def test_values_decide_what_a_column_is_and_none_is_lost(read: Read, values: list[str], read_as: list[Any]) -> None:
    assert read("x;y\n" + "".join(f"{value};z\n" for value in values))["x"].to_list() == read_as


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("data", "application/octet-stream"),
        ("data", "application/vnd.ms-excel"),
        ("data.txt", "text/plain"),
        ("data.csv", "application/force-download"),
        ("export.csv.gz", "application/gzip"),
        ("export", "binary/octet-stream"),
    ],
)
def test_what_a_server_says_of_a_file_counts_less_than_its_bytes(read: Read, name: str, media_type: str) -> None:
    content = b"a,b\n1,x\n"

    frame = read(gzip.compress(content) if name.endswith("gz") else content, name=name, media_type=media_type)

    assert frame.rows() == [(1, "x")]


def test_a_page_in_place_of_a_table_is_called_one(read: Read) -> None:
    with pytest.raises(TaskFailedError, match=r"data\.csv is a web page, not a table"):
        read("<!DOCTYPE html>\n<html><body>404</body></html>")
    with pytest.raises(TaskFailedError, match="is image/png, which isn't read as a table"):
        read(b"\x89PNG\r\n\x1a\n\0\0\0", name="a.png", media_type="image/png")


def test_pandas_gets_the_same_columns(read: Read) -> None:
    frame: Any = read("zip;n\n00501;1,5\n", as_=pd.DataFrame)

    assert frame.to_dict("list") == {"zip": ["00501"], "n": [1.5]}

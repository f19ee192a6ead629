"""Columns that go from an input's file into a result's as they lie there."""

import tempfile
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from shepherd.worker.footer import raw_footer, read_footer
from shepherd.worker.splice import ParquetFile
from shepherd.worker.tables import scan, write_lazy
from shepherd.worker.thrift import read_struct, write_struct
from shepherd.worker.untouched import write_with_untouched

ROWS = 250
FRAME = pl.DataFrame(
    {
        "number": [None if row % 7 == 0 else row for row in range(ROWS)],
        "share": [row / 3 for row in range(ROWS)],
        "name": [None if row % 11 == 0 else f"näme {row % 5}" for row in range(ROWS)],
        "is_odd": [row % 2 == 1 for row in range(ROWS)],
        "day": [date(2024, 1, 1) + timedelta(days=row) for row in range(ROWS)],
        "at": [datetime(2024, 1, 1) + timedelta(seconds=row) for row in range(ROWS)],  # noqa: DTZ001
        "empty": [None] * ROWS,
        "list": [[row, row + 1] for row in range(ROWS)],
        "kind": [["low", "high"][row % 2] for row in range(ROWS)],
    },
    schema_overrides={"empty": pl.Int32, "kind": pl.Enum(["low", "high"])},
)
Plan = Callable[[pl.LazyFrame], pl.LazyFrame]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.parquet"
    write_lazy(FRAME.lazy(), path, group_rows=100)
    return path


PARTLY_UNTOUCHED: dict[str, Plan] = {
    "as it is": lambda frame: frame,
    "dropped": lambda frame: frame.drop("share", "list"),
    "renamed": lambda frame: frame.rename({"number": "count", "day": "date"}),
    "names changed over": lambda frame: frame.rename({"number": "share", "share": "number"}),
    "another order": lambda frame: frame.select("name", "number", "at"),
    "twice": lambda frame: frame.with_columns(pl.col("name").alias("label")),
    "added": lambda frame: frame.with_columns((pl.col("number") * 2).alias("double"), pl.lit("x").alias("same")),
    "replaced": lambda frame: frame.with_columns(pl.col("name").str.to_uppercase()),
    "retyped": lambda frame: frame.with_columns(pl.col("number").cast(pl.String)),
    "against the mean": lambda frame: frame.with_columns(pl.col("share") - pl.col("share").mean()),
    "renamed and replaced": lambda frame: frame.rename({"name": "old"}).with_columns(
        pl.col("old").str.len_chars().alias("name"), pl.col("share").alias("old")
    ),
    "of the row before": lambda frame: frame.with_columns(pl.col("number").shift(1).alias("before")),
    "by a function": lambda frame: frame.with_columns(
        pl.col("number").map_batches(lambda series: series + 1, return_dtype=pl.Int64)
    ),
}


@pytest.mark.parametrize("name", PARTLY_UNTOUCHED)
def test_a_result_with_copied_columns_is_what_the_plan_says(source: Path, tmp_path: Path, name: str) -> None:
    frame = PARTLY_UNTOUCHED[name](scan(source))

    assert write_with_untouched(frame, tmp_path / "result.parquet", inputs=[source])

    assert_frame_equal(pl.read_parquet(tmp_path / "result.parquet"), PARTLY_UNTOUCHED[name](FRAME.lazy()).collect())


COMPUTED: dict[str, Plan] = {
    "fewer rows": lambda frame: frame.filter(pl.col("number") > 100),
    "the first": lambda frame: frame.head(10),
    "in another order": lambda frame: frame.sort("share", descending=True),
    "grouped": lambda frame: frame.group_by("is_odd").agg(pl.col("share").sum()).sort("is_odd"),
    "different ones": lambda frame: frame.unique("name", maintain_order=True, keep="first"),
    "numbered": lambda frame: frame.with_row_index(),
    "joined": lambda frame: frame.join(frame.select("number", other="share"), on="number", maintain_order="left"),
    "one after the other": lambda frame: pl.concat([frame, frame]),
    "one for all": lambda frame: frame.select(pl.col("number").sum()),
    "exploded": lambda frame: frame.select("number", "list").explode("list"),
    "nothing of the file": lambda frame: frame.select(pl.col("number") + 1),
    "filtered by another step": lambda frame: frame.with_columns(pl.col("share") * 2).filter("is_odd").drop("list"),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_where_rows_are_not_those_of_the_file_all_is_computed(source: Path, tmp_path: Path, name: str) -> None:
    frame = COMPUTED[name](scan(source))

    assert not write_with_untouched(frame, tmp_path / "result.parquet", inputs=[source])

    write_lazy(frame, tmp_path / "result.parquet")
    assert_frame_equal(pl.read_parquet(tmp_path / "result.parquet"), COMPUTED[name](FRAME.lazy()).collect())


def test_a_sum_beside_an_untouched_column_stands_in_every_row(source: Path, tmp_path: Path) -> None:
    frame = scan(source).select("number", pl.col("share").sum())
    target = tmp_path / "result.parquet"

    if not write_with_untouched(frame, target, inputs=[source]):
        write_lazy(frame, target)

    assert_frame_equal(pl.read_parquet(target), FRAME.select("number", pl.col("share").sum()))


def test_what_is_left_alone_is_not_encoded_again(tmp_path: Path) -> None:
    source, target = tmp_path / "source.parquet", tmp_path / "result.parquet"
    FRAME.write_parquet(source, compression="uncompressed", row_group_size=100)
    frame = scan(source).with_columns(pl.col("share") * 2)

    assert write_with_untouched(frame, target, inputs=[source])

    codecs = {name: chunks[0][3][4] for name, chunks in ParquetFile(target).chunks[0].items()}
    assert codecs["number"] == codecs["name"] == 0
    assert codecs["share"] == 6


def test_a_file_that_is_no_input_is_left_alone(source: Path, tmp_path: Path) -> None:
    assert not write_with_untouched(scan(source).drop("name"), tmp_path / "result.parquet", inputs=[])


def test_what_another_library_has_written_is_encoded_anew(tmp_path: Path) -> None:
    source = tmp_path / "source.parquet"
    pa.parquet.write_table(FRAME.drop("kind").to_arrow(), source)

    assert not write_with_untouched(scan(source).drop("name"), tmp_path / "result.parquet", inputs=[source])


def test_row_groups_that_differ_are_written_anew(tmp_path: Path) -> None:
    source, target = tmp_path / "source.parquet", tmp_path / "result.parquet"
    with pa.parquet.ParquetWriter(source, FRAME.select("number").to_arrow().schema) as writer:
        for rows in (10, 30, 20):
            writer.write_table(FRAME.select("number").head(rows).to_arrow())

    assert not write_with_untouched(scan(source), target, inputs=[source])


def test_a_plan_that_fails_says_so(source: Path, tmp_path: Path) -> None:
    frame = scan(source).with_columns(pl.col("name").cast(pl.Int64))

    with pytest.raises(pl.exceptions.PolarsError, match="conversion"):
        write_with_untouched(frame, tmp_path / "result.parquet", inputs=[source])


def test_other_libraries_and_the_card_read_what_was_joined(source: Path, tmp_path: Path) -> None:
    frame = scan(source).drop("is_odd").with_columns(pl.col("share") * 2)
    joined, written = tmp_path / "joined.parquet", tmp_path / "written.parquet"

    assert write_with_untouched(frame, joined, inputs=[source])

    write_lazy(frame, written, group_rows=100)
    assert pa.parquet.read_table(joined).equals(pa.parquet.read_table(written))
    assert read_footer(joined) == read_footer(written)


@pytest.mark.parametrize("library", ["polars", "pyarrow"])
def test_a_footer_is_written_as_it_was_read(tmp_path: Path, library: str) -> None:
    path = tmp_path / "data.parquet"
    if library == "polars":
        FRAME.write_parquet(path, row_group_size=3)
    else:
        pa.parquet.write_table(FRAME.drop("kind").to_arrow(), path, row_group_size=3, write_page_index=True)
    raw = raw_footer(path)

    assert write_struct(read_struct(raw)) == raw


VALUES: dict[str, tuple[pl.DataType, st.SearchStrategy[Any]]] = {
    "i": (pl.Int64(), st.integers(-(2**63), 2**63 - 1)),
    "f": (pl.Float64(), st.floats()),
    "s": (pl.String(), st.text(st.characters(codec="utf-8"), max_size=20)),
    "d": (pl.Date(), st.dates()),
    "b": (pl.Boolean(), st.booleans()),
}


@given(st.data(), st.integers(1, 60), st.integers(1, 20))
def test_any_values_come_out_as_they_went_in(data: st.DataObject, rows: int, group_rows: int) -> None:
    columns = {
        name: pl.Series(name, data.draw(st.lists(st.none() | values, min_size=rows, max_size=rows)), dtype=dtype)
        for name, (dtype, values) in VALUES.items()
    }
    names = data.draw(st.permutations(list(columns)))[: data.draw(st.integers(1, len(columns)))]
    frame = pl.DataFrame(columns)

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "source.parquet"), Path(folder, "result.parquet")
        write_lazy(frame.lazy(), source, group_rows=group_rows)
        plan = scan(source).select(*names, pl.col("i").is_null().alias("is_missing"))
        assert write_with_untouched(plan, target, inputs=[source])
        result = pl.read_parquet(target)

    assert_frame_equal(result, frame.select(*names, pl.col("i").is_null().alias("is_missing")))

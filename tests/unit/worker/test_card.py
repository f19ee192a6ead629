"""What a worker says of a result, from what lies at hand."""

import struct
import zlib
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shepherd.store.memory import MemoryStore
from shepherd.wire import strict_json
from shepherd.wire.card import CARD_LIMIT
from shepherd.wire.value import NOTHING, Value
from shepherd.worker import result
from shepherd.worker.card import card_of
from shepherd.worker.desk import Desk
from shepherd.worker.footer import read_footer

FLIGHTS = pl.DataFrame(
    {
        "carrier": ["UA", None, "B6"],
        "delay": [2.0, float("nan"), -1.5],
        "day": [date(2013, 1, 1), date(2013, 1, 2), None],
        "seats": [149, 178, 20],
    }
)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Desk(MemoryStore(), prefix="runs/1", scratch=tmp_path) as made:
        yield made


def _card(desk: Desk, returned: Any, source: Value = NOTHING) -> dict[str, Any]:
    card = card_of(result.encode(returned, desk), source, desk)
    assert card is not None
    assert len(strict_json.dumps(card)) <= CARD_LIMIT
    return card


def test_a_table_is_told_by_its_rows_its_columns_and_its_first_rows(desk: Desk) -> None:
    card = _card(desk, FLIGHTS.lazy())

    assert (card["kind"], card["rows"], card["column_count"]) == ("table", 3, 4)
    assert card["columns"] == [
        {"name": "carrier", "type": "string", "nulls": 1, "min": "B6", "max": "UA"},
        {"name": "delay", "type": "float64", "nulls": 0, "min": -1.5, "max": 2.0},
        {"name": "day", "type": "date", "nulls": 1, "min": "2013-01-01", "max": "2013-01-02"},
        {"name": "seats", "type": "int64", "nulls": 0, "min": 20, "max": 178},
    ]
    assert card["first"][1] == [None, "nan", "2013-01-02", 178]
    assert card["media_type"] == "application/vnd.apache.parquet"
    assert len(card["sha256"]) == 64
    assert card["size"] > 0


def test_a_table_tells_what_changed_against_the_input(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "flights.parquet"
    FLIGHTS.write_parquet(file)
    source = result.encode(file, desk)
    changed = FLIGHTS.drop("day").head(2).with_columns(pl.col("seats").cast(pl.String), plane=1)

    assert _card(desk, changed, source)["change"] == {
        "rows_in": 3,
        "rows_out": 2,
        "added": ["plane"],
        "removed": ["day"],
        "retyped": [{"name": "seats", "from": "int64", "to": "string"}],
    }


def test_a_csv_input_counts_too(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "flights.csv"
    FLIGHTS.write_csv(file)

    change = _card(desk, FLIGHTS.head(1), result.encode(file, desk))["change"]

    assert (change["rows_in"], change["rows_out"], change["added"], change["removed"]) == (3, 1, [], [])


GERMAN = "Straße;PLZ;Größe\r\nHauptstraße;01067;1,5\r\nMühlweg;99084;2\r\n".encode("cp1252")


def test_a_csv_file_is_told_as_a_task_would_read_it(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "orte.csv"
    file.write_bytes(GERMAN)

    card = _card(desk, file)

    assert (card["kind"], card["rows"], card["media_type"]) == ("table", 2, "text/csv")
    assert [(column["name"], column["type"]) for column in card["columns"]] == [
        ("Straße", "string"),
        ("PLZ", "string"),
        ("Größe", "float64"),
    ]
    assert card["first"] == [["Hauptstraße", "01067", 1.5], ["Mühlweg", "99084", 2.0]]


def test_of_a_large_csv_file_only_the_first_rows_are_looked_at(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "large.csv"
    file.write_bytes(b"a;b\n" + b"1;x\n" * 5_000_000)

    card = _card(desk, file, result.encode(file, desk))

    assert card["columns"] == [{"name": "a", "type": "int64"}, {"name": "b", "type": "string"}]
    assert "rows" not in card
    assert card["first"] == [[1, "x"]] * 20
    assert (card["change"]["rows_in"], card["change"]["added"], card["change"]["retyped"]) == (None, [], [])


@pytest.mark.parametrize("frame", [FLIGHTS.to_pandas(), FLIGHTS.to_arrow()], ids=["pandas", "pyarrow"])
def test_every_frame_library_gets_the_same_card(desk: Desk, frame: Any) -> None:
    card = _card(desk, frame)

    assert (card["rows"], [column["name"] for column in card["columns"]]) == (3, FLIGHTS.columns)
    assert card["first"][0][0] == "UA"


def test_a_card_of_a_wide_table_with_long_values_still_fits(desk: Desk) -> None:
    wide = pl.DataFrame({f"a column with number {n} of {'many' * 30}": ["x" * 5000, "ü" * 200] for n in range(2000)})

    card = _card(desk, wide)

    assert (card["rows"], card["column_count"]) == (2, 2000)
    assert card["columns"]


@settings(max_examples=40, deadline=None)
@given(
    integers=st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=30),
    texts=st.lists(st.one_of(st.none(), st.text(max_size=20)), min_size=1, max_size=30),
    group=st.integers(1, 7),
)
def test_a_footer_says_what_the_data_says(
    tmp_path_factory: pytest.TempPathFactory, integers: list[int | None], texts: list[str | None], group: int
) -> None:
    size = min(len(integers), len(texts))
    frame = pl.DataFrame({"i": integers[:size], "t": texts[:size]}, schema={"i": pl.Int64, "t": pl.String})
    path = tmp_path_factory.mktemp("footer") / "x.parquet"
    frame.write_parquet(path, row_group_size=group)

    footer = read_footer(path)

    assert footer is not None
    assert footer.rows == size
    for column in footer.columns:
        values = [value for value in frame[column.name] if value is not None]
        assert column.nulls == size - len(values)
        assert (column.min, column.max) == ((min(values), max(values)) if values else (None, None))


@settings(max_examples=200, deadline=None)
@given(where=st.integers(0, 10**6), value=st.integers(0, 255))
def test_a_broken_footer_is_no_footer_and_no_crash(
    tmp_path_factory: pytest.TempPathFactory, where: int, value: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "broken.parquet"
    FLIGHTS.write_parquet(path)
    raw = bytearray(path.read_bytes())
    raw[-8 - where % 600] = value
    path.write_bytes(raw)

    read_footer(path)


def test_what_is_no_parquet_file_has_no_footer(tmp_path: Path) -> None:
    empty, text = tmp_path / "empty", tmp_path / "text"
    empty.write_bytes(b"")
    text.write_bytes(b"carrier,delay\nUA,2\n")

    assert read_footer(empty) is read_footer(text) is None


def test_times_are_told_as_times(desk: Desk) -> None:
    frame = pd.DataFrame({"at": [datetime(2013, 1, 1, 5), datetime(2013, 1, 1, 6)]})  # noqa: DTZ001

    [column] = _card(desk, frame)["columns"]

    assert (column["type"], column["min"], column["max"]) == ("datetime", "2013-01-01T05:00:00", "2013-01-01T06:00:00")


def test_times_with_a_zone_are_told_in_utc_as_such(desk: Desk) -> None:
    at = pl.Series("at", [datetime(2013, 1, 1, 5, tzinfo=UTC)]).dt.convert_time_zone("Asia/Kolkata")

    [column] = _card(desk, at.to_frame())["columns"]

    assert (column["min"], column["max"]) == ("2013-01-01T05:00:00+00:00",) * 2


def test_a_value_that_python_cannot_hold_costs_only_its_own_figures(desk: Desk) -> None:
    far = pl.Series("at", [2**60]).cast(pl.Datetime("us"))

    card = _card(desk, pl.DataFrame([far, pl.Series("n", [1])]))

    assert card["first"] == [["+38504-08-17 21:30:06.846976", 1]]
    assert card["columns"] == [
        {"name": "at", "type": "datetime", "nulls": 0},
        {"name": "n", "type": "int64", "nulls": 0, "min": 1, "max": 1},
    ]


def test_an_index_without_a_name_is_no_column_of_a_card(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "flights.parquet"
    FLIGHTS.write_parquet(file)
    source = result.encode(file, desk)

    card = _card(desk, FLIGHTS.to_pandas().iloc[[2, 0]], source)

    assert (card["column_count"], [column["name"] for column in card["columns"]]) == (4, FLIGHTS.columns)
    assert (card["change"]["added"], card["change"]["rows_out"]) == ([], 2)


def test_odd_frames_have_cards(desk: Desk) -> None:
    assert _card(desk, pl.DataFrame())["column_count"] == 0
    assert _card(desk, pd.DataFrame(index=range(3)))["column_count"] == 0
    odd = pl.DataFrame(
        {
            "list": [[1, 2], None],
            "struct": [{"a": 1}, {"a": None}],
            "decimal": pl.Series(["1.10", None]).cast(pl.Decimal(10, 2)),
            "category": pl.Series(["a", "b"], dtype=pl.Categorical),
            "binary": [b"\xff\x00", b""],
            "float": [float("inf"), float("-inf")],
            "duration": pl.Series([1, 2]).cast(pl.Duration("ms")),
            "time": pl.Series([1, 2]).cast(pl.Time),
            "huge": pl.Series([2**63, 2**64 - 1], dtype=pl.UInt64),
            "null": [None, None],
        }
    )

    card = _card(desk, odd.lazy())

    assert [column["name"] for column in card["columns"]] == odd.columns
    assert len(card["first"]) == 2
    assert card["columns"][8]["max"] == str(2**64 - 1)


def _png(width: int, height: int) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))


_JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0\xff\xc0\0\x11\x08" + struct.pack(">HH", 30, 40) + b"\3"
_TIFF = (
    b"II*\0\x08\0\0\0\2\0"
    + struct.pack("<HHIHH", 256, 3, 1, 640, 0)
    + struct.pack("<HHII", 257, 4, 1, 480)
    + b"\0\0\0\0"
)


@pytest.mark.parametrize(
    ("name", "content", "size"),
    [
        ("a.png", _png(800, 600), (800, 600)),
        ("a.jpg", _JPEG, (40, 30)),
        ("a.tif", _TIFF, (640, 480)),
    ],
)
def test_an_image_is_told_by_its_pixels(
    desk: Desk, tmp_path: Path, name: str, content: bytes, size: tuple[int, int]
) -> None:
    file = tmp_path / name
    file.write_bytes(content)

    card = _card(desk, file)

    assert (card["kind"], card["width"], card["height"]) == ("image", *size)


def test_a_broken_image_has_a_card_without_pixels(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"\x89PNG")

    assert set(_card(desk, file)) == {"kind", "size", "sha256", "media_type"}


def test_text_and_json_are_told_by_their_beginning(desk: Desk, tmp_path: Path) -> None:
    notes, places = tmp_path / "notes.txt", tmp_path / "places.json"
    notes.write_text("one\ntwo\nthree")
    places.write_text('{"a": 1, "b": [2]}')

    text, document = _card(desk, notes), _card(desk, places)

    assert (text["kind"], text["lines"], text["first"]) == ("text", 3, "one\ntwo\nthree")
    assert (document["kind"], document["type"], document["keys"]) == ("json", "object", ["a", "b"])


def test_a_folder_of_many_folders_is_not_counted_by_half(desk: Desk, tmp_path: Path) -> None:
    for number in range(1500):
        (tmp_path / "maps" / str(number)).mkdir(parents=True)
        (tmp_path / "maps" / str(number) / "a.txt").touch()

    assert "items" not in _card(desk, tmp_path / "maps")


def test_a_folder_and_several_values_are_told_by_what_they_hold(desk: Desk, tmp_path: Path) -> None:
    folder = tmp_path / "maps"
    folder.mkdir()
    (folder / "a.txt").write_text("one")
    (folder / "b.txt").write_text("three")

    files, parts = _card(desk, folder), _card(desk, {"flights": FLIGHTS, "rows": 3})

    assert (files["kind"], files["items"]) == ("folder", 2)
    assert files["files"] == [{"name": "a.txt", "size": 3}, {"name": "b.txt", "size": 5}]
    assert (parts["kind"], [part["name"] for part in parts["files"]]) == ("values", ["flights", "rows"])
    assert parts["files"][0]["media_type"] == "application/vnd.apache.parquet"


def test_what_travels_inline_has_no_card(desk: Desk) -> None:
    assert card_of(result.encode({"a": 1}, desk), NOTHING, desk) is None

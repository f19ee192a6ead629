"""JSON, Excel and XML as tables."""

import gzip
import io
import json
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import xlsxwriter

from shepherd.errors import TaskFailedError
from shepherd.store.memory import MemoryStore
from shepherd.worker import tabulate
from shepherd.worker.data import data_type
from shepherd.worker.desk import Desk

Read = Callable[..., Any]
ROWS = {"a": [1, 2], "b": ["x", None]}


@pytest.fixture
def read(tmp_path: Path) -> Iterator[Read]:
    with Desk(MemoryStore(), prefix="runs/1", scratch=tmp_path) as desk:

        def call(
            content: str | bytes, *, name: str, media_type: str = "application/octet-stream", as_: Any = pl.DataFrame
        ) -> Any:
            raw = content.encode() if isinstance(content, str) else content
            return data_type(as_).decode(desk.put(raw, name=name, media_type=media_type), desk)

        yield call


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("records.json", '[{"a": 1, "b": "x"},\n {"a": 2}]'),
        ("columns.json", '{"a": [1, 2], "b": ["x", null]}'),
        ("pandas.json", '{"a": {"0": 1, "1": 2}, "b": {"0": "x", "1": null}}'),
        ("lines.ndjson", '{"a": 1, "b": "x"}\n{"a": 2, "b": null}\n'),
        ("lines.jsonl", '{"a": 1, "b": "x"}\n\n{"a": 2}'),
        ("lines.json", '{"a": 1, "b": "x"}\n{"a": 2}\n'),
        ("unnamed", ' \n[{"a": 1, "b": "x"}, {"a": 2}] '),
        ("rows.xml", "<t><r><a>1</a><b>x</b></r><r><a>2</a><b/></r></t>"),
        ("socrata.xml", '<response><row><row a="1"><b>x</b></row><row a="2"/></row></response>'),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_every_form_of_a_table_is_read(read: Read, name: str, content: str, encoding: str) -> None:
    head = '<?xml version="1.0" encoding="utf-16"?>' if encoding == "utf-16" and name.endswith("xml") else ""

    assert read((head + content).encode(encoding), name=name).to_dict(as_series=False) == ROWS


@pytest.mark.parametrize("as_", [pl.LazyFrame, pd.DataFrame, pa.Table])
def test_every_library_gets_what_came_as_json(read: Read, as_: Any) -> None:
    assert isinstance(read('[{"a": 1}]', name="records.json", as_=as_), as_)


def test_a_list_of_records_longer_than_a_chunk_is_read_in_order(read: Read) -> None:
    records = [{"n": n, "text": f'a ], }} \\ " ä\n{"x" * (3_000_000 if n == 3 else n % 50)}'} for n in range(20_000)]

    frame = read(json.dumps(records, indent=1), name="records.json")

    assert frame["n"].to_list() == list(range(20_000))
    assert frame["text"].to_list() == [record["text"] for record in records]


def test_a_list_without_records_is_a_table_without_columns(read: Read) -> None:
    assert read("[]", name="none.json").shape == (0, 0)
    assert read("", name="none.ndjson").shape == (0, 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"a": 1}, 5]', "item 1 of the list is no object"),
        ('[{"a": 1}, {"a": ', "item 1 of the list isn't whole"),
        ('[{"a": NaN}]', "NaN is no number in JSON"),
        ('{"count": 1, "results": [{"a": 1}]}', r"neither a list of records nor an object of columns .*count, results"),
        ('{"a": [1], "b": [1, 2]}', "neither a list of records"),
        ('[{"a": {"x": 1}}, {"a": 5}]', "its records don't make a table"),
    ],
)
def test_json_that_is_no_table_says_why(read: Read, content: str, message: str) -> None:
    with pytest.raises(TaskFailedError, match=message) as raised:
        read(content, name="data.json")
    assert raised.value.code == "invalid_data"


def test_geojson_stays_json(read: Read) -> None:
    content = '{"type": "FeatureCollection", "features": []}'

    assert read(content, name="map.geojson", as_=dict) == json.loads(content)
    for name in ("map.geojson", "map.json"):
        with pytest.raises(TaskFailedError, match="is GeoJSON, which stays as it is; declare dict"):
            read(content, name=name)


def _workbook(*rows: list[Any]) -> bytes:
    file = io.BytesIO()
    with xlsxwriter.Workbook(file, {"default_date_format": "yyyy-mm-dd"}) as book:
        sheet = book.add_worksheet()
        for number, row in enumerate(rows):
            sheet.write_row(number, 0, row)
    return file.getvalue()


def test_the_first_sheet_of_a_workbook_is_a_table(read: Read) -> None:
    content = _workbook(["a", "", "day"], [1, "x", date(2024, 2, 29)], [2.5, None, None])

    frame = read(content, name="export", media_type="application/vnd.ms-excel")

    assert frame.to_dict(as_series=False) == {
        "a": [1.0, 2.5],
        "column_2": ["x", None],
        "day": [date(2024, 2, 29), None],
    }
    assert read(_workbook(), name="empty.xlsx").shape == (0, 0)
    with pytest.raises(TaskFailedError, match="can't be read as Excel"):
        read(content[:400], name="broken.xlsx")


def test_rows_of_xml_are_typed_and_nested_values_named_by_their_way(read: Read) -> None:
    content = """<?xml version="1.0" encoding="iso-8859-1"?>
    <ns:export xmlns:ns="urn:x"><made>2024</made><places>
      <place id="007"><name>Z\xfcrich</name><at><lat>47.4</lat></at><tag>a</tag><tag>b</tag></place>
      <place id="008"><name>&amp; \n co</name><at><lat>1</lat></at></place>
    </places></ns:export>"""

    assert read(content.encode("latin-1"), name="export.xml").to_dict(as_series=False) == {
        "id": ["007", "008"],
        "name": ["Zürich", "& \n co"],
        "at.lat": [47.4, 1.0],
        "tag": ["a|b", None],
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x><r>&b;</r><r/></x>', "it declares entities"),
        ('<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x><r>&a;</r></x>', "it declares entities"),
        ("<x><r></x>", "mismatched tag"),
        ("<x>text</x>", "no element in it repeats"),
        ("<x>" * 200 + "</x>" * 200, "more than 100 levels"),
    ],
)
def test_xml_that_is_dangerous_or_no_table_is_refused(read: Read, content: str, message: str) -> None:
    with pytest.raises(TaskFailedError, match=message) as raised:
        read(content, name="data.xml")
    assert raised.value.code == "invalid_data"


def test_what_is_compressed_is_recognised_inside(read: Read) -> None:
    assert read(gzip.compress(b'{"a": 1}\n{"a": 2}\n'), name="lines.ndjson.gz")["a"].to_list() == [1, 2]


def test_what_expands_as_no_table_does_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tabulate, "_ALWAYS_EXPANDED", 1000)
    bomb = gzip.compress(b"0" * 3_000_000)

    with (
        Desk(MemoryStore(), prefix="runs/1", scratch=tmp_path) as desk,
        pytest.raises(TaskFailedError, match="expands to more than"),
    ):
        data_type(pl.DataFrame).decode(desk.put(bomb, name="a.csv.gz", media_type="application/gzip"), desk)

    assert not list(tmp_path.rglob("*"))


def test_a_workbook_that_would_fill_the_memory_is_refused(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tabulate, "_LARGEST_WORKBOOK", 100)
    content = io.BytesIO()
    with xlsxwriter.Workbook(content) as book:
        book.add_worksheet().write_row(0, 0, ["a", "b"])

    with pytest.raises(TaskFailedError, match="bytes without compression"):
        read(content.getvalue(), name="a.xlsx")

"""What a task returned, given out over the API: its card, its data in every form, its rows."""

import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import polars as pl
import pytest
from django.conf import settings
from django.http import FileResponse
from django.test import override_settings
from polars.testing import assert_frame_equal

from shepherd.api.turns import Turns
from shepherd.errors import TransientError
from shepherd.pipelines.models import Run, Task
from shepherd.store import Store, open_store
from shepherd.wire.document import DOCUMENT, Fields, Items, to_document
from shepherd.wire.value import ClaimCheck, Inline, Value
from tests.support.web import Api, browser, faults_of, pipeline

FLIGHTS = pl.DataFrame(
    {
        "carrier": ["UA", None, 'Bü, "6"\n'],
        "delay": [2.5, -1.0, None],
        "seats": [149, 178, 2**60],
        "day": [date(2013, 1, 1), None, date(2013, 1, 3)],
    }
)
PARQUET = "application/vnd.apache.parquet"
Returned = Callable[..., str]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    url = (tmp_path / "store").as_uri()
    with override_settings(SHEPHERD=replace(settings.SHEPHERD, store_url=url)):
        yield open_store(url)


@pytest.fixture
def returned(api: Api, store: Store) -> Returned:
    """Returns the address of a task that has returned something."""

    def make(value: Value | pl.DataFrame, *, card: Any = None, status: str = "succeeded") -> str:
        made = api.post(pipeline("scrape", "upload")).json()
        if isinstance(value, pl.DataFrame):
            value = _left(store, value)
        task = Task.objects.filter(run=Run.objects.get(id=made["id"]), position=0)
        task.update(status=status, result=value.to_wire() if status == "succeeded" else None, card=card)
        return f"/runs/{made['number']}/tasks/1"

    return make


def _left(store: Store, frame: pl.DataFrame) -> ClaimCheck:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return store.put(buffer.getvalue(), key="runs/1/result.parquet", media_type=PARQUET)


def _body(response: Any) -> bytes:
    assert response.status_code == 200, b"".join(response)
    return b"".join(response.streaming_content) if response.streaming else response.content


def test_a_card_is_given_out_as_the_worker_left_it(api: Api, returned: Returned) -> None:
    card = {"kind": "table", "rows": 3, "columns": [{"name": "ä", "type": "int64", "min": 1}]}

    assert api.get(f"{returned(FLIGHTS, card=card)}/card").json() == card


def test_what_has_no_card_is_told_by_itself(api: Api, returned: Returned) -> None:
    inline = api.get(f"{returned(Inline({'rows': 3}))}/card").json()
    claim = api.get(f"{returned(FLIGHTS)}/card").json()

    assert (inline["kind"], inline["type"], inline["keys"]) == ("json", "object", ["rows"])
    assert (claim["kind"], claim["media_type"]) == ("file", PARQUET)


def test_data_comes_as_it_lies_in_the_store(api: Api, returned: Returned) -> None:
    response = api.get(f"{returned(FLIGHTS)}/data")

    content = _body(response)
    assert_frame_equal(pl.read_parquet(content), FLIGHTS)
    assert response["Content-Type"] == PARQUET
    assert int(response["Content-Length"]) == len(content)
    assert response["Content-Disposition"].startswith('attachment; filename="run-')
    assert response["Content-Disposition"].endswith('-scrape.parquet"')


@pytest.mark.parametrize(
    ("form", "read"),
    [
        ("parquet", pl.read_parquet),
        ("csv", lambda content: pl.read_csv(content, try_parse_dates=True)),
        ("json", lambda content: pl.DataFrame(json.loads(content)).with_columns(pl.col("day").str.to_date())),
    ],
)
def test_a_table_comes_in_the_form_that_is_asked_for(
    api: Api, returned: Returned, form: str, read: Callable[[bytes], pl.DataFrame]
) -> None:
    response = api.get(f"{returned(FLIGHTS)}/data", format=form)

    assert_frame_equal(read(_body(response)), FLIGHTS)
    assert response["Content-Disposition"].endswith(f'.{form}"')


def test_a_sheet_of_excel_holds_headings_and_rows(api: Api, returned: Returned, tmp_path: Path) -> None:
    content = _body(api.get(f"{returned(FLIGHTS)}/data", format="xlsx"))

    cells = _cells(content)
    assert cells[0] == ["carrier", "delay", "seats", "day"]
    assert cells[1] == ["UA", "2.5", "149", "2013-01-01"]
    assert str(2**60) in cells[3]


def _cells(content: bytes) -> list[list[str]]:
    """Read a sheet as Excel would: cell by cell, texts inline."""
    space = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
    with zipfile.ZipFile(io.BytesIO(content)) as book:
        sheet = ET.fromstring(book.read("xl/worksheets/sheet1.xml"))
    return [["".join(cell.itertext()) for cell in row] for row in sheet.iter(f"{space}row")]


def test_an_empty_table_is_an_empty_list(api: Api, returned: Returned) -> None:
    assert json.loads(_body(api.get(f"{returned(FLIGHTS.clear())}/data", format="json"))) == []


def test_a_list_of_records_is_a_table_too(api: Api, returned: Returned) -> None:
    address = returned(Inline([{"a": 1, "b": "x"}, {"a": 2, "b": None}]))

    assert _body(api.get(f"{address}/data", format="csv")) == b"a,b\n1,x\n2,\n"
    assert json.loads(_body(api.get(f"{address}/data"))) == [{"a": 1, "b": "x"}, {"a": 2, "b": None}]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-8-sig"])
def test_a_csv_file_is_read_as_a_task_would_read_it(api: Api, returned: Returned, store: Store, encoding: str) -> None:
    content = 'Straße;PLZ;Größe\r\n"Haupt;\r\nstraße";01067;1,5\r\nMühlweg;99084;2\r\n'.encode(encoding)
    address = returned(store.put(content, key="runs/1/orte.csv", media_type="text/csv"))

    rows = api.get(f"{address}/rows", limit=1, offset=1).json()
    everything = json.loads(_body(api.get(f"{address}/data", format="json")))

    assert rows["rows"] == [["Mühlweg", "99084", 2.0]]
    assert [column["type"] for column in rows["columns"]] == ["String", "String", "Float64"]
    assert everything == [
        {"Straße": "Haupt;\r\nstraße", "PLZ": "01067", "Größe": 1.5},
        {"Straße": "Mühlweg", "PLZ": "99084", "Größe": 2.0},
    ]
    assert _body(api.get(f"{address}/data")) == content


def test_rows_far_down_in_a_csv_file_are_found(api: Api, returned: Returned, store: Store) -> None:
    content = b"n\n" + b"".join(b"%d\n" % n for n in range(30_000))
    address = returned(store.put(content, key="runs/1/n.csv", media_type="text/csv"))

    assert api.get(f"{address}/rows", limit=2, offset=29_999).json()["rows"] == [[29_999]]


def test_a_csv_file_that_cannot_be_read_as_a_table_is_refused_with_the_reason(
    api: Api, returned: Returned, store: Store
) -> None:
    address = returned(store.put(b"a,b\n1,2,3\n", key="runs/1/n.csv", media_type="text/csv"))

    response = api.get(f"{address}/rows")

    assert response.status_code == 406
    assert "line 2 has 3 fields, but the header names 2" in response.json()["error"]["message"]


def test_what_is_no_table_is_refused_in_the_form_of_one(api: Api, returned: Returned) -> None:
    for path in ("data", "rows"):
        response = api.get(f"{returned(Inline({'rows': 3}))}/{path}", **({"format": "csv"} if path == "data" else {}))

        assert response.status_code == 406
        assert response.json()["error"]["code"] == "not_acceptable"
        assert "no list of records" in response.json()["error"]["message"]


def test_an_unknown_form_is_named(api: Api, returned: Returned) -> None:
    response = api.get(f"{returned(FLIGHTS)}/data", format="pdf")

    assert response.status_code == 422
    assert faults_of(response) == {"format": "must be one of csv, json, parquet, xlsx, or left out; is 'pdf'"}


ODD = pl.DataFrame(
    {
        "list": [[1, None], None],
        "struct": [{"a": 'x,"y"', "b": [True]}, {"a": None, "b": []}],
        "array": pl.Series([[1.5, 2.0], None], dtype=pl.Array(pl.Float64, 2)),
        "binary": [b"\xff\x00", None],
        "decimal": pl.Series(["1.10", None]).cast(pl.Decimal(10, 2)),
        "category": pl.Series(["a", None], dtype=pl.Categorical),
        "float": [float("inf"), float("nan")],
        "duration": pl.Series([1500, None]).cast(pl.Duration("ms")),
        "time": pl.Series([0, None]).cast(pl.Time),
        "zone": pl.Series([0, None]).cast(pl.Datetime("us", "Asia/Kolkata")),
        "huge": pl.Series([2**64 - 1, None], dtype=pl.UInt64),
        "far": pl.Series([2**60, None]).cast(pl.Datetime("us")),
        "null": [None, None],
    }
)


def test_a_table_of_odd_types_comes_in_every_form(api: Api, returned: Returned) -> None:
    address = returned(ODD)

    content = {form: _body(api.get(f"{address}/data", format=form)) for form in ("csv", "json", "parquet", "xlsx")}
    rows = api.get(f"{address}/rows").json()["rows"]

    assert_frame_equal(pl.read_parquet(content["parquet"]), ODD)
    first, second = pl.read_csv(content["csv"], infer_schema=False).rows(named=True)
    assert json.loads(first["list"]) == [1, None]
    assert json.loads(first["struct"]) == {"a": 'x,"y"', "b": [True]}
    assert (first["array"], first["binary"], first["decimal"]) == ("[1.5,2.0]", "ff00", "1.10")
    assert (second["list"], second["array"], second["binary"]) == (None, None, None)
    objects = json.loads(content["json"])
    assert [each["list"] for each in objects] == [[1, None], None]
    assert (objects[0]["binary"], objects[0]["duration"], first["duration"]) == ("ff00", 1.5, "1.5")
    assert _cells(content["xlsx"])[0] == ODD.columns
    assert (rows[0][0], rows[0][6], rows[1][6]) == ([1, None], "inf", "nan")


def test_no_text_becomes_a_formula_in_excel(api: Api, returned: Returned) -> None:
    evil = ["=1+1", "{=1+1}", "+1", "-1", "@SUM(1)", "http://example.org", "1"]

    content = _body(api.get(f"{returned(pl.DataFrame({'{=2+2}': evil}))}/data", format="xlsx"))

    assert [cell for [cell] in _cells(content)] == ["{=2+2}", *evil]
    with zipfile.ZipFile(io.BytesIO(content)) as book:
        sheet = book.read("xl/worksheets/sheet1.xml")
    assert b"<f" not in sheet
    assert b"hyperlink" not in sheet


@pytest.mark.parametrize("form", ["", "csv", "xlsx"])
def test_a_file_is_sent_without_a_thread_and_leaves_nothing(
    api: Api, returned: Returned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))

    response = api.get(f"{returned(FLIGHTS)}/data", format=form)

    # What the server takes over as a file, through WSGI's `file_wrapper`.
    assert isinstance(response, FileResponse)
    assert not list((tmp_path / "temporary").iterdir())
    assert len(_body(response)) == int(response["Content-Length"])


def test_a_table_without_columns_has_every_form(api: Api, returned: Returned) -> None:
    address = returned(pl.DataFrame())

    assert all(_body(api.get(f"{address}/data", format=form)) for form in ("csv", "json", "parquet", "xlsx"))
    assert api.get(f"{address}/rows").json()["rows"] == []


def test_what_only_says_that_it_is_a_table_is_refused(api: Api, returned: Returned, store: Store) -> None:
    text = store.put(b"PAR1 or not", key="runs/1/a.parquet", media_type=PARQUET)
    number = store.put(b"7", key="runs/1/a.json", media_type="application/json")

    for value in (text, number, replace(number, size=10**9)):
        address = returned(value)
        assert api.get(f"{address}/data", format="csv").status_code == 406
        assert api.get(f"{address}/rows").status_code == 406


def test_a_media_type_that_is_none_does_no_harm(api: Api, returned: Returned, store: Store) -> None:
    claim = store.put(b"x", key="runs/1/a", media_type="text/html\r\nSet-Cookie: a=b")

    response = api.get(f"{returned(claim)}/data")

    assert (_body(response), response["Content-Type"]) == (b"x", "application/octet-stream")


def test_each_of_several_values_is_given_out(api: Api, returned: Returned, store: Store) -> None:
    table = _left(store, FLIGHTS)
    parts = Fields({"late": table, "a/b~c": Inline({"n": 1}), "more": Items([Inline("text"), table])})
    document = store.put(to_document(parts), key="runs/1/result.json", media_type=DOCUMENT)
    address = returned(document)

    late = api.get(f"{address}/data", part="late", format="csv")
    rows = api.get(f"{address}/rows", part="/more/1", limit=1)

    assert b"UA" in _body(late)
    assert late["Content-Disposition"].endswith('-scrape-late.csv"')
    assert rows.json()["rows"][0][0] == "UA"
    assert json.loads(_body(api.get(f"{address}/data", part="/a~1b~0c"))) == {"n": 1}
    assert _body(api.get(f"{address}/data", part="more/0")) == b"text"
    for unknown in ("early", "more", "more/2", "more/-1", "more/x", "late/0", "/"):
        refused = api.get(f"{address}/data", part=unknown)
        assert refused.status_code == 404, unknown
    assert "'late', 'a/b~c', 'more'" in api.get(f"{address}/data", part="early").json()["error"]["message"]
    assert api.get(f"{returned(FLIGHTS)}/data", part="late").status_code == 404
    assert "with `part`" in api.get(f"{address}/data", format="csv").json()["error"]["message"]


def test_what_takes_long_leaves_the_server_room_for_others() -> None:
    turns = Turns(1, patience_s=0.01)

    with turns.one(), pytest.raises(TransientError, match="busy"), turns.one():
        pass
    with turns.one():
        pass


def test_rows_come_with_the_columns_that_are_asked_for(api: Api, returned: Returned) -> None:
    address = returned(FLIGHTS, card={"rows": 3})

    answer = api.get(f"{address}/rows", columns="seats,carrier", limit=1, offset=1).json()

    assert answer == {
        "columns": [{"name": "seats", "type": "Int64"}, {"name": "carrier", "type": "String"}],
        "rows": [[178, None]],
        "offset": 1,
        "limit": 1,
        "total": 3,
    }
    assert api.get(f"{address}/rows").json()["rows"][0] == ["UA", 2.5, 149, "2013-01-01"]


def test_an_unknown_column_and_too_many_rows_are_named(api: Api, returned: Returned) -> None:
    address = returned(FLIGHTS)

    unknown = api.get(f"{address}/rows", columns="seats,plane")
    too_many = api.get(f"{address}/rows", limit=1001)

    assert (unknown.status_code, too_many.status_code) == (422, 422)
    assert "'plane'" in faults_of(unknown)["columns"]
    assert set(faults_of(too_many)) == {"limit"}


def test_a_task_that_is_not_there_or_has_not_returned_says_so(api: Api, returned: Returned) -> None:
    address = returned(FLIGHTS)
    run = address.rpartition("/tasks")[0]

    for path in ("card", "data", "rows"):
        assert api.get(f"{run}/tasks/7/{path}").status_code == 404
        assert api.get(f"/runs/999999/tasks/1/{path}").status_code == 404
        pending = api.get(f"{run}/tasks/upload/{path}")
        assert pending.status_code == 409
        assert "is pending" in pending.json()["error"]["message"]


def test_data_that_is_gone_or_was_changed_is_unavailable(api: Api, returned: Returned, tmp_path: Path) -> None:
    address = returned(FLIGHTS)
    [file] = (tmp_path / "store").rglob("*.parquet")

    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert api.get(f"{address}/data").status_code == 503
    file.unlink()
    assert api.get(f"{address}/rows").status_code == 503


def test_strangers_get_nothing(returned: Returned) -> None:
    address = returned(FLIGHTS)

    assert {browser().get(f"/api/v1{address}/{path}").status_code for path in ("card", "data", "rows")} == {401}

"""The first rows in place of all, for runs that are only tried out."""

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

from shepherd.store.memory import MemoryStore
from shepherd.wire.media import media_type_of
from shepherd.wire.value import ClaimCheck
from shepherd.worker import result
from shepherd.worker.data import data_type
from shepherd.worker.desk import Desk
from shepherd.worker.sample import cut


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Desk(MemoryStore(), prefix="runs/1", scratch=tmp_path) as made:
        yield made


def _cut(desk: Desk, tmp_path: Path, name: str, content: bytes, *, rows: int | None) -> bytes:
    file = tmp_path / name
    file.write_bytes(content)
    value = desk.put(file, name=name, media_type=media_type_of(name))

    cut(value, rows=rows, desk=desk)

    assert desk.read(value) == desk.fetch(value).read_bytes()
    return desk.read(value)


@pytest.mark.parametrize(
    ("whole", "head"),
    [
        (b"a,b\n1,2\n3,4\n5,6\n", b"a,b\n1,2\n3,4\n"),
        (b"a;b\r\n1;2\r\n3;4\r\n5;6", b"a;b\r\n1;2\r\n3;4\r\n"),
        (b'a,b\n"x\ny",2\n"""q"",\n",4\n5,6\n', b'a,b\n"x\ny",2\n"""q"",\n",4\n'),
        ("a,b\nMünster,2\nä,4\n5,6\n".encode("cp1252"), "a,b\nMünster,2\nä,4\n".encode("cp1252")),
        ("a,b\nä,2\nö,4\n5,6\n".encode("utf-16"), "a,b\nä,2\nö,4\n".encode("utf-16")),
        (b'a;b\n1;"x\ny"\n2;"z\n\n"\n3;4\n', b'a;b\n1;"x\ny"\n2;"z\n\n"\n'),
        (b'sep=|\na|b\n\n1|"x\ny"\n3|4\n5|6\n', b'sep=|\na|b\n\n1|"x\ny"\n3|4\n'),
        ("a;b\nä;2\nö;4\n5;6\n".encode("utf-16-le"), "a;b\nä;2\nö;4\n".encode("utf-16-le")),
        (b"a,b\n1,2\n", b"a,b\n1,2\n"),
        (b"", b""),
    ],
    ids=[
        "plain",
        "semicolons",
        "breaks in quotes",
        "windows-1252",
        "utf-16",
        "breaks in quotes after semicolons",
        "separator named",
        "utf-16 without a mark",
        "shorter",
        "empty",
    ],
)
def test_the_head_of_a_csv_file_is_taken_as_it_stands(desk: Desk, tmp_path: Path, whole: bytes, head: bytes) -> None:
    assert _cut(desk, tmp_path, "x.csv", whole, rows=2) == head


def test_the_first_rows_of_a_parquet_file_are_taken(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    pl.DataFrame({"a": range(1000)}).write_parquet(file, row_group_size=100)
    value = result.encode(file, desk)

    cut(value, rows=250, desk=desk)

    assert isinstance(value, ClaimCheck)
    assert pl.read_parquet(desk.fetch(value))["a"].to_list() == list(range(250))


def test_of_a_list_of_records_the_first_are_taken(desk: Desk, tmp_path: Path) -> None:
    assert _cut(desk, tmp_path, "x.json", b'[{"a": 1}, {"a": 2}, {"a": 3}]', rows=2) == b'[{"a":1},{"a":2}]'


@pytest.mark.parametrize(("name", "content"), [("x.json", b'{"a": 1}'), ("x.png", b"\x89PNG"), ("x.json", b"{")])
def test_what_has_no_rows_stays_whole(desk: Desk, tmp_path: Path, name: str, content: bytes) -> None:
    assert _cut(desk, tmp_path, name, content, rows=1) == content


ROWS = [{"a": n, "b": f"x{n}"} for n in range(1, 6)]
CSV = b"a,b\n" + b"".join(b"%d,x%d\n" % (n, n) for n in range(1, 6))
XML = b"<t>" + b"".join(b"<r><a>%d</a><b>x%d</b></r>" % (n, n) for n in range(1, 6)) + b"</t>"


def _workbook() -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame(ROWS).write_excel(buffer)
    return buffer.getvalue()


def _parquet() -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame(ROWS).write_parquet(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "stated", "content"),
    [
        ("x.csv", "text/csv", CSV),
        ("x", "application/csv; charset=utf-8", CSV),
        ("x.csv", "application/vnd.ms-excel", CSV),
        ("x.txt", "text/plain", CSV),
        ("x.csv", "text/csv", CSV.decode().replace(",", ";").encode("utf-16")),
        ("x.tsv", "text/tab-separated-values", CSV.replace(b",", b"\t")),
        ("x.csv.gz", "application/gzip", gzip.compress(CSV, mtime=0)),
        ("x.csv", "text/csv", gzip.compress(CSV, mtime=0)),
        ("x.json", "application/json", json.dumps(ROWS).encode()),
        ("x.json", "text/json", json.dumps(ROWS).encode("utf-16")),
        ("x.json", "application/json", json.dumps(pl.DataFrame(ROWS).to_dict(as_series=False)).encode()),
        ("x.json", "application/json", b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)),
        ("x.ndjson", "application/jsonl", b"\n".join(json.dumps(row).encode() for row in ROWS)),
        ("x.xlsx", "application/octet-stream", _workbook()),
        ("x.csv", "text/csv", _workbook()),
        ("x.xml", "text/xml", XML),
        ("x.parquet", "application/octet-stream", _parquet()),
        ("x", "application/vnd.apache.parquet", _parquet()),
    ],
)
@pytest.mark.parametrize("frame", [pl.DataFrame, pd.DataFrame])
def test_of_everything_that_is_a_table_a_task_gets_the_first_rows(
    desk: Desk, tmp_path: Path, name: str, stated: str, content: bytes, frame: Any
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    value = desk.put(file, name=name, media_type=stated)

    cut(value, rows=2, desk=desk)

    got = data_type(frame).decode(value, desk)
    assert (got if frame is pl.DataFrame else pl.from_pandas(got)).to_dicts() == ROWS[:2]


def test_lines_of_json_and_tabs_are_cut_for_who_takes_the_file(desk: Desk, tmp_path: Path) -> None:
    assert _cut(desk, tmp_path, "x.ndjson", b'{"a":1}\n\n{"a":2}\n{"a":3}\n', rows=2) == b'{"a":1}\n{"a":2}\n'
    assert _cut(desk, tmp_path, "x.tsv", b'a\tb\n1\t"x\ny"\n2\tz\n', rows=1) == b'a\tb\n1\t"x\ny"\n'


def test_what_turns_out_to_be_a_table_when_it_is_read_is_cut_then(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "download"
    file.write_bytes(b"a,b\n1,2\n3,4\n5,6\n")
    value = desk.put(file, name="download", media_type="application/octet-stream")

    cut(value, rows=2, desk=desk)

    assert data_type(pl.LazyFrame).decode(value, desk).collect().rows() == [(1, 2), (3, 4)]


def test_a_run_that_is_no_sample_gets_everything(desk: Desk, tmp_path: Path) -> None:
    assert _cut(desk, tmp_path, "x.csv", b"a\n1\n2\n", rows=None) == b"a\n1\n2\n"

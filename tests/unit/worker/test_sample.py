"""The first rows in place of all, for runs that are only tried out."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from shepherd.store.memory import MemoryStore
from shepherd.wire.value import ClaimCheck
from shepherd.worker import result
from shepherd.worker.data import data_type
from shepherd.worker.desk import Desk
from shepherd.worker.media import media_type_of
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
        (b"a,b\n1,2\n", b"a,b\n1,2\n"),
        (b"", b""),
    ],
    ids=["plain", "semicolons", "breaks in quotes", "windows-1252", "utf-16", "shorter", "empty"],
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


def test_what_turns_out_to_be_a_table_when_it_is_read_is_cut_then(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "download"
    file.write_bytes(b"a,b\n1,2\n3,4\n5,6\n")
    value = desk.put(file, name="download", media_type="application/octet-stream")

    cut(value, rows=2, desk=desk)

    assert data_type(pl.LazyFrame).decode(value, desk).collect().rows() == [(1, 2), (3, 4)]


def test_a_run_that_is_no_sample_gets_everything(desk: Desk, tmp_path: Path) -> None:
    assert _cut(desk, tmp_path, "x.csv", b"a\n1\n2\n", rows=None) == b"a\n1\n2\n"

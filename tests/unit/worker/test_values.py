"""What a task returns, as the next one declares it."""

import io
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from shepherd.errors import TaskFailedError
from shepherd.store.folder import FolderStore
from shepherd.store.memory import MemoryStore
from shepherd.wire.document import DOCUMENT
from shepherd.wire.media import FOLDER, PARQUET
from shepherd.wire.value import ClaimCheck, Inline, Value
from shepherd.worker import result
from shepherd.worker.data import DataType, data_type, local_path_type
from shepherd.worker.desk import Desk

ROWS = {"a": [3, 1, 2], "b": ["x", None, "ä"]}


class Files(TypedDict):
    table: pl.LazyFrame
    note: str
    extra: NotRequired[bytes]


@dataclass(frozen=True)
class Parts:
    table: pd.DataFrame
    count: int = 7


class Pair(NamedTuple):
    left: bytes
    right: str


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Desk(MemoryStore(), prefix="runs/1", scratch=tmp_path) as desk:
        yield desk


@pytest.fixture
def trip(desk: Desk) -> Callable[[Any, Any], Any]:
    return lambda returned, wanted: data_type(wanted).decode(result.encode(returned, desk), desk)


def _rows(frame: Any) -> dict[str, Any]:
    if isinstance(frame, pl.LazyFrame):
        frame = frame.collect()
    if isinstance(frame, pl.DataFrame):
        return frame.to_dict(as_series=False)
    if isinstance(frame, pa.RecordBatchReader):
        frame = frame.read_all()
    if isinstance(frame, pa.Table):
        return dict(frame.to_pydict())
    return {name: [None if pd.isna(value) else value for value in frame[name]] for name in frame}


FRAMES: dict[Any, Callable[[], Any]] = {
    pl.LazyFrame: lambda: pl.LazyFrame(ROWS),
    pl.DataFrame: lambda: pl.DataFrame(ROWS),
    pd.DataFrame: lambda: pd.DataFrame(ROWS),
    pa.Table: lambda: pa.table(ROWS),
    pa.RecordBatchReader: lambda: pa.table(ROWS).to_reader(),
}


@pytest.mark.parametrize("wanted", FRAMES)
@pytest.mark.parametrize("make", FRAMES.values(), ids=[kind.__name__ for kind in FRAMES])
def test_every_frame_becomes_every_other_in_the_same_order(trip: Any, make: Any, wanted: Any) -> None:
    got = trip(make(), wanted)

    assert isinstance(got, wanted)
    assert _rows(got) == ROWS


@pytest.mark.parametrize("wanted", FRAMES)
def test_records_and_columns_of_json_become_frames(trip: Any, wanted: Any) -> None:
    assert _rows(trip([{"a": 3, "b": "x"}, {"a": 1, "b": None}], wanted)) == {"a": [3, 1], "b": ["x", None]}
    assert _rows(trip(ROWS, wanted)) == ROWS


def test_a_frame_without_columns_or_rows_travels(trip: Any) -> None:
    assert trip(pl.DataFrame(), pl.DataFrame).shape == (0, 0)
    assert trip(pl.LazyFrame(schema={"a": pl.Int8}), pl.DataFrame).schema == {"a": pl.Int8}


def test_what_pandas_numbers_its_rows_with_is_no_column_elsewhere(trip: Any) -> None:
    frame = pd.DataFrame(ROWS)
    cut = frame[frame["a"] > 1]

    assert trip(cut, pl.DataFrame).columns == ["a", "b"]
    assert trip(cut, pa.Table).column_names == ["a", "b"]
    assert trip(frame.groupby("b").sum(), pl.DataFrame).columns == ["a", "b"]
    pd.testing.assert_frame_equal(trip(cut, pd.DataFrame), cut)


def test_several_frames_travel_under_their_names(trip: Any) -> None:
    got = trip({"one": pl.DataFrame(ROWS), "two": pd.DataFrame(ROWS)}, dict[str, pl.LazyFrame])

    assert {name: (type(frame), _rows(frame)) for name, frame in got.items()} == {
        "one": (pl.LazyFrame, ROWS),
        "two": (pl.LazyFrame, ROWS),
    }


def test_a_list_of_frames_keeps_its_order(trip: Any) -> None:
    got = trip([pl.DataFrame({"n": [n]}) for n in range(12)], list[pl.DataFrame])

    assert [frame["n"][0] for frame in got] == list(range(12))


def test_parts_are_nested(trip: Any) -> None:
    got = trip({"by": {"year": [b"1", b"2"]}, "n": 1}, Any)
    declared = trip({"by": {"year": [b"1", b"2"]}}, Mapping[str, Mapping[str, Sequence[bytes]]])

    assert declared == {"by": {"year": [b"1", b"2"]}}
    assert [path.read_bytes() for path in got["by"]["year"]] == [b"1", b"2"]
    assert got["n"] == 1


def test_a_typed_dict_and_a_dataclass_take_parts(trip: Any) -> None:
    files = trip({"table": pa.table(ROWS), "note": "ä"}, Files)
    parts = trip(Parts(table=pd.DataFrame(ROWS)), Parts)
    defaulted = trip({"table": pl.DataFrame(ROWS)}, Parts)

    assert (_rows(files["table"]), files["note"]) == (ROWS, "ä")
    assert (_rows(parts.table), parts.count, defaulted.count) == (ROWS, 7, 7)
    assert trip(Pair(left=b"l", right="r"), dict[str, bytes]) == {"left": b"l", "right": b"r"}


def test_parts_that_are_missing_or_unknown_are_named(trip: Any) -> None:
    with pytest.raises(TaskFailedError, match=r"the data lacks note; Files has table, note, extra"):
        trip({"table": pl.DataFrame(ROWS)}, Files)
    with pytest.raises(TaskFailedError, match=r"the data has size; Parts has table, count"):
        trip({"table": pl.DataFrame(ROWS), "size": 1}, Parts)
    with pytest.raises(TaskFailedError, match=r"^note: the task wants str, but the data is JSON \(int\)"):
        trip({"table": pl.DataFrame(ROWS), "note": 5}, Files)


def test_plain_dict_takes_parts_as_they_came(trip: Any) -> None:
    got = trip({"table": pl.DataFrame(ROWS), "text": "x" * 100_000, "more": {"n": None}}, dict)

    assert _rows(pl.read_parquet(got["table"])) == ROWS
    assert (len(got["text"]), got["more"]) == (100_000, {"n": None})


def test_json_that_only_looks_like_parts_stays_json(trip: Any, desk: Desk) -> None:
    document = {"v": 0, "fields": {"a": {"claim": {"uri": "x"}}, "b": {"inline": 1}}}

    assert result.encode(document, desk) == Inline(document)
    assert trip({"odd": document, "file": b""}, Any)["odd"] == document


def test_the_seeds_path_of_several_values_is_json_with_paths(desk: Desk) -> None:
    value = result.encode({"table": pl.DataFrame(ROWS), "n": 1}, desk)

    path = local_path_type().decode(value, desk)

    document = pl.read_json(path).row(0, named=True)
    assert document["n"] == 1
    assert Path(document["table"]).read_text() == "a,b\n3,x\n1,\n2,ä\n"


def test_parts_with_the_same_file_name_do_not_replace_each_other(trip: Any, tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same.txt").write_text(name)

    got = trip([tmp_path / "x" / "same.txt", tmp_path / "y" / "same.txt"], list[Path])

    assert [path.read_text() for path in got] == ["x", "y"]


@pytest.mark.parametrize(
    ("returned", "wanted", "message"),
    [
        (None, pl.DataFrame, r"wants polars.DataFrame, but there is no data; add `\| None`"),
        (5, bytes | None, None),
        (5, pl.LazyFrame, r"wants polars.LazyFrame, but the data is JSON \(int\); declare int, Any or pathlib.Path"),
        (b"x", dict, r"wants dict, but the data is the file result.bin \(application/octet-stream\); declare"),
        ([1], dict, r"wants dict, but the data is JSON \(list\)"),
        ({"a": b"x"}, pl.DataFrame, r"but the data is several values with names \(a\); declare dict"),
        ([b"x"], str, r"but the data is a list of 1 values; declare list"),
        (pl.DataFrame(ROWS), str, r"wants str, but the data is the file result.parquet .*; declare a data frame"),
        (pl.DataFrame(ROWS), dict[str, Any], r"wants dict\[str, Any\], but the data is the file result.parquet"),
        ([1, "x"], pl.DataFrame, r"wants polars.DataFrame, but .* as a table, "),
        (b"\0\1\2", pl.DataFrame, r"the data result.bin is application/octet-stream, which isn't read as a table"),
    ],
)
def test_what_cannot_become_what_is_wanted_says_what_would(trip: Any, returned: Any, wanted: Any, message: Any) -> None:
    if message is None:
        assert trip(returned, wanted) == b"5"
        return
    with pytest.raises(TaskFailedError, match=message) as raised:
        trip(returned, wanted)
    assert raised.value.code == "invalid_data"


def test_what_has_no_form_is_refused_with_what_may_be_returned(desk: Desk) -> None:
    loop: list[Any] = [b"x"]
    loop.append(loop)

    for odd in (object(), {"a": object(), "b": b"x"}, {1: b"x"}, loop, Path("nowhere"), float("nan")):
        with pytest.raises(TaskFailedError) as raised:
            result.encode(odd, desk)
        assert raised.value.code == "invalid_result"


def test_several_values_are_one_claim_whose_parts_are_claims(desk: Desk) -> None:
    value = result.encode({"t": pl.DataFrame(ROWS), "n": 1}, desk)

    assert isinstance(value, ClaimCheck)
    assert value.media_type == DOCUMENT
    document = data_type(Any).decode(Inline(None), desk) or desk.read(value)
    assert b'"v":0,"fields":{"t":{"claim":{"uri":"memory://fake/runs/1/t.parquet"' in document
    assert PARQUET.encode() in document


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "Duplicate column names"),
        (pd.DataFrame({"a": [1, "x"]}), "column a"),
    ],
)
def test_a_frame_that_is_no_table_is_refused_by_name(desk: Desk, frame: Any, said: str) -> None:
    with pytest.raises(TaskFailedError, match=f"the returned pandas.DataFrame can't travel: .*{said}") as raised:
        result.encode(frame, desk)

    assert raised.value.code == "invalid_result"


def test_what_a_lazy_frame_raises_is_its_own(desk: Desk) -> None:
    def broken(_: Any) -> Any:
        raise ValueError("mine")

    with pytest.raises(Exception, match="mine") as raised:
        result.encode(pl.LazyFrame({"a": [1]}).map_batches(broken), desk)

    assert not isinstance(raised.value, TaskFailedError)


def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "made here"
    (folder / "empty").mkdir(parents=True)
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "ä.txt").write_text("x")
    (folder / "run.sh").write_text("#!/bin/sh")
    (folder / "run.sh").chmod(0o755)
    (folder / "linked").symlink_to("run.sh")
    os.link(folder / "run.sh", folder / "second name")
    return folder


def test_a_folder_travels_whole(trip: Any, desk: Desk, tmp_path: Path) -> None:
    got = trip(_folder(tmp_path), Path)

    assert {str(path.relative_to(got)) for path in got.rglob("*")} == {
        "deep", "deep/er", "deep/er/ä.txt", "empty", "linked", "run.sh", "second name",
    }  # fmt: skip
    assert (got / "linked").read_text() == (got / "second name").read_text() == "#!/bin/sh"
    assert os.access(got / "run.sh", os.X_OK)
    assert not (got / "linked").is_symlink()
    assert got.name == "made_here"
    with pytest.raises(TaskFailedError, match=r"the data is a folder \(2-made_here.tar\); declare pathlib.Path"):
        trip(_folder(tmp_path / "again"), str)


@pytest.mark.parametrize("wanted", [data_type(Path), data_type(Any), local_path_type()], ids=lambda each: each.label)
def test_what_a_task_does_to_its_file_is_done_to_no_other_task_s(tmp_path: Path, wanted: DataType) -> None:
    store = FolderStore((tmp_path / "store").as_uri())
    claim = store.put(b"a,b\n1,2\n", key="runs/1/data.csv", media_type="text/csv")

    with Desk(store, prefix="runs/2", scratch=tmp_path) as desk:
        path = Path(wanted.decode(claim, desk))
        path.write_text("changed")
        path.rename(path.with_name("moved.csv"))

    assert path.name == "data.csv"
    assert store.read(claim) == b"a,b\n1,2\n"


@pytest.mark.parametrize("odd", ["link out", "link to folder", "dangling", "pipe"])
def test_a_folder_with_what_cannot_travel_is_refused_by_name(trip: Any, tmp_path: Path, odd: str) -> None:
    folder = _folder(tmp_path)
    if odd == "pipe":
        os.mkfifo(folder / "odd")
    else:
        target = {"link out": "/etc/hostname", "link to folder": "deep", "dangling": "gone"}[odd]
        (folder / "odd").symlink_to(target)

    with pytest.raises(TaskFailedError, match=r"made here/odd is ") as raised:
        trip(folder, Path)
    assert raised.value.code == "invalid_result"


def _tar(*members: tuple[str, bytes, str], content: bytes = b"evil") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, kind, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, link, len(content) if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(content) if info.size else None)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        _tar(("/tmp/absolute", tarfile.REGTYPE, "")),
        _tar(("../out", tarfile.REGTYPE, "")),
        _tar(("a/../../out", tarfile.REGTYPE, "")),
        _tar(("link", tarfile.SYMTYPE, "/etc"), ("link/out", tarfile.REGTYPE, "")),
        _tar(("link", tarfile.SYMTYPE, "inside")),
        _tar(("link", tarfile.LNKTYPE, "/etc/passwd")),
        _tar(("device", tarfile.CHRTYPE, "")),
        _tar(("pipe", tarfile.FIFOTYPE, "")),
        _tar(("twice", tarfile.REGTYPE, ""), ("twice", tarfile.REGTYPE, "")),
        _tar(("file", tarfile.REGTYPE, ""), ("file/below", tarfile.REGTYPE, "")),
        _tar(("whole", tarfile.REGTYPE, ""))[:600],
        b"no tar at all" * 100,
    ],
)
def test_a_tar_that_would_lead_out_or_is_broken_is_refused(desk: Desk, tmp_path: Path, content: bytes) -> None:
    claim: Value = desk.put(content, name="odd.tar", media_type=FOLDER)

    with pytest.raises(TaskFailedError, match="the folder can't be unpacked") as raised:
        data_type(Path).decode(claim, desk)

    assert raised.value.code == "invalid_data"
    assert not (tmp_path / "out").exists()
    assert not Path("/tmp/absolute").exists()

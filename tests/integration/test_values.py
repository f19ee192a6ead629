"""Every kind of value on its way between two workers, each a process in a working directory of its own."""

import json
from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from polars.testing.parametric import dataframes

from shepherd.site.local.broker_node import BrokerNode
from shepherd.wire.value import Inline, Value
from tests.support.s3 import BUCKET
from tests.support.waiting import wait_until
from tests.support.workers import Conversation

MAKING = """
import os
from dataclasses import dataclass
from pathlib import Path
import pandas as pd, polars as pl, pyarrow as pa
from shepherd.worker import Worker

ROWS = {"n": [3, 1, 2], "t": ["x", None, "ä"]}

@dataclass
class Parts:
    table: pl.DataFrame
    count: int

def folder():
    Path("made/deep").mkdir(parents=True, exist_ok=True)
    Path("made/deep/a.txt").write_text("ä")
    return Path("made")

def file():
    Path("rows.csv").write_bytes("n;t\\n3;x\\n1;\\n2;ä\\n".encode("cp1252"))
    return Path("rows.csv")

KINDS = {
    "lazy": lambda: pl.LazyFrame(ROWS),
    "polars": lambda: pl.DataFrame(ROWS),
    "pandas": lambda: pd.DataFrame(ROWS),
    "arrow": lambda: pa.table(ROWS),
    "stream": lambda: pa.table(ROWS).to_reader(),
    "records": lambda: pl.DataFrame(ROWS).to_dicts(),
    "file": file,
    "folder": folder,
    "bytes": lambda: b"\\0\\xff",
    "long bytes": lambda: bytes(range(256)) * 4096,
    "str": lambda: "ä",
    "long str": lambda: "ä" * 100_000,
    "int": lambda: 7,
    "float": lambda: 0.5,
    "bool": lambda: False,
    "list": lambda: [1, None, "x"],
    "long list": lambda: list(range(50_000)),
    "dict": lambda: {"a": {"b": []}},
    "none": lambda: None,
    "frames": lambda: {"one": pl.LazyFrame(ROWS), "two": pd.DataFrame(ROWS)},
    "files": lambda: [file(), folder(), b"x"],
    "parts": lambda: Parts(table=pl.DataFrame(ROWS), count=2),
    "nested": lambda: {"deep": [{"rows": pa.table(ROWS)}], "n": 1},
}

worker = Worker("making")

@worker.task
def make(context): return KINDS[context["kind"]]()

@worker.task
def repeat(context): return context["value"]

@worker.task
def load(context):
    frame = pl.read_ipc(context["from"])
    return {"lazy": frame.lazy, "polars": lambda: frame, "arrow": frame.to_arrow}[context["kind"]]()

worker.run()
"""
TAKING = """
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
import pandas as pd, polars as pl, pyarrow as pa
from shepherd.worker import Worker

@dataclass
class Parts:
    table: pd.DataFrame
    count: int

def plain(value):
    if isinstance(value, pl.LazyFrame): value = value.collect()
    if isinstance(value, pa.RecordBatchReader): value = value.read_all()
    if isinstance(value, pl.DataFrame): return value.to_dict(as_series=False)
    if isinstance(value, pa.Table): return value.to_pydict()
    if isinstance(value, pd.DataFrame): return plain(pl.from_pandas(value))
    if isinstance(value, Path):
        if value.is_dir(): return {str(p.relative_to(value)): p.read_text() for p in value.rglob("*") if p.is_file()}
        return value.suffix
    if isinstance(value, bytes): return [len(value), *value[:2]]
    if isinstance(value, str): return [len(value), value[:5]]
    if isinstance(value, Parts): return [plain(value.table), value.count]
    if isinstance(value, dict): return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list): return [plain(part) for part in value][:3]
    return value

TYPES = {
    "lazy": pl.LazyFrame,
    "polars": pl.DataFrame,
    "pandas": pd.DataFrame,
    "arrow": pa.Table,
    "stream": pa.RecordBatchReader,
    "path": Path,
    "bytes": bytes,
    "str": str,
    "any": Any,
    "maybe": str | None,
    "int": int,
    "float": float,
    "list": list,
    "dict": dict,
    "frames": dict[str, pl.LazyFrame],
    "paths": list[Path],
    "parts": Parts,
}

worker = Worker("taking")

def taking(name, kind):
    def take(context, data: kind): return [os.getcwd(), plain(data)]
    take.__name__ = f"take_{name}"
    return take

for name, kind in TYPES.items():
    worker.task(taking(name, kind))

def take_data_path(context, data_path): return [os.getcwd(), Path(data_path).suffix and open(data_path).read()]
worker.task(take_data_path)

@worker.task
def repeat_back(context, data: Any): return data

@worker.task
def store(context, data: pl.LazyFrame): data.collect().write_ipc(context["to"])

worker.run()
"""
ROWS = {"n": [3, 1, 2], "t": ["x", None, "ä"]}
FRAMES = ("lazy", "polars", "pandas", "arrow", "stream")
#: What is made, as what it is taken, what is seen of it then.
TRIPS: list[tuple[str, str, Any]] = [
    *((made, taken, ROWS) for made in (*FRAMES, "records", "file") for taken in FRAMES),
    *((made, "data_path", "n,t\n3,x\n1,\n2,ä\n") for made in FRAMES),
    ("lazy", "path", ".parquet"),
    ("lazy", "any", ".parquet"),
    ("file", "path", ".csv"),
    ("folder", "path", {"deep/a.txt": "ä"}),
    ("folder", "any", {"deep/a.txt": "ä"}),
    ("bytes", "bytes", [2, 0, 255]),
    ("long bytes", "bytes", [256 * 4096, 0, 1]),
    ("file", "bytes", [15, ord("n"), ord(";")]),
    ("str", "str", [1, "ä"]),
    ("str", "bytes", [2, 0xC3, 0xA4]),
    ("str", "any", [1, "ä"]),
    ("long str", "str", [100_000, "äääää"]),
    ("long str", "any", [100_000, "äääää"]),
    ("int", "int", 7),
    ("int", "any", 7),
    ("float", "float", 0.5),
    ("bool", "any", False),
    ("list", "list", [1, None, [1, "x"]]),
    ("long list", "list", [0, 1, 2]),
    ("dict", "dict", {"a": {"b": []}}),
    ("dict", "data_path", '{"a": {"b": []}}'),
    ("none", "any", None),
    ("none", "maybe", None),
    ("none", "data_path", ""),
    ("frames", "frames", {"one": ROWS, "two": ROWS}),
    ("frames", "any", {"one": ".parquet", "two": ".parquet"}),
    ("files", "any", [".csv", {"deep/a.txt": "ä"}, ".bin"]),
    ("files", "paths", [".csv", {"deep/a.txt": "ä"}, ".bin"]),
    ("parts", "parts", [ROWS, 2]),
    ("nested", "dict", {"deep": [{"rows": ".parquet"}], "n": 1}),
]


@pytest.fixture(scope="module", params=["folder", "s3"])
def talk(
    own_broker_node: BrokerNode, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Conversation]:
    folder = tmp_path_factory.mktemp("trip")
    with Conversation(own_broker_node.url, folder) as conversation:
        if request.param == "s3":
            conversation.settings = {
                "SHEPHERD_STORE": f"s3://{BUCKET}/{folder.name}",
                "AWS_ENDPOINT_URL": request.getfixturevalue("s3_endpoint"),
                "AWS_ACCESS_KEY_ID": "of-the-tests",
                "AWS_SECRET_ACCESS_KEY": "of-the-tests",
                "AWS_REGION": "eu-central-1",
            }
        for name, source in (("making", MAKING), ("taking", TAKING)):
            (folder / name).mkdir()
            conversation.start(source, "--slots", "1", file_name=f"{name}/{name}_worker.py")
        begun = [conversation.publish(name, {"value": 1}) for name in ("repeat", "repeat_back")]
        # Each imports three libraries of frames first, which takes a machine that is busy long.
        wait_until(lambda: all(map(conversation.replies, begun)), timeout_s=180, what="both workers")
        yield conversation


def test_every_kind_of_value_makes_the_trip(talk: Conversation) -> None:
    made = {kind: talk.result("make", {"kind": kind}) for kind in {trip[0] for trip in TRIPS}}
    tokens = [(trip, talk.publish(f"take_{trip[1]}", data=made[trip[0]])) for trip in TRIPS]

    for (kind, taken, seen), token in tokens:
        reply = talk.finished(token)
        assert reply.error is None, (kind, taken, reply.error)
        assert reply.result == Inline([str(talk.folder / "taking"), seen]), (kind, taken)


def test_what_cannot_be_taken_says_what_came_and_what_would_work(talk: Conversation) -> None:
    reply = talk.call("take_str", data=talk.result("make", {"kind": "frames"}))

    assert reply.error is not None
    assert reply.error.code == "invalid_data"
    assert "wants str, but the data is several values with names (one, two); declare dict" in reply.error.message


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=10), inner, max_size=5),
    max_leaves=30,
)
NOT_IN_ARROW = [pl.Object, pl.Int128, pl.UInt128]
BOUNDED = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@BOUNDED
@given(value=JSON)
def test_any_json_makes_the_trip(talk: Conversation, value: Any) -> None:
    travelled = talk.result("repeat_back", data=talk.result("repeat", {"value": value}))

    assert json.dumps(_inline(travelled)) == json.dumps(value)


@BOUNDED
@given(
    frame=dataframes(max_cols=4, max_size=8, allow_null=True, excluded_dtypes=NOT_IN_ARROW),
    kind=st.sampled_from(["lazy", "polars", "arrow"]),
)
def test_any_frame_makes_the_trip(talk: Conversation, frame: pl.DataFrame, kind: str) -> None:
    before, after = talk.folder / "before.arrow", talk.folder / "after.arrow"
    frame.write_ipc(before)

    travelled = talk.result("load", {"from": str(before), "kind": kind})
    talk.result("store", {"to": str(after)}, data=travelled)

    assert_frame_equal(pl.read_ipc(after), frame)


def _inline(value: Value) -> Any:
    assert isinstance(value, Inline)
    return value.value

"""The workers that the documents show and the repository brings, as they stand there: real processes, a real broker."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from shepherd.store import open_store
from shepherd.wire.value import ClaimCheck, Inline, Value
from tests.support.folders import ROOT
from tests.support.given_brokers import BrokerUnderTest
from tests.support.workers import Conversation, WorkerProcess


@pytest.fixture
def talk(own_broker: BrokerUnderTest, tmp_path: Path) -> Iterator[Conversation]:
    with Conversation(own_broker.url, tmp_path) as conversation:
        yield conversation


def code_of(document: str, *, holding: str) -> str:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / document).read_text(encoding="utf-8"), re.DOTALL)
    [block] = [block for block in blocks if holding in block]
    return str(block)


def frame(value: Value, folder: Path) -> pl.DataFrame:
    assert isinstance(value, ClaimCheck)
    return pl.read_parquet(open_store((folder / "store").as_uri()).fetch(value, into=folder))


def test_a_worker_that_uses_nothing_of_shepherds_executes_tasks_and_answers(talk: Conversation) -> None:
    talk.declare("shout")
    talk.start(code_of("how-to/worker-in-another-language.md", holding="aio_pika"))

    assert talk.result("shout", data=Inline("hear, hear")) == Inline("HEAR, HEAR")
    failed = talk.call("shout", data=Inline(5))
    assert failed.error is not None
    assert failed.error.code == "attributeerror"
    manifest = talk.manifest(lambda manifest: any(task.name == "shout" for task in manifest.tasks))
    assert failed.worker == manifest.worker


def test_the_task_of_the_tutorial_does_what_it_says(talk: Conversation) -> None:
    talk.start(code_of("tutorial.md", holding="keep_longest"), "--slots", "1")

    token = talk.publish("keep_longest", {"column": "a", "rows": 2}, data=Inline([{"a": 1}, {"a": 3}, {"a": 2}]))

    result = talk.finished(token).result
    assert result is not None
    assert frame(result, talk.folder)["a"].to_list() == [3, 2]
    assert talk.lines(token, count=1)[0].text == "keeping 2 rows by a"
    refused = talk.call("keep_longest", {"column": "a", "rows": "five"}, data=Inline([{"a": 1}]))
    assert refused.error is not None
    assert refused.error.code == "invalid_context"
    unknown = talk.call("keep_longest", {"column": "b"}, data=Inline([{"a": 1}]))
    assert unknown.error is not None
    assert (unknown.error.code, unknown.error.message) == ("unknown_column", "no column 'b'; there are a")


def test_a_generated_worker_runs_as_it_was_written(talk: Conversation) -> None:
    command = [sys.executable, "-m", "code_templates.task_template", "--task_name", "as_generated", "--result_file"]
    subprocess.run([*command, str(talk.folder / "y")], cwd=ROOT, env=talk.environ, check=True, capture_output=True)
    talk.start((talk.folder / "y.py").read_text(), "--slots", "1", file_name="y.py")

    assert talk.result("as_generated", {"a": None}, data=Inline({"b": [1]})) == Inline({"b": [1]})


def test_the_generic_tasks_hand_a_table_on_from_task_to_task(talk: Conversation, tmp_path: Path) -> None:
    file = tmp_path / "columns.py"
    # From a folder that isn't the project's: its modules must be found all the same.
    file.symlink_to(ROOT / "projects" / "generic_transformations" / "workers" / "columns.py")
    worker = WorkerProcess(file, environ=talk.environ, arguments=["--slots", "1"])
    flights = pl.DataFrame(
        {
            "year": [2013, 2013, 2013, 2013],
            "origin": ["EWR", "EWR", "JFK", "JFK"],
            "dest": ["IAH", "IAH", "MIA", None],
            "tailnum": ["N14228", None, "N619AA", "N804JB"],
            "dep_delay": [2.0, 4.0, None, -1.0],
        }
    )
    steps: list[tuple[str, dict[str, Any]]] = [
        ("skip_column", {"columns": "year"}),
        ("rename_column", {"rename_dict": {"dep_delay": "delay"}}),
        ("merge_columns", {"columns": ["origin", "dest"], "output_column": "route", "separator": "-"}),
        ("anonymize", {"column": "tailnum", "option": "retain_first_n", "n": 1, "special_char": "#"}),
    ]

    try:
        value: Value = Inline(flights.to_dicts())
        for name, context in steps:
            value = talk.result(name, context, data=value)
        delays = talk.result("aggregate", {"index": ["route"], "columns": "", "values": ["delay"]}, data=value)
        refused = talk.call("skip_column", {"columns": ["year"]}, data=value)
    finally:
        worker.stop()

    hidden = ["N#####", None, "N#####", "N#####"]
    assert frame(value, tmp_path)["tailnum"].to_list() == hidden
    expected = pl.DataFrame({"route": ["EWR-IAH", "JFK", "JFK-MIA"], "delay": [3.0, -1.0, None]})
    assert_frame_equal(frame(delays, tmp_path), expected)
    assert refused.error is not None
    assert refused.error.code == "unknown_column"
    assert "no column 'year'; there are 'origin', 'dest', 'tailnum', 'delay', 'route'" in refused.error.message

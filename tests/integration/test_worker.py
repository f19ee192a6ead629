"""A worker as its author starts it: real processes, a real broker."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from shepherd.errors import StoreUnavailableError
from shepherd.store import open_store
from shepherd.wire.envelope import Finished, Started
from shepherd.wire.value import NOTHING, ClaimCheck, Inline
from tests.support.given_brokers import BrokerUnderTest
from tests.support.waiting import wait_until
from tests.support.workers import Conversation, WorkerProcess

HEAD = "from shepherd.worker import Worker, current_task\nworker = Worker()\n"


@pytest.fixture
def talk(own_broker: BrokerUnderTest, tmp_path: Path) -> Iterator[Conversation]:
    with Conversation(own_broker.url, tmp_path) as conversation:
        yield conversation


def _start(talk: Conversation, source: str, *arguments: str) -> WorkerProcess:
    return talk.start(HEAD + source + "\nworker.run()\n", "--slots", "1", *arguments)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_typed_task_gets_its_context_and_its_data(talk: Conversation) -> None:
    source = """
from dataclasses import dataclass
import polars as pl

@dataclass
class Drop:
    columns: list[str]

@worker.task
def drop_typed(context: Drop, data: pl.LazyFrame) -> pl.LazyFrame:
    '''Drop columns.'''
    return data.drop(context.columns)
"""
    _start(talk, source)

    claim = talk.result("drop_typed", {"columns": ["a"]}, data=Inline([{"a": 1, "b": 2}, {"a": 3, "b": 4}]))

    assert isinstance(claim, ClaimCheck)
    assert claim.media_type == "application/vnd.apache.parquet"
    frame = pl.read_parquet(open_store((talk.folder / "store").as_uri()).read(claim))
    assert frame.to_dict(as_series=False) == {"b": [2, 4]}


def test_the_seeds_form_works_unguarded(talk: Conversation) -> None:
    source = """
    from shepherd.worker import Worker
    import pandas as pd

    def read_path(context, data_path):
        return open(data_path).read() if data_path else "nothing"

    def make_frame(context, data_path):
        return pd.DataFrame({"a": [1, 2]})

    def make_file(context, data_path):
        with open("made.geojson", "w") as file:
            file.write("{}")
        return "made.geojson"

    Worker("seed").add_task(read_path).add_task(make_frame).add_task(make_file).start_worker()
    """
    talk.start(source)

    frame, file = talk.result("make_frame"), talk.result("make_file")

    assert talk.result("read_path") == Inline("nothing")
    assert talk.result("read_path", data=Inline("plain")) == Inline("plain")
    assert talk.result("read_path", data=Inline({"a": [1]})) == Inline('{"a": [1]}')
    assert talk.result("read_path", data=frame) == Inline("a\n1\n2\n")
    assert isinstance(file, ClaimCheck)
    assert file.media_type == "application/geo+json"
    assert talk.result("read_path", data=file) == Inline("{}")


@pytest.mark.parametrize(
    ("call", "code", "message"),
    [
        ("os.abort()", "worker_crashed", "SIGABRT"),
        ("os._exit(0)", "worker_crashed", "exit status 0"),
        ("os.kill(os.getpid(), 9)", "worker_crashed", "SIGKILL"),
        ("sys.exit(3)", "exited", "SystemExit(3)"),
        ("raise_(BaseException('odd'))", "exited", "odd"),
        ("raise_(KeyboardInterrupt())", "exited", "KeyboardInterrupt"),
        ("1 / 0", "zero_division_error", "division by zero"),
        ("raise_(TaskFailedError('no_such_thing', 'the thing'))", "no_such_thing", "the thing"),
        ("[object()]", "invalid_result", "list"),
        ("float('nan')", "invalid_result", "Out of range"),
        ("{1: 1, '1': 2}", "invalid_result", "more than once"),
        ("Path('/nonexistent')", "invalid_result", "names no file"),
        ("os.closerange(3, 64)", "worker_crashed", ""),
        ("os.closerange(0, 3) or 1 / 0", "zero_division_error", ""),
    ],
)
def test_a_task_that_breaks_is_answered_and_the_next_one_works(
    talk: Conversation, call: str, code: str, message: str
) -> None:
    source = f"""
import os, sys
from pathlib import Path
from shepherd.worker import TaskFailedError

def raise_(error):
    raise error

@worker.task
def breaking(context):
    return {call} if context else "fine"
"""
    _start(talk, source)

    reply = talk.call("breaking", {"break": True})

    assert reply.error is not None
    assert reply.error.code == code
    assert message in reply.error.message
    assert "shepherd/worker" not in reply.error.traceback
    assert talk.result("breaking") == Inline("fine")


def test_what_a_task_says_arrives_numbered_and_in_order(talk: Conversation) -> None:
    source = """
import logging, sys, warnings
logging.basicConfig()

@worker.task
def talking(context):
    print("printed")
    logging.getLogger("mine").info("logged %d", 1)
    print("on stderr", file=sys.stderr)
    logging.error("bad")
    print("half", end=" ")
    print("a line")
    sys.stdout.write("no end")
"""
    _start(talk, source)

    token = talk.publish("talking")
    reply = talk.finished(token)
    lines = talk.lines(token, count=6)

    assert [(line.n, line.level, line.text) for line in lines] == [
        (1, "INFO", "printed"),
        (2, "INFO", "logged 1"),
        (3, "WARNING", "on stderr"),
        (4, "ERROR", "bad"),
        (5, "INFO", "half a line"),
        (6, "INFO", "no end"),
    ]
    assert reply.log_lines == 6


def test_what_programs_and_c_code_write_is_caught(talk: Conversation) -> None:
    source = """
import os, subprocess

@worker.task
def starting_programs(context):
    subprocess.run("echo from a program; printf 'no end' >&2", shell=True, check=True)
    os.write(1, b"raw \\xff\\n")
"""
    _start(talk, source)

    token = talk.publish("starting_programs")
    lines = talk.lines(token, count=3)

    assert {(line.level, line.text) for line in lines} == {
        ("INFO", "from a program"),
        ("WARNING", "no end"),
        ("INFO", "raw \N{REPLACEMENT CHARACTER}"),
    }
    assert talk.finished(token).log_lines == 3


def test_a_log_without_end_is_capped_and_says_so(talk: Conversation) -> None:
    source = """
@worker.task
def chattering(context):
    for number in range(20_000):
        print(number)
"""
    _start(talk, source)

    token = talk.publish("chattering")
    lines = talk.lines(token, count=10_000)

    assert [line.n for line in lines] == list(range(1, 10_001))
    assert "the log ends here" in lines[-1].text
    assert talk.finished(token).log_lines == 10_000


def test_a_task_of_more_than_a_second_says_that_it_started(talk: Conversation) -> None:
    source = """
import threading
@worker.task
def lasting(context):
    threading.Event().wait(1.3)
"""
    _start(talk, source)

    token = talk.publish("lasting")
    talk.finished(token)

    kinds = [type(reply) for reply in talk.replies(token)]
    assert kinds[0] is Started
    assert len(kinds) == 2


def test_sigterm_lets_the_running_task_end_and_gives_back_the_rest(talk: Conversation) -> None:
    source = """
import threading, pathlib
@worker.task
def draining(context):
    pathlib.Path("begun").touch()
    threading.Event().wait(1.0)
    return "ended"
"""
    worker = _start(talk, source)
    tokens = [talk.publish("draining") for _ in range(3)]
    wait_until((talk.folder / "begun").exists, timeout_s=20, what="the first task")
    children = worker.children()

    status = worker.stop()

    assert status == 0
    assert talk.finished(tokens[0]).result == Inline("ended")
    assert not any(talk.replies(token) for token in tokens[1:])
    assert children
    assert not any(map(_is_alive, children))
    talk.manifest(lambda manifest: manifest.pid == worker.process.pid and manifest.state == "stopped")


def test_a_worker_that_was_started_first_gets_what_is_published_later(talk: Conversation) -> None:
    worker = _start(talk, "@worker.task\ndef waited_for(context):\n    return current_task().run_number")
    manifest = talk.manifest(lambda manifest: manifest.pid == worker.process.pid)

    assert [offer.name for offer in manifest.tasks] == ["waited_for"]
    assert talk.result("waited_for") == Inline(7)


def test_children_and_what_they_started_die_with_a_killed_supervisor(talk: Conversation) -> None:
    source = """
import subprocess, time, pathlib
@worker.task
def outliving(context):
    program = subprocess.Popen(["sleep", "1000"])
    pathlib.Path("pid").write_text(f"{program.pid}\\n")
    while True:
        pass
"""
    worker = _start(talk, source)
    talk.publish("outliving")
    pid_file = talk.folder / "pid"
    wait_until(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"), timeout_s=20, what="the program")
    everybody = [*worker.children(), int(pid_file.read_text())]

    worker.process.kill()

    wait_until(lambda: not any(map(_is_alive, everybody)), timeout_s=10, what="their end")
    assert len(everybody) == 2
    # Nobody else is there to take it: out of the way of the other tests.
    source = "import os\n@worker.task\ndef outliving(context):\n    return 'again'"
    worker = talk.start(HEAD + source + "\nworker.run()\n", file_name="second.py")


def test_a_second_sigterm_ends_at_once(talk: Conversation) -> None:
    source = """
import signal, pathlib
@worker.task
def stubborn(context):
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    pathlib.Path("begun").touch()
    while True:
        pass
"""
    worker = _start(talk, source)
    token = talk.publish("stubborn")
    wait_until((talk.folder / "begun").exists, timeout_s=20, what="the task")
    children = worker.children()

    worker.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "worker.draining" in worker.log, timeout_s=10, what="draining")

    assert worker.stop() == 1
    assert not any(map(_is_alive, children))
    assert not [reply for reply in talk.replies(token) if isinstance(reply, Finished)]


def test_help_says_what_can_be_set(talk: Conversation) -> None:
    file = talk.folder / "help_worker.py"
    file.write_text(HEAD + "@worker.task\ndef helped(context): ...\nworker.run()\n")

    shown = subprocess.run(
        [sys.executable, file, "--help"], env=talk.environ, capture_output=True, text=True, check=True
    )

    for word in ("--broker", "--store", "--slots", "--name", "SHEPHERD_BROKER_URL", "helped"):
        assert word in shown.stdout


def test_a_file_that_cannot_be_started_again_is_said_and_the_worker_stays(talk: Conversation) -> None:
    source = """
import os
if "SHEPHERD_CHILD" in os.environ and not os.path.exists("mended"):
    raise RuntimeError("no database today")
@worker.task
def mended(context):
    return "at last"
"""
    worker = _start(talk, source)
    wait_until(lambda: "child.not_started" in worker.log, timeout_s=20, what="the report")

    assert "no database today" in worker.log
    (talk.folder / "mended").touch()
    assert talk.result("mended") == Inline("at last")


def test_what_came_while_a_child_cannot_be_started_again_goes_to_others(talk: Conversation) -> None:
    breaking = """
import os
if os.path.exists("broken"):
    raise RuntimeError("no database any more")
@worker.task
def shared(context):
    open("broken", "w").close()
    os._exit(3)
"""
    worker = _start(talk, breaking)
    wait_until(lambda: "worker.serving" in worker.log, timeout_s=20, what="a worker")
    # Two at least, so that the end of the first brings the next one.
    tokens = [talk.publish("shared") for _ in range(3)]
    first = talk.finished(tokens[0])
    wait_until(lambda: "child.not_started" in worker.log, timeout_s=20, what="the report")

    talk.start(HEAD + "@worker.task\ndef shared(context):\n    return 'elsewhere'\nworker.run()", file_name="other.py")

    assert first.error is not None
    assert first.error.code == "worker_crashed"
    assert [talk.finished(token).result for token in tokens[1:]] == [Inline("elsewhere")] * 2


def test_every_kind_of_data_survives_the_way_between_two_workers(talk: Conversation) -> None:
    making = """
from pathlib import Path
import pandas as pd, polars as pl
worker = Worker("making")
@worker.task
def make(context):
    Path("f.csv").write_text("a,b\\n1,x\\n")
    return {
        "pandas": lambda: pd.DataFrame({"a": [1], "b": ["x"]}),
        "polars": lambda: pl.DataFrame({"a": [1], "b": ["x"]}),
        "lazy": lambda: pl.LazyFrame({"a": [1], "b": ["x"]}),
        "path": lambda: Path("f.csv"),
        "bytes": lambda: b"\\x00\\xff",
        "str": lambda: "ä'\\"\\n",
        "long": lambda: "x" * 100_000,
        "none": lambda: None,
        "dict": lambda: {"a": [True, None, 1.5]},
        "big": lambda: list(range(50_000)),
    }[context["kind"]]()
"""
    taking = """
from pathlib import Path
from typing import Any
import pandas as pd, polars as pl
worker = Worker("taking")
@worker.task
def take_pandas(context, data: pd.DataFrame): return data.to_dict("list")
@worker.task
def take_polars(context, data: pl.DataFrame): return data.to_dict(as_series=False)
@worker.task
def take_lazy(context, data: pl.LazyFrame): return data.collect().to_dict(as_series=False)
@worker.task
def take_path(context, data: Path): return data.read_text()
@worker.task
def take_bytes(context, data: bytes): return list(data)
@worker.task
def take_str(context, data: str): return data[:10]
@worker.task
def take_any(context, data: Any): return [type(data).__name__, data if not isinstance(data, list | str) else len(data)]
"""
    _start(talk, making)
    talk.start(HEAD + taking + "\nworker.run()\n", file_name="taking.py")
    made = {
        kind: talk.result("make", {"kind": kind})
        for kind in ("pandas", "polars", "lazy", "path", "bytes", "str", "long", "none", "dict", "big")
    }
    row = Inline({"a": [1], "b": ["x"]})

    assert {
        (kind, wanted): talk.result(f"take_{wanted}", data=made[kind])
        for kind in ("pandas", "polars", "lazy", "path")
        for wanted in ("pandas", "polars", "lazy")
    } == {(kind, w): row for kind in ("pandas", "polars", "lazy", "path") for w in ("pandas", "polars", "lazy")}
    assert talk.result("take_path", data=made["path"]) == Inline("a,b\n1,x\n")
    assert talk.result("take_bytes", data=made["bytes"]) == Inline([0, 255])
    assert talk.result("take_str", data=made["str"]) == Inline("ä'\"\n")
    assert talk.result("take_str", data=made["long"]) == Inline("x" * 10)
    assert made["none"] == NOTHING
    assert talk.result("take_any", data=made["none"]) == Inline(["NoneType", None])
    assert talk.result("take_any", data=made["dict"]) == Inline(["dict", {"a": [True, None, 1.5]}])
    assert talk.result("take_any", data=made["big"]) == Inline(["list", 50_000])
    refused = talk.call("take_polars", data=made["none"])
    assert refused.error is not None
    assert refused.error.code == "invalid_data"


def test_what_a_killed_task_leaves_on_the_disk_is_removed(talk: Conversation) -> None:
    source = """
import os
from pathlib import Path

@worker.task
def leaving(context, data: Path):
    return os.kill(os.getpid(), 9) if context else str(data)
"""
    _start(talk, source)

    def file() -> Path:
        found = talk.result("leaving", data=Inline([1]))
        assert isinstance(found, Inline)
        return Path(found.value)

    first = file()
    killed = talk.call("leaving", {"kill": True}, data=Inline([1]))
    second = file()

    assert killed.error is not None
    # Of the worker, of the child, of the attempt, of the file.
    assert first.parents[3] == second.parents[3]
    assert first.parents[2] != second.parents[2]
    assert not first.parents[2].exists()
    assert second.parents[2].exists()


def test_data_of_a_store_that_this_worker_does_not_see_is_retryable(talk: Conversation) -> None:
    _start(talk, "@worker.task\ndef seeing(context, data: bytes): return len(data)")
    claim = ClaimCheck(uri="file:///elsewhere/x", sha256="0" * 64, size=1, media_type="text/plain")

    reply = talk.call("seeing", data=claim)

    assert reply.error is not None
    assert reply.error.is_retryable
    assert reply.error.code == StoreUnavailableError.code


def test_what_is_no_envelope_is_answered_and_does_not_come_again(talk: Conversation) -> None:
    _start(talk, "@worker.task\ndef malformed(context): return 'fine'")
    talk.declare("malformed")

    talk.publish_body("malformed", b"not json", token="t-malformed")
    talk.publish_body("malformed", b"nobody can be answered", token="")

    reply = talk.finished("t-malformed")
    assert reply.error is not None
    assert reply.error.code == "protocol_error"
    assert talk.result("malformed") == Inline("fine")


def test_a_helper_process_of_the_tasks_own_does_not_become_a_worker(talk: Conversation) -> None:
    source = """
import multiprocessing

def double(number):
    return 2 * number

@worker.task
def using_processes(context):
    with multiprocessing.get_context(context["method"]).Pool(2) as pool:
        return pool.map(double, [1, 2, 3])
"""
    _start(talk, source)

    assert talk.result("using_processes", {"method": "spawn"}) == Inline([2, 4, 6])
    # A pool ends its processes by SIGTERM; whether one has begun to wait by then is a matter of luck.
    for _ in range(10):
        assert talk.result("using_processes", {"method": "fork"}) == Inline([2, 4, 6])


def test_modules_are_started_like_files(talk: Conversation) -> None:
    package = talk.folder / "mypackage"
    package.mkdir()
    package.joinpath("__init__.py").touch()
    package.joinpath("queue.py").write_text(
        HEAD + "@worker.task\ndef of_module(context): return __name__\nworker.run()\n"
    )
    process = subprocess.Popen([sys.executable, "-m", "mypackage.queue"], env=talk.environ, cwd=talk.folder)
    try:
        assert talk.result("of_module") == Inline("__main__")
    finally:
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(20) == 0


def test_a_worker_that_finds_no_broker_waits_and_says_so_once(tmp_path: Path) -> None:
    file = tmp_path / "early.py"
    file.write_text(HEAD + "@worker.task\ndef early(context): ...\nworker.run()\n")
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SHEPHERD_")},
        "PYTHONPATH": str(Path(__file__).parents[2] / "src"),
        "SHEPHERD_ENV_FILE": "",
        "SHEPHERD_BROKER_URL": "amqp://127.0.0.1:1/",
    }
    worker = WorkerProcess(file, environ=environ)
    try:
        wait_until(lambda: "waiting_for_broker" in worker.log, timeout_s=20, what="the report")
        threading.Event().wait(1)

        assert worker.process.poll() is None
        assert worker.log.count("waiting_for_broker") == 1
    finally:
        assert worker.stop() == 0

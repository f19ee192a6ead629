"""What becomes of an attempt that takes long, isn't wanted any more, or whose processes die."""

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from shepherd.broker.topology import task_queue
from shepherd.site.local.broker_node import BrokerNode
from shepherd.wire.envelope import Claimed, Finished, Started, Withdrawn
from shepherd.wire.value import Inline
from tests.support.given_brokers import BrokerUnderTest
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until
from tests.support.workers import Conversation, WorkerProcess

#: One line an execution; it lasts until the file `end` exists.
LASTING = """
from shepherd.worker import Worker, current_task
import os, pathlib, threading
worker = Worker()

@worker.task
def NAME(context):
    with open("ledger", "a") as ledger:
        ledger.write(f"{os.getpid()}\\n")
    if context.get("is_short"):
        return "short"
    while not pathlib.Path("end").exists():
        threading.Event().wait(0.02)
    return "ended"

worker.run()
"""

#: Leaves a process of its own session behind, whose parent has ended, and that ignores what asks it to end.
STUBBORN = """
from shepherd.worker import Worker
import os, signal, subprocess, sys, time
worker = Worker()
DAEMON = '''
import os, signal, time
if os.fork() or os.setsid() or os.fork():
    os._exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open("daemon.tmp", "w").write(str(os.getpid()))
os.rename("daemon.tmp", "daemon")
time.sleep(1000)
'''

@worker.task
def NAME(context):
    if not context.get("is_stubborn"):
        return "fine"
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    subprocess.run([sys.executable, "-c", DAEMON], env={}, check=True)
    while True:
        pass

worker.run()
"""


@pytest.fixture
def talk(own_broker: BrokerUnderTest, tmp_path: Path) -> Iterator[Conversation]:
    with Conversation(own_broker.url, tmp_path) as conversation:
        conversation.settings = {"SHEPHERD_HOLD_S": "1"}
        yield conversation


@pytest.fixture
def stoppable(own_broker_node: BrokerNode, tmp_path: Path) -> Iterator[Conversation]:
    """The same on a node that the test may stop."""
    with Conversation(own_broker_node.url, tmp_path) as conversation:
        conversation.settings = {"SHEPHERD_HOLD_S": "1"}
        yield conversation


def _start(talk: Conversation, source: str, name: str, *, slots: int = 1, file_name: str = "mine.py") -> WorkerProcess:
    return talk.start(source.replace("NAME", name), "--slots", str(slots), file_name=file_name)


def _depths(node: BrokerUnderTest, name: str) -> tuple[int, int]:
    """Return how many messages of a task are ready, and how many are in somebody's hands; some seconds late."""
    lines = node.ctl("-q", "list_queues", "name", "messages_ready", "messages_unacknowledged").splitlines()
    found = next(line.split() for line in lines if line.startswith(f"{task_queue(name)}\t"))
    return int(found[1]), int(found[2])


def _executions(talk: Conversation) -> int:
    ledger = talk.folder / "ledger"
    return len(ledger.read_text().splitlines()) if ledger.exists() else 0


def _is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def _daemon(talk: Conversation) -> int:
    file = talk.folder / "daemon"
    wait_until(file.exists, timeout_s=20, what="the daemon")
    return int(file.read_text())


def test_a_long_task_is_claimed_and_nothing_else_is_held_back(talk: Conversation, own_broker: BrokerUnderTest) -> None:
    _start(talk, LASTING, "claimed_one")
    long, short = talk.publish("claimed_one"), talk.publish("claimed_one", {"is_short": True})

    talk.reply(long, Claimed)
    wait_until(lambda: _depths(own_broker, "claimed_one") == (1, 0), timeout_s=20, what="the ack")
    held = talk.beat(lambda beat: beat.holds == (long,))
    (talk.folder / "end").touch()

    assert held.idle_s == 0
    assert talk.finished(long).result == Inline("ended")
    assert talk.finished(short).result == Inline("short")
    assert [type(reply) for reply in talk.replies(long)] == [Started, Claimed, Finished]
    assert _executions(talk) == 2
    idle = talk.beat(lambda beat: beat.idle_s > 0)
    assert (idle.holds, idle.free_slots) == ((), 1)


def test_a_claimed_tasks_result_outlives_broker_and_worker(
    stoppable: Conversation, own_broker_node: BrokerNode
) -> None:
    worker = _start(stoppable, LASTING, "spooled")
    token = stoppable.publish("spooled")
    stoppable.reply(token, Claimed)

    own_broker_node.stop()
    (stoppable.folder / "end").touch()
    wait_until(lambda: [*stoppable.folder.glob(".shepherd/spool/*/*.reply")], timeout_s=20, what="the reply on disk")
    worker.kill()
    own_broker_node.start()
    _start(stoppable, LASTING, "spooled")

    assert stoppable.finished(token).result == Inline("ended")
    wait_until(lambda: not [*stoppable.folder.glob(".shepherd/spool/*/*.reply")], timeout_s=20, what="an empty spool")
    assert _executions(stoppable) == 1


def test_a_claimed_task_is_held_while_its_reply_waits_for_the_broker(
    stoppable: Conversation, own_broker_node: BrokerNode
) -> None:
    _start(stoppable, LASTING, "waiting_reply")
    token = stoppable.publish("waiting_reply")
    stoppable.reply(token, Claimed)

    own_broker_node.kill()
    (stoppable.folder / "end").touch()
    wait_until(lambda: [*stoppable.folder.glob(".shepherd/spool/*/*.reply")], timeout_s=20, what="the reply on disk")
    own_broker_node.start()

    assert stoppable.finished(token).result == Inline("ended")
    stoppable.beat(lambda beat: token not in beat.holds)
    assert _executions(stoppable) == 1


def test_a_worker_takes_nothing_before_it_has_the_list(talk: Conversation, own_broker: BrokerUnderTest) -> None:
    talk.withdrawn = None
    worker = _start(talk, LASTING, "listless")
    token = talk.publish("listless", {"is_short": True})

    wait_until(lambda: "worker.waiting_for_task_publisher" in worker.log, timeout_s=20, what="the report")
    wait_until(lambda: _depths(own_broker, "listless") == (1, 0), timeout_s=20, what="the message, untouched")
    talk.withdrawn = {token}

    talk.reply(token, Withdrawn)
    wait_until(lambda: _depths(own_broker, "listless") == (0, 0), timeout_s=20, what="the ack")
    assert _executions(talk) == 0
    assert talk.result("listless", {"is_short": True}) == Inline("short")


@pytest.mark.parametrize("is_claimed", [False, True])
def test_what_is_withdrawn_while_it_runs_is_killed_with_all_that_it_started(
    talk: Conversation, own_broker: BrokerUnderTest, is_claimed: bool
) -> None:
    name = f"withdrawn_{is_claimed}"
    talk.settings["SHEPHERD_HOLD_S"] = "1" if is_claimed else "1000"
    _start(talk, STUBBORN, name)
    token = talk.publish(name, {"is_stubborn": True})
    daemon = _daemon(talk)
    if is_claimed:
        talk.reply(token, Claimed)

    talk.withdraw(token)

    talk.reply(token, Withdrawn)
    assert _is_gone(daemon)
    assert talk.result(name) == Inline("fine")
    assert not [reply for reply in talk.replies(token) if isinstance(reply, Finished)]
    wait_until(lambda: _depths(own_broker, name) == (0, 0), timeout_s=20, what="the acks")


def test_what_was_lost_is_not_begun_again_and_goes_on_where_it_was_begun(talk: Conversation) -> None:
    _start(talk, LASTING, "lost")
    begun = talk.publish("lost")
    talk.reply(begun, Claimed)
    queued = talk.publish("lost")

    talk.lose(begun, queued)
    (talk.folder / "end").touch()

    talk.reply(queued, Withdrawn)
    assert talk.finished(begun).result == Inline("ended")
    assert _executions(talk) == 1


def test_what_runs_too_long_fails_and_leaves_nothing(talk: Conversation) -> None:
    _start(talk, STUBBORN, "limited")

    token = talk.publish("limited", {"is_stubborn": True}, run_timeout_s=1.5)
    daemon = _daemon(talk)
    reply = talk.finished(token)

    assert reply.error is not None
    assert reply.error.code == "run_timeout"
    assert "1.5 s" in reply.error.message
    assert _is_gone(daemon)
    assert talk.result("limited") == Inline("fine")


def test_a_worker_that_ends_leaves_nothing(talk: Conversation) -> None:
    worker = _start(talk, STUBBORN.replace("while True:\n        pass", "return 'left'"), "leaving")
    assert talk.result("leaving", {"is_stubborn": True}) == Inline("left")
    daemon = _daemon(talk)

    status = worker.stop()

    assert status == 0
    assert _is_gone(daemon)


def test_a_second_sigterm_gives_up_what_was_claimed(talk: Conversation) -> None:
    worker = _start(talk, LASTING, "given_up", slots=2)
    claimed = talk.publish("given_up")
    talk.reply(claimed, Claimed)

    worker.process.send_signal(signal.SIGTERM)
    talk.manifest(lambda manifest: manifest.pid == worker.process.pid and manifest.state == "draining")
    status = worker.stop()

    assert status == 1
    reply = talk.finished(claimed)
    assert reply.is_lost
    assert reply.error is not None
    assert reply.error.code == "worker_stopped"


def test_what_comes_again_while_it_runs_is_executed_once(own_broker: BrokerUnderTest, talk: Conversation) -> None:
    talk.settings["SHEPHERD_HOLD_S"] = "1000"
    with Proxy(to_port=urlsplit(own_broker.url).port or 0) as proxy:
        talk.settings["SHEPHERD_BROKER_URL"] = (
            f"amqp://guest:guest@127.0.0.1:{proxy.port}{urlsplit(own_broker.url).path}"
        )
        worker = _start(talk, LASTING, "again", slots=2)
        token = talk.publish("again")
        talk.reply(token, Started)

        proxy.reset()
        wait_until(lambda: "task.delivered_again" in worker.log, timeout_s=30, what="the second delivery")
        talk.reply(token, Claimed)
        wait_until(lambda: _depths(own_broker, "again") == (0, 0), timeout_s=20, what="the ack")
        (talk.folder / "end").touch()

        assert talk.finished(token).result == Inline("ended")
        assert _executions(talk) == 1
        worker.stop()


def test_replies_that_the_broker_refuses_are_kept_and_sent_again(talk: Conversation) -> None:
    worker = _start(talk, LASTING, "refused", slots=1)
    talk.result("refused", {"is_short": True})

    with talk.without_replies():
        tokens = [talk.publish("refused", {"is_short": True}) for _ in range(20)]
        wait_until(lambda: "outbox.unconfirmed" in worker.log, timeout_s=20, what="a refusal")
        # One was answered, and the next ones may have been taken with its ack, before the refusal was heard of.
        waiting = talk.waiting("refused")

    assert [talk.finished(token).result for token in tokens] == [Inline("short")] * 20
    assert waiting >= 10, "it takes nothing behind replies that nobody takes"
    assert _executions(talk) == 1 + 20
    worker.stop()


def test_a_killed_worker_loses_no_reply_that_it_was_about_to_send(talk: Conversation) -> None:
    workers = [_start(talk, LASTING, "many", slots=4, file_name=f"worker_{number}.py") for number in range(2)]
    talk.result("many", {"is_short": True})

    tokens = [talk.publish("many", {"is_short": True}) for _ in range(200)]
    wait_until(lambda: talk.waiting("many") < 150, timeout_s=30, what="some under way")
    workers[0].kill()

    assert [talk.finished(token).result for token in tokens] == [Inline("short")] * 200
    # Nothing was lost that would have had to be published again; what its four slots had was executed again.
    assert 201 <= _executions(talk) <= 201 + 4
    workers[1].stop()


@pytest.mark.parametrize("hold_s", ["1000", "1"])
def test_what_was_published_twice_is_executed_once_and_keeps_no_slot(talk: Conversation, hold_s: str) -> None:
    talk.settings["SHEPHERD_HOLD_S"] = hold_s
    worker = _start(talk, LASTING, "twice", slots=2)

    token = talk.publish("twice", copies=2)
    wait_until(lambda: "task.delivered_again" in worker.log, timeout_s=30, what="the second delivery")
    talk.reply(token, Claimed)
    (talk.folder / "end").touch()

    assert talk.finished(token).result == Inline("ended")
    talk.beat(lambda beat: beat.free_slots == 2 and beat.holds == ())
    worker.stop()
    # A delivery that nobody had acked would lie there again.
    assert talk.waiting("twice") == 0
    assert _executions(talk) == 1


@pytest.fixture
def disk(talk: Conversation) -> Iterator[Path]:
    """A small disk, on which the spool lies."""
    disk = talk.folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=True)
    talk.settings["SHEPHERD_SPOOL"] = str(disk / "spool")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def _fill(disk: Path) -> None:
    with pytest.raises(OSError, match="space"):
        (disk / "filler").write_bytes(bytes(1024 * 1024))


def _empty(disk: Path) -> None:
    (disk / "filler").unlink()


def _forbid(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)


def _allow(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)


@pytest.mark.parametrize(("spoil", "mend"), [(_fill, _empty), (_forbid, _allow)])
def test_a_worker_that_cannot_write_to_its_spool_refuses_work_and_says_so(
    talk: Conversation, disk: Path, spoil: Callable[[Path], None], mend: Callable[[Path], None]
) -> None:
    name = f"refusing{spoil.__name__}"
    worker = _start(talk, LASTING, name)
    assert talk.result(name, {"is_short": True}) == Inline("short")
    try:
        spoil(disk)
        wait_until(lambda: "spool.refuses" in worker.log, timeout_s=20, what="the report")
        talk.beat(lambda beat: beat.free_slots == 0)

        token = talk.publish(name, {"is_short": True})
        waiting = talk.beat(lambda beat: beat.free_slots == 0 and not beat.holds)
    finally:
        mend(disk)

    assert waiting.idle_s == 0
    assert talk.finished(token).result == Inline("short")
    assert _executions(talk) == 2
    worker.stop()


def test_what_cannot_be_kept_is_not_claimed(talk: Conversation, disk: Path) -> None:
    _start(talk, LASTING, "unclaimable")
    _fill(disk)
    talk.beat(lambda beat: beat.free_slots == 0)
    _empty(disk)
    talk.beat(lambda beat: beat.free_slots == 1)
    token = talk.publish("unclaimable")
    wait_until(lambda: _executions(talk) == 1, timeout_s=20, what="its begin")
    _fill(disk)

    talk.reply(token, Started)
    # Two beats after the claim was due.
    for _ in range(2):
        talk.beat(lambda beat: beat.holds == (token,))
    unclaimed = not [reply for reply in talk.replies(token) if isinstance(reply, Claimed)]
    _empty(disk)

    assert unclaimed
    talk.reply(token, Claimed)
    (talk.folder / "end").touch()
    assert talk.finished(token).result == Inline("ended")


def test_a_claimed_result_that_finds_the_disk_full_is_sent_all_the_same(talk: Conversation, disk: Path) -> None:
    _start(talk, LASTING, "unkept")
    token = talk.publish("unkept")
    talk.reply(token, Claimed)
    _fill(disk)

    (talk.folder / "end").touch()

    assert talk.finished(token).result == Inline("ended")
    assert talk.beat(lambda beat: token not in beat.holds).free_slots == 0
    _empty(disk)
    talk.beat(lambda beat: beat.free_slots == 1)


def test_a_policy_travels_in_the_manifest(talk: Conversation) -> None:
    source = """
    from shepherd.worker import Worker
    worker = Worker("patient")

    @worker.task(retries=3, backoff=0.5, run_timeout=60)
    def with_policy(context): ...

    worker.add_task(lambda context: None, name="added", retry_on_lost=0).run()
    """
    talk.start(source)

    manifest = talk.manifest(lambda manifest: manifest.worker.startswith("patient@"))

    assert {offer.name: offer.policy for offer in manifest.tasks} == {
        "with_policy": {"retries": 3, "backoff": 0.5, "run_timeout": 60},
        "added": {"retry_on_lost": 0},
    }


BREAKING = """
from shepherd.worker import Worker
import ctypes, os, resource
worker = Worker()

@worker.task
def NAME(context):
    return CALL if context else "fine"

def run_out_of_memory():
    resource.setrlimit(resource.RLIMIT_AS, (512 * 1024 * 1024, -1))
    return len(bytes(1024 * 1024 * 1024))

def flood(size):
    for _ in range(size):
        os.write(1, bytes(range(256)) * 4096)
    return "flooded"

worker.run()
"""


@pytest.mark.parametrize(
    ("call", "code", "message"),
    [
        ("run_out_of_memory()", "memory_error", ""),
        ("ctypes.string_at(0)", "worker_crashed", "SIGSEGV"),
        ("os.closerange(0, 21)", "worker_crashed", ""),
    ],
)
def test_a_task_that_breaks_its_process_fails_with_the_reason(
    talk: Conversation, call: str, code: str, message: str
) -> None:
    name = f"breaking_{code}_{len(call)}"
    _start(talk, BREAKING.replace("CALL", call), name)

    reply = talk.call(name, {"break": True})

    assert reply.error is not None
    assert reply.error.code == code
    assert message in reply.error.message
    assert talk.result(name) == Inline("fine")


@pytest.mark.parametrize("call", ["flood(1024)", "print('x' * 64 * 1024 * 1024)"])
def test_a_gigabyte_of_output_is_capped_and_the_worker_lives(talk: Conversation, call: str) -> None:
    name = f"flooding_{len(call)}"
    worker = _start(talk, BREAKING.replace("CALL", call), name)

    token = talk.publish(name, {"break": True})
    reply = talk.finished(token)

    assert reply.error is None, reply.error
    lines = talk.lines(token, count=reply.log_lines)
    assert any("the log ends here" in line.text or "(cut; it had" in line.text for line in lines)
    assert _peak_megabytes(worker.process.pid) < 200
    assert talk.result(name) == Inline("fine")


def _peak_megabytes(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024

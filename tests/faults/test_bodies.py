"""Row 29: whatever is sent over HTTP or AMQP is refused with its reason, or is what it seems; nothing is blocked by it.

The fixed bodies, each with its answer, stand in test_submissions.py and test_replies.py; these are put together by
chance from the same oddities, at any place of a good document.
"""

import gzip
import itertools
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from shepherd.broker import connect
from shepherd.broker.port import LARGEST_MESSAGE, Message
from shepherd.broker.topology import REPLIES, task_queue
from shepherd.errors import ProtocolError
from shepherd.wire.envelope import Finished, TaskEnvelope, parse_reply
from shepherd.wire.value import Inline
from tests.support.faults.records import read_number
from tests.support.faults.system import FaultSystem, body
from tests.support.faults.thoroughness import is_full
from tests.support.waiting import wait_until

_MEBIBYTE = 2**20
_AT = datetime(2026, 1, 1, tzinfo=UTC)
_ODDITIES = (
    "NaN",
    "-Infinity",
    "1e400",
    "-1e400",
    "9" * 400,
    "9" * 5_000,
    '"\\ud800"',
    '"\\udc00\\ud800"',
    '"\\u0000"',
    '"\x00"',
    '{"a": 1, "a": 2}',
    '{"": {"": []}}',
    "[" * 100 + "]" * 100,
    "[" * 10_000 + "]" * 10_000,
    "[" * 10_000,
    '{"a":' * 10_000 + "1" + "}" * 10_000,
    "null",
    "true",
    "-0.0",
    "1.0",
    '""',
    "[]",
    "{}",
    '"' + "x" * 70_000 + '"',
    "",
)

_PIPELINE = json.dumps({**body("step"), "project": "plain"}).encode()
_REPLY = Finished(token="nobody-s", worker="stub", at=_AT, elapsed_s=0.1, result=Inline({"n": 1})).to_bytes()
_TASK = TaskEnvelope(
    token="nobody-s",
    attempt=1,
    task_id="0b5b0d4e-1d0c-4a52-9f2c-6c1f3a1c9a55",
    # The queue's workers don't serve it, so that no chance makes a task of it that is executed.
    name="served_by_nobody",
    order_no=1,
    run_id="0b5b0d4e-1d0c-4a52-9f2c-6c1f3a1c9a56",
    run_number=1,
    pipeline_name="odd",
    project="plain",
    context={"a": 1},
    data=Inline(None),
    published_at=_AT,
).to_bytes()

_chance = settings(
    max_examples=200 if is_full() else 25,
    deadline=None,
    # Without shrinking: each step of it would wait for what doesn't come.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


def _places(document: bytes) -> list[tuple[int, int]]:
    """Return where values stand in a JSON text: after each colon, comma or bracket, to the next one."""
    marks = [at for at, byte in enumerate(document) if byte in b":,[{}]"]
    return [(at + 1, end) for at, end in itertools.pairwise(marks) if end > at + 1]


def _bodies(good: bytes) -> st.SearchStrategy[bytes]:
    """Return bodies that are nearly this one, and some that are nothing."""
    odd = st.sampled_from(_ODDITIES)
    text = odd.map(lambda oddity: oddity.encode())
    at_a_place = st.builds(
        lambda place, value: good[: place[0]] + value + good[place[1] :], st.sampled_from(_places(good)), text
    )
    cut = st.integers(0, len(good)).map(lambda length: good[:length])
    flipped = st.builds(
        lambda at, byte: good[:at] + bytes([byte]) + good[at + 1 :],
        st.integers(0, len(good) - 1),
        st.integers(0, 255),
    )
    bomb = st.integers(1, 16).map(lambda size: gzip.compress(b"0" * size * _MEBIBYTE))
    return st.one_of(at_a_place, at_a_place, cut, flipped, text, bomb, st.binary(max_size=300))


@_chance
@given(content=_bodies(_PIPELINE), encoding=st.sampled_from(["", "", "gzip", "br"]))
def test_no_body_over_http_is_answered_with_a_fault_of_ours(faulty: FaultSystem, content: bytes, encoding: str) -> None:
    # Chance may name a task that nobody serves: accepted, and rightly never at its end.
    assume(not _names_another_task(content))
    headers = {"Content-Type": "application/json"} | ({"Content-Encoding": encoding} if encoding else {})
    before = _runs(faulty)

    answer = faulty.system.api.post("/runs", content=content, headers=headers)

    faulty.injected.note("a body over HTTP", may_repeat=False)
    if answer.status_code == httpx.codes.ACCEPTED:
        faulty.accepted.append(answer.json()["id"])
        return
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["error"]["message"]
    assert _runs(faulty) == before


def _names_another_task(content: bytes) -> bool:
    try:
        return any(entry["name"] != "step" for entry in json.loads(content)["transformers_list"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return False


@pytest.mark.parametrize("size", [_MEBIBYTE - 1, _MEBIBYTE, _MEBIBYTE + 1, 17 * _MEBIBYTE])
def test_a_body_over_http_may_have_a_mebibyte(faulty: FaultSystem, size: int) -> None:
    answer = faulty.system.api.post(
        "/runs", content=_PIPELINE.ljust(size), headers={"Content-Type": "application/json"}
    )

    faulty.injected.note(f"{size} bytes over HTTP", may_repeat=False)
    assert answer.status_code == (202 if size <= _MEBIBYTE else 413)
    if answer.is_success:
        faulty.accepted.append(answer.json()["id"])


@_chance
@given(bodies=st.lists(_bodies(_REPLY), min_size=1, max_size=20))
def test_no_body_in_the_queue_of_replies_blocks_it(faulty: FaultSystem, bodies: list[bytes]) -> None:
    _assert_taken(faulty, REPLIES, bodies, parse_reply)


@settings(_chance, max_examples=100 if is_full() else 8)
@given(bodies=st.lists(_bodies(_TASK), min_size=1, max_size=10))
def test_no_body_in_a_queue_of_tasks_blocks_it(faulty: FaultSystem, bodies: list[bytes]) -> None:
    # With ids that name no attempt: what a worker answers to them changes nothing.
    _publish(faulty, task_queue("step"), bodies)

    faulty.injected.note(f"{len(bodies)} bodies in a queue of tasks", may_repeat=False)
    faulty.wait_status(faulty.post("step"), "succeeded")


@pytest.mark.parametrize("content", [b"[", b"\xff"], ids=["text", "binary"])
@pytest.mark.parametrize("size", [_MEBIBYTE - 1, _MEBIBYTE + 1, 4 * _MEBIBYTE])
def test_no_size_of_a_reply_blocks_its_queue(faulty: FaultSystem, size: int, content: bytes) -> None:
    _assert_taken(faulty, REPLIES, [content * size], parse_reply)


@pytest.mark.parametrize("queue", [REPLIES, task_queue("step")])
def test_a_message_larger_than_ours_may_be_blocks_no_queue(faulty: FaultSystem, queue: str) -> None:
    _assert_taken(faulty, queue, [b"[" * 17 * _MEBIBYTE], parse_reply)


def test_after_all_of_it_everything_goes_on(faulty: FaultSystem) -> None:
    run = faulty.post("step", "step")
    faulty.injected.note("bodies by chance", may_repeat=False)

    faulty.wait_status(run, "succeeded")

    faulty.conclude("29", "bodies by chance over HTTP and AMQP", more=f"{len(faulty.records().dead)} dead letters")


def _assert_taken(faulty: FaultSystem, queue: str, bodies: Sequence[bytes], parse: Callable[[bytes], Any]) -> None:
    """Each body that is none of its kind becomes a dead letter with its reason; the others are answers to nothing."""
    expected = _dead(faulty) + sum(1 for content in bodies if not _is_parsed(parse, content))
    workers = [faulty.system.pid(name) for name in ("worker-1", "worker-2", "task-publisher")]

    _publish(faulty, queue, bodies)

    for _ in bodies:
        faulty.injected.note(f"a body in {queue}", may_repeat=False)
    wait_until(lambda: _dead(faulty) >= expected, timeout_s=60, what=f"{expected} dead letters")
    assert _dead(faulty, "AND reason = ''") == 0
    assert [faulty.system.pid(name) for name in ("worker-1", "worker-2", "task-publisher")] == workers


def _is_parsed(parse: Callable[[bytes], Any], content: bytes) -> bool:
    try:
        parse(content)
    except ProtocolError:
        return False
    return True


def _publish(faulty: FaultSystem, queue: str, bodies: Sequence[bytes]) -> None:
    small = [content for content in bodies if len(content) <= LARGEST_MESSAGE]
    broker = connect(faulty.broker.url, name="anybody")
    try:
        # Without an id, so that nobody can be answered.
        assert broker.publish([Message(routing_key=queue, body=content) for content in small]) == [None] * len(small)
    finally:
        broker.close()
    for content in bodies:
        if len(content) > LARGEST_MESSAGE:
            _publish_past_us(faulty, queue, content)


def _publish_past_us(faulty: FaultSystem, queue: str, content: bytes) -> None:
    """Publish what ours refuses to send, and RabbitMQ 4 by default too."""
    exchange = 'rabbit_misc:r(<<"/">>, exchange, <<"">>)'
    made = f'binary:copy(<<"{content[:1].decode()}">>, {len(content)})'
    faulty.broker.ctl("eval", f'rabbit_basic:publish({exchange}, <<"{queue}">>, [], {made}).')


def _dead(faulty: FaultSystem, more: str = "") -> int:
    return read_number(faulty.database_url, f"SELECT count(*) FROM pipelines_deadmessage WHERE 1 = 1 {more}")


def _runs(faulty: FaultSystem) -> int:
    return read_number(faulty.database_url, "SELECT count(*) FROM pipelines_run")

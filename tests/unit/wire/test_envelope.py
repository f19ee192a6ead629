"""Every message survives its own wire form, and a broken one is refused with the name of its field."""

import itertools
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shepherd.errors import ProtocolError
from shepherd.wire.beat import Beat, parse_beat
from shepherd.wire.control import Hello, Wake, Withdrawals
from shepherd.wire.envelope import Claimed, Finished, Reply, Started, TaskEnvelope, TaskError, Withdrawn, parse_reply
from shepherd.wire.fields import format_time, parse_kind, parse_time, readable
from shepherd.wire.logs import LogLine, LogLines
from shepherd.wire.manifest import Manifest, TaskOffer
from shepherd.wire.value import ClaimCheck, Inline, Value
from tests.unit.wire.test_strict_json import VALUES

AT = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,99}", fullmatch=True)
WORDS = st.text(max_size=20)
IDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=255)
#: Text for people, as it may stand in a message: NUL is replaced, since not every database holds it.
READABLE = WORDS.map(readable)
COUNTS = st.integers(0, 2**31 - 1)
TIMES = st.datetimes(timezones=st.just(UTC))
OBJECTS = st.dictionaries(st.text(max_size=10), VALUES, max_size=4)
CLAIMS = st.builds(
    ClaimCheck,
    uri=st.text(min_size=1),
    sha256=st.from_regex("[0-9a-f]{64}", fullmatch=True),
    size=COUNTS,
    media_type=st.text(min_size=1),
)
DATA: st.SearchStrategy[Value] = VALUES.map(Inline) | CLAIMS
ELAPSED = st.floats(0, 1e9).map(lambda seconds: round(seconds, 6))
ERRORS = st.builds(TaskError, code=WORDS, message=READABLE, traceback=READABLE, is_retryable=st.booleans())
COMMON = {"token": IDS, "worker": IDS, "at": TIMES}

TASKS = st.builds(
    TaskEnvelope,
    token=IDS,
    attempt=COUNTS,
    task_id=WORDS,
    name=NAMES,
    order_no=st.integers(1 - 2**53, 2**53 - 1),
    run_id=WORDS,
    run_number=COUNTS,
    pipeline_name=WORDS,
    project=WORDS,
    context=OBJECTS,
    data=DATA,
    published_at=TIMES,
    run_timeout_s=st.none() | st.floats(0.001, 1e9),
)
REPLIES = (
    st.builds(Started, **COMMON)
    | st.builds(Claimed, **COMMON)
    | st.builds(Withdrawn, **COMMON)
    | st.builds(Finished, **COMMON, elapsed_s=ELAPSED, error=ERRORS, log_lines=COUNTS, is_lost=st.just(True))
    | st.builds(Finished, **COMMON, elapsed_s=ELAPSED, result=DATA, log_lines=COUNTS)
    | st.builds(Finished, **COMMON, elapsed_s=ELAPSED, error=ERRORS, log_lines=COUNTS)
)
LINES = st.builds(LogLine, n=COUNTS, at=TIMES, level=st.sampled_from(["DEBUG", "INFO", "CRITICAL"]), text=READABLE)
LOGS = st.builds(LogLines, token=IDS, worker=IDS, lines=st.lists(LINES, max_size=4).map(tuple))
BEATS = st.builds(
    Beat,
    worker=IDS,
    at=TIMES,
    free_slots=COUNTS,
    holds=st.lists(WORDS, max_size=4).map(tuple),
    idle_s=ELAPSED.map(lambda seconds: round(seconds, 3)),
)
OFFERS = st.builds(TaskOffer, name=NAMES, description=READABLE, context_schema=OBJECTS, data=READABLE, policy=OBJECTS)
MANIFESTS = st.builds(
    Manifest,
    worker=IDS,
    at=TIMES,
    host=READABLE,
    pid=COUNTS,
    version=READABLE,
    slots=COUNTS,
    free_slots=COUNTS,
    state=st.sampled_from(["serving", "draining", "stopped"]),
    store=READABLE,
    tasks=st.lists(OFFERS, max_size=3).map(tuple),
    wants_withdrawals=st.booleans(),
)


@given(TASKS)
def test_a_task_survives_the_wire(task: TaskEnvelope) -> None:
    assert TaskEnvelope.parse(task.to_bytes()) == task


@given(REPLIES)
def test_a_reply_survives_the_wire(reply: Reply) -> None:
    assert parse_reply(reply.to_bytes()) == reply


@given(st.lists(IDS, max_size=4).map(tuple), st.lists(IDS, max_size=4).map(tuple), st.booleans())
def test_withdrawals_survive_the_wire(tokens: tuple[str, ...], lost: tuple[str, ...], is_complete: bool) -> None:
    message = Withdrawals(tokens=tokens, lost=lost, is_complete=is_complete)

    assert Withdrawals.parse(message.to_bytes()) == message


@given(LOGS)
def test_log_lines_survive_the_wire(lines: LogLines) -> None:
    assert LogLines.parse(lines.to_bytes()) == lines


@given(BEATS)
def test_a_beat_survives_the_wire(beat: Beat) -> None:
    assert parse_beat(beat.to_bytes()) == beat


@given(MANIFESTS)
def test_a_manifest_survives_the_wire(manifest: Manifest) -> None:
    assert Manifest.parse(manifest.to_bytes()) == manifest


@pytest.mark.parametrize(("message", "kind"), [(Hello(), "hello"), (Wake(), "wake")])
def test_a_message_without_fields_is_known_by_its_kind(message: Hello | Wake, kind: str) -> None:
    assert parse_kind(message.to_bytes()) == kind


@given(st.datetimes(timezones=st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))))
def test_a_time_keeps_its_instant_to_the_microsecond(at: datetime) -> None:
    try:
        text = format_time(at)
    except OverflowError:
        return

    assert parse_time(text) == at
    assert text.endswith("Z")


TASK: dict[str, Any] = {
    "v": 0,
    "type": "task",
    "token": "t",
    "attempt": 1,
    "run": {"id": "r", "number": 7, "pipeline_name": "p", "project": "q"},
    "task": {"id": "i", "name": "skip_column", "order_no": 1},
    "context": {},
    "data": {"inline": None},
    "published_at": "2026-01-31T12:00:00.000000Z",
}
CLAIM: dict[str, Any] = {"uri": "file:///a", "sha256": "0" * 64, "size": 1, "media_type": "text/csv"}
FINISHED: dict[str, Any] = {
    "v": 0,
    "type": "finished",
    "token": "t",
    "worker": "w",
    "at": "2026-01-31T12:00:00Z",
    "elapsed_s": 0.5,
    "status": "succeeded",
    "result": {"claim": CLAIM},
}
FAILED: dict[str, Any] = {**FINISHED, "status": "failed", "error": {"code": "c", "message": "m"}}
LOG: dict[str, Any] = {
    "v": 0,
    "type": "log",
    "token": "t",
    "worker": "w",
    "lines": [{"n": 1, "at": "2026-01-31T12:00:00Z", "level": "INFO", "text": "x"}],
}
BEAT: dict[str, Any] = {
    "v": 0,
    "type": "beat",
    "worker": "w",
    "at": "2026-01-31T12:00:00Z",
    "free_slots": 1,
    "holds": ["t"],
}
MANIFEST: dict[str, Any] = {
    "v": 0,
    "type": "manifest",
    "worker": "w",
    "at": "2026-01-31T12:00:00Z",
    "host": "h",
    "pid": 1,
    "version": "0.1.0",
    "slots": 1,
    "free_slots": 1,
    "state": "serving",
    "store": "file:///s",
    "tasks": [{"name": "skip_column", "context_schema": {}}],
}
PARSERS: list[tuple[Any, dict[str, Any]]] = [
    (TaskEnvelope.parse, TASK),
    (parse_reply, FINISHED),
    (parse_reply, FAILED),
    (LogLines.parse, LOG),
    (parse_beat, BEAT),
    (Manifest.parse, MANIFEST),
]
WRONG = [None, 1.5, True, "", "x\ud7ff", [], [1], {}, {"a": 1}, 10**400]


def members(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    if isinstance(value, dict):
        inner = [members(item, (*path, key)) for key, item in value.items()]
    elif isinstance(value, list):
        inner = [members(item, (*path, index)) for index, item in enumerate(value)]
    else:
        inner = []
    return [*([path] if path else []), *(place for places in inner for place in places)]


def changed(message: Any, path: tuple[str | int, ...], value: Any) -> bytes:
    document = json.loads(json.dumps(message))
    target = document
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return json.dumps(document).encode()


def refusal(parse: Any, body: bytes) -> str | None:
    try:
        parse(body)
    except ProtocolError as error:
        return str(error)
    return None


@pytest.mark.parametrize(("parse", "message"), PARSERS)
def test_any_wrong_field_is_either_taken_or_refused_by_name(parse: Any, message: dict[str, Any]) -> None:
    for path, wrong in itertools.product(members(message), WRONG):
        reason = refusal(parse, changed(message, path, wrong))

        assert reason is None or str(path[0]) in reason


@pytest.mark.parametrize(
    ("parse", "message", "path", "wrong", "reason"),
    [
        (TaskEnvelope.parse, TASK, ("v",), 1, "v: is 1, but this side speaks version 0"),
        (TaskEnvelope.parse, TASK, ("v",), False, "v: is False, but"),
        (TaskEnvelope.parse, TASK, ("v",), 0.0, "v: is 0.0, but"),
        (TaskEnvelope.parse, TASK, ("type",), "beat", "type: is 'beat', wanted 'task'"),
        (TaskEnvelope.parse, TASK, ("token",), 1, "token: must be a string"),
        (TaskEnvelope.parse, TASK, ("attempt",), True, "attempt: must be an integer"),
        (TaskEnvelope.parse, TASK, ("attempt",), -1, "attempt: must be an integer from 0 to"),
        (TaskEnvelope.parse, TASK, ("task", "order_no"), 2**53, "task.order_no: must be an integer between"),
        (TaskEnvelope.parse, TASK, ("token",), "", "token: must be a string of 1 to 255 characters"),
        (parse_reply, FINISHED, ("worker",), "w" * 256, "worker: must be a string of 1 to 255 characters"),
        (parse_reply, FINISHED, ("worker",), "\0", "worker: must be a string of 1 to 255 characters"),
        (parse_reply, FINISHED, ("result", "claim", "size"), 2**64, "result.claim.size: must be a number of bytes"),
        (LogLines.parse, LOG, ("lines", 0, "n"), 2**31, "lines[0].n: must be an integer from 0 to"),
        (Manifest.parse, MANIFEST, ("slots",), 10**30, "slots: must be an integer between"),
        (TaskEnvelope.parse, TASK, ("run",), None, "run: must be an object"),
        (TaskEnvelope.parse, TASK, ("run", "number"), "7", "run.number: must be an integer"),
        (TaskEnvelope.parse, TASK, ("task", "name"), "a-b", "task.name: must be a letter or underscore"),
        (TaskEnvelope.parse, TASK, ("context",), [], "context: must be an object"),
        (TaskEnvelope.parse, TASK, ("data",), None, "data: must be an object with either 'inline' or 'claim'"),
        (TaskEnvelope.parse, TASK, ("data",), {"inline": 1, "claim": CLAIM}, "data: must be an object with either"),
        (TaskEnvelope.parse, TASK, ("data",), {"claim": []}, "data.claim: must be an object"),
        (TaskEnvelope.parse, TASK, ("published_at",), "2026-01-31T12:00:00", "published_at: must be a time as in"),
        (TaskEnvelope.parse, TASK, ("published_at",), "0001-01-01T00:00:00+14:00", "published_at: must be a time"),
        (parse_reply, FINISHED, ("type",), "beat", "type: 'beat' is no reply"),
        (parse_reply, FINISHED, ("status",), "done", "status: 'done' is neither"),
        (parse_reply, FINISHED, ("elapsed_s",), 10**400, "elapsed_s: must be a number that a double holds"),
        (parse_reply, FINISHED, ("elapsed_s",), True, "elapsed_s: must be a number"),
        (parse_reply, FINISHED, ("result", "claim", "sha256"), "A" * 64, "result.claim.sha256: must be 64"),
        (parse_reply, FINISHED, ("result", "claim", "size"), -1, "result.claim.size: must be a number of bytes"),
        (parse_reply, FINISHED, ("result", "claim", "uri"), "", "result.claim.uri: must be a non-empty string"),
        (parse_reply, FAILED, ("error",), None, "error: must be an object"),
        (parse_reply, FAILED, ("error", "code"), 5, "error.code: must be a string"),
        (parse_reply, FAILED, ("error", "retryable"), "yes", "error.retryable: must be true or false"),
        (LogLines.parse, LOG, ("lines",), {}, "lines: must be a list"),
        (LogLines.parse, LOG, ("lines", 0), 1, "lines[0]: must be an object"),
        (LogLines.parse, LOG, ("lines", 0, "n"), None, "lines[0].n: must be"),
        (parse_beat, BEAT, ("holds",), [1], "holds: must be a list of strings"),
        (Manifest.parse, MANIFEST, ("state",), "away", "state: 'away' is neither"),
        (Manifest.parse, MANIFEST, ("tasks", 0, "name"), "a b", "tasks[0].name: must be a letter"),
        (Manifest.parse, MANIFEST, ("tasks", 0, "context_schema"), True, "tasks[0].context_schema: must be an object"),
    ],
)
def test_a_malformed_message_is_refused_with_the_name_of_its_field(
    parse: Any, message: dict[str, Any], path: tuple[str | int, ...], wrong: Any, reason: str
) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse(changed(message, path, wrong))

    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize("parse", [parse for parse, _ in PARSERS])
@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"{}", b"\xff", b'{"v": 0}', b'{"v": 0, "v": 0}', b"[" * 10_000, b"\x1f\x8b"]
)
def test_what_is_no_message_at_all_is_refused(parse: Any, body: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse(body)


@pytest.mark.parametrize(("parse", "message"), PARSERS)
def test_a_field_that_is_not_known_is_left_alone(parse: Any, message: dict[str, Any]) -> None:
    assert parse(changed(message, ("new_field",), {"x": 1})) == parse(json.dumps(message).encode())


def test_a_field_that_is_not_known_is_left_alone_beside_a_value_too() -> None:
    body = changed(TASK, ("data",), {"inline": 1, "card": {"rows": 3}})

    assert TaskEnvelope.parse(body).data == Inline(1)


def test_texts_for_people_are_cut_where_they_are_too_long() -> None:
    manifest = Manifest.parse(changed(MANIFEST, ("version",), "9" * 1000))
    lines = LogLines.parse(changed(LOG, ("lines", 0, "level"), "VERY IMPORTANT"))

    assert manifest.version == "9" * 50
    assert lines.lines[0].level == "VERY IMPOR"


def test_texts_for_people_arrive_whatever_stands_in_them() -> None:
    error = TaskError(code="c", message="file 'caf\udce9' is missing", traceback="\0")
    failed = Finished(token="t", worker="w", at=AT, elapsed_s=0.0, error=error)
    lines = LogLines(token="t", worker="w", lines=(LogLine(n=1, at=AT, level="INFO", text="\udce9\0"),))

    reply = parse_reply(failed.to_bytes())

    assert isinstance(reply, Finished)
    assert reply.error == TaskError(code="c", message="file 'caf?' is missing", traceback="\N{REPLACEMENT CHARACTER}")
    assert LogLines.parse(lines.to_bytes()).lines[0].text == "?\N{REPLACEMENT CHARACTER}"

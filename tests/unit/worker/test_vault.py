"""Secrets in contexts, in the process that executes tasks."""

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from shepherd.errors import InvalidInputError, TaskFailedError
from shepherd.store.memory import MemoryStore
from shepherd.wire.envelope import Finished, TaskEnvelope, parse_reply
from shepherd.wire.value import NOTHING, Inline
from shepherd.worker.executor import Executor
from shepherd.worker.task import task_of
from shepherd.worker.vault import Vault

VALUE = "s3cr3t-wörd"


@dataclass
class Upload:
    key: str


def _called(function: Any, context: dict[str, Any], vault: Vault, tmp_path: Path) -> tuple[Finished, bytes]:
    body = TaskEnvelope(
        token="t",
        attempt=1,
        task_id="task-id",
        name="work",
        order_no=1,
        run_id=str(uuid.UUID(int=1)),
        run_number=1,
        pipeline_name="p",
        project="x",
        context=context,
        data=NOTHING,
        published_at=datetime.now(UTC),
    ).to_bytes()
    store = MemoryStore()
    executor = Executor(
        {"work": task_of(function, name="work")}, store=store, worker="w", scratch=tmp_path, vault=vault
    )
    answer = executor.execute(body)
    reply = parse_reply(answer)
    assert isinstance(reply, Finished)
    assert not [stored.key for stored in store.list("")] or reply.error is None
    return reply, answer


def test_a_task_gets_the_value_and_a_literal_as_it_is(tmp_path: Path) -> None:
    got: list[Any] = []
    told: list[tuple[str, str]] = []
    vault = Vault({"KEY": VALUE}, tell=lambda name, value: told.append((name, value)))
    context = {"a": [{"$secret": "KEY"}], "b": {"$literal": {"$secret": "KEY"}}}

    reply, _ = _called(lambda given: got.append((given, list(told))), context, vault, tmp_path)

    assert reply.result == NOTHING
    assert got == [({"a": [VALUE], "b": {"$secret": "KEY"}}, [("KEY", VALUE)])]


def test_a_declared_context_takes_it_as_a_text(tmp_path: Path) -> None:
    def work(context: Upload) -> int:
        return len(context.key)

    reply, _ = _called(work, {"key": {"$secret": "KEY"}}, Vault({"KEY": VALUE}), tmp_path)

    assert reply.result == Inline(len(VALUE))


def test_a_secret_may_be_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "KEY").write_text(f"{VALUE}\n")
    (folder / "BROKEN").write_bytes(b"\xff\xfe\xfd\xfc\xfb\xfa")
    (folder / "LARGE").write_bytes(b"a" * 70_000)
    vault = Vault(folder=folder)

    assert vault.filled({"a": {"$secret": "KEY"}}) == {"a": VALUE}
    for name, code in (("BROKEN", "secret_unusable"), ("LARGE", "secret_unusable"), ("NONE", "secret_missing")):
        with pytest.raises(TaskFailedError, match=name) as failed:
            vault.filled([{"$secret": name}])
        assert failed.value.code == code


def test_a_name_never_leads_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "outside").write_text(VALUE)
    vault = Vault(folder=tmp_path / "secrets")

    for name in ("../outside", str(tmp_path / "outside"), "a\0b", ".", "A" * 4096):
        with pytest.raises(InvalidInputError):
            vault.filled({"a": {"$secret": name}})


def test_variables_are_hidden_from_the_code() -> None:
    environ = {"SHEPHERD_TASK_SECRET_KEY": VALUE, "SHEPHERD_SECRET_KEY": "Django's", "HOME": "/root"}

    vault = Vault.taken_from(environ, folder="", tell=lambda *_: None)

    assert environ == {"SHEPHERD_SECRET_KEY": "Django's", "HOME": "/root"}
    assert vault.filled({"$secret": "KEY"}) == VALUE
    with pytest.raises(TaskFailedError, match="SHEPHERD_TASK_SECRET_HOME"):
        vault.filled({"$secret": "HOME"})


def test_a_secret_that_is_too_short_to_be_kept_out_is_refused() -> None:
    with pytest.raises(TaskFailedError, match="'PIN' has fewer than 6") as failed:
        Vault({"PIN": "12345"}).filled({"$secret": "PIN"})

    assert failed.value.code == "secret_unusable"


class OddError(Exception):
    code = "s3cr3t_value"


def _raise(value: str) -> None:
    raise RuntimeError(f"no access with {value!r}") from KeyError(value)


def _raise_long(value: str) -> None:
    raise RuntimeError("x" * 3_995 + value)


def _raise_odd(_: str) -> None:
    raise OddError("s3cr3t_value")


@pytest.mark.parametrize(
    ("value", "work", "code"),
    [
        (VALUE, lambda value: value, "secret_in_result"),
        (VALUE, lambda value: {"a": [1, {f"key {value}": 1}]}, "secret_in_result"),
        (VALUE, lambda value: json.dumps(json.dumps(value)), "secret_in_result"),
        (VALUE, lambda value: value.encode("utf-16"), "secret_in_result"),
        (VALUE, lambda value: value * 10_000, "secret_in_result"),
        (VALUE, _raise, "runtime_error"),
        (VALUE, _raise_long, "runtime_error"),
        ("s3cr3t_value", _raise_odd, "error"),
    ],
)
def test_no_reply_holds_it(tmp_path: Path, value: str, work: Any, code: str) -> None:
    reply, answer = _called(
        lambda context: work(context["key"]), {"key": {"$secret": "KEY"}}, Vault({"KEY": value}), tmp_path
    )

    assert reply.error is not None
    assert reply.error.code == code
    assert b"s3cr3t" not in answer
    assert "wörd" not in json.dumps(json.loads(answer), ensure_ascii=False)
    assert answer.endswith(b'"log_lines":0}')


def test_a_file_whose_name_holds_it_is_refused(tmp_path: Path) -> None:
    def work(context: dict[str, str]) -> Path:
        path = tmp_path / f"{context['key']}.csv"
        path.write_text("a,b")
        return path

    reply, answer = _called(work, {"key": {"$secret": "KEY"}}, Vault({"KEY": "s3cr3t-word"}), tmp_path)

    assert reply.error is not None
    assert reply.error.code == "secret_in_result"
    assert b"s3cr3t" not in answer

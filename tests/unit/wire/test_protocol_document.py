"""`docs/protocol.md` says what the code does: every example, and every name on the broker."""

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest

from shepherd.broker import topology
from shepherd.errors import ProtocolError
from shepherd.wire import beat, control, envelope, logs, manifest, value
from shepherd.wire.beat import parse_beat
from shepherd.wire.control import DeadLetter, Hello, Wake, Withdrawals
from shepherd.wire.document import DOCUMENT as DOCUMENT_TYPE
from shepherd.wire.document import Fields, parse_document, to_document
from shepherd.wire.envelope import TaskEnvelope, parse_reply
from shepherd.wire.fields import VERSION, parse_kind
from shepherd.wire.logs import LogLines
from shepherd.wire.manifest import Manifest
from shepherd.wire.media import FOLDER

DOCUMENT = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^### (\w+)\n(.*?)(?=^##)", DOCUMENT, re.MULTILINE | re.DOTALL)
#: (the heading that it stands under, the example)
FENCED = [(heading, body) for heading, text in EXAMPLES for body in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]


class Sent(Protocol):
    def to_bytes(self) -> bytes: ...


def _empty(kind: str, message: Sent) -> Callable[[bytes], Sent]:
    def parse(body: bytes) -> Sent:
        if parse_kind(body) != kind:
            raise ProtocolError(f"type: wanted {kind!r}")
        return message

    return parse


def _dead(body: bytes) -> DeadLetter:
    fields = json.loads(body)
    return DeadLetter(reason=fields["reason"], source=fields["source"], body=fields["body"].encode())


PARSERS: dict[str, Callable[[bytes], Sent]] = {
    "task": TaskEnvelope.parse,
    "started": parse_reply,
    "finished": parse_reply,
    "beat": parse_beat,
    "manifest": Manifest.parse,
    "log": LogLines.parse,
    "claimed": parse_reply,
    "withdrawn": parse_reply,
    "withdrawals": Withdrawals.parse,
    "hello": _empty("hello", Hello()),
    "wake": _empty("wake", Wake()),
    "dead": _dead,
}


def types_in_the_code() -> set[str]:
    sources = "".join(inspect.getsource(module) for module in (envelope, beat, logs, control, manifest))
    return {first or second for first, second in re.findall(r'\bencode\(\s*"(\w+)"|"type": "(\w+)"', sources)}


@pytest.mark.parametrize(("heading", "example"), FENCED)
def test_every_example_is_read_and_written_again_the_same(heading: str, example: str) -> None:
    message = PARSERS[heading](example.encode())

    assert json.loads(message.to_bytes()) == json.loads(example)
    assert json.loads(example)["type"] == heading


def test_every_message_of_the_code_has_an_example() -> None:
    assert {heading for heading, _ in FENCED} == types_in_the_code() == set(PARSERS)


def test_finished_is_shown_with_a_result_with_an_error_and_given_up() -> None:
    statuses = [json.loads(example)["status"] for heading, example in FENCED if heading == "finished"]

    assert statuses == ["succeeded", "failed", "lost"]


def test_the_example_of_several_values_is_read_and_written_again_the_same() -> None:
    section = DOCUMENT.split("### Several values")[1].split("\n## ")[0]
    example = "".join(line for line in section.splitlines(keepends=True) if line.startswith("    "))

    node = parse_document(example.encode())

    assert isinstance(node, Fields)
    assert json.loads(to_document(node)) == json.loads(example)
    assert f"`{DOCUMENT_TYPE}`" in DOCUMENT
    assert f"`{FOLDER}`" in DOCUMENT


def test_no_example_stands_where_it_is_not_checked() -> None:
    assert DOCUMENT.count("```json") == len(FENCED)
    assert f"version {VERSION}\n" in DOCUMENT.splitlines(keepends=True)[0]


def rows() -> dict[tuple[str, str], list[str]]:
    """Return the rows of the table of exchanges and queues, by name and kind."""
    section = DOCUMENT.split("## Exchanges and queues")[1].split("###")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if "| " in line]
    return {(row[0].strip("`"), row[1].partition(",")[0]): row for row in cells[1:]}


def arguments(cell: str) -> dict[str, Any]:
    pairs = (pair.split("=") for pair in re.findall(r"`([^`]+)`", cell))
    return {name: int(text) if text.isdigit() else text for name, text in pairs}


def test_the_table_names_every_exchange_with_its_kind() -> None:
    documented = {name: row[1] for (name, kind), row in rows().items() if kind == "exchange"}

    assert documented == {exchange.name: f"exchange, {exchange.kind}" for exchange in topology.EXCHANGES}


def test_the_table_names_every_queue_with_its_arguments_and_bindings() -> None:
    specs = [*topology.STANDING_QUEUES, topology.task_queue_spec("<name>")]
    queues = {name: row for (name, kind), row in rows().items() if kind == "queue"}

    assert {name: arguments(row[2]) for name, row in queues.items()} == {spec.name: spec.arguments for spec in specs}
    for spec in specs:
        bound = [f"`{exchange}` with `{key}`" for exchange, key in spec.bindings]
        assert queues[spec.name][3] == ", ".join(bound)


@pytest.mark.parametrize("key", [topology.ALL_WORKERS_KEY, topology.PUBLISHER_KEY])
def test_the_control_keys_are_documented(key: str) -> None:
    assert f"| `{key}` |" in DOCUMENT


def test_the_limits_are_those_of_the_code() -> None:
    assert value.INLINE_LIMIT == 64 * 1024
    assert "at most 64 KiB" in DOCUMENT

"""What a valid pipeline is. Answers with every fault at once, so that a caller mends a document in one go."""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from shepherd.domain.policy import POLICY_FIELDS, policy_faults, policy_of
from shepherd.errors import Fault, InvalidInputError
from shepherd.names import TASK_NAME_RULE, is_project_name, is_task_name, project_key

MAX_TASKS: Final = 200
MAX_NAME_LENGTH: Final = 200
MAX_URL_LENGTH: Final = 2_000
#: More is no sample any more.
MAX_SAMPLE_ROWS: Final = 1_000_000
#: What every JSON reader holds without rounding (RFC 8259, section 6).
MAX_ORDER_NO: Final = 2**53 - 1
#: More faults than anybody mends at once; the rest is only counted.
MAX_FAULTS: Final = 100
#: Characters of a caller's own key that come back to it in a path.
_KEY_SHOWN: Final = 100

_URL = re.compile(
    r"https?://(?:[^\s/?#@\\]+@)?(?:\[[0-9A-F:.%]+\]|[^\s/?#@:\[\]\\]+)(?::[0-9]{1,5})?(?:[/?#]\S*)?"
    r"|s3://[^\s/?#]+/[^?#]+|file://[^/?#]*/[^?#]*",
    re.IGNORECASE,
)
_URL_RULE: Final = "must be http://…, https://…, s3://bucket/key or file:///path, or empty"
#: Unicode's control characters, halves of surrogate pairs, line and paragraph separators.
_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})

_PIPELINE_FIELDS = ("pipeline_name", "data_url", "project", "sample_rows", "transformers_list")
_TASK_FIELDS = ("name", "order_no", "context", *POLICY_FIELDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """One step, as asked for."""

    order_no: int
    name: str
    context: dict[str, Any]
    #: Its place in `transformers_list` as sent, from 0: what a path in an error names.
    index: int
    #: The fields of `domain.policy.Policy` that were stated, without faults.
    policy: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return f"transformers_list[{self.index}]"

    @property
    def context_path(self) -> str:
        return f"{self.path}.context"


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineSpec:
    """What a caller asked for, in order."""

    pipeline_name: str
    #: An http(s), s3 or file address, or empty; whether it may be fetched is the server's to know.
    data_url: str
    #: In the one spelling under which it is stored.
    project: str
    #: By `order_no`; equal numbers keep their order in the list.
    tasks: tuple[TaskSpec, ...]
    #: Of how many first rows of a table its first task is to be given only; None for all.
    sample_rows: int | None = None


def parse_pipeline(document: Any) -> PipelineSpec:
    """Return the pipeline that a parsed JSON document asks for.

    Only the document itself is looked at: whether the project exists and the contexts fit is the server's to know.

    Raises:
        InvalidInputError: It can't be run. Names every field at fault (the first 100), by its path.
    """
    faults = list(_document_faults(document))
    if faults:
        raise InvalidInputError(_capped(faults))
    tasks = [
        TaskSpec(
            order_no=task["order_no"],
            name=task["name"],
            context=task.get("context", {}),
            index=index,
            policy=policy_of(task),
        )
        for index, task in enumerate(document["transformers_list"])
    ]
    return PipelineSpec(
        pipeline_name=document["pipeline_name"],
        data_url=document.get("data_url", ""),
        project=project_key(document["project"]),
        tasks=tuple(sorted(tasks, key=lambda task: task.order_no)),
        sample_rows=document.get("sample_rows"),
    )


def _capped(faults: list[Fault]) -> list[Fault]:
    rest = len(faults) - MAX_FAULTS
    return faults if rest <= 0 else [*faults[:MAX_FAULTS], Fault("", f"has {rest} more faults")]


def _document_faults(document: Any) -> Iterator[Fault]:
    if not isinstance(document, Mapping):
        yield Fault("", "must be a JSON object")
        return
    yield from _unknown_fields(document, known=_PIPELINE_FIELDS, of="a pipeline", path="")
    yield from _name_faults(document)
    yield from _url_faults(document)
    yield from _project_faults(document)
    yield from sample_faults(document.get("sample_rows"))
    yield from _list_faults(document)


def _unknown_fields(document: Mapping[Any, Any], *, known: tuple[str, ...], of: str, path: str) -> Iterator[Fault]:
    for key in document:
        if key not in known:
            shown = str(key)[:_KEY_SHOWN]
            yield Fault(f"{path}{shown}", f"is not a field of {of}; these are: {', '.join(known)}")


def _name_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    name = document.get("pipeline_name")
    if "pipeline_name" not in document:
        yield Fault("pipeline_name", "is missing")
    elif not isinstance(name, str):
        yield Fault("pipeline_name", "must be a string")
    elif not name.strip():
        yield Fault("pipeline_name", "must not be empty")
    elif len(name) > MAX_NAME_LENGTH:
        yield Fault("pipeline_name", f"must have at most {MAX_NAME_LENGTH} characters, has {len(name)}")
    elif not _is_printable(name):
        yield Fault("pipeline_name", "must not hold control characters or line breaks")


def _url_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    url = document.get("data_url", "")
    if not isinstance(url, str):
        yield Fault("data_url", f"must be a string, which {_URL_RULE}")
    elif len(url) > MAX_URL_LENGTH:
        yield Fault("data_url", f"must have at most {MAX_URL_LENGTH} characters, has {len(url)}")
    elif url and not (_URL.fullmatch(url) and _is_printable(url)):
        scheme = url.partition(":")[0][:20] if ":" in url else ""
        yield Fault("data_url", f"{_URL_RULE}{f', not {scheme}:' if scheme and scheme.isalnum() else ''}")


def _project_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    project = document.get("project")
    if "project" not in document:
        yield Fault("project", "is missing")
    elif not isinstance(project, str):
        yield Fault("project", "must be a string")
    elif not is_project_name(project):
        yield Fault("project", "must be a letter or digit, followed by at most 99 letters, digits, '-' or '_'")


def sample_faults(rows: Any) -> Iterator[Fault]:
    """Yield what is wrong with a `sample_rows`; None is all rows."""
    if rows is None:
        return
    if not isinstance(rows, int) or isinstance(rows, bool):
        yield Fault("sample_rows", "must be an integer, or left out to run on all rows")
    elif not 1 <= rows <= MAX_SAMPLE_ROWS:
        yield Fault("sample_rows", f"must lie between 1 and {MAX_SAMPLE_ROWS}")


def _list_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    tasks = document.get("transformers_list")
    if "transformers_list" not in document:
        yield Fault("transformers_list", "is missing")
    elif not isinstance(tasks, list):
        yield Fault("transformers_list", "must be a list")
    elif not tasks:
        yield Fault("transformers_list", "must name at least one task")
    elif len(tasks) > MAX_TASKS:
        yield Fault("transformers_list", f"must name at most {MAX_TASKS} tasks, names {len(tasks)}")
    else:
        for index, task in enumerate(tasks):
            yield from _task_faults(task, path=f"transformers_list[{index}]")


def _task_faults(task: Any, *, path: str) -> Iterator[Fault]:
    if not isinstance(task, Mapping):
        yield Fault(path, "must be an object")
        return
    yield from _unknown_fields(task, known=_TASK_FIELDS, of="a task", path=f"{path}.")
    yield from _task_name_faults(task, path=f"{path}.name")
    yield from _order_faults(task, path=f"{path}.order_no")
    if not isinstance(task.get("context", {}), dict):
        yield Fault(f"{path}.context", "must be an object")
    yield from policy_faults(task, path=f"{path}.")


def _task_name_faults(task: Mapping[str, Any], *, path: str) -> Iterator[Fault]:
    if "name" not in task:
        yield Fault(path, "is missing")
    elif not isinstance(task["name"], str):
        yield Fault(path, "must be a string")
    elif not is_task_name(task["name"]):
        yield Fault(path, TASK_NAME_RULE)


def _order_faults(task: Mapping[str, Any], *, path: str) -> Iterator[Fault]:
    order_no = task.get("order_no")
    if "order_no" not in task:
        yield Fault(path, "is missing")
    # `True` is an integer to Python, to nobody else.
    elif not isinstance(order_no, int) or isinstance(order_no, bool):
        yield Fault(path, "must be an integer")
    elif abs(order_no) > MAX_ORDER_NO:
        yield Fault(path, f"must lie between -{MAX_ORDER_NO} and {MAX_ORDER_NO}")


def _is_printable(text: str) -> bool:
    return not any(unicodedata.category(character) in _UNPRINTABLE for character in text)

"""What a reply says about an exception out of a task's code."""

import os
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final

from shepherd.errors import InvalidInputError, TransientError
from shepherd.wire.envelope import TaskError

#: The whole package, since contexts are read and results are written with the help of other parts of it.
_SDK: Final = f"{Path(__file__).parents[1]}{os.sep}"
_CODE: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MAX_MESSAGE: Final = 4_000
_MAX_TRACEBACK: Final = 16_000


def explain(error: BaseException, *, mask: Callable[[str], str] = str) -> TaskError:
    """Return the error of the reply: a stable code, the message, and the traceback from the task's own code on.

    The code is the exception's `code` if that is a word in lower case, as a `TaskFailedError` has it; otherwise its
    class's name in snake_case, as in `zero_division_error`. What asks the process to end, as `sys.exit`, is `exited`.
    `mask` takes out of the texts what nobody may read, before they are cut.
    """
    if isinstance(error, SystemExit | KeyboardInterrupt) or not isinstance(error, Exception):
        code, message = "exited", f"the task's code asked its process to end: {error!r}"
    else:
        code, message = _code(error), str(error) or type(error).__name__
    return TaskError(
        code=code,
        message=mask(printable(message))[:_MAX_MESSAGE],
        traceback=mask(printable(_traceback(error)))[-_MAX_TRACEBACK:],
        is_retryable=isinstance(error, TransientError) or getattr(error, "is_retryable", False) is True,
    )


def invalid_context(error: InvalidInputError, *, mask: Callable[[str], str] = str) -> TaskError:
    faults = "; ".join(
        f"context.{fault.path}: {fault.reason}".replace("context.:", "context:") for fault in error.faults
    )
    return TaskError(code="invalid_context", message=mask(printable(faults))[:_MAX_MESSAGE])


def printable(text: str) -> str:
    """Return the text with what no database keeps made visible: NUL, and halves of surrogate pairs."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "replace").decode().replace("\0", "␀")


def snake_case(name: str) -> str:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return re.sub(r"[^a-z0-9_]", "_", words.lower()).strip("_") or "error"


def _code(error: Exception) -> str:
    code = getattr(error, "code", None)
    return code if isinstance(code, str) and _CODE.fullmatch(code) else snake_case(type(error).__name__)


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, _own(error.__traceback__)))


def _own(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_SDK):
        trace = trace.tb_next
    return trace

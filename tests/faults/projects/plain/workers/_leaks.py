"""What a task's code may do with a secret, by mistake or on purpose."""

import base64
import json
import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl


def _print(key: str) -> None:
    print(f"the key is {key}")
    print({"key": key}, repr(key), quote(key, safe=""), base64.b64encode(f"user:{key}".encode()).decode())
    print(json.dumps({"deep": json.dumps(key)}), key.encode().hex())


def _print_in_two(key: str) -> None:
    sys.stdout.write(key[:7])
    sys.stdout.flush()
    sys.stdout.write(f"{key[7:]}\n")
    sys.stderr.write("x" * 65_534 + key[:7])
    sys.stderr.write(key[7:] + "y" * 70_000 + "\n")


def _log(key: str) -> None:
    logging.getLogger("mine").warning("with %r", {"key": key})
    try:
        raise ValueError(key)
    except ValueError:
        logging.getLogger("mine").exception("no access")
    warnings.warn(key, stacklevel=1)


def _log_in_a_thread(key: str) -> None:
    def run() -> None:
        print("thread", key)
        raise RuntimeError(key)

    thread = threading.Thread(target=run, name=key)
    thread.start()
    thread.join()


def _write_around_python(key: str) -> None:
    os.write(1, f"raw {key[:7]}".encode())
    os.write(1, f"{key[7:]} and {json.dumps(key)}\n".encode())
    # Not `echo`, which would make another text of a backslash.
    script = 'printf "child %s\n" "$KEY"; printf "%s\n" "$KEY" >&2'
    subprocess.run(["sh", "-c", script], env={**os.environ, "KEY": key}, check=True)
    subprocess.run(["env"], check=True)


SAYINGS: list[Callable[[str], None]] = [_print, _print_in_two, _log, _log_in_a_thread, _write_around_python]


def _raise(key: str, _folder: Path) -> None:
    local = {"key": key}
    raise RuntimeError(f"no access with {local!r}") from KeyError(key)


def _raise_as_code(key: str, _folder: Path) -> None:
    error = RuntimeError("code")
    error.code = key  # type: ignore[attr-defined]
    raise error


def _crash(key: str, _folder: Path) -> None:
    os.write(2, f"dying with {key}".encode())
    os.abort()


def _file(key: str, folder: Path) -> Path:
    path = folder / "result.txt"
    path.write_text("x" * (2**20 - 5) + key)
    return path


def _file_name(key: str, folder: Path) -> Path:
    path = folder / f"{key}.txt"
    path.write_text("fine")
    return path


def _frame(key: str, _folder: Path) -> pl.LazyFrame:
    return pl.LazyFrame({"n": range(1000), "text": ["x"] * 999 + [f"in {key}"]})


#: By how a task ends.
WAYS_OUT: dict[str, Callable[[str, Path], Any]] = {
    "returns nothing": lambda _key, _folder: {"attempt": 1},
    "returns it": lambda key, _folder: key,
    "returns it in JSON": lambda key, _folder: {"attempt": 1, "list": [{f"of {key}": 1}]},
    "returns it in large JSON": lambda key, _folder: [key] * 10_000,
    "returns bytes": lambda key, _folder: key.encode("utf-16"),
    "returns a file": _file,
    "returns a file of its name": _file_name,
    "returns a frame": _frame,
    "raises": _raise,
    "raises with it as code": _raise_as_code,
    "crashes": _crash,
}

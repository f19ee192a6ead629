"""Secrets in what is said and in what is kept."""

import base64
import gzip
import html
import io
import json
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shepherd.errors import TaskFailedError
from shepherd.store.memory import MemoryStore
from shepherd.worker import guarded
from shepherd.worker.guarded import GuardedStore, find_secret
from shepherd.worker.mask import Mask
from shepherd.worker.output import LineStream

SECRET = 'p&w "0rd\\ü/+=%<x>\n second line'

#: How people and programs write a text down, also within more.
FORMS: dict[str, Any] = {
    "plain": SECRET,
    "JSON": json.dumps({"a": SECRET}),
    "JSON in UTF-8": json.dumps({"a": SECRET}, ensure_ascii=False),
    "JSON in JSON": json.dumps({"a": json.dumps({"b": SECRET})}),
    "repr": repr({"a": SECRET}),
    "repr of bytes": repr(SECRET.encode()),
    "repr of an exception": repr(ValueError(repr(SECRET))),
    "URL": f"https://x/?a={quote(SECRET, safe='')}&b=1",
    "URL with slashes": quote(SECRET),
    "form": quote_plus(SECRET),
    "URL in lower case": quote(SECRET, safe="").lower() if SECRET.islower() else quote(SECRET),
    "HTML": html.escape(f"<p>{SECRET}</p>"),
    "hex": f"0x{SECRET.encode().hex()}",
    "base64": base64.b64encode(SECRET.encode()).decode(),
    "base64 after one byte": base64.b64encode(f"u{SECRET}".encode()).decode(),
    "base64 after two bytes": base64.b64encode(f"u:{SECRET}:v".encode()).decode(),
    "base64 for URLs": base64.urlsafe_b64encode(f"u:{SECRET}".encode()).decode(),
    "UTF-16": base64.b64encode(SECRET.encode("utf-16")).decode(),
    "one of its lines": "second line",
}


@pytest.fixture
def mask() -> Mask:
    known = Mask()
    known.add("KEY", SECRET)
    return known


@pytest.mark.parametrize("form", list(FORMS))
def test_no_form_of_a_secret_is_said_or_kept(mask: Mask, form: str) -> None:
    said = mask.text(f"before {FORMS[form]} after")

    assert "[secret KEY]" in said
    assert "second line" not in said
    assert said.startswith("before ")
    assert said.endswith(" after")
    assert mask.find([b"before ", FORMS[form].encode(), b" after"]) == "KEY"


def test_what_holds_no_secret_stays_as_it_is(mask: Mask) -> None:
    assert mask.text("second  line, p&w") == "second  line, p&w"
    assert mask.find([b"second  line, p&w"]) is None
    assert Mask().text(SECRET) == SECRET


@given(st.integers(0, 40), st.integers(1, 40))
def test_a_secret_that_stands_across_pieces_is_found(before: int, size: int) -> None:
    known = Mask()
    known.add("KEY", "abcdef-123456")
    content = b"x" * before + b"abcdef-123456" + b"y" * 7

    assert known.find(content[start : start + size] for start in range(0, len(content), size)) == "KEY"


class _Link:
    is_attached = True

    def __init__(self) -> None:
        self.sent = b""

    def send_packed(self, frame: bytes) -> None:
        self.sent += frame


@pytest.mark.parametrize("before", [0, 65_530, 65_536, 200_000])
def test_a_secret_in_several_writes_of_an_endless_line_is_never_sent(before: int) -> None:
    known, link = Mask(), _Link()
    # No digits: each line has its time beside it.
    known.add("KEY", "abcdef-ghijkl")
    stream = LineStream(link, io.TextIOWrapper(io.BytesIO()), known, level="INFO")  # type: ignore[arg-type]

    for piece in ("x" * before, "abcd", "ef-gh", "ijkl", "y" * 70_000, "abcdef", "-ghijkl\n"):
        stream.write(piece)
    stream.end_line()

    assert b"abcdef" not in link.sent
    assert b"ijkl" not in link.sent


_FRAMES: dict[str, Any] = {
    "polars": lambda path, value: pl.DataFrame({"n": [1, 2], "a": ["x" * 20, value]}).write_parquet(path),
    "polars, a category": lambda path, value: pl.DataFrame(
        {"a": ["x", value]}, schema={"a": pl.Categorical}
    ).write_parquet(path),
    "polars, nested": lambda path, value: pl.DataFrame({"a": [[{"b": "x"}], [{"b": value}]]}).write_parquet(path),
    "polars, bytes": lambda path, value: pl.DataFrame({"a": [value.encode()]}).write_parquet(path),
    "pandas": lambda path, value: pd.DataFrame({"a": ["x", f"in {value} text"]}).to_parquet(path),
    "arrow, repeated": lambda path, value: pq.write_table(pa.table({"a": [value] * 5000 + ["x"]}), path),
    "name of a column": lambda path, value: pl.DataFrame({value: [1]}).write_parquet(path),
}


@pytest.mark.parametrize("how", list(_FRAMES))
@pytest.mark.parametrize("library", ["pyarrow", "polars"])
def test_a_secret_in_a_table_is_found(tmp_path: Path, how: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if library == "polars":
        monkeypatch.setattr(guarded, "_has_arrow", lambda: False)
    known, path = Mask(), tmp_path / "t.parquet"
    known.add("KEY", "abcdef-123456-7890")

    _FRAMES[how](path, "abcdef-123456-7890")
    assert find_secret(path, "t.parquet", known) == "KEY"
    assert find_secret(path.read_bytes(), "t.parquet", known) == "KEY"

    _FRAMES[how](path, "abcdef-123456-789")
    assert find_secret(path, "t.parquet", known) is None


@pytest.mark.parametrize("library", ["pyarrow", "polars"])
def test_what_is_no_table_is_no_fault(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if library == "polars":
        monkeypatch.setattr(guarded, "_has_arrow", lambda: False)
    known = Mask()
    known.add("KEY", "abcdef-123456")

    assert find_secret(b"PAR1 no table", "a.parquet", known) is None
    assert find_secret(b"PAR1" + b"\0" * 64 + b"PAR1", "a.parquet", known) is None


def test_a_secret_in_what_is_packed_is_found(tmp_path: Path) -> None:
    known = Mask()
    known.add("KEY", "abcdef-123456")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", "x" * 1000)
        archive.writestr("b.txt", "a: abcdef-123456")

    assert find_secret(packed.getvalue(), "a.zip", known) == "KEY"
    assert find_secret(gzip.compress(b"abcdef-123456" * 100), "a.gz", known) == "KEY"
    assert find_secret(gzip.compress(b"nothing" * 100), "a.gz", known) is None
    assert find_secret(b"\x1f\x8bno gzip", "a.gz", known) is None
    assert find_secret(b"PAR1 no table", "a.parquet", known) is None


def test_a_guarded_store_keeps_nothing_of_what_holds_a_secret() -> None:
    known, inner = Mask(), MemoryStore()
    known.add("KEY", "abcdef-123456")
    store = GuardedStore(inner, known, is_needed=lambda: True)

    claim = store.put(b"fine", key="runs/a", media_type="text/plain")
    with pytest.raises(TaskFailedError, match="the secret 'KEY'") as failed:
        store.put(b"not abcdef-123456", key="runs/b", media_type="text/plain")
    with pytest.raises(TaskFailedError):
        store.put(b"fine", key="runs/abcdef-123456.csv", media_type="text/plain")

    assert failed.value.code == "secret_in_result"
    assert [stored.key for stored in inner.list("")] == ["runs/a"]
    assert store.read(claim) == b"fine"

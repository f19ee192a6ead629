"""A task that drops a column holds no more of a large table than of a small one."""

import subprocess
import sys
from pathlib import Path

from tests.support.faults.thoroughness import is_full

# In a process of its own, as a worker's child is: the peak is the process's.
_TASK = """
import sys
from pathlib import Path
import polars as pl
from shepherd.store import open_store
from shepherd.wire.value import ClaimCheck
from shepherd.worker import result
from shepherd.worker.data import data_type
from shepherd.worker.desk import Desk

folder, name, media_type = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
with Desk(open_store((folder / "store").as_uri()), prefix="runs/1", scratch=folder) as desk:
    claim = desk.put(folder / name, name=name, media_type=media_type)
    data = data_type(pl.LazyFrame).decode(claim, desk)
    result.encode(data.drop("c3"), desk)
    # All rows, but nobody knows that before: nothing can be copied.
    value = result.encode(data.drop("c3").filter(pl.col("c1") >= 0), desk)
    rows = pl.scan_parquet(desk.fetch(value)).select(pl.len()).collect().item()
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(rows, int(peak.split()[1]) // 1024)
"""
_SMALL, _LARGE = 1_000_000, 6_000_000
#: The first takes seconds, the others minutes: they are of half a gigabyte.
_FORMS = (
    ("parquet", "application/vnd.apache.parquet"),
    ("csv", "text/csv"),
    ("ndjson", "application/x-ndjson"),
)


def _made(folder: Path, form: str, rows: int) -> str:
    name = f"{rows}.{form}"
    code = f"""
import polars as pl
numbers = pl.LazyFrame({{"c0": pl.int_range(0, {rows}, eager=True)}})
mixed = [((pl.col("c0") * 2654435761 + n * 40503) % 1000003 / 7).alias(f"c{{n}}") for n in range(1, 5)]
numbers.with_columns(mixed).sink_{form}("{folder / name}")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    return name


def _peak(folder: Path, form: str, media_type: str, rows: int) -> int:
    command = [sys.executable, "-c", _TASK, str(folder), _made(folder, form, rows), media_type]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert int(told[0]) == rows
    return int(told[1])


def test_the_peak_does_not_grow_with_the_table(tmp_path: Path) -> None:
    for form, media_type in _FORMS if is_full() else _FORMS[:1]:
        small, large = (_peak(tmp_path, form, media_type, rows) for rows in (_SMALL, _LARGE))

        # polars' buffers are the same for both; with all of the table in memory, the second would hold 6 times as much.
        assert large < 2 * small, form

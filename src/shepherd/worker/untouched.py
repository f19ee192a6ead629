"""Columns that a task leaves as they are: copied from its input's file into its result's instead of written anew.

Which these are, the plan of a lazy frame says: every step between the file and the end keeps all rows in their order,
and takes the column over as it is, under its own or another name.
"""

import importlib
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from shepherd.worker.splice import Column, ParquetFile, write_spliced
from shepherd.worker.tables import write_lazy

#: By the class of a step in a plan: the attribute that has its expressions.
_STEPS: Final = {"SimpleProjection": "", "Select": "expr", "HStack": "exprs"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Origin:
    """The file that a plan begins with, and for each column of its end what it is there; None if it is computed."""

    path: Path
    columns: Mapping[str, str | None]


def write_with_untouched(frame: Any, target: Path, *, inputs: Collection[Path]) -> bool:
    """Write a lazy frame into a Parquet file, if columns of one of these input files can be copied.

    The others are computed: what their plan raises comes out. Returns False if none can be copied; then nothing was
    written, but the plan may have been computed.
    """
    origin = _origin(frame)
    if origin is None or origin.path not in inputs or not any(origin.columns.values()):
        return False
    try:
        source, like = ParquetFile(origin.path), _without_rows(frame, target)
    except (OSError, ValueError):
        return False
    size, kept = _group_size(source), _kept(origin, source, like)
    if not size or not kept:
        return False
    computed = _computed(frame, [name for name in origin.columns if name not in kept], target, size)
    if computed is not None and computed.row_counts != source.row_counts:
        # A single value that stands for a whole column, or a plan that fails only as a whole.
        return False
    columns = [
        Column(name=name, file=source, name_there=kept[name])
        if name in kept
        else Column(name=name, file=computed or source, name_there=name)
        for name in origin.columns
    ]
    write_spliced(target, columns, like=like)
    if computed is not None:
        computed.path.unlink()
    return True


def _origin(frame: Any) -> _Origin | None:
    pl = importlib.import_module("polars")
    try:
        # Made for other engines than polars' own, which read its plans in this way; what they don't know isn't shown.
        plan = frame._ldf.visit()  # noqa: SLF001
        return _traced(plan, plan.get_node())
    # polars' own word for a step that it doesn't show is `NotImplementedError`.
    except (AttributeError, NotImplementedError, TypeError, pl.exceptions.PolarsError):
        return None


def _traced(plan: Any, node: int) -> _Origin | None:
    plan.set_node(node)
    step, names = plan.view_current_node(), list(plan.get_schema())
    kind = type(step).__name__
    if kind == "Scan":
        return _scanned(step, names)
    before = _traced(plan, step.input) if kind in _STEPS else None
    if before is None:
        return None
    columns = {name: None if kind == "Select" else before.columns.get(name) for name in names}
    for given in getattr(step, _STEPS[kind]) if _STEPS[kind] else ():
        taken = _taken_over(plan, given.node)
        columns[given.output_name] = None if taken is None else before.columns.get(taken)
    return _Origin(path=before.path, columns=columns)


def _taken_over(plan: Any, expression: int) -> str | None:
    """Return the name of the column that an expression is; None if it is anything else."""
    # What polars raises for an expression that it doesn't show.
    with suppress(NotImplementedError):
        seen = plan.view_expression(expression)
        return str(seen.name) if type(seen).__name__ == "Column" else None
    return None


def _scanned(scan: Any, names: list[str]) -> _Origin | None:
    options = scan.file_options
    changes = (scan.predicate, options.n_rows, options.row_index, options.include_file_paths, options.deletion_files)
    if scan.scan_type[0] != "parquet" or len(scan.paths) != 1 or any(change is not None for change in changes):
        return None
    return _Origin(path=Path(scan.paths[0]), columns={name: name for name in names})


def _without_rows(frame: Any, target: Path) -> ParquetFile:
    path = target.with_name("empty.parquet")
    importlib.import_module("polars").DataFrame(schema=frame.collect_schema()).write_parquet(path)
    return ParquetFile(path)


def _group_size(source: ParquetFile) -> int:
    """Return how many rows each row group has, but for the last, which may have fewer; 0 if they differ."""
    *others, last = source.row_counts or [0]
    size = others[0] if others else last
    return size if last <= size and all(count == size for count in others) else 0


def _kept(origin: _Origin, source: ParquetFile, like: ParquetFile) -> dict[str, str]:
    """Return what can be copied, with its name there: what the same writer would say of it in the same words."""
    if source.created_by != like.created_by:
        return {}
    return {
        name: there
        for name, there in origin.columns.items()
        if there is not None and name in like.elements and source.elements.get(there) == like.elements[name]
    }


def _computed(frame: Any, names: list[str], target: Path, size: int) -> ParquetFile | None:
    if not names:
        return None
    path = target.with_name("computed.parquet")
    write_lazy(frame.select(names), path, group_rows=size)
    return ParquetFile(path)

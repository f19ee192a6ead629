"""What the generic tasks do, as plain functions on lazy frames; `workers/columns.py` serves them.

Each function only plans: polars computes when the result is written, in batches where the plan allows. The docstrings
and the descriptions of the fields are what the catalogue shows.
"""

import secrets
import string
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NoReturn

import polars as pl
from msgspec import Meta

from shepherd.worker import TaskFailedError

Name = Annotated[str, Meta(min_length=1)]
#: One column may stand without brackets around it.
Names = Annotated[list[Name], Meta(min_length=1)] | Name
#: Older pipelines wrote booleans as text.
Flag = bool | Literal["True", "False", "true", "false", ""]

_LETTERS = (string.ascii_letters + string.digits).encode()
#: Turns random bytes into letters and digits, each nearly as likely as the other.
_TO_LETTERS = bytes(_LETTERS[byte % len(_LETTERS)] for byte in range(256))


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipColumn:
    columns: Annotated[list[Name] | Name, Meta(description="The columns to leave out.")]


def skip_column(context: SkipColumn, data: pl.LazyFrame) -> pl.LazyFrame:
    """Leave the named columns out."""
    columns = _listed(context.columns)
    _columns(data, needed=columns)
    return data.drop(columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameColumn:
    rename_dict: Annotated[dict[str, Name], Meta(description="Each column's old name with its new one.")]


def rename_column(context: RenameColumn, data: pl.LazyFrame) -> pl.LazyFrame:
    """Give columns new names; their order stays."""
    existing = _columns(data, needed=context.rename_dict)
    _refuse_twice(context.rename_dict.get(name, name) for name in existing)
    return data.rename(context.rename_dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeColumns:
    columns: Annotated[Names, Meta(description="The columns to join, in this order.")]
    output_column: Annotated[Name, Meta(description="The new column's name.")]
    separator: Annotated[str | None, Meta(description="Stands between the values; a space if not given.")] = None
    #: The spelling of split_column.
    sep: Annotated[str | None, Meta(description="Another spelling of separator.")] = None
    drop_flag: Annotated[Flag, Meta(description="Whether the joined columns are left out afterwards.")] = False


def merge_columns(context: MergeColumns, data: pl.LazyFrame) -> pl.LazyFrame:
    """Join the values of several columns, as text, into one new column.

    A missing value is passed over together with its separator. The new column stands last, and may take the name of
    one of the joined ones.
    """
    columns = _listed(context.columns)
    existing = _columns(data, needed=columns)
    dropped = columns if _is_set(context.drop_flag) else [name for name in columns if name == context.output_column]
    kept = [name for name in existing if name not in dropped]
    _refuse_twice([*kept, context.output_column])
    separator = _either(context.separator, context.sep, default=" ")
    merged = pl.concat_str([_text(name) for name in columns], separator=separator, ignore_nulls=True)
    return data.select(*kept, merged.alias(context.output_column))


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitColumn:
    column: Annotated[Name, Meta(description="The column to split.")]
    new_cols: Annotated[Names, Meta(description="The new columns' names, from left to right.")]
    sep: Annotated[str | None, Meta(description="What stands between the pieces; a space if not given.")] = None
    #: The spelling of merge_columns.
    separator: Annotated[str | None, Meta(description="Another spelling of sep.")] = None
    drop_flag: Annotated[Flag, Meta(description="Whether the split column is left out afterwards.")] = False


def split_column(context: SplitColumn, data: pl.LazyFrame) -> pl.LazyFrame:
    """Split a column's text at a separator into several new columns.

    With more pieces than new columns, the last one gets the rest; with fewer, the last ones stay empty. The new
    columns stand last, and one of them may take the name of the split one.
    """
    names = _listed(context.new_cols)
    existing = _columns(data, needed=[context.column])
    is_dropped = _is_set(context.drop_flag) or context.column in names
    kept = [name for name in existing if not (is_dropped and name == context.column)]
    _refuse_twice([*kept, *names])
    separator = _either(context.sep, context.separator, default=" ")
    if not separator:
        raise TaskFailedError("invalid_context", "sep: must not be empty")
    pieces = _text(context.column).str.splitn(separator, len(names))
    return data.select(*kept, *(pieces.struct[index].alias(name) for index, name in enumerate(names)))


@dataclass(frozen=True, slots=True, kw_only=True)
class FillMissingFields:
    column: Annotated[Names, Meta(description="The columns to fill.")]
    value: Annotated[
        str | int | float | bool | None,
        Meta(description="What is put where a value is missing; if not given, the value of the row above."),
    ] = None


def fill_missing_fields(context: FillMissingFields, data: pl.LazyFrame) -> pl.LazyFrame:
    """Fill a column's missing values: with the last one above it, or with a given one.

    Missing is what is null or NaN. A gap at the very beginning has nothing above it and stays. A given text that
    isn't of the column's type turns the column to text.
    """
    columns = _listed(context.column)
    _columns(data, needed=columns)
    present = _without_nan(data, columns)
    if context.value is None:
        return data.with_columns(*(expression.forward_fill() for expression in present))
    return data.with_columns(*(expression.fill_null(pl.lit(context.value)) for expression in present))


@dataclass(frozen=True, slots=True, kw_only=True)
class Anonymize:
    column: Annotated[Name, Meta(description="The column whose values are hidden.")]
    to_replace: Annotated[
        str | int | float | None, Meta(description="A text to look for in each value, exactly as it stands.")
    ] = None
    replace_val: Annotated[str | int | float | None, Meta(description="What is put in its place.")] = None
    option: Annotated[
        Literal["replace_all", "replace_nth", "retain_first_n"] | None,
        Meta(description="Which characters of each value are hidden, instead of to_replace."),
    ] = None
    special_char: Annotated[
        Annotated[str, Meta(pattern="^(random|.)?$")] | None,
        Meta(description="The character to hide with, or the word random; * if not given."),
    ] = None
    random: Annotated[Flag, Meta(description="Whether to hide with random letters and digits.")] = False
    n: Annotated[
        Annotated[int, Meta(ge=0)] | Annotated[str, Meta(pattern="^[0-9]{1,9}$")] | None,
        Meta(description="The n of replace_nth (1 is the first character) and retain_first_n."),
    ] = None


def anonymize(context: Anonymize, data: pl.LazyFrame) -> pl.LazyFrame:
    """Hide a column's values, in one of two ways. The column becomes text, and missing values stay missing.

    With to_replace and replace_val, every occurrence of the one text is replaced by the other. With option, characters
    are replaced one by one, so that lengths stay: replace_all hides every one, replace_nth the n-th, retain_first_n
    all but the first n.
    """
    _columns(data, needed=[context.column])
    return data.with_columns(_anonymized(context).alias(context.column))


def _anonymized(context: Anonymize) -> pl.Expr:
    text = _text(context.column)
    if context.option is None:
        if context.to_replace in {None, ""} or context.replace_val is None:
            raise TaskFailedError("invalid_context", "either to_replace and replace_val, or option must be given")
        return text.str.replace_all(str(context.to_replace), str(context.replace_val), literal=True)
    start, length = _hidden_span(context)
    hidden = _hidden(text.str.slice(start, length), context)
    parts = [text.str.slice(0, start), hidden]
    return pl.concat_str(parts if length is None else [*parts, text.str.slice(start + length)])


def _hidden_span(context: Anonymize) -> tuple[int, int | None]:
    if context.option == "replace_all":
        return 0, None
    if context.n is None:
        raise TaskFailedError("invalid_context", f"n: must be given with {context.option}")
    n = int(context.n)
    if context.option == "retain_first_n":
        return n, None
    if n < 1:
        raise TaskFailedError("invalid_context", "n: counts from 1 with replace_nth")
    return n - 1, 1


def _hidden(text: pl.Expr, context: Anonymize) -> pl.Expr:
    if _is_set(context.random) or context.special_char == "random":
        return text.map_batches(_random_letters, return_dtype=pl.String, is_elementwise=True)
    # A dollar sign would start a reference to a group of the pattern.
    character = (context.special_char or "*").replace("$", "$$")
    return text.str.replace_all("(?s).", character)


def _random_letters(texts: pl.Series) -> pl.Series:
    lengths = texts.str.len_chars().to_list()
    letters = secrets.token_bytes(sum(length or 0 for length in lengths)).translate(_TO_LETTERS).decode("ascii")
    drawn: list[str | None] = []
    position = 0
    for length in lengths:
        drawn.append(None if length is None else letters[position : position + length])
        position += length or 0
    return pl.Series(texts.name, drawn, dtype=pl.String)


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    index: Annotated[Names, Meta(description="The columns whose values make the rows of the result.")]
    values: Annotated[Names, Meta(description="The columns of numbers whose mean is taken.")]
    columns: Annotated[
        list[Name] | str | None,
        Meta(description="The columns whose values make columns of the result; may be empty."),
    ] = None


def aggregate(context: Aggregate, data: pl.LazyFrame) -> pl.LazyFrame:
    """Take the mean of columns of numbers for each group of rows, as a pivot table does.

    The result has one row for each different combination of the index columns, sorted by them, also where the index or
    all values are missing. Without columns, it holds the index and the means under the values' names. With columns,
    each mean is spread over one column for each of their values, sorted and named after it, with the value column's
    name and an underscore in front when there are several. Missing values don't count; the mean of none is missing.
    The last digits of a mean may differ from run to run, as the order of adding isn't fixed.
    """
    index, values, columns = _listed(context.index), _listed(context.values), _listed(context.columns)
    existing = data.collect_schema()
    _columns(data, needed=[*index, *columns, *values])
    _refuse_twice([*index, *columns, *values])
    for name in values:
        if not (existing[name].is_numeric() or existing[name] == pl.Boolean):
            raise TaskFailedError("not_a_number", f"column {name!r} holds {existing[name]}, which has no mean")
    means = [pl.col(name).cast(pl.Float64).fill_nan(None).mean() for name in values]
    grouped = data.group_by(*index, *columns).agg(means).sort(*index, *columns, nulls_last=True)
    return _spread(grouped, index=index, columns=columns, values=values) if columns else grouped


def _spread(grouped: pl.LazyFrame, *, index: list[str], columns: list[str], values: list[str]) -> pl.LazyFrame:
    # What becomes a column's name has to be known before the plan ends: the groups are computed here, and they are few.
    groups = grouped.collect(engine="streaming")
    parts = [_text(name).fill_null("null") for name in columns]
    heading = pl.concat_str(parts, separator="_").alias(columns[0])
    order = groups.select(columns).unique().sort(columns, nulls_last=True).select(heading)
    headed = groups.with_columns(heading)
    spread = headed.pivot(columns[0], on_columns=order, index=index, values=values)
    return spread.sort(index, nulls_last=True).lazy()


def _columns(data: pl.LazyFrame, *, needed: Iterable[str]) -> list[str]:
    """Return the columns that exist.

    Raises:
        TaskFailedError: One that is needed doesn't.
    """
    existing = data.collect_schema().names()
    missing = [name for name in needed if name not in existing]
    if missing:
        _refuse(missing, existing)
    return existing


def _refuse(missing: list[str], existing: list[str]) -> NoReturn:
    there_is = f"there are {', '.join(map(repr, existing))}" if existing else "there are none at all"
    which = "column" if len(missing) == 1 else "columns"
    raise TaskFailedError("unknown_column", f"no {which} {', '.join(map(repr, missing))}; {there_is}")


def _refuse_twice(names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise TaskFailedError("duplicate_column", f"column {name!r} would stand there twice")
        seen.add(name)


def _without_nan(data: pl.LazyFrame, columns: list[str]) -> list[pl.Expr]:
    schema = data.collect_schema()
    return [pl.col(name).fill_nan(None) if schema[name].is_float() else pl.col(name) for name in columns]


def _text(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.String)


def _listed(names: list[str] | str | None) -> list[str]:
    if isinstance(names, list):
        return names
    return [names] if names else []


def _is_set(flag: Any) -> bool:
    return flag is True or str(flag).lower() == "true"


def _either(first: str | None, second: str | None, *, default: str) -> str:
    if first is not None:
        return first
    return default if second is None else second

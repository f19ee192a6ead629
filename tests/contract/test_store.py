"""One suite for every store."""

import hashlib
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from shepherd.errors import ConfigurationError, InvalidInputError, ProtocolError, StoreUnavailableError
from shepherd.store import open_store
from shepherd.store.memory import MemoryStore
from shepherd.store.port import Store
from shepherd.wire.value import ClaimCheck


@pytest.fixture(params=["memory", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else open_store((tmp_path / "a store").as_uri())


def test_what_was_put_is_read_back(store: Store) -> None:
    claim = store.put(b"some bytes", key="runs/1/a.bin", media_type="application/octet-stream")

    assert store.read(claim) == b"some bytes"
    assert claim.size == 10
    assert claim.sha256 == hashlib.sha256(b"some bytes").hexdigest()
    assert claim.media_type == "application/octet-stream"
    assert claim.uri == f"{store.url}/runs/1/a.bin"


def test_a_file_is_fetched_as_a_file(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "big.csv"
    source.write_bytes(b"x,y\n" * 700_000)

    claim = store.put(source, key="runs/1/big.csv", media_type="text/csv")
    fetched = store.fetch(claim, into=tmp_path)

    assert fetched.read_bytes() == source.read_bytes()
    assert fetched.suffix == ".csv"


def test_nothing_at_all_is_an_object_too(store: Store, tmp_path: Path) -> None:
    claim = store.put(b"", key="empty", media_type="text/plain")

    assert store.read(claim) == b""
    assert store.fetch(claim, into=tmp_path).read_bytes() == b""


def test_a_second_put_replaces_the_first_whole(store: Store) -> None:
    first = store.put(b"a longer first one", key="k", media_type="text/plain")
    second = store.put(b"second", key="k", media_type="text/plain")

    assert store.read(second) == b"second"
    with pytest.raises(ProtocolError):
        store.read(first)


def test_what_is_not_there_may_come_later(store: Store, tmp_path: Path) -> None:
    claim = store.put(b"x", key="there", media_type="text/plain")
    missing = replace(claim, uri=f"{store.url}/missing")

    with pytest.raises(StoreUnavailableError):
        store.read(missing)
    with pytest.raises(StoreUnavailableError):
        store.fetch(missing, into=tmp_path)


@pytest.mark.parametrize("wrong", [{"sha256": "0" * 64}, {"size": 2}])
def test_what_was_not_claimed_is_refused(store: Store, tmp_path: Path, wrong: dict[str, object]) -> None:
    claim = replace(store.put(b"x", key="k", media_type="text/plain"), **wrong)  # type: ignore[arg-type]

    with pytest.raises(ProtocolError):
        store.read(claim)
    with pytest.raises(ProtocolError):
        store.fetch(claim, into=tmp_path)


@pytest.mark.parametrize(
    "key", ["", "/", "../a", "a/../b", "a//b", "/etc/passwd", "a/.", "a b", "a\x00", "a\\b", "x" * 2000, "…"]
)
def test_a_key_that_could_lead_out_is_refused(store: Store, key: str) -> None:
    with pytest.raises(InvalidInputError):
        store.put(b"x", key=key, media_type="text/plain")


@pytest.mark.parametrize("rest", ["../../etc/passwd", "%2e%2e/x", "a/../../b", ""])
def test_a_claim_that_could_lead_out_is_refused(store: Store, tmp_path: Path, rest: str) -> None:
    claim = replace(store.put(b"x", key="k", media_type="text/plain"), uri=f"{store.url}/{rest}")

    with pytest.raises(ProtocolError):
        store.read(claim)
    with pytest.raises(ProtocolError):
        store.fetch(claim, into=tmp_path)


def test_a_claim_of_another_store_names_both(store: Store) -> None:
    claim = replace(store.put(b"x", key="k", media_type="text/plain"), uri="file:///somewhere/else/k")

    with pytest.raises(StoreUnavailableError, match=r"file:///somewhere/else/k.*SHEPHERD_STORE"):
        store.read(claim)


def test_a_source_that_is_missing_leaves_nothing(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError):
        store.put(tmp_path / "none", key="a/k", media_type="text/plain")

    assert not list(tmp_path.rglob("*.part"))


def test_a_reader_never_sees_half_an_object(store: Store) -> None:
    bodies = [bytes([letter]) * 300_000 for letter in b"ab"]
    claims = [store.put(body, key="k", media_type="text/plain") for body in bodies]
    stop = threading.Event()

    def put_in_turn() -> None:
        while not stop.is_set():
            for body in bodies:
                store.put(body, key="k", media_type="text/plain")

    writer = threading.Thread(target=put_in_turn)
    writer.start()
    try:
        seen = {_read_either(store, claims) for _ in range(50)}
    finally:
        stop.set()
        writer.join()

    assert seen <= set(bodies)


def _read_either(store: Store, claims: list[ClaimCheck]) -> bytes:
    """Read the object as whichever of both versions it is now: a mixture would match neither checksum, for ever."""
    for _ in range(1000):
        for claim in claims:
            try:
                return store.read(claim)
            except ProtocolError:
                continue
    raise AssertionError("the object is neither version")


@pytest.mark.parametrize("url", ["s4://bucket", "relative/path", "file://host/path", ""])
def test_an_unknown_url_is_refused_with_the_variable(url: str) -> None:
    with pytest.raises(ConfigurationError, match="SHEPHERD_STORE"):
        open_store(url)

"""One suite for every store."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shepherd.errors import ConfigurationError, InvalidInputError, ProtocolError, StoreUnavailableError
from shepherd.store import open_store
from shepherd.store.memory import MemoryStore
from shepherd.store.port import Store
from shepherd.wire.value import ClaimCheck
from tests.support.ports import free_port
from tests.support.s3 import unfinished_uploads

_MIB = 1024 * 1024
_SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture(params=["memory", "folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else _shared(request, tmp_path)


@pytest.fixture(params=["folder", "s3"])
def shared_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """One that other processes see too."""
    return _shared(request, tmp_path)


def _shared(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_store(request.getfixturevalue("s3_url") if request.param == "s3" else (tmp_path / "a store").as_uri())


def _keys(store: Store, prefix: str = "") -> set[str]:
    return {each.key for each in store.list(prefix)}


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


def test_a_file_that_was_given_up_may_be_removed(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "result.bin"
    source.write_bytes(b"x" * _MIB)
    content = source.read_bytes()

    claim = store.put(source, key="runs/1/result.bin", media_type="text/plain", is_given_up=True)
    source.unlink()

    assert store.fetch(claim, into=tmp_path).read_bytes() == content
    assert claim.sha256 == hashlib.sha256(content).hexdigest()
    assert _keys(store) == {"runs/1/result.bin"}


def test_a_file_that_was_not_given_up_may_be_changed(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "mine.bin"
    source.write_bytes(b"first")

    claim = store.put(source, key="mine.bin", media_type="text/plain")
    source.write_bytes(b"second")

    assert store.read(claim) == b"first"


def test_a_folder_keeps_a_file_that_was_given_up_without_a_copy(tmp_path: Path) -> None:
    store = open_store((tmp_path / "a store").as_uri())
    source = tmp_path / "result.bin"
    source.write_bytes(b"x" * _MIB)

    kept = store.fetch(store.put(source, key="k", media_type="text/plain", is_given_up=True), into=tmp_path)

    assert kept.samefile(source)


def test_a_file_on_another_file_system_is_copied(tmp_path: Path) -> None:
    store = open_store((tmp_path / "a store").as_uri())
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as source:  # No other file system is always there.
        source.write(b"elsewhere")
        source.flush()

        claim = store.put(Path(source.name), key="k", media_type="text/plain", is_given_up=True)

    assert store.read(claim) == b"elsewhere"


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
    for _ in range(2000):
        try:
            # By chance, and not in turn: a writer as fast as the reader would always be at the other one.
            return store.read(random.choice(claims))
        except ProtocolError:
            continue
    raise AssertionError("the object is neither version")


def test_a_flipped_byte_is_found(store: Store, tmp_path: Path) -> None:
    content = random.Random(1).randbytes(6 * _MIB)
    claim = store.put(content, key="runs/1/a", media_type="text/plain")
    at = random.Random(2).randrange(len(content))
    flipped = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]

    store.put(flipped, key="runs/1/a", media_type="text/plain")

    with pytest.raises(ProtocolError, match="checksum"):
        store.read(claim)
    with pytest.raises(ProtocolError, match="checksum"):
        store.fetch(claim, into=tmp_path / "fetched")
    assert not [path for path in (tmp_path / "fetched").rglob("*") if path.is_file()]


def test_objects_of_one_name_are_fetched_side_by_side(store: Store, tmp_path: Path) -> None:
    claims = [store.put(body, key=f"{body.decode()}/result", media_type="text/plain") for body in (b"a", b"b")]

    fetched = [store.fetch(claim, into=tmp_path) for claim in claims]

    assert [path.read_bytes() for path in fetched] == [b"a", b"b"]
    assert {path.name for path in fetched} == {"result"}


def test_puts_of_one_key_at_once_leave_one_of_them_whole(store: Store) -> None:
    bodies = [bytes([letter]) * (6 * _MIB) for letter in b"abcd"]
    claims: list[ClaimCheck] = []
    threads = [
        threading.Thread(target=lambda body=body: claims.append(store.put(body, key="k", media_type="text/plain")))
        for body in bodies
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(claims) == len(bodies)
    assert _read_either(store, claims) in bodies
    assert _keys(store) == {"k"}


def test_what_lies_below_a_prefix_is_listed(store: Store) -> None:
    for key in ("runs/1/a", "runs/1/b/c", "runs/10/a", "else"):
        store.put(key.encode(), key=key, media_type="text/plain")

    listed = {each.key: each for each in store.list("runs/1")}

    assert listed.keys() == {"runs/1/a", "runs/1/b/c"}
    assert listed["runs/1/b/c"].size == len("runs/1/b/c")
    assert abs(listed["runs/1/a"].modified_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert _keys(store) == {"runs/1/a", "runs/1/b/c", "runs/10/a", "else"}
    assert _keys(store, "nothing/here") == set()


def test_what_is_deleted_is_gone_and_the_rest_stays(store: Store, tmp_path: Path) -> None:
    claims = {key: store.put(b"x", key=key, media_type="text/plain") for key in ("runs/1/a", "runs/1/b", "runs/2/a")}

    store.delete(["runs/1/a", "runs/2/a", "never/there"])
    store.delete([])

    assert _keys(store) == {"runs/1/b"}
    assert store.read(claims["runs/1/b"]) == b"x"
    with pytest.raises(StoreUnavailableError):
        store.fetch(claims["runs/1/a"], into=tmp_path)
    assert store.put(b"again", key="runs/2/a", media_type="text/plain").size == len(b"again")


def test_a_key_that_could_lead_out_is_not_deleted(store: Store) -> None:
    store.put(b"x", key="k", media_type="text/plain")

    with pytest.raises(InvalidInputError):
        store.delete(["k", "../k"])

    assert _keys(store) == {"k"}


def test_a_store_that_is_there_is_seen_and_left_as_it_is(store: Store) -> None:
    store.check()

    assert _keys(store) == set()


def test_an_upload_that_is_killed_leaves_nothing_visible(shared_store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(random.Random(3).randbytes(12 * _MIB))
    before = shared_store.put(b"whole", key="kept", media_type="text/plain")
    offsets = [random.randrange(12 * _MIB) for _ in range(10)]

    endings = [
        _run(_KILLED, shared_store.url, str(source), key, str(offset)).returncode
        for offset in offsets
        for key in ("kept" if offset % 2 else "new",)
    ]

    assert endings == [-signal.SIGKILL] * len(offsets), offsets
    assert _keys(shared_store) == {"kept"}, offsets
    assert shared_store.read(before) == b"whole", offsets


def test_64_mib_pass_in_little_memory(shared_store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    with source.open("wb") as file:
        for number in range(64):
            file.write(random.Random(number).randbytes(_MIB))

    done = _run(_MEASURED, shared_store.url, str(source), str(tmp_path))

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 48 * 1024, "KiB more than for one byte"


def _run(program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": str(_SOURCE)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


#: Dies as soon as it has read so many bytes of what it uploads.
_KILLED = """
import os, signal, sys
from pathlib import Path
from shepherd.store import open_store, verify
url, source, key, offset = sys.argv[1:]
update = verify.Digest.update
def dying(digest, chunk):
    update(digest, chunk)
    if digest.size >= int(offset):
        os.kill(os.getpid(), signal.SIGKILL)
verify.Digest.update = dying
open_store(url).put(Path(source), key=key, media_type="text/plain")
"""

#: Prints by how many KiB its largest resident size grew.
_MEASURED = """
import sys
from pathlib import Path
from shepherd.store import open_store
def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
url, source, folder = sys.argv[1:]
store = open_store(url)
store.read(store.put(b"x", key="small", media_type="text/plain"))
before = peak()
claim = store.put(Path(source), key="large", media_type="text/plain")
fetched = store.fetch(claim, into=Path(folder))
assert fetched.stat().st_size == 64 * 1024 * 1024
print(peak() - before)
"""


def test_an_upload_whose_source_fails_is_aborted(s3_url: str, s3_endpoint: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(12 * _MIB))
    before = unfinished_uploads(s3_endpoint)
    program = _KILLED.replace("os.kill(os.getpid(), signal.SIGKILL)", "raise OSError(5, 'the disk is broken')")

    done = _run(program, s3_url, str(source), "k", str(11 * _MIB))

    assert "StoreUnavailableError" in done.stderr
    assert "the disk is broken" in done.stderr
    assert unfinished_uploads(s3_endpoint) == before
    assert _keys(open_store(s3_url)) == set()


def test_a_bucket_that_is_not_there_is_named(s3_url: str) -> None:
    store = open_store("s3://no-such-bucket/x")

    for use in (store.check, lambda: store.put(b"x", key="k", media_type="a/b"), lambda: list(store.list(""))):
        with pytest.raises(StoreUnavailableError, match=r"s3://no-such-bucket/x.*there is no bucket no-such-bucket"):
            use()


def test_a_server_that_is_away_is_noticed(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    store = open_store(s3_url)

    with pytest.raises(StoreUnavailableError, match=s3_url):
        store.check()
    with pytest.raises(StoreUnavailableError, match=s3_url):
        store.put(b"x", key="k", media_type="text/plain")


def test_an_endpoint_in_the_clear_has_to_be_allowed(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://minio.example.org:9000")

    with pytest.raises(ConfigurationError, match=r"AWS_ENDPOINT_URL.*AWS_ALLOW_HTTP"):
        open_store(s3_url).check()


def test_a_media_type_that_no_header_can_hold_does_no_harm(store: Store) -> None:
    claim = store.put(b"x", key="k", media_type="text/plain\r\nx: …")

    assert store.read(claim) == b"x"


def test_a_folder_that_is_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StoreUnavailableError, match="file"):
        open_store((tmp_path / "file").as_uri()).check()


def test_a_worker_without_the_client_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)

    with pytest.raises(ConfigurationError, match=r"SHEPHERD_STORE.*pip install 'shepherd-pipelines\[s3\]'"):
        open_store("s3://bucket")


def test_the_client_is_loaded_at_first_use_only() -> None:
    program = (
        "import sys, shepherd.worker, shepherd.store as s; s.open_store('s3://bucket'); print('obstore' in sys.modules)"
    )

    assert _run(program).stdout.strip() == "False"


@pytest.mark.parametrize(
    "url",
    [
        "s4://bucket",
        "relative/path",
        "file://host/path",
        "",
        "s3://",
        "s3:///key",
        "s3://Bucket",
        "s3://bucket/../x",
        "s3://bucket/a b",
        "s3://bucket?x=1",
        "s3://user:word@bucket/x",
    ],
)
def test_an_unknown_url_is_refused_with_the_variable(url: str) -> None:
    with pytest.raises(ConfigurationError, match="SHEPHERD_STORE"):
        open_store(url)

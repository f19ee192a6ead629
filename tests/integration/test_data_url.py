"""Fetching `data_url`, over real connections."""

import hashlib
import os
import select
import threading
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import obstore
import pytest
from django.conf import settings
from django.test import override_settings

from shepherd.errors import AddressRefusedError, DataUnavailableError, InvalidInputError
from shepherd.pipelines import starting
from shepherd.pipelines.data_urls import DataSources
from shepherd.publisher.download import Downloader
from shepherd.publisher.draft import Draft, Limits
from shepherd.publisher.fetcher import Fetcher
from shepherd.publisher.fetching import Fetching
from shepherd.store.memory import MemoryStore
from shepherd.store.s3 import S3Store
from shepherd.wire.value import ClaimCheck
from tests.support.engine import Engine, statuses
from tests.support.http_stub import HttpStub, say
from tests.support.waiting import wait_until

CONTENT = os.urandom(300_000)


def _downloaded(stub: HttpStub, folder: Path, *, path: str = "/a/data.csv", limits: Limits | None = None) -> bytes:
    with Draft(folder / "draft", limits or Limits()) as draft:
        Downloader(allow=[f"127.0.0.1:{stub.port}"], pause_s=0.01).download(f"{stub.url}{path}", draft)
        return draft.path.read_bytes()


def _breaking(*, tag: Callable[[int], str], parts: bool = True, breaks: int = 2) -> Any:
    """Return a server that breaks off after a third of what is left, so many times."""
    asked: list[int] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked.append(1)
        own = tag(len(asked))
        wanted = request.headers.get("Range", "")
        is_part = parts and wanted and request.headers.get("If-Range") == own
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if is_part else 0
        body = CONTENT[start:]
        sent = body if len(asked) > breaks else body[: len(body) // 3]
        headers: dict[str, str | int] = {"ETag": own} if own else {}
        if is_part:
            headers["Content_Range"] = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        say(request, 206 if is_part else 200, sent, content_length=len(body), **headers)

    return answer


def test_a_broken_download_goes_on_where_it_was(tmp_path: Path) -> None:
    with HttpStub(_breaking(tag=lambda _: '"v1"')) as stub:
        content = _downloaded(stub, tmp_path)

    assert content == CONTENT
    assert [headers.get("range") for _, headers in stub.requests] == [None, "bytes=100000-", "bytes=166666-"]
    assert {headers.get("if-range") for _, headers in stub.requests[1:]} == {'"v1"'}


@pytest.mark.parametrize(
    ("tag", "parts"),
    [(lambda n: f'"v{n}"', True), (lambda _: 'W/"weak"', True), (lambda _: "", True), (lambda _: '"v1"', False)],
)
def test_what_changed_or_cannot_be_asked_for_in_parts_is_fetched_from_the_beginning(
    tmp_path: Path, tag: Callable[[int], str], parts: bool
) -> None:
    with HttpStub(_breaking(tag=tag, parts=parts)) as stub:
        content = _downloaded(stub, tmp_path)

    assert content == CONTENT


@pytest.mark.parametrize("wrong", ["bytes 99999-299999/300000", "bytes 100000-299999/300001", "bytes */300000", ""])
def test_a_part_of_something_else_is_never_joined(tmp_path: Path, wrong: str) -> None:
    asked: list[int] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked.append(1)
        if len(asked) == 2:
            say(request, 206, CONTENT[100_000:], ETag='"v1"', Content_Range=wrong)
        else:
            sent = CONTENT if len(asked) == 3 else CONTENT[:100_000]
            say(request, 200, sent, content_length=len(CONTENT), ETag='"v1"')

    with HttpStub(answer) as stub:
        assert _downloaded(stub, tmp_path) == CONTENT
    assert [headers.get("range") for _, headers in stub.requests] == [None, "bytes=100000-", None]


def test_a_server_that_never_ends_well_is_given_up(tmp_path: Path) -> None:
    with (
        HttpStub(lambda request: say(request, 200, b"", content_length=10)) as stub,
        pytest.raises(DataUnavailableError, match="can't be fetched"),
    ):
        _downloaded(stub, tmp_path)

    assert len(stub.requests) == 3


def test_more_than_the_size_is_refused_before_and_while_it_is_read(tmp_path: Path) -> None:
    limits = Limits(size=1000)
    with (
        HttpStub(lambda request: say(request, 200, b"a" * 1001)) as stub,
        pytest.raises(InvalidInputError, match="larger than 1000"),
    ):
        _downloaded(stub, tmp_path, limits=limits)

    def endless(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while True:
            request.wfile.write(b"a" * 100)

    (tmp_path / "draft").unlink()
    with HttpStub(endless) as stub, pytest.raises(InvalidInputError, match="larger than 1000"):
        _downloaded(stub, tmp_path, limits=limits)


@pytest.mark.parametrize("where", ["headers", "body"])
def test_a_server_that_trickles_is_cut_off_in_time(tmp_path: Path, where: str) -> None:
    def trickle(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"" if where == "headers" else b"Content-Length: 99999\r\n\r\n"))
        while True:
            request.wfile.write(b"X: y\r\n")
            request.wfile.flush()
            # Until the other side has gone.
            if select.select([request.connection], [], [], 0.05)[0]:
                return

    with HttpStub(trickle) as stub, pytest.raises(DataUnavailableError, match=r"more than 0\.4 s|timed out"):
        _downloaded(stub, tmp_path, limits=Limits(time_s=0.4))


def _redirecting(request: BaseHTTPRequestHandler) -> None:
    left = int(request.path.rpartition("/")[2])
    if left:
        say(request, 302, Location=f"/to/{left - 1}")
    else:
        say(request, 200, b"there", Content_Type="text/csv; charset=x")


def test_three_redirects_are_followed_and_four_are_not(tmp_path: Path) -> None:
    with HttpStub(_redirecting) as stub:
        assert _downloaded(stub, tmp_path, path="/to/3") == b"there"
        (tmp_path / "draft").unlink()
        with pytest.raises(InvalidInputError, match="more than 3 redirects"):
            _downloaded(stub, tmp_path, path="/to/4")


@pytest.mark.parametrize(
    "target",
    [
        "http://127.1/",
        "http://[::ffff:127.0.0.1]/",
        "http://169.254.169.254/latest",
        "http://localhost/",
        "file:///etc/passwd",
        "gopher://example.org/",
        "s3://open/a",
        "http://user:word@example.org/",
        "//10.0.0.1/",
    ],
)
def test_a_redirect_to_where_nobody_may_go_is_refused(tmp_path: Path, target: str) -> None:
    with HttpStub(lambda request: say(request, 302, Location=target)) as stub, pytest.raises(AddressRefusedError):
        _downloaded(stub, tmp_path)


def test_names_and_paths_in_any_script_are_sent_in_ascii(tmp_path: Path) -> None:
    with HttpStub(lambda request: say(request, 200, b"x")) as stub:
        assert _downloaded(stub, tmp_path, path="/ü b%20c?q=ä&r=%C3%A4") == b"x"

    assert stub.requests[0][0] == "/%C3%BC%20b%20c?q=%C3%A4&r=%C3%A4"


def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "open"
    (folder / "inner").mkdir(parents=True)
    (folder / "a b.csv").write_bytes(CONTENT)
    (folder / "inner" / "link.csv").symlink_to("../a b.csv")
    (tmp_path / "secret.csv").write_text("secret")
    (folder / "out.csv").symlink_to(tmp_path / "secret.csv")
    (folder / "out").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    return folder


def test_a_file_of_a_named_folder_is_fetched(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    store = MemoryStore()
    fetcher = Fetcher(store, DataSources(folders=[str(folder)]))

    claim = fetcher.fetch(f"file://{folder}/a%20b.csv", run_id="r")
    linked = fetcher.fetch(f"file://{folder}/inner/link.csv", run_id="r")

    assert claim.sha256 == linked.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert (claim.uri.rpartition("/")[2], claim.media_type) == ("a_b.csv", "text/csv")


def test_no_link_leads_out_of_a_named_folder(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    fetcher = Fetcher(MemoryStore(), DataSources(folders=[str(folder)]), Limits(size=1000))
    refused = {
        "out.csv": AddressRefusedError,
        "out/secret.csv": AddressRefusedError,
        "../secret.csv": AddressRefusedError,
        "%2e%2e/secret.csv": AddressRefusedError,
        "pipe": InvalidInputError,
        "inner": InvalidInputError,
        "none.csv": InvalidInputError,
        "a%20b.csv/x": InvalidInputError,
        "a%20b.csv": InvalidInputError,
        "n" * 4096: DataUnavailableError,
    }

    for name, kind in refused.items():
        with pytest.raises(kind):
            fetcher.fetch(f"file://{folder}/{name}", run_id="r")


def test_an_object_of_a_named_bucket_is_fetched(s3_url: str) -> None:
    bucket = s3_url.split("/")[2]
    inner = S3Store(s3_url)
    obstore.put(inner._client, "in put/ä b.csv", CONTENT, attributes={"Content-Type": "text/csv"})
    store = MemoryStore()
    fetcher = Fetcher(store, DataSources(buckets=[s3_url.removeprefix("s3://")]))

    claim = fetcher.fetch(f"{s3_url}/in%20put/ä b.csv", run_id="r")

    assert store.read(claim) == CONTENT
    assert claim.media_type == "text/csv"
    with pytest.raises(AddressRefusedError, match="no bucket"):
        fetcher.fetch(f"s3://{bucket}/elsewhere.csv", run_id="r")
    with pytest.raises(DataUnavailableError, match="can't be fetched"):
        Fetcher(store, DataSources(buckets=[bucket])).fetch(f"s3://{bucket}/none.csv", run_id="r")


def test_the_rest_of_an_object_is_of_the_same_version_or_all_of_it(s3_url: str) -> None:
    store = S3Store(s3_url)
    store.put(CONTENT, key="a.csv", media_type="text/csv")
    first = store.open("a.csv")

    rest = store.open("a.csv", offset=100, tag=first.tag)
    assert (rest.offset, rest.size, b"".join(rest.pieces)) == (100, len(CONTENT), CONTENT[100:])

    store.put(b"b" * 200, key="a.csv", media_type="text/csv")
    changed = store.open("a.csv", offset=100, tag=first.tag)
    assert (changed.offset, b"".join(changed.pieces)) == (0, b"b" * 200)
    assert b"".join(first.pieces) == CONTENT


@pytest.mark.usefixtures("sqlite_database")
def test_a_run_begins_with_what_its_data_url_names_or_fails_with_the_reason(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    sources = DataSources(folders=[str(folder)])
    engine = Engine()
    with override_settings(SHEPHERD=replace(settings.SHEPHERD, data_sources=sources)):
        good = engine.accept("scrape", data_url=f"file://{folder}/a%20b.csv")
        bad = engine.accept("scrape", data_url=f"file://{folder}/out.csv")
        with pytest.raises(InvalidInputError, match="SHEPHERD_DATA_FOLDERS"):
            engine.accept("scrape", data_url=f"file://{tmp_path}/secret.csv")
    engine.relay.start()
    fetching = Fetching(engine.relay, Fetcher(MemoryStore(), sources))
    fetching.submit(engine.heard.due)

    wait_until(lambda: statuses(good)[1] == "published", timeout_s=60, what="the data of the first run")
    wait_until(lambda: statuses(bad)[0] == "failed", timeout_s=60, what="the end of the second run")
    fetching.stop()

    data = engine.take("scrape").data
    assert isinstance(data, ClaimCheck)
    assert data.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert bad.error["code"] == "address_refused"
    assert "leads out of the folders" in bad.error["message"]


@pytest.mark.usefixtures("sqlite_database")
@pytest.mark.parametrize("sent", [b"", CONTENT[:1000]], ids=["silence", "a part"])
def test_a_task_publisher_that_ends_leaves_a_download_to_the_next_one(sent: bytes) -> None:
    is_over = threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        if sent:
            say(request, 200, sent, content_length=len(CONTENT))
        is_over.wait(60)

    with HttpStub(answer) as stub:
        sources = DataSources(allow=[f"127.0.0.1:{stub.port}"])
        engine = Engine()
        with override_settings(SHEPHERD=replace(settings.SHEPHERD, data_sources=sources)):
            run = engine.accept("scrape", data_url=f"{stub.url}/a.csv")
        engine.relay.start()
        fetching = Fetching(engine.relay, Fetcher(MemoryStore(), sources))
        before = set(threading.enumerate())
        fetching.submit(engine.heard.due)
        wait_until(lambda: stub.requests, timeout_s=60, what="a request")
        ours = [each for each in threading.enumerate() if each not in before and each.name.startswith("data-url")]

        fetching.stop()

        # Far less than the minute for which a server may be silent.
        wait_until(lambda: not any(each.is_alive() for each in ours), timeout_s=20, what="the end of the download")
        is_over.set()
    assert ours
    assert statuses(run) == ["running", "pending"]


class _BrokenStore(MemoryStore):
    """Raises what no store should, so many times."""

    def __init__(self, *, times: int) -> None:
        super().__init__()
        self.left = times

    def put(self, source: Path | bytes, *, key: str, media_type: str, is_given_up: bool = False) -> ClaimCheck:
        if self.left:
            self.left -= 1
            raise RuntimeError("out of order")
        return super().put(source, key=key, media_type=media_type, is_given_up=is_given_up)


@pytest.mark.usefixtures("sqlite_database")
@pytest.mark.parametrize(("times", "status"), [(4, "running"), (99, "failed")])
def test_what_nobody_has_foreseen_is_tried_again_a_few_times(tmp_path: Path, times: int, status: str) -> None:
    folder = _folder(tmp_path)
    sources, store = DataSources(folders=[str(folder)]), _BrokenStore(times=times)
    engine = Engine()
    with override_settings(SHEPHERD=replace(settings.SHEPHERD, data_sources=sources)):
        run = engine.accept("scrape", data_url=f"file://{folder}/a%20b.csv")
    engine.relay.start()
    fetching = Fetching(engine.relay, Fetcher(store, sources), pause_s=0.01)

    def is_over() -> bool:
        fetching.submit(starting.unfetched())
        return not starting.unfetched()

    wait_until(is_over, timeout_s=60, what="the end of all tries")
    fetching.stop()

    run.refresh_from_db()
    assert run.status == status
    if status == "failed":
        assert store.left == 99 - 5
        assert run.error["code"] == "data_unavailable"
        assert run.error["message"] == "data_url can't be fetched, tried 5 times: RuntimeError: out of order"


@pytest.mark.parametrize(
    ("stated", "kept"),
    [
        ("Text/CSV; header=present; Charset=ISO-8859-2", "text/csv; charset=iso-8859-2"),
        ('text/csv;charset="windows-1250"', "text/csv; charset=windows-1250"),
        (f"text/csv; charset={'x' * 46}", "text/csv"),
        ("text/csv; charset=\xe4", "text/csv"),
        ("; charset=utf-8", ""),
        ("text/csv", "text/csv"),
    ],
)
def test_of_what_the_server_says_of_a_file_its_charset_is_kept(tmp_path: Path, stated: str, kept: str) -> None:
    with (
        HttpStub(lambda request: say(request, 200, b"a", Content_Type=stated)) as stub,
        Draft(tmp_path / "draft", Limits()) as draft,
    ):
        fetched = Downloader(allow=[f"127.0.0.1:{stub.port}"]).download(f"{stub.url}/a.csv", draft)

    assert fetched.media_type == kept

"""What `data_url` may name, decided without asking anybody."""

import pytest

from shepherd.pipelines.data_urls import DataSources, data_url_fault

SOURCES = DataSources(
    allow=("node-2", "127.0.0.1:8080"), folders=("/srv/data", "/srv/with space"), buckets=("open", "shared/mine")
)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/a.csv",
        "https://example.org:8443/a.csv?b=c#d",
        "http://93.184.216.34:1/",
        "http://node-2:9000/a",
        "http://127.0.0.1:8080/a",
        "file:///srv/data/a.csv",
        "file://localhost/srv/data/b/c.csv",
        "file:///srv/with%20space/a.csv",
        "s3://open/a/b.csv",
        "s3://shared/mine/a.csv",
    ],
)
def test_what_is_public_or_named_by_a_setting_may_be_fetched(url: str) -> None:
    assert data_url_fault(url, SOURCES) == ""


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.1/a", "isn't public"),
        ("http://127.0.0.1:8081/a", "isn't public"),
        ("http://0x7f.1/a", "isn't public"),
        ("http://2130706433/a", "isn't public"),
        ("http://[::ffff:127.0.0.1]/a", "isn't public"),
        ("http://169.254.169.254/latest/meta-data", "isn't public"),
        ("http://localhost:9000/", "isn't public"),
        ("http://%31%32%37.0.0.1/", "isn't public"),
        ("http://user@example.org/", "user name"),
        ("http://example.org@127.0.0.1:8080/", "user name"),
        ("http://example.org:99999/", "is no address"),
        ("gopher://example.org/", "gopher:"),
        ("file:///etc/passwd", "no folder"),
        ("file:///srv/data", "no folder"),
        ("file:///srv/data/", "no folder"),
        ("file:///srv/database/a", "no folder"),
        ("file:///srv/data/../../etc/passwd", "'..'"),
        ("file:///srv/data/%2e%2e/%2e%2e/etc/passwd", "'..'"),
        ("file:///srv/data/a%00.csv", "NUL"),
        ("file://elsewhere/srv/data/a.csv", "without a host"),
        ("file:a.csv", "no folder"),
        ("s3://other/a.csv", "no bucket"),
        ("s3://shared/minerals/a.csv", "no bucket"),
        ("s3://shared/mine/../theirs/a.csv", "without '.', '..'"),
        ("s3://open/", "by its key"),
        ("s3://key:secret@open/a", "user name"),
    ],
)
def test_anything_else_is_refused_with_the_reason(url: str, reason: str) -> None:
    assert reason in data_url_fault(url, SOURCES)


def test_nothing_but_the_internet_is_open_by_default() -> None:
    for url in ("file:///srv/data/a", "s3://open/a", "http://127.0.0.1/"):
        assert data_url_fault(url, DataSources())

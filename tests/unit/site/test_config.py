"""The server's settings."""

from pathlib import Path

import pytest

from shepherd.errors import ConfigurationError
from shepherd.site.config import ServerConfig, database_settings


def test_data_url_leads_nowhere_but_to_the_internet_unless_settings_say_so() -> None:
    plain = ServerConfig.from_env({}, folder=Path("/x"))
    opened = ServerConfig.from_env(
        {
            "SHEPHERD_DATA_URL_ALLOW": "node-2, node-3:9000",
            "SHEPHERD_DATA_FOLDERS": "/srv/data/, /srv/more",
            "SHEPHERD_DATA_BUCKETS": "open,shared/mine",
            "SHEPHERD_DATA_URL_MB": "1.5",
            "SHEPHERD_DATA_URL_S": "60",
        },
        folder=Path("/x"),
    )

    assert (plain.data_sources.allow, plain.data_sources.folders, plain.data_sources.buckets) == ((), (), ())
    assert (plain.data_url_size, plain.data_url_time.total_seconds()) == (64 * 1024**3, 3600)
    assert opened.data_sources.allow == ("node-2", "node-3:9000")
    assert opened.data_sources.folders == ("/srv/data", "/srv/more")
    assert opened.data_sources.buckets == ("open", "shared/mine")
    assert (opened.data_url_size, opened.data_url_time.total_seconds()) == (1_572_864, 60)


@pytest.mark.parametrize("folder", ["srv/data", "/srv/../etc"])
def test_a_folder_that_is_no_absolute_path_is_refused_by_its_variable(folder: str) -> None:
    with pytest.raises(ConfigurationError, match="SHEPHERD_DATA_FOLDERS"):
        ServerConfig.from_env({"SHEPHERD_DATA_FOLDERS": folder}, folder=Path("/x"))


def test_what_stands_behind_the_name_of_a_database_goes_to_its_client() -> None:
    plain = database_settings("postgresql://me:secret@db.example:5433/shepherd")
    given = database_settings(
        "postgresql:///shepherd?host=/run/postgresql&sslmode=require&sslpassword=a+b%26c&prepared_statements=off"
    )

    assert (plain["HOST"], plain["PORT"], plain["NAME"]) == ("db.example", "5433", "shepherd")
    assert plain["OPTIONS"].items() >= {"connect_timeout": 5}.items()
    assert plain["PREPARED_STATEMENTS"]
    assert given["OPTIONS"].items() >= {"host": "/run/postgresql", "sslmode": "require", "sslpassword": "a+b&c"}.items()
    assert not given["PREPARED_STATEMENTS"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://h/n?sslmod=require", "as sslmode would be"),
        ("postgresql://h/n?sslmode=verify-full&sslmode=disable", "sslmode may stand once"),
        ("postgresql://h/n?prepared_statements=maybe", "neither 'on' nor 'off'"),
        ("sqlite:////srv/a.sqlite3?mode=ro", "an absolute path only"),
        ("sqlite:////srv/a#1.sqlite3", "a '#' in it"),
        ("sqlite://srv/a.sqlite3", "an absolute path only"),
        ("mysql://h/n", "'mysql' is neither"),
        ("postgresql://h/n?dbname=other", "dbname may stand once, and before the '?'"),
        ("postgresql://h/n?host=other", "host may stand once, and before the '?'"),
        ("postgresql://me:secret?word@h/n", "write / ? # @"),
        ("postgresql://me:12?secret@h/n", "write / ? # @"),
        ("postgresql://me:12/secret@h/n", "write / ? # @"),
        ("postgresql://me:12#secret@h/n", "write / ? # @"),
        ("postgresql://me:secret\u2100@h/n", "write / ? # @"),
        ("postgresql://me:se[cret@h/n", "write / ? # @"),
        ("postgresql://h/n?sslpassword=a&secret", "write / ? # @"),
    ],
)
def test_a_database_that_cant_be_used_so_is_refused_with_what_is_wrong(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match="SHEPHERD_DATABASE_URL") as caught:
        database_settings(url)

    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_path_of_sqlite_may_have_any_characters() -> None:
    plain = ServerConfig.from_env({}, folder=Path("/home/me@office/50% #1?"))

    assert database_settings(plain.database_url)["NAME"] == "/home/me@office/50% #1?/.shepherd/shepherd.sqlite3"
    assert database_settings("sqlite:////home/me@office/a.sqlite3")["NAME"] == "/home/me@office/a.sqlite3"


def test_a_sqlite_that_is_too_old_is_refused_with_both_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqlite3.sqlite_version_info", (3, 34, 1))
    monkeypatch.setattr("sqlite3.sqlite_version", "3.34.1")

    with pytest.raises(ConfigurationError, match=r"SQLite is 3\.34\.1 here, and has to be 3\.35\.0 or later"):
        database_settings("sqlite:////srv/a.sqlite3")

"""The commands of `manage.py` that are Shepherd's own."""

import json
from io import StringIO
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from shepherd.pipelines import tokens
from shepherd.pipelines.models import ApiToken
from shepherd.publisher import daemon


@pytest.mark.parametrize("name", ["worker_demon", "worker_demon.py"])
def test_the_task_publisher_starts_by_its_old_name_with_and_without_ending(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    started: list[str] = []
    monkeypatch.setattr(daemon, "main", lambda: started.append("task publisher"))

    call_command("runscript", name)

    assert started == ["task publisher"]


@pytest.mark.parametrize("name", ["worker_daemon", "", ".py", "../worker_demon", "os"])
def test_an_unknown_script_is_refused_with_those_that_exist(name: str) -> None:
    with pytest.raises(CommandError, match=r"There are: worker_demon\."):
        call_command("runscript", name)


def test_a_printed_token_opens_the_api_for_its_user(sqlite_database: str) -> None:
    user = User.objects.create_user("analyst")
    out = StringIO()

    call_command("create_token", "analyst", name="notebook", stdout=out)

    assert tokens.user_of(out.getvalue().strip()) == user
    assert ApiToken.objects.get().name == "notebook"


def test_there_is_no_token_for_nobody(sqlite_database: str) -> None:
    with pytest.raises(CommandError, match="'nobody'"):
        call_command("create_token", "nobody")


def test_preparing_makes_a_login_and_a_token_that_are_kept(sqlite_database: str, tmp_path: Path) -> None:
    file = tmp_path / "credentials.json"

    call_command("prepare_server", str(file))
    first = json.loads(file.read_text())
    call_command("prepare_server", str(file))

    assert json.loads(file.read_text()) == first
    administrator = User.objects.get()
    assert administrator.check_password(first["password"])
    assert administrator.is_superuser
    assert tokens.user_of(first["token"]) == administrator
    assert ApiToken.objects.count() == 1


def test_preparing_leaves_a_changed_password_alone(sqlite_database: str, tmp_path: Path) -> None:
    file = tmp_path / "credentials.json"
    call_command("prepare_server", str(file))
    administrator = User.objects.get()
    administrator.set_password("mine")
    administrator.save()

    call_command("prepare_server", str(file))

    assert User.objects.get().check_password("mine")


def test_a_new_database_gets_the_login_of_the_file_and_a_token_of_its_own(sqlite_database: str, tmp_path: Path) -> None:
    file = tmp_path / "credentials.json"
    file.write_text(json.dumps({"username": "admin", "password": "of before", "token": "shp_of_another_database"}))

    call_command("prepare_server", str(file))

    token = json.loads(file.read_text())["token"]
    assert token != "shp_of_another_database"
    assert tokens.user_of(token) == User.objects.get(username="admin")

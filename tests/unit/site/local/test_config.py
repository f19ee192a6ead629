from pathlib import Path

import pytest

from shepherd.errors import ConfigurationError
from shepherd.site.config import ServerConfig, database_settings
from shepherd.site.local.config import LocalConfig
from shepherd.site.local.programs import programs

ROOT = Path("/srv/shepherd")


def test_without_any_variable_everything_is_private_and_below_one_folder() -> None:
    config = LocalConfig.from_env({}, root=ROOT)

    settings = config.settings(secret_key="k")

    assert config.ports() == {
        "SHEPHERD_WEB_PORT": [8000],
        "SHEPHERD_BROKER_PORT": [5682, 5683, 5684],
        "SHEPHERD_PREFECT_PORT": [4210],
    }
    assert settings["SHEPHERD_BROKER_URL"] == "amqp://guest:guest@127.0.0.1:5682/"
    assert settings["SHEPHERD_DATABASE_URL"] == "sqlite:////srv/shepherd/.shepherd/shepherd.sqlite3"
    assert database_settings(settings["SHEPHERD_DATABASE_URL"])["NAME"] == "/srv/shepherd/.shepherd/shepherd.sqlite3"
    assert settings["PREFECT_API_URL"] == "http://127.0.0.1:4210/api"


def test_a_service_that_is_named_is_used_instead_of_a_private_one() -> None:
    given = {
        "SHEPHERD_BROKER_URL": "amqp://broker.example/",
        "SHEPHERD_DATABASE_URL": "postgresql://me@db.example/shepherd",
        "PREFECT_API_URL": "http://prefect.example/api",
    }

    config = LocalConfig.from_env(given, root=ROOT)

    assert given.items() <= config.settings(secret_key="k").items()
    assert list(config.ports()) == ["SHEPHERD_WEB_PORT"]
    assert list(config.given()) == ["SHEPHERD_BROKER_URL", "PREFECT_API_URL"]
    assert not {"epmd", "rabbitmq", "prefect"} & {program.name for program in programs(config)}


def test_without_prefect_there_is_no_address_of_it() -> None:
    config = LocalConfig.from_env({"SHEPHERD_PREFECT": "off"}, root=ROOT)

    assert "PREFECT_API_URL" not in config.settings(secret_key="k")
    assert "prefect" not in {program.name for program in programs(config)}


@pytest.mark.parametrize("port", ["http", "0", "-1", "65535", "80.0", "٣"])
def test_what_is_no_port_is_refused_with_the_variable(port: str) -> None:
    with pytest.raises(ConfigurationError, match="SHEPHERD_PREFECT_PORT"):
        LocalConfig.from_env({"SHEPHERD_PREFECT_PORT": port}, root=ROOT)


def test_the_server_understands_the_settings_that_are_left_for_it() -> None:
    settings = LocalConfig.from_env({}, root=ROOT).settings(secret_key="k")

    server = ServerConfig.from_env(settings, folder=Path("/elsewhere"))

    assert server.broker_url == "amqp://guest:guest@127.0.0.1:5682/"
    assert server.projects_folder == ROOT / "projects"
    assert server.store_url == "file:///srv/shepherd/.shepherd/store"
    assert server.prefect_ui_url == "http://127.0.0.1:4210"


def test_every_worker_file_of_every_project_is_started(tmp_path: Path) -> None:
    for name in ("one/workers/a.py", "one/workers/_part.py", "two/workers/a.py", "two/flow.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    config = LocalConfig.from_env({"SHEPHERD_PROJECTS": str(tmp_path)}, root=ROOT)

    assert [program.name for program in programs(config)] == [
        "epmd",
        "rabbitmq",
        "prefect",
        "worker-one-a",
        "worker-two-a",
        "task-publisher",
        "web",
    ]

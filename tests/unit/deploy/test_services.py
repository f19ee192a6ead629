"""What the units and containers under `deploy/` promise, and that what they name exists."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.folders import ROOT

_SYSTEMD = ROOT / "deploy" / "systemd"
_UNITS = sorted(_SYSTEMD.glob("*.service"))
_COMPOSE = ROOT / "deploy" / "compose.yaml"


def unit(file: Path) -> dict[str, list[str]]:
    """Return each key with its values; a unit may say one several times."""
    values: dict[str, list[str]] = defaultdict(list)
    for line in file.read_text(encoding="utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            values[name].append(value)
    return values


def compose() -> dict[str, Any]:
    told: dict[str, Any] = yaml.safe_load(_COMPOSE.read_text(encoding="utf-8"))
    return told


@pytest.mark.parametrize("file", _UNITS, ids=lambda file: file.name)
def test_a_service_comes_back_has_few_rights_and_ends_by_its_first_process(file: Path) -> None:
    told = unit(file)

    # One that ends by itself is started again by its timer.
    is_timed = file.with_suffix(".timer").exists()
    assert told["Type"] == ["oneshot"] if is_timed else told["Restart"] == ["always"]
    assert told["User"] == ["shepherd"]
    assert told["NoNewPrivileges"] == ["yes"]
    assert told["ProtectSystem"] == ["strict"]
    assert told["KillMode"] == ["mixed"]
    assert all(path.lstrip("-").startswith("/etc/shepherd/") for path in told["EnvironmentFile"])


def test_a_worker_has_all_the_time_that_its_tasks_take() -> None:
    told = unit(_SYSTEMD / "shepherd-worker@.service")

    assert told["TimeoutStopSec"] == ["infinity"]
    assert told["OOMPolicy"] == ["continue"]


def test_waitress_is_stopped_by_what_lets_it_finish() -> None:
    assert unit(_SYSTEMD / "shepherd-web.service")["KillSignal"] == ["SIGINT"]
    assert compose()["services"]["web"]["stop_signal"] == "SIGINT"


@pytest.mark.parametrize("file", sorted(_SYSTEMD.glob("*.env")), ids=lambda file: file.name)
def test_every_setting_of_the_examples_is_documented(file: Path) -> None:
    told = set(re.findall(r"^#? ?(SHEPHERD_[A-Z_]+)=", file.read_text(encoding="utf-8"), re.MULTILINE))

    assert told
    assert told <= documented()


def test_every_setting_of_the_containers_is_documented() -> None:
    texts = [_COMPOSE.read_text(encoding="utf-8"), (_COMPOSE.parent / "Dockerfile").read_text(encoding="utf-8")]
    told = {name for text in texts for name in re.findall(r"\bSHEPHERD_[A-Z_]+\b", text)}

    assert told
    assert told <= documented()


def documented() -> set[str]:
    text = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    return set(re.findall(r"`(SHEPHERD_[A-Z_]+)`", text))


def test_what_the_containers_run_and_mount_is_there() -> None:
    services = compose()["services"]
    files = [word for service in services.values() for word in service.get("command", ()) if word.endswith(".py")]
    volumes = [volume.split(":")[0] for service in services.values() for volume in service.get("volumes", ())]

    assert all((ROOT / file).is_file() for file in files)
    assert {volume for volume in volumes if not volume.startswith(".")} == set(compose()["volumes"])
    assert all((_COMPOSE.parent / volume).is_file() for volume in volumes if volume.startswith("."))
    waited_for = {name for service in services.values() for name in service.get("depends_on", ())}
    assert waited_for <= services.keys()
    assert services["broker"]["image"].startswith("rabbitmq:")

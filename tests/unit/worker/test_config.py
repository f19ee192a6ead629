import os
from pathlib import Path

import pytest

from shepherd.errors import ConfigurationError
from shepherd.worker.config import WorkerConfig


def _read(*arguments: str, **environ: str) -> WorkerConfig:
    return WorkerConfig.read(
        arguments, {"SHEPHERD_ENV_FILE": "", **environ}, default_name="columns", tasks=["skip_column"]
    )


def test_without_settings_it_works_on_one_machine() -> None:
    config = _read()

    assert config.name == "columns"
    assert config.broker_url == "amqp://guest:guest@127.0.0.1:5672/"
    assert config.store_url == (Path.cwd() / ".shepherd" / "store").as_uri()
    assert config.slots == min(4, os.cpu_count() or 1)
    assert (config.beat_s, config.hold_s) == (10, 20)
    assert config.spool == str(Path.cwd() / ".shepherd" / "spool")
    assert config.spool_limit == 256 * 1024 * 1024


def test_an_option_counts_more_than_its_variable() -> None:
    config = _read("--slots", "3", "--name", "mine", SHEPHERD_SLOTS="2", SHEPHERD_STORE="file:///srv/s")

    assert (config.slots, config.name, config.store_url) == (3, "mine", "file:///srv/s")


def test_a_variable_counts_more_than_the_file(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("SHEPHERD_SLOTS=1\nSHEPHERD_BEAT_S=0.5\n")

    config = _read(SHEPHERD_ENV_FILE=str(file), SHEPHERD_SLOTS="2")

    assert (config.slots, config.beat_s) == (2, 0.5)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SHEPHERD_SLOTS", "0"),
        ("SHEPHERD_SLOTS", "two"),
        ("SHEPHERD_SLOTS", "²"),
        ("SHEPHERD_BEAT_S", "nan"),
        ("SHEPHERD_BEAT_S", "-1"),
        ("SHEPHERD_HOLD_S", "0"),
        ("SHEPHERD_SPOOL_MB", "0"),
        ("SHEPHERD_SPOOL_MB", "1.5"),
        ("SHEPHERD_STORE", "relative"),
        ("SHEPHERD_BROKER_URL", "http://x"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_variable(variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=variable):
        _read(**{variable: value})


def test_it_survives_the_way_to_the_supervisor() -> None:
    config = _read("--slots", "2")

    assert WorkerConfig.from_text(config.to_text()) == config

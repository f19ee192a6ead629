import stat
from pathlib import Path

from shepherd.environment import with_env_file
from shepherd.site.local import secret_files
from shepherd.site.local.secret_files import Credentials


def test_a_second_start_has_the_login_and_the_token_of_the_first(tmp_path: Path) -> None:
    file = tmp_path / "credentials.json"
    first = secret_files.read_credentials(file)
    kept = Credentials(username=first.username, password=first.password, token="shp_token")

    secret_files.write_credentials(file, kept)

    assert secret_files.read_credentials(file) == kept


def test_two_systems_have_different_passwords_and_keys(tmp_path: Path) -> None:
    one, other = (secret_files.read_credentials(tmp_path / name) for name in ("one", "other"))

    assert one.password != other.password
    assert secret_files.secret_key(tmp_path / "key of one") != secret_files.secret_key(tmp_path / "key of other")


def test_the_key_stays_the_same(tmp_path: Path) -> None:
    first = secret_files.secret_key(tmp_path / "key")

    assert secret_files.secret_key(tmp_path / "key") == first


def test_only_the_owner_may_read_what_is_written(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.touch(mode=0o644)

    secret_files.write_settings(file, {"SHEPHERD_SECRET_KEY": "k"})

    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_settings_are_read_back_as_they_were(tmp_path: Path) -> None:
    file = tmp_path / "env"
    settings = {"SHEPHERD_BROKER_URL": "amqp://u:p=#@h/%2F", "SHEPHERD_PREFECT": "on"}

    secret_files.write_settings(file, settings)

    assert with_env_file({"SHEPHERD_ENV_FILE": str(file)}, start=tmp_path).items() >= settings.items()

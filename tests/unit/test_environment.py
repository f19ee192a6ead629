from pathlib import Path

from shepherd.environment import hand_on, with_env_file


def leave(folder: Path, text: str) -> Path:
    (folder / ".shepherd").mkdir()
    path = folder / ".shepherd" / "env"
    path.write_text(text)
    return path


def test_the_nearest_file_above_the_folder_counts(tmp_path: Path) -> None:
    inner = tmp_path / "projects" / "workers"
    inner.mkdir(parents=True)
    leave(tmp_path, "SHEPHERD_STORE=far\n")
    leave(inner.parent, "SHEPHERD_STORE=near\n")

    assert with_env_file({}, start=inner) == {"SHEPHERD_STORE": "near"}


def test_real_variables_stand_above_the_file(tmp_path: Path) -> None:
    leave(tmp_path, "SHEPHERD_STORE=file\nSHEPHERD_WEB_PORT=8123\n")

    settings = with_env_file({"SHEPHERD_STORE": "real", "HOME": "/root"}, start=tmp_path)

    assert settings == {"SHEPHERD_STORE": "real", "SHEPHERD_WEB_PORT": "8123", "HOME": "/root"}


def test_comments_and_empty_lines_are_passed_over_and_values_may_hold_anything_else(tmp_path: Path) -> None:
    leave(tmp_path, "# addresses\n\n SHEPHERD_BROKER_URL = amqp://a:b#c=d@h/ \n")

    assert with_env_file({}, start=tmp_path) == {"SHEPHERD_BROKER_URL": "amqp://a:b#c=d@h/"}


def test_no_file_is_no_fault(tmp_path: Path) -> None:
    assert with_env_file({"A": "1"}, start=tmp_path) == {"A": "1"}


def test_another_file_can_be_named_and_none_too(tmp_path: Path) -> None:
    leave(tmp_path, "SHEPHERD_STORE=nearest\n")
    other = tmp_path / "other"
    other.write_text("SHEPHERD_STORE=other\n")

    assert with_env_file({"SHEPHERD_ENV_FILE": str(other)}, start=tmp_path)["SHEPHERD_STORE"] == "other"
    assert with_env_file({"SHEPHERD_ENV_FILE": ""}, start=tmp_path) == {"SHEPHERD_ENV_FILE": ""}


def test_what_a_client_of_s3_reads_itself_is_handed_on_below_real_variables() -> None:
    environ = {"AWS_REGION": "real"}

    hand_on({"AWS_REGION": "file", "AWS_ACCESS_KEY_ID": "file", "SHEPHERD_STORE": "s3://bucket"}, environ)

    assert environ == {"AWS_REGION": "real", "AWS_ACCESS_KEY_ID": "file"}

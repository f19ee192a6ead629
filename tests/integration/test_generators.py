"""The seed's two generators, called through a shell as the seed calls them."""

import ast
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shepherd.names import TASK_NAME_RULE

ROOT = Path(__file__).parents[2]
PUBLISHER = "python -m code_templates.publisher_template"
WORKER = "python task_template.py"


def shell(command: str, *, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    words = command.replace("python ", f"{shlex.quote(sys.executable)} ", 1)
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        words, check=False, shell=True, cwd=folder, env=environ, text=True, capture_output=True, timeout=60
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Give a folder with the generators alone, to write into."""
    shutil.copytree(ROOT / "code_templates", tmp_path / "code_templates")
    shutil.copy(ROOT / "task_template.py", tmp_path)
    return tmp_path


def functions(text: str) -> list[str]:
    definitions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [node.name for node in definitions]


def test_the_publisher_generator_prints_a_function_of_the_tasks_name() -> None:
    done = shell(f"{PUBLISHER} --task_name 'bhuvan_gdal_wms'")

    assert (done.returncode, done.stderr) == (0, "")
    assert functions(done.stdout) == ["bhuvan_gdal_wms"]
    assert "await apublish_task_and_process_result(task_obj, context, pipeline.data)" in done.stdout


@pytest.mark.parametrize(
    ("folder", "command"),
    [(".", WORKER), ("code_templates", WORKER), (".", "python -m code_templates.task_template")],
)
def test_the_worker_generator_works_from_where_the_seed_may_be_read(checkout: Path, folder: str, command: str) -> None:
    done = shell(f'{command} --task_name "clean_rows" --result_file "my_worker"', folder=checkout / folder)

    assert (done.returncode, done.stderr) == (0, "")
    written = (checkout / folder / "my_worker.py").read_text()
    assert functions(written) == ["clean_rows"]
    [function] = [node for node in ast.parse(written).body if isinstance(node, ast.FunctionDef)]
    assert any(isinstance(node, ast.Try) for node in function.body)
    assert ast.unparse(ast.parse(written).body[-1]) == "worker.run()"


@pytest.mark.parametrize("file", ["y.py", "y.v2", "with space"])
def test_the_ending_is_added_only_if_missing(checkout: Path, file: str) -> None:
    shell(f"{WORKER} --task_name x --result_file '{file}'", folder=checkout)

    assert (checkout / (file if file.endswith(".py") else f"{file}.py")).is_file()


def test_a_file_that_exists_is_written_over_only_by_force(checkout: Path) -> None:
    (checkout / "y.py").write_text("precious")

    refused = shell(f"{WORKER} --task_name x --result_file y", folder=checkout)

    assert refused.returncode == 2
    assert "y.py exists; add --force" in refused.stderr
    assert (checkout / "y.py").read_text() == "precious"
    assert shell(f"{WORKER} --task_name x --result_file y --force", folder=checkout).returncode == 0
    assert functions((checkout / "y.py").read_text()) == ["x"]


def test_a_file_that_cannot_be_written_is_an_error_that_says_why(checkout: Path) -> None:
    done = shell(f"{WORKER} --task_name x --result_file nowhere/y", folder=checkout)

    assert done.returncode == 2
    assert "nowhere/y.py can't be written: No such file or directory" in done.stderr


@pytest.mark.parametrize("name", ["9lives", "a-b", "", "a b", "ä", "x" * 101, "x; print(1)"])
@pytest.mark.parametrize("command", [PUBLISHER, f"{WORKER} --result_file y"])
def test_an_invalid_task_name_gets_an_error_that_says_what_is_allowed(checkout: Path, command: str, name: str) -> None:
    done = shell(f"{command} --task_name '{name}'", folder=checkout)

    assert done.returncode == 2
    assert TASK_NAME_RULE in done.stderr
    assert not (checkout / "y.py").exists()


@pytest.mark.parametrize(
    ("command", "name", "reason"),
    [
        (PUBLISHER, "class", "Python's own"),
        (PUBLISHER, "task", "needs for itself"),
        (f"{WORKER} --result_file y", "import", "Python's own"),
        (f"{WORKER} --result_file y", "worker", "needs for itself"),
    ],
)
def test_a_name_that_no_function_can_have_there_is_refused(
    checkout: Path, command: str, name: str, reason: str
) -> None:
    done = shell(f"{command} --task_name {name}", folder=checkout)

    assert done.returncode == 2
    assert reason in done.stderr

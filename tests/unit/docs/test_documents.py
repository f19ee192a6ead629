"""Documents are in the index, and say what exists."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def links(document: Path) -> list[str]:
    found = _LINK.findall(_CODE.sub("", document.read_text(encoding="utf-8")))
    return [link for link in found if not re.match(r"[a-z]+:", link)]


@pytest.mark.parametrize("folder", ["docs", "docs/how-to", "docs/reference"])
def test_every_document_is_in_the_index(folder: str) -> None:
    index = ROOT / "docs" / "README.md"
    named = {(index.parent / link).resolve() for link in links(index)}

    assert set((ROOT / folder).glob("*.md")) - {index} <= named


def test_the_architecture_is_short_and_every_package_has_its_invariant() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    packages = text.split("## The packages")[1].split("\n## ")[0].split("\n### ")[1:]

    assert len(text.splitlines()) < 200
    assert all("**Invariant:**" in package for package in packages)
    folders = {path.parent.name for path in (ROOT / "src" / "shepherd").glob("*/__init__.py")}
    assert folders <= set(re.findall(r"`(\w+)/`", "".join(package.splitlines()[0] for package in packages)))


def test_every_command_of_the_seeds_table_is_a_file_or_target_that_exists() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8").split("## By hand")[1].split("## ")[0]
    commands = [command for row in re.findall(r"^\| (.+?) \|", readme, re.MULTILINE) for command in _commands(row)]

    assert len(commands) >= 7
    for command in commands:
        assert _exists(command), command


def _commands(cell: str) -> list[str]:
    return [command for command in re.findall(r"`([^`]+)`", cell) if " " in command]


def _exists(command: str) -> bool:
    words = command.split()
    if words[0] == "make":
        return f"\n{words[1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8")
    if words[1] == "-m":
        return (ROOT / f"{words[2].replace('.', '/')}.py").is_file()
    return (ROOT / words[1]).is_file()


def test_the_documents_name_every_setting_that_the_code_reads() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py")]
    read = {name for text in sources for name in re.findall(r'"(SHEPHERD_[A-Z_]+)"', text)}
    documented = set(re.findall(r"`(SHEPHERD_[A-Z_]+)`", (ROOT / "docs/reference/settings.md").read_text()))
    # How processes that belong together find each other; nobody sets them.
    internal = {"SHEPHERD_SUPERVISOR", "SHEPHERD_CHILD_FD", "SHEPHERD_CHILD", "SHEPHERD_STARTED_BY"}

    assert read - internal == documented


def test_the_generated_publisher_is_the_one_in_the_documents() -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "code_templates.publisher_template", "--task_name", "bhuvan_gdal_wms"]
    printed = subprocess.run(command, cwd=ROOT, env=environ, text=True, capture_output=True, check=True).stdout
    call = "data, exception_flag = await apublish_task_and_process_result(task_obj, context, pipeline.data)"

    assert call in printed
    assert call in (ROOT / "docs/how-to/run-code-between-two-tasks.md").read_text(encoding="utf-8")

"""A project's flow.py as its runs meet it."""

from pathlib import Path

import pytest

from shepherd.publisher.publishers import BrokenFlowError, Publishers


@pytest.fixture
def flow_file(tmp_path: Path) -> Path:
    file = tmp_path / "steps" / "flow.py"
    file.parent.mkdir()
    return file


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def broken(:", "SyntaxError: invalid syntax"),
        ("import nowhere_at_all", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
    ],
)
def test_a_flow_file_that_cannot_be_imported_says_why_in_one_line(
    flow_file: Path, tmp_path: Path, text: str, reason: str
) -> None:
    flow_file.write_text(text)

    with pytest.raises(BrokenFlowError) as refused:
        Publishers(tmp_path).of("steps", wait_s=20)

    assert refused.value.reason == reason
    assert str(refused.value).startswith("Traceback")

import pytest

from shepherd.names import TASK_NAME_RULE, function_name_fault, is_project_name, is_task_name, project_key


@pytest.mark.parametrize("name", ["a", "_", "skip_column", "X9", "a" * 100])
def test_a_task_name_is_made_like_a_functions(name: str) -> None:
    assert is_task_name(name)


@pytest.mark.parametrize("name", ["", "9a", "a-b", "a b", "a.b", "ä", "a\n", "a" * 101, "\N{FULLWIDTH DIGIT ONE}"])
def test_anything_else_is_no_task_name(name: str) -> None:
    assert not is_task_name(name)


def test_a_project_is_found_with_hyphens_and_underscores_alike() -> None:
    assert project_key("ids_drr") == project_key("ids-drr") == "ids-drr"


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "-x", "a\0", "a\n", "a" * 101])
def test_a_project_name_leads_nowhere_else(name: str) -> None:
    assert not is_project_name(name)


def test_a_generated_function_is_refused_a_name_that_would_not_work() -> None:
    assert function_name_fault("clean", taken={"worker"}) is None
    assert function_name_fault("9", taken=()) == TASK_NAME_RULE
    assert "Python's own" in str(function_name_fault("class", taken=()))
    assert "needs for itself" in str(function_name_fault("worker", taken={"worker"}))

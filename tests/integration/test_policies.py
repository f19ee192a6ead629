"""Which policy a task gets, from whom, on both databases."""

from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from shepherd.pipelines import services
from shepherd.pipelines.models import Offer, Run, Task
from tests.support.web import NOW, Api, an_offer, faults_of, later, manifest, pipeline

BUILT_IN = {"retries": 0, "backoff": 5.0, "retry_on_lost": 3, "wait_timeout": None, "run_timeout": None}


def a_task(name: str = "sentinel", **policy: Any) -> dict[str, Any]:
    return {"name": name, "order_no": 1, **policy}


def policy_of(api: Api, *tasks: dict[str, Any]) -> Any:
    answer = api.post(pipeline(transformers_list=list(tasks) or [a_task()]))
    assert answer.status_code == 202, answer.json()
    return api.get(f"/runs/{answer.json()['number']}").json()["tasks"][0]["policy"]


def test_a_task_of_which_nobody_says_anything_has_the_defaults(api: Api) -> None:
    assert policy_of(api) == BUILT_IN
    assert Task.objects.get().policy == {}


def test_the_caller_goes_over_the_author_and_the_author_over_the_project(api: Api, projects_folder: Path) -> None:
    (projects_folder / "ids_drr" / "project.toml").write_text(
        "[defaults]\nretries = 1\nbackoff = 1.5\nrun_timeout = 60\nwait_timeout = 9\n"
        "[tasks.sentinel]\nretry_on_lost = 7\n"
    )
    services.announce(manifest(an_offer("sentinel", policy={"retries": 2, "backoff": 2, "run_timeout": 120})), now=NOW)

    policy = policy_of(api, a_task(retries=0, wait_timeout=None))

    assert policy == {"retries": 0, "backoff": 2, "retry_on_lost": 7, "wait_timeout": None, "run_timeout": 120}
    assert Task.objects.get().policy == {"backoff": 2, "retry_on_lost": 7, "run_timeout": 120}


def test_a_project_speaks_of_one_task_and_of_all(api: Api, projects_folder: Path) -> None:
    (projects_folder / "ids_drr" / "project.toml").write_text(
        "[defaults]\nretries = 1\n[tasks.sentinel]\nretries = 4\n"
    )

    assert policy_of(api, a_task("sentinel"))["retries"] == 4
    assert policy_of(api, a_task("upload"))["retries"] == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[defaults]\nretries = -1", "ids_drr/project.toml: defaults.retries must be an integer from 0 to 1000"),
        ("[tasks.sentinel]\nbackoff = nan", "ids_drr/project.toml: tasks.sentinel.backoff must be a number of seconds"),
        ("[defaults]\nretry = 1", "ids_drr/project.toml: defaults.retry is not known here"),
        ("[default]\nretries = 1", "ids_drr/project.toml: default is not known here"),
        ('[tasks."a b"]\nretries = 1', "ids_drr/project.toml: tasks.a b is not the name of a task"),
        ("tasks = 1", "ids_drr/project.toml: tasks must be a table"),
        ("defaults = []", "ids_drr/project.toml: defaults must be a table"),
        ("[defaults", "ids_drr/project.toml is no TOML"),
        ("\udcff", "ids_drr/project.toml is no TOML"),
    ],
)
def test_a_broken_file_is_named_with_its_field(api: Api, projects_folder: Path, content: str, reason: str) -> None:
    (projects_folder / "ids_drr" / "project.toml").write_bytes(content.encode("utf-8", "surrogateescape"))

    answer = api.post(pipeline("sentinel"))
    [_, project] = api.get("/projects").json()

    assert answer.status_code == 422
    assert reason in faults_of(answer)["project"]
    assert reason in project["faults"][0]
    assert not Run.objects.exists()


def test_what_is_wrong_in_an_announced_policy_is_ignored(api: Api) -> None:
    stated = {"retries": 2, "backoff": "soon", "run_timeout": -1, "wait_timeout": 10**400, "owner": "x"}
    services.announce(manifest(an_offer("sentinel", policy=stated)), now=NOW)

    assert policy_of(api) == {**BUILT_IN, "retries": 2}
    assert api.get("/catalogue").json()[0]["policy"] == {"retries": 2}


def test_the_newest_announcement_counts_and_a_changed_one_is_stored(api: Api) -> None:
    services.announce(manifest(an_offer("sentinel", policy={"retries": 1}), worker="old"), now=NOW)
    services.announce(manifest(an_offer("sentinel", policy={"retries": 2}), worker="new"), now=later(1))
    services.announce(manifest(an_offer("sentinel", policy={"retries": 3}), worker="new"), now=later(2))

    assert policy_of(api)["retries"] == 3
    assert Offer.objects.count() == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("retries", -1),
        ("retries", True),
        ("retries", 1.0),
        ("retries", "3"),
        ("retries", None),
        ("retries", 10**30),
        ("retry_on_lost", 1001),
        ("backoff", -0.1),
        ("backoff", 601),
        ("backoff", None),
        ("wait_timeout", 0),
        ("wait_timeout", "1 h"),
        ("run_timeout", False),
        ("run_timeout", 1e300),
        ("run_timeout", []),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_by_its_path(api: Api, field: str, value: Any) -> None:
    tasks = [a_task("a"), a_task("b", **{field: value})]

    assert list(faults_of(api.post(pipeline(transformers_list=tasks)))) == [f"transformers_list[1].{field}"]


def test_the_endpoints_of_old_take_policies_too(api: Api, asha: User) -> None:
    answer = api.send("/transformer/pipe_create", pipeline(transformers_list=[None, a_task(retries=2)]))
    wrong = api.send("/transformer/pipe_create", pipeline(transformers_list=[None, a_task(retries="2")]))

    assert answer.json()["Success"] is True
    assert Task.objects.get().policy == {"retries": 2}
    assert list(faults_of(wrong)) == ["transformers_list[1].retries"]


def test_a_run_made_of_an_earlier_one_has_its_policies(api: Api, projects_folder: Path) -> None:
    number = api.post(pipeline(transformers_list=[a_task("a", retries=0), a_task("b", run_timeout=5)])).json()["number"]
    (projects_folder / "ids_drr" / "project.toml").write_text("[defaults]\nretries = 3\n")

    again = api.act(f"/runs/{number}/rerun").json()

    assert [task["policy"] for task in again["tasks"]] == [BUILT_IN, {**BUILT_IN, "run_timeout": 5}]

"""The buttons on a run's page, on both databases."""

import html
import json
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from shepherd.domain.pipeline import parse_pipeline
from shepherd.pipelines import services
from shepherd.pipelines.models import Attempt, Run, Task
from shepherd.wire.envelope import TaskError
from shepherd.wire.value import Inline
from tests.support.engine import Engine, statuses
from tests.support.web import NOW, an_offer, browser, later, manifest, pipeline

SCHEMA = {"properties": {"column": {"type": "string"}}, "additionalProperties": False}
SCRIPT = "<script>alert('x')</script>"


@pytest.fixture
def visitor(asha: User) -> Client:
    client = browser()
    client.force_login(asha)
    return client


@pytest.fixture
def stopped(asha: User) -> Run:
    """A run whose second task failed."""
    tasks = [
        {"name": "scrape", "order_no": 1},
        {"name": "clean", "order_no": 2, "context": {"column": SCRIPT}, "run_timeout": 60},
    ]
    run = services.accept(parse_pipeline(pipeline(transformers_list=tasks)), by=asha, now=NOW).run
    engine = Engine()
    engine.relay.start()
    engine.finish(engine.take("scrape").token, Inline("rows"))
    engine.finish(engine.take("clean").token, error=TaskError(code="unknown_column", message=f"no {SCRIPT}"))
    assert statuses(run) == ["failed", "succeeded", "failed"]
    return run


def page(visitor: Client, run: Run) -> str:
    answer = visitor.get(f"/runs/{run.number}/")
    assert answer.status_code == 200
    return answer.content.decode()


def press(visitor: Client, run: Run, button: str, **fields: str) -> Any:
    return visitor.post(f"/runs/{run.number}/{button}/", fields)


def field(text: str) -> Any:
    """Return what stands in the page's field of the context."""
    found = re.search(r"<textarea[^>]*>\n(.*?)</textarea>", text, re.DOTALL)
    return json.loads(html.unescape(found[1])) if found else None


def test_a_run_under_way_can_be_cancelled_and_then_resumed(visitor: Client, asha: User) -> None:
    run = services.accept(parse_pipeline(pipeline("scrape")), by=asha, now=NOW).run
    Engine().relay.start()
    assert 'formaction="/runs/1/cancel/"' in page(visitor, run)

    answer = press(visitor, run, "cancel")

    assert (answer.status_code, answer["Location"]) == (302, "/runs/1/")
    assert statuses(run) == ["cancelled", "cancelled"]
    shown = page(visitor, run)
    assert "/runs/1/cancel/" not in shown
    assert 'formaction="/runs/1/resume/"' in shown
    assert 'formaction="/runs/1/rerun/"' in shown


def test_the_failed_task_shows_its_context_to_be_edited(visitor: Client, stopped: Run) -> None:
    shown = page(visitor, stopped)

    assert field(shown) == {"column": SCRIPT}
    assert shown.count("<textarea") == 1
    assert "<script>alert" not in shown
    assert "Policy: run_timeout 60" in shown


def test_a_context_left_as_it_stands_is_no_correction(visitor: Client, stopped: Run) -> None:
    answer = press(visitor, stopped, "resume", context=json.dumps({"column": SCRIPT}))

    assert answer.status_code == 302
    assert statuses(stopped) == ["running", "succeeded", "pending"]
    assert not Task.objects.filter(corrected_context__isnull=False)


def test_a_corrected_context_is_kept_and_shown_beside_the_accepted_one(visitor: Client, stopped: Run) -> None:
    press(visitor, stopped, "resume", context='{"column": "rain_mm"}')

    assert Task.objects.get(run=stopped, name="clean").corrected_context == {"column": "rain_mm"}
    shown = page(visitor, stopped)
    assert "Context, corrected" in shown
    assert "Context as accepted" in shown
    assert "unknown_column" in shown


@pytest.mark.parametrize(
    ("context", "path", "reason"),
    [
        ('{"column": 1}', "contexts.2.column", "must be of type string, is 1"),
        ('{"column": ', "contexts.2", "is not JSON"),
        ('{"column": NaN}', "contexts.2.column", "NaN"),
        ("", "contexts.2", "is not JSON"),
        ("[1]", "contexts.2", "must be an object"),
        (f'{{"{SCRIPT}": 1}}', "contexts.2.&lt;script&gt;", "is not known here"),
    ],
)
def test_a_wrong_context_is_refused_by_its_path_and_stays_in_the_field(
    visitor: Client, stopped: Run, context: str, path: str, reason: str
) -> None:
    services.announce(manifest(an_offer("clean", SCHEMA)), now=NOW)

    answer = press(visitor, stopped, "resume", context=context)

    shown = answer.content.decode()
    assert answer.status_code == 422
    assert path in shown
    assert reason in shown
    assert f">\n{html.escape(context)}</textarea>" in shown
    assert "<script>alert" not in shown
    assert statuses(stopped)[0] == "failed"


def test_what_came_too_late_is_said_on_the_page(visitor: Client, stopped: Run) -> None:
    answer = press(visitor, stopped, "cancel")

    assert answer.status_code == 409
    assert "has failed at &#x27;clean&#x27; already: nothing is left to cancel" in answer.content.decode()


def test_a_button_pressed_twice_makes_one_run(visitor: Client, stopped: Run) -> None:
    once = re.search(r'name="once" value="(\w+)"', page(visitor, stopped))
    assert once

    first, second = (press(visitor, stopped, "rerun", once=once[1]) for _ in range(2))

    assert first["Location"] == second["Location"] == "/runs/2/"
    assert Run.objects.count() == 2
    assert '<a href="/runs/1/">run 1</a>' in page(visitor, Run.objects.get(number=2))


def test_attempts_are_listed_with_their_errors_beside_the_one_that_succeeded(visitor: Client, stopped: Run) -> None:
    task = Task.objects.get(run=stopped, name="clean")
    for number, status, error in ((2, "lost", {"code": "lost", "message": "silent"}), (3, "succeeded", None)):
        Attempt.objects.create(
            task=task,
            attempt_no=number,
            token=str(number),
            context={},
            data={"inline": None},
            published_at=NOW,
            status=status,
            error=error,
        )
    Task.objects.filter(pk=task.pk).update(status="succeeded", error=None, attempt_no=3, result={"inline": 1})
    Run.objects.filter(pk=stopped.pk).update(status="succeeded")

    shown = page(visitor, stopped)

    assert "3 attempts" in shown
    assert re.search(r"status--failed.*unknown_column.*status--lost.*silent.*status--succeeded", shown, re.DOTALL)
    assert "<textarea" not in shown


def test_a_retry_that_is_due_and_a_lost_attempt_are_seen(visitor: Client, stopped: Run) -> None:
    task = Task.objects.filter(run=stopped, name="clean")
    task.update(status="pending", retry_at=later(0) + timedelta(days=3650), losses=1)
    Run.objects.filter(pk=stopped.pk).update(status="running")

    shown = page(visitor, stopped)

    assert "attempt 2 due 12:00:00" in shown
    assert "1 attempt lost" in shown


@pytest.mark.parametrize("button", ["cancel", "resume", "rerun"])
def test_buttons_need_a_login_a_csrf_token_and_a_press(asha: User, stopped: Run, button: str) -> None:
    stranger, careless, careful = browser(), browser(enforce_csrf_checks=True), browser()
    careless.force_login(asha)
    careful.force_login(asha)

    assert press(stranger, stopped, button)["Location"].startswith("/login/")
    assert press(careless, stopped, button).status_code == 403
    assert careful.get(f"/runs/{stopped.number}/{button}/")["Location"] == f"/runs/{stopped.number}/"
    assert press(careful, Run(number=999), button).status_code == 404
    assert press(careful, Run(number=10**25), button).status_code == 404
    assert statuses(stopped)[0] == "failed"
    assert Run.objects.count() == 1

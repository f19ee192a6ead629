"""The pages and the admin, as a browser gets them, on both databases."""

import re
from contextlib import closing
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client

from shepherd.domain.pipeline import parse_pipeline
from shepherd.pipelines import services
from shepherd.pipelines.dead import keep_dead_message
from shepherd.pipelines.models import ApiToken, Attempt, DeadMessage, LogLine, Run, Task
from shepherd.pipelines.tokens import user_of
from tests.support.web import NOW, browser, pipeline

HTMX = {"HX-Request": "true"}
SCRIPT = "<script>alert('x')</script>"


@pytest.fixture
def visitor(asha: User) -> Client:
    """A browser in which asha is logged in."""
    client = browser()
    client.force_login(asha)
    return client


@pytest.fixture
def run(asha: User) -> Run:
    tasks = [{"name": "sentinel", "order_no": 1, "context": {"state": SCRIPT}}, {"name": "upload", "order_no": 2}]
    document = pipeline(pipeline_name=f"flood {SCRIPT}", transformers_list=tasks)
    return services.accept(parse_pipeline(document), by=asha, now=NOW).run


def failed(run: Run) -> Attempt:
    error = {"code": "unknown_column", "message": f"no {SCRIPT}", "traceback": f"Traceback\n  {SCRIPT}"}
    run.tasks.filter(position=0).update(status="failed", error=error, attempt_no=1, started_at=NOW, finished_at=NOW)
    Run.objects.filter(pk=run.pk).update(status="failed", started_at=NOW, finished_at=NOW)
    return Attempt.objects.create(
        task=run.tasks.get(position=0),
        attempt_no=1,
        token="secret",
        context={},
        data={"inline": None},
        published_at=NOW,
        status="failed",
        worker=SCRIPT,
        error=error,
    )


def html(response: Any) -> str:
    assert response.status_code == 200
    return response.content.decode()  # type: ignore[no-any-return]


def polled(page: str) -> str:
    """Return the address that the page's live part asks again."""
    found = re.search(r'id="live" hx-get="([^"]+)"', page)
    assert found
    return found[1].replace("&amp;", "&")


@pytest.mark.parametrize("path", ["/", "/runs/1/", "/runs/1/log/"])
def test_strangers_are_led_to_the_login(asha: User, path: str) -> None:
    whole, part = browser().get(path), browser().get(path, headers=HTMX)

    assert (whole.status_code, whole["Location"]) == (302, f"/login/?next={path}")
    assert part["HX-Redirect"] == "/login/"


def test_a_login_leads_to_the_runs_and_a_logout_back(asha: User) -> None:
    asha.set_password("correct horse")
    asha.save()
    visitor = browser()

    wrong = visitor.post("/login/", {"username": "asha", "password": "wrong"})
    right = visitor.post("/login/?next=//evil.example/", {"username": "asha", "password": "correct horse"})
    out = visitor.post("/logout/")

    assert "Please enter a correct username" in html(wrong)
    assert (right.status_code, right["Location"]) == (302, "/")
    assert (out.status_code, out["Location"]) == (302, "/login/")


def test_the_runs_are_listed_with_their_tasks_and_reasons(visitor: Client, run: Run) -> None:
    page = html(visitor.get("/"))

    assert f'href="/runs/{run.number}/"' in page
    assert "sentinel" in page
    assert "Waiting for the Task Publisher to start it." in page
    assert "<option selected>" not in page


def test_a_filter_shows_what_fits(visitor: Client, run: Run) -> None:
    assert f"/runs/{run.number}/" in html(
        visitor.get("/", {"text": "flood", "status": "accepted", "project": "ids-drr"})
    )
    assert "No run fits this filter." in html(visitor.get("/", {"status": "failed"}))


@pytest.mark.parametrize(
    "query", [{"before": "x"}, {"before": "9" * 40}, {"before": "²"}, {"text": "\0"}, {"seen": "x"}]
)
def test_no_query_brings_the_list_down(visitor: Client, run: Run, query: dict[str, str]) -> None:
    assert visitor.get("/", query).status_code in {200, 404}


def test_older_runs_are_a_page_further(visitor: Client, asha: User) -> None:
    for _ in range(26):
        services.accept(parse_pipeline(pipeline("sentinel")), by=asha, now=NOW)

    older = re.search(r'href="([^"]*before=\d+)">Older', html(visitor.get("/")))

    assert older
    assert html(visitor.get(older[1].replace("&amp;", "&"))).count('class="card run"') == 1


def test_a_failed_run_shows_error_traceback_attempts_and_log(visitor: Client, run: Run) -> None:
    attempt = failed(run)
    LogLine.objects.create(attempt=attempt, n=1, at=NOW, level="ERROR", text="column 'a' is missing")

    page = html(visitor.get(f"/runs/{run.number}/"))

    for text in ("unknown_column", "Traceback", "1 attempt", "column &#x27;a&#x27; is missing", "log__line--error"):
        assert text in page
    assert "secret" not in page


def test_what_people_and_workers_wrote_is_text_and_never_markup(visitor: Client, run: Run) -> None:
    LogLine.objects.create(attempt=failed(run), n=1, at=NOW, level="<b>", text=SCRIPT)

    for path in ("/", f"/runs/{run.number}/", f"/runs/{run.number}/log/", f"/?text={SCRIPT}"):
        page = html(visitor.get(path))
        assert "<script>alert" not in page
        assert "<b>" not in page


def test_pages_load_nothing_from_elsewhere(visitor: Client, run: Run) -> None:
    for path in ("/", f"/runs/{run.number}/", "/login/"):
        response = browser().get(path) if path == "/login/" else visitor.get(path)
        assert not re.search(r'(src|href)="(https?:)?//', html(response))
        assert "default-src 'none'" in response["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["ui/htmx/htmx.min.js", "ui/shepherd.js", "ui/shepherd.css", "ui/crook.svg"])
def test_what_pages_load_is_served(asha: User, path: str) -> None:
    with closing(browser().get(f"/static/{path}")) as response:
        assert response.status_code == 200


def test_a_part_that_has_not_changed_is_not_sent_again(visitor: Client, run: Run) -> None:
    address = polled(html(visitor.get(f"/runs/{run.number}/")))

    unchanged = visitor.get(address, headers=HTMX)
    Run.objects.filter(pk=run.pk).update(status="running", started_at=NOW)
    changed = visitor.get(address, headers=HTMX)

    assert unchanged.status_code == 204
    assert "The Task Publisher is about to publish &#x27;sentinel&#x27;." in html(changed)
    assert "<html" not in html(changed)


def test_a_run_that_has_ended_is_not_asked_for_any_more(visitor: Client, run: Run) -> None:
    address = polled(html(visitor.get(f"/runs/{run.number}/")))
    failed(run)

    page = html(visitor.get(address, headers=HTMX))

    assert "hx-get" not in page
    assert "hx-get" not in html(visitor.get(f"/runs/{run.number}/log/"))


def test_a_log_grows_from_where_it_was(visitor: Client, run: Run) -> None:
    attempt = failed(run)
    Run.objects.filter(pk=run.pk).update(status="running")
    first = LogLine.objects.create(attempt=attempt, n=1, at=NOW, level="INFO", text="first")
    address = f"/runs/{run.number}/log/?after={first.number}"
    assert address in html(visitor.get(f"/runs/{run.number}/"))

    nothing = visitor.get(address)
    LogLine.objects.create(attempt=attempt, n=2, at=NOW, level="INFO", text="second")
    more = html(visitor.get(address))

    assert nothing.status_code == 204
    assert "second" in more
    assert "first" not in more


@pytest.mark.parametrize("path", ["/runs/999/", f"/runs/{'9' * 30}/", "/runs/999/log/", "/nowhere/"])
def test_what_does_not_exist_is_not_found(visitor: Client, path: str) -> None:
    response = visitor.get(path)

    assert response.status_code == 404
    assert b"Not found" in response.content


def test_the_admin_shows_runs_and_changes_none(visitor: Client, asha: User, run: Run) -> None:
    User.objects.filter(pk=asha.pk).update(is_staff=True, is_superuser=True)
    task = Task.objects.first()
    assert task
    keep_dead_message(source="shepherd.replies", reason="v: is 9", body=b"{}", now=NOW)
    dead = DeadMessage.objects.get()
    shown = ("run", run.number), ("task", task.number), ("deadmessage", dead.number)

    for path in [*(f"{kind}/{number}/change/" for kind, number in shown), *(f"{kind}/" for kind, _ in shown)]:
        assert visitor.get(f"/admin/pipelines/{path}").status_code == 200
    for path in ("workerseen/", "offer/"):
        assert visitor.get(f"/admin/pipelines/{path}").status_code == 200
    assert visitor.post(f"/admin/pipelines/run/{run.number}/change/", {"status": "failed"}).status_code == 403
    assert visitor.post(f"/admin/pipelines/run/{run.number}/delete/", {"post": "yes"}).status_code == 403
    assert visitor.get("/admin/pipelines/run/add/").status_code == 403


def test_a_token_made_in_the_admin_is_shown_once_and_works(visitor: Client, asha: User) -> None:
    User.objects.filter(pk=asha.pk).update(is_staff=True, is_superuser=True)

    made = visitor.post("/admin/pipelines/apitoken/add/", {"user": asha.pk, "name": "laptop"}, follow=True)

    found = re.search(r"shp_[\w-]+", html(made))
    assert found
    assert user_of(found[0]) == asha
    assert ApiToken.objects.get().name == "laptop"
    assert "shp_" not in html(visitor.get("/admin/pipelines/apitoken/"))


def test_a_token_made_on_the_command_line_works(asha: User, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("create_token", "asha")

    assert user_of(capsys.readouterr().out.strip()) == asha

"""Data cards, samples and pauses on a run's page."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from shepherd.domain.pipeline import parse_pipeline
from shepherd.pipelines import services
from shepherd.pipelines.models import Pause, Run, Task
from shepherd.wire.value import ClaimCheck
from tests.support.web import NOW, browser, pipeline

SCRIPT = "<script>alert('x')</script>"
CARD = {
    "kind": "table",
    "rows": 3367760,
    "column_count": 2,
    "columns": [
        {"name": SCRIPT, "type": "string", "nulls": 12, "min": "a", "max": "z"},
        {"name": "seats", "type": "int64", "nulls": 0, "min": 2, "max": 450},
    ],
    "first": [["a", 149], [None, 2]],
    "change": {"rows_in": 4, "rows_out": 3, "added": ["route"], "removed": ["dest"], "retyped": []},
}


@pytest.fixture
def visitor(asha: User) -> Client:
    client = browser()
    client.force_login(asha)
    return client


def _run(asha: User, *, card: Any = CARD, media_type: str = "application/vnd.apache.parquet", **changes: Any) -> Run:
    asked = pipeline("scrape", data_url="https://example.org/a.csv", **changes)
    run = services.accept(parse_pipeline(asked), by=asha, now=NOW).run
    claim = ClaimCheck(uri="file:///s/1", sha256="0" * 64, size=3, media_type=media_type)
    Task.objects.filter(run=run).update(status="succeeded", result=claim.to_wire(), card=card)
    Run.objects.filter(number=run.number).update(status="succeeded", finished_at=NOW)
    return run


def _card(visitor: Client, run: Run) -> str:
    answer = visitor.get(f"/runs/{run.number}/tasks/1/card/")
    assert answer.status_code == 200
    return answer.content.decode()


def test_a_table_is_shown_with_its_columns_rows_change_and_downloads(visitor: Client, asha: User) -> None:
    text = _card(visitor, _run(asha))

    for shown in ("3,367,760", "rows 4 → 3", "+ route", "dest", "?format=xlsx", "int64", "450"):
        assert shown in text
    assert SCRIPT not in text


def test_an_image_is_drawn_and_what_could_hold_a_script_is_not(visitor: Client, asha: User) -> None:
    size = {"kind": "image", "size": 3, "width": 40, "height": 30}
    png = _card(visitor, _run(asha, card={**size, "media_type": "image/png"}))
    svg = _card(visitor, _run(asha, card={**size, "media_type": "image/svg+xml"}))

    assert "40 &times; 30" in png
    assert "<img" in png
    assert "<img" not in svg


def test_what_could_not_be_counted_is_not_shown_as_a_number(visitor: Client, asha: User) -> None:
    folder = _card(visitor, _run(asha, card={"kind": "folder", "files": [{"name": "a.txt", "size": 3}]}))
    number = _card(visitor, _run(asha, card={"kind": "json", "type": "number", "first": "7"}))

    assert "Too many files" in folder
    assert "dict_items" not in folder + number
    assert '<p class="data__size">number</p>' in number


def test_each_of_several_values_has_its_links(visitor: Client, asha: User) -> None:
    files = [
        {"name": "late", "size": 3, "media_type": "application/vnd.apache.parquet"},
        {"name": "a/b~c&<"},
        {"name": "more", "items": 2},
    ]

    text = _card(visitor, _run(asha, card={"kind": "values", "items": 3, "files": files}))

    assert 'data?part=%2Flate&amp;format=xlsx"' in text
    assert 'data?part=%2Fa~1b~0c%26%3C"' in text
    assert "part=%2Fmore" not in text
    assert "2 parts" in text


def test_a_run_page_fetches_the_card_of_what_lies_in_the_store(visitor: Client, asha: User) -> None:
    run = _run(asha)
    task = Task.objects.get(run=run)

    page = visitor.get(f"/runs/{run.number}/").content.decode()

    assert f"/runs/{run.number}/tasks/{task.id}/card/" in page
    assert visitor.get(f"/runs/{run.number}/tasks/9/card/").status_code == 404


def test_a_pipeline_is_tried_on_first_rows_and_then_run_on_all(visitor: Client, asha: User) -> None:
    run = _run(asha)
    once = {"once": "a"}

    sample = visitor.post(f"/runs/{run.number}/rerun/", {**once, "sample_rows": "1000"})["Location"]
    whole = visitor.post(f"{sample}rerun/", {**once, "sample_rows": "0"})["Location"]

    rows = {f"/runs/{made.number}/": made.sample_rows for made in Run.objects.all()}
    assert (rows[sample], rows[whole]) == (1000, None)
    assert "sample: the first 1,000 rows" in visitor.get(sample).content.decode()


def test_a_project_is_paused_and_its_runs_started_again(visitor: Client, asha: User) -> None:
    run = _run(asha)

    visitor.post(f"/runs/{run.number}/pause/")
    assert [pause.by for pause in Pause.objects.filter(project="ids-drr")] == ["asha"]
    assert "Start its runs again" in visitor.get(f"/runs/{run.number}/").content.decode()
    visitor.post(f"/runs/{run.number}/unpause/")

    assert not Pause.objects.exists()

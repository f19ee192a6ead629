"""Row 38: a secret that tasks print, log, raise and return is nowhere in what Shepherd keeps, sends or shows."""

import base64
import json
import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.faults.projects.plain.workers import _leaks
from tests.support.faults.system import FaultSystem, fault_system
from tests.support.faults.thoroughness import is_full

#: Nobody writes this by chance; it has what JSON, `repr`, HTML and addresses escape.
CANARY = 'c4nary"ünd<9f2c41>%+s\\ecret'
_ENDS = {"returns nothing": ""} | dict.fromkeys(_leaks.WAYS_OUT, "secret_in_result")
_ENDS |= {"returns nothing": "", "raises": "runtime_error", "raises with it as code": "runtime_error"}
_ENDS |= {"crashes": "worker_crashed"}
#: What stands wherever the canary stands, in any of its forms.
_TRACES = [
    *(CANARY.encode(encoding) for encoding in ("utf-8", "utf-16-le", "utf-16-be")),
    *(json.dumps(CANARY, ensure_ascii=is_ascii)[1:-1].encode() for is_ascii in (True, False)),
    b"c4nary",
    b"9f2c41",
    quote(CANARY, safe="").encode(),
    CANARY.encode().hex().encode(),
    base64.b64encode(f"user:{CANARY}".encode())[8:-8],
    base64.b64encode(CANARY.encode())[4:-4],
]


@pytest.fixture(scope="module", params=["sqlite", "postgres"] if is_full() else ["sqlite"])
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultSystem]:
    folder = tmp_path_factory.mktemp("secrets")
    with fault_system(folder, is_postgres=request.param == "postgres", workers=0, has_prefect=True) as ours:
        ours.start_worker("worker-1", environ={"SHEPHERD_TASK_SECRET_CANARY": CANARY})
        ours.wait_serving("worker-1")
        yield ours


def test_a_secret_is_nowhere_whatever_the_task_does_with_it(system: FaultSystem, tmp_path: Path) -> None:
    context = {"key": {"$secret": "CANARY"}, "folder": str(tmp_path)}
    runs = {how: system.post(("leak", {**context, "how": how})) for how in _leaks.WAYS_OUT}
    led = {how: system.post(("led_leak", {**context, "how": how}), project="led") for how in ("raises", "returns it")}
    missing = system.post(("leak", {**context, "key": {"$secret": "NOT_THERE"}, "how": "raises"}))

    ended = {how: system.wait_status(run, "succeeded", "failed") for how, run in runs.items()}
    for run in (*led.values(), missing):
        system.wait_status(run, "failed")
    for how in runs:
        system.injected.note(f"a secret, {how}", may_repeat=False)
    places, searched = _search(system, [*runs.values(), *led.values(), missing])

    assert {how: _code(run) for how, run in ended.items()} == _ENDS
    said = system.run(missing)["tasks"][0]["error"]
    assert (said["code"], "NOT_THERE" in said["message"]) == ("secret_missing", True)
    logged = json.dumps(system.system.get(f"/runs/{runs['returns nothing']['number']}/logs", limit=200))
    assert logged.count("[secret CANARY]") >= 12, logged
    assert places == []
    system.conclude(
        "38",
        "a secret returned, raised, printed, logged, in repr",
        more=f"{searched} outputs searched, found in {len(places)}",
    )


def _code(run: dict[str, Any]) -> str:
    error = run["tasks"][0]["error"]
    return error["code"] if error else ""


def _search(ours: FaultSystem, runs: list[dict[str, Any]]) -> tuple[list[str], int]:
    """Return where the canary was found, and how many files and answers were searched."""
    found, count = [], 0
    folders = [ours.system.config.home, *([ours.postgres.folder] if ours.postgres is not None else [])]
    for file in (file for folder in folders for file in folder.rglob("*") if file.is_file()):
        count += 1
        found += [f"{file}: {trace!r}" for trace in _TRACES if _holds(file, trace)]
    for address, content in _answers(ours, runs):
        count += 1
        found += [f"{address}: {trace!r}" for trace in _TRACES if trace in content]
    return found, count


def _holds(file: Path, trace: bytes) -> bool:
    with file.open("rb") as content:
        if not file.stat().st_size:
            return False
        with mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return mapped.find(trace) >= 0


def _answers(ours: FaultSystem, runs: list[dict[str, Any]]) -> Iterator[tuple[str, bytes]]:
    """Yield what the API, the pages and Prefect's API say."""
    with httpx.Client(
        base_url=ours.system.config.page_url, follow_redirects=True, trust_env=False, timeout=30
    ) as browser:
        _log_in(browser, ours)
        pages = [f"/runs/{run['number']}" for run in runs]
        api = [f"/api/v1/runs/{run['number']}{part}" for run in runs for part in ("", "/logs", "/tasks/1/card")]
        for address in ["/", "/runs", *pages, *api, "/api/v1/runs", "/api/v1/catalogue", "/transformer/pipe_list"]:
            yield address, browser.get(address).content
        prefect = ours.system.environ["PREFECT_API_URL"]
        for kind in ("flow_runs", "task_runs", "logs", "artifacts"):
            answer = browser.post(f"{prefect}/{kind}/filter", json={"limit": 200})
            assert answer.is_success, answer.text
            yield f"Prefect's {kind}", answer.content


def _log_in(browser: httpx.Client, ours: FaultSystem) -> None:
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', browser.get("/login/").text)
    assert token is not None
    form = {
        "csrfmiddlewaretoken": token[1],
        "username": ours.system.credentials.username,
        "password": ours.system.credentials.password,
    }
    assert "logout" in browser.post("/login/", data=form).text

"""Rows 39 and 40: addresses that lead where nobody may go, and names that mean more than they say."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import hostile_names
from tests.support.faults.checker import Findings
from tests.support.faults.report import report
from tests.support.faults.system import FaultSystem, body
from tests.support.folders import ROOT

_LONG = "x" * 4096
#: What stands in contexts, run names and addresses.
_ODD = [
    "../../etc/passwd",
    "/etc/passwd",
    "..\\..\\x",
    "a\0b",
    _LONG,
    "%2e%2e%2f",
    "$(id)",
    "'; --",
    "<script>",
    "\u202e",
]
_KEY: Any = re.compile(r"[A-Za-z0-9_.-]+")


def test_no_address_leads_where_nobody_may_go(faulty: FaultSystem, tmp_path: Path) -> None:
    command = ["unshare", "--net", "--mount", sys.executable, "-m", "tests.support.hostile_names", str(tmp_path)]
    environ = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    # With this machine's address allowed, as tests need it, all others are refused all the same.
    answers = {url: _submit(faulty, data_url=url) for url in hostile_names.URLS.values() if ".test" not in url}

    got = {what: outcome for what, (outcome, _) in said["fetched"].items()}
    refused = {what: got[what] for what in hostile_names.URLS}
    assert set(refused.values()) == {"address_refused", "invalid_input"}, refused
    assert {got[what] for what in hostile_names.GOOD} == {"fetched"}
    assert said["private requests"] == 0
    assert said["asked"]["changes.test"] >= 4
    for url, answer in answers.items():
        assert answer.status_code == 422, url
        assert [fault["path"] for fault in answer.json()["error"]["faults"]] == ["data_url"]
    report(
        "39",
        "addresses that aren't public, names that change theirs, redirects, file:, gopher:",
        injected=len(refused) + len(answers),
        found=Findings(),
        more=f"fetched {sum(each == 'fetched' for each in refused.values())}, requests to private servers 0",
    )


def test_names_that_mean_more_than_they_say_are_refused_or_harmless(faulty: FaultSystem) -> None:
    named = {name: _submit(faulty, pipeline_name=name) for name in _ODD}
    projects = [_submit(faulty, project=name).status_code for name in _ODD]
    secrets = [_submit(faulty, context={"a": {"$secret": name}}).status_code for name in _ODD]
    results = [_submit(faulty, context={"a": {"$result": "step", "pointer": name}}).status_code for name in _ODD]
    contexts = [faulty.post(("step", {"n": 1, "path": name, "list": [{name: name}]})) for name in _ODD]
    paths = {how: faulty.post(("name_file", {"how": how}), ("name_file", {"how": "of dots"})) for how in _PATHS}
    asked = [faulty.system.api.get(f"/runs/{part}").status_code for part in _ADDRESSES]
    for _ in range(5 * len(_ODD) + len(_PATHS) + len(_ADDRESSES)):
        faulty.injected.note("an odd name", may_repeat=False)

    assert {name for name, answer in named.items() if answer.status_code == 422} == {"a\0b", _LONG}
    assert set(projects + secrets + results) == {422}
    assert all(400 <= status < 500 for status in asked), asked
    for run, name in zip(contexts, _ODD, strict=True):
        faulty.wait_status(run, "succeeded")
        [execution] = faulty.executions(run)
        assert execution.context["path"] == name
    ended = {how: faulty.wait_status(run, "succeeded", "failed") for how, run in paths.items()}
    assert {how: run["status"] for how, run in ended.items()} == _PATHS
    assert [key for key in _keys(faulty) if not all(map(_KEY.fullmatch, key.split("/")))] == []
    assert not _is_kept(faulty, Path("/etc/passwd").read_bytes()[:200])
    faulty.conclude("40", "names with '..', absolute, links, NUL, 4,096 characters")


#: How a run ends whose first task returns such a path.
_PATHS = {
    "of dots": "succeeded",
    "escaped dots": "succeeded",
    "of control characters": "succeeded",
    "of 255 bytes": "succeeded",
    "a link": "succeeded",
    "a link to nothing": "failed",
    "a folder of links": "failed",
    "with NUL": "failed",
    "of 4,096 characters": "failed",
    "absolute, of nothing": "failed",
}
_ADDRESSES = [
    "..%2f..%2fetc%2fpasswd",
    "%2fetc%2fpasswd",
    "a%00b",
    _LONG,
    "1/tasks/..%2f..%2f1/data",
    "1/tasks/x%00/card",
]


def _submit(ours: FaultSystem, *, context: dict[str, Any] | None = None, **changes: Any) -> httpx.Response:
    answer = ours.system.api.post("/runs", json={**body(("step", context or {})), **changes})
    if answer.is_success:
        ours.accepted.append(answer.json()["id"])
    return answer


def _keys(ours: FaultSystem) -> list[str]:
    store = ours.system.config.home / "store"
    return [str(file.relative_to(store)) for file in store.rglob("*") if file.is_file()]


def _is_kept(ours: FaultSystem, content: bytes) -> bool:
    store = ours.system.config.home / "store"
    return any(content in file.read_bytes() for file in store.rglob("*") if file.is_file())


pytestmark = pytest.mark.timeout(300)

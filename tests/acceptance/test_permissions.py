"""A whole system in which nobody may do more on the broker than the documents say."""

from pathlib import Path

from tests.acceptance.trial import PROJECTS, body
from tests.support.broker import broker_node_running
from tests.support.deployment import set_up
from tests.support.folders import ROOT
from tests.support.system import started


def test_a_task_publisher_and_a_worker_with_their_own_users_run_a_pipeline(tmp_path: Path) -> None:
    with broker_node_running() as node:
        urls = set_up(node)
        assert urls is not None
        environ = {"SHEPHERD_BROKER_URL": urls.publisher, "SHEPHERD_PREFECT": "off"}
        with started(projects=PROJECTS, environ=environ, but=("worker-trial-trial",)) as system:
            own = {
                "SHEPHERD_BROKER_URL": urls.worker,
                "TRIAL_LEDGER": str(tmp_path / "ledger"),
                "TRIAL_TRANSFORMATIONS": str(ROOT / "projects" / "generic_transformations"),
            }
            system.start_worker("narrow", PROJECTS / "trial" / "workers" / "trial.py", environ=own)
            # Before and after a worker takes an attempt over from the broker: it may do both.
            run = system.post(body(("nap", {}), ("nap", {"seconds": 2}), ("nap", {})))

            ended = system.wait_ended(run["id"])

        assert ended["status"] == "succeeded", ended
        users = {line.split("\t")[0] for line in node.ctl("list_permissions", "-p", "shepherd").splitlines()[1:]}
    assert users == {"shepherd-publisher", "shepherd-worker", "shepherd-web"}

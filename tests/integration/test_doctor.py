"""What the doctor finds on real brokers, and how it would mend it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import call_command
from django.test import override_settings

from shepherd.broker import connect
from shepherd.broker.port import QueueSpec
from shepherd.broker.topology import EXCHANGES, REPLIES, STANDING_QUEUES, task_queue, task_queue_spec
from shepherd.pipelines.names_in_use import names_in_use
from shepherd.site.config import ServerConfig
from shepherd.site.doctor.ctl import RabbitmqctlFacts
from shepherd.site.doctor.examination import Found, examine, exit_status
from shepherd.site.doctor.facts import BrokerFacts, FactsUnavailableError
from shepherd.site.doctor.finding import Level
from shepherd.site.doctor.management import ManagementFacts
from shepherd.site.doctor.situation import Situation, look
from shepherd.site.local.broker_node import BrokerNode
from tests.support.broker import broker_node_running
from tests.support.engine import Engine, manifest
from tests.support.ports import free_port
from tests.support.waiting import wait_until

#: What the doctor may say of a node that no Task Publisher serves, and where no Prefect runs.
_NOT_OF_THE_BROKER = {"task publisher", "prefect"}


@pytest.fixture
def config(sqlite_database: str, tmp_path: Path) -> ServerConfig:
    return replace(settings.SHEPHERD, store_url=tmp_path.as_uri(), broker_ctl="off")


@pytest.fixture(scope="module")
def neglected_node() -> Iterator[BrokerNode]:
    """A node that anybody reaches, with RabbitMQ's default timeout and without a policy."""
    public = {"listeners.tcp.2": f"0.0.0.0:{free_port()}", "consumer_timeout": "1800000"}
    with broker_node_running(config=public) as node:
        node.ctl("clear_policy", "shepherd-tasks")
        _declare(node.url, QueueSpec(name=task_queue("forgotten"), arguments=task_queue_spec("x").arguments))
        yield node


def _declare(url: str, *queues: QueueSpec) -> None:
    broker = connect(url, name="test")
    try:
        assert broker.wait_connected(timeout_s=20)
        broker.declare(exchanges=EXCHANGES, queues=[*STANDING_QUEUES, *queues])
    finally:
        broker.close()


def of(node: BrokerNode, config: ServerConfig) -> ServerConfig:
    return replace(config, broker_url=node.url, broker_ctl=str(node.ctl_file))


def without_broker(config: ServerConfig) -> list[Found]:
    """Examine what has nothing to do with a broker, without waiting for one."""
    return examine(
        Situation(
            config=config,
            at=datetime.now(UTC),
            server=None,
            trouble="nobody asked",
            comparisons=(),
            facts=None,
            blind="nobody asked",
            names=names_in_use(),
        )
    )


def told(found: list[Found], check: str) -> str:
    return "\n".join(
        f"{each.finding.level} {each.finding.what} {each.finding.why} {each.finding.remedy}"
        for each in found
        if each.check == check
    )


def levels(found: list[Found]) -> dict[str, Level]:
    """The level of each check that isn't content."""
    return {each.check: each.finding.level for each in found if each.finding.level is not Level.OK}


def test_each_fault_of_a_neglected_broker_is_named_with_a_remedy_that_mends_it(
    neglected_node: BrokerNode, config: ServerConfig
) -> None:
    found = examine(look(of(neglected_node, config)))

    assert levels(found).keys() - _NOT_OF_THE_BROKER == {"consumer_timeout", "guest", "orphans", "policies"}
    assert "consumer_timeout is 30 min" in told(found, "consumer_timeout")
    assert "`consumer_timeout = 10800000`" in told(found, "consumer_timeout")
    assert "0.0.0.0" in told(found, "guest")
    assert "delete_user guest" in told(found, "guest")
    assert f"delete_queue {task_queue('forgotten')} -p /" in told(found, "orphans")
    assert "set_policy -p / --apply-to queues shepherd-tasks" in told(found, "policies")

    # Each as a person would copy it, without what is said beside it; but guest is who the test logs in as.
    remedies = {each.check: each.finding.remedy for each in found if each.finding.level is Level.WARNING}
    mends = [
        remedies["orphans"].removesuffix(", when you are sure"),
        remedies["policies"],
        remedies["consumer_timeout"].partition("until then: ")[2],
    ]
    for mend in mends:
        assert mend.startswith(str(neglected_node.ctl_file))
        subprocess.run(mend, shell=True, check=True, capture_output=True)

    after = examine(look(of(neglected_node, config)))
    assert levels(after).keys() - _NOT_OF_THE_BROKER == {"guest"}


def test_a_guest_that_may_come_from_anywhere_is_an_error(neglected_node: BrokerNode, config: ServerConfig) -> None:
    neglected_node.ctl("eval", "application:set_env(rabbit, loopback_users, []).")

    found = examine(look(of(neglected_node, config)))
    neglected_node.ctl("eval", 'application:set_env(rabbit, loopback_users, [<<"guest">>]).')

    assert levels(found)["guest"] is Level.ERROR


def test_what_stalls_work_ends_with_1(own_broker_node: BrokerNode, config: ServerConfig) -> None:
    odd = QueueSpec(name=task_queue("odd"), arguments={"x-queue-type": "classic"})
    _declare(own_broker_node.url, odd)
    try:
        own_broker_node.ctl("set_vm_memory_high_watermark", "0.000001")
        own_broker_node.ctl("set_policy", "ttl", "^shepherd", '{"message-ttl":1000}', "--priority", "9")
        own_broker_node.ctl("eval", "application:set_env(rabbit, max_message_size, 1000).")
        facts = RabbitmqctlFacts([str(own_broker_node.ctl_file)])
        wait_until(lambda: facts.read(vhost="/").alarms, timeout_s=20, what="the alarm")

        found = examine(look(of(own_broker_node, config)))
    finally:
        own_broker_node.ctl("set_vm_memory_high_watermark", "absolute", "1GB")
        # There may be none yet, which `clear_policy` refuses.
        own_broker_node.ctl("set_policy", "ttl", "^none$", '{"message-ttl":1000}')
        own_broker_node.ctl("clear_policy", "ttl")
        own_broker_node.ctl("eval", "application:set_env(rabbit, max_message_size, 134217728).")
        own_broker_node.ctl("delete_queue", odd.name)

    broken = {"alarms", "arguments", "policies", "message size", "task publisher"}
    assert {check for check, level in levels(found).items() if level is Level.ERROR} == broken
    assert exit_status(found) == 1
    assert "memory on" in told(found, "alarms")
    assert "x-queue-type is 'classic', not 'quorum'" in told(found, "arguments")
    assert "clear_policy -p / ttl" in told(found, "policies")


def test_a_standing_queue_with_other_arguments_is_named_with_the_argument(
    own_broker_node: BrokerNode, config: ServerConfig
) -> None:
    own_broker_node.ctl("add_vhost", "odd")
    own_broker_node.ctl("set_permissions", "-p", "odd", "guest", ".*", ".*", ".*")
    elsewhere = replace(of(own_broker_node, config), broker_url=f"{own_broker_node.url}odd")
    broker = connect(elsewhere.broker_url, name="test")
    assert broker.wait_connected(timeout_s=20)
    broker.declare(exchanges=EXCHANGES, queues=[QueueSpec(name=REPLIES, arguments={"x-queue-type": "classic"})])
    broker.close()

    found = examine(look(elsewhere))

    assert levels(found)["declared"] is Level.ERROR
    assert "x-queue-type" in told(found, "declared")
    assert f"delete_queue {REPLIES} -p odd" in told(found, "declared")


def test_a_user_without_its_permissions_is_told_what_it_lacks(
    own_broker_node: BrokerNode, config: ServerConfig
) -> None:
    _declare(own_broker_node.url)
    own_broker_node.ctl("add_user", "narrow", "secret")
    own_broker_node.ctl("set_permissions", "narrow", "^$", "^shepherd", ".*")
    url = own_broker_node.url.replace("guest:guest", "narrow:secret")

    found = examine(look(replace(of(own_broker_node, config), broker_url=url)))
    own_broker_node.ctl("delete_user", "narrow")

    assert levels(found)["declared"] is Level.ERROR
    assert "'narrow' may not declare 'shepherd.replies'" in told(found, "declared")
    assert "no configure permission for 'shepherd.replies'" in told(found, "permissions")
    assert "no write permission for 'amq.default'" in told(found, "permissions")
    assert "set_permissions -p / narrow" in told(found, "permissions")
    assert "'guest' may declare and delete the queues of tasks" in told(found, "permissions")


def test_a_wrong_password_and_a_missing_broker_are_told_apart(
    own_broker_node: BrokerNode, config: ServerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shepherd.site.doctor.situation._CONNECT_S", 2.0)
    wrong = replace(config, broker_url=own_broker_node.url.replace("guest:guest", "guest:wrong"))
    nobody = replace(config, broker_url=f"amqp://guest:guest@127.0.0.1:{free_port()}/")

    refused, missing = examine(look(wrong)), examine(look(nobody))

    assert "ACCESS_REFUSED" in told(refused, "broker")
    assert "ACCESS_REFUSED" not in told(missing, "broker")
    assert exit_status(refused) == exit_status(missing) == 1
    assert levels(missing)["version"] is Level.UNSEEN


def test_without_a_look_behind_amqp_it_says_what_it_did_not_see_and_how_to(
    own_broker_node: BrokerNode, config: ServerConfig
) -> None:
    _declare(own_broker_node.url)

    found = examine(look(replace(config, broker_url=own_broker_node.url)))

    assert levels(found)["alarms"] is Level.UNSEEN
    assert "SHEPHERD_BROKER_CTL=" in told(found, "alarms")
    assert "SHEPHERD_BROKER_MANAGEMENT_URL=" in told(found, "alarms")
    assert "declared" not in levels(found)


def test_a_rabbitmqctl_of_another_broker_is_not_believed(
    own_broker_node: BrokerNode, neglected_node: BrokerNode, config: ServerConfig
) -> None:
    crossed = replace(config, broker_url=own_broker_node.url, broker_ctl=str(neglected_node.ctl_file))

    found = examine(look(crossed))

    assert levels(found)["consumer_timeout"] is Level.UNSEEN
    assert "speaks of the broker" in told(found, "consumer_timeout")


def test_the_management_api_tells_the_same_but_for_the_configuration(config: ServerConfig) -> None:
    port = free_port()
    node_config = {"management.tcp.port": str(port), "management.tcp.ip": "127.0.0.1"}
    url = f"http://guest:guest@127.0.0.1:{port}"
    with broker_node_running(config=node_config, plugins=["rabbitmq_management"]) as node:
        _declare(node.url, task_queue_spec("one"))
        by_ctl = RabbitmqctlFacts([str(node.ctl_file)]).read(vhost="/")
        # It tells a node's statistics some seconds after its start.
        wait_until(lambda: _has_told_all(ManagementFacts(url), by_ctl), timeout_s=30, what="its statistics")
        by_api = ManagementFacts(url).read(vhost="/")
        found = examine(look(replace(config, broker_url=node.url, broker_management_url=url)))

    assert by_api.limits is None
    assert by_api.clock_ahead_s is not None
    assert abs(by_api.clock_ahead_s) < 2
    bare = replace(by_ctl, queues=(), listeners=(), limits=None, clock_ahead_s=None)
    assert replace(by_api, queues=(), listeners=(), clock_ahead_s=None) == bare
    assert {each.name: each.arguments for each in by_api.queues} == {q.name: q.arguments for q in by_ctl.queues}
    assert {(each.protocol, each.port) for each in by_ctl.listeners} == {
        (each.protocol, each.port) for each in by_api.listeners
    }
    assert levels(found)["consumer_timeout"] is Level.UNSEEN
    assert "alarms" not in levels(found)


def _has_told_all(source: ManagementFacts, wanted: BrokerFacts) -> bool:
    facts = source.read(vhost="/")
    return len(facts.queues) == len(wanted.queues) and facts.nodes == wanted.nodes


def test_a_management_api_that_does_not_answer_says_why() -> None:
    with pytest.raises(FactsUnavailableError, match="refused"):
        ManagementFacts(f"http://guest:guest@127.0.0.1:{free_port()}").read(vhost="/")


def test_a_task_that_no_worker_serves_is_a_warning_that_names_it(config: ServerConfig) -> None:
    engine = Engine()
    engine.accept("forgotten")
    engine.accept("served")
    engine.relay.start()
    engine.hear(manifest("served", free_slots=1))

    found = without_broker(config)

    assert levels(found)["workers"] is Level.WARNING
    assert "'forgotten'" in told(found, "workers")
    assert "'served'" not in told(found, "workers")


def test_a_project_that_cannot_be_used_is_an_error_that_says_why(config: ServerConfig, tmp_path: Path) -> None:
    for name in ("ids_drr", "ids-drr", "other"):
        (tmp_path / name / "workers").mkdir(parents=True)
    (tmp_path / "other" / "project.toml").write_text("[tasks]\nscrape = 1\n")

    found = without_broker(replace(config, projects_folder=tmp_path))

    assert levels(found)["projects"] is Level.ERROR
    assert "are both the project 'ids-drr'" in told(found, "projects")
    assert "other/project.toml: tasks.scrape must be a table" in told(found, "projects")


def test_a_store_that_can_not_be_written_is_an_error(
    own_broker_node: BrokerNode, config: ServerConfig, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("")

    found = examine(look(replace(of(own_broker_node, config), store_url=(file / "store").as_uri())))

    assert levels(found)["store"] is Level.ERROR


def test_an_unmigrated_database_is_an_error_with_its_command(own_broker_node: BrokerNode, tmp_path: Path) -> None:
    environ = {
        "PATH": "/usr/bin:/bin",
        "SHEPHERD_ENV_FILE": "",
        "SHEPHERD_BROKER_URL": own_broker_node.url,
        "SHEPHERD_DATABASE_URL": f"sqlite:///{tmp_path / 'new.sqlite3'}",
        "SHEPHERD_STORE": tmp_path.as_uri(),
    }

    done = subprocess.run(
        [sys.executable, "manage.py", "doctor", "--json"], env=environ, capture_output=True, text=True, check=False
    )

    found = {row["check"]: row for row in json.loads(done.stdout)["findings"]}
    assert done.returncode == 1
    assert found["database"]["level"] == "error"
    assert found["database"]["remedy"] == "python manage.py migrate"


def test_the_command_prints_for_people_and_for_programs(own_broker_node: BrokerNode, config: ServerConfig) -> None:
    _declare(own_broker_node.url)
    texts = {}
    for options in ([], ["--json"]):
        out = StringIO()
        with override_settings(SHEPHERD=of(own_broker_node, config)), pytest.raises(SystemExit) as end:
            call_command("doctor", *options, stdout=out)
        assert end.value.code == 1
        texts[bool(options)] = out.getvalue()

    assert "error    task publisher: no Task Publisher takes replies" in texts[False]
    assert "mend: " in texts[False]
    assert json.loads(texts[True])["levels"]["error"] == 1

"""What the checks make of situations that a private node doesn't get into."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shepherd.broker.policies import TASKS_POLICY
from shepherd.broker.port import ServerInfo
from shepherd.broker.topology import TASK_QUEUE_ARGUMENTS, task_queue
from shepherd.pipelines.names_in_use import NamesInUse
from shepherd.site.config import ServerConfig
from shepherd.site.doctor.checks import access, broker, queues, server
from shepherd.site.doctor.examination import CHECKS
from shepherd.site.doctor.facts import BrokerFacts, Grant, Limits, Node, Policy, Queue
from shepherd.site.doctor.finding import Finding, Level
from shepherd.site.doctor.situation import Situation, is_loopback

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
FACTS = BrokerFacts(
    cluster="rabbit@node-1",
    nodes=tuple(Node(name=f"rabbit@node-{number}", is_running=True, version="3.13.7") for number in (1, 2, 3)),
    alarms=(),
    partitioned=(),
    listeners=(),
    queues=(),
    limits=(
        Limits(node="rabbit@node-1", consumer_timeout_ms=None, max_message_size=2**27, restricts_guest=True),
        Limits(node="rabbit@node-2", consumer_timeout_ms=10_800_000, max_message_size=2**24, restricts_guest=True),
    ),
    disabled_flags=(),
    users=("shepherd",),
    grants=(Grant(user="shepherd", configure=".*", write=".*", read=".*"),),
    policies=(
        Policy(
            name=TASKS_POLICY.name,
            pattern=TASKS_POLICY.pattern,
            apply_to="queues",
            definition=TASKS_POLICY.definition,
            priority=0,
        ),
    ),
    clock_ahead_s=0.1,
)
SITUATION = Situation(
    config=ServerConfig.from_env({"SHEPHERD_BROKER_URL": "amqp://shepherd:secret@node-1/pipes"}, folder=Path("/x")),
    at=NOW,
    server=ServerInfo(product="RabbitMQ", version="3.13.7", cluster="rabbit@node-1"),
    trouble="",
    comparisons=(),
    facts=FACTS,
    blind="",
    names=NamesInUse(announced={}, awaited=frozenset()),
)
BROKER_CHECKS = [
    check for check in CHECKS if check.look.__module__.rpartition(".")[2] in {"broker", "queues", "access"}
]


def with_facts(**changes: object) -> Situation:
    return replace(SITUATION, facts=replace(FACTS, **changes))  # type: ignore[arg-type]


def worst(findings: object) -> Finding:
    return max(list(findings), key=lambda each: list(Level).index(each.level))  # type: ignore[call-overload,no-any-return]


def test_a_healthy_cluster_is_fine() -> None:
    content = [
        (check.name, finding)
        for check in BROKER_CHECKS
        if check.look is not broker.publisher
        for finding in check.look(SITUATION)
    ]

    assert [name for name, finding in content if finding.level is not Level.OK] == []
    assert all(finding.what for _, finding in content)


@pytest.mark.parametrize(
    ("down", "level"), [((), Level.OK), ((2,), Level.WARNING), ((1, 2), Level.ERROR)], ids=["none", "one", "two"]
)
def test_nodes_that_are_down_are_an_error_once_no_majority_is_left(down: tuple[int, ...], level: Level) -> None:
    nodes = tuple(replace(node, is_running=index not in down) for index, node in enumerate(FACTS.nodes))

    finding = worst(broker.nodes(with_facts(nodes=nodes)))

    assert finding.level is level
    assert all(FACTS.nodes[index].name in finding.what for index in down)


def test_a_cluster_of_two_is_warned_of() -> None:
    assert "two nodes" in worst(broker.nodes(with_facts(nodes=FACTS.nodes[:2]))).what


def test_a_partition_is_an_error() -> None:
    assert worst(broker.nodes(with_facts(partitioned=("rabbit@node-2",)))).level is Level.ERROR


@pytest.mark.parametrize(
    ("flags", "level"),
    [
        (("stream_queue",), Level.ERROR),
        (("user_limits",), Level.WARNING),
        (("khepri_db",), Level.OK),
        (None, Level.UNSEEN),
    ],
)
def test_feature_flags_that_are_off_block_dead_letters_or_upgrades(flags: tuple[str, ...] | None, level: Level) -> None:
    assert worst(broker.feature_flags(with_facts(disabled_flags=flags))).level is level


@pytest.mark.parametrize(
    ("version", "level"), [("3.9.29", Level.ERROR), ("3.10.0", Level.OK), ("4.1.0-rc.1", Level.OK)]
)
def test_a_broker_older_than_3_10_is_refused(version: str, level: Level) -> None:
    situation = replace(
        with_facts(nodes=()), server=ServerInfo(product="RabbitMQ", version=version, cluster="rabbit@node-1")
    )

    assert worst(broker.version(situation)).level is level


def test_nodes_of_different_versions_are_named() -> None:
    nodes = (FACTS.nodes[0], replace(FACTS.nodes[1], version="3.12.14"))

    assert "3.12.14, 3.13.7" in worst(broker.version(with_facts(nodes=nodes))).what


@pytest.mark.parametrize(
    ("timeout_ms", "level"),
    [(None, Level.OK), (10_800_000, Level.OK), (1_800_000, Level.WARNING), (59_000, Level.ERROR)],
)
def test_a_short_consumer_timeout_is_a_warning_and_a_very_short_one_an_error(
    timeout_ms: int | None, level: Level
) -> None:
    limits = tuple(replace(each, consumer_timeout_ms=timeout_ms) for each in FACTS.limits or ())

    assert worst(broker.consumer_timeout(with_facts(limits=limits))).level is level


def a_queue(name: str, *, state: str = "running", consumers: int = 0, members: int = 3) -> Queue:
    return Queue(
        name=name,
        arguments=TASK_QUEUE_ARGUMENTS,
        state=state,
        messages=0,
        consumers=consumers,
        members=tuple(node.name for node in FACTS.nodes[:members]),
    )


def test_a_queue_without_its_majority_is_an_error_and_one_with_few_copies_a_warning() -> None:
    minority = with_facts(queues=(a_queue(task_queue("a"), state="minority"),))
    alone = with_facts(queues=(a_queue(task_queue("a"), members=1),))

    assert worst(queues.states(minority)).level is Level.ERROR
    assert "rabbitmq-queues grow" in worst(queues.states(alone)).remedy


def test_a_queue_is_an_orphan_when_nobody_serves_awaits_or_lately_served_it() -> None:
    names = NamesInUse(
        announced={
            "lately": NOW - timedelta(days=1),
            "long_ago": NOW - timedelta(days=90),
            "long_ago_but_awaited": NOW - timedelta(days=90),
        },
        awaited=frozenset({"awaited", "long_ago_but_awaited"}),
    )
    found = (*names.announced, *names.awaited, "unknown")
    own = (*(a_queue(task_queue(name)) for name in found), a_queue("shepherd.replies"), a_queue("theirs"))
    served = a_queue(task_queue("unknown_but_served"), consumers=1)

    situation = replace(with_facts(queues=(*own, served, a_queue("shepherd.stuff"))), names=names)
    orphans = [finding.what.split("queue ")[1].split(",")[0].split(" is")[0] for finding in queues.orphans(situation)]

    assert sorted(orphans) == sorted(["shepherd.stuff", task_queue("long_ago"), task_queue("unknown")])


@pytest.mark.parametrize(
    ("pattern", "definition", "level"),
    [
        ("^shepherd", {"message-ttl": 1}, Level.ERROR),
        ("^shepherd.beats", {"expires": 1}, Level.ERROR),
        ("^shepherd.replies", {"max-length": 1}, Level.ERROR),
        ("^theirs", {"message-ttl": 1}, Level.OK),
        (r"^shepherd\.task\.", {"max-length": 5, "delivery-limit": 3}, Level.OK),
        (r"^shepherd\.task\.", {"delivery-limit": 3}, Level.WARNING),
    ],
)
def test_a_policy_that_loses_work_is_an_error(pattern: str, definition: dict[str, int], level: Level) -> None:
    policy = Policy(name="theirs", pattern=pattern, apply_to="all", definition=definition, priority=1)

    findings = queues.policies(with_facts(policies=(*(FACTS.policies or ()), policy)))

    assert worst(findings).level is level


def test_a_policy_of_lower_priority_does_not_count() -> None:
    policy = Policy(name="theirs", pattern="^shepherd.task", apply_to="all", definition={"expires": 1}, priority=-1)

    assert worst(queues.policies(with_facts(policies=(*(FACTS.policies or ()), policy)))).level is Level.OK


def test_a_worker_that_may_delete_queues_is_warned_of() -> None:
    grants = (*(FACTS.grants or ()), Grant(user="worker", configure=".*", write=".*", read=".*"))

    assert "'worker' may declare and delete" in worst(access.permissions(with_facts(grants=grants))).what


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("[::1]", True),
        ("localhost", True),
        ("[::]", False),
        ("0.0.0.0", False),
        ("node-1", False),
    ],
)
def test_loopback_is_told_from_what_others_reach(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_two_folders_that_are_the_same_project_are_named(tmp_path: Path) -> None:
    for name in ("ids_drr", "ids-drr", "other"):
        (tmp_path / name / "workers").mkdir(parents=True)
    situation = replace(SITUATION, config=replace(SITUATION.config, projects_folder=tmp_path))

    [finding] = server.projects(situation)

    assert finding.level is Level.ERROR
    assert f"{tmp_path / 'ids-drr'} and {tmp_path / 'ids_drr'} are both the project 'ids-drr'" in finding.what

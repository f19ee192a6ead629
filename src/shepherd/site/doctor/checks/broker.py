"""The broker as a whole: whether it answers, its version, its nodes, alarms and limits."""

import re
from collections.abc import Iterator
from typing import Final

from shepherd.broker.port import LARGEST_MESSAGE
from shepherd.broker.topology import REPLIES
from shepherd.site.doctor.facts import BrokerFacts, Limits
from shepherd.site.doctor.finding import Finding, error, ok, unseen, warning
from shepherd.site.doctor.situation import Situation, is_loopback

#: Older ones don't know at-least-once dead lettering: what was delivered too often would vanish.
_OLDEST: Final = (3, 10)
#: As the configuration under `deploy/rabbitmq/` sets it: three hours.
_CONSUMER_TIMEOUT_MS: Final = 10_800_000
#: RabbitMQ looks once a minute; below, a delivery could come back while it is being taken over.
_LEAST_CONSUMER_TIMEOUT_MS: Final = 60_000


def connection(situation: Situation) -> Iterator[Finding]:
    if situation.server is None:
        yield error(
            f"no connection to {situation.address} as {situation.user!r}: {situation.trouble}",
            why="runs are accepted and wait; nothing is published",
            remedy="mend SHEPHERD_BROKER_URL (user, password, virtual host), or start it: "
            "sudo systemctl start rabbitmq-server",
        )
        return
    yield ok(f"{situation.address} answers, virtual host {situation.vhost!r}")
    if situation.user == "guest" and not all(is_loopback(host) for host in situation.hosts):
        yield warning(
            "Shepherd logs in as 'guest' from another machine",
            why="everybody knows its password",
            remedy=f"sudo deploy/rabbitmq/setup.sh, then {situation.ctl} delete_user guest",
        )


def version(situation: Situation) -> Iterator[Finding]:
    server = situation.server
    assert server is not None
    numbers = tuple(int(part) for part in re.findall(r"\d+", server.version)[:2])
    if server.product == "RabbitMQ" and numbers < _OLDEST:
        yield error(
            f"RabbitMQ {server.version} is older than 3.10",
            why="it does not keep dead letters at least once: what was delivered too often would vanish",
            remedy="upgrade it, see docs/operations.md",
        )
        return
    found = {node.version for node in situation.facts.nodes if node.version} if situation.facts else set()
    if len(found) > 1:
        yield warning(
            f"the nodes have different versions: {', '.join(sorted(found))}",
            why="that is meant for the hours of an upgrade; what only the newer one knows stays switched off",
            remedy="upgrade the other nodes, see docs/operations.md",
        )
        return
    yield ok(f"{server.product} {server.version}, cluster {server.cluster}")


def publisher(situation: Situation) -> Iterator[Finding]:
    replies = next((each for each in situation.comparisons if each.name == REPLIES), None)
    if replies is not None and replies.consumers:
        yield ok(f"{replies.consumers} take replies, {replies.messages} wait")
        return
    yield error(
        f"no Task Publisher takes replies from {situation.address}",
        why="runs are accepted and wait; what workers have done is not recorded",
        remedy="systemctl start shepherd-task-publisher, or: python manage.py runscript worker_demon",
    )


def nodes(situation: Situation) -> Iterator[Finding]:
    facts = _facts(situation)
    down = [node.name for node in facts.nodes if not node.is_running]
    if facts.partitioned:
        yield error(
            f"nodes have lost sight of each other: {', '.join(facts.partitioned)}",
            why="each part goes on alone with what isn't replicated",
            remedy="restart the nodes of the smaller part: sudo systemctl restart rabbitmq-server",
        )
    if down:
        yield (error if 2 * len(down) >= len(facts.nodes) else warning)(
            f"{len(down)} of {len(facts.nodes)} nodes are not running: {', '.join(down)}",
            why="a queue works while most of its copies are up; what goes down next may be the majority",
            remedy="sudo systemctl start rabbitmq-server, there; one that is gone for good: "
            f"{situation.ctl} forget_cluster_node {down[0]}",
        )
    if len(facts.nodes) == 2:
        yield warning(
            "the cluster has two nodes",
            why="without one of them the other is no majority: two stand still as soon as one does",
            remedy="add a third node, see docs/operations.md",
        )
    if not facts.partitioned and not down:
        yield ok(f"all {len(facts.nodes)} run" if len(facts.nodes) > 1 else "one node, and it runs")


def alarms(situation: Situation) -> Iterator[Finding]:
    facts = _facts(situation)
    for alarm in facts.alarms:
        is_disk = alarm.startswith("disk")
        yield error(
            f"RabbitMQ has an alarm: {alarm}",
            why="it takes no messages until that is over: nothing is published, no reply arrives",
            remedy="make room on its disk: df -h /var/lib/rabbitmq"
            if is_disk
            else f"find what holds the memory: {situation.ctl.replace('rabbitmqctl', 'rabbitmq-diagnostics')} "
            "memory_breakdown; then give it more, as vm_memory_high_watermark",
        )
    if not facts.alarms:
        yield ok("none")


def consumer_timeout(situation: Situation) -> Iterator[Finding]:
    for limits in _limits(situation):
        told = limits.consumer_timeout_ms
        if told is None or told >= _CONSUMER_TIMEOUT_MS:
            yield ok(f"off on {limits.node}" if told is None else f"{_hours(told)} on {limits.node}")
            continue
        yield (error if told < _LEAST_CONSUMER_TIMEOUT_MS else warning)(
            f"consumer_timeout is {_hours(told)} on {limits.node}",
            why="a worker that acks a task only when it is done loses its channel after that time, and the task is "
            "executed again",
            remedy="write `consumer_timeout = 10800000` into /etc/rabbitmq/rabbitmq.conf, then: "
            f"sudo systemctl restart rabbitmq-server; until then: {situation.ctl} eval "
            "'application:set_env(rabbit, consumer_timeout, 10800000).'",
        )


def message_size(situation: Situation) -> Iterator[Finding]:
    for limits in _limits(situation):
        if limits.max_message_size >= LARGEST_MESSAGE:
            yield ok(f"{limits.max_message_size // 1024**2} MiB on {limits.node}")
            continue
        yield error(
            f"max_message_size is {limits.max_message_size} bytes on {limits.node}",
            why=f"a message may have {LARGEST_MESSAGE}: a larger one than it takes closes the channel, again and again",
            remedy=f"write `max_message_size = {LARGEST_MESSAGE}` into /etc/rabbitmq/rabbitmq.conf, then: "
            "sudo systemctl restart rabbitmq-server",
        )


def feature_flags(situation: Situation) -> Iterator[Finding]:
    flags = _facts(situation).disabled_flags
    if flags is None:
        yield unseen("which feature flags are enabled", remedy=situation_remedy(situation))
    elif "stream_queue" in flags:
        yield error(
            "the feature flag stream_queue is not enabled",
            why="RabbitMQ keeps dead letters at least once only with it; without, some vanish",
            remedy=f"{situation.ctl} enable_feature_flag stream_queue",
        )
    elif wanted := [flag for flag in flags if flag not in _OPTIONAL_FLAGS]:
        yield warning(
            f"feature flags are not enabled: {', '.join(wanted)}",
            why="a later version refuses to start without them",
            remedy=f"{situation.ctl} enable_feature_flag all, when all nodes have the same version",
        )
    else:
        yield ok("all are enabled")


#: Another way to keep metadata, which RabbitMQ 4.0 and 4.1 leave to the operator.
_OPTIONAL_FLAGS: Final = frozenset({"khepri_db"})


def situation_remedy(situation: Situation) -> str:
    """Say how more could be seen."""
    return (
        "on the broker's machine SHEPHERD_BROKER_CTL='sudo rabbitmqctl', or SHEPHERD_BROKER_MANAGEMENT_URL="
        f"http://USER:PASSWORD@{situation.hosts[0]}:15672"
    )


def _facts(situation: Situation) -> BrokerFacts:
    assert situation.facts is not None
    return situation.facts


def _limits(situation: Situation) -> tuple[Limits, ...]:
    limits = _facts(situation).limits
    assert limits is not None
    return limits


def _hours(milliseconds: int) -> str:
    seconds = milliseconds / 1000
    return (
        f"{seconds / 3600:g} h" if seconds >= 3600 else f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"
    )

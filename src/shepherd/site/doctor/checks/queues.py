"""Exchanges and queues: as Shepherd declares them, its own, replicated, and under policies that lose nothing."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from shepherd.broker.policies import RECOMMENDED, PolicySpec
from shepherd.broker.port import Presence
from shepherd.broker.topology import DEAD_QUEUE, REPLIES, STANDING_QUEUES, TASK_QUEUE_ARGUMENTS, task_queue
from shepherd.names import is_task_name
from shepherd.site.doctor.facts import Policy, Queue
from shepherd.site.doctor.finding import Finding, error, ok, unseen, warning
from shepherd.site.doctor.situation import Situation

_STANDING: Final = {spec.name: spec for spec in STANDING_QUEUES}
_TASKS: Final = task_queue("")
#: After this long without a worker, a task's queue is taken for forgotten.
_FORGOTTEN: Final = timedelta(days=30)
#: Nothing bounds these on purpose, and nothing in them may be dropped.
_KEPT: Final = frozenset({REPLIES, DEAD_QUEUE})
#: What the name of a policy's queue may be tried with.
_ANY_TASK: Final = task_queue("any")


def declared(situation: Situation) -> Iterator[Finding]:
    """Compare what is on the broker with what the Task Publisher declares."""
    wrong = [each for each in situation.comparisons if each.presence is not Presence.SAME]
    for each in wrong:
        match each.presence:
            case Presence.DIFFERENT:
                yield _different(situation, each.name, each.reason)
            case Presence.FORBIDDEN:
                yield error(
                    f"{situation.user!r} may not declare {each.name!r}: {each.reason}",
                    why="the Task Publisher can't prepare the broker, nor repair it",
                    remedy="sudo deploy/rabbitmq/setup.sh sets what each user needs",
                )
            case Presence.AWAY:
                yield error(
                    f"{each.name!r} is away: {each.reason}",
                    why="the nodes that hold it are down",
                    remedy="start them: sudo systemctl start rabbitmq-server, there",
                )
            case Presence.MISSING if each.name in _STANDING or not each.name.startswith(_TASKS):
                yield error(
                    f"{each.name!r} is not there: {each.reason}",
                    why="what goes there comes back, and waits",
                    remedy="the Task Publisher declares it within 30 s: systemctl start shepherd-task-publisher; "
                    "if its node is down: sudo systemctl start rabbitmq-server, there",
                )
    if not wrong:
        yield ok(f"{len(situation.comparisons)} exchanges and queues are as Shepherd declares them")


def arguments(situation: Situation) -> Iterator[Finding]:
    """Look at the queues of tasks that the database doesn't know, which were not compared."""
    compared = {each.name for each in situation.comparisons}
    own = [queue for queue in _queues(situation) if queue.name not in compared and _is_task_queue(queue.name)]
    wrong = [(queue, difference) for queue in own if (difference := _difference(queue))]
    for queue, difference in wrong:
        yield _different(situation, queue.name, difference)
    if not wrong:
        yield ok("every task's queue has the type and the arguments that it must have")


def _difference(queue: Queue) -> str:
    differing = {
        name
        for name in queue.arguments.keys() | TASK_QUEUE_ARGUMENTS.keys()
        if queue.arguments.get(name) != TASK_QUEUE_ARGUMENTS.get(name)
    }
    told = (f"{name} is {queue.arguments.get(name)!r}, not {TASK_QUEUE_ARGUMENTS.get(name)!r}" for name in differing)
    return ", ".join(sorted(told))


def _different(situation: Situation, name: str, reason: str) -> Finding:
    return error(
        f"{name!r} exists with another kind or other arguments: {reason}",
        why="the Task Publisher can't declare it; what it was made with can't be changed",
        remedy=f"have its consumers empty it, then: {situation.ctl} delete_queue {name} -p {situation.vhost}; "
        "the Task Publisher declares it anew",
    )


def states(situation: Situation) -> Iterator[Finding]:
    """Look for queues that don't work now, and for those that wouldn't survive a node."""
    own = [queue for queue in _queues(situation) if queue.name.startswith("shepherd.")]
    # `idle` and `flow` are ways of running.
    down = [queue for queue in own if queue.state not in {"running", "idle", "flow"}]
    for queue in down:
        yield error(
            f"the queue {queue.name} is {queue.state}",
            why="most of its copies are away: it neither takes nor gives",
            remedy="start the nodes that hold it: sudo systemctl start rabbitmq-server, on each",
        )
    assert situation.facts is not None
    count = len(situation.facts.nodes)
    alone = [queue.name for queue in own if count > 2 and 0 < len(queue.members) < 3]
    if alone:
        yield warning(
            f"{len(alone)} queues have fewer than three copies in a cluster of {count} nodes, as {alone[0]}",
            why="they were declared while there were fewer nodes; one that dies takes their messages with it",
            remedy=f"{situation.ctl.replace('rabbitmqctl', 'rabbitmq-queues')} grow NODE all, for each new node",
        )
    if not down and not alone:
        yield ok(f"{len(own)} queues run")


def orphans(situation: Situation) -> Iterator[Finding]:
    names = situation.names
    if names is None:
        yield unseen("which queues nobody needs any more: the database does not answer")
        return
    forgotten = {name for name, at in names.announced.items() if situation.at - at > _FORGOTTEN} - names.awaited
    known = (names.announced.keys() | names.awaited) - forgotten
    found = [queue for queue in _queues(situation) if _is_orphan(queue, {task_queue(name) for name in known})]
    for queue in found:
        is_task = _is_task_queue(queue.name)
        yield warning(
            f"nobody serves or awaits the queue {queue.name}, in which {queue.messages} messages wait"
            if is_task
            else f"the queue {queue.name} is none of Shepherd's",
            why="it takes memory and disk, and hides what matters in every list",
            remedy=f"{situation.ctl} delete_queue {queue.name} -p {situation.vhost}, when you are sure",
        )
    if not found:
        yield ok("none")


def _is_orphan(queue: Queue, known: set[str]) -> bool:
    return queue.name.startswith("shepherd.") and queue.name not in _STANDING.keys() | known and not queue.consumers


def policies(situation: Situation) -> Iterator[Finding]:
    assert situation.facts is not None
    found = situation.facts.policies
    assert found is not None
    bad = list(_harmful(situation, found))
    missing = [wanted for wanted in RECOMMENDED if not _is_followed(wanted, found)]
    for wanted in missing:
        yield warning(
            f"there is no policy {wanted.name}: nothing bounds the queues of tasks",
            why="one whose workers are away, or whose dead letters find no way, may fill the broker's disk, and then "
            "nothing is published at all",
            remedy=f"{situation.ctl} set_policy -p {situation.vhost} --apply-to queues {wanted.name} "
            f"'{wanted.pattern}' '{_as_json(wanted)}'",
        )
    yield from bad
    if not bad and not missing:
        yield ok("queues of tasks are bounded, nothing expires")


def _as_json(policy: PolicySpec) -> str:
    return "{" + ",".join(f'"{name}":{value}' for name, value in policy.definition.items()) + "}"


def _is_followed(wanted: PolicySpec, found: tuple[Policy, ...]) -> bool:
    effective = _effective(_ANY_TASK, found)
    return effective is not None and bool(
        effective.definition.keys() & {*wanted.definition, "max-length", "max-length-bytes"}
    )


def _effective(queue: str, found: tuple[Policy, ...]) -> Policy | None:
    """Return the one policy that counts for a queue: of those that match, the one with the highest priority."""
    fitting = [each for each in found if each.apply_to != "exchanges" and re.search(each.pattern, queue)]
    return max(fitting, key=lambda each: each.priority, default=None)


#: By the key in a policy: for which queues it loses work, and how.
_HARMFUL: Final = {
    "message-ttl": (frozenset({_ANY_TASK, *_KEPT}), "what waits for that long is taken out of the queue"),
    "expires": (
        frozenset({_ANY_TASK, *_STANDING}),
        "a queue that nobody uses for that long is deleted, messages and all",
    ),
    "max-length": (_KEPT, "what doesn't fit drops out"),
    "max-length-bytes": (_KEPT, "what doesn't fit drops out"),
}


def _harmful(situation: Situation, found: tuple[Policy, ...]) -> Iterator[Finding]:
    for key, (queues, how) in _HARMFUL.items():
        for queue in sorted(queues):
            policy = _effective(queue, found)
            if policy is not None and key in policy.definition:
                yield error(
                    f"the policy {policy.name} sets {key} for {queue.replace(_ANY_TASK, 'the queues of tasks')}",
                    why=f"{how}: work is lost, or waits for ever",
                    remedy=f"{situation.ctl} clear_policy -p {situation.vhost} {policy.name}, or a narrower pattern",
                )


def _queues(situation: Situation) -> tuple[Queue, ...]:
    assert situation.facts is not None
    return situation.facts.queues


def _is_task_queue(name: str) -> bool:
    return name.startswith(_TASKS) and is_task_name(name.removeprefix(_TASKS))

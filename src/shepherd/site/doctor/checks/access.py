"""Who may do what on the broker."""

import re
from collections.abc import Iterator
from typing import Final

from shepherd.broker.permissions import TASK_PUBLISHER
from shepherd.broker.topology import CONTROL_EXCHANGE, DEAD_EXCHANGE, REPLIES, task_queue
from shepherd.site.doctor.facts import Grant
from shepherd.site.doctor.finding import Finding, error, ok, warning
from shepherd.site.doctor.situation import Situation, is_loopback

#: Names of which a Task Publisher must be allowed each, and a worker's own queue.
_CONFIGURES: Final = (REPLIES, task_queue("any"), DEAD_EXCHANGE, CONTROL_EXCHANGE, "amq.gen-x")
_WRITES: Final = ("amq.default", DEAD_EXCHANGE, CONTROL_EXCHANGE, "amq.gen-x")
_READS: Final = (REPLIES, DEAD_EXCHANGE, CONTROL_EXCHANGE, "amq.gen-x")


def permissions(situation: Situation) -> Iterator[Finding]:
    assert situation.facts is not None
    grants = situation.facts.grants
    assert grants is not None
    own = next((grant for grant in grants if grant.user == situation.user), None)
    faults = _lacking(own) if own else [f"no permission at all on {situation.vhost!r}"]
    for fault in faults:
        yield error(
            f"the Task Publisher's user {situation.user!r} has {fault}",
            why="the broker closes the channel on which it tries",
            remedy=f"{situation.ctl} set_permissions -p {situation.vhost} {situation.user} "
            f"'{TASK_PUBLISHER.configure}' '{TASK_PUBLISHER.write}' '{TASK_PUBLISHER.read}'",
        )
    wide = [grant.user for grant in grants if grant.user != situation.user and _may(grant.configure, task_queue("any"))]
    for user in wide:
        yield warning(
            f"the user {user!r} may declare and delete the queues of tasks",
            why="only the Task Publisher has to; a worker with a mistake could delete what waits",
            remedy="sudo deploy/rabbitmq/setup.sh sets what each user needs; "
            f"one that is not needed: {situation.ctl} clear_permissions -p {situation.vhost} {user}",
        )
    if not faults and not wide:
        yield ok(f"{situation.user!r} may do what it has to, and nobody else may delete queues")


def _lacking(grant: Grant) -> list[str]:
    wanted = {"configure": _CONFIGURES, "write": _WRITES, "read": _READS}
    return [
        f"no {kind} permission for {name!r}"
        for kind, names in wanted.items()
        for name in names
        if not _may(getattr(grant, kind), name)
    ]


def _may(pattern: str, name: str) -> bool:
    # RabbitMQ takes the empty pattern for one that nothing matches.
    return bool(pattern) and re.search(pattern, name) is not None


def guest(situation: Situation) -> Iterator[Finding]:
    facts = situation.facts
    assert facts is not None
    assert facts.users is not None
    public = sorted(
        f"{each.interface}:{each.port}"
        for each in facts.listeners
        if each.protocol.startswith("amqp") and not is_loopback(each.interface)
    )
    if "guest" not in facts.users or not public:
        yield ok("there is no user guest" if "guest" not in facts.users else "guest is there, for this machine only")
        return
    is_open = facts.limits is not None and not all(limits.restricts_guest for limits in facts.limits)
    yield (error if is_open else warning)(
        f"the user guest exists, and RabbitMQ listens on {', '.join(public)}",
        why="anybody who reaches it may log in with the password that everybody knows"
        if is_open
        else "everybody knows its password; only the setting loopback_users keeps others out",
        remedy=f"sudo deploy/rabbitmq/setup.sh makes users of their own; then: {situation.ctl} delete_user guest",
    )

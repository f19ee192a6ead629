"""The table of checks, and what they come to."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from django.db import DatabaseError, InterfaceError

from shepherd.site.doctor.checks import access, broker, queues, server
from shepherd.site.doctor.finding import Finding, Level, unseen
from shepherd.site.doctor.situation import Situation

#: Says in a sentence why one can't look, or nothing.
Need = Callable[[Situation], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    name: str
    look: Callable[[Situation], Iterable[Finding]]
    needs: Need


def nothing(_situation: Situation) -> str:
    return ""


def amqp(situation: Situation) -> str:
    return "" if situation.server else "the broker does not answer"


def more_facts(part: str) -> Need:
    """Return what is in the way of knowing a part of `BrokerFacts`."""

    def reason(situation: Situation) -> str:
        if situation.facts is None:
            return situation.blind or "AMQP does not tell"
        return "" if getattr(situation.facts, part) is not None else "what was asked does not tell"

    return reason


CHECKS: Final = (
    Check(name="database", look=server.database, needs=nothing),
    Check(name="store", look=server.store, needs=nothing),
    Check(name="projects", look=server.projects, needs=nothing),
    Check(name="workers", look=server.workers, needs=nothing),
    Check(name="prefect", look=server.prefect, needs=nothing),
    Check(name="pages", look=server.pages, needs=nothing),
    Check(name="clocks", look=server.clocks, needs=nothing),
    Check(name="broker", look=broker.connection, needs=nothing),
    Check(name="version", look=broker.version, needs=amqp),
    Check(name="task publisher", look=broker.publisher, needs=amqp),
    Check(name="declared", look=queues.declared, needs=amqp),
    Check(name="nodes", look=broker.nodes, needs=more_facts("nodes")),
    Check(name="alarms", look=broker.alarms, needs=more_facts("alarms")),
    Check(name="consumer_timeout", look=broker.consumer_timeout, needs=more_facts("limits")),
    Check(name="message size", look=broker.message_size, needs=more_facts("limits")),
    Check(name="feature flags", look=broker.feature_flags, needs=more_facts("nodes")),
    Check(name="queues", look=queues.states, needs=more_facts("queues")),
    Check(name="arguments", look=queues.arguments, needs=more_facts("queues")),
    Check(name="orphans", look=queues.orphans, needs=more_facts("queues")),
    Check(name="policies", look=queues.policies, needs=more_facts("policies")),
    Check(name="permissions", look=access.permissions, needs=more_facts("grants")),
    Check(name="guest", look=access.guest, needs=more_facts("users")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    check: str
    finding: Finding


def examine(situation: Situation) -> list[Found]:
    """Return what every check finds, in the order of the table."""
    return [Found(check=check.name, finding=finding) for check in CHECKS for finding in _looked(check, situation)]


def _looked(check: Check, situation: Situation) -> Iterator[Finding]:
    if reason := check.needs(situation):
        yield unseen(f"not looked at: {reason}", remedy=broker.situation_remedy(situation))
        return
    try:
        yield from check.look(situation)
    except (DatabaseError, InterfaceError):
        yield unseen("not looked at: the database does not answer")


def exit_status(found: Iterable[Found]) -> int:
    """Return 1 if something would lose or stall work."""
    return int(any(each.finding.level is Level.ERROR for each in found))

"""What can be known of a broker beside AMQP, from whichever source. None stands for what a source doesn't tell."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    name: str
    is_running: bool
    #: Empty where it isn't running.
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one node's configuration says."""

    node: str
    #: None means that it is switched off.
    consumer_timeout_ms: int | None
    max_message_size: int
    #: Whether `guest` may log in from the node's own machine only.
    restricts_guest: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    protocol: str
    interface: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    name: str
    arguments: Mapping[str, Any]
    state: str
    messages: int
    consumers: int
    #: The nodes that hold a copy; empty for a queue that is on one node only.
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What one user may do on Shepherd's virtual host; each is a regular expression over names."""

    user: str
    configure: str
    write: str
    read: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    name: str
    pattern: str
    apply_to: str
    definition: Mapping[str, Any]
    priority: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerFacts:
    #: The name that all nodes of the cluster share.
    cluster: str
    nodes: tuple[Node, ...]
    #: As in `memory on rabbit@node-1`.
    alarms: tuple[str, ...]
    #: Nodes that have lost sight of each other.
    partitioned: tuple[str, ...]
    listeners: tuple[Listener, ...]
    queues: tuple[Queue, ...]
    limits: tuple[Limits, ...] | None
    #: Feature flags that are known to all nodes and not enabled.
    disabled_flags: tuple[str, ...] | None
    users: tuple[str, ...] | None
    grants: tuple[Grant, ...] | None
    policies: tuple[Policy, ...] | None
    #: Seconds by which the broker's clock is ahead of ours.
    clock_ahead_s: float | None


class FactsUnavailableError(Exception):
    """A source of facts didn't answer; the text says why."""


class FactsSource(Protocol):
    def read(self, *, vhost: str) -> BrokerFacts:
        """Ask for everything.

        Raises:
            FactsUnavailableError: It didn't answer.
        """


def disabled_flags(flags: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the names of those that are meant to be enabled and are not; both sources describe them alike."""
    wanted = (flag for flag in flags if flag.get("stability") != "experimental")
    return tuple(flag["name"] for flag in wanted if flag["state"] == "disabled")

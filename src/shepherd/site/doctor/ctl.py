"""Facts from `rabbitmqctl`, the only source that knows a node's configuration."""

import json
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from shepherd.site.doctor.facts import (
    BrokerFacts,
    FactsUnavailableError,
    Grant,
    Limits,
    Listener,
    Node,
    Policy,
    Queue,
    disabled_flags,
)

_TIMEOUT_S: Final = 30.0
#: Each starts an Erlang machine of its own.
_AT_ONCE: Final = 3
_QUEUE_COLUMNS: Final = ("name", "arguments", "state", "messages", "consumers", "members")
#: Of every node: its name, consumer_timeout, max_message_size, whether `guest` is restricted, its clock in ms.
_LIMITS: Final = """\
[{N, rpc:call(N, application, get_env, [rabbit, consumer_timeout, undefined]),
  rpc:call(N, application, get_env, [rabbit, max_message_size, 0]),
  lists:member(<<"guest">>, rpc:call(N, application, get_env, [rabbit, loopback_users, []])),
  rpc:call(N, erlang, system_time, [millisecond])} || N <- [node() | nodes()]]."""
_LIMIT: Final = re.compile(r"\{'?([^\s',{]+)'?,\s*(\w+),\s*(\d+),\s*(true|false),\s*(\d+)\}")


class RabbitmqctlFacts:
    """Runs `rabbitmqctl`, or what stands for it: a path, or a prefix as in `ssh node-1 sudo rabbitmqctl`."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = tuple(command)

    def read(self, *, vhost: str) -> BrokerFacts:
        asked = {
            "status": ("cluster_status", "--formatter", "json"),
            "limits": ("eval", _LIMITS),
            "queues": ("list_queues", "-p", vhost, "--formatter", "json", *_QUEUE_COLUMNS),
            "users": ("list_users", "--formatter", "json"),
            "grants": ("list_permissions", "-p", vhost, "--formatter", "json"),
            "policies": ("list_policies", "-p", vhost, "--formatter", "json"),
        }
        with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
            began_at = time.time()
            answers = dict(zip(asked, pool.map(lambda words: self._run(*words), asked.values()), strict=True))
        return _facts({name: text for name, (text, _) in answers.items()}, asked_at=answers["limits"][1] or began_at)

    def _run(self, *arguments: str) -> tuple[str, float]:
        """Return what it prints, and the middle of the time that it took."""
        began_at = time.time()
        try:
            done = subprocess.run(  # noqa: S603  # the operator's own command
                [*self._command, "--quiet", *arguments],
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=True,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.CalledProcessError as error:
            raise FactsUnavailableError(_first_line(error.stderr or error.stdout)) from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise FactsUnavailableError(str(error)) from error
        return done.stdout, (began_at + time.time()) / 2


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")


def _facts(texts: Mapping[str, str], *, asked_at: float) -> BrokerFacts:
    try:
        status, queues, users, grants, policies = (
            json.loads(texts[name]) for name in ("status", "queues", "users", "grants", "policies")
        )
    except ValueError as error:
        raise FactsUnavailableError(f"rabbitmqctl printed no JSON: {error}") from error
    limits = _LIMIT.findall(texts["limits"])
    return BrokerFacts(
        cluster=status["cluster_name"],
        nodes=tuple(_nodes(status)),
        alarms=tuple(f"{alarm.get('resource', 'an alarm')} on {alarm.get('node', '?')}" for alarm in status["alarms"]),
        partitioned=tuple(status["partitions"]),
        listeners=tuple(_listener(each) for node in status["listeners"].values() for each in node),
        queues=tuple(_queue(row) for row in queues),
        limits=tuple(_limits(*row[:4]) for row in limits),
        disabled_flags=disabled_flags(status["feature_flags"]),
        users=tuple(row["user"] for row in users),
        grants=tuple(Grant(**{name: row[name] for name in ("user", "configure", "write", "read")}) for row in grants),
        policies=tuple(_policy(row) for row in policies),
        clock_ahead_s=_furthest([int(row[4]) / 1000 - asked_at for row in limits]),
    )


def _nodes(status: Mapping[str, Any]) -> list[Node]:
    running = set(status["running_nodes"])
    known = sorted({*status["disk_nodes"], *status.get("ram_nodes", ()), *running})
    versions = status.get("versions", {})
    return [
        Node(name=name, is_running=name in running, version=versions.get(name, {}).get("rabbitmq_version", ""))
        for name in known
    ]


def _listener(row: Mapping[str, Any]) -> Listener:
    return Listener(protocol=row["protocol"], interface=row["interface"], port=row["port"])


def _queue(row: Mapping[str, Any]) -> Queue:
    return Queue(
        name=row["name"],
        arguments={name: value for name, _, value in row["arguments"]},
        # What a queue without a leader doesn't tell is empty text.
        state=row["state"] or "down",
        messages=row["messages"] or 0,
        consumers=row["consumers"] or 0,
        members=tuple(row["members"] or ()),
    )


def _limits(node: str, consumer_timeout: str, max_message_size: str, restricts_guest: str) -> Limits:
    return Limits(
        node=node,
        consumer_timeout_ms=int(consumer_timeout) if consumer_timeout.isdigit() else None,
        max_message_size=int(max_message_size),
        restricts_guest=restricts_guest == "true",
    )


def _policy(row: Mapping[str, Any]) -> Policy:
    definition = row["definition"]
    return Policy(
        name=row["name"],
        pattern=row["pattern"],
        apply_to=row["apply-to"],
        definition=json.loads(definition) if isinstance(definition, str) else definition,
        priority=row["priority"],
    )


def _furthest(seconds: Sequence[float]) -> float | None:
    return max(seconds, key=abs, default=None)

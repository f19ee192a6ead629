"""Facts from RabbitMQ's management API, for a broker on another machine. It doesn't tell a node's configuration."""

import email.utils
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlsplit

import httpx

from shepherd.site.doctor.facts import (
    BrokerFacts,
    FactsUnavailableError,
    Grant,
    Listener,
    Node,
    Policy,
    Queue,
    disabled_flags,
)

_TIMEOUT_S: Final = 10.0
_QUEUE_COLUMNS: Final = "name,arguments,state,messages,consumers,members"


class ManagementFacts:
    """Asks `http://user:password@host:15672`.

    The user needs the tag `monitoring`; `policymaker` shows policies too, `administrator` also users and permissions.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._client = httpx.Client(
            base_url=f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}/api",
            auth=(httpx.URL(url).username and (httpx.URL(url).username, httpx.URL(url).password)) or None,
            timeout=_TIMEOUT_S,
            trust_env=False,
        )

    def read(self, *, vhost: str) -> BrokerFacts:
        with self._client:
            return self._read(quote(vhost, safe=""))

    def _read(self, vhost: str) -> BrokerFacts:
        answer = self._get("/overview")
        overview, nodes = answer.json(), self._get("/nodes").json()
        queues = self._get(f"/queues/{vhost}?disable_stats=false&columns={_QUEUE_COLUMNS}").json()
        users, policies = self._optional("/users"), self._optional(f"/policies/{vhost}")
        grants, flags = self._optional(f"/vhosts/{vhost}/permissions"), self._optional("/feature-flags")
        return BrokerFacts(
            cluster=overview["cluster_name"],
            nodes=tuple(_node(row) for row in nodes),
            alarms=tuple(alarm for row in nodes for alarm in _alarms(row)),
            partitioned=tuple(row["name"] for row in nodes if row.get("partitions")),
            listeners=tuple(_listener(row) for row in overview.get("listeners", ())),
            queues=tuple(_queue(row) for row in queues),
            limits=None,
            disabled_flags=flags and disabled_flags(flags),
            users=users and tuple(row["name"] for row in users),
            grants=grants
            and tuple(Grant(**{n: row[n] for n in ("user", "configure", "write", "read")}) for row in grants),
            policies=None if policies is None else tuple(_policy(row) for row in policies),
            clock_ahead_s=_clock_ahead(answer),
        )

    def _get(self, path: str) -> httpx.Response:
        try:
            answer = self._client.get(path)
            answer.raise_for_status()
        except httpx.HTTPStatusError as error:
            status, asked = error.response.status_code, path.partition("?")[0]
            raise FactsUnavailableError(f"it answers {status} to {asked}") from error
        except httpx.HTTPError as error:
            raise FactsUnavailableError(str(error) or type(error).__name__) from error
        return answer

    def _optional(self, path: str) -> Any:
        """Return None for what this user may not see."""
        try:
            return self._get(path).json()
        except FactsUnavailableError:
            return None


def _node(row: Mapping[str, Any]) -> Node:
    versions = {each["name"]: each["version"] for each in row.get("applications", ())}
    return Node(name=row["name"], is_running=bool(row.get("running")), version=versions.get("rabbit", ""))


def _alarms(row: Mapping[str, Any]) -> list[str]:
    known = {"mem_alarm": "memory", "disk_free_alarm": "disk"}
    return [f"{resource} on {row['name']}" for field, resource in known.items() if row.get(field)]


def _listener(row: Mapping[str, Any]) -> Listener:
    return Listener(protocol=row["protocol"], interface=row["ip_address"], port=row["port"])


def _queue(row: Mapping[str, Any]) -> Queue:
    return Queue(
        name=row["name"],
        arguments=row.get("arguments", {}),
        state=row.get("state", "running"),
        messages=row.get("messages", 0),
        consumers=row.get("consumers", 0),
        members=tuple(row.get("members", ())),
    )


def _policy(row: Mapping[str, Any]) -> Policy:
    return Policy(
        name=row["name"],
        pattern=row["pattern"],
        apply_to=row["apply-to"],
        definition=row["definition"],
        priority=row["priority"],
    )


def _clock_ahead(answer: httpx.Response) -> float | None:
    if "date" not in answer.headers:
        return None
    # To the second, so half of one is the best guess for what was cut off.
    told = email.utils.parsedate_to_datetime(answer.headers["date"]).timestamp() + 0.5
    return told - datetime.now(UTC).timestamp()

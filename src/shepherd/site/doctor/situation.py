"""Everything that the checks look at, collected once."""

import shlex
import shutil
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Final
from urllib.parse import unquote, urlsplit

from django.db import DatabaseError, InterfaceError

from shepherd.broker import connect
from shepherd.broker.addresses import broker_addresses, hosts_of, vhost_of
from shepherd.broker.port import Broker, Comparison, ServerInfo
from shepherd.broker.topology import EXCHANGES, REPLIES, STANDING_QUEUES, task_queue_spec
from shepherd.errors import BrokerUnavailableError
from shepherd.pipelines.names_in_use import NamesInUse, names_in_use
from shepherd.site.config import ServerConfig
from shepherd.site.doctor.ctl import RabbitmqctlFacts
from shepherd.site.doctor.facts import BrokerFacts, FactsSource, FactsUnavailableError
from shepherd.site.doctor.management import ManagementFacts

_CONNECT_S: Final = 10.0
_CONSUMER_LOOKS: Final = 10
_LOOK_S: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    config: ServerConfig
    at: datetime
    #: What AMQP tells; None where nobody answers, and then `trouble` says why.
    server: ServerInfo | None
    trouble: str
    #: Exchanges, standing queues and the queues of all known tasks.
    comparisons: tuple[Comparison, ...]
    #: What can't be seen over AMQP; None where there is no source, and then `blind` says why.
    facts: BrokerFacts | None
    blind: str
    #: None where the database doesn't answer.
    names: NamesInUse | None

    @property
    def addresses(self) -> tuple[str, ...]:
        """Return `host:port` of each node that is named."""
        return hosts_of(self.config.broker_url)

    @property
    def address(self) -> str:
        return " or ".join(self.addresses)

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(address.rpartition(":")[0] for address in self.addresses)

    @property
    def user(self) -> str:
        return unquote(urlsplit(self._first_url).username or "guest")

    @property
    def vhost(self) -> str:
        return vhost_of(self._first_url)

    @property
    def _first_url(self) -> str:
        return broker_addresses(self.config.broker_url)[0]

    @property
    def ctl(self) -> str:
        """What to write before a command of `rabbitmqctl`."""
        given = self.config.broker_ctl
        return given if given not in {"", "off"} else "sudo rabbitmqctl"


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def look(config: ServerConfig) -> Situation:
    """Ask database, broker and what tells more of it. What doesn't answer is told as a part of the situation."""
    names = _names()
    known = {*names.announced, *names.awaited} if names else set()
    server, trouble, comparisons = _over_amqp(config.broker_url, known)
    facts, blind = _facts(config, server)
    return Situation(
        config=config,
        at=datetime.now(UTC),
        server=server,
        trouble=trouble,
        comparisons=comparisons,
        facts=facts,
        blind=blind,
        names=names,
    )


def _names() -> NamesInUse | None:
    try:
        return names_in_use()
    except (DatabaseError, InterfaceError):
        return None


def _over_amqp(url: str, names: Iterable[str]) -> tuple[ServerInfo | None, str, tuple[Comparison, ...]]:
    broker = connect(url, name="doctor")
    try:
        server = broker.server_info(timeout_s=_CONNECT_S)
        queues = [*STANDING_QUEUES, *(task_queue_spec(name) for name in sorted(names))]
        return server, "", tuple(_with_consumers(broker, broker.compare(exchanges=EXCHANGES, queues=queues)))
    except BrokerUnavailableError as error:
        return None, str(error), ()
    finally:
        broker.close()


def _with_consumers(broker: Broker, compared: list[Comparison]) -> list[Comparison]:
    """Look at the replies again for a while if nobody consumes them: a consumer to which nothing comes is renewed."""
    replies = [spec for spec in STANDING_QUEUES if spec.name == REPLIES]
    for _ in range(_CONSUMER_LOOKS):
        if any(each.consumers for each in compared if each.name == REPLIES):
            break
        threading.Event().wait(_LOOK_S)
        compared = [each for each in compared if each.name != REPLIES] + broker.compare(queues=replies)
    return compared


def _facts(config: ServerConfig, server: ServerInfo | None) -> tuple[BrokerFacts | None, str]:
    reasons = []
    for name, source in _sources(config, server):
        try:
            facts = source.read(vhost=vhost_of(broker_addresses(config.broker_url)[0]))
        except FactsUnavailableError as error:
            reasons.append(f"{name}: {error}")
            continue
        if server is None or facts.cluster == server.cluster:
            return facts, ""
        reasons.append(f"{name} speaks of the broker {facts.cluster}, SHEPHERD_BROKER_URL of {server.cluster}")
    return None, "; ".join(reasons)


def _sources(config: ServerConfig, server: ServerInfo | None) -> Iterable[tuple[str, FactsSource]]:
    # rabbitmqctl first: it knows more.
    if config.broker_ctl not in {"", "off"}:
        yield "SHEPHERD_BROKER_CTL", RabbitmqctlFacts(shlex.split(config.broker_ctl))
    if config.broker_management_url:
        yield "SHEPHERD_BROKER_MANAGEMENT_URL", ManagementFacts(config.broker_management_url)
    is_here = all(is_loopback(address.rpartition(":")[0]) for address in hosts_of(config.broker_url))
    if not config.broker_ctl and server is not None and is_here and (found := shutil.which("rabbitmqctl")):
        yield "rabbitmqctl", RabbitmqctlFacts([found])

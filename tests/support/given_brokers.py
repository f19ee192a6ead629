"""Brokers that whoever runs the tests names, beside the installed one.

SHEPHERD_TEST_BROKER_URLS has their addresses, with spaces or commas between. SHEPHERD_TEST_BROKER_CTLS has what runs
`rabbitmqctl` for each, in the same order, with semicolons between; nothing where there is none. With it, all that the
tests do there is in virtual hosts of their own, which are gone afterwards; without it, only the contract suite runs
there, in the virtual host that the address names.
"""

import json
import os
import re
import shlex
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import Protocol
from urllib.parse import unquote, urlsplit

import pytest

from shepherd.broker.policies import RECOMMENDED

#: The name of the broker that is installed here, of which each test starts a node of its own.
INSTALLED = "installed"


class BrokerUnderTest(Protocol):
    """A node of the tests' own, or a virtual host of their own on a given one."""

    @property
    def url(self) -> str: ...

    def ctl(self, *arguments: str) -> str:
        """Return what `rabbitmqctl` prints for these arguments.

        They are about queues, policies or permissions; or `eval` an expression that changes nothing.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenBroker:
    url: str
    #: Empty where there is none.
    command: tuple[str, ...]

    @contextmanager
    def virtual_host(self) -> Iterator["VirtualHost"]:
        """Make one with the policies that Shepherd's has, and leave nothing of it."""
        name = f"shepherd-test-{uuid.uuid4().hex}"
        self.ctl("add_vhost", name)
        try:
            self.ctl("set_permissions", "-p", name, unquote(urlsplit(self.url).username or "guest"), ".*", ".*", ".*")
            host = VirtualHost(broker=self, name=name)
            for policy in RECOMMENDED:
                host.ctl(
                    "set_policy",
                    "--apply-to",
                    "queues",
                    policy.name,
                    policy.pattern,
                    json.dumps(dict(policy.definition)),
                )
            yield host
        finally:
            self.ctl("delete_vhost", name)

    def ctl(self, *arguments: str) -> str:
        """Return what `rabbitmqctl` prints, or raise with what it said."""
        done = subprocess.run(
            [*self.command, "--quiet", *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{shlex.join(done.args)}: {done.stderr or done.stdout}")
        return done.stdout


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualHost:
    broker: GivenBroker
    name: str

    @property
    def url(self) -> str:
        return urlsplit(self.broker.url)._replace(path=f"/{self.name}").geturl()

    def ctl(self, *arguments: str) -> str:
        if arguments[0] == "eval":
            return self.broker.ctl(*arguments)
        return self.broker.ctl(arguments[0], "-p", self.name, *arguments[1:])


def given_brokers(environ: Mapping[str, str]) -> dict[str, GivenBroker]:
    """Return them by `host:port`."""
    urls = re.split(r"[\s,]+", environ.get("SHEPHERD_TEST_BROKER_URLS", "").strip(" ,"))
    commands = environ.get("SHEPHERD_TEST_BROKER_CTLS", "").split(";")
    if len(commands) > len(urls):
        raise ValueError("SHEPHERD_TEST_BROKER_CTLS has more commands than SHEPHERD_TEST_BROKER_URLS has addresses")
    return {
        urlsplit(url).netloc.rpartition("@")[2]: GivenBroker(url=url, command=tuple(shlex.split(command)))
        for url, command in zip_longest(urls, commands, fillvalue="")
        if url
    }


GIVEN = given_brokers(os.environ)
#: For modules of faults that stop their broker, or change or read what isn't in a virtual host.
ON_INSTALLED = pytest.mark.parametrize("which_broker", [INSTALLED], indirect=True, scope="session")
#: On which the contract suite runs.
ALL_BROKERS = [INSTALLED, *GIVEN]
#: On which runs what asks `rabbitmqctl`, or needs a virtual host of its own.
BROKERS = [INSTALLED, *(name for name, broker in GIVEN.items() if broker.command)]

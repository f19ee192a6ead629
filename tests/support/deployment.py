"""What `deploy/rabbitmq/` does to a node of the tests' own."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from shepherd.site.local.broker_node import BrokerNode
from tests.support.folders import ROOT

FOLDER = ROOT / "deploy" / "rabbitmq"


@dataclass(frozen=True, slots=True, kw_only=True)
class Urls:
    """The users that `setup.sh` makes."""

    publisher: str
    worker: str
    web: str


def set_up(node: BrokerNode, *, vhost: str = "shepherd") -> Urls | None:
    """Run `setup.sh`, and return what it printed; None when the users were there."""
    address = node.url.rpartition("@")[2].rstrip("/")
    environ = {**os.environ, "RABBITMQCTL": str(node.ctl_file), "ADDRESS": address, "VHOST": vhost}
    done = subprocess.run([FOLDER / "setup.sh"], env=environ, capture_output=True, text=True, check=True)
    urls = [line for line in done.stdout.splitlines() if line.startswith("amqp://")]
    return Urls(publisher=urls[0], worker=urls[1], web=urls[2]) if urls else None


def settings_of(file: Path) -> dict[str, str]:
    """Return what a file for `/etc/rabbitmq` says."""
    lines = (line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    pairs = (line.partition("=") for line in lines if line)
    return {name.strip(): value.strip() for name, _, value in pairs}

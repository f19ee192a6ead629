"""Which processes a local system is made of."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from shepherd.site.local.broker_node import BrokerNode
from shepherd.site.local.config import HOST, LocalConfig

_PYTHON = sys.executable


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One process. They start in the order of their list; groups end in the reverse one, each all at once."""

    name: str
    command: tuple[str, ...]
    #: What one group needs is in an earlier one.
    group: str = "shepherd"
    #: Beside what all processes of the system get.
    environ: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = "TERM"
    #: After this, it and everything that it started is killed.
    stop_within_s: int = 10


def programs(config: LocalConfig) -> list[Program]:
    """Return what has to run, given which services are there already."""
    return [
        *(_broker(broker_node(config)) if config.has_own_broker else ()),
        *([_prefect(config)] if config.has_own_prefect else ()),
        *_workers(config.projects_folder),
        _task_publisher(config),
        _web(config),
    ]


def broker_node(config: LocalConfig) -> BrokerNode:
    port = config.broker_port
    return BrokerNode(config.home / "rabbitmq", port=port, epmd_port=port + 1, dist_port=port + 2)


def _broker(node: BrokerNode) -> Iterator[Program]:
    environ = node.environment()
    yield Program(name="epmd", group="names", command=tuple(node.epmd_command()), environ=environ)
    yield Program(name="rabbitmq", group="services", command=tuple(node.command()), environ=environ, stop_within_s=20)


def _prefect(config: LocalConfig) -> Program:
    # Behind everything else while all starts: it needs the most time, and is the one that the others don't wait for.
    command = ("nice", _PYTHON, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(config.prefect_port))
    return Program(name="prefect", group="services", command=command, environ=_PREFECT_ENVIRON, stop_within_s=5)


#: No run of ours is scheduled, late, paused or triggered by Prefect: what looks for these only costs time, and locks
#: its SQLite database. Its recorder of task runs commits each alone unless told otherwise: 2 s a flow instead of 0.4.
_PREFECT_ENVIRON: Final = {
    "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
    **{
        f"PREFECT_SERVER_SERVICES_{service}_ENABLED": "false"
        for service in (
            "SCHEDULER",
            "LATE_RUNS",
            "FOREMAN",
            "TRIGGERS",
            "PAUSE_EXPIRATIONS",
            "REPOSSESSOR",
            "CANCELLATION_CLEANUP",
        )
    },
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "50",
    # In whole seconds: Prefect 3.8.8 rounds down, and at 0 it never sleeps.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
}


def _workers(projects: Path) -> Iterator[Program]:
    for file in sorted(projects.glob("*/workers/[!_]*.py")):
        # No longer, though a task may run for hours: the broker gives what was cut short to the next worker.
        yield Program(name=f"worker-{file.parts[-3]}-{file.stem}", command=(_PYTHON, str(file)), stop_within_s=5)


def _task_publisher(config: LocalConfig) -> Program:
    return Program(
        name="task-publisher",
        command=(_PYTHON, str(config.root / "manage.py"), "runscript", "worker_demon"),
    )


def _web(config: LocalConfig) -> Program:
    listen = f"--listen={HOST}:{config.web_port}"
    return Program(
        name="web",
        command=(_PYTHON, "-m", "waitress", listen, "--threads=8", "shepherd.site.wsgi:application"),
        # waitress answers what it has begun when it is interrupted, and nothing when it is terminated.
        stop_signal="INT",
    )

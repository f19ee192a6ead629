"""What processes hold when nothing is going on: it must not grow, whatever happened."""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

import psutil

from tests.support.faults.system import FaultSystem
from tests.support.waiting import wait_until

#: Between two looks at the same process: pools that fill up, a file that was just opened.
_DESCRIPTORS = 12
_CHANNELS = 4
#: What an allocator keeps, and what is imported at need. A leak of 200 rounds is larger.
_MEMORY = 80 * 2**20
_GROWTH = 1.5
_CONNECTION = re.compile(r'"connection_name","([^"]*)".*\t(\d+)$')


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Of one process, with all that it started."""

    descriptors: int
    #: Bytes that nobody else has (USS).
    memory: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Of the whole system."""

    processes: Mapping[str, Usage]
    #: For each name under which somebody is connected to the broker, how many channels each connection has.
    channels: Mapping[str, tuple[int, ...]]


def held(ours: FaultSystem) -> Held:
    """Return what every Task Publisher, worker and web process holds now."""
    names = [name for name in ours.system.names if name.startswith(("web", "task-publisher", "worker"))]
    return Held(
        processes={name: _usage(ours.system.pid(name)) for name in names if ours.system.is_running(name)},
        channels=_channels(ours),
    )


def not_flat(ours: FaultSystem, before: Held, *, timeout_s: float = 30.0) -> list[str]:
    """Return in sentences what is held beyond what was held before, as soon as nothing is or the time is over."""
    found: list[str] = []

    def is_flat() -> bool:
        found[:] = grown(before, held(ours))
        return not found

    with suppress(TimeoutError):
        wait_until(is_flat, timeout_s=timeout_s, what="nothing held beyond what was held before")
    return found


def grown(before: Held, after: Held) -> list[str]:
    return [*_processes_grown(before, after), *_connections_grown(before, after)]


def _processes_grown(before: Held, after: Held) -> Iterator[str]:
    for name, now in after.processes.items():
        was = before.processes.get(name)
        if was is None:
            continue
        if now.descriptors > was.descriptors * _GROWTH + _DESCRIPTORS:
            yield f"{name} holds {now.descriptors} descriptors at rest, and held {was.descriptors} before"
        if now.memory > was.memory * _GROWTH + _MEMORY:
            yield f"{name} holds {now.memory >> 20} MiB at rest, and held {was.memory >> 20} MiB before"


def _connections_grown(before: Held, after: Held) -> Iterator[str]:
    for name, channels in after.channels.items():
        was = before.channels.get(name, ())
        if len(channels) > len(was):
            yield f"{name!r} has {len(channels)} connections to the broker, and had {len(was)} before"
        elif channels and max(channels) > max(was) + _CHANNELS:
            yield f"{name!r} has {max(channels)} channels, and had {max(was)} before"


def _usage(pid: int) -> Usage:
    root = psutil.Process(pid)
    found = []
    for process in [root, *root.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            found.append((process.num_fds(), process.memory_full_info().uss))
    return Usage(descriptors=sum(each[0] for each in found), memory=sum(each[1] for each in found))


def _channels(ours: FaultSystem) -> dict[str, tuple[int, ...]]:
    # The name that a client gives itself is no column of its own in every version.
    lines = ours.broker.ctl("list_connections", "client_properties", "channels", "--no-table-headers").splitlines()
    found: dict[str, list[int]] = {}
    for named in filter(None, map(_CONNECTION.search, lines)):
        found.setdefault(named[1], []).append(int(named[2]))
    return {name: tuple(sorted(counts)) for name, counts in found.items()}

"""Machines of their own on this one: network namespaces on a switch, whose links can be cut.

All of it is held by processes only, without a name anywhere: when these end, however, the kernel takes it back.
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.waiting import wait_until

_CLONE_NEWNET = 0x40000000
#: TEST-NET-2 of RFC 5737: nobody's. It leads nowhere but to the switch.
_NETWORK = "198.51.100"
_SWITCH = "switch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One namespace with one link to the switch."""

    name: str
    address: str
    #: What is written before a command to have it run there.
    enter: tuple[str, ...]


class Network:
    """Use `network_of` to get one."""

    def __init__(self, machines: Sequence[Machine]) -> None:
        self.machines = {machine.name: machine for machine in machines}

    @contextmanager
    def unplugged(self, name: str) -> Iterator[None]:
        """Pull a machine's cable, at the switch: nobody is told that a connection has ended."""
        self.plug(name, is_in=False)
        try:
            yield
        finally:
            self.plug(name, is_in=True)

    def plug(self, name: str, *, is_in: bool) -> None:
        _run("ip", "link", "set", name, "up" if is_in else "down")

    @contextmanager
    def parted(self, name: str, *others: str) -> Iterator[None]:
        """Let nothing pass between one machine and some others, while all other ways stay as they are."""
        pairs = [pair for other in others for pair in ((name, other), (other, name))]
        self._lead_nowhere("add", pairs)
        try:
            yield
        finally:
            self._lead_nowhere("del", pairs)

    def _lead_nowhere(self, verb: str, pairs: Sequence[tuple[str, str]]) -> None:
        for source, target in pairs:
            machine = self.machines[source]
            _run(*machine.enter, "ip", "route", verb, "blackhole", f"{self.machines[target].address}/32")


def why_not() -> str:
    """Return why there can be no machines here; empty when there can."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    if missing := [tool for tool in ("ip", "nsenter", "unshare", "setpriv") if not shutil.which(tool)]:
        return f"needs {', '.join(missing)} (Debian's packages iproute2 and util-linux)"
    tried = subprocess.run(
        ["unshare", "--net", "ip", "link", "add", _SWITCH, "type", "bridge"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"no network namespaces here: {tried.stderr.strip()}" if tried.returncode else ""


@contextmanager
def network_of(*names: str) -> Iterator[Network]:
    """Move this thread, and what it starts from now on, to a network without any way out, with these machines on it."""
    holders: list[subprocess.Popen[bytes]] = []
    with _in_new_namespace():
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", _SWITCH, "type", "bridge")
        _run("ip", "address", "add", f"{_NETWORK}.1/24", "dev", _SWITCH)
        _run("ip", "link", "set", _SWITCH, "up")
        try:
            yield Network([_machine(name, number, holders) for number, name in enumerate(names, 11)])
        finally:
            for holder in holders:
                holder.kill()
                holder.wait()


def _machine(name: str, number: int, holders: list[subprocess.Popen[bytes]]) -> Machine:
    holder = subprocess.Popen(["setpriv", "--pdeathsig=KILL", "--", "unshare", "--net", "--", "sleep", "infinity"])
    holders.append(holder)
    wait_until(lambda: _comm(holder.pid) == "sleep", timeout_s=30, what=f"the namespace of {name}")
    address = f"{_NETWORK}.{number}"
    enter = ("nsenter", f"--net=/proc/{holder.pid}/ns/net", "--")
    _run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
    _run("ip", "link", "set", name, "master", _SWITCH, "up")
    _run(*enter, "ip", "address", "add", f"{address}/24", "dev", "eth0")
    _run(*enter, "ip", "link", "set", "eth0", "up")
    _run(*enter, "ip", "link", "set", "lo", "up")
    return Machine(name=name, address=address, enter=enter)


def _comm(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    return ""


@contextmanager
def _in_new_namespace() -> Iterator[None]:
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _check(libc.unshare(_CLONE_NEWNET))
        try:
            yield
        finally:
            _check(libc.setns(before, _CLONE_NEWNET))
    finally:
        os.close(before)


def _check(answer: int) -> None:
    if answer:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)

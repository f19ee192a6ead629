"""The supervisor that restarts what dies: supervisord, with a configuration written at each start."""

import os
import pwd
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from shepherd.errors import ConfigurationError
from shepherd.site.local.programs import Program

#: supervisord itself waits for each program's own limit; this is for all together.
_STOP_S = 60.0
_CONFIG = """\
[supervisord]
nodaemon = true
silent = true
user = {user}
directory = {root}
logfile = {log}/supervisord.log
pidfile = {home}/supervisord.pid
childlogdir = {log}
"""
_GROUP = """
[group:{group}]
programs = {names}
priority = {priority}
"""
_PROGRAM = """
[program:{name}]
command = {command}
environment = {environ}
directory = {root}
priority = {priority}
autorestart = true
startsecs = 2
startretries = 1000
stopsignal = {stop_signal}
stopwaitsecs = {stop_within_s}
stopasgroup = false
killasgroup = true
redirect_stderr = true
stdout_logfile = {log}/{name}.log
stdout_logfile_maxbytes = 10MB
stdout_logfile_backups = 3
"""


class Supervisor:
    """One supervisord and its programs. Ends with the process that started it, however that ends."""

    def __init__(self, *, home: Path, root: Path) -> None:
        self._home = home
        self._root = root
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, programs: Sequence[Program], *, environ: Mapping[str, str]) -> None:
        log = self._home / "log"
        log.mkdir(parents=True, exist_ok=True)
        config = self._home / "supervisord.conf"
        config.write_text(render(programs, home=self._home, root=self._root), encoding="utf-8")
        # Its own session, since Ctrl-C in the terminal is for us to pass on, in the right order.
        self._process = subprocess.Popen(  # noqa: S603  # our own command
            ["setpriv", "--pdeathsig=TERM", "--", sys.executable, "-m", "supervisor.supervisord", "-c", str(config)],  # noqa: S607
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End every program, the last first, then supervisord. Safe to call again."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def render(programs: Sequence[Program], *, home: Path, root: Path) -> str:
    """Return supervisord's configuration.

    Raises:
        ConfigurationError: A folder's name has a percent sign, which supervisord expands a second time in log files.
    """
    if "%" in f"{home}{root}":
        raise ConfigurationError(f"{home}: supervisord can't work in a folder with % in its name")
    paths = {"home": home, "root": root, "log": home / "log"}
    head = _CONFIG.format(user=pwd.getpwuid(os.geteuid()).pw_name, **paths)
    sections = [
        _PROGRAM.format(
            name=program.name,
            command=_plain(shlex.join(program.command)),
            environ=",".join(f"{name}={_quoted(value)}" for name, value in program.environ.items()),
            priority=place,
            stop_signal=program.stop_signal,
            stop_within_s=program.stop_within_s,
            **paths,
        )
        for place, program in enumerate(programs, start=1)
    ]
    return head + "".join([*sections, *_groups(programs)])


def _groups(programs: Sequence[Program]) -> Iterator[str]:
    names: dict[str, list[str]] = {}
    for program in programs:
        names.setdefault(program.group, []).append(program.name)
    for place, (group, members) in enumerate(names.items(), start=1):
        yield _GROUP.format(group=group, names=",".join(members), priority=place)


def _quoted(text: str) -> str:
    return f'"{_plain(text)}"'


def _plain(text: str) -> str:
    # supervisord reads % as the start of a placeholder.
    return text.replace("%", "%%")

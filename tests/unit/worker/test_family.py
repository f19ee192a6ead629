"""On processes of our own, since nothing else shows what a kernel does."""

import os
import subprocess
import sys
import textwrap


def _run(program: str) -> list[str]:
    """Run a program in a process of its own, which becomes a subreaper, and return the lines that it printed."""
    head = (
        "from shepherd.worker.family import *\nfrom shepherd.worker.family import _parents\nimport os, subprocess, sys"
    )
    ended = subprocess.run(
        [sys.executable, "-c", f"{head}\nbecome_subreaper()\n" + textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": "src"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split()


def test_what_a_dead_child_left_in_another_session_is_ended_and_what_others_started_is_not() -> None:
    left = _run("""
        family = Family()
        daemon = (
            "import os, time\\nif os.fork(): os._exit(0)\\n"
            "os.setsid()\\nprint(os.getpid(), flush=True)\\ntime.sleep(99)"
        )
        def start(code):
            return family.start(lambda: subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env={}))
        other = start("import time; print('up', flush=True); time.sleep(99)")
        other.stdout.readline()
        dead = start(daemon)
        pid = int(dead.stdout.readline())
        dead.wait()
        assert pid in _parents()
        family.forget(dead)
        print(pid in _parents(), other.poll())
        family.kill(other)
        print(other.pid in _parents(), len([pid for pid, parent in _parents().items() if parent == os.getpid()]))
    """)

    assert left == ["False", "None", "False", "0"]


def test_too_many_dead_are_buried_and_a_few_may_stay() -> None:
    counted = _run("""
        def children():
            return len([pid for pid, parent in _parents().items() if parent == os.getpid()])
        for _ in range(5):
            subprocess.run(["sh", "-c", "true & true & true &"], check=True)
        while children() < 15:
            pass
        bury_strays(more_than=20)
        print(children())
        bury_strays(more_than=10)
        while children():
            bury_strays(more_than=0)
        print(children())
    """)

    assert counted == ["15", "0"]

"""Random kills of every process, replayable by their seed: `python -m tests.faults.chaos --seed 1 --rounds 200`.

Half of the runs are led by publishers of their project; there are 4 workers, 2 Task Publishers, PostgreSQL, Prefect.
Tasks take up to 30 s, so that some are claimed. Ends with the checker's lines, and status 1 if one doesn't hold.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
import psycopg

from tests.support.faults.report import report
from tests.support.faults.resources import Held, held, not_flat
from tests.support.faults.system import FaultSystem, body, fault_system
from tests.support.waiting import wait_until

KINDS: Final = ("web", "task-publisher", "worker", "child", "broker", "postgres", "prefect")
#: What may be executed again when one of these is killed. A killed child fails its attempt, and the policy repeats it.
_MAY_REPEAT: Final = {"task-publisher", "worker", "broker", "postgres"}
_WORKERS: Final = tuple(f"worker-{number}" for number in range(1, 5))
_PUBLISHERS: Final = ("task-publisher", "task-publisher-2")
#: Unfinished runs at each kill.
_LIVE: Final = 20
#: Of 200 kills each kind has at least 15.
_SHARE: Final = 0.1
_REAL_TIMES: Final = {"SHEPHERD_HOLD_S": "20", "SHEPHERD_LEASE_S": "60", "SHEPHERD_BEAT_S": "10"}
#: For the first runs to end, none of which is disturbed.
_WARM_S: Final = 300.0
_FAST_TIMES: Final = {"SHEPHERD_HOLD_S": "1", "SHEPHERD_LEASE_S": "6", "SHEPHERD_BEAT_S": "0.5"}
#: Whatever befalls it, every task is to succeed in the end.
_POLICY: Final = {"retries": 50, "backoff": 1.0, "retry_on_lost": 50}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One round, as the seed says."""

    kind: str
    #: Which of several of its kind.
    which: int
    #: Seconds until it is started again, and after that until the next kill.
    down_s: float
    pause_s: float


def rounds_of(seed: int, rounds: int) -> list[Kill]:
    """Return the same kills for the same seed, each kind often enough."""
    chance = random.Random(seed)
    kinds = [kind for kind in KINDS for _ in range(int(rounds * _SHARE))]
    kinds += [chance.choice(KINDS) for _ in range(rounds - len(kinds))]
    chance.shuffle(kinds)
    return [
        Kill(kind=kind, which=chance.randrange(64), down_s=chance.uniform(0, 2), pause_s=chance.uniform(0, 3))
        for kind in kinds
    ]


@dataclass
class Storm:
    """Submits runs and kills processes."""

    ours: FaultSystem
    longest_s: float
    chance: random.Random
    live: list[int] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    _posted: int = 0

    def strike(self, kill: Kill) -> None:
        self.live.append(self._feed())
        self.kills[kill.kind] += 1
        # With the time as findings give it.
        _say(f"{sum(self.kills.values()):>4}  {kill.kind} ({self.live[-1]} runs unfinished) at {time.time():.0f}")
        getattr(self, f"_kill_{kill.kind.replace('-', '_')}")(kill)
        _let_pass(kill.pause_s)

    def warm_up(self) -> Held:
        """Let as many runs end as will be live, and return what is held then."""
        for _ in range(_LIVE):
            self._submit()
        self.ours.rest(timeout_s=_WARM_S)
        return held(self.ours)

    def _feed(self) -> int:
        """Submit until enough runs are unfinished; return how many are."""
        while (live := int(_patiently(self.ours.unended))) < _LIVE + 4:
            for _ in range(_LIVE + 8 - live):
                self._submit()
        return live

    def _submit(self) -> None:
        self._posted += 1
        n, is_led = self._posted, self._posted % 2 == 0
        steps = [(self._name(is_led=is_led), {"n": n, "seconds": self._seconds()}) for _ in range(3)]
        document = body(*steps, project="led" if is_led else "plain", **_POLICY)
        run = _patiently(lambda: self._accepted(document, key=f"chaos-{n}"))
        self.ours.accepted.append(run["id"])

    def _accepted(self, document: dict[str, Any], *, key: str) -> dict[str, Any]:
        answer = self.ours.system.api.post("/runs", json=document, headers={"Idempotency-Key": key})
        answer.raise_for_status()
        run: dict[str, Any] = answer.json()
        return run

    def _name(self, *, is_led: bool) -> str:
        return self.chance.choice(("led_step", "step", "led_thread_step")) if is_led else "step"

    def _seconds(self) -> float:
        is_long = self.chance.random() < 0.08
        return round(self.longest_s * self.chance.uniform(0.7, 1) if is_long else self.chance.uniform(0, 2), 2)

    def _kill_web(self, kill: Kill) -> None:
        self._kill("web", "web", kill)

    def _kill_task_publisher(self, kill: Kill) -> None:
        self._kill("task-publisher", _PUBLISHERS[kill.which % len(_PUBLISHERS)], kill)

    def _kill_worker(self, kill: Kill) -> None:
        self._kill("worker", _WORKERS[kill.which % len(_WORKERS)], kill)

    def _kill_broker(self, kill: Kill) -> None:
        # Until it answers: what was published while it started, which takes a busy machine long, may come twice.
        self._kill("broker", "rabbitmq", kill, until=self.ours.wait_broker)

    def _kill_prefect(self, kill: Kill) -> None:
        self._kill("prefect", "prefect", kill)

    def _kill(self, kind: str, name: str, kill: Kill, *, until: Callable[[], None] = lambda: None) -> None:
        with self.ours.injected.lasting(f"{kind} killed", may_repeat=kind in _MAY_REPEAT):
            self.ours.system.kill(name)
            _let_pass(kill.down_s)
            self.ours.system.start(name)
            until()

    def _kill_child(self, kill: Kill) -> None:
        children = sorted(self.ours.children(_WORKERS[kill.which % len(_WORKERS)]), key=lambda child: child.pid)
        self.ours.injected.note("child killed", may_repeat=False)
        if children:
            with suppress(psutil.NoSuchProcess):
                children[kill.which % len(children)].kill()

    def _kill_postgres(self, kill: Kill) -> None:
        assert self.ours.postgres is not None
        with self.ours.injected.lasting("postgres killed"):
            self.ours.postgres.kill()
            _let_pass(kill.down_s)
            self.ours.postgres.start()


def main() -> int:
    options = _options()
    rounds = rounds_of(options.seed, options.rounds)
    _say(f"make chaos SEED={options.seed} ROUNDS={options.rounds} MINUTES={options.minutes:g}")
    times = _REAL_TIMES if options.times == "real" else _FAST_TIMES
    with tempfile.TemporaryDirectory(prefix="shepherd-chaos-") as folder:
        arguments: dict[str, Any] = {"is_postgres": True, "publishers": 2, "workers": len(_WORKERS), "slots": 4}
        with fault_system(Path(folder), has_prefect=True, environ=times, **arguments) as ours:
            storm = Storm(ours, longest_s=30.0 if options.times == "real" else 4.0, chance=random.Random(options.seed))
            before = storm.warm_up()
            # Half of the time is the kills' at most, the rest everything else's.
            until = time.monotonic() + options.minutes * 30
            for kill in rounds:
                if time.monotonic() > until:
                    _say(f"out of time after {sum(storm.kills.values())} of {options.rounds} rounds")
                    break
                storm.strike(kill)
            return _conclude(ours, storm, options, before=before)


def _conclude(ours: FaultSystem, storm: Storm, options: argparse.Namespace, *, before: Held) -> int:
    kinds = ", ".join(f"{kind} {storm.kills[kind]}" for kind in KINDS)
    fault = f"random kills, seed {options.seed} ({kinds})"
    not_at_rest = []
    try:
        ours.rest(timeout_s=options.rest)
    except TimeoutError as error:
        not_at_rest.append(f"not at rest: {error}")
    found = ours.findings()
    found.others += not_at_rest or not_flat(ours, before)
    more = (
        f"at least {min(storm.live, default=0)} runs unfinished at each kill, runs {dict(found.runs)}, "
        f"{found.executions} executions, {found.repeated} of them repeated"
    )
    report("chaos", fault, injected=sum(storm.kills.values()), found=found, more=more)
    for sentence in found.all():
        _say(f"  {sentence}")
    if found.all() and options.keep:
        _say(f"kept for a look: {ours.system.config.home}, {ours.database_url}; Enter ends it")
        sys.stdin.readline()
    return 1 if found.all() else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000))
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=90.0, help="no kill begins in the second half of these")
    parser.add_argument("--times", choices=("real", "fast"), default="real", help="hold, lease and beat")
    parser.add_argument("--rest", type=float, default=600.0, help="seconds for everything to come to rest at the end")
    parser.add_argument("--keep", action="store_true", help="if something doesn't hold, wait before all is removed")
    return parser.parse_args()


def _patiently(call: Any) -> Any:
    """Repeat what may fail while a process or the database is away."""
    answers: list[Any] = []

    def tried() -> bool:
        with suppress(httpx.HTTPError, OSError, psycopg.Error):
            answers.append(call())
        return bool(answers)

    wait_until(tried, timeout_s=120, what="an answer between two kills")
    return answers[0]


def _let_pass(seconds: float) -> None:
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= until, timeout_s=seconds + 5, what="time passed")


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())

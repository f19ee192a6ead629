"""Several runs at once on a real database, and whatever Hypothesis thinks of in between."""

from datetime import timedelta
from typing import Any, Final

from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shepherd.broker.memory_server import MemoryServer
from shepherd.broker.port import Message
from shepherd.broker.topology import BEATS, EXCHANGES, REPLIES, STANDING_QUEUES, task_queue_spec
from shepherd.domain.pipeline import PipelineSpec, TaskSpec
from shepherd.domain.status import ENDED_RUN, TaskStatus
from shepherd.errors import ConflictError
from shepherd.pipelines import handles
from shepherd.pipelines.acceptance import accept
from shepherd.pipelines.models import Attempt, Run, Task
from tests.model import checks
from tests.model.ports import Died, Fate, mortal_database
from tests.model.processes import TaskPublisher, WorkerProcess
from tests.model.rows import Rows, load, read_runs, read_whole_audit
from tests.model.sayings import NAMES, heartbeats
from tests.support.engine import PROJECT

_MOST_RUNS: Final = 3
_STEPS: Final = ("start", "send", "confirm", "resend", "record", "tell", "watch")
#: Rounds in which all come to rest that nobody disturbs.
_ROUNDS: Final = 60

_places = st.integers(0, 1)


class Machine(RuleBasedStateMachine):
    """Needs a migrated database, of which it empties the tables that it uses."""

    def __init__(self) -> None:
        super().__init__()
        load(Rows((), (), ()))
        self._user, _ = User.objects.get_or_create(username="ana")
        self._server = MemoryServer()
        self._publisher = TaskPublisher(self._server)
        self._publisher.broker.declare(exchanges=EXCHANGES, queues=STANDING_QUEUES)
        self._publisher.broker.declare(queues=[task_queue_spec(name) for name in NAMES])
        self._workers = [WorkerProcess(self._server, place, spool=[]) for place in range(2)]
        self._results: dict[int, Any] = {}

    @precondition(lambda _: Run.objects.count() < _MOST_RUNS)
    @rule(tasks=st.integers(1, 2), retries=st.integers(0, 1), losses=st.integers(0, 1))
    def submit(self, tasks: int, retries: int, losses: int) -> None:
        policy = {"retries": retries, "retry_on_lost": losses}
        specs = tuple(
            TaskSpec(index=at, order_no=at, name=name, context={}, policy=policy)
            for at, name in enumerate(NAMES[:tasks])
        )
        spec = PipelineSpec(pipeline_name="p", data_url="", project=PROJECT, tasks=specs)
        accept(spec, by=self._user, now=timezone.now())

    @rule(name=st.sampled_from(_STEPS))
    def step(self, name: str) -> None:
        self._publisher.steps[name]()

    @rule(name=st.sampled_from(_STEPS), call=st.integers(1, 4))
    def die_in(self, name: str, call: int) -> None:
        """The Task Publisher is killed before one of its calls to a port; another one takes its place."""
        self._publisher.broker.fate = Fate(dies_before=call)
        try:
            with mortal_database(self._publisher.broker.fate):
                self._publisher.steps[name]()
        except Died:
            self._publisher.broker.close()
            self._publisher = TaskPublisher(self._server)
        else:
            self._publisher.broker.fate = Fate()

    @rule(place=_places)
    def take(self, place: int) -> None:
        self._welcome()
        self._workers[place].hear()
        self._workers[place].take()

    @rule()
    def publish(self) -> None:
        for name in ("start", "watch", "send"):
            self._publisher.steps[name]()

    @rule(place=_places)
    def work(self, place: int) -> None:
        """A worker does all that it does with a task that isn't long."""
        self.take(place)
        self._workers[place].finish("succeeded")
        self._workers[place].answer()

    @rule(place=_places)
    def start(self, place: int) -> None:
        self._workers[place].start()

    @rule(place=_places)
    def claim(self, place: int) -> None:
        self._workers[place].claim()

    @rule(place=_places, kind=st.sampled_from(["succeeded", "succeeded", "failed"]))
    def finish(self, place: int, kind: str) -> None:
        self._workers[place].finish(kind)

    @rule(place=_places)
    def answer(self, place: int) -> None:
        self._workers[place].answer()

    @rule(place=_places)
    def kill_worker(self, place: int) -> None:
        spool = self._workers[place].spool
        self._workers[place].die()
        self._workers[place] = WorkerProcess(self._server, place, spool=spool)

    @rule()
    def say_twice(self) -> None:
        """The latest reply is there once more."""
        with self._server.changed:
            ready = self._server.queues[REPLIES].ready
            message = ready[-1].message if ready else None
        if message is not None:
            self._server.route(message)

    @rule(is_heard=st.booleans())
    def pass_a_lease(self, is_heard: bool) -> None:
        """A lease passes, in which what workers say is heard, or isn't."""
        long_ago = timezone.now() - timedelta(days=1)
        for column in ("lease_until", "confirmed_at", "seen_at"):
            Attempt.objects.filter(**{f"{column}__isnull": False}).update(**{column: long_ago})
        if is_heard:
            for body in heartbeats([worker.token for worker in self._workers]):
                self._server.route(Message(routing_key=BEATS, body=body))
            self._publisher.hear_a_lease()

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        for number in self._chosen(data):
            try:
                handles.cancel(number, by=self._user, now=timezone.now())
            except ConflictError:
                assert Run.objects.get(number=number).status in ENDED_RUN

    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        for number in self._chosen(data):
            try:
                handles.resume(number, contexts={}, by=self._user, now=timezone.now())
            except ConflictError:
                assert Run.objects.get(number=number).status == "succeeded"

    @invariant()
    def all_rows_agree(self) -> None:
        assert not connection.in_atomic_block
        for rows in read_runs():
            assert not list(checks.rows_faults(rows))
            assert not list(checks.history_faults(rows, read_whole_audit(rows.run()["number"])))

    @invariant()
    def what_was_recorded_stays(self) -> None:
        now = dict(Task.objects.filter(status=TaskStatus.SUCCEEDED).values_list("number", "result"))
        assert now.items() >= self._results.items()
        self._results = now

    def teardown(self) -> None:
        """Whatever happened: left alone, all comes to its end."""
        try:
            for _ in range(_ROUNDS):
                if self._is_at_rest():
                    return
                self._round()
            assert self._is_at_rest(), [rows.run() for rows in read_runs()]
        finally:
            for worker in self._workers:
                worker.die()
            self._publisher.broker.close()

    def _round(self) -> None:
        for name in _STEPS:
            self._publisher.steps[name]()
        for place in range(len(self._workers)):
            self.take(place)
            self._workers[place].finish("succeeded")
            self._workers[place].answer()
        self.all_rows_agree()
        if not any(self._server.depth(queue) for queue in self._server.queues):
            self.pass_a_lease(is_heard=True)

    def _is_at_rest(self) -> bool:
        is_over = not Run.objects.exclude(status__in=ENDED_RUN).exists()
        is_idle = all(worker.is_free and not worker.spool for worker in self._workers)
        queues = [REPLIES, *(task_queue_spec(name).name for name in NAMES)]
        return is_over and is_idle and not any(self._server.depth(queue) for queue in queues)

    def _welcome(self) -> None:
        new = {f"w{place}" for place, worker in enumerate(self._workers) if worker.listed is None}
        self._publisher.withdrawing.tell_all_to(new)

    def _chosen(self, data: st.DataObject) -> list[int]:
        numbers = list(Run.objects.order_by("number").values_list("number", flat=True))
        return [data.draw(st.sampled_from(numbers))] if numbers else []

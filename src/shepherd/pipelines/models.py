"""The tables. What may be written to them, and when, is in `services.py` and `publisher/relay.py`."""

import uuid
from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from shepherd.domain.status import AttemptStatus, RunStatus, TaskStatus
from shepherd.pipelines.fields import ExactJSONField


def _choices(statuses: Any) -> list[tuple[str, str]]:
    return [(status.value, status.value) for status in statuses]


class Run(models.Model):
    """One execution of one pipeline."""

    #: The integer by which people and the old endpoints call it; also the order of acceptance.
    number = models.BigAutoField(primary_key=True)
    id = models.UUIDField(unique=True, default=uuid.uuid4, editable=False)
    project = models.CharField(max_length=100, db_index=True)
    pipeline_name = models.CharField(max_length=200)
    data_url = models.TextField(blank=True)
    #: The input of the first task as `{"inline": …}` or `{"claim": …}`; null while `data_url` isn't fetched.
    data = ExactJSONField(null=True)
    status = models.CharField(max_length=10, choices=_choices(RunStatus), default=RunStatus.ACCEPTED)
    #: Why it failed, when no task's error says so: `{"code", "message", "traceback"}`.
    error = ExactJSONField(null=True)
    accepted_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    #: Seconds between its ends and its resumes: it took the time from its start to its end without these.
    stood_still_s = models.FloatField(default=0.0, db_default=0.0)
    accepted_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    idempotency_key = models.CharField(max_length=255, null=True)  # noqa: DJ001  # null is "none given", and unique allows many
    body_sha256 = models.CharField(max_length=64, blank=True)
    #: What a caller of the old endpoints said beside the pipeline, as in `{"dataset_id": "…"}`; of no meaning here.
    labels = ExactJSONField(default=dict, db_default={})
    #: Of how many first rows of a table its first task is given only; null for a run on all of them.
    sample_rows = models.PositiveIntegerField(null=True)
    #: The run that this one repeats; null for one that a caller submitted.
    origin = models.ForeignKey("self", null=True, on_delete=models.SET_NULL, related_name="reruns")
    #: The Task Publisher that drives its flow, and until when unless it says so again. Every write of a flow names the
    #: epoch, which grows with each owner: a write of a former one changes nothing.
    owner = models.CharField(max_length=100, blank=True, default="", db_default="")
    owner_epoch = models.PositiveIntegerField(default=0, db_default=0)
    owned_until = models.DateTimeField(null=True)
    #: The flow run that shows it in Prefect; null until it has one.
    prefect_flow_run_id = models.UUIDField(null=True)
    #: `waiting`, `open`, `done`, or `absent` where Prefect didn't follow.
    prefect_state = models.CharField(max_length=10, default="waiting")
    #: Why Prefect doesn't follow, or why a flow can't be had yet; empty otherwise.
    prefect_note = models.TextField(blank=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["accepted_by", "idempotency_key"],
                condition=Q(idempotency_key__isnull=False),
                name="one_run_an_idempotency_key",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["status", "number"], name="run_status_number"),
            models.Index(
                fields=["number"], condition=Q(prefect_state__in=["waiting", "open"]), name="run_prefect_unfinished"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.number} {self.pipeline_name}"


class Task(models.Model):
    """One step of one run."""

    number = models.BigAutoField(primary_key=True)
    id = models.UUIDField(unique=True, default=uuid.uuid4, editable=False)
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="tasks")
    #: 0, 1, 2 … within the run: `order_no`, then the place in the list.
    position = models.PositiveIntegerField()
    order_no = models.BigIntegerField()
    name = models.CharField(max_length=100)
    #: As accepted; an attempt keeps the one that it was sent with.
    context = ExactJSONField()
    #: What a resume put in place of `context`; null where nothing did.
    corrected_context = ExactJSONField(null=True)
    #: The fields of `domain.policy.Policy` that differ from their defaults.
    policy = ExactJSONField(default=dict, db_default={})
    status = models.CharField(max_length=10, choices=_choices(TaskStatus), default=TaskStatus.PENDING)
    #: `{"inline": …}` or `{"claim": …}`; null until it has succeeded.
    result = ExactJSONField(null=True)
    #: What its worker says of the result, for people; null for what says everything itself.
    card = ExactJSONField(null=True)
    #: `{"code", "message", "traceback"}` of the last failed attempt; null otherwise.
    error = ExactJSONField(null=True)
    #: True when a publisher of its project publishes it, and nobody else; set when the run starts.
    is_led = models.BooleanField(default=False)
    #: Number of the latest attempt; 0 before the first.
    attempt_no = models.PositiveIntegerField(default=0)
    #: Attempts that failed or were lost since the task began, or since it was resumed.
    failures = models.PositiveIntegerField(default=0, db_default=0)
    losses = models.PositiveIntegerField(default=0, db_default=0)
    #: When the next attempt is due; only while it is pending after one that didn't succeed.
    retry_at = models.DateTimeField(null=True)
    published_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["run", "position"], name="one_task_a_position")]
        indexes: ClassVar = [
            models.Index(
                fields=["name", "status"], condition=Q(status__in=["published", "running"]), name="task_unfinished"
            ),
            models.Index(fields=["retry_at"], condition=Q(retry_at__isnull=False), name="task_retry_due"),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.order_no})"

    @property
    def effective_context(self) -> dict[str, Any]:
        """What its next attempt is sent with, unless a publisher says otherwise."""
        context: dict[str, Any] = self.context if self.corrected_context is None else self.corrected_context
        return context


class Attempt(models.Model):
    """One publishing of a task."""

    number = models.BigAutoField(primary_key=True)
    task = models.ForeignKey(Task, on_delete=models.CASCADE, related_name="attempts")
    #: Counts from 1 within the task.
    attempt_no = models.PositiveIntegerField()
    #: Whoever has it may answer for this attempt.
    token = models.CharField(max_length=64, unique=True)
    context = ExactJSONField()
    #: The input that it was sent with, `{"inline": …}` or `{"claim": …}`.
    data = ExactJSONField()
    status = models.CharField(max_length=10, choices=_choices(AttemptStatus), default=AttemptStatus.PUBLISHED)
    worker = models.CharField(max_length=255, blank=True)
    published_at = models.DateTimeField()
    #: When the broker confirmed it; until then the sweep publishes it again.
    confirmed_at = models.DateTimeField(null=True)
    #: True as long as the broker may have its message: until it was claimed, answered or dead-lettered. Of a withdrawn
    #: one, as long as a worker may have it, too.
    is_queued = models.BooleanField(default=True, db_default=True)
    #: When a worker took it over from the broker; from then on its lease runs.
    claimed_at = models.DateTimeField(null=True)
    #: By the database's clock; null before it was claimed. Of a withdrawn one that was answered, how long it is listed.
    lease_until = models.DateTimeField(null=True)
    #: When a heartbeat named it last; null until one did.
    seen_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    error = ExactJSONField(null=True)
    #: How many log lines its worker says that it wrote; more than are stored means that some were lost.
    log_lines = models.PositiveIntegerField(default=0)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["task", "attempt_no"], name="one_attempt_a_number")]
        indexes: ClassVar = [
            models.Index(
                fields=["published_at"],
                condition=Q(confirmed_at__isnull=True, status="published"),
                name="attempt_unconfirmed",
            ),
            models.Index(fields=["lease_until"], condition=Q(status="running"), name="attempt_leased"),
            models.Index(fields=["number"], condition=Q(status="withdrawn", is_queued=True), name="attempt_withdrawn"),
            models.Index(fields=["number"], condition=Q(status="lost", is_queued=True), name="attempt_lost"),
        ]

    def __str__(self) -> str:
        return f"attempt {self.attempt_no} at task {self.task_id}"


class StatusChange(models.Model):
    """One change of one status: who, from what, to what, why. Never updated, never deleted but with its run."""

    number = models.BigAutoField(primary_key=True)
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="changes")
    #: Null when the run's own status changed.
    task = models.ForeignKey(Task, null=True, on_delete=models.CASCADE, related_name="changes")
    attempt_no = models.PositiveIntegerField(null=True)
    from_status = models.CharField(max_length=10, blank=True)
    to_status = models.CharField(max_length=10)
    #: A user's name, a worker's id, or a daemon's.
    by = models.CharField(max_length=255)
    reason = models.TextField(blank=True)
    at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.from_status or '-'} → {self.to_status}"


class LogLine(models.Model):
    """One line that a task's code logged or printed."""

    number = models.BigAutoField(primary_key=True)
    attempt = models.ForeignKey(Attempt, on_delete=models.CASCADE, related_name="lines")
    #: Who executed it then: an attempt that is delivered again is executed by two.
    worker = models.CharField(max_length=255, blank=True, default="", db_default="")
    #: Counts from 1 within the worker's execution; a gap is a lost line.
    n = models.PositiveIntegerField()
    at = models.DateTimeField()
    level = models.CharField(max_length=10)
    text = models.TextField()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["attempt", "worker", "n"], name="one_line_a_number_and_worker")
        ]

    def __str__(self) -> str:
        return self.text


class WorkerSeen(models.Model):
    """A worker that announced itself, alive or not."""

    number = models.BigAutoField(primary_key=True)
    #: As in its manifest; another one after each start.
    worker = models.CharField(max_length=255, unique=True)
    host = models.CharField(max_length=255)
    pid = models.BigIntegerField()
    version = models.CharField(max_length=50)
    store = models.TextField(blank=True)
    slots = models.PositiveIntegerField()
    free_slots = models.PositiveIntegerField()
    #: `serving`, `draining` or `stopped`, as it said last.
    state = models.CharField(max_length=10)
    #: Since when one of its slots has been waiting for a delivery; null while none waits.
    idle_since = models.DateTimeField(null=True)
    first_seen_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.worker


class Offer(models.Model):
    """A task that a worker announced: together these are the catalogue."""

    number = models.BigAutoField(primary_key=True)
    worker = models.ForeignKey(WorkerSeen, on_delete=models.CASCADE, related_name="offers")
    name = models.CharField(max_length=100, db_index=True)
    description = models.TextField(blank=True)
    context_schema = ExactJSONField()
    data = models.CharField(max_length=200, blank=True)
    #: What its author wants where a caller says nothing.
    policy = ExactJSONField(default=dict, db_default={})

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["worker", "name"], name="one_offer_a_worker")]

    def __str__(self) -> str:
        return f"{self.name} by {self.worker_id}"


class Pause(models.Model):
    """A project of which no run is started until this is gone."""

    number = models.BigAutoField(primary_key=True)
    project = models.CharField(max_length=100, unique=True)
    reason = models.CharField(max_length=200, blank=True)
    #: A user's name.
    by = models.CharField(max_length=255)
    at = models.DateTimeField()

    def __str__(self) -> str:
        return self.project


class DeadMessage(models.Model):
    """A message that nobody could use, kept for people to look at."""

    number = models.BigAutoField(primary_key=True)
    at = models.DateTimeField()
    #: The queue that it came from.
    source = models.CharField(max_length=255)
    reason = models.TextField()
    body = models.TextField()

    def __str__(self) -> str:
        return f"{self.source}: {self.reason[:80]}"


class ApiToken(models.Model):
    """A right to call the API as its user. Only the token's SHA-256 is kept."""

    number = models.BigAutoField(primary_key=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=100)
    sha256 = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.name

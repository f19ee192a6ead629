"""Who announced what: the rows behind the catalogue, written by the Task Publisher as workers speak up."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import transaction
from django.db.models import TextField
from django.db.models.functions import Cast

from shepherd.domain.policy import usable_policy_of
from shepherd.pipelines import sql
from shepherd.pipelines.announced import newest_offers
from shepherd.pipelines.models import Offer, WorkerSeen
from shepherd.pipelines.sql import text
from shepherd.wire import strict_json
from shepherd.wire.beat import Beat
from shepherd.wire.manifest import Manifest, TaskOffer

_DESCRIPTION_LIMIT: Final = 20_000
_NAME_LIMIT: Final = 255
#: The largest `PositiveIntegerField` of PostgreSQL.
_COUNT_LIMIT: Final = 2**31 - 1
#: What a later manifest of the same worker may change.
_WORKER_CHANGES: Final = ("host", "pid", "version", "store", "slots", "free_slots", "state", "last_seen_at")
_OFFER_CHANGES: Final = ("description", "context_schema", "data", "policy")
#: Seconds; more than any worker is idle.
_LONGEST_IDLE: Final = 10.0 * 366 * 86_400


def announce(manifest: Manifest, *, now: datetime) -> None:
    """Store what a worker said of itself and of its tasks; safe to call again with the same manifest.

    `now` counts as the moment in which it was seen: the worker's own clock may be wrong.
    """
    with transaction.atomic():
        [seen] = WorkerSeen.objects.bulk_create(
            [_seen(manifest, now=now)],
            update_conflicts=True,
            unique_fields=["worker"],
            update_fields=_WORKER_CHANGES,
        )
        if changed := _changed_offers(seen, manifest.tasks):
            Offer.objects.bulk_create(
                changed, update_conflicts=True, unique_fields=["worker", "name"], update_fields=_OFFER_CHANGES
            )


def beat(beats: Sequence[Beat], *, now: datetime) -> None:
    """Store that these workers live; beats of workers that never announced themselves change nothing."""
    last = {text(each.worker, _NAME_LIMIT): each for each in beats}
    sql.execute_many(
        "UPDATE pipelines_workerseen SET last_seen_at = %s, free_slots = %s, idle_since = %s WHERE worker = %s",
        [
            (sql.time(now), _count(each.free_slots), _idle_since(each, now=now), worker)
            # In one order, so that two Task Publishers don't wait for each other.
            for worker, each in sorted(last.items())
        ],
    )


def gone_workers(*, before: datetime) -> list[int]:
    """Return the numbers of workers that were heard of before a time and not since, oldest first.

    Without those whose offer is what the catalogue shows of a name: one that was announced once is never forgotten.
    """
    shown = list(newest_offers().values_list("worker", flat=True))
    gone = WorkerSeen.objects.filter(last_seen_at__lt=before).exclude(number__in=shown).order_by("number")
    return list(gone.values_list("number", flat=True))


def forget_workers(numbers: Sequence[int], *, before: datetime) -> int:
    """Remove these with what they offered, unless they were heard of again; return how many went."""
    with transaction.atomic():
        gone = WorkerSeen.objects.select_for_update().filter(number__in=numbers, last_seen_at__lt=before)
        found = list(gone.order_by("number").values_list("number", flat=True))
        Offer.objects.filter(worker__in=found).delete()
        WorkerSeen.objects.filter(number__in=found).delete()
    return len(found)


def _idle_since(beat: Beat, *, now: datetime) -> Any:
    return sql.time(now - timedelta(seconds=min(beat.idle_s, _LONGEST_IDLE))) if beat.idle_s > 0 else None


def _seen(manifest: Manifest, *, now: datetime) -> WorkerSeen:
    return WorkerSeen(
        worker=text(manifest.worker, _NAME_LIMIT),
        host=text(manifest.host, _NAME_LIMIT),
        pid=_count(manifest.pid),
        version=text(manifest.version, 50),
        store=text(manifest.store, 2_000),
        slots=_count(manifest.slots),
        free_slots=_count(manifest.free_slots),
        state=manifest.state,
        first_seen_at=now,
        last_seen_at=now,
    )


def _changed_offers(seen: WorkerSeen, tasks: Sequence[TaskOffer]) -> list[Offer]:
    # By name, since one statement can't insert the same row twice.
    wanted = {task.name: _offer(seen, task) for task in tasks}
    stored: dict[str, Any] = {
        name: (description, schema, data, policy)
        for name, description, schema, data, policy in Offer.objects.filter(worker=seen)
        .annotate(schema_text=Cast("context_schema", TextField()), policy_text=Cast("policy", TextField()))
        .values_list("name", "description", "schema_text", "data", "policy_text")
    }
    # Manifests come every 10 s from every worker and hardly ever differ.
    return [offer for name, offer in wanted.items() if stored.get(name) != _as_stored(offer)]


def _as_stored(offer: Offer) -> tuple[str, ...]:
    return offer.description, strict_json.dumps(offer.context_schema), offer.data, strict_json.dumps(offer.policy)


def _offer(seen: WorkerSeen, task: TaskOffer) -> Offer:
    return Offer(
        worker=seen,
        name=task.name,
        description=text(task.description, _DESCRIPTION_LIMIT),
        context_schema=task.context_schema,
        data=text(task.data, 200),
        policy=usable_policy_of(task.policy),
    )


def _count(number: int) -> int:
    return min(max(number, 0), _COUNT_LIMIT)

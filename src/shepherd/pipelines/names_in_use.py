"""Which tasks' names mean something on this server: what has to be on the broker is told from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Max

from shepherd.domain.status import UNFINISHED_RUN, UNFINISHED_TASK
from shepherd.pipelines.models import Offer, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class NamesInUse:
    #: Every name that was ever announced, and when a worker of it was heard of last.
    announced: Mapping[str, datetime]
    #: Names of tasks that are published and not ended.
    awaited: frozenset[str]


def names_in_use() -> NamesInUse:
    seen = Offer.objects.values("name").annotate(at=Max("worker__last_seen_at")).values_list("name", "at")
    awaited = Task.objects.filter(status__in=UNFINISHED_TASK).values_list("name", flat=True).distinct()
    return NamesInUse(announced=dict(seen), awaited=frozenset(awaited))


def known_names() -> frozenset[str]:
    """Return every name that was ever announced, or that a task of a stored run has."""
    offered = Offer.objects.values_list("name", flat=True).distinct()
    return frozenset(offered) | frozenset(Task.objects.values_list("name", flat=True).distinct())


def needed_names(*, since: datetime) -> frozenset[str]:
    """Return the names that a worker served since a time, and those of all tasks whose run hasn't ended."""
    served = Offer.objects.filter(worker__last_seen_at__gte=since).values_list("name", flat=True)
    wanted = Task.objects.filter(run__status__in=UNFINISHED_RUN).values_list("name", flat=True).distinct()
    return frozenset(served) | frozenset(wanted)

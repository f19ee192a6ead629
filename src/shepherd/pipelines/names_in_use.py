"""Which tasks' names mean something on this server: what has to be on the broker is told from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Max

from shepherd.domain.status import UNFINISHED_TASK
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

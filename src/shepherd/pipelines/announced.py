"""Which tasks were ever announced, by whom, and who of them is there now."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db.models import Count, F, Max, OuterRef, Q, QuerySet, Subquery, Sum, TextField
from django.db.models.functions import Cast, Coalesce

from shepherd.pipelines.models import Offer, WorkerSeen


def is_live(*, now: datetime) -> Q:
    """Return the condition on an offer that its worker serves, and was heard of lately."""
    return Q(worker__state="serving", worker__last_seen_at__gte=now - settings.SHEPHERD.worker_gone_after)


def newest_offers() -> QuerySet[Offer]:
    """Return of each name ever announced the offer of the worker that was heard of last."""
    newest = Offer.objects.filter(name=OuterRef("name")).order_by("-worker__last_seen_at", "-number").values("number")
    return Offer.objects.filter(number=Subquery(newest[:1]))


def announced_schemas(names: Collection[str], *, now: datetime) -> dict[str, list[str]]:
    """Return, for each of these names that was ever announced, the texts of the schemas that count, the newest first.

    Those of live workers count; where none lives, the newest one.
    """
    newest = newest_offers().filter(name__in=names).values("number")
    offers = (
        Offer.objects.filter(name__in=names)
        .filter(is_live(now=now) | Q(number__in=newest))
        .order_by(F("worker__last_seen_at").desc(), F("number").desc())
        .values_list("name", Cast("context_schema", TextField()))
    )
    schemas: dict[str, dict[str, None]] = {}
    for name, schema in offers:
        schemas.setdefault(name, {})[schema] = None
    return {name: list(texts) for name, texts in schemas.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """Who serves a name now."""

    #: Live workers, their slots and how many of these are free.
    workers: int
    slots: int
    free_slots: int
    #: When any worker of this name was heard of last.
    last_seen_at: datetime


def availability(names: Collection[str] | None = None, *, now: datetime) -> dict[str, Availability]:
    """Return who serves each of these names, or all names; one that nobody ever announced is left out."""
    offers = Offer.objects.all() if names is None else Offer.objects.filter(name__in=names)
    live = is_live(now=now)
    counted = offers.values("name").annotate(
        workers=Count("worker", filter=live),
        slots=Coalesce(Sum("worker__slots", filter=live), 0),
        free_slots=Coalesce(Sum("worker__free_slots", filter=live), 0),
        last_seen_at=Max("worker__last_seen_at"),
    )
    return {
        row["name"]: Availability(
            workers=row["workers"],
            slots=row["slots"],
            free_slots=row["free_slots"],
            last_seen_at=row["last_seen_at"],
        )
        for row in counted
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueEntry:
    """A task that some worker announced once."""

    name: str
    description: str
    context_schema: dict[str, Any]
    #: What its function wants as input; empty when it takes none.
    data: str
    availability: Availability
    #: Those that serve it now.
    workers: tuple[WorkerSeen, ...]


def catalogue(*, now: datetime) -> list[CatalogueEntry]:
    """Return every name ever announced, with its newest schema and who serves it now, in the order of the alphabet."""
    newest = list(newest_offers().order_by("name"))
    available = availability(now=now)
    serving: dict[str, list[WorkerSeen]] = {}
    for offer in Offer.objects.filter(is_live(now=now)).select_related("worker").defer("context_schema", "description"):
        serving.setdefault(offer.name, []).append(offer.worker)
    return [
        CatalogueEntry(
            name=offer.name,
            description=offer.description,
            context_schema=offer.context_schema,
            data=offer.data,
            availability=available[offer.name],
            workers=tuple(sorted(serving.get(offer.name, []), key=lambda worker: worker.worker)),
        )
        for offer in newest
        if offer.name in available
    ]

"""Which Task Publisher drives a run's flow: one at a time, and another one when it is gone.

Times are by the database's clock, which all Task Publishers share.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from shepherd.pipelines.models import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A Task Publisher as an owner of runs."""

    #: Another one after each start.
    name: str
    #: How long a run stays its own without a `renew`.
    lease: timedelta
    #: True where no other Task Publisher can be alive: whoever owned a run before is gone.
    is_alone: bool = False

    def free(self, runs: QuerySet[Run]) -> QuerySet[Run]:
        """Return those of these runs that could be taken."""
        return runs if self.is_alone else runs.filter(Q(owner="") | Q(owner=self.name) | Q(owned_until__lt=Now()))

    def take(self, numbers: Collection[int]) -> dict[int, int]:
        """Become the owner of these runs, unless another one lives; return the epochs of those that were taken.

        A write that names the epoch of an earlier owner changes nothing from here on.
        """
        if not numbers:
            return {}
        with transaction.atomic():
            free = self.free(Run.objects.filter(number__in=numbers))
            taken = list(free.select_for_update(skip_locked=True, of=("self",)).values_list("number", flat=True))
            Run.objects.filter(number__in=taken).update(
                owner=self.name, owner_epoch=F("owner_epoch") + 1, owned_until=Now() + self.lease
            )
            return dict(Run.objects.filter(number__in=taken).values_list("number", "owner_epoch"))

    def renew(self, epochs: dict[int, int]) -> set[int]:
        """Stay the owner of these runs, given by number with their epochs; return those that are another one's now."""
        if not epochs:
            return set()
        Run.objects.filter(number__in=epochs, owner=self.name).update(owned_until=Now() + self.lease)
        current = dict(Run.objects.filter(number__in=epochs, owner=self.name).values_list("number", "owner_epoch"))
        return {number for number, epoch in epochs.items() if current.get(number) != epoch}

    def resumed(self, epochs: dict[int, int]) -> set[int]:
        """Return which of these runs (numbers and epochs) were resumed since, and are nobody's yet."""
        if not epochs:
            return set()
        nobodys = dict(Run.objects.filter(number__in=epochs, owner="").values_list("number", "owner_epoch"))
        return {number for number, epoch in nobodys.items() if epoch != epochs[number]}

    def give_up(self) -> None:
        """Let anybody take at once what is owned here."""
        Run.objects.filter(owner=self.name).update(owner="", owned_until=None)

"""Projects of which no run is started for a while."""

from datetime import datetime

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction

from shepherd.errors import NotFoundError
from shepherd.names import project_key
from shepherd.pipelines import wakeup
from shepherd.pipelines.models import Pause
from shepherd.pipelines.projects import Project, known_projects


def pause(project: str, *, by: User, reason: str, now: datetime) -> Pause:
    """Start no run of a project until `unpause`; what runs already goes on. One that is paused stays as it is.

    Raises:
        NotFoundError: There is no such project.
    """
    known = _known(project)
    row, _ = Pause.objects.get_or_create(
        project=known.key, defaults={"by": by.get_username(), "reason": reason, "at": now}
    )
    return row


def unpause(project: str) -> None:
    """Start the runs of a project again, in the order of their acceptance. One that isn't paused stays as it is.

    Raises:
        NotFoundError: There is no such project.
    """
    known = _known(project)
    with transaction.atomic():
        Pause.objects.filter(project=known.key).delete()
        transaction.on_commit(wakeup.wake, robust=True)


def _known(project: str) -> Project:
    known = known_projects(settings.SHEPHERD.projects_folder).get(project_key(project))
    if known is None:
        raise NotFoundError(f"there is no project {project[:100]!r}")
    return known

"""Database, store, Prefect, clocks, and the settings of the pages."""

import importlib.metadata
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final
from urllib.parse import unquote, urlsplit

import httpx
from django.db import DatabaseError, InterfaceError, connection
from django.db.migrations.executor import MigrationExecutor

from shepherd.errors import ConfigurationError, ShepherdError
from shepherd.pipelines.announced import availability
from shepherd.pipelines.models import WorkerSeen
from shepherd.pipelines.policies import project_policies
from shepherd.pipelines.projects import known_projects
from shepherd.site.doctor.finding import Finding, error, ok, unseen, warning
from shepherd.site.doctor.situation import Situation, is_loopback
from shepherd.store import open_store

_PREFECT_S: Final = 5.0
#: Less than what one large result takes.
_LITTLE_SPACE: Final = 1024**3
#: Times that people compare differ visibly from here on; nothing is decided by comparing two machines' clocks.
_SKEW_S: Final = 5.0


def database(_situation: Situation) -> Iterator[Finding]:
    try:
        missing = _unapplied()
    except (DatabaseError, InterfaceError) as failure:
        yield error(
            f"the database does not answer: {str(failure).strip()}",
            why="nothing is accepted, published or recorded without it",
            remedy="mend SHEPHERD_DATABASE_URL, or start the database that it names",
        )
        return
    if missing:
        yield error(
            f"{len(missing)} migrations are not applied, the first is {missing[0]}",
            why="the code expects tables and columns that are not there",
            remedy="python manage.py migrate",
        )
        return
    yield ok(f"{connection.vendor} answers, all migrations are applied")


def _unapplied() -> list[str]:
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return [f"{migration.app_label}.{migration.name}" for migration, _ in plan]


def store(situation: Situation) -> Iterator[Finding]:
    url = situation.config.store_url
    try:
        opened = open_store(url)
        opened.check()
        claim = opened.put(b"doctor", key=f"doctor-{os.getuid()}/written", media_type="text/plain")
        opened.read(claim)
    except (ShepherdError, ConfigurationError) as failure:
        yield error(
            f"the store {url} can't be written and read: {failure}",
            why="data between tasks lies there: tasks that return more than 64 KiB would fail",
            remedy=_store_remedy(url),
        )
        return
    yield ok(f"{url} can be written and read")
    if urlsplit(url).scheme == "file":
        yield from _space(url)


def _store_remedy(url: str) -> str:
    if urlsplit(url).scheme == "s3":
        return f"aws s3 ls {url}/ with the same AWS_… variables; its user needs to get, put, list and delete objects"
    return "make the folder of SHEPHERD_STORE writable for the user of this process: chown -R shepherd: FOLDER"


def _space(url: str) -> Iterator[Finding]:
    free = shutil.disk_usage(unquote(urlsplit(url).path)).free
    if free < _LITTLE_SPACE:
        yield warning(
            f"the store has {free // 1024**2} MiB left",
            why="a result that finds no room fails its task",
            remedy=f"make room on the file system of {url}, as with: python manage.py prune --older-than 30d",
        )


def workers(situation: Situation) -> Iterator[Finding]:
    live = WorkerSeen.objects.filter(
        last_seen_at__gte=situation.at - situation.config.worker_gone_after, state="serving"
    ).order_by("worker")
    ours = situation.config.store_url.rstrip("/")
    strangers = [each for each in live if each.store and each.store.rstrip("/") != ours]
    for each in strangers:
        yield error(
            f"the worker {each.worker} keeps data in {each.store}, the Task Publisher in {ours}",
            why="what it returns by claim check can't be fetched by others",
            remedy=f"start it with SHEPHERD_STORE={ours}",
        )
    unserved = list(_unserved(situation))
    yield from unserved
    if not strangers and not unserved:
        yield ok(f"{len(live)} workers serve")


def _unserved(situation: Situation) -> Iterator[Finding]:
    names = situation.names.awaited if situation.names else frozenset()
    served = availability(names, now=situation.at)
    for name in sorted(names):
        found = served.get(name)
        if found is None or not (found.workers or found.draining):
            since = f"has since {found.last_seen_at:%Y-%m-%d %H:%M} UTC" if found else "ever has"
            yield warning(
                f"a task {name!r} waits, and no worker serves it; none {since}",
                why="it waits for as long as that is so, and its run with it",
                remedy=f"start a worker whose file defines {name!r}, or cancel the run",
            )


def prefect(situation: Situation) -> Iterator[Finding]:
    if not situation.config.is_prefect_on:
        yield ok("left out by SHEPHERD_PREFECT")
        return
    url = situation.config.prefect_api_url
    try:
        told = _prefect_version(url)
    except (httpx.HTTPError, ValueError) as failure:
        yield warning(
            f"Prefect does not answer at {url}: {str(failure) or type(failure).__name__}",
            why="runs go on and aren't shown there; publishers are called without Prefect's engine, after 10 s",
            remedy="mend PREFECT_API_URL, or start it: systemctl start shepherd-prefect",
        )
        return
    ours = importlib.metadata.version("prefect")
    if told != ours:
        yield warning(
            f"Prefect's server is version {told}, the Task Publisher's client {ours}",
            why="a client and a server of different versions may not understand each other",
            remedy=f"pip install prefect=={ours} where the server runs, and restart it",
        )
    elif not is_loopback(urlsplit(url).hostname or "") and not _has_credentials():
        yield warning(
            f"Prefect answers at {url} to whoever asks",
            why="its API can delete and start anything in it",
            remedy="bind it to 127.0.0.1, or set PREFECT_SERVER_API_AUTH_STRING there and PREFECT_API_AUTH_STRING here",
        )
    else:
        yield ok(f"version {told} answers at {url}")


def _prefect_version(url: str) -> str:
    secret = os.environ.get("PREFECT_API_AUTH_STRING", "")
    user, _, password = secret.partition(":")
    answer = httpx.get(
        f"{url.rstrip('/')}/admin/version",
        timeout=_PREFECT_S,
        trust_env=False,
        auth=(user, password) if secret else None,
    )
    answer.raise_for_status()
    return str(answer.json())


def _has_credentials() -> bool:
    return bool(os.environ.get("PREFECT_API_AUTH_STRING") or os.environ.get("PREFECT_API_KEY"))


def clocks(situation: Situation) -> Iterator[Finding]:
    skews = {"the database": _database_ahead_s()}
    if situation.facts is not None:
        skews["the broker"] = situation.facts.clock_ahead_s
    seen = {name: ahead for name, ahead in skews.items() if ahead is not None}
    for name, ahead in seen.items():
        if abs(ahead) > _SKEW_S:
            yield warning(
                f"the clock of {name} is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's",
                why="times in logs, pages and messages can't be compared; nothing is lost by it",
                remedy="timedatectl set-ntp true, on both machines",
            )
        else:
            yield ok(f"the clock of {name} agrees with this machine's within {_SKEW_S:g} s")
    for name in skews.keys() - seen.keys():
        yield unseen(f"the clock of {name}")


def _database_ahead_s() -> float | None:
    if connection.vendor == "sqlite":
        # It has none of its own.
        return 0.0
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT clock_timestamp()")
            told: datetime = cursor.fetchone()[0]
    except (DatabaseError, InterfaceError):
        return None
    return (told - datetime.now(UTC)).total_seconds()


def pages(situation: Situation) -> Iterator[Finding]:
    config = situation.config
    if config.is_debug:
        yield warning(
            "SHEPHERD_DEBUG is on",
            why="an error's page shows settings and values to whoever meets it",
            remedy="SHEPHERD_DEBUG=off, and restart the web server",
        )
    if not config.secret_key:
        yield warning(
            "SHEPHERD_SECRET_KEY is not set",
            why="each web process makes one up: logins end with it, and two processes don't share them",
            remedy="SHEPHERD_SECRET_KEY=$(openssl rand -base64 48), in /etc/shepherd/server.env",
        )
    elif not config.is_debug:
        yield ok("a secret key is set, debugging is off")


def projects(situation: Situation) -> Iterator[Finding]:
    folder = situation.config.projects_folder
    if not folder.is_dir():
        yield error(
            f"there is no folder {folder}",
            why="every pipeline is refused, since its project isn't known",
            remedy="set SHEPHERD_PROJECTS to the folder that holds the projects' folders",
        )
        return
    found = known_projects(folder).values()
    faulty = [project for project in found if project.fault]
    for project in faulty:
        yield error(
            f"project {project.key} can't be used: {project.fault}",
            why="its pipelines are refused, and its runs wait: nobody can say what its flow.py and its workers are",
            remedy="let one folder have this name, and let the server's processes read it",
        )
    stated = [fault for project in found if not project.fault for fault in project_policies(project).faults]
    for fault in stated:
        yield error(fault, why="the pipelines of its project are refused meanwhile", remedy="mend what is named")
    if not (faulty or stated):
        yield ok(f"the projects are in {folder}")

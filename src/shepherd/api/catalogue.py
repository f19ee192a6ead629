"""The documents of what stands around runs: projects, and the catalogue of tasks."""

from datetime import datetime
from typing import Any

from ninja import Field, Schema

from shepherd.pipelines.models import Pause
from shepherd.pipelines.queries import CatalogueEntry, ProjectState


class PauseOut(Schema):
    by: str
    since: datetime
    reason: str

    @classmethod
    def of(cls, pause: Pause) -> "PauseOut":
        return cls(by=pause.by, since=pause.at, reason=pause.reason)


class ProjectOut(Schema):
    name: str
    has_flow: bool = Field(description="True when its `flow.py` holds publishers of its own.")
    paused: PauseOut | None = Field(description="Null unless its runs aren't started at the moment.")
    faults: list[str] = Field(
        description="What is wrong with its folder or `project.toml`; no pipeline is accepted meanwhile."
    )

    @classmethod
    def of(cls, state: ProjectState) -> "ProjectOut":
        return cls(
            name=state.project.key,
            has_flow=state.project.flow_file is not None,
            paused=PauseOut.of(state.pause) if state.pause is not None else None,
            faults=list(state.faults),
        )


class ServingOut(Schema):
    worker: str
    host: str
    slots: int
    free_slots: int


class CatalogueOut(Schema):
    name: str
    description: str = Field(description="The docstring of the task's function.")
    context_schema: Any = Field(description="JSON Schema 2020-12 of the context, as announced last.")
    data: str = Field(description="What it wants as its input, as in `polars.LazyFrame`; empty when it takes none.")
    policy: dict[str, Any] = Field(
        description="What its author wants where a caller says nothing: only what is stated."
    )
    is_served: bool = Field(description="True when a worker of this name is there now.")
    last_seen_at: datetime
    workers: list[ServingOut]

    @classmethod
    def of(cls, entry: CatalogueEntry) -> "CatalogueOut":
        return cls(
            name=entry.name,
            description=entry.description,
            context_schema=entry.context_schema,
            data=entry.data,
            policy=entry.policy,
            is_served=entry.availability.workers > 0,
            last_seen_at=entry.availability.last_seen_at,
            workers=[
                ServingOut(worker=seen.worker, host=seen.host, slots=seen.slots, free_slots=seen.free_slots)
                for seen in entry.workers
            ],
        )

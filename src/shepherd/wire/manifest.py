"""A worker's announcement of itself and of the tasks that it serves."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from shepherd.errors import ProtocolError
from shepherd.wire import strict_json
from shepherd.wire.fields import VERSION, Fields, format_time, parse_document, readable


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOffer:
    """One task that a worker serves."""

    name: str
    #: The docstring of the task's function.
    description: str
    #: JSON Schema 2020-12 of the context; `{}` takes anything.
    context_schema: dict[str, Any]
    #: What the function wants as its input, as in `polars.LazyFrame`; empty when it takes none.
    data: str = ""
    #: What its author wants where a caller says nothing, as in `{"retries": 3}`: see `domain/policy.py`.
    policy: dict[str, Any] = field(default_factory=dict)

    def to_wire(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "description": readable(self.description),
            "context_schema": self.context_schema,
            "data": self.data,
            **({"policy": self.policy} if self.policy else {}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Who a worker is and what it serves; sent at its start, every 10 s, when asked, and at its end."""

    #: Unique for each start of a worker, as in `columns@node-3:4711:9f2c41`.
    worker: str
    at: datetime
    host: str
    pid: int
    #: Of the SDK.
    version: str
    slots: int
    free_slots: int
    #: `serving`, `draining` or `stopped`.
    state: str
    #: URL of the store that it reads and writes.
    store: str
    tasks: tuple[TaskOffer, ...]
    #: True until the worker has the list of withdrawn attempts, which it takes nothing without.
    wants_withdrawals: bool = False

    def to_bytes(self) -> bytes:
        document = {
            "v": VERSION,
            "type": "manifest",
            "worker": self.worker,
            "at": format_time(self.at),
            "host": self.host,
            "pid": self.pid,
            "version": self.version,
            "slots": self.slots,
            "free_slots": self.free_slots,
            "state": self.state,
            "store": self.store,
            "tasks": [task.to_wire() for task in self.tasks],
            **({"wants_withdrawals": True} if self.wants_withdrawals else {}),
        }
        return strict_json.dumps(document).encode()

    @classmethod
    def parse(cls, body: bytes) -> "Manifest":
        """Return the manifest that a delivery from `shepherd.beats` holds.

        Raises:
            ProtocolError: It holds none; the text names the field.
        """
        fields = Fields(parse_document(body))
        if fields.text("type") != "manifest":
            raise ProtocolError(f"type: is {fields.text('type')!r}, wanted 'manifest'")
        state = fields.text("state")
        if state not in {"serving", "draining", "stopped"}:
            raise ProtocolError(f"state: {state!r} is neither 'serving' nor 'draining' nor 'stopped'")
        offers = (Fields(task, path=f"tasks[{index}]") for index, task in enumerate(fields.items("tasks")))
        return cls(
            worker=fields.id("worker"),
            at=fields.time("at"),
            host=fields.words("host", longest=255),
            pid=fields.count("pid"),
            version=fields.words("version", longest=50),
            slots=fields.count("slots"),
            free_slots=fields.count("free_slots"),
            state=state,
            store=fields.words("store"),
            tasks=tuple(_parse_offer(offer) for offer in offers),
            wants_withdrawals=fields.flag("wants_withdrawals", False),
        )


def _parse_offer(fields: Fields) -> TaskOffer:
    return TaskOffer(
        name=fields.task_name("name"),
        description=fields.words("description", ""),
        context_schema=fields.object("context_schema"),
        data=fields.words("data", "", longest=200),
        policy=fields.object("policy", {}),
    )

"""What the documentation says of the bodies that the API reads by itself."""

from typing import Any, Final

from shepherd.api.asked import REASON_LIMIT
from shepherd.domain.pipeline import MAX_NAME_LENGTH, MAX_SAMPLE_ROWS, MAX_TASKS, MAX_URL_LENGTH
from shepherd.names import TASK_NAME

_SAMPLE: Final = {
    "pipeline_name": "sentinel_pipeline",
    "data_url": "",
    "project": "ids-drr",
    "transformers_list": [
        {"name": "sentinel", "order_no": 1, "context": {"date_start": "2023-05-01", "date_end": "2023-06-01"}},
        {"name": "sentinel_upload_to_s3", "order_no": 2, "context": {}},
    ],
}

_OTHERWISE: Final = "Without it, what the task's author or its project says counts, else"
_POLICY: Final = {
    "retries": {
        "type": "integer",
        "minimum": 0,
        "maximum": 1000,
        "description": f"How many attempts may follow a failed one. {_OTHERWISE} 0.",
    },
    "backoff": {
        "type": "number",
        "minimum": 0,
        "maximum": 600,
        "description": "Seconds: the longest first pause between two attempts; each next one may be twice as long, up "
        f"to ten minutes. {_OTHERWISE} 5.",
    },
    "retry_on_lost": {
        "type": "integer",
        "minimum": 0,
        "maximum": 1000,
        "description": f"How many attempts may follow one that was lost with its worker. {_OTHERWISE} 3.",
    },
    "wait_timeout": {
        "type": ["number", "null"],
        "minimum": 0.001,
        "description": f"Seconds until a worker has begun it; null for no limit. {_OTHERWISE} null.",
    },
    "run_timeout": {
        "type": ["number", "null"],
        "minimum": 0.001,
        "description": f"Seconds that one attempt may run; null for no limit. {_OTHERWISE} null.",
    },
}

_TASK: Final = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "order_no"],
    "properties": {
        "name": {
            "type": "string",
            "pattern": f"^{TASK_NAME.pattern}$",
            "description": "The task's name in the catalogue. One that no worker has announced yet is accepted with a "
            "warning, and waits.",
        },
        "order_no": {
            "type": "integer",
            "description": "Tasks run in this order; equal numbers keep their order in the list.",
        },
        "context": {
            "type": "object",
            "default": {},
            "description": "The task's parameters. Checked against the schema in the catalogue, stored as sent.",
        },
        **_POLICY,
    },
}

_ROWS: Final = {"type": ["integer", "null"], "minimum": 1, "maximum": MAX_SAMPLE_ROWS}

_PIPELINE: Final = {
    "type": "object",
    "additionalProperties": False,
    "required": ["pipeline_name", "project", "transformers_list"],
    "properties": {
        "pipeline_name": {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_NAME_LENGTH,
            "description": "Anything that people recognise it by.",
        },
        "data_url": {
            "type": "string",
            "maxLength": MAX_URL_LENGTH,
            "default": "",
            "description": "Where the first task's input is fetched from: http, https, s3 or file, or empty.",
        },
        "project": {"type": "string", "description": "One of `/projects`; hyphens and underscores are the same."},
        "sample_rows": {
            **_ROWS,
            "default": None,
            "description": "Only try the pipeline out: its first task is given so many first rows of a table. What "
            "isn't a table is given whole. Code can ask `current_task().is_sample`.",
        },
        "transformers_list": {"type": "array", "minItems": 1, "maxItems": MAX_TASKS, "items": _TASK},
    },
    "example": _SAMPLE,
}

_CORRECTED: Final = {
    "type": "object",
    "additionalProperties": {"type": "object"},
    "default": {},
    "description": "Whole contexts to go in place of the earlier ones, each under its task's name, or "
    "under its `order_no` as text. Checked like those of a submitted pipeline.",
}

_CONTEXTS: Final = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"contexts": _CORRECTED},
    "example": {"contexts": {"sentinel": {"date_start": "2023-05-01", "date_end": "2023-06-01"}}},
}

_RERUN: Final = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "contexts": _CORRECTED,
        "sample_rows": {
            **_ROWS,
            "description": "Try it out on so many first rows; null: on all of them. Left out: as the earlier run.",
        },
    },
    "example": {"sample_rows": 1000},
}

_REASON: Final = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "reason": {"type": "string", "maxLength": REASON_LIMIT, "default": "", "description": "Shown to everybody."}
    },
    "example": {"reason": "the archive moves to another server"},
}


def _body(schema: dict[str, Any], *, is_required: bool) -> dict[str, Any]:
    return {"requestBody": {"required": is_required, "content": {"application/json": {"schema": schema}}}}


SUBMIT: Final = _body(_PIPELINE, is_required=True)
CONTEXTS: Final = _body(_CONTEXTS, is_required=False)
RERUN: Final = _body(_RERUN, is_required=False)
REASON: Final = _body(_REASON, is_required=False)

"""What the documentation says of the one body that the API reads by itself."""

from typing import Any, Final

from shepherd.domain.pipeline import MAX_NAME_LENGTH, MAX_TASKS, MAX_URL_LENGTH
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
    },
}

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
            "description": "An http or https address that the first task's input is fetched from, or empty.",
        },
        "project": {"type": "string", "description": "One of `/projects`; hyphens and underscores are the same."},
        "transformers_list": {"type": "array", "minItems": 1, "maxItems": MAX_TASKS, "items": _TASK},
    },
    "example": _SAMPLE,
}

SUBMIT: Final[dict[str, Any]] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": _PIPELINE}}},
}

"""Columns of a kind that Django doesn't have."""

from typing import Any

from django.db import models

from shepherd.wire import strict_json


class ExactJSONField(models.TextField):  # type: ignore[type-arg]  # Django's own class takes no arguments at run time
    """JSON kept as ASCII text, so that values, the order of keys and every character stay as they were sent.

    Not `jsonb`, which reorders keys, merges doubles and refuses NUL.
    """

    #: For the types' plug-in only: what may be assigned, and what is read.
    _pyi_private_set_type: Any
    _pyi_private_get_type: Any

    def from_db_value(self, value: str | None, *_: object) -> Any:
        return None if value is None else strict_json.loads(value)

    def to_python(self, value: Any) -> Any:
        return value

    def get_prep_value(self, value: Any) -> str | None:
        return None if value is None else strict_json.dumps(value)

    def value_to_string(self, obj: models.Model) -> str:
        return self.get_prep_value(self.value_from_object(obj)) or ""

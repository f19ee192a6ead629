"""The data card of one task, as a part of its run's page: fetched when it comes into view, since it never changes."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe

from shepherd.errors import ConflictError, NotFoundError
from shepherd.pipelines import queries
from shepherd.ui.access import logged_in
from shepherd.wire.media import PARQUET

_FORMS = (("CSV", "csv"), ("JSON", "json"), ("Parquet", "parquet"), ("Excel", "xlsx"))
#: What a browser draws without running anything in it.
_DRAWN = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp"})
#: An image larger than this isn't fetched to be looked at.
_MOST_DRAWN = 20 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCard:
    """A card with what the page makes of it."""

    card: dict[str, Any]
    #: Where the data itself is.
    address: str

    @property
    def downloads(self) -> list[tuple[str, str]]:
        """The words and addresses of the links."""
        if self.card.get("kind") != "table":
            return [("Download", self.address)]
        return [(word, f"{self.address}?format={form}") for word, form in _FORMS]

    @property
    def parts(self) -> list[dict[str, Any]]:
        """What a folder or several values consist of; each value with the words and addresses of its links."""
        return [
            {**part, "parts": part.get("items"), "downloads": self._of_part(part)}
            for part in self.card.get("files", [])
        ]

    def _of_part(self, part: dict[str, Any]) -> list[tuple[str, str]]:
        # Of several values in one of several a card says only how many they are.
        if self.card.get("kind") != "values" or "items" in part:
            return []
        pointer = quote("/" + str(part["name"]).replace("~", "~0").replace("/", "~1"), safe="")
        forms = _FORMS if part.get("media_type") == PARQUET else (("Download", ""),)
        return [(word, f"{self.address}?part={pointer}{f'&format={form}' if form else ''}") for word, form in forms]

    @property
    def image(self) -> str:
        """The address of an image to be drawn; empty for what is none, or too large."""
        is_drawn = self.card.get("media_type") in _DRAWN and self.card.get("size", 0) <= _MOST_DRAWN
        return self.address if is_drawn else ""

    @property
    def items(self) -> int | None:
        """How many; not asked of the card by a template, which takes the `items` of a dictionary without one."""
        return self.card.get("items")

    @property
    def first_columns(self) -> list[dict[str, Any]]:
        """The columns of the first rows, of which wide tables show only some."""
        rows = self.card.get("first") or [[]]
        columns: list[dict[str, Any]] = self.card.get("columns", [])
        return columns[: len(rows[0])]

    @property
    def text(self) -> str:
        """The beginning of a text or a document."""
        first = self.card.get("first")
        return first if isinstance(first, str) else ""

    @property
    def is_cut(self) -> bool:
        return bool(len(self.card.get("columns", [])) < self.card.get("column_count", 0))

    @property
    def has_changed(self) -> bool:
        change: dict[str, Any] = self.card.get("change", {})
        rows_in, rows_out = change.get("rows_in"), change.get("rows_out")
        if rows_in is not None and rows_out is not None and rows_in != rows_out:
            return True
        return any(change.get(name) for name in ("added", "removed", "retyped"))


@require_safe
@logged_in
def task_card(request: HttpRequest, number: int, task: str) -> HttpResponse:
    try:
        result = queries.one_result(number, task)
    except (NotFoundError, ConflictError, OverflowError) as error:
        raise Http404 from error
    return render(request, "ui/_card.html", {"shown": _shown(result, number), "task": result.task})


def _shown(result: queries.TaskResult, number: int) -> ShownCard:
    return ShownCard(card=result.card or {}, address=reverse("api:data", args=[number, result.task.id]))
